"""Accuracy by what the student is distilled on."""

from pathlib import Path

from figures import panels
from figures.style import styled
from figures.sweep_any import overview
from figures.sweep_data import load
from figures.sweep_frame import finish
from sublab.records import Record

_PUBLISHED = {"uniform noise": 0.451, "normal noise": 0.447, "images": 0.146}


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws bars for kinds of inputs without a parameter, and a panel for each that has one.

    No figure of the paper corresponds to it; published values of others' reproduction stand beside
    the bars.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    with styled():
        figure, axes, where = overview(sweep)
        if sweep.is_published_setting():
            for label, value in _PUBLISHED.items():
                if label in where:
                    bar_axes, x = where[label]
                    panels.published(bar_axes, x + 0.15, value)
        return finish(figure, sweep, folder, axes)
