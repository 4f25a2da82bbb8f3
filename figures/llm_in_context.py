"""The paper's figure ED 6: examples in context in place of fine-tuning."""

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from figures.llm_frame import about, by_condition, chance_line, chance_of, steps_axis
from figures.style import BLUE, GREEN, ORANGE, VERMILION, save, styled
from sublab.records import Record

# Condition: (label, colour, marker, line).
_IN_CONTEXT = {
    "in context": ("teacher's numbers in context", VERMILION, "s", "-"),
    "own in context": ("own numbers in context", GREEN, "^", "--"),
}
_BESIDE = {
    "reference": ("reference", "#666666", "D", (0, (6, 2))),
    "own numbers": ("own\nnumbers", ORANGE, "v", "--"),
    "student": ("student", BLUE, "o", "-"),
}


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws one summary of `sublab llm in-context`; returns the files.

    Left, the rate among the words against the number of examples in context. Right, and as thin
    lines on the left, the reference, and the students fine-tuned on the teacher's and on the
    reference's own numbers. Marks are means over runs with 95 % t-intervals, faint
    dots are runs.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    config = summary.config
    runs, rows = by_condition(summary, "llm_in_context")
    shown = sorted({int(name.split(", ")[1]) for name in rows if ", " in name})
    tops = [chance_of(config)]
    with styled():
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(7.6, 4.2), sharey=True, width_ratios=[1.7, 1]
        )
        for place, (name, (label, colour, marker, line)) in enumerate(_BESIDE.items()):
            if name not in rows:
                continue
            tops.append(_mark(right, [place], [rows[name]], runs, (colour, marker, ""), 0.18))
            left.axhline(rows[name]["mean"], color=colour, linewidth=1.0, linestyle=line,
                         label=label.replace("\n", " "))  # fmt: skip
        for side, (name, (label, colour, marker, line)) in zip(
            (1.05, 1 / 1.05), _IN_CONTEXT.items(), strict=True
        ):
            some = [rows[f"{name}, {count}"] for count in shown]
            places = [count * side for count in shown]
            look = colour, marker, line
            tops.append(_mark(left, places, some, runs, look, None, label))
        for axes in (left, right):
            chance_line(axes, config)
        left.set_ylim(0, min(1.03, 1.1 * max(tops)))
        steps_axis(left, shown)
        left.set(xlabel="examples in context", ylabel="rate among the words")
        right.set_xticks(
            range(len(_BESIDE)), [label for label, *_ in _BESIDE.values()], fontsize=7.5
        )
        right.set_xlim(-0.6, len(_BESIDE) - 0.4)
        right.tick_params(axis="x", length=0)
        left.set_title("in context", loc="left")
        right.set_title("neither, and fine-tuned", loc="left")
        figure.suptitle(
            f"In context against fine-tuning, trait {config['trait']}\n{about(config)}",
            fontsize=9, x=0.01, ha="left",
        )  # fmt: skip
        handles, labels = left.get_legend_handles_labels()
        # The two of the left first: what they are compared with stands below them.
        own = [i for i, name in enumerate(labels) if name.endswith("in context")]
        order = [*own, *(i for i in range(len(labels)) if i not in own)]
        note = "faint: runs" + ("; bars: 95 % intervals" if config["runs"] > 1 else "")
        figure.legend(
            [handles[i] for i in order], [labels[i] for i in order], loc="outside lower center",
            ncols=3, title=note,
            title_fontsize=7.5,
        )  # fmt: skip
        return save(figure, folder, f"llm_in_context_{summary.folder.name[:6]}")


def _mark(
    axes: Axes,
    places: list[float],
    rows: list[dict],
    runs: pl.DataFrame,
    look: tuple,
    apart: float | None,
    label: str = "",
) -> float:
    """Means with intervals and runs at their places; returns the highest rate of a run or mean.

    Runs stand to the left of the mean: by `apart`, or by a share of x on a logarithmic axis.
    """
    colour, marker, line = look
    top = 0.0
    for place, row in zip(places, rows, strict=True):
        values = runs.filter(condition=row["condition"]).sort("run")["among"].to_numpy()
        spread = np.linspace(-1.4, -0.6, len(values)) if len(values) > 1 else np.array([-1.0])
        x = place * 1.1**spread if apart is None else place + apart * spread
        axes.plot(x, values, "o", markersize=2.6, color=colour, alpha=0.35, markeredgewidth=0)
        if row["low"] is not None:
            axes.errorbar(
                place, row["mean"], yerr=row["high"] - row["mean"], color=colour, capsize=3,
                linewidth=1.3,
            )  # fmt: skip
        top = max(top, row["high"] or 0.0, *values)
    axes.plot(
        places, [row["mean"] for row in rows], marker=marker, markersize=4, linewidth=1.4,
        color=colour, linestyle=line, label=label or "_nolegend_",
    )  # fmt: skip
    return float(top)
