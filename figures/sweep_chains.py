"""Accuracy along chains of generations."""

from pathlib import Path

from matplotlib import pyplot as plt

from figures import panels
from figures.style import styled
from figures.sweep_data import load, name_of
from figures.sweep_frame import finish, numbers_axis
from sublab.records import Record


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws accuracy against the generation, a line for each m.

    No published figure corresponds to it.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    with styled():
        figure, axes = plt.subplots(figsize=(5.6, 4.2))
        values = sweep.values("aux")
        for number, aux in enumerate(values):
            rows = sweep.rows(aux=aux)
            x = [row["generations"] for row in rows]
            panels.line(
                axes, rows, x, panels.look(number), f"m = {aux}", panels.beside(number, len(values))
            )
        numbers_axis(axes, sweep.values("generations"), name_of("generations"))
        panels.chance(axes, sweep, sweep.rows())
        return finish(figure, sweep, folder, [axes])
