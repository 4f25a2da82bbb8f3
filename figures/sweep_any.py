"""A figure that suits any sweep: accuracy against whatever it varies."""

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import panels
from figures.style import styled
from figures.sweep_data import Row, Sweep, load, name_of
from figures.sweep_frame import finish, numbers_axis
from sublab.records import Record


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws accuracy against the first number that varies, or as bars where none does.

    Entries of the list that vary different numbers have a panel for each of these; those that vary
    none are bars. Further axes tell lines apart. No published figure corresponds to it.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    with styled():
        figure, axes, _ = overview(sweep)
        return finish(figure, sweep, folder, axes)


def overview(sweep: Sweep) -> tuple[Figure, list[Axes], dict[str, tuple[Axes, float]]]:
    """The figure, its panels, and for each bar its panel and where it stands, by name."""
    plain, against = _sorted_out(sweep)
    inches = [max(2.2, min(0.75 * len(plain), 9.0))] if plain or not against else []
    inches += [3.0 if plain or len(against) > 1 else 5.0] * len(against)
    # Many bars have their names upright below them.
    size = (max(5.0, sum(inches) + 0.6), 6.0 if len(plain) > 12 else 4.0)
    figure, found = plt.subplots(
        1, len(inches), figsize=size, width_ratios=inches, sharey=True, squeeze=False
    )
    axes: list[Axes] = list(found[0])
    where: dict[str, tuple[Axes, float]] = {}
    if plain:
        names = list(plain)
        placed = panels.bars(axes[0], names, {"": list(plain.values())})
        where = {name: (axes[0], x) for (_, name), x in placed.items()}
        panels.chance(axes[0], sweep, list(plain.values()))
    number = 0
    rest = axes[len(inches) - len(against) :]
    for panel, (axis, lines) in zip(rest, against.items(), strict=True):
        for place, (name, rows) in enumerate(lines.items()):
            x = [row[axis] for row in rows]
            shift = panels.beside(place, len(lines))
            panels.line(panel, rows, x, panels.look(number), name, shift)
            number += 1
        everything = [row for rows in lines.values() for row in rows]
        numbers_axis(panel, [row[axis] for row in everything], name_of(axis))
        panels.chance(panel, sweep, everything)
    return figure, axes, where


def _sorted_out(
    sweep: Sweep,
) -> tuple[dict[str, Row], dict[str, dict[str, list[Row]]]]:
    """Rows to be drawn as bars, by name; and by axis, lines by name."""
    plain: dict[str, Row] = {}
    against: dict[str, dict[str, list[Row]]] = {}
    axes = [axis for axis in sweep.config["axes"] if axis != "label"]
    for label in sweep.labels:
        rows = sweep.rows(label=label)
        varied = [name for name in axes if len({row[name] for row in rows} - {None}) > 1]
        axis = next((axis for axis in varied if _is_number([row[axis] for row in rows])), None)
        others = [name for name in varied if name != axis]
        for row in rows:
            named = [f"{name.replace('_', ' ')} {row[name]}" for name in others]
            name = ", ".join(filter(None, [label, *named])) or sweep.config["name"]
            if axis is None or row[axis] is None:
                plain[name if name not in plain else f"{name}, {row['setting']}"] = row
            else:
                against.setdefault(axis, {}).setdefault(name, []).append(row)
    return plain, against


def _is_number(values: list[Any]) -> bool:
    return all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        for value in values
    )
