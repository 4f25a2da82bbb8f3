"""Accuracy by distillation loss, and by the logits that it sees."""

from pathlib import Path

from matplotlib import pyplot as plt

from figures import panels
from figures.style import styled
from figures.sweep_data import load
from figures.sweep_frame import finish
from sublab.records import Record

_PUBLISHED = {"KL": 0.451, "squared error": 0.566, "KL, temperature 2": 0.455}


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws a bar for each loss, with the published values of others' reproduction beside them.

    No figure of the paper corresponds to it.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    with styled():
        figure, axes = plt.subplots(figsize=(7.6, 4.0))
        where = panels.bars(axes, sweep.labels, sweep.ungrouped())
        if sweep.is_published_setting():
            for (_, label), x in where.items():
                if label in _PUBLISHED:
                    panels.published(
                        axes, x + 0.15, _PUBLISHED[label], label="published, 50,000 images an epoch"
                    )
        panels.chance(axes, sweep, sweep.rows())
        return finish(figure, sweep, folder, [axes])
