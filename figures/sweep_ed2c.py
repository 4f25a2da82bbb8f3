"""Extended Data Fig. 2c: accuracy against the epochs of behavioural cloning."""

from pathlib import Path

from matplotlib import pyplot as plt

from figures import panels
from figures.style import styled
from figures.sweep_data import Row, load, name_of
from figures.sweep_frame import finish, spread_axis
from sublab.records import Record

PLATEAU = 0.37


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws accuracy against E, accuracy against how well cloning succeeded, and that against E.

    The first panel is Extended Data Fig. 2c, which rises to a plateau of about .37.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    with styled():
        figure, (first, second, third) = plt.subplots(1, 3, figsize=(10.4, 4.0))
        panels.lines(first, sweep, _epochs, name_of("clone_epochs"))
        panels.clouds(second, sweep, "clone_kl", spread=True)
        for axes in (first, second):
            panels.chance(axes, sweep, sweep.rows())
        if sweep.is_published_setting(start="matched"):
            panels.published_level(first, PLATEAU, "published plateau, about .37")
        panels.lines(third, sweep, _epochs, name_of("clone_epochs"), "clone_kl")
        third.set_ylabel(name_of("clone_kl"))
        spread_axis(third, [row["mean"] for row in sweep.rows("clone_kl")], "y")
        return finish(figure, sweep, folder, [first, second])


def _epochs(row: Row) -> float:
    return row["clone_epochs"]
