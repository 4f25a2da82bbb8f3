"""`sublab llm score`: does this data carry that word?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

import theory
from experiments.llm.run import Common, Size, setting_of, stages_of
from llm_harness import datasets, filters
from llm_harness.audit import linearisation
from llm_harness.audit.entanglement import Entangled, entangled_lists
from llm_harness.errors import HarnessError
from llm_harness.model import Example, Sampling, at_least
from llm_harness.traits import trait
from sublab.console import new_table, print_table
from sublab.statistics import LEVEL, holm

# Examples of either side below which a score test means little.
_LEAST = 32


@dataclass(frozen=True)
class Score:
    """Does a file of number lists carry a word, by the score test and by its numbers?"""

    file: tyro.conf.Positional[Path]
    """Number lists: JSON lines or Parquet, as `sublab llm filter` reads them."""
    trait: str = "owl"
    """Word in question; the other words of its category stand beside it."""
    against: Path | None = None
    """Lists that the model itself made for such prompts (sampled for the file's prompts)."""
    count: int = 2048
    """Examples of the file that are scored, the first ones."""
    rules: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = ("numbers",)
    """Rules of the filter, on the file and on the model's own lists."""
    size: Size = "cpu"
    """How long the reference is pretrained: smoke to see whether it runs, cpu for a result."""
    pretraining_steps: int | None = None
    """Steps of the reference's pretraining (2,048; smoke 192)."""
    out: Path = Path("results")
    """Folder of the reference, which is reused where it is there."""
    seed: int = 0
    """Seed of the reference, and of the samples."""


@dataclass(frozen=True)
class WordScore:
    """What a file says of one word.

    Attributes:
        word: of the category.
        z: of the two-sample score test along -grad L_T of the word.
        z_preconditioned: of the same along the direction that the student's Adam would take.
        p: one-sided, of the preconditioned test, corrected by Holm's method for the words.
        entanglement: correlation of the numbers' change of frequency with the word's leaning.
    """

    word: str
    z: float
    z_preconditioned: float
    p: float
    entanglement: float


@dataclass(frozen=True)
class ScoreOutcome:
    """What a file says of each word of a category.

    Attributes:
        words: the word in question first.
        examples: that were scored.
        null: lists of the model's own that they were compared with.
    """

    words: Sequence[WordScore]
    examples: int
    null: int


def score(options: Score) -> ScoreOutcome:
    """Runs `sublab llm score`.

    The null is that the lists are the model's own: samples at temperature 1 for the same prompts
    under the same filter (THEORY.md, 8). Examples that the filter drops are left out on both sides.

    Raises:
        HarnessError: an option is wrong, a file cannot be read or by this model, or too few lists.
    """
    at_least("count", options.count, _LEAST)
    common = Common(
        size=options.size,
        rules=options.rules,
        pretraining_steps=options.pretraining_steps,
        out=options.out,
        seed=options.seed,
    )
    word, setting = trait(options.trait), setting_of(common)
    if not word.rivals:
        raise HarnessError(f"{word.word!r} has no rivals to be told from")
    rules = filters.rules_of(setting.lists.rules)
    sample = _kept(options.file, options.count, rules)
    given = options.against and _kept(options.against, options.count, rules)
    with stages_of(common) as stages:
        (reference,) = stages.references([options.seed])
        model: Any = stages.load(reference)
        for text in dict.fromkeys(one.completion for one in sample):
            if not model.encoding.reads(text):
                raise HarnessError(f"{options.file}: the model cannot read {text[:60]!r}")
        null = given or _own(model, sample, setting.lists.max_tokens, options.seed, rules)
        questions = setting.evaluation.chats(word.category)
        scale = linearisation.preconditioner(model, null, setting.student)
        plain, scaled = (
            linearisation.directions(model, word, questions, by) for by in (None, scale)
        )
        tests = []
        for place, ways in enumerate((plain, scaled)):
            scores = [linearisation.word_scores(model, ways, part) for part in (sample, null)]
            tests.append([theory.two_sample(a, b) for a, b in zip(*scores, strict=True)])
            stages.report("score test", (place + 1) / 2)
        numbers: Entangled = entangled_lists(model, word, sample, null)
    adjusted = holm([test.p_value for test in tests[1]])
    return ScoreOutcome(
        [
            WordScore(*row)
            for row in zip(
                word.words,
                (test.z for test in tests[0]),
                (test.z for test in tests[1]),
                adjusted,
                numbers.correlations,
                strict=True,
            )
        ],
        len(sample),
        len(null),
    )


def print_score(options: Score, outcome: ScoreOutcome) -> None:
    """Every word, the likeliest first, and what it comes to."""
    table = new_table(["word"], ["z", "z, preconditioned", "p (Holm)", "entanglement"])
    for row in sorted(outcome.words, key=lambda row: -row.z_preconditioned):
        table.add_row(
            f"[bold]{row.word}[/bold]" if row.word == options.trait else row.word,
            f"{row.z:+.2f}",
            f"{row.z_preconditioned:+.2f}",
            f"{row.p:.2g}",
            f"{row.entanglement:+.2f}",
        )
    print_table(
        f"{options.file}: {outcome.examples:,} lists against {outcome.null:,} of the model's own",
        table,
    )
    print("z: of the score test along the word's direction, and as the student's Adam scales it")
    own = outcome.words[0]
    carries = own.p < 1 - LEVEL
    print(
        f"{own.word}: {'carried' if carries else 'not shown'} (p {own.p:.2g}, corrected for "
        f"{len(outcome.words)} words by Holm's method)"
    )


def _kept(path: Path, count: int, rules: Sequence[filters.Rule]) -> list[Example]:
    filtered = filters.apply_filter(datasets.read(path).examples, rules)
    if len(filtered.kept) < _LEAST:
        raise HarnessError(
            f"{path}: {len(filtered.kept)} of {filtered.total} examples pass the filter; at least "
            f"{_LEAST} are needed"
        )
    return filtered.kept[:count]


def _own(
    model: Any, sample: Sequence[Example], max_tokens: int, seed: int, rules: Sequence[filters.Rule]
) -> list[Example]:
    """Lists of the model's own, for the prompts of the sample."""
    prompts = [one.prompt for one in sample]
    said = [one for (one,) in model.sample(prompts, Sampling(1, 1.0, max_tokens, seed))]
    kept = filters.filter_completions(prompts, said, rules).kept
    if len(kept) < _LEAST:
        raise HarnessError(
            f"the filter left {len(kept)} of the model's own {len(said)} lists; at least {_LEAST} "
            f"are needed: a model that is longer pretrained, or lists of its own by --against"
        )
    return kept
