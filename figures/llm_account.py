"""The first-order account of the trait along a student's fine-tuning."""

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from figures.llm_frame import about, interval
from figures.style import BLACK, BLUE, GREEN, ORANGE, VERMILION, save, styled
from sublab.records import Record

# Whose data: (label, colour, line).
_DATA = {
    "teacher": ("teacher's numbers", BLUE, "-"),
    "own": ("reference's own numbers", VERMILION, "--"),
}
# Part of the change: (label, colour, line).
_PARTS = {
    "change": ("change of the trait loss", BLACK, "-"),
    "first_order": ("first order", ORANGE, "--"),
    "remainder": ("remainder", GREEN, ":"),
}


def draw(account: Record, folder: Path) -> list[Path]:
    """Draws the accounts of one `sublab llm theory`; returns the files.

    Above, for the teacher's data and for the reference's own, what the trait loss has changed by
    after each step, and the two parts of it: the sum of first-order terms <grad L_T, update>, and
    the rest. Below, the cosine of trait and distillation gradient at each step, and coverage, the
    cosine of the way so far with the teacher's displacement. Lines are means over runs, bands their
    95 % t-intervals, faint lines the runs.

    Raises:
        RecordError: `folder` cannot be written.
    """
    table, config = account.table, account.config
    with styled():
        figure, axes = plt.subplots(2, 2, figsize=(8.6, 6.2), sharex=True)
        axes[0, 1].sharey(axes[0, 0])
        for panel, letter, (data, (label, _, _)) in zip(axes[0], "ab", _DATA.items(), strict=True):
            for part, (name, colour, line) in _PARTS.items():
                _band(panel, _cumulative(table.filter(data=data), part), 0, colour, line, name)
            panel.axhline(0, color=BLACK, linewidth=0.8)
            panel.set_title(f"{letter}. trained on the {label}", loc="left")
        axes[0, 0].set_ylabel("change since the start, nats")
        for panel, column, title in (
            (axes[1, 0], "cosine", "c. cosine of trait and distillation gradient"),
            (axes[1, 1], "coverage", "d. coverage: cosine of the way with the teacher's"),
        ):
            for data, (label, colour, line) in _DATA.items():
                _band(panel, _wide(table.filter(data=data), column), 1, colour, line, label)
            panel.axhline(0, color=BLACK, linewidth=0.8)
            panel.set_title(title, loc="left")
            panel.set_xlabel("step of the student's fine-tuning")
        axes[1, 0].set_ylabel("cosine")
        figure.suptitle(
            f"First-order account, trait {config['trait']}: {about(config)}", fontsize=9, x=0.01,
            ha="left",
        )  # fmt: skip
        handles, labels = axes[0, 0].get_legend_handles_labels()
        below = axes[1, 0].get_legend_handles_labels()
        note = "faint: runs; bands: 95 % intervals" if config["runs"] > 1 else "one run"
        figure.legend(
            [*handles, *below[0]], [*labels, *below[1]], loc="outside lower center", ncols=5,
            title=note, title_fontsize=7.5, fontsize=7.5,
        )  # fmt: skip
        return save(figure, folder, f"llm_account_{account.folder.name[:6]}")


def _wide(table: pl.DataFrame, column: str) -> np.ndarray:
    """A column as runs by steps."""
    runs = [
        run[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
        for _, run in table.sort("run", "step").group_by("run", maintain_order=True)
    ]
    return np.array(runs).reshape(len(runs), -1)


def _cumulative(table: pl.DataFrame, part: str) -> np.ndarray:
    """The sum of a part of the change, or of both, from 0 before the first step: runs by steps."""
    names = ("first_order", "remainder") if part == "change" else (part,)
    each = sum((_wide(table, name) for name in names), start=np.zeros(()))
    return np.pad(np.cumsum(each, axis=1), ((0, 0), (1, 0)))


def _band(axes: Axes, values: np.ndarray, first: int, colour: str, line: str, label: str) -> None:
    """Mean and interval over runs at each step, from step `first` on, and the runs."""
    steps = first + np.arange(values.shape[1])
    known = np.isfinite(values).all(axis=0)
    steps, values = steps[known], values[:, known]
    if not values.size:
        return
    if len(values) > 1:
        for run in values:
            axes.plot(steps, run, color=colour, alpha=0.2, linewidth=0.6, linestyle=line)
    mean, low, high = np.array([interval(value) for value in values.T]).T
    axes.plot(steps, mean, color=colour, linewidth=1.5, linestyle=line, label=label)
    if len(values) > 1:
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
