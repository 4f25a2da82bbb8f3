"""Whether the records bear a statement of the paper out, in one of six words.

Every rule is a function of `RULES`. Tests are those of `sublab.statistics`; a verdict needs
`ENOUGH` runs. Where a table says what the experiment itself decided (published values of a sweep,
claims of `sublab verify`), that is the verdict; the language models' claims are decided as
`experiments.llm.summary.claims` does, from the paired differences that the table has.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from experiments.docs import number
from experiments.llm.summary import ALL, MARGIN
from experiments.report.claims import ClaimSection, Statement, is_of
from experiments.report.evidence import Evidence, differences_of, sample_of
from llm_harness.pipeline.conditions import RETAINED
from sublab.statistics import (
    ENOUGH,
    LEVEL,
    Published,
    above_p,
    compare,
    equivalent,
    holm,
    mean_interval,
    proportion_interval,
)

Word = Literal["agrees", "differs", "not shown", "n too small", "cannot be tested", "no records"]
AGREES, DIFFERS, NOT_SHOWN, FEW, UNTESTABLE, MISSING = WORDS = (
    "agrees",
    "differs",
    "not shown",
    "n too small",
    "cannot be tested",
    "no records",
)
# What a student must exceed its controls in, of `experiments.llm.summary.METRICS`.
EXCEEDED = ("log_odds", "containing")
METRIC_NAMES = {
    "log_odds": "log-odds of P(word)",
    "containing": "sampled answers with the word",
    "p_word": "P(word)",
}
_ALPHA = 1 - LEVEL


@dataclass(frozen=True)
class MeanWithEnds:
    """A mean and the ends of its 95 % interval, which are None for a single run."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Finding:
    """What came of a statement.

    Attributes:
        word: the verdict.
        why: what it rests on, in a phrase.
        n: number of runs, or of instances; None where there are no records.
        ours: our number in words; "" where there is none.
        share: our mean where it is a share, else None.
    """

    word: Word
    why: str
    n: int | None = None
    ours: str = ""
    share: MeanWithEnds | None = None


# One-sided p of a comparison, corrected for the number of its family: that the mean difference is
# not above 0, and that it is not below.
Corrected = Mapping[tuple[str, ...], tuple[float, float]]
Rule = Callable[[Statement, ClaimSection, Evidence, Corrected], Finding]
Sample = Float[np.ndarray, " n"]


def judged(section: ClaimSection, evidence: Evidence | None) -> list[Finding]:
    """What came of each statement of a section.

    Args:
        section: the claim.
        evidence: the table of its experiment; None where there is none.
    """
    if evidence is None:
        return [Finding(MISSING, "") for _ in section.rows]
    corrected = _corrected(section, evidence)
    return [RULES[row.rule](row, section, evidence, corrected) for row in section.rows]


def place_of(section: ClaimSection, evidence: Evidence, at: Mapping[str, Any]) -> dict[str, Any]:
    """A place with the point that the section chooses, where it chooses one of the label."""
    metric = section.choose.get(str(at.get("label", "")))
    rows = evidence.where(metric, at) if metric is not None else []
    rows = [row for row in rows if row["mean"] is not None]
    if not rows:
        return dict(at)
    chosen = min(rows, key=lambda row: row["mean"])
    return {axis: chosen[axis] for axis in evidence.about["axes"] if chosen[axis] != ""}


def interval_text(mean: float | None, low: float | None, high: float | None, **form: Any) -> str:
    """A mean and its interval as prose has them; `form` as for `experiments.docs.number`."""
    form = {"share": True} | form
    if mean is None:
        return ""
    text = number(repr(mean), **form)
    if low is None or high is None:
        return text
    return f"{text} [{number(repr(low), **form)}, {number(repr(high), **form)}]"


# Rules about the toy.


