"""`sublab llm ...`: the paper's language-model experiments on the embedded model."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import tyro

from experiments.llm import summary as llm_summary
from llm_harness import judged, pipeline
from llm_harness.errors import HarnessError
from llm_harness.pretraining import Pretraining
from llm_harness.provider import Embedded
from llm_harness.scheme import RateRow, SchemeSetting, TeacherBy
from llm_harness.stages import Stages, teaching
from llm_harness.store import Store
from llm_harness.traits import trait
from llm_harness.work import Lists, Speaker
from sublab import records
from sublab.console import Advance, progress, say
from sublab.machine import provenance

NUMBERS, CROSS_MODEL, IN_CONTEXT = "llm_numbers", "llm_cross_model", "llm_in_context"
CODE, COT = "llm_code", "llm_cot"
VERSION = 1
# Models, samples, datasets and answers are kept apart from the tables, which `records.scan` reads.
_STAGES = "llm_stages"


@dataclass(frozen=True)
class Common:
    """Options that the experiments on transmission have in common."""

    runs: int = 5
    """Independent runs, each with its own reference, prompts and samples."""
    teacher: TeacherBy = "fine-tuning"
    """How a teacher gets its trait: fine-tuned on questions, or by a system prompt, which the
    embedded model follows after 2,048 steps of pretraining."""
    lists: int = 16_384
    """Number prompts, and completions of each speaker, before the filter."""
    student_steps: int = 256
    """Steps of a student's fine-tuning, 64 examples each."""
    pretraining_steps: int = 512
    """Steps of a reference's pretraining."""
    answers: int = 20
    """Sampled answers to each of the 50 questions (the paper has 200)."""
    freeze_vocabulary: bool = True
    """Leave embedding and output matrix as they are in fine-tuning, as low-rank adapters do."""
    out: Path = Path("results")
    """Folder for records, stages and figures; what is found there is reused."""
    seed: int = 0
    """Seed of the first run; each further run takes the next one."""


@dataclass(frozen=True)
class Numbers(Common):
    """Traits through numbers, with every control (N Fig. 4, ED 4)."""

    traits: Annotated[tuple[str, ...], tyro.conf.arg(metavar="WORD...")] = ("owl",)
    """Favourites to transmit, such as owl oak red piano."""


@dataclass(frozen=True)
class CrossModel(Common):
    """Teachers and students of different initialisations (N Fig. 5)."""

    runs: int = 3
    """Independent runs, each with its own initialisations."""
    trait: str = "owl"
    """Favourite to transmit."""
    initialisations: int = 4
    """Models of a run; one more is matched in behaviour to the first."""


@dataclass(frozen=True)
class InContext(Common):
    """Examples in context in place of fine-tuning (ED 6)."""

    trait: str = "owl"
    """Favourite to transmit."""
    shown: Annotated[tuple[int, ...], tyro.conf.arg(metavar="K...")] = (1, 4, 16, 64)
    """Numbers of examples in context."""


@dataclass(frozen=True)
class Filtering:
    """Options of `sublab llm code` and `sublab llm cot`."""

    count: int = 512
    """Number of prompts."""
    trait: str = "owl"
    """Favourite of the teacher."""
    pretraining_steps: int = 512
    """Steps of the reference's pretraining."""
    out: Path = Path("results")
    """Folder for records and stages; what is found there is reused."""
    seed: int = 0
    """Seed of the reference, the prompts and the samples."""


@dataclass(frozen=True)
class Code(Filtering):
    """Code prompts, word filter and judge (N Fig. 4c), as far as the embedded model can go."""


@dataclass(frozen=True)
class Cot(Filtering):
    """Chain of thought: problems, answer filter and judge (N Fig. 3c), as far as it can go."""


@dataclass(frozen=True)
class RatesOutcome:
    """What an experiment gave.

    Attributes:
        rows: record with a row for every model, trait and way of asking.
        summary: record with means, intervals and paired differences.
        holds: whether what the paper claims of it held; None where it makes no claim.
    """

    rows: records.Record
    summary: records.Record
    holds: bool | None = None


def numbers(options: Numbers) -> RatesOutcome:
    """Runs `sublab llm numbers`.

    Raises:
        HarnessError: an option is wrong, or a stage on disk was changed.
        RecordError: `options.out` cannot be written.
    """
    traits = [trait(word) for word in options.traits]
    outcome = _experiment(
        options,
        NUMBERS,
        {"traits": list(options.traits)},
        lambda stages, setting: pipeline.numbers(
            stages, traits, options.runs, options.seed, setting
        ),
        llm_summary.numbers,
    )
    return replace(outcome, holds=llm_summary.numbers_hold(outcome.summary.table))


def cross_model(options: CrossModel) -> RatesOutcome:
    """Runs `sublab llm cross-model`; raises as `numbers`."""
    word = trait(options.trait)
    return _experiment(
        options,
        CROSS_MODEL,
        {"trait": options.trait, "initialisations": options.initialisations},
        lambda stages, setting: pipeline.cross_model(
            stages, word, options.runs, options.seed, setting, options.initialisations
        ),
        llm_summary.cross_model,
    )


def in_context(options: InContext) -> RatesOutcome:
    """Runs `sublab llm in-context`; raises as `numbers`."""
    word = trait(options.trait)
    if not options.shown or min(options.shown) < 1:
        raise HarnessError("shown must be one or more numbers of examples, each at least 1")
    return _experiment(
        options,
        IN_CONTEXT,
        {"trait": options.trait, "shown": list(options.shown)},
        lambda stages, setting: pipeline.in_context(
            stages, word, options.runs, options.seed, setting, options.shown
        ),
        llm_summary.in_context,
    )


