"""The paper's experiments on traits through numbers, with their controls (PAPER.md B and E).

Each function runs the whole scheme for a few runs (a run is a seed: its own reference, prompts and
samples) and gives one row for every run, trait and condition. Controls are part of it.
"""

from collections.abc import Sequence
from typing import Any

from llm_harness import shuffling
from llm_harness.errors import HarnessError
from llm_harness.scheme import Case, Row, Setting, lists_of, rows, teachers, trained
from llm_harness.stages import Stages
from llm_harness.traits import Trait, trait
from llm_harness.work import Kept, Speaker

# Conditions of `numbers`, and the control that each is compared with.
CONTROLS: dict[str, str | None] = {
    "reference": None,
    "teacher": "reference",
    "student": "own numbers",
    "own numbers": "reference",
    "other trait": "own numbers",
    "shuffled across": "own numbers",
    "shuffled within": "own numbers",
    "in context": "reference",
    "other initialisation": "other initialisation, own numbers",
    "other initialisation, own numbers": None,
    "other initialisation, matched": "other initialisation, own numbers",
}


def numbers(
    stages: Stages, traits: Sequence[Trait], runs: int, seed: int, setting: Setting
) -> list[Row]:
    """Traits through numbers, with every control.

    Args:
        stages: on a provider and a store.
        traits: at least one.
        runs: at least two, since another run's reference is the other initialisation.
        seed: of the first run; the others follow it.
        setting: how.

    Raises:
        HarnessError: too few runs or traits, or a stage on disk was changed.
    """
    _check(traits, runs)
    seeds = [seed + run for run in range(runs)]
    references = stages.references(seeds)
    rivals = {t: traits[(i + 1) % len(traits)] for i, t in enumerate(traits)}
    for one, other in rivals.items():
        # The other trait must be one that could have been picked in place of this one.
        if other.category != one.category or other == one:
            rivals[one] = trait(one.rivals[0], one.category)
    taught = list(dict.fromkeys([*traits, *rivals.values()]))
    pairs = [(run, t) for run in range(runs) for t in taught]
    taught_by = teachers(stages, references, pairs, seeds, setting)
    data = stages.lists(
        "teachers' numbers",
        [(taught_by[run, t], lists_of(setting, seeds[run])) for run, t in pairs],
    )
    kept = dict(zip(pairs, data, strict=True))
    own = stages.lists(
        "own numbers",
        [(Speaker(m), lists_of(setting, s)) for m, s in zip(references, seeds, strict=True)],
    )
    others = references[1:] + references[:1]
    cases = [Case(r, "reference", t, Speaker(references[r])) for r in range(runs) for t in traits]
    jobs: list[tuple[str, int, Trait | None, Any, Kept]] = []
    for run in range(runs):
        for t in taught:
            jobs.append(("student", run, t, references[run], kept[run, t]))
        jobs.append(("own numbers", run, None, references[run], own[run]))
        jobs.append(("other initialisation, own numbers", run, None, others[run], own[run]))
        for t in traits:
            for how, shuffle in _SHUFFLES.items():
                shuffled = stages.derived(
                    kept[run, t], how, lambda e, f=shuffle, s=seeds[run]: f(e, s)
                )
                jobs.append((how, run, t, references[run], shuffled))
            jobs.append(("other initialisation", run, t, others[run], kept[run, t]))
    students = trained(stages, "students", jobs, seeds, setting)
    matched = trained(
        stages, "matched students",
        [
            (
                "other initialisation, matched", run, t,
                students["other initialisation, own numbers", run, None], kept[run, t],
            )
            for run in range(runs)
            for t in traits
        ],
        seeds, setting,
    )  # fmt: skip
    students |= matched
    used = {(c, run, t): data for c, run, t, _, data in jobs}
    used |= {(c, run, t): kept[run, t] for c, run, t in matched if t is not None}
    for run in range(runs):
        for t in traits:
            cases.append(Case(run, "teacher", t, taught_by[run, t]))
            shown = kept[run, t].examples()[: setting.in_context]
            cases.append(Case(run, "in context", t, Speaker(references[run]), None, tuple(shown)))
            for condition, key in (
                ("student", t), ("own numbers", None), ("other trait", rivals[t]),
                ("shuffled across", t), ("shuffled within", t), ("other initialisation", t),
                ("other initialisation, own numbers", None), ("other initialisation, matched", t),
            ):  # fmt: skip
                of = ("student" if condition == "other trait" else condition, run, key)
                cases.append(Case(run, condition, t, Speaker(students[of]), used[of]))
    return rows(stages, cases, seed, setting)