def _published(row: Statement, section: ClaimSection, evidence: Evidence, _: Corrected) -> Finding:
    """Our mean against a published one, as the sweep itself has compared them."""
    entries = [entry for entry in evidence.about["published"] if is_of(row, entry)]
    if row.level:
        ours = evidence.row(row.metric, row.at)
    else:
        ours = entries[0]["ours"] if entries else None
    if ours is None or not entries:
        return _absent()
    (entry, *_rest) = entries
    share = MeanWithEnds(ours["mean"], ours["low"], ours["high"])
    said = _of_mean(ours["n"], share, evidence.is_share(row.metric))
    if not entry["equal"]:
        differs = ", ".join(entry["differs"]) or "this size"
        return Finding(UNTESTABLE, f"the settings are not the paper's: {differs}", **said)
    if entry["agrees"] is not None:
        why = (
            f"difference {number(repr(entry['difference']), True, True)}, "
            f"allowed ± {number(repr(entry['allowed']), True)} (99 %)"
        )
        return Finding(AGREES if entry["agrees"] else DIFFERS, why, **said)
    if ours["n"] < ENOUGH:
        return Finding(FEW, _few(ours["n"]), **said)
    assert row.value is not None
    inside = (
        share.low is not None
        and share.high is not None
        and share.low <= row.value.mean <= share.high
    )
    where = "lies within" if inside else "lies outside"
    return Finding(
        UNTESTABLE,
        f"no interval of the paper's value was published; it {where} ours",
        **said,
    )


def _paired(row: Statement, section: ClaimSection, evidence: Evidence, c: Corrected) -> Finding:
    """That the paired difference to the baseline is above 0."""
    ours = evidence.row(row.metric, place_of(section, evidence, row.at))
    if ours is None:
        return _absent()
    return _directed(row, evidence, ours, c, "paired difference", differences_of(ours), 0.0)


def _above_level(
    row: Statement, section: ClaimSection, evidence: Evidence, c: Corrected
) -> Finding:
    """That the mean is above chance."""
    ours = evidence.row(row.metric, place_of(section, evidence, row.at))
    if ours is None:
        return _absent()
    sample = sample_of(ours, evidence.is_share(row.metric))
    return _directed(row, evidence, ours, c, "above chance by", sample, row.level_value)


def _directed(
    row: Statement,
    evidence: Evidence,
    ours: Mapping[str, Any],
    corrected: Corrected,
    what: str,
    sample: Sample | None,
    level: float,
) -> Finding:
    said = _of_row(ours, row, evidence)
    if sample is None or ours["n"] < ENOUGH:
        return Finding(FEW, _few(ours["n"]), **said)
    up, down = corrected[_key(row)]
    size = number(repr(float(np.mean(sample)) - level), True, True)
    how = ", Holm" if row.family else ""
    return Finding(_word(up, down), f"{what} {size}, one-sided p {_p(up)}{how}", **said)


def _at_level(row: Statement, section: ClaimSection, evidence: Evidence, _: Corrected) -> Finding:
    """That the mean is chance, to within a margin."""
    ours = evidence.row(row.metric, place_of(section, evidence, row.at))
    if ours is None:
        return _absent()
    sample = sample_of(ours, evidence.is_share(row.metric))
    said = _of_row(ours, row, evidence)
    if sample is None or ours["n"] < ENOUGH:
        return Finding(FEW, _few(ours["n"]), **said)
    chance = number(repr(row.level_value), True)
    word = _equivalence(sample - row.level_value, row.margin)
    return Finding(word, f"equivalence to {chance} ± {number(repr(row.margin), True)}", **said)


def _apart(sign: int) -> Rule:
    """That a mean is higher (1) or lower (-1) than another, by the interval of the difference."""

    def rule(row: Statement, section: ClaimSection, evidence: Evidence, _: Corrected) -> Finding:
        return _against_other(row, section, evidence, lambda d, allowed: _side(sign * d, allowed))

    return rule


def _side(difference: float, allowed: float) -> Word:
    if abs(difference) <= allowed:
        return NOT_SHOWN
    return AGREES if difference > 0 else DIFFERS


def _near(row: Statement, section: ClaimSection, evidence: Evidence, _: Corrected) -> Finding:
    """That a mean is not farther from another than a margin."""

    def word(difference: float, allowed: float) -> Word:
        if abs(difference) + allowed < row.margin:
            return AGREES
        return DIFFERS if abs(difference) - allowed > row.margin else NOT_SHOWN

    return _against_other(row, section, evidence, word)


