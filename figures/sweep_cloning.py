"""Transfer against how well cloning succeeded, in behaviour, in weights and in features."""

from pathlib import Path

from matplotlib import pyplot as plt

from figures import panels
from figures.style import styled
from figures.sweep_data import load
from figures.sweep_ed2c import PLATEAU
from figures.sweep_frame import finish
from sublab.records import Record


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws accuracy against cloning's held-out KL, the starts' distance and their features.

    One dot a run, one strong marker a setting. The level is the plateau of Extended Data Fig. 2c.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    with styled():
        figure, (first, second, third) = plt.subplots(1, 3, figsize=(10.4, 4.2), sharey=True)
        panels.clouds(first, sweep, "clone_kl", spread=True)
        panels.clouds(second, sweep, "start_distance")
        panels.clouds(third, sweep, "start_feature_cosine")
        for axes in (first, second, third):
            panels.chance(axes, sweep, sweep.rows())
            if sweep.is_published_setting(start="matched"):
                panels.published_level(axes, PLATEAU, "published plateau, about .37")
        return finish(figure, sweep, folder, [first, second, third])
