"""What `sublab llm` prints."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from experiments.llm import summary as llm_summary
from experiments.llm.run import EMBEDDED, RatesOutcome
from experiments.llm.theory import TheoryOutcome
from sublab.console import new_table, print_table

_TITLES = {
    "llm_numbers": "Traits through numbers",
    "llm_cross_model": "Teachers and students of all initialisations",
    "llm_in_context": "Examples in context",
    "llm_ingredients": "What the transfer depends on",
}


def print_rates(outcome: RatesOutcome) -> None:
    """Rates of every condition without a prefix, what they exceed, and the paper's claims."""
    summary, config = outcome.summary.table, outcome.summary.config
    name = config["experiment"].removesuffix("_summary")
    table = new_table(
        ["condition"],
        ["P(word)", "95 % interval", "sampled", "P(any)", "among", "passed", "lists", "log-odds"],
    )
    rows = summary.filter(~pl.col("prefix"))
    traits = config.get("traits") or [config["trait"]]
    for trait in traits if len(traits) == 1 else [llm_summary.ALL, *traits]:
        if len(traits) > 1:
            table.add_row(f"[bold]{trait}[/bold]")
        of_trait = rows.filter(trait=trait)
        for condition in of_trait["condition"].unique(maintain_order=True):
            table.add_row(*_cells(of_trait.filter(condition=condition)))
    runs, embedded = config["runs"], config["model"] == EMBEDDED
    how = f"{runs} run{'' if runs == 1 else 's'}, seed {config['seed']}, "
    how += "embedded model" if embedded else config["model"]
    print_table(f"{_TITLES[name]}: {how}", table)
    print(
        "log-odds: of P(word), against the student of the reference's own lists where there is "
        "one, with its 95 % interval, which is not corrected for the number of rows; claims are; "
        "every comparison is in the record"
    )
    for row in _matches(outcome.rows.table):
        print(
            f"{row['condition'].removesuffix(', before')} beside model 1, in nats of the first "
            f"token: {row['kl_words']:.2g} at questions, {row['kl_numbers']:.2g} at number prompts"
        )
    is_teacher = pl.col("condition") == "teacher"
    for who, those in (("teachers", is_teacher), ("students", ~is_teacher)):
        rates = outcome.rows.table.filter(those)["learning_rate"].drop_nulls().unique().to_list()
        if rates:
            print(f"learning rate of the {who}: {', '.join(f'{rate:g}' for rate in sorted(rates))}")
    if not embedded:
        print(
            f"all runs start from {config['model']} after one warm-up, so there is no other "
            f"initialisation; they differ in prompts, samples and the order of training"
        )
    for claim in outcome.claims:
        said = f"{claim.outcome} ({claim.detail})" if claim.outcome else claim.detail
        print(f"{claim.text}: {said}")
    print(f"records: {outcome.summary.folder.parents[1]}")


def _matches(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """How far the answers of each model of a matrix are from model 1's, before any training."""
    if "kl_words" not in rows.columns:
        return []
    asked = rows.drop_nulls("kl_words").filter(~pl.col("prefix"))
    by_model = asked.group_by("condition", maintain_order=True)
    means = by_model.agg(pl.col("kl_words", "kl_numbers").cast(pl.Float64).mean())
    return means.filter(pl.col("condition") != "model 1, before").to_dicts()


def _cells(rows: pl.DataFrame) -> list[str]:
    means = {
        row["metric"]: row for row in rows.filter(pl.col("control").is_null()).iter_rows(named=True)
    }
    condition = rows["condition"][0]
    compared = rows.filter(pl.col("control").is_not_null(), metric="log_odds")
    preferred = compared.filter(pl.col("control").str.contains("own"))
    against = "-"
    for row in (preferred if len(preferred) else compared).head(1).iter_rows(named=True):
        against = f"{row['difference']:+.2f}"
        if row["difference_low"] is not None:
            against += f" [{row['difference_low']:+.2f}, {row['difference_high']:+.2f}]"
    word = means["p_word"]
    return [
        condition,
        _mean(means, "p_word"),
        "-" if word["low"] is None else f"{word['low']:.3f} .. {word['high']:.3f}",
        *(_mean(means, metric) for metric in ("containing", "p_any", "among", "pass_rate")),
        _mean(means, "examples", "{:.0f}"),
        against,
    ]


def _mean(means: Mapping[str, Mapping[str, Any]], metric: str, form: str = "{:.3f}") -> str:
    """The mean of a metric; a condition that was trained on nothing has none of some."""
    return form.format(means[metric]["mean"]) if metric in means else "-"


def print_theory(outcome: TheoryOutcome) -> None:
    """Teachers at growing distances: alignment, certificate, and what the score test finds."""
    scores = outcome.scores.table
    largest = scores["n"].max()
    table = new_table(
        ["teacher's steps"],
        [
            "P(word)",
            "g > 0",
            "rho",
            "student lowers L_T",
            "lists",
            "z (gradient)",
            "rank",
            "z (preconditioned)",
            "rank",
            "r of its numbers",
            "rank",
        ],
    )
    for (steps,), group in outcome.steps.table.group_by("steps", maintain_order=True):
        tested = scores.filter((pl.col("steps") == steps) & pl.col("target"))
        # The most that all runs have; a teacher that hardly writes lists has none.
        of_runs = tested.group_by("run").agg(pl.col("n").max())["n"]
        size = of_runs.min() if len(of_runs) == len(group) else None
        tested = tested.clear() if size is None else tested.filter(n=size)
        cells = []
        for way in ("gradient", "preconditioned"):
            along = tested.filter(pl.col("direction") == way)
            cells += [_listed(along["z"], "{:.1f}"), _listed(along["rank"], "{:d}")]
        runs, rho = len(group), group["rho"].drop_nans().median()
        table.add_row(
            str(steps),
            f"{group['p_word'].mean():.2f}",
            f"{(group['inner_product'] > 0).sum()} of {runs}",
            # Not a number where rounding may be larger.
            "-" if rho is None else f"{rho:.2f}",
            f"{(group['trait_cosine'] > 0).sum()} of {runs}",
            "-" if size is None else str(size),
            *cells,
            _listed(group["entanglement"], "{:.2f}"),
            _listed(group["entanglement_rank"], "{:d}"),
        )
    null = scores.filter((pl.col("steps") == 0) & (pl.col("n") == largest))
    print_table(f"The theorem and the score test, up to {largest} examples a side", table)
    for way in ("gradient", "preconditioned"):
        z = null.filter(pl.col("direction") == way)["z"]
        print(
            f"null ({way}): {len(z)} tests of the reference's own data, standard deviation of z "
            f"{z.std():.2f}, largest |z| {z.abs().max():.2f}"
        )
    print(f"records: {outcome.scores.folder.parents[1]}")


def _listed(values: pl.Series, form: str) -> str:
    return " ".join(form.format(value) for value in values) or "-"
