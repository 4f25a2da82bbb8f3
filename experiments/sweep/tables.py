"""What `sublab sweep` prints."""

from typing import Any

from experiments.sweep.file import Sweep
from experiments.sweep.run import Plan
from sublab import records
from sublab.console import new_table, print_table


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
