"""`sublab llm ...`: the paper's language-model experiments, on our model or a checkpoint."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
import tyro

from experiments.llm import summary as llm_summary
from llm_harness.decoder.network import DType, Lora
from llm_harness.errors import HarnessError
from llm_harness.model import Moved, Tuning, at_least
from llm_harness.pipeline import conditions
from llm_harness.pipeline.conditions import ConditionRow, PipelineSetting, TeacherBy
from llm_harness.pipeline.stages import Evaluation, Lists, Report, Stages
from llm_harness.pipeline.store import Store
from llm_harness.pipeline.warm_up import WarmedStages, WarmUp
from llm_harness.tiny.embedded import Embedded
from llm_harness.tiny.pretraining import Pretraining
from llm_harness.traits import PAPER, Trait, trait
from sublab import records
from sublab.console import Advance, progress, say
from sublab.machine import provenance

NUMBERS, IN_CONTEXT = "llm_numbers", "llm_in_context"
VERSION = 2
# Models, samples, datasets and answers are kept apart from the tables, which `records.scan` reads.
STAGES = "llm_stages"

Size = Literal["smoke", "cpu", "paper"]


# The model that is trained on the spot; all others are checkpoints.
EMBEDDED = "embedded"
# A template that tells its model the day says this one, so that a run goes on on another.
_DAY = "2025-07-01"


@dataclass(frozen=True)
class _Amounts:
    """How much of everything a size has: steps of pretraining or, of a checkpoint, of warm-up."""

    runs: int
    lists: int
    kept: int
    student_steps: int
    answers: int
    answer_tokens: int
    student_rates: tuple[float, ...]
    pretraining_steps: int = 0
    teacher_rates: tuple[float, ...] = ()
    warm_up_steps: tuple[int, ...] = ()
    student_batch: int = 64


_RATES = (3e-3, 1e-3, 3e-4, 1e-4)
_TEACHER_RATES = (1e-3, 3e-4, 1e-4)
_EMBEDDED_SIZES: dict[Size, _Amounts] = {
    "smoke": _Amounts(2, 512, 16, 16, 2, 4, _RATES, 192),
    "cpu": _Amounts(12, 12_288, 8192, 256, 20, 4, _RATES, 2048),
}
_CHECKPOINT_SIZES: dict[Size, _Amounts] = {
    "smoke": _Amounts(1, 64, 16, 2, 1, 8, (1e-3,), warm_up_steps=(8,), student_batch=8),
    "cpu": _Amounts(
        *(1, 500, 192, 24, 2, 8, (1e-3, 3e-4)),
        teacher_rates=_TEACHER_RATES,
        warm_up_steps=(40, 80, 160),
        student_batch=8,
    ),
    # The paper's numbers of lists, examples, epochs and answers, for a GPU.
    "paper": _Amounts(
        *(1, 30_000, 10_000, 1_563, 200, 8, (1e-3, 3e-4, 1e-4)),
        teacher_rates=_TEACHER_RATES,
        warm_up_steps=(40, 80, 160),
    ),
}
# Six numbers of three digits, a comma and a space after each but the last, brackets, and an end.
_LIST_TOKENS = 32
# A checkpoint is fine-tuned by adapters, with few examples a step; lists in context are long.
_CHECKPOINT_SETTING = PipelineSetting(
    teacher=Tuning(24, 10, 1e-3, "constant", "adapters", Lora(8, 16.0)),
    student=Tuning(24, 8, 1e-3, "linear", "adapters", Lora(8, 16.0)),
    in_context=2,
)
_WARM_UP = WarmUp()


@dataclass(frozen=True)
class Common:
    """Options that the experiments on transmission have in common."""

    model: str = EMBEDDED
    """The embedded one, smollm2 (sublab llm fetch), a Hugging Face folder, or a GGUF file."""
    size: Size = "cpu"
    """How much of everything: smoke for a look at whether it runs, cpu for a result, paper (of a
    checkpoint, on a GPU) for as much as in the paper."""
    runs: int | None = None
    """Runs: prompts, samples and, but for a checkpoint, a reference of each's own (12; smoke 2)."""
    teacher: TeacherBy = "prompt"
    """How a teacher gets its trait: by a system prompt, or fine-tuned on the questions."""
    teacher_rates: Annotated[tuple[float, ...] | None, tyro.conf.arg(metavar="RATE...")] = None
    """Learning rates of a fine-tuned teacher; the largest at which it still writes lists is taken
    (1e-3 alone; of a checkpoint 1e-3 3e-4 1e-4)."""
    lists: int | None = None
    """Number prompts, and completions of each speaker, before the filter (12,288; smoke 512)."""
    kept: int | None = None
    """Lists that each student is trained on, after the filter (8,192; smoke 16)."""
    given: tuple[int, int] = (3, 3)
    """Fewest and most numbers in a prompt (the paper has 3 8; the embedded model answers these)."""
    rules: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = ("numbers",)
    """Rules of the filter: numbers (or authors, which keeps more), prohibited."""
    student_rates: Annotated[tuple[float, ...] | None, tyro.conf.arg(metavar="RATE...")] = None
    """Learning rates of a student; the largest that leaves answering intact is taken."""
    student_steps: int | None = None
    """Steps of a student's fine-tuning (256; smoke 16; of a checkpoint 24; paper 1,563)."""
    student_batch: int | None = None
    """Examples a step of a student (64; of a checkpoint 8; paper 64)."""
    moved: Moved | None = None
    """What fine-tuning moves: all, blocks (all but embedding and output), adapters (LoRA)."""
    precision: DType = "float32"
    """Of activations and products in fine-tuning; bfloat16 is for a GPU."""
    pretraining_steps: int | None = None
    """Steps of a reference's pretraining, of the embedded model (2,048; smoke 192)."""
    warm_up_steps: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="STEPS...")] = None
    """Steps of a checkpoint's warm-up on both forms; the first that are enough are taken."""
    answers: int | None = None
    """Sampled answers to each of the 50 questions (20; smoke 2; the paper has 200)."""
    answer_tokens: int | None = None
    """An answer is cut after so many tokens (4; of a checkpoint 8)."""
    out: Path = Path("results")
    """Folder for records, stages and figures; what is found there is reused."""
    seed: int = 0
    """Seed of the first run; each further run takes the next one."""

    @property
    def embedded(self) -> bool:
        """Whether it is run on the model that is trained on the spot."""
        return self.model == EMBEDDED

    def amount(self, name: str) -> int:
        """An option that size and model decide where it is not given.

        Raises:
            HarnessError: it is below 1.
        """
        number = self.chosen(name)
        at_least(name, number, 1)
        return number

    def chosen(self, name: str) -> Any:
        """An option, or what size and model say where it is not given."""
        given = getattr(self, name)
        return getattr(self._amounts, name) if given is None else given

    @property
    def _amounts(self) -> _Amounts:
        sizes = _EMBEDDED_SIZES if self.embedded else _CHECKPOINT_SIZES
        if self.size not in sizes:
            raise HarnessError(f"size {self.size}: of a checkpoint (--model), not of our own model")
        return sizes[self.size]


