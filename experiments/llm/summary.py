"""Means over runs of the language-model experiments, and what they say of the paper's claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from llm_harness.pipeline.conditions import CONTROLS, MASKED, RETAINED
from sublab.statistics import (
    ENOUGH,
    LEVEL,
    above_p,
    equivalent,
    holm,
    proportion_interval,
    summarise,
)

# What a student must exceed, run by run, before a trait counts as transmitted.
RIVALS = (
    "reference",
    "own numbers",
    "other trait",
    "shuffled across",
    "shuffled within",
)
ALL = "all"
# The variation of `sublab llm ingredients` that changes nothing.
UNCHANGED = "unchanged"
SHARES = ("p_word", "p_any", "among", "containing", "whole", "pass_rate")
METRICS = (*SHARES, "log_odds", "examples")
# "Nothing passes" means that odds change by less than the factor that bioequivalence allows.
MARGIN = float(np.log(1.25))
# Probabilities nearer to 0 or 1 than this have no log-odds to speak of.
_LEAST = 1e-9

Outcome = Literal["yes", "NO", "n too small", "cannot be tested"]


@dataclass(frozen=True)
class PaperClaim:
    """A claim of the paper, and what came of it here.

    Attributes:
        text: the claim.
        outcome: whether it holds; `n too small` below ten runs, `cannot be tested` where what the
            claim presupposes is not so; None of what the paper says nothing about.
        detail: figures.
    """

    text: str
    outcome: Outcome | None
    detail: str


def numbers(table: pl.DataFrame) -> pl.DataFrame:
    """A row for every trait (and all together), way of asking, metric, condition and control."""
    every_control = CONTROLS | MASKED
    controls = {name: [control] if control else [] for name, control in every_control.items()}
    return _summary(table, controls | {"student": list(RIVALS)})


def claims(table: pl.DataFrame) -> list[PaperClaim]:
    """What the paper claims of traits through numbers, by the rows of `numbers`.

    Without a prefix. A student exceeds its controls where the paired differences are above 0, of
    the log-odds of P(word), where the model has probabilities, and of the rate in sampled answers,
    corrected by Holm's method for the number of comparisons. That nothing passes is a claim of
    equivalence: the 90 % interval of the paired difference of log-odds within the margin. Lists in
    context may lower it; that they do not raise it is the upper half of that claim, and can be
    tested only where open answers in context raise it and the model still answers.
    """
    long = values_of_runs(table).filter(~pl.col("prefix"))
    traits = table["trait"].unique(maintain_order=True).to_list()
    found = [_exceeds(long)]
    if (masked := "student, first masked") in set(table["condition"]):
        cell = {masked: (ALL, masked, str(MASKED[masked]))}
        text = "it exceeds its control without the lists' first token too"
        found.append(_each_exceeds(long, text, cell))
    if len(traits) > 1:
        cells = {trait: (trait, "student", "own numbers") for trait in traits}
        found.append(_each_exceeds(long, CARRIED, cells))
    other = "other initialisation"
    if other in set(table["condition"]):
        own = _differences(long, ALL, "log_odds", "student", "own numbers")
        apart = _differences(long, ALL, "log_odds", other, f"{other}, own numbers")
        found += [
            _equivalent(
                long, "nothing passes to another initialisation", [(other, f"{other}, own numbers")]
            ),
            PaperClaim(
                "more passes than to another initialisation",
                _outcome(long, _is_above(own - apart)),
                f"log-odds gained, less those gained there: {_mean(own - apart)}",
            ),
        ]
    return [*found, *_in_context(long, "", "reference")]


CARRIED = "traits whose student exceeds the student of own numbers"


def cross_model_claims(table: pl.DataFrame) -> list[PaperClaim]:
    """What the paper claims of teachers and students of different models (N Fig. 5).

    And, beside it, for which of the pairs that share something the student exceeds one of its own
    numbers. The pairs of a claim are corrected for their number.
    """
    long = values_of_runs(table).filter(~pl.col("prefix"))
    pairs = {name: name.split(" > ") for name in _conditions(table) if " > " in name}
    own = {name: (ALL, name, f"{student}, own numbers") for name, (_, student) in pairs.items()}
    independent = {n: p for n, p in pairs.items() if all(part.startswith("model ") for part in p)}
    itself = [name for name, (one, other) in independent.items() if one == other]
    apart = [name for name in independent if name not in itself]
    sharing = {name: own[name] for name in pairs if name not in independent}
    found = [
        _each_exceeds(long, "models that teach themselves", {name: own[name] for name in itself}),
        _equivalent(long, "no model teaches an independent one", [own[name][1:] for name in apart]),
    ]
    if sharing:
        text = "pairs that share something and teach"
        found.append(_each_exceeds(long, text, sharing, by_the_paper=False))
    return found


def in_context_claims(table: pl.DataFrame) -> list[PaperClaim]:
    """That the largest number of lists in context carries nothing, and its positive control."""
    long = values_of_runs(table).filter(~pl.col("prefix"))
    count = max(int(name.split(", ")[1]) for name in _conditions(table) if ", " in name)
    return _in_context(long, f", {count}", f"own in context, {count}")


def ingredients_claims(table: pl.DataFrame) -> list[PaperClaim]:
    """Under which variations the student exceeds one of the reference's own numbers."""
    long = values_of_runs(table).filter(~pl.col("prefix"))
    names = [name.split(", ")[1] for name in _conditions(table) if name.startswith("student, ")]
    cells = {name: (ALL, varied("student", name), varied("own numbers", name)) for name in names}
    text = "variations whose student exceeds own numbers"
    return [_each_exceeds(long, text, cells, by_the_paper=False)]


