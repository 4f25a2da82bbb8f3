"""What `sublab sweep` and `sublab mnist` print."""

from typing import Any

from experiments.sweep.run import DryRun
from figures.spec import runs_in_words
from sublab import records
from sublab.console import duration, new_table, print_table
from sublab.statistics import ENOUGH


def print_sweep(summary: records.Record) -> None:
    """One row a point: accuracy, its paired difference to the baseline, distillation loss.

    Where accuracy has an expectation that is known exactly, it stands beside.

    A sweep with named published values has a second table: each beside ours, with the verdict.
    """
    config = summary.config
    compared = bool(config["baseline"])
    numbers = ["n", "accuracy", "95 % interval"]
    # A summary of an older version says nothing of it.
    known = "expected" in summary.table.columns and summary.table["expected"].count() > 0
    if known:
        numbers.append("expected")
    if compared:
        numbers += ["difference", "95 % interval"]
    table = new_table([*config["axes"]], [*numbers, "teacher", "distillation loss"])
    means = {
        metric: {row["point"]: row for row in summary.table.filter(metric=metric).to_dicts()}
        for metric in ("accuracy", "teacher_accuracy", "final_loss")
    }
    for number, point in enumerate(config["points"]):
        cells = [_shown(point["coordinates"][name]) for name in config["axes"]]
        row = means["accuracy"].get(number)
        if row is None:
            table.add_row(*cells, "0", *["-"] * len(numbers), "-")
            continue
        cells += [str(row["n"]), f"{row['mean']:.4f}", _interval(row, "low", "high", ".4f")]
        if known:
            cells.append("-" if row["expected"] is None else f"{row['expected']:.4f}")
        if compared:
            difference = row["difference"]
            cells += [
                "-" if difference is None else f"{difference:+.4f}",
                _interval(row, "difference_low", "difference_high", "+.4f"),
            ]
        for metric, form in (("teacher_accuracy", ".4f"), ("final_loss", ".3g")):
            mean = means[metric].get(number)
            cells.append(format(mean["mean"], form) if mean else "-")
        table.add_row(*cells)
    against = ", ".join(f"{name} = {_shown(value)}" for name, value in config["baseline"].items())
    data = f", {config['dataset_title']}" if config["dataset_title"] else ""
    print_table(
        f"{config['title']}{data}: test accuracy over {runs_in_words(config)} runs, "
        f"seed {config['seed']}" + (f"; differences are paired, to {against}" if compared else ""),
        table,
    )
    named = [row for row in config["published"] if row["name"] is not None]
    if named:
        _print_published(named)
    for line in _left_out(config["published"]):
        print(line)
    print(f"records: {summary.folder.parents[1]}")


def print_dry_run(forecast: DryRun) -> None:
    """What a sweep would do, and what it would cost."""
    cost = forecast.cost
    kinds = ", ".join(f"{count} {stage}" for stage, count in cost.models.items() if count)
    lines = [
        f"{forecast.sweep.title}: {len(forecast.sweep.points)} points x {forecast.runs} runs; "
        f"{forecast.recorded} of {forecast.total} are recorded",
        f"to train: {sum(cost.models.values())} models ({kinds or 'none'})",
        f"to compile: {cost.programs} training programs (those of earlier runs are cached)",
        f"arithmetic: {_si(cost.operations)}flop of matrix products",
        f"memory: {_si(cost.memory)}B for the largest population",
    ]
    if cost.measured:
        lines.insert(2, f"to measure: {cost.measured} students that were kept")
    if forecast.again:
        lines.insert(
            2, f"{forecast.again} of them were not kept and are trained again to be measured"
        )
    if cost.seconds is not None:
        lines.append(f"expected time on this machine, in one process: {duration(cost.seconds)}")
    print("\n".join(lines))


def _print_published(rows: list[dict[str, Any]]) -> None:
    compared = any(row["equal"] for row in rows)
    numbers = ["n", "mean", "95 % interval"]
    # Beside the paper's values there is no room for what no verdict rests on.
    numbers += ["paper (95 %)", "difference", "allowed (99 %)", "verdict"] if compared else ["std"]
    table = new_table(["condition"], numbers)
    for row in rows:
        ours = row["ours"]
        cells = [row["name"], *["-"] * 3]
        if ours is not None:
            interval = _interval(ours, "low", "high", ".4f")
            cells = [row["name"], str(ours["n"]), f"{ours['mean']:.4f}", interval]
        if compared:
            cells += _verdict(row)
        else:
            cells.append("-" if ours is None or ours["std"] is None else f"{ours['std']:.4f}")
        table.add_row(*cells)
    title = "Beside the published values" if compared else "Conditions"
    print_table(title, table)


def _left_out(rows: list[dict[str, Any]]) -> list[str]:
    """Which published values stand beside nothing, and why."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row["mean"] is not None and not row["equal"]:
            why = ", ".join(row["differs"]) or "no point is there at this size"
            reasons.setdefault(why, []).append(f"{row['mean']:g}")
    return [
        f"published {', '.join(means)} left out, since the settings differ: {why}"
        for why, means in reasons.items()
    ]


def _verdict(row: dict[str, Any]) -> list[str]:
    """A published value, its difference to ours, and whether they agree."""
    if not row["equal"]:
        return ["-"] * 4
    paper = f"{row['mean']:.4f}"
    if row["half_width"] is not None:
        paper += f" ± {row['half_width']:.4f}"
    if row["agrees"] is None:
        few = row["ours"] is not None and row["ours"]["n"] < ENOUGH
        return [paper, "-", "-", "n too small" if few else "-"]
    return [
        paper,
        f"{row['difference']:+.4f}",
        f"± {row['allowed']:.4f}",
        "agrees" if row["agrees"] else "DIFFERS",
    ]


def _si(number: float | int) -> str:
    for power, prefix in ((12, "T"), (9, "G"), (6, "M")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {prefix}"
    return f"{number:.3g} "


def _interval(row: dict[str, Any], low: str, high: str, form: str) -> str:
    return "-" if row[low] is None else f"{row[low]:{form}} .. {row[high]:{form}}"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return "-".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
