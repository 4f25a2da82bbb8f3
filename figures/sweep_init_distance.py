"""Accuracy against how far the student's start lies from the teacher's."""

from pathlib import Path

from matplotlib import pyplot as plt

from figures import panels
from figures.style import styled
from figures.sweep_data import load, name_of
from figures.sweep_frame import finish, numbers_axis
from sublab.records import Record

_REFERENCE = "reference"
_KINDS = {"interpolated": "interpolation", "perturbed": "perturbation"}


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws accuracy against interpolation, against perturbation, and against the distance.

    The reference itself is at 0 of all three. No published figure corresponds to it.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    reference = sweep.rows(label=_REFERENCE)
    with styled():
        figure, panel = plt.subplots(1, 3, figsize=(10.4, 4.0), sharey=True)
        for axes, (label, axis) in zip(panel, _KINDS.items(), strict=False):
            rows = sweep.rows(label=label)
            number = sweep.labels.index(label) if label in sweep.labels else 1
            panels.line(axes, rows, [row[axis] for row in rows], panels.look(number), label)
            panels.line(axes, reference, [0] * len(reference), panels.look(0), _REFERENCE)
            numbers_axis(axes, [row[axis] for row in rows] + [0] * len(reference), name_of(axis))
        panels.clouds(panel[2], sweep, "start_distance")
        for axes in panel:
            panels.chance(axes, sweep, sweep.rows())
        return finish(figure, sweep, folder, panel)