def cross_model(
    stages: Stages,
    word: Trait,
    runs: int,
    seed: int,
    setting: Setting,
    initialisations: int = 4,
) -> list[Row]:
    """All pairs of teachers and students of different initialisations (PAPER.md E, N Fig. 5).

    The last of them is the first one's twin in behaviour: another draw, cloned to answer as the
    first does. Conditions are named `teacher > student`, and `student, before` is the baseline.

    Args:
        stages: on a provider that can match.
        word: the trait.
        runs: each with initialisations of its own.
        seed: of the first.
        setting: how.
        initialisations: beside the matched one; at least four.
    """
    if initialisations < 4:
        raise HarnessError(f"the matrix needs at least 4 initialisations, got {initialisations}")
    if runs < 1:
        raise HarnessError(f"runs must be at least 1, got {runs}")
    count = initialisations + 1
    seeds = [seed + run * count + i for run in range(runs) for i in range(count)]
    drawn = stages.references(seeds)
    twins = stages.matched(
        [(drawn[run * count + count - 1], drawn[run * count]) for run in range(runs)]
    )
    names = [f"model {i + 1}" for i in range(initialisations)] + ["model 1's match"]
    models = {
        (run, i): twins[run] if i == initialisations else drawn[run * count + i]
        for run in range(runs)
        for i in range(count)
    }
    keys = list(models)
    flat = [models[key] for key in keys]
    run_seeds = [seed + run * count for run, _ in keys]
    taught = teachers(stages, flat, [(i, word) for i in range(len(flat))], run_seeds, setting)
    kept = stages.lists(
        "teachers' numbers",
        [(taught[i, word], lists_of(setting, s)) for i, s in enumerate(run_seeds)],
    )
    data = dict(zip(keys, kept, strict=True))
    jobs = [
        (f"{names[i]} > {names[j]}", run, word, models[run, j], data[run, i])
        for run in range(runs)
        for i in range(count)
        for j in range(count)
    ]
    students = trained(stages, "students", jobs, [seed + r * count for r in range(runs)], setting)
    cases = [Case(run, f"{names[i]}, before", word, Speaker(models[run, i])) for run, i in keys]
    for condition, run, t, _, examples in jobs:
        cases.append(Case(run, condition, word, Speaker(students[condition, run, t]), examples))
    return rows(stages, cases, seed, setting)


def in_context(
    stages: Stages,
    word: Trait,
    runs: int,
    seed: int,
    setting: Setting,
    shown: Sequence[int] = (1, 4, 16, 64),
) -> list[Row]:
    """Examples in context in place of fine-tuning (PAPER.md E, ED 6).

    Conditions are `in context, K` and its control `own in context, K`, beside `student` and
    `own numbers`, which were fine-tuned on all of the same examples.

    Args:
        stages: on a provider.
        word: the trait.
        runs: at least one.
        seed: of the first.
        setting: how.
        shown: numbers of examples.
    """
    if runs < 1:
        raise HarnessError(f"runs must be at least 1, got {runs}")
    seeds = [seed + run for run in range(runs)]
    references = stages.references(seeds)
    taught_by = teachers(stages, references, [(r, word) for r in range(runs)], seeds, setting)
    made = {
        "student": stages.lists(
            "teachers' numbers",
            [(taught_by[run, word], lists_of(setting, s)) for run, s in enumerate(seeds)],
        ),
        "own numbers": stages.lists(
            "own numbers",
            [(Speaker(m), lists_of(setting, s)) for m, s in zip(references, seeds, strict=True)],
        ),
    }
    jobs = [(c, run, word, references[run], made[c][run]) for c in made for run in range(runs)]
    students = trained(stages, "students", jobs, seeds, setting)
    cases = [Case(run, "reference", word, Speaker(references[run])) for run in range(runs)]
    cases += [Case(run, "teacher", word, taught_by[run, word]) for run in range(runs)]
    for condition, run, _, _, data in jobs:
        cases.append(Case(run, condition, word, Speaker(students[condition, run, word]), data))
        examples = data.examples()
        name = "in context" if condition == "student" else "own in context"
        for count in shown:
            speaker = Speaker(references[run])
            cases.append(Case(run, f"{name}, {count}", word, speaker, data, examples[:count]))
    return rows(stages, cases, seed, setting)


_SHUFFLES = {
    "shuffled across": shuffling.shuffle_across,
    "shuffled within": shuffling.shuffle_within,
}


def _check(traits: Sequence[Trait], runs: int) -> None:
    if runs < 2:
        raise HarnessError(
            f"runs must be at least 2, got {runs}: another run's reference is the other "
            f"initialisation"
        )
    if not traits:
        raise HarnessError("no trait is given")
    for one in traits:
        if not one.rivals:
            raise HarnessError(f"{one.word!r} has no rivals to be picked among")
    if len(set(traits)) < len(traits):
        raise HarnessError("a trait is given twice")
