"""What the commands print: one table for every kind of outcome."""

from typing import Any

from rich.console import Console
from rich.table import Table

from experiments import mnist, records
from experiments.sweep import Plan
from experiments.sweep_files import Sweep
from figures import mnist_bars


def print_accuracy(outcome: mnist.Outcome) -> None:
    """The six conditions, beside the paper's."""
    config = outcome.summary.config
    compared = outcome.agrees is not None
    numbers = ["n", "mean", "95 % interval", "std"]
    if compared:
        numbers += ["paper (95 %)", "difference", "allowed (99 %)", "verdict"]
    table = new_table(["condition"], numbers)
    for row in outcome.summary.table.iter_rows(named=True):
        interval = "-" if row["low"] is None else f"{row['low']:.4f} .. {row['high']:.4f}"
        std = "-" if row["std"] is None else f"{row['std']:.4f}"
        cells = [row["condition"], str(row["n"]), f"{row['mean']:.4f}", interval, std]
        if compared:
            cells += [
                f"{row['paper_mean']:.4f} ± {row['paper_half_width']:.4f}",
                f"{row['difference']:+.4f}",
                f"± {row['allowed']:.4f}",
                "agrees" if row["agrees"] else "DIFFERS",
            ]
        table.add_row(*cells)
    dataset = mnist_bars.DATASET_TITLES[config["dataset"]]
    print_table(f"Test accuracy, {dataset}, m = {config['aux']}, seed {config['seed']}", table)
    print(f"records: {outcome.summary.folder.parents[1]}")


def print_claims(summary: records.Record) -> None:
    """Claims, orders and controls of the verification."""
    rows = {kind: summary.table.filter(kind=kind).to_dicts() for kind in _VERDICTS}
    claims = new_table(
        ["claim", "statement"], ["instances", "violations", "bound", "worst", "verdict"]
    )
    for row in rows["claim"]:
        side = ">" if row["above"] else "≤"
        worst = "-" if row["worst"] is None else f"{row['worst']:.3g}"
        claims.add_row(
            row["name"], row["statement"], str(row["instances"]), str(row["violations"] or 0),
            f"{side} {row['bound']:g}", worst, _VERDICTS["claim"][row["holds"]],
        )  # fmt: skip
    orders = new_table(
        ["order of the remainder"],
        ["instances", "pooled", "median", "1 % .. 99 %", "within 0.05", "R²", "verdict"],
    )
    for row in rows["order"]:
        cells = ["-"] * 5
        if row["instances"]:
            cells = [
                f"{row['worst']:.4f}", f"{row['median']:.4f}",
                f"{row['low']:.3f} .. {row['high']:.3f}", f"{100 * row['share_near']:.1f} %",
                f"{row['r2']:.5f}",
            ]  # fmt: skip
        verdict = _VERDICTS["order"][row["holds"]]
        orders.add_row(row["statement"], str(row["instances"]), *cells, verdict)
    controls = new_table(
        ["negative control", "statement"],
        ["instances", "g > 0", "95 % interval", "condition missed", "verdict"],
    )
    for row in rows["control"]:
        share, interval = "-", "-"
        if row["instances"]:
            share, interval = f"{row['median']:.3f}", f"{row['low']:.3f} .. {row['high']:.3f}"
        controls.add_row(
            row["name"], row["statement"], str(row["instances"]), share, interval,
            row["named"] or "-", _VERDICTS["control"][row["holds"]],
        )  # fmt: skip
    count, seed = summary.config["instances"], summary.config["seed"]
    print_table(f"Claims of the theory on {count} random instances, seed {seed}", claims)
    print_table("", orders)
    print_table("Settings in which the theorem must fail", controls)
    print(f"records: {summary.folder.parents[1]}")


def print_sweep(sweep: Sweep, summary: records.Record) -> None:
    """One row a point: accuracy, its paired difference to the baseline, distillation loss."""
    compared = bool(sweep.baseline)
    numbers = ["n", "accuracy", "95 % interval"]
    if compared:
        numbers += ["difference", "95 % interval"]
    table = new_table([*sweep.axes], [*numbers, "teacher", "distillation loss"])
    means = {
        metric: {row["setting"]: row for row in summary.table.filter(metric=metric).to_dicts()}
        for metric in ("accuracy", "teacher_accuracy", "final_loss")
    }
    for number, point in enumerate(sweep.points):
        row = means["accuracy"][number]
        cells = [str(row["n"]), f"{row['mean']:.4f}", _interval(row, "low", "high", ".4f")]
        if compared:
            apart = row["difference"]
            cells += [
                "-" if apart is None else f"{apart:+.4f}",
                _interval(row, "difference_low", "difference_high", "+.4f"),
            ]
        for metric, form in (("teacher_accuracy", ".4f"), ("final_loss", ".3g")):
            found = means[metric].get(number)
            cells.append(format(found["mean"], form) if found else "-")
        table.add_row(*(_shown(point.coordinates[name]) for name in sweep.axes), *cells)
    against = ", ".join(f"{name} = {_shown(value)}" for name, value in sweep.baseline.items())
    config = summary.config
    print_table(
        f"{sweep.title}: test accuracy over {config['runs']} runs, seed {config['seed']}"
        + (f"; differences are paired, to {against}" if compared else ""),
        table,
    )
    print(f"records: {summary.folder.parents[1]}")


def print_plan(plan: Plan) -> None:
    """What a sweep would do, and what it would cost."""
    cost, (found, total) = plan.cost, plan.found
    kinds = ", ".join(f"{count} {stage}" for stage, count in cost.models.items() if count)
    lines = [
        f"{plan.sweep.title}: {len(plan.sweep.points)} points x {plan.runs} runs; "
        f"{found} of {total} are recorded",
        f"to train: {sum(cost.models.values())} models ({kinds or 'none'})",
        f"to compile: {cost.programs} training programs (those of earlier runs are cached)",
        f"arithmetic: {_si(cost.operations)}flop of matrix products",
        f"memory: {_si(cost.memory)}B for the largest population",
    ]
    if cost.seconds is not None:
        lines.append(f"expected time on this machine, in one process: {_time(cost.seconds)}")
    print("\n".join(lines))


def _si(number: float | int) -> str:
    for power, prefix in ((12, "T"), (9, "G"), (6, "M")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {prefix}"
    return f"{number:.3g} "


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _interval(row: dict[str, Any], low: str, high: str, form: str) -> str:
    return "-" if row[low] is None else f"{row[low]:{form}} .. {row[high]:{form}}"


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


_VERDICTS = {
    "claim": {True: "holds", False: "VIOLATED", None: "-"},
    "order": {True: "is 2", False: "IS NOT 2", None: "-"},
    "control": {True: "violated", False: "NOT VIOLATED", None: "-"},
}


def new_table(words: list[str], numbers: list[str]) -> Table:
    """An empty table: columns of words to the left, columns of numbers to the right."""
    table = Table(*words)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def print_table(title: str, table: Table) -> None:
    """A table under its title."""
    # A pipe has no width of its own; the table must not be folded there.
    console = Console()
    console = console if console.is_terminal else Console(width=150)
    if title:
        console.print(title)
    console.print(table)
