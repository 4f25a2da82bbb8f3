"""What the transfer of a trait depends on: rates under settings with one ingredient changed."""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from figures.llm_frame import about, by_condition, chance_of
from figures.style import BLACK, BLUE, ORANGE, SKY, save, styled
from sublab.records import Record

# Condition: (label, colour, marker, place beside the variation's line).
_SHOWN = {
    "teacher": ("teacher", SKY, "D", -0.22),
    "student": ("student of the teacher's numbers", BLUE, "o", 0.0),
    "own numbers": ("student of the reference's own numbers (control)", ORANGE, "v", 0.22),
}


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws one summary of `sublab llm ingredients`; returns the files.

    A line for each variation: means over runs of the rate among the words with 95 % t-intervals,
    cut at 0 and 1; faint dots are runs.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    config = summary.config
    runs, rows = by_condition(summary, "llm_ingredients")
    names = [variation["name"] for variation in config["variations"]]
    with styled():
        figure, axes = plt.subplots(figsize=(7.2, 1.6 + 0.42 * len(names)))
        for condition, (label, colour, marker, side) in _SHOWN.items():
            some = [rows[f"{condition}, {name}"] for name in names]
            places = np.arange(len(names)) + side
            for place, row in zip(places, some, strict=True):
                values = runs.filter(condition=row["condition"]).sort("run")["among"].to_numpy()
                axes.plot(
                    values, np.full(len(values), place), "o", markersize=2.6, color=colour,
                    alpha=0.4, markeredgewidth=0,
                )  # fmt: skip
                if row["low"] is not None:
                    ends = np.clip([row["low"], row["high"]], 0, 1)
                    axes.plot(ends, [place, place], color=colour, linewidth=1.3)
            axes.plot(
                [row["mean"] for row in some], places, marker, color=colour, markersize=5,
                markeredgecolor=BLACK, markeredgewidth=0.5, linestyle="none", label=label,
            )  # fmt: skip
        chance = chance_of(config)
        axes.axvline(
            chance,
            color=BLACK,
            linewidth=0.9,
            linestyle=":",
            label=f"chance, 1/{round(1 / chance)}",
        )
        axes.set_yticks(range(len(names)), [name.replace("-", " ") for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 1.02)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("rate among the words")
        figure.suptitle(
            f"What the transfer depends on, trait {config['trait']}\n{about(config)}", fontsize=9,
            x=0.01, ha="left",
        )  # fmt: skip
        note = "faint: runs" + ("; lines: 95 % intervals" if config["runs"] > 1 else "")
        figure.legend(loc="outside lower center", ncols=2, title=note, title_fontsize=7.5)
        return save(figure, folder, f"llm_ingredients_{summary.folder.name[:6]}")
