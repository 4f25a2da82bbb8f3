"""What `sublab llm` prints."""

import polars as pl

from experiments.llm import summary as llm_summary
from experiments.llm.run import COT, RatesOutcome
from experiments.llm.theory import TheoryOutcome
from sublab import records
from sublab.console import new_table, print_table

_TITLES = {
    "llm_numbers": "Traits through numbers",
    "llm_cross_model": "Teachers and students of all initialisations",
    "llm_in_context": "Examples in context",
    "llm_ingredients": "What the transfer depends on",
}


def print_rates(outcome: RatesOutcome) -> None:
    """Rates of every condition, and what they exceed."""
    summary, config = outcome.summary.table, outcome.summary.config
    name = config["experiment"].removesuffix("_summary")
    table = new_table(
        ["trait", "condition"],
        [
            "n",
            "among the words",
            "95 % interval",
            "plain",
            "against",
            "difference",
            "95 % interval",
        ],
    )
    unprefixed = summary.filter(~pl.col("prefix"))
    if name == "llm_numbers" and len(config["traits"]) == 1:
        # All traits together are that one.
        unprefixed = unprefixed.filter(pl.col("trait") != llm_summary.ALL)
    for row in unprefixed.filter(pl.col("metric") == "among").iter_rows(named=True):
        same = (pl.col("trait") == row["trait"]) & (pl.col("condition") == row["condition"])
        plain = unprefixed.filter(
            same & (pl.col("metric") == "plain") & pl.col("control").is_null()
        )
        first = row["control"] is None
        cells = ["", "", "", "", "", ""]
        if first:
            cells = [
                row["trait"],
                row["condition"],
                str(row["n"]),
                f"{row['mean']:.3f}",
                _interval(row["low"], row["high"]),
                f"{plain['mean'][0]:.3f}",
            ]
        against = ["-", "-", "-"]
        if not first:
            against = [
                row["control"],
                f"{row['difference']:+.3f}",
                _interval(row["difference_low"], row["difference_high"]),
            ]
        table.add_row(*cells, *against)
    how = f"{config['runs']} runs, seed {config['seed']}, embedded model"
    print_table(f"{_TITLES[name]}: {how}", table)
    if name == "llm_numbers":
        carried, traits = llm_summary.transmitted(summary), config["traits"]
        print(
            f"transmitted: {len(carried)} of {len(traits)} traits "
            f"({', '.join(carried) or 'none'}), by the 95 % interval of student minus own numbers"
        )
        print(
            "the student exceeds every control, and another initialisation does not: "
            + ("yes" if outcome.holds else "NO")
        )
    print(f"records: {outcome.summary.folder.parents[1]}")


def print_filtering(record: records.Record) -> None:
    """What the filters dropped, and what it would take to go on."""
    table = new_table(["speaker", "filter", "completions"], ["share"])
    for row in record.table.iter_rows(named=True):
        share = row["count"] / row["before"] if row["before"] else 0.0
        table.add_row(
            row["speaker"], row["filter"], f"{row['reason']}: {row['count']}", f"{share:.1%}"
        )
    what = "Chain of thought" if record.config["experiment"] == COT else "Code"
    print_table(f"{what}: {record.config['count']} prompts, embedded model", table)
    print(
        "the embedded model writes neither code nor reasoning, and its verdicts as a judge are "
        "none; a student needs a real model behind the same interface (docs/harness.md)"
    )
    print(f"records: {record.folder.parents[1]}")


def print_theory(outcome: TheoryOutcome) -> None:
    """Teachers at growing distances: alignment, certificate, and what the score test finds."""
    largest = outcome.scores.table["n"].max()
    table = new_table(
        ["teacher's steps"],
        [
            "rate among",
            "g > 0",
            "rho",
            "student lowers L_T",
            "z (gradient)",
            "rank",
            "z (preconditioned)",
            "rank",
            "r of its numbers",
            "rank",
        ],
    )
    for (steps,), group in outcome.steps.table.group_by("steps", maintain_order=True):
        tested = outcome.scores.table.filter(
            (pl.col("steps") == steps) & (pl.col("n") == largest) & pl.col("target")
        )
        cells = []
        for way in ("gradient", "preconditioned"):
            along = tested.filter(pl.col("direction") == way)
            cells += [_listed(along["z"], "{:.1f}"), _listed(along["rank"], "{:d}")]
        runs = len(group)
        table.add_row(
            str(steps),
            f"{group['among'].mean():.2f}",
            f"{(group['inner_product'] > 0).sum()} of {runs}",
            f"{group['rho'].median():.2f}",
            f"{(group['trait_cosine'] > 0).sum()} of {runs}",
            *cells,
            _listed(group["entanglement"], "{:.2f}"),
            _listed(group["entanglement_rank"], "{:d}"),
        )
    null = outcome.scores.table.filter((pl.col("steps") == 0) & (pl.col("n") == largest))
    print_table(f"The theorem and the score test, {largest} examples a side", table)
    for way in ("gradient", "preconditioned"):
        z = null.filter(pl.col("direction") == way)["z"]
        print(
            f"null ({way}): {len(z)} tests of the reference's own data, standard deviation of z "
            f"{z.std():.2f}, largest |z| {z.abs().max():.2f}"
        )
    print(f"records: {outcome.scores.folder.parents[1]}")


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:+.3f} .. {high:+.3f}"


def _listed(values: pl.Series, form: str) -> str:
    return " ".join(form.format(value) for value in values)