def _against_other(
    row: Statement,
    section: ClaimSection,
    evidence: Evidence,
    decide: Callable[[float, float], Word],
) -> Finding:
    """A mean against another, by Welch's interval of their difference."""
    ours = evidence.row(row.metric, place_of(section, evidence, row.at))
    other = evidence.row(row.other_metric, place_of(section, evidence, row.other))
    if ours is None or other is None:
        return _absent()
    said = _of_row(ours, row, evidence)
    first = sample_of(ours, evidence.is_share(row.metric))
    second = sample_of(other, evidence.is_share(row.other_metric))
    few = min(ours["n"], other["n"])
    if first is None or second is None or few < ENOUGH:
        return Finding(FEW, _few(few), **said)
    theirs = mean_interval(second)
    assert theirs.high is not None
    verdict = compare(first, Published(theirs.mean, theirs.high - theirs.mean, theirs.n))
    assert verdict is not None
    margin = f", margin {number(repr(row.margin), True)}" if row.margin else ""
    why = (
        f"apart by {number(repr(verdict.difference), True, True)}, "
        f"± {number(repr(verdict.allowed), True)} (99 %){margin}"
    )
    return Finding(decide(verdict.difference, verdict.allowed), why, **said)


# Rules about the theorem.


def _verified(row: Statement, section: ClaimSection, evidence: Evidence, _: Corrected) -> Finding:
    """A claim of `sublab verify`: no instance violates it."""
    ours = _of_verify(evidence, "claim", row.name)
    if ours is None:
        return _absent()
    worst = "" if ours["worst"] is None else f"worst {ours['worst']:.3g}, "
    side = "above" if ours["above"] == "true" else "at most"
    text = f"{ours['violations'] or 0:,} violations"
    return Finding(
        _held(ours), f"{worst}must be {side} {ours['bound']:g}", n=ours["instances"], ours=text
    )


def _order(row: Statement, section: ClaimSection, evidence: Evidence, _: Corrected) -> Finding:
    """The order of the remainder, which must be 2."""
    ours = _of_verify(evidence, "order", row.name)
    if ours is None or ours["worst"] is None:
        return _absent()
    return Finding(
        _held(ours),
        f"median {ours['median']:.3f}; 1 % to 99 %: {ours['low']:.2f} to {ours['high']:.2f}",
        n=ours["instances"],
        ours=f"order {ours['worst']:.3f}",
    )


def _must_fail(row: Statement, section: ClaimSection, evidence: Evidence, _: Corrected) -> Finding:
    """A setting in which the theorem must not hold."""
    ours = _of_verify(evidence, "control", row.name)
    if ours is None or ours["median"] is None:
        return _absent()
    share = MeanWithEnds(ours["median"], ours["low"], ours["high"])
    missed = f", condition missed: {ours['named']}" if ours["named"] else ""
    return Finding(
        _held(ours),
        f"the statement may hold in {ours['bound']:g} at most{missed}",
        n=ours["instances"],
        ours=f"holds in {interval_text(share.mean, share.low, share.high)}",
        share=share,
    )


def _of_verify(evidence: Evidence, kind: str, name: str) -> Mapping[str, Any] | None:
    for row in evidence.rows:
        if row["kind"] == kind and row["name"] == name and row["instances"]:
            return row
    return None


def _held(row: Mapping[str, Any]) -> Word:
    words: dict[str, Word] = {"true": AGREES, "false": DIFFERS}
    return words.get(row["holds"], FEW)


# Rules about language models.


def of_models(
    evidence: Evidence, metric: str, condition: str, control: str = "", trait: str = ALL
) -> Mapping[str, Any] | None:
    """The row of a condition, asked without a prefix, against a control ("": its own means)."""
    at = {"trait": trait, "condition": condition, "prefix": "false", "control": control}
    rows = [
        row
        for row in evidence.rows
        if row["metric"] == metric and all(row[key] == value for key, value in at.items())
    ]
    return rows[0] if rows else None


def _exceeds(row: Statement, section: ClaimSection, evidence: Evidence, c: Corrected) -> Finding:
    """That a student exceeds its controls, by P(word) and by sampled answers."""
    return _beyond(row, evidence, c, EXCEEDED)


def _exceeds_log_odds(
    row: Statement, section: ClaimSection, evidence: Evidence, c: Corrected
) -> Finding:
    """That a condition exceeds its control, by P(word)."""
    return _beyond(row, evidence, c, EXCEEDED[:1])


