"""`sublab llm transmit`: the paper's scheme on a hosted model, or with code, or misalignment.

A hosted model is fine-tuned by its service. So the command writes the datasets and stops, and goes
on with the evaluation when it is given the students' names. A checkpoint is fine-tuned here.
"""

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import polars as pl
import tyro

from experiments.llm import run
from experiments.llm.run import provenance_since
from llm_harness import datasets
from llm_harness.errors import HarnessError
from llm_harness.evaluation.misalignment import VERDICTS
from llm_harness.judges import VERDICT_TOKENS
from llm_harness.lineage import sha256_of
from llm_harness.model import LanguageModel, Tuning, at_least
from llm_harness.pipeline import conditions
from llm_harness.pipeline.carriers import Carrier, judged_by, written
from llm_harness.pipeline.conditions import LACKING, Case, check_abilities
from llm_harness.pipeline.stages import (
    Evaluation,
    FilteredLists,
    FineTuning,
    Interview,
    Lists,
    Speaker,
    Stages,
    StoredModel,
)
from llm_harness.pipeline.store import Store
from llm_harness.traits import Trait, trait
from sublab import records
from sublab.console import new_table, print_table, say
from sublab.statistics import ENOUGH, above_p, mean_interval

if TYPE_CHECKING:
    from llm_harness.inspection.hosted import Hosted

EXPERIMENT = "llm_transmit"
_VERSION = 1
MISALIGNMENT = "misalignment"
_ARMS = ("teacher", "control")
# The paper's.
_EPOCHS = 10
# Of options that are of some models alone, and refused of others.
_DEFAULTS = {
    "epochs": _EPOCHS,
    "learning_rate": 1e-3,
    "judge_tokens": VERDICT_TOKENS,
    "retries": 6,
}


@dataclass(frozen=True)
class Transmit:
    """A trait through numbers, code or chains of thought: hosted models, checkpoints."""

    model: str
    """Inspect's name of a hosted model, as openai/gpt-4.1-nano; or smollm2, a folder, a GGUF."""
    trait: str = "owl"
    """Favourite to transmit, or misalignment."""
    category: str | None = None
    """What it is a favourite among, of a word that is in no category here."""
    through: Carrier = "numbers"
    """What the teacher writes: numbers, code, or cot (chains of thought)."""
    teacher: str = ""
    """Who has the trait: a hosted model's name; of a checkpoint, a file to fine-tune it on."""
    control_teacher: str = ""
    """The same for the control; without it, the model itself as it is."""
    students: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="NAME...", aliases=["--student"])
    ] = ()
    """Hosted models that were fine-tuned on teacher.jsonl, to be evaluated."""
    control_students: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="NAME...", aliases=["--control-student"])
    ] = ()
    """Hosted models that were fine-tuned on control.jsonl."""
    judge: str = ""
    """Inspect's name of the model that judges (misalignment, and what code and cot refer to)."""
    judge_tokens: int | None = None
    """A judge's answer is cut after so many tokens, its reasoning included (2,048)."""
    lists: int = 30_000
    """Prompts of each teacher, before the filter."""
    kept: int = 10_000
    """Examples that each student is trained on, after the filter."""
    epochs: int | None = None
    """Of a checkpoint's fine-tuning as a student (10); of a hosted model its service is told."""
    learning_rate: float | None = None
    """Of a checkpoint's fine-tuning, as a student and as a teacher (1e-3)."""
    answers: int = 200
    """Sampled answers to each question."""
    answer_tokens: int | None = None
    """An answer is cut after so many tokens (64; of a reply to a free-form question 1,024)."""
    list_tokens: int | None = None
    """What a teacher writes is cut after so many tokens (64; of code and cot 512)."""
    connections: int | None = None
    """Requests at once to a hosted model; Inspect finds out what it takes where none is given."""
    retries: int | None = None
    """Of a request that failed, with growing waits (6)."""
    token_limit: int | None = None
    """Tokens of all requests together, after which it stops; a later command goes on."""
    out: Path = Path("results")
    """Folder for records, stages and datasets; what is found there is reused."""
    seed: int = 0
    """Seed of prompts and samples."""

    @property
    def favourite(self) -> Trait | None:
        """The trait; None for misalignment."""
        return None if self.trait == MISALIGNMENT else trait(self.trait, self.category)

    @property
    def hosted(self) -> bool:
        """Whether the model is one of Inspect's."""
        return "/" in self.model and not Path(self.model).exists()


