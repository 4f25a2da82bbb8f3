"""`sublab llm cross-model`: between initialisations, and what they must share (N Fig. 5)."""

from dataclasses import dataclass, replace

from experiments.llm import summary as llm_summary
from experiments.llm.run import Common, RatesOutcome, chance_of, experiment
from llm_harness.audit.entanglement import first_token_divergence, shared_leaning
from llm_harness.errors import HarnessError
from llm_harness.model import at_least
from llm_harness.pipeline.conditions import (
    Case,
    ConditionRow,
    PipelineSetting,
    check_abilities,
    groundwork,
    needed_by,
    rows,
)
from llm_harness.pipeline.stages import FilteredLists, Speaker, Stages, StoredModel
from llm_harness.prompts import number_prompts
from llm_harness.traits import Trait, trait

CROSS_MODEL = "llm_cross_model"
# Number prompts that two models' first tokens are compared on.
_COMPARED = 256


@dataclass(frozen=True)
class CrossModel(Common):
    """Teachers and students of different initialisations, and what they share (Nature Fig. 5)."""

    trait: str = "owl"
    """Favourite to transmit."""
    initialisations: int = 2
    """Independent models of a run, beside four that share something with the first."""


def cross_model(options: CrossModel) -> RatesOutcome:
    """Runs `sublab llm cross-model`; raises as `run.numbers`."""
    word = trait(options.trait)
    if not options.embedded:
        raise HarnessError(
            f"cross-model compares initialisations, and {options.model} has one; it runs on the "
            f"embedded model"
        )
    return experiment(
        options,
        CROSS_MODEL,
        {"trait": options.trait, "initialisations": options.initialisations} | chance_of([word]),
        lambda stages, setting: matrix(
            stages, word, options.amount("runs"), options.seed, setting, options.initialisations
        ),
        llm_summary.cross_model,
        llm_summary.cross_model_claims,
    )


def matrix(
    stages: Stages,
    word: Trait,
    runs: int,
    seed: int,
    setting: PipelineSetting,
    initialisations: int = 2,
) -> list[ConditionRow]:
    """Teachers and students of different initialisations.

    All pairs of some independent models; and with model 1 in both directions each reference that
    the provider relates to it: another draw that was matched to answer as model 1 does, and draws
    that were given model 1's vocabulary (embedding and output), its output alone, or its blocks,
    and pretrained around them. Conditions are named `teacher > student`; `student, own numbers` is
    the control and `student, before` the baseline.

    Args:
        stages: on a provider whose parameters are ours.
        word: the trait.
        runs: each with initialisations of its own.
        seed: of the first.
        setting: how.
        initialisations: independent models, at least two.

    Raises:
        HarnessError: too few runs or models, or a stage on disk was changed.
    """
    at_least("initialisations", initialisations, 2)
    at_least("runs", runs, 1)
    check_abilities(stages, "open", "train", *needed_by(setting))
    independent = [f"model {i + 1}" for i in range(initialisations)]
    relations = list(stages.provider.relations)
    names = [*independent, *relations]
    # Each model of each run has a draw of its own.
    run_seeds = [seed + run * len(names) for run in range(runs)]
    models: dict[tuple[int, str], StoredModel] = {}
    order = [(run, name) for run in range(runs) for name in names]
    drawn = [(run, name) for run, name in order if name in independent]
    seeds = {(run, name): run_seeds[run] + names.index(name) for run, name in order}
    models |= zip(drawn, stages.references([seeds[key] for key in drawn]), strict=True)
    if len({models[key].lineage.identity for key in drawn}) < len(drawn):
        raise HarnessError("these models have one initialisation, and this needs several")
    for how in relations:
        jobs = [(models[run, "model 1"], seeds[run, how]) for run in range(runs)]
        models |= {(run, how): one for run, one in enumerate(stages.related(how, jobs))}
    places = {key: place for place, key in enumerate(order)}
    work = groundwork(
        stages,
        [models[key] for key in order],
        [run_seeds[run] for run, _ in order],
        [word],
        setting,
    )
    pairs = [(i, j) for i in independent for j in independent]
    pairs += [pair for name in relations for pair in (("model 1", name), (name, "model 1"))]
    # Of each student its run, its model, and its data.
    students: dict[tuple[int, str, str], FilteredLists] = {
        (run, f"{name}, own numbers", name): work.lists[places[run, name], None]
        for run, name in order
    }
    students |= {
        (run, f"{i} > {j}", j): work.lists[places[run, i], word]
        for run in range(runs)
        for i, j in pairs
    }
    trained = stages.tuned(
        "students",
        [
            work.training(places[run, name], data, places[run, name])
            for (run, _, name), data in students.items()
        ],
    )
    asked = setting.evaluation.chats(word.category)
    asked_numbers = number_prompts(_COMPARED, seed, given=setting.lists.given)
    cases = []
    for run, name in order:
        model, first = (stages.load(models[run, one]) for one in (name, "model 1"))
        about = {
            "leaning": shared_leaning(first, model, word),
            "kl_words": first_token_divergence(first, model, asked),
            "kl_numbers": first_token_divergence(first, model, asked_numbers),
        }
        speaker = Speaker(models[run, name])
        cases.append(Case(run, f"{name}, before", word, speaker, run_seeds[run], about=about))
    for ((run, condition, name), data), student in zip(students.items(), trained, strict=True):
        before = Case(run, condition, word, Speaker(models[run, name]), run_seeds[run])
        if " > " in condition:
            teacher = stages.load(models[run, condition.split(" > ")[0]])
            leaning = shared_leaning(teacher, stages.load(models[run, name]), word)
            before = replace(before, about={"leaning": leaning})
        cases.append(work.taught(before, condition, student, data))
    return rows(stages, cases, setting.evaluation)