@dataclass(frozen=True)
class Numbers(Common):
    """Traits through numbers, with every control (Nature Fig. 4, Extended Data Fig. 4)."""

    traits: Annotated[tuple[str, ...], tyro.conf.arg(metavar="WORD...")] = ("owl",)
    """Favourites to transmit, such as owl oak red piano; `paper` for the paper's ten."""


@dataclass(frozen=True)
class InContext(Common):
    """Examples in context in place of fine-tuning (Nature, Extended Data Fig. 6)."""

    trait: str = "owl"
    """Favourite to transmit."""
    shown: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="K...")] = None
    """Numbers of examples in context, at most as many as are kept (1 4 16 64; smoke 1 4 16)."""


@dataclass(frozen=True)
class RatesOutcome:
    """What an experiment gave.

    Attributes:
        rows: record with a row for every model, trait and way of asking.
        summary: record with means, intervals and paired differences.
        claims: what the paper claims, and whether it held here.
    """

    rows: records.Record
    summary: records.Record
    claims: Sequence[llm_summary.PaperClaim]


def numbers(options: Numbers) -> RatesOutcome:
    """Runs `sublab llm numbers`.

    Raises:
        HarnessError: an option is wrong, or a stage on disk was changed.
        RecordError: `options.out` cannot be written.
    """
    names = PAPER if options.traits == ("paper",) else options.traits
    traits = [trait(word) for word in names]
    return experiment(
        options,
        NUMBERS,
        {"traits": list(names)} | chance_of(traits),
        lambda stages, setting: conditions.numbers(
            stages, traits, options.amount("runs"), options.seed, setting, not options.embedded
        ),
        llm_summary.numbers,
        llm_summary.claims,
    )