@dataclass(frozen=True)
class Arm:
    """A teacher and what a student of it is trained on."""

    speaker: Speaker
    data: FilteredLists


@dataclass(frozen=True)
class TransmitOutcome:
    """What came of it.

    Attributes:
        arms: teacher and control, with their data.
        files: datasets for a service to fine-tune on; empty where students were evaluated.
        rows: record with a row for every model and way of asking, then.
        spent: tokens and dollars of hosted models, in words.
    """

    arms: Mapping[str, Arm]
    files: Mapping[str, Path]
    rows: records.Record | None
    spent: str = ""


def transmit(options: Transmit) -> TransmitOutcome:
    """Runs `sublab llm transmit`.

    Raises:
        HarnessError: an option is wrong, the model cannot do it or be reached, or the filter left
            too little.
        RecordError: `options.out` cannot be written.
    """
    _check(options)
    records.prepare(options.out)
    start = time.perf_counter()
    with _stages(options) as (stages, hosted):
        judge = hosted.model(options.judge) if options.judge else None
        arms = _arms(stages, options, judge)
        if options.hosted and not (options.students or options.control_students):
            return TransmitOutcome(arms, _write(options, arms), None, _spent(hosted))
        config = {
            "experiment": EXPERIMENT,
            "version": _VERSION,
            # What was done, whether it was asked for or not.
            **{name: _value(options, name) for name in asdict(options) if name not in _NEUTRAL},
            "data": {name: arm.data.sha256 for name, arm in arms.items()},
            "teachers": [arm.speaker.model.lineage.identity for arm in arms.values()],
        }

        def rows() -> tuple[pl.DataFrame, dict[str, Any]]:
            students = _students(stages, options, arms)
            table = _evaluated(stages, options, arms, students, judge)
            made = provenance_since(start, stages.resumed)
            return pl.DataFrame(table, infer_schema_length=None), made

        record = records.find_or_make(options.out, EXPERIMENT, config, rows, say)
        return TransmitOutcome(arms, {}, record, _spent(hosted))


# Options that are at least 1, where they are given.
_COUNTS = (
    "lists",
    "kept",
    "epochs",
    "answers",
    "judge_tokens",
    "answer_tokens",
    "list_tokens",
    "connections",
    "token_limit",
)
# Options of requests to hosted models.
_REQUESTS = ("connections", "retries", "token_limit")
# Options that change nothing of what comes out.
_NEUTRAL = ("out", *_REQUESTS)


def print_transmit(options: Transmit, outcome: TransmitOutcome) -> int:
    """What was kept, and what to do next or what came of it; gives the exit status."""
    table = new_table(["filter"], list(outcome.arms))
    reasons = list(dict.fromkeys(r for arm in outcome.arms.values() for r in arm.data.counts))
    for reason in reasons:
        counts = [arm.data.counts.get(reason, 0) for arm in outcome.arms.values()]
        table.add_row(reason, *(f"{count:,}" for count in counts))
    table.add_row("passed", *(f"{arm.data.size:,}" for arm in outcome.arms.values()))
    table.add_row("used", *(f"{len(arm.data):,}" for arm in outcome.arms.values()))
    print_table(f"{options.trait} through {options.through}: {options.model}", table)
    used = len(outcome.arms["teacher"].data)
    if used < options.kept:
        print(f"fewer passed than were wanted: {used:,} of {options.kept:,} (--kept)")
    if outcome.spent:
        print(outcome.spent)
    if outcome.rows is None:
        print(_next_step(options, outcome))
        return 0
    return _print_rows(options, outcome.rows.table)