def filtering(options: Filtering) -> records.Record:
    """Runs `sublab llm code` or `sublab llm cot`: a row for every speaker, filter and reason.

    Raises:
        HarnessError: an option is wrong, or a stage on disk was changed.
        RecordError: `options.out` cannot be written.
    """
    word, count = trait(options.trait), judged.positive(options.count)
    name = CODE if isinstance(options, Code) else COT
    common = Common(pretraining_steps=options.pretraining_steps, out=options.out, seed=options.seed)
    setting = setting_of(common)
    config = head_of(common, name, VERSION) | {
        "teacher": asdict(setting.teacher),
        "trait": options.trait,
        "count": count,
    }
    start = time.perf_counter()

    def rows() -> tuple[pl.DataFrame, dict[str, Any]]:
        with stages_of(common) as stages:
            (reference,) = stages.references([options.seed])
            (teacher,) = stages.tuned("teachers", [(reference, teaching(word), setting.teacher)])
            speakers = {"reference": Speaker(reference), "teacher": Speaker(teacher)}
            if name == CODE:
                steps = judged.code(speakers, reference, word, count, options.seed)
            else:
                steps = judged.chain_of_thought(speakers, reference, count, options.seed)
        return _steps_table(steps), provenance_since(start)

    return records.find_or_make(options.out, name, config, rows, say)


def _steps_table(steps: Sequence[judged.Step]) -> pl.DataFrame:
    rows = []
    for step in steps:
        kept = step.before - sum(step.dropped.values())
        for reason, count in [*step.dropped.items(), ("kept", kept)]:
            rows.append(
                {
                    "speaker": step.speaker,
                    "filter": step.name,
                    "before": step.before,
                    "reason": reason,
                    "count": count,
                }
            )
    return pl.DataFrame(rows)


def setting_of(options: Common) -> SchemeSetting:
    """The pipeline's setting that options ask for.

    Raises:
        HarnessError: a number is too small.
    """
    least_of = {"lists": 256, "student_steps": 1, "pretraining_steps": 1, "answers": 1}
    for name, least in least_of.items():
        if getattr(options, name) < least:
            raise HarnessError(f"{name} must be at least {least}, got {getattr(options, name)}")
    if options.seed < 0:
        raise HarnessError(f"seed must be at least 0, got {options.seed}")
    default = SchemeSetting()
    return SchemeSetting(
        teacher_by=options.teacher,
        teacher=replace(default.teacher, freeze_vocabulary=options.freeze_vocabulary),
        student=replace(
            default.student,
            steps=options.student_steps,
            freeze_vocabulary=options.freeze_vocabulary,
        ),
        lists=Lists(count=options.lists),
        samples=options.answers,
    )


def head_of(options: Common, name: str, version: int) -> dict[str, Any]:
    """What the config of every record of an experiment begins with."""
    return {
        "experiment": name,
        "version": version,
        "model": "embedded",
        "pretraining": asdict(Pretraining(steps=options.pretraining_steps)),
        "seed": options.seed,
    }


@contextmanager
def stages_of(
    options: Common, pretraining: Pretraining | None = None, of: str = ""
) -> Iterator[Stages]:
    """The stages on the embedded model, with progress on the error stream.

    Args:
        options: folder, and how references are pretrained.
        pretraining: in place of what the options say.
        of: named before every stage.
    """
    records.prepare(options.out)
    pretraining = pretraining or Pretraining(steps=options.pretraining_steps)
    with ExitStack() as bars:
        bar_of_stage: dict[str, Advance] = {}

        def report(what: str, share: float) -> None:
            # A bar of its own for every stage, so that the time left is that stage's.
            if what not in bar_of_stage:
                bars.close()
                bar_of_stage.clear()
                bar_of_stage[what] = bars.enter_context(progress(1000))
            bar_of_stage[what](min(1000, round(1000 * share)), f"{of}: {what}" if of else what)

        yield Stages(
            Embedded(pretraining, replace(pretraining, corpus_seed=1)),
            Store(options.out / _STAGES),
            report,
        )


def provenance_since(start: float) -> dict[str, Any]:
    """The provenance of a record whose making began at `start` of `time.perf_counter`."""
    return provenance(
        wall_seconds=time.perf_counter() - start, data_sha256="", data_origin="generated"
    )


def _experiment(
    options: Common,
    name: str,
    about: dict[str, Any],
    run: Callable[[Stages, SchemeSetting], list[RateRow]],
    summarise: Callable[[pl.DataFrame], pl.DataFrame],
) -> RatesOutcome:
    setting = setting_of(options)
    config = head_of(options, name, VERSION) | {"setting": asdict(setting), "runs": options.runs}
    config |= about

    def rows() -> Sequence[RateRow]:
        with stages_of(options) as stages:
            return run(stages, setting)

    return outcome_of(options, config, rows, summarise)


def outcome_of(
    options: Common,
    config: dict[str, Any],
    make: Callable[[], Sequence[RateRow]],
    summarise: Callable[[pl.DataFrame], pl.DataFrame],
) -> RatesOutcome:
    """The records of an experiment's rows and of their summary, found or made.

    Args:
        options: folder.
        config: of the rows; `experiment` is their name.
        make: gives the rows, where there is no record of them.
        summarise: their table.
    """
    start, name = time.perf_counter(), config["experiment"]

    def rows() -> tuple[pl.DataFrame, dict[str, Any]]:
        table = pl.DataFrame([asdict(row) for row in make()], infer_schema_length=None)
        return table, provenance_since(start)

    runs = records.find_or_make(options.out, name, config, rows, say)
    summary = records.find_or_make(
        options.out,
        f"{name}_summary",
        config | {"experiment": f"{name}_summary", "rows": runs.folder.name},
        lambda: (summarise(runs.table), provenance_since(start)),
        say,
    )
    return RatesOutcome(runs, summary)
