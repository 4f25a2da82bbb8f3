"""Alignment of trait and distillation gradients along training, and the first-order account."""

from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from figures import panels
from figures.style import BLACK, styled
from figures.sweep_data import Sweep, load, name_of
from figures.sweep_frame import finish
from sublab.records import Record

_PUBLISHED = 0.008


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws the gradients' cosine at every step, the account of the trait loss, and coverage.

    Left, mean and 95 % interval of each step; Kitkana and Arora, arXiv 2604.25779, report about
    .008. Middle, the sum of first-order terms against the change that they account for. Right,
    accuracy against Madl's coverage (arXiv 2606.22019), the cosine of the student's first update
    with the teacher's displacement. No figure of the paper corresponds to it.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    with styled():
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.8, 4.0))
        _cosines(left, sweep)
        if sweep.is_published_setting():
            panels.published_level(left, _PUBLISHED, "published, about .008")
        panels.clouds(middle, sweep, "trait_change", "first_order")
        middle.set_ylabel(name_of("first_order"))
        if ends := [v for m in ("trait_change", "first_order") for row in sweep.rows(m)
                    for v in row["runs"].values()]:  # fmt: skip
            reach = [min(ends), max(ends)]
            middle.plot(reach, reach, color=BLACK, linewidth=0.8, linestyle="-.", label="equal")
        panels.clouds(right, sweep, "first_coverage")
        panels.chance(right, sweep, sweep.rows())
        return finish(figure, sweep, folder, [right])


def _cosines(axes: Axes, sweep: Sweep) -> None:
    table = sweep.summary.filter(metric="alignment").drop_nulls("mean").sort("setting", "index")
    for number, label in enumerate(sweep.labels):
        rows, look = table.filter(label=label), panels.look(number)
        if not len(rows):
            continue
        step = 1 + rows["index"].to_numpy()
        axes.plot(
            step, rows["mean"].to_numpy(), color=look.colour, linestyle=look.line, linewidth=0.9
        )
        # For the legend: the line here, the marker in the other panels.
        axes.plot([], [], color=look.colour, linestyle=look.line, marker=look.marker, label=label)
        if rows["low"].null_count() == 0:
            axes.fill_between(
                step, rows["low"].to_numpy(), rows["high"].to_numpy(), color=look.colour,
                alpha=0.25, linewidth=0,
            )  # fmt: skip
    axes.axhline(0, color=BLACK, linewidth=0.6)
    axes.set(xlabel="training step", ylabel="cosine of trait and distillation gradient")
