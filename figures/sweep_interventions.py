"""Interventions during distillation, and what each of them changes."""

from pathlib import Path

from matplotlib import pyplot as plt

from figures import panels
from figures.style import BLACK, styled
from figures.sweep_data import Row, load
from figures.sweep_frame import finish
from sublab.records import Record


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws a bar for each intervention, and below it the paired difference to none.

    No figure of the paper corresponds to it; Kitkana and Arora, arXiv 2604.25779, report that
    projecting the trait gradient out stops the transfer and that liminal training does not.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    rows = {row["setting"]: row for row in sweep.rows()}
    names = _names(list(rows.values()))
    with styled():
        figure, (upper, lower) = plt.subplots(
            2, 1, figsize=(max(5.0, 0.8 * len(names) + 1), 5.4), height_ratios=[1.5, 1]
        )
        panels.bars(upper, names, {"": list(rows.values())})
        panels.chance(upper, sweep, list(rows.values()))
        upper.tick_params(labelbottom=False)
        differences = [_difference(row, rows.get(row["baseline"])) for row in rows.values()]
        panels.bars(lower, names, {"": differences})
        lower.axhline(0, color=BLACK, linewidth=0.8)
        lower.set_ylabel("Paired difference\nto no intervention")
        return finish(figure, sweep, folder, [upper])


def _names(rows: list[Row]) -> list[str]:
    labels = [row["label"] for row in rows]
    return [
        f"{row['label']}, weight {row['liminal_weight']:g}, epochs {row['liminal_epochs']}"
        if labels.count(row["label"]) > 1
        else row["label"]
        for row in rows
    ]


def _difference(row: Row, baseline: Row | None) -> Row | None:
    """A row of differences to the baseline, run by run; of the baseline itself, nothing."""
    if baseline is None:
        return row | {"mean": 0.0, "low": None, "runs": {}}
    if row["difference"] is None:
        return None
    runs = {r: v - baseline["runs"][r] for r, v in row["runs"].items() if r in baseline["runs"]}
    ends = {"low": row["difference_low"], "high": row["difference_high"]}
    return row | ends | {"mean": row["difference"], "runs": runs}