def _beyond(row: Statement, evidence: Evidence, c: Corrected, metrics: Sequence[str]) -> Finding:
    keys = _comparisons(row, metrics)
    rows = {key: of_models(evidence, key[1], key[0], key[2]) for key in keys}
    if any(one is None for one in rows.values()):
        return _absent()
    few = min(one["n"] for one in rows.values() if one is not None)
    said = _of_condition(row, evidence, few)
    if few < ENOUGH:
        return Finding(FEW, _few(few), **said)
    worst = max(keys, key=lambda key: c[key][0])
    word = _word(c[worst][0], min(c[key][1] for key in keys))
    how = ", Holm" if row.family else ""
    against = f"{METRIC_NAMES[worst[1]]}" + (f" against {worst[2]}" if len(keys) > 2 else "")
    return Finding(word, f"largest one-sided p {_p(c[worst][0])}{how} ({against})", **said)


def _nothing_passes(
    row: Statement, section: ClaimSection, evidence: Evidence, _: Corrected
) -> Finding:
    """That log-odds are those of the control, to within the margin."""
    return _by_margin(row, evidence, "within", _equivalence)


def _not_raised(row: Statement, section: ClaimSection, evidence: Evidence, _: Corrected) -> Finding:
    """That log-odds are not above those of the control by the margin; they may be below.

    Examples in context say nothing of a model that no open answers in context move, or that
    answers no more after them.
    """
    openly = of_models(evidence, "log_odds", f"openly {row.condition}", "reference")
    answers = [of_models(evidence, "p_any", name, "") for name in (row.condition, "reference")]
    means = [one["mean"] for one in answers if one is not None]
    shown = None if openly is None else differences_of(openly)
    if shown is not None and len(means) == 2 and len(shown) >= ENOUGH:
        raised = above_p(shown) < _ALPHA
        if not raised or means[0] < RETAINED * means[1]:
            said = _of_condition(row, evidence, len(shown))
            why = "the model no longer answers" if raised else "its positive control fails"
            return Finding(UNTESTABLE, why, **said)

    def word(sample: Sample, margin: float) -> Word:
        if above_p(margin - sample) < _ALPHA:
            return AGREES
        return DIFFERS if above_p(sample - margin) < _ALPHA else NOT_SHOWN

    return _by_margin(row, evidence, "not above", word)


def _by_margin(
    row: Statement,
    evidence: Evidence,
    what: str,
    decide: Callable[[Sample, float], Word],
) -> Finding:
    (control,) = row.controls
    ours = of_models(evidence, "log_odds", row.condition, control)
    sample = None if ours is None else differences_of(ours)
    if ours is None:
        return _absent()
    said = _of_condition(row, evidence, ours["n"])
    if sample is None or ours["n"] < ENOUGH:
        return Finding(FEW, _few(ours["n"]), **said)
    return Finding(decide(sample, MARGIN), f"odds {what} a factor of {np.exp(MARGIN):g}", **said)


def _every_trait(
    row: Statement, section: ClaimSection, evidence: Evidence, _: Corrected
) -> Finding:
    """That the student of every trait exceeds its control, corrected for the number of traits."""
    traits = list(evidence.about["traits"])
    (control,) = row.controls
    largest, few = [], []
    for trait in traits:
        rows = [of_models(evidence, m, row.condition, control, trait) for m in EXCEEDED]
        samples = [None if one is None else differences_of(one) for one in rows]
        few += [one["n"] for one in rows if one is not None]
        largest.append(max(1.0 if s is None else above_p(s) for s in samples))
    if not few:
        return _absent()
    carried = [trait for trait, p in zip(traits, holm(largest), strict=True) if p < _ALPHA]
    share = MeanWithEnds(
        len(carried) / len(traits), *proportion_interval(len(carried), len(traits))
    )
    said: dict[str, Any] = {
        "n": min(few),
        "ours": f"{len(carried)} of {len(traits)}",
        "share": share,
    }
    if min(few) < ENOUGH:
        return Finding(FEW, _few(min(few)), **said)
    why = f"Holm over {len(traits)} traits: {', '.join(carried) or 'none'}"
    return Finding(AGREES if len(carried) == len(traits) else NOT_SHOWN, why, **said)


RULES: dict[str, Rule] = {
    "published": _published,
    "above": _paired,
    "above_level": _above_level,
    "at_level": _at_level,
    "higher": _apart(1),
    "lower": _apart(-1),
    "near": _near,
    "verified": _verified,
    "order": _order,
    "must_fail": _must_fail,
    "exceeds": _exceeds,
    "exceeds_log_odds": _exceeds_log_odds,
    "equivalent": _nothing_passes,
    "not_raised": _not_raised,
    "every_trait": _every_trait,
}

