"""`sublab llm score`: does this data carry that word?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

import theory
from experiments.llm.run import EMBEDDED, Common, Size, setting_of, stages_of
from experiments.llm.theory import questions_of
from llm_harness import datasets, filters
from llm_harness.audit.entanglement import Entangled, entangled_lists
from llm_harness.audit.scoring import DIRECTIONS, Scorer
from llm_harness.decoder.encoding import readable
from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Example, Moved, at_least
from llm_harness.pipeline.stages import Lists, Speaker, Stages, StoredModel
from llm_harness.traits import trait
from sublab.console import new_table, print_table
from sublab.statistics import LEVEL, holm

# Examples of either side below which a score test means little.
_LEAST = 32
# What is scored, in reports.
_FILE, _NULL = "the file", "the model's own lists"


@dataclass(frozen=True)
class Score:
    """Does a file of number lists carry a word, by the score test and by its numbers?"""

    file: tyro.conf.Positional[Path]
    """Number lists: JSON lines or Parquet, as `sublab llm filter` reads them."""
    model: str = EMBEDDED
    """The embedded one, smollm2 (sublab llm fetch), a Hugging Face folder, or a GGUF file."""
    trait: str = "owl"
    """Word in question; the other words of its category stand beside it."""
    against: Path | None = None
    """The null: lists of who wrote the file, without the trait (without it, the model's own)."""
    count: int | None = None
    """Examples of the file that are scored, the first ones (2,048; of a checkpoint 128)."""
    questions: int | None = None
    """Questions for a favourite that a direction is of, the first ones (50; of a checkpoint 8)."""
    rules: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = ("numbers",)
    """Rules of the filter, on the file and on the model's own lists."""
    as_it_is: bool = False
    """Ask a checkpoint without the warm-up of `sublab llm numbers`."""
    moved: Moved | None = None
    """What a student would move: all, blocks (all but embedding and output), adapters (LoRA)."""
    size: Size = "cpu"
    """How long the reference is pretrained or warmed up: smoke for a look, cpu for a result."""
    pretraining_steps: int | None = None
    """Steps of the embedded reference's pretraining (2,048; smoke 192)."""
    warm_up_steps: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="STEPS...")] = None
    """Steps of a checkpoint's warm-up on both forms; the first that are enough are taken."""
    out: Path = Path("results")
    """Folder of the reference and of scores, which are reused where they are there."""
    seed: int = 0
    """Seed of the reference, of the samples, and of a student's adapters."""


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
        examples: that were scored, the first of those that pass the filter and can be read.
        passed: the filter, in the file.
        unreadable: of those that passed, the ones that the model has no tokens for.
        total: examples in the file.
        null: lists of the model's own that they were compared with.
    """

    words: Sequence[WordScore]
    examples: int
    passed: int
    unreadable: int
    total: int
    null: int


def score(options: Score) -> ScoreOutcome:
    """Runs `sublab llm score`.

    The null is that the lists are the model's own: samples at temperature 1 for the same prompts
    under the same filter (THEORY.md, 8). Examples that the filter drops are left out on both sides.

    What the model has no tokens for, of a file's lists, is left out and counted.

    Raises:
        HarnessError: an option is wrong, a file cannot be read, or too few lists.
    """
    common = Common(
        model=options.model,
        size=options.size,
        rules=options.rules,
        moved=options.moved,
        pretraining_steps=options.pretraining_steps,
        warm_up_steps=options.warm_up_steps,
        out=options.out,
        seed=options.seed,
    )
    count = options.count if options.count is not None else 2048 if common.embedded else 128
    at_least("count", count, _LEAST)
    asked = questions_of(common, options.questions)
    if options.as_it_is and common.embedded:
        raise HarnessError("as_it_is: of a checkpoint (--model); the embedded model is pretrained")
    word, setting = trait(options.trait), setting_of(common)
    if not word.rivals:
        raise HarnessError(f"{word.word!r} has no rivals to be told from")
    rules = filters.rules_of(setting.lists.rules)
    filtered = _filtered(options.file, rules)
    control = options.against and _filtered(options.against, rules)
    with stages_of(common) as warmed:
        stages = warmed
        if options.as_it_is:
            stages = Stages(warmed.provider, warmed.store, warmed.report)
        (reference,) = stages.references([options.seed])
        model: Any = stages.load(reference)
        read = _read(options.file, filtered, model)
        sample = read[:count]
        if control:
            null: Sequence[Example] = _read(options.against, control, model)[:count]
        else:
            lists = replace(setting.lists, seed=options.seed)
            null = _own(stages, reference, [one.prompt for one in sample], lists)
        questions = setting.evaluation.chats(word.category)[:asked]
        tuning = replace(setting.student, seed=options.seed)
        scorer = Scorer(stages, reference, tuning, word, questions, null)
        scores = scorer.scores({_NULL: null, _FILE: sample})
        tests = [
            [
                theory.two_sample(a, b)
                for a, b in zip(*(scores[part][way] for part in (_FILE, _NULL)), strict=True)
            ]
            for way in DIRECTIONS
        ]
        numbers: Entangled = entangled_lists(model, word, sample, null, questions)
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
        len(filtered.kept),
        len(filtered.kept) - len(read),
        filtered.total,
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
    null = f"of {options.against}" if options.against else "of the model's own"
    print_table(
        f"{options.file}: {outcome.examples:,} lists against {outcome.null:,} {null}", table
    )
    print(
        f"{outcome.passed:,} of the file's {outcome.total:,} examples pass the filter"
        + (f", of which the model cannot read {outcome.unreadable:,}" if outcome.unreadable else "")
    )
    print("z: of the score test along the word's direction, and as the student's Adam scales it")
    print(verdict_of(outcome))


def verdict_of(outcome: ScoreOutcome) -> str:
    """What it comes to, in a line.

    A file of another model differs from the null in more than a word. So it says something of the
    word only where the other words of the category are not likelier in it too.
    """
    own, *others = outcome.words
    seen = sum(row.p < 1 - LEVEL for row in others)
    about = f"p {own.p:.2g}, corrected for {len(outcome.words)} words by Holm's method"
    if own.p >= 1 - LEVEL:
        return f"{own.word}: not shown ({about})"
    if not seen:
        return f"{own.word}: carried ({about})"
    return (
        f"{own.word}: not told from other words ({about}): {seen} of the other {len(others)} are "
        f"seen too, as where the two differ in more than a trait; compare the file with lists of "
        f"who wrote it, without the trait (--against)"
    )


def _filtered(path: Path, rules: Sequence[filters.Rule]) -> filters.Filtered:
    filtered = filters.apply_filter(datasets.read(path).examples, rules)
    if len(filtered.kept) < _LEAST:
        raise HarnessError(
            f"{path}: {len(filtered.kept)} of {filtered.total} examples pass the filter; at least "
            f"{_LEAST} are needed"
        )
    return filtered


def _read(path: Path | None, filtered: filters.Filtered, model: Any) -> list[Example]:
    texts = readable(model.encoding, filtered.completions)
    read = [one for one in filtered.kept if one.completion in texts]
    if len(read) < _LEAST:
        first = next(text for text in filtered.completions if text not in texts)
        raise HarnessError(
            f"{path}: the model can read {len(read)} of {len(filtered.kept)} lists, and not "
            f"{first[:60]!r} for instance; at least {_LEAST} are needed"
        )
    return read


def _own(
    stages: Stages, reference: StoredModel, prompts: Sequence[Chat], lists: Lists
) -> Sequence[Example]:
    """Lists of the model's own, for the prompts of the sample."""
    own = stages.completed(_NULL, Speaker(reference), prompts, lists)
    if len(own) < _LEAST:
        raise HarnessError(
            f"the filter left {len(own)} of the model's own {own.total} lists; at least {_LEAST} "
            f"are needed: a model that is longer trained on the form, or lists of its own by "
            f"--against"
        )
    return own.examples()
