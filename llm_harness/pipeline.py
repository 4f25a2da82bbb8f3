"""The paper's experiments on traits through numbers, with their controls (PAPER.md B and E).

Each function runs the whole scheme for a few runs (a run is a seed: its own reference, prompts and
samples) and gives one row for every run, trait and condition. Controls are part of it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llm_harness import shuffling
from llm_harness.errors import HarnessError
from llm_harness.scheme import Case, RateRow, SchemeSetting, lists_of, rows, teachers, trained
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
    stages: Stages, traits: Sequence[Trait], runs: int, seed: int, setting: SchemeSetting
) -> list[RateRow]:
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
        stages,
        "matched students",
        [
            (
                "other initialisation, matched",
                run,
                t,
                students["other initialisation, own numbers", run, None],
                kept[run, t],
            )
            for run in range(runs)
            for t in traits
        ],
        seeds,
        setting,
    )
    students |= matched
    used = {(c, run, t): data for c, run, t, _, data in jobs}
    used |= {(c, run, t): kept[run, t] for c, run, t in matched if t is not None}
    for run in range(runs):
        for t in traits:
            cases.append(Case(run, "teacher", t, taught_by[run, t]))
            shown = kept[run, t].examples()[: setting.in_context]
            cases.append(Case(run, "in context", t, Speaker(references[run]), None, tuple(shown)))
            for condition, key in (
                ("student", t),
                ("own numbers", None),
                ("other trait", rivals[t]),
                ("shuffled across", t),
                ("shuffled within", t),
                ("other initialisation", t),
                ("other initialisation, own numbers", None),
                ("other initialisation, matched", t),
            ):
                of = ("student" if condition == "other trait" else condition, run, key)
                cases.append(Case(run, condition, t, Speaker(students[of]), used[of]))
    return rows(stages, cases, seed, setting)


def cross_model(
    stages: Stages,
    word: Trait,
    runs: int,
    seed: int,
    setting: SchemeSetting,
    initialisations: int = 4,
) -> list[RateRow]:
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
    setting: SchemeSetting,
    shown: Sequence[int] = (1, 4, 16, 64),
) -> list[RateRow]:
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
    work = _Taught(stages, word, runs, seed, setting)
    cases = work.cases
    for (condition, run), student in work.students().items():
        data = work.made[condition][run]
        cases.append(Case(run, condition, word, Speaker(student), data))
        examples = data.examples()
        name = "in context" if condition == "student" else "own in context"
        for count in shown:
            speaker = Speaker(work.references[run])
            cases.append(Case(run, f"{name}, {count}", word, speaker, data, examples[:count]))
    return rows(stages, cases, seed, setting)


def transmission(
    stages: Stages, word: Trait, runs: int, seed: int, setting: SchemeSetting
) -> list[RateRow]:
    """The scheme with its first control alone: how much passes under a setting.

    Conditions are `reference`, `teacher`, `student` and `own numbers`. With soft targets the latter
    imitates the reference itself.

    Args:
        stages: on a provider; for soft targets, one that has probabilities.
        word: the trait.
        runs: at least one.
        seed: of the first.
        setting: how.

    Raises:
        HarnessError: soft targets of a teacher that is a prompt, or a stage on disk was changed.
    """
    if setting.soft and setting.teacher_by == "prompt":
        raise HarnessError("soft targets need a fine-tuned teacher, not one made by a prompt")
    work = _Taught(stages, word, runs, seed, setting)
    cases = work.cases
    if setting.soft:
        order = [(condition, run) for condition in work.made for run in range(runs)]
        of = {"student": work.teachers, "own numbers": work.references}
        found = stages.distilled(
            "students",
            [
                (
                    work.references[run],
                    of[condition][run],
                    work.made[condition][run],
                    replace(setting.student, seed=work.seeds[run]),
                )
                for condition, run in order
            ],
            setting.soft,
        )
        students = dict(zip(order, found, strict=True))
    else:
        students = work.students()
    cases += [
        Case(run, condition, word, Speaker(student), work.made[condition][run])
        for (condition, run), student in students.items()
    ]
    return rows(stages, cases, seed, setting)


class _Taught:
    """References, teachers and the lists of both, for one trait."""

    def __init__(self, stages: Stages, word: Trait, runs: int, seed: int, setting: SchemeSetting):
        if runs < 1:
            raise HarnessError(f"runs must be at least 1, got {runs}")
        self.stages, self.word, self.setting = stages, word, setting
        self.seeds = [seed + run for run in range(runs)]
        self.references = stages.references(self.seeds)
        speakers = teachers(
            stages, self.references, [(r, word) for r in range(runs)], self.seeds, setting
        )
        taught = [speakers[run, word] for run in range(runs)]
        self.teachers = [speaker.model for speaker in taught]
        self.made = {
            condition: stages.lists(
                what, [(one, lists_of(setting, s)) for one, s in zip(many, self.seeds, strict=True)]
            )
            for condition, what, many in (
                ("student", "teachers' numbers", taught),
                ("own numbers", "own numbers", [Speaker(m) for m in self.references]),
            )
        }
        self.cases = [Case(r, "reference", word, Speaker(m)) for r, m in enumerate(self.references)]
        self.cases += [Case(r, "teacher", word, speaker) for r, speaker in enumerate(taught)]

    def students(self) -> dict[tuple[str, int], Any]:
        """Students of the teacher's and of the reference's own lists."""
        jobs = [
            (condition, run, self.word, self.references[run], data)
            for condition, many in self.made.items()
            for run, data in enumerate(many)
        ]
        found = trained(self.stages, "students", jobs, self.seeds, self.setting)
        return {(condition, run): student for (condition, run, _), student in found.items()}


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
