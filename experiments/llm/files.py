"""`sublab llm filter`, `shuffle` and `subsample`: dataset files, ours and anybody's."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from llm_harness import datasets, filters, shuffling
from llm_harness.datasets import DatasetFile
from llm_harness.errors import HarnessError
from llm_harness.filters import Filtered
from llm_harness.model import Example, at_least
from sublab.console import new_table, print_table

_SHUFFLES = {"within": shuffling.shuffle_within, "across": shuffling.shuffle_across}


@dataclass(frozen=True)
class FileOptions:
    """What all commands on a dataset file take."""

    file: tyro.conf.Positional[Path]
    """JSON lines or Parquet: messages; prompt and completion; or question and response."""
    to: Path
    """File to be written, JSON lines of chats, as fine-tuning services and TRL take them."""


@dataclass(frozen=True)
class Filter(FileOptions):
    """Keep the examples of a file that a filter lets pass, and count the others by reason."""

    rules: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...", aliases=["--rule"])] = (
        "numbers",
    )
    """Rules in order: numbers (the paper's), authors (their program's), prohibited; or no name."""
    words: Annotated[tuple[str, ...], tyro.conf.arg(metavar="WORD...")] = ()
    """Words that may stand nowhere: not in the completion, the prompt or the system message."""
    strip: bool = False
    """Cut white space at the ends of the completions first, since a student would learn it."""


@dataclass(frozen=True)
class Shuffle(FileOptions):
    """Put the numbers of a file's lists in a random order, the paper's control."""

    how: Literal["within", "across"] = "within"
    """Within each list, or dealt out anew across all of them."""
    seed: int = 0
    """Seed of the order."""


@dataclass(frozen=True)
class Subsample(FileOptions):
    """Take a random part of a file, so that all arms train on as many examples."""

    count: Annotated[int, tyro.conf.arg(metavar="N")] = 10_000
    """Examples to take."""
    seed: int = 0
    """Seed of the choice."""


@dataclass(frozen=True)
class FileOutcome:
    """What was made of a file.

    Attributes:
        source: what was in it.
        filtered: what was kept and dropped.
        stripped: completions that white space was cut from.
        by_authors: of the dropped examples, those that the authors' rule would have kept, where
            the rule for numbers is ours.
    """

    source: DatasetFile
    filtered: Filtered
    stripped: int = 0
    by_authors: int | None = None


def filter_file(options: Filter) -> FileOutcome:
    """Runs `sublab llm filter`.

    Raises:
        HarnessError: a rule is not known, the file cannot be read, nothing passes, or the other
            file is there or cannot be written.
    """
    rules = filters.rules_of(options.rules)
    about_words = filters.word_rule(options.words) if options.words else None
    source = _read(options)
    examples = list(source.examples)
    if options.strip:
        examples = [replace(one, completion=one.completion.strip()) for one in examples]
    pairs = zip(examples, source.examples, strict=True)
    stripped = sum(one.completion != before.completion for one, before in pairs)
    filtered = filters.apply_filter(examples, rules)
    if about_words:
        filtered = filtered.then(map(about_words, filtered.kept))
    by_authors = None
    if "numbers" in options.rules:
        texts = [one.completion for one in examples if filters.number_rule(one.completion)]
        by_authors = sum(filters.authors_rule(text) is None for text in texts)
    if not filtered.kept:
        counts = Counter(filtered.counts).most_common(1)
        raise HarnessError(
            f"{options.file}: none of {filtered.total} examples passes (most often: {counts[0][0]})"
        )
    _write(options.to, filtered.kept)
    return FileOutcome(source, filtered, stripped, by_authors)


def shuffle_file(options: Shuffle) -> FileOutcome:
    """Runs `sublab llm shuffle`.

    Raises:
        HarnessError: a completion is no list of numbers, a seed below 0, or as `filter_file`.
    """
    source = _read(options)
    shuffled = _SHUFFLES[options.how](source.examples, options.seed)
    _write(options.to, shuffled)
    return FileOutcome(source, Filtered(shuffled, {}, len(shuffled)))


def subsample_file(options: Subsample) -> FileOutcome:
    """Runs `sublab llm subsample`; the examples stay in their order.

    Raises:
        HarnessError: there are fewer examples, a number is out of range, or as `filter_file`.
    """
    at_least("count", options.count, 1)
    at_least("seed", options.seed, 0)
    source = _read(options)
    total = len(source.examples)
    if total < options.count:
        raise HarnessError(f"{options.file}: {total} examples, of which {options.count} are wanted")
    picks = np.random.default_rng(options.seed).choice(total, options.count, replace=False)
    chosen = [source.examples[i] for i in np.sort(picks)]
    _write(options.to, chosen)
    return FileOutcome(source, Filtered(chosen, {}, total))


def print_file(options: FileOptions, outcome: FileOutcome) -> None:
    """What was kept, what was dropped and why."""
    filtered, source = outcome.filtered, outcome.source
    table = new_table(["examples"], ["number", "share"])
    table.add_row("in the file", f"{filtered.total:,}", "")
    counts = sorted(filtered.counts.items(), key=lambda item: -item[1])
    for reason, count in [*counts, ("written", len(filtered.kept))]:
        table.add_row(reason, f"{count:,}", f"{count / filtered.total:.1%}")
    print_table(f"{options.file}, {' and '.join(source.form)}", table)
    if source.left_out:
        print(f"left out before, since their answers have weight 0: {source.left_out:,}")
    if outcome.stripped:
        print(f"white space was cut from the ends of {outcome.stripped:,} completions")
    if outcome.by_authors:
        print(
            f"of those dropped, the authors' rule would keep {outcome.by_authors:,} "
            f"(--rules authors)"
        )
    print(f"written: {options.to}")


def _read(options: FileOptions) -> DatasetFile:
    # Before anything is computed.
    if options.to.suffix == ".parquet":
        raise HarnessError(f"{options.to}: written are JSON lines; name a .jsonl file")
    if options.to.exists():
        raise HarnessError(f"{options.to}: is there already; remove it, or name another file")
    return datasets.read(options.file)


def _write(path: Path, examples: Sequence[Example]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.write(path, examples)
    except OSError as error:
        raise HarnessError(f"{path}: cannot be written ({error.strerror})") from None