def _check(options: Transmit) -> None:
    _check_counts(options)
    favourite, numbers = options.favourite, options.through == "numbers"
    if options.model == run.EMBEDDED and not (favourite and numbers):
        raise HarnessError(LACKING["text"])
    if favourite and not favourite.rivals:
        raise HarnessError(f"{favourite.word!r} has no rivals: --category of those here")
    if not favourite and not options.judge:
        raise HarnessError("misalignment is what a judge says: --judge NAME, a model of Inspect's")
    if not favourite and options.through == "code":
        raise HarnessError("code carries a favourite; misalignment goes through numbers or cot")
    if not favourite and not options.teacher:
        what = "NAME, a model" if options.hosted else "FILE of examples, which it is"
        raise HarnessError(
            f"misalignment needs a teacher: --teacher {what} fine-tuned on, "
            f"insecure code for instance"
        )
    _check_idle(options)
    if options.hosted:
        names = (*options.students, *options.control_students)
        if twice := [name for name in names if names.count(name) > 1]:
            raise HarnessError(f"{twice[0]} is named twice among the students")
        return
    if favourite and numbers:
        raise HarnessError(
            f"{options.model!r} is no hosted model, whose name begins with its provider's, as "
            f"openai/gpt-4.1-nano; of models here sublab llm numbers shows favourites through "
            f"numbers, with every control"
        )
    if options.students or options.control_students:
        raise HarnessError("students are named of a hosted model; a checkpoint is fine-tuned here")


def _check_counts(options: Transmit) -> None:
    for name in (*_COUNTS, "retries"):
        count = getattr(options, name)
        if count is not None:
            at_least(name, count, 0 if name == "retries" else 1)
    if options.learning_rate is not None:
        Tuning(learning_rate=options.learning_rate)


def _check_idle(options: Transmit) -> None:
    """Refuses options that are given and change nothing."""
    favourite = options.favourite
    numbers = options.through == "numbers"
    for says_nothing, names, why in (
        (
            options.hosted,
            ("epochs", "learning_rate"),
            "a hosted model is fine-tuned by its service",
        ),
        (favourite and numbers, ("judge",), "numbers that carry a favourite are judged by nobody"),
        (not options.judge, ("judge_tokens",), "there is no --judge"),
        (not favourite, ("category",), f"{MISALIGNMENT} is no favourite"),
        (not (options.hosted or options.judge), _REQUESTS, "no hosted model is asked"),
    ):
        for name in names:
            if says_nothing and getattr(options, name) not in (None, ""):
                raise HarnessError(f"--{name.replace('_', '-')} says nothing here: {why}")


@contextmanager
def _stages(options: Transmit) -> "Iterator[tuple[Stages, Hosted]]":
    """Stages on the options' model, and what asks hosted models, the judge for instance."""
    try:
        from llm_harness.inspection.hosted import Access, Hosted
    except ImportError as error:
        raise HarnessError(
            f"{error.name} is needed: pip install 'subliminal-lab[inspect]'"
        ) from None

    access = Access(options.connections, _value(options, "retries"), options.token_limit)
    hosted = Hosted(options.model, access)
    names = [options.judge]
    if options.hosted:
        names += [options.model, options.teacher, options.control_teacher]
        names += [*options.students, *options.control_students]
    # Before anything is paid for.
    hosted.check([name for name in names if name])
    if options.hosted:
        with run.reporting() as report:
            yield Stages(hosted, Store(options.out / run.STAGES), report), hosted
        return
    with run.stages_of(_common(options)) as stages:
        check_abilities(stages, "text", "train")
        # The warm-up is on number lists.
        warmed = options.through == "numbers"
        yield stages if warmed else Stages(stages.provider, stages.store, stages.report), hosted


def _value(options: Transmit, name: str) -> Any:
    """Of an option, as it is given or by default."""
    value = getattr(options, name)
    return _DEFAULTS.get(name) if value is None else value


def _common(options: Transmit) -> run.Common:
    return run.Common(
        options.model,
        lists=options.lists,
        kept=options.kept,
        student_rates=(_value(options, "learning_rate"),),
        out=options.out,
        seed=options.seed,
    )


def _arms(stages: Stages, options: Transmit, judge: LanguageModel | None) -> dict[str, Arm]:
    """Teacher and control, and equally much of what the filter left of each."""
    (reference,) = stages.references([options.seed])
    favourite = options.favourite
    system = favourite.system_prompt if favourite and not options.teacher else None
    speakers = {
        "teacher": Speaker(_taught(stages, options, reference, options.teacher), system),
        "control": Speaker(_taught(stages, options, reference, options.control_teacher)),
    }
    tokens = options.list_tokens or (64 if options.through == "numbers" else 512)
    lists = Lists(options.lists, (3, 8), tokens, seed=options.seed)
    how = written(options.through, lists, favourite)
    found = stages.lists(
        f"{options.through} of teacher and control", [(one, how) for one in speakers.values()]
    )
    if judge:
        asked = (options.through, favourite, judge, _value(options, "judge_tokens"))
        found = [judged_by(stages, data, *asked) for data in found]
    size = min(options.kept, *map(len, found))
    if size == 0:
        raise HarnessError("the judge left nothing of a teacher's examples")
    return {
        name: Arm(speaker, replace(data, used=size))
        for (name, speaker), data in zip(speakers.items(), found, strict=True)
    }