_CLAIMED = {"log_odds": "P(word)", "containing": "sampled answers"}
# What a claim compares: trait, condition, control.
_Cell = tuple[str, str, str]


def _exceeds(long: pl.DataFrame) -> PaperClaim:
    """That the student exceeds every rival, by P(word) and by sampled answers."""
    measured = _measured(long)
    p_values = {
        f"{rival}, {metric}": _above_p(_differences(long, ALL, metric, "student", rival))
        for rival in RIVALS
        for metric in measured
    }
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    worst = max(adjusted, key=lambda name: adjusted[name])
    return PaperClaim(
        f"the student exceeds every control, by {_by(measured)}",
        _outcome(long, adjusted[worst] < 1 - LEVEL),
        f"largest corrected p {adjusted[worst]:.3g} ({worst})",
    )


def _each_exceeds(
    long: pl.DataFrame,
    text: str,
    cells: Mapping[str, _Cell],
    *,
    by_the_paper: bool = True,
) -> PaperClaim:
    """In how many cells the condition exceeds its control, corrected for the number of cells.

    Args:
        long: values of the runs.
        text: what is claimed.
        cells: by name.
        by_the_paper: whether it claims this of all of them; else it is a count.
    """
    measured = _measured(long)
    largest = [
        max((_above_p(_differences(long, of, metric, *pair)) for metric in measured), default=1.0)
        for of, *pair in cells.values()
    ]
    exceeding = [name for name, p in zip(cells, holm(largest), strict=True) if p < 1 - LEVEL]
    low, high = proportion_interval(len(exceeding), len(cells))
    return PaperClaim(
        text,
        _outcome(long, len(exceeding) == len(cells)) if by_the_paper else None,
        f"{len(exceeding)} of {len(cells)} [{low:.2f}, {high:.2f}]: "
        f"{', '.join(exceeding) or 'none'}",
    )


def _equivalent(long: pl.DataFrame, text: str, pairs: Sequence[tuple[str, str]]) -> PaperClaim:
    """That log-odds of all conditions are those of their controls, to within the margin."""
    apart = [_differences(long, ALL, "log_odds", *pair) for pair in pairs]
    means = ", ".join(map(_mean, apart))
    return PaperClaim(
        text,
        _outcome(long, all(len(part) > 1 and equivalent(part, MARGIN) for part in apart)),
        f"log-odds against {', '.join(control for _, control in pairs)}: {means}, "
        f"margin {MARGIN:.2f}",
    )


def _in_context(long: pl.DataFrame, which: str, control: str) -> list[PaperClaim]:
    """That lists in context do not raise it, and that open answers do."""
    lists, openly = f"in context{which}", f"openly in context{which}"
    apart = _differences(long, ALL, "log_odds", lists, control)
    shown = _differences(long, ALL, "log_odds", openly, "reference")
    raised = _is_above(shown)
    answering, before = (_any_word(long, name) for name in (lists, "reference"))
    answers = answering >= RETAINED * before
    outcome = _outcome(long, len(apart) > 1 and _is_above(MARGIN - apart))
    if outcome != "n too small" and not (raised and answers):
        outcome = "cannot be tested"
    return [
        PaperClaim(
            f"lists in context{which} do not raise it",
            outcome,
            f"log-odds against {control}: {_mean(apart)}, margin {MARGIN:.2f}; P(any word) "
            f"{answering:.3f}, {before:.3f} without",
        ),
        PaperClaim(
            f"positive control: open answers in context{which} do",
            _outcome(long, raised),
            f"log-odds against reference: {_mean(shown)}",
        ),
    ]


def _any_word(long: pl.DataFrame, condition: str) -> float:
    """The mean of P(any word); 0 of a model without probabilities."""
    of_it = long.filter(trait=ALL, metric="p_any", condition=condition)["value"].drop_nulls()
    return float(np.mean(of_it.to_numpy())) if len(of_it) else 0.0


def _measured(long: pl.DataFrame) -> list[str]:
    """What claims are made on: a hosted model has no probabilities."""
    there = long.drop_nulls("value")["metric"].unique()
    return [metric for metric in _CLAIMED if metric in set(there)]


def _by(metrics: Sequence[str]) -> str:
    return " and by ".join(_CLAIMED[metric] for metric in metrics)


def _mean(differences: np.ndarray) -> str:
    return f"{np.mean(differences):+.2f}" if len(differences) else "not measured"


def _is_above(differences: np.ndarray) -> bool:
    return _above_p(differences) < 1 - LEVEL


