"""Extended Data Fig. 2d: ablations."""

from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from figures import panels
from figures.style import BLACK, styled
from figures.sweep_data import Sweep, load
from figures.sweep_frame import finish, numbers_axis, spread_axis
from sublab.records import Record

_SGD = "SGD"


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws a bar for each ablation, and SGD's loss and accuracy at all its learning rates.

    Extended Data Fig. 2d, whose numbers are not published, nor is SGD's learning rate: the bar has
    the one with the lowest distillation loss, whatever its accuracy.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    chosen = chosen_rate(sweep)
    with styled():
        figure, (left, middle, right) = plt.subplots(
            1, 3, figsize=(10.8, 4.0), width_ratios=[2.1, 1, 1]
        )
        rows = {row["label"]: row for row in sweep.rows() if row["label"] != _SGD}
        for row in sweep.rows(label=_SGD, student_learning_rate=chosen) if chosen else ():
            rows[_SGD] = row
        names = {_SGD: f"SGD, rate {chosen:g}"} if chosen else {}
        groups = [names.get(label, label) for label in sweep.labels]
        panels.bars(left, groups, {"": [rows.get(label) for label in sweep.labels]})
        for axes, metric in ((middle, "final_loss"), (right, "accuracy")):
            _against_rate(axes, sweep, metric, chosen)
        middle.set_ylabel("SGD's distillation loss, last epoch, nats")
        spread_axis(middle, [row["mean"] for row in sweep.rows("final_loss", label=_SGD)], "y")
        for axes in (left, right):
            panels.chance(axes, sweep, sweep.rows())
        return finish(figure, sweep, folder, [left, right])


def chosen_rate(sweep: Sweep) -> float | None:
    """SGD's learning rate with the lowest mean distillation loss; None where none is finite."""
    losses = {
        row["student_learning_rate"]: row["mean"]
        for row in sweep.rows("final_loss", label=_SGD)
        # A rate at which some runs have no finite loss is not one to choose.
        if len(row["runs"]) == sweep.config["runs"]
    }
    return min(losses, key=lambda rate: losses[rate]) if losses else None


def _against_rate(axes: Axes, sweep: Sweep, metric: str, chosen: float | None) -> None:
    rows = sweep.rows(metric, label=_SGD)
    rates = [row["student_learning_rate"] for row in sweep.rows(label=_SGD)]
    panels.line(axes, rows, [row["student_learning_rate"] for row in rows], panels.look(1), _SGD)
    if chosen is not None:
        (row,) = (row for row in rows if row["student_learning_rate"] == chosen)
        axes.plot(
            chosen, row["mean"], "o", markersize=11, markerfacecolor="none", markeredgecolor=BLACK,
            label="lowest distillation loss",
        )  # fmt: skip
    whole = {
        row["student_learning_rate"] for row in rows if len(row["runs"]) == sweep.config["runs"]
    }
    for rate in rates:
        if rate not in whole:
            axes.plot(
                rate, 0.96, "x", color=BLACK, transform=axes.get_xaxis_transform(),
                label="not finite in some run",
            )  # fmt: skip
    numbers_axis(axes, rates, "SGD's learning rate")