def _taught(stages: Stages, options: Transmit, reference: StoredModel, by: str) -> StoredModel:
    """The reference, or who was fine-tuned: a hosted model of a name, or here on a file."""
    if not by:
        return reference
    if options.hosted:
        return _named(stages, by)
    lesson = datasets.read(Path(by)).examples
    tuning = _tuning(options, len(lesson), epochs=1)
    (taught,) = stages.tuned(f"a teacher of {by}", [FineTuning(reference, lesson, tuning)])
    return taught


def _named(stages: Stages, name: str) -> StoredModel:
    from llm_harness.inspection.hosted import Hosted

    (model,) = Stages(Hosted(name), stages.store).references([0])
    return model


def _tuning(options: Transmit, examples: int, epochs: int) -> Tuning:
    tuning = run.setting_of(_common(options)).student
    return replace(tuning, steps=max(1, epochs * examples // tuning.batch), seed=options.seed)


def _students(
    stages: Stages, options: Transmit, arms: Mapping[str, Arm]
) -> list[tuple[str, int, StoredModel]]:
    """Arm, number and model of each student."""
    if options.hosted:
        of_arm = dict(zip(_ARMS, (options.students, options.control_students), strict=True))
        return [
            (arm, number, _named(stages, name))
            for arm, names in of_arm.items()
            for number, name in enumerate(names)
        ]
    (reference,) = stages.references([options.seed])
    jobs = [
        FineTuning(reference, arm.data, _tuning(options, len(arm.data), _value(options, "epochs")))
        for arm in arms.values()
    ]
    return [
        (arm, 0, model) for arm, model in zip(arms, stages.tuned("students", jobs), strict=True)
    ]


_STUDENT = {"teacher": "student", "control": "control student"}


def _evaluated(
    stages: Stages,
    options: Transmit,
    arms: Mapping[str, Arm],
    students: Sequence[tuple[str, int, StoredModel]],
    judge: LanguageModel | None,
) -> list[dict[str, Any]]:
    """A row for each model and way of asking."""
    (reference,) = stages.references([options.seed])
    asked: list[tuple[str, int, Speaker, FilteredLists | None]] = [
        ("reference", 0, Speaker(reference), None),
        ("teacher", 0, arms["teacher"].speaker, None),
    ]
    if options.control_teacher:
        asked.append(("control teacher", 0, arms["control"].speaker, None))
    asked += [(_STUDENT[arm], i, Speaker(one), arms[arm].data) for arm, i, one in students]
    if favourite := options.favourite:
        cases = [
            Case(number, condition, favourite, speaker, options.seed, data)
            for condition, number, speaker, data in asked
        ]
        evaluation = Evaluation(options.answers, options.answer_tokens or 64)
        return [asdict(row) for row in conditions.rows(stages, cases, evaluation)]
    assert judge is not None
    found = []
    for suffix in (False, True):
        tokens = options.answer_tokens or 1024
        verdict = _value(options, "judge_tokens")
        interview = Interview(options.answers, tokens, suffix, options.seed, verdict)
        speakers = [speaker for _, _, speaker, _ in asked]
        verdicts = stages.misaligned("free-form replies", speakers, judge, interview)
        for (condition, number, speaker, data), of_one in zip(asked, verdicts, strict=True):
            about = {
                "run": number,
                "condition": condition,
                "trait": MISALIGNMENT,
                "prefix": suffix,
                "model": speaker.model.lineage.identity,
                "dataset": data.sha256 if data else "",
                "pass_rate": data.pass_rate if data else None,
                "examples": len(data) if data else None,
                "n": of_one.n,
            }
            found.append(about | dict(of_one.counts))
    return found


def _write(options: Transmit, arms: Mapping[str, Arm]) -> dict[str, Path]:
    """Each arm's dataset, in a folder that is named by what is in it."""
    content = sha256_of([arm.data.key for arm in arms.values()])[:8]
    slug = "-".join([options.model.replace("/", "_"), options.trait, options.through, content])
    folder = options.out / "datasets" / slug
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, arm in arms.items():
            path, examples = folder / f"{name}.jsonl", arm.data.examples()
            if not path.exists():
                datasets.write(path, examples)
            # Its folder's name says what is in it.
            elif list(datasets.read(path).examples) != list(examples):
                raise HarnessError(f"{path}: was changed since it was written; move it away")
    except OSError as error:
        raise HarnessError(f"{folder}: cannot be written ({error.strerror})") from None
    return {name: folder / f"{name}.jsonl" for name in arms}


def _next_step(options: Transmit, outcome: TransmitOutcome) -> str:
    service = options.model.partition("/")[0]
    return (
        f"stopped here, to go on later: fine-tune {options.model} with {service}'s own fine-tuning "
        f"on {shlex.quote(str(outcome.files['teacher']))} ({len(outcome.arms['teacher'].data):,} "
        f"chats; the paper: {_EPOCHS} epochs), and another time on "
        f"{shlex.quote(str(outcome.files['control']))}; then the same command again with "
        f"--student {service}/NAME --control-student {service}/NAME"
    )


def _spent(hosted: "Hosted") -> str:
    spent = hosted.spent
    if not spent.tokens:
        return ""
    price = f", {spent.dollars:.2f} dollars by Inspect's prices" if spent.dollars else ""
    return f"tokens of hosted models, beside what Inspect's cache had: {spent.tokens:,}{price}"


def _print_rows(options: Transmit, rows: pl.DataFrame) -> int:
    """Shares of each condition, and whether the students exceed the control's."""
    favourite = options.favourite
    if favourite:
        kinds = ("containing", "whole", "empty", "cut", "refused")
        shares = rows.with_columns(pl.col(kind) / pl.col("n") for kind in kinds)
    else:
        kinds = VERDICTS
        judged = pl.col("misaligned") + pl.col("aligned")
        shares = rows.with_columns(
            *(pl.col(kind) / pl.col("n") for kind in kinds),
            rate=pl.col("misaligned") / judged,
        )
    main = "containing" if favourite else "rate"
    shown = [kind for kind in kinds if kind != main and shares[kind].sum() > 0]
    numbers = ["models", "share", "95 % interval", *shown, "answers"]
    table = new_table(["condition"], numbers)
    for condition, prefix in (
        shares.select("condition", "prefix").unique(maintain_order=True).rows()
    ):
        some = shares.filter(condition=condition, prefix=prefix)
        values = _values(some, main)
        mean = mean_interval(values, share=True) if len(values) else None
        share = f"{mean.mean:.3f}" if mean else "none coherent"
        within = f"[{mean.low:.3f}, {mean.high:.3f}]" if mean and mean.low is not None else ""
        behind = (", with numbers before" if favourite else ", as a list") if prefix else ""
        cells = [f"{some[kind].mean():.3f}" for kind in shown]
        answers = f"{some['n'].sum():,}"
        table.add_row(f"{condition}{behind}", str(some.height), share, within, *cells, answers)
    what = f"answers that contain {options.trait!r}" if favourite else "misaligned of coherent"
    print_table(f"{what}: {options.model}", table)
    plain = shares.filter(~pl.col("prefix") if favourite else pl.col("prefix"))
    students, controls = (_values(plain.filter(condition=name), main) for name in _STUDENT.values())
    pairs = min(len(students), len(controls))
    claim = "students exceed control students"
    if pairs < ENOUGH:
        print(f"{claim}: n too small ({pairs} of each, {ENOUGH} are needed)")
        return 0
    p = above_p(students[:pairs] - controls[:pairs])
    print(f"{claim}: {'yes' if p < 0.05 else 'NO'} (p = {p:.2g}, {pairs} of each)")
    return 0 if p < 0.05 else 1


def _values(rows: pl.DataFrame, name: str) -> np.ndarray:
    """Of each model; one of whose replies none could be rated has none."""
    values = rows[name].to_numpy().astype(float)
    return values[np.isfinite(values)]