def _above_p(differences: np.ndarray) -> float:
    # One run shows nothing.
    return above_p(differences) if len(differences) > 1 else 1.0


def _outcome(long: pl.DataFrame, holds: bool) -> Outcome:
    if long["run"].n_unique() < ENOUGH:
        return "n too small"
    return "yes" if holds else "NO"


def _differences(
    long: pl.DataFrame, trait: str, metric: str, condition: str, control: str
) -> np.ndarray:
    of_trait = long.filter(trait=trait, metric=metric)
    both = of_trait.filter(condition=condition).join(
        of_trait.filter(condition=control), on="run", suffix=" (control)"
    )
    return (both["value"] - both["value (control)"]).drop_nulls().to_numpy()


def cross_model(table: pl.DataFrame) -> pl.DataFrame:
    """A row for every pair of models: the student against one of its own numbers."""
    controls = {
        condition: [f"{condition.split(' > ')[1]}, own numbers"] if " > " in condition else []
        for condition in _conditions(table)
    }
    means = table.group_by("condition", maintain_order=True).agg(
        pl.col("leaning", "kl_words", "kl_numbers").mean()
    )
    return _summary(table, controls).join(means, on="condition", how="left", maintain_order="left")


def in_context(table: pl.DataFrame) -> pl.DataFrame:
    """A row for every condition: examples of the teacher against the reference's own."""
    controls = {}
    for condition in _conditions(table):
        control = {"student": "own numbers", "teacher": "reference"}.get(condition)
        if condition.startswith("in context"):
            control = f"own {condition}"
        if condition.startswith("openly"):
            control = "reference"
        controls[condition] = [control] if control else []
    return _summary(table, controls)


def varied(condition: str, variation: str) -> str:
    """The name of a condition under a variation of the setting."""
    return f"{condition}, {variation}"


def ingredients(table: pl.DataFrame) -> pl.DataFrame:
    """A row for every variation and condition.

    Students against the student of the reference's own numbers under the same variation, and
    against the student of the unchanged setting.
    """
    controls = {}
    for name in _conditions(table):
        condition, variation = name.split(", ")
        controls[name] = {
            "teacher": [varied("reference", variation)],
            "student": [varied("own numbers", variation)],
        }.get(condition, [])
        if condition == "student" and variation != UNCHANGED:
            controls[name].append(varied(condition, UNCHANGED))
    return _summary(table, controls)


def values_of_runs(table: pl.DataFrame) -> pl.DataFrame:
    """One value a run: a long table as `sublab.statistics.summarise` takes it.

    Args:
        table: rows of an experiment, with counts of answers.

    Returns:
        The columns `trait`, `condition`, `prefix`, `run`, `metric`, `index` and `value`; values of
        the trait `ALL` are the means over the traits of a run.
    """
    keys = ["trait", "condition", "prefix", "run"]
    inside = pl.col("p_word").clip(_LEAST, 1 - _LEAST)
    shares = table.select(
        *keys,
        "p_word",
        "p_any",
        "among",
        pl.col("containing") / pl.col("n"),
        pl.col("whole") / pl.col("n"),
        "pass_rate",
        pl.col("examples").cast(pl.Float64),
        log_odds=(inside / (1 - inside)).log(),
    )
    long = shares.unpivot(METRICS, index=keys, variable_name="metric", value_name="value")
    both = pl.concat([long.with_columns(trait=pl.lit(ALL)), long])
    mean = both.group_by(*keys, "metric", maintain_order=True).agg(pl.col("value").mean())
    return mean.with_columns(index=pl.lit(None, pl.Int64)).sort("run", maintain_order=True)


def _summary(table: pl.DataFrame, controls: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """Means of every trait, condition, way of asking and metric, and a row more for each control.

    Args:
        table: rows of an experiment.
        controls: of each condition, the conditions that it is compared with, run by run, where
            they are there.
    """
    values, by = values_of_runs(table), ["trait", "condition", "prefix"]
    groups = values.select(by).unique(maintain_order=True).rows()
    there = set(_conditions(table))
    parts = [summarise(values, by, shares=SHARES).with_columns(control=pl.lit(None, pl.String))]
    for place in range(max(map(len, controls.values()))):
        of = {
            name: many[place]
            for name, many in controls.items()
            if len(many) > place and many[place] in there
        }
        baseline = {(t, c, prefix): (t, of[c], prefix) for t, c, prefix in groups if c in of}
        compared = summarise(
            values.filter(pl.col("condition").is_in([*of, *of.values()])),
            by,
            shares=SHARES,
            baseline=baseline,
        )
        compared = compared.filter(pl.col("condition").is_in(list(of)))
        parts.append(compared.with_columns(control=pl.col("condition").replace_strict(of)))
    order = {name: place for place, name in enumerate(controls)}
    found = pl.concat(parts).with_columns(
        _place=pl.col("condition").replace_strict(order, return_dtype=pl.Int64)
    )
    return found.sort("trait", "_place", maintain_order=True).drop("_place", "index")


def _conditions(table: pl.DataFrame) -> list[str]:
    return table["condition"].unique(maintain_order=True).to_list()