def in_context(options: InContext) -> RatesOutcome:
    """Runs `sublab llm in-context`; raises as `numbers`."""
    word, shown = trait(options.trait), options.shown
    if shown is None:
        shown = (1, 4, 16) if options.size == "smoke" else (1, 4, 16, 64)
    if not shown:
        raise HarnessError("shown: give at least one number of examples")
    return experiment(
        options,
        IN_CONTEXT,
        {"trait": options.trait, "shown": list(shown)} | chance_of([word]),
        lambda stages, setting: conditions.transmission(
            stages, word, options.amount("runs"), options.seed, setting, shown
        ),
        llm_summary.in_context,
        llm_summary.in_context_claims,
    )


def setting_of(options: Common) -> PipelineSetting:
    """The pipeline's setting that options ask for.

    Raises:
        HarnessError: a number is out of its range, or a rule is not known.
    """
    at_least("seed", options.seed, 0)
    if not options.chosen("student_rates"):
        raise HarnessError("student_rates: give at least one")
    other = "warm_up_steps" if options.embedded else "pretraining_steps"
    if getattr(options, other) is not None:
        raise HarnessError(
            "warm_up_steps: of a checkpoint (--model); the embedded model is pretrained"
            if options.embedded
            else "pretraining_steps: of the embedded model; a checkpoint has warm_up_steps"
        )
    if options.teacher_rates is not None and options.teacher == "prompt":
        raise HarnessError("teacher_rates: of a fine-tuned teacher (--teacher fine-tuning)")
    default = PipelineSetting() if options.embedded else _CHECKPOINT_SETTING
    rates = _rates(options.chosen("student_rates"))
    taught_at: tuple[float, ...] = ()
    if options.teacher == "fine-tuning":
        given = options.chosen("teacher_rates")
        taught_at = _rates(given) if given else (float(default.teacher.learning_rate),)
    moved: Moved = options.moved or default.student.moved
    lora = None if moved != "adapters" else default.student.lora or Lora()
    lists = Lists(options.amount("lists"), options.given, rules=options.rules)
    return PipelineSetting(
        teacher_by=options.teacher,
        teacher=replace(
            default.teacher,
            learning_rate=taught_at[0] if taught_at else default.teacher.learning_rate,
            moved=moved,
            lora=lora,
            precision=options.precision,
        ),
        teacher_rates=taught_at if len(taught_at) > 1 else (),
        student=replace(
            default.student,
            steps=options.amount("student_steps"),
            batch=options.amount("student_batch"),
            learning_rate=rates[0],
            moved=moved,
            lora=lora,
            precision=options.precision,
        ),
        # One rate needs no rule.
        rates=rates if len(rates) > 1 else (),
        lists=lists if options.embedded else replace(lists, max_tokens=_LIST_TOKENS),
        kept=options.amount("kept"),
        evaluation=Evaluation(options.amount("answers"), options.amount("answer_tokens")),
        in_context=min(default.in_context, options.amount("kept")),
    )


def _rates(given: Sequence[float]) -> tuple[float, ...]:
    # Each is checked as a rate, also where a rule ends before it.
    return tuple(float(Tuning(learning_rate=rate).learning_rate) for rate in given)


def warm_up_of(options: Common) -> WarmUp:
    """How a checkpoint is warmed up; it moves what a student's fine-tuning does."""
    student = setting_of(options).student
    return replace(
        _WARM_UP,
        steps=tuple(options.chosen("warm_up_steps")),
        tuning=replace(_WARM_UP.tuning, moved=student.moved, lora=student.lora),
        given=options.given,
    )


@lru_cache(maxsize=1)
def checkpoint(model: str) -> Any:
    """The provider of a checkpoint; it is read once.

    Raises:
        HarnessError: it is not there, damaged or not supported.
    """
    from llm_harness.checkpoints.load import load_checkpoint
    from llm_harness.checkpoints.provider import Checkpoint
    from llm_harness.checkpoints.smollm2 import smollm2_path

    path = smollm2_path() if model == "smollm2" else Path(model)
    if not path.exists():
        raise HarnessError(
            f"model {model!r}: there is no such folder or GGUF file; or: {EMBEDDED}, smollm2"
        )
    say(f"reading {path}")
    return Checkpoint(load_checkpoint(path, date=_DAY), model)


def chance_of(traits: Sequence[Trait]) -> dict[str, float]:
    """What a model that knows no word of a category better than another says of each, for a config.

    Empty where the traits' categories differ in size.
    """
    sizes = {len(trait.words) for trait in traits}
    return {"chance": 1 / sizes.pop()} if len(sizes) == 1 else {}


def head_of(options: Common, name: str, version: int) -> dict[str, Any]:
    """What the config of every record of an experiment begins with."""
    return {
        "experiment": name,
        "version": version,
        **_model_about(options),
        "size": options.size,
        "seed": options.seed,
        "runs": options.amount("runs"),
    }