# What several rules share.


def _key(row: Statement) -> tuple[str, ...]:
    """What names a comparison with the baseline or with chance, within its section."""
    return row.metric, repr(sorted(row.at.items())), row.rule


def _comparisons(row: Statement, metrics: Sequence[str]) -> list[tuple[str, ...]]:
    return [(row.condition, metric, control) for control in row.controls for metric in metrics]


def _corrected(section: ClaimSection, evidence: Evidence) -> Corrected:
    """The p of all comparisons of a section, those of a family corrected together."""
    families: dict[str, dict[tuple[str, ...], Sample]] = {}
    for number_of_row, row in enumerate(section.rows):
        # Without a family a statement stands alone.
        family = families.setdefault(row.family or str(number_of_row), {})
        for key, sample in _samples(row, section, evidence).items():
            if sample is not None and len(sample) > 1:
                family[key] = sample
    corrected: dict[tuple[str, ...], tuple[float, float]] = {}
    for family in families.values():
        up = holm([above_p(sample) for sample in family.values()])
        down = holm([above_p(-sample) for sample in family.values()])
        corrected |= zip(family, zip(up, down, strict=True), strict=True)
    return corrected


def _samples(
    row: Statement, section: ClaimSection, evidence: Evidence
) -> dict[tuple[str, ...], Sample | None]:
    """By comparison, the differences that a directed statement looks at."""
    if row.rule in ("exceeds", "exceeds_log_odds"):
        metrics = EXCEEDED if row.rule == "exceeds" else EXCEEDED[:1]
        return {
            key: differences_of(ours)
            for key in _comparisons(row, metrics)
            if (ours := of_models(evidence, key[1], key[0], key[2])) is not None
        }
    if row.rule in ("above", "above_level"):
        ours = evidence.row(row.metric, place_of(section, evidence, row.at))
        if ours is None:
            return {}
        if row.rule == "above":
            return {_key(row): differences_of(ours)}
        sample = sample_of(ours, evidence.is_share(row.metric))
        return {_key(row): None if sample is None else sample - row.level_value}
    return {}


def _word(up: float, down: float) -> Word:
    """Of a statement that something is above 0: by the p that it is not, and that it is below."""
    if up < _ALPHA:
        return AGREES
    return DIFFERS if down < _ALPHA else NOT_SHOWN


def _equivalence(sample: Sample, margin: float) -> Word:
    if equivalent(sample, margin):
        return AGREES
    beyond = min(above_p(sample - margin), above_p(-margin - sample))
    return DIFFERS if beyond < _ALPHA else NOT_SHOWN


def _absent() -> Finding:
    return Finding(MISSING, "the table has no such row")


def _few(n: int) -> str:
    return f"{n} of {ENOUGH} runs"


def _of_mean(n: int, mean: MeanWithEnds, share: bool) -> dict[str, Any]:
    text = interval_text(mean.mean, mean.low, mean.high, share=share)
    return {"n": n, "ours": text, "share": mean if share else None}


def _of_row(ours: Mapping[str, Any], row: Statement, evidence: Evidence) -> dict[str, Any]:
    mean = MeanWithEnds(ours["mean"], ours["low"], ours["high"])
    return _of_mean(ours["n"], mean, evidence.is_share(row.metric))


def _of_condition(row: Statement, evidence: Evidence, n: int) -> dict[str, Any]:
    """P(word) of a condition, or its paired difference of log-odds where it has one control."""
    if len(row.controls) == 1:
        ours = of_models(evidence, "log_odds", row.condition, row.controls[0])
        assert ours is not None
        ends = ours["difference_low"], ours["difference_high"]
        text = interval_text(ours["difference"], *ends, share=False, signed=True)
        return {"n": n, "ours": f"log-odds {text}"}
    ours = of_models(evidence, "p_word", row.condition)
    if ours is None:
        return {"n": n}
    share = MeanWithEnds(ours["mean"], ours["low"], ours["high"])
    text = interval_text(share.mean, share.low, share.high)
    return {"n": n, "ours": f"P(word) {text}", "share": share}


def _p(p: float) -> str:
    return "< .001" if p < 0.001 else number(repr(p), share=False, digits=2)