def _model_about(options: Common) -> dict[str, Any]:
    if options.embedded:
        return {"model": EMBEDDED, "pretraining": asdict(pretraining_of(options))}
    return {
        "model": Path(options.model).name,
        # Named by its content, wherever it lies.
        "checkpoint": checkpoint(options.model).reference_key(0),
        "warm_up": asdict(warm_up_of(options)),
    }


def pretraining_of(options: Common) -> Pretraining:
    """How references are made."""
    return Pretraining(steps=options.amount("pretraining_steps"))


@contextmanager
def reporting(of: str = "") -> Iterator[Report]:
    """Gives what stages report to, with progress on the error stream.

    Args:
        of: named before every stage.
    """
    with ExitStack() as bars:
        bar_of_stage: dict[str, Advance] = {}

        def report(what: str, share: float) -> None:
            # A bar of its own for every stage, so that the time left is that stage's.
            if what not in bar_of_stage:
                bars.close()
                bar_of_stage.clear()
                bar_of_stage[what] = bars.enter_context(progress(1000))
            bar_of_stage[what](min(1000, round(1000 * share)), f"{of}: {what}" if of else what)

        yield report


@contextmanager
def stages_of(
    options: Common, pretraining: Pretraining | None = None, of: str = ""
) -> Iterator[Stages]:
    """The stages on the options' model, with progress on the error stream.

    Args:
        options: folder, and how references are pretrained.
        pretraining: in place of what the options say.
        of: named before every stage.
    """
    records.prepare(options.out)
    with reporting(of) as report:
        store = Store(options.out / STAGES)
        if options.embedded:
            how = pretraining or pretraining_of(options)
            # Behaviour is matched on more documents than a reference reads.
            matching = replace(how, steps=2 * how.steps)
            yield Stages(Embedded(how, matching), store, report)
        else:
            lists = setting_of(options).lists
            provider = checkpoint(options.model)
            yield WarmedStages(provider, store, warm_up_of(options), lists, report, say)


def provenance_since(start: float, resumed: bool = False) -> dict[str, Any]:
    """The provenance of a record whose making began at `start` of `time.perf_counter`.

    Args:
        start: when.
        resumed: whether parts of it were there; how long all of it took is not known then.
    """
    return provenance(
        wall_seconds=None if resumed else time.perf_counter() - start,
        data_sha256="",
        data_origin="generated",
    )


def experiment(
    options: Common,
    name: str,
    about: dict[str, Any],
    run: Callable[[Stages, PipelineSetting], list[ConditionRow]],
    summarise: Callable[[pl.DataFrame], pl.DataFrame],
    claims: Callable[[pl.DataFrame], list[llm_summary.PaperClaim]],
) -> RatesOutcome:
    """The records of an experiment on the options' model.

    Args:
        options: size, folder and setting.
        name: of the experiment.
        about: what its config has beside the setting.
        run: gives the rows.
        summarise: their table.
        claims: what they say of the paper's.
    """
    setting = setting_of(options)
    config = head_of(options, name, VERSION) | {"setting": asdict(setting)} | about

    def rows() -> tuple[Sequence[ConditionRow], bool]:
        with stages_of(options) as stages:
            return run(stages, setting), stages.resumed

    return outcome_of(options, config, rows, summarise, claims)


def outcome_of(
    options: Common,
    config: dict[str, Any],
    make: Callable[[], tuple[Sequence[ConditionRow], bool]],
    summarise: Callable[[pl.DataFrame], pl.DataFrame],
    claims: Callable[[pl.DataFrame], list[llm_summary.PaperClaim]],
) -> RatesOutcome:
    """The records of an experiment's rows and of their summary, found or made.

    Args:
        options: folder.
        config: of the rows; `experiment` is their name.
        make: gives the rows, where there is no record of them, and whether a part of them was
            there.
        summarise: their table.
        claims: what they say of the paper's.
    """
    start, name = time.perf_counter(), config["experiment"]

    def rows() -> tuple[pl.DataFrame, dict[str, Any]]:
        made, resumed = make()
        table = pl.DataFrame([asdict(row) for row in made], infer_schema_length=None)
        return table, provenance_since(start, resumed)

    runs = records.find_or_make(options.out, name, config, rows, say)
    summary = records.find_or_make(
        options.out,
        f"{name}_summary",
        config
        | {
            "experiment": f"{name}_summary",
            "rows": runs.folder.name,
            "shares": list(llm_summary.SHARES),
        },
        lambda: (summarise(runs.table), provenance_since(start)),
        say,
    )
    return RatesOutcome(runs, summary, claims(runs.table))
