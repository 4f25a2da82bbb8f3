"""The theorem on teachers at growing distances: their rate, g, the certificate, the alignment."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from figures.llm_frame import about, chance_line, chance_of, interval, steps_axis
from figures.style import BLACK, BLUE, GREEN, ORANGE, VERMILION, save, styled
from sublab.records import Record


def draw(steps: Record, folder: Path) -> list[Path]:
    """Draws the teachers of one `sublab llm theory` against the steps of their fine-tuning.

    The rate among the words; g, the student's first step along the teacher's displacement, beside
    its first order a; the certificate rho, below 1 where g > 0 is proved; the cosine of that first
    step with the trait's descent; how what its numbers gained goes with the leaning of the word,
    and of the other words; and the rank of its word by that. Every run is a faint dot, means have
    95 % t-intervals. Where g, a or rho are all above 0, the axis is logarithmic, means geometric.

    Raises:
        RecordError: `folder` cannot be written.
    """
    table, config = steps.table, steps.config
    with styled():
        figure, axes = plt.subplots(3, 2, figsize=(7.4, 8.0), sharex=True)
        (rate, product), (certificate, cosine), (leaning, rank) = axes
        _line(rate, table, "among", BLUE, "o", "teacher")
        chance_line(rate, config)
        rate.set(title="a. teacher's rate among the words", ylim=(0, 1.02))
        above = bool(((table["inner_product"] > 0) & (table["coefficient"] > 0)).all())
        _line(product, table, "coefficient", ORANGE, "s", "a, first order", -1, above)
        _line(product, table, "inner_product", BLUE, "o", "g, at the teacher", 1, above)
        _limits(product, table, ["coefficient", "inner_product"])
        _zero(product)
        product.set_title("b. student's first step along the teacher's")
        _line(certificate, table, "rho", GREEN, "^", r"$\rho$", logarithmic=True)
        _limits(certificate, table, ["rho"])
        certificate.axhline(1, color=BLACK, linewidth=0.9, linestyle="--", label="certified below")
        certificate.set_title(r"c. certificate $\rho$")
        _line(cosine, table, "trait_cosine", VERMILION, "D", "cosine")
        _zero(cosine)
        cosine.set_title("d. cosine of that step and the trait's descent")
        _line(leaning, table, "entanglement", BLUE, "o", "the teacher's word", 1)
        _line(leaning, table, "entanglement_others", ORANGE, "s", "others, mean", -1)
        _zero(leaning)
        leaning.set_title("e. numbers gained and a word's leaning: r")
        _line(rank, table, "entanglement_rank", BLUE, "o", "the teacher's word")
        words = round(1 / chance_of(config))
        rank.axhline((words + 1) / 2, color=BLACK, linewidth=0.9, linestyle=":", label="chance")
        rank.set(title="f. rank among the words by that r", ylim=(words + 0.5, 0.5))
        for panel in axes.flat:
            panel.set_title(panel.get_title(), loc="left")
            panel.set_title("")
            panel.legend(fontsize=7.5)
        for panel in axes[-1]:
            steps_axis(panel, table["steps"].unique().to_list())
            panel.set_xlabel("steps of the teacher's fine-tuning")
        intervals = "; bars: 95 % intervals" if config["runs"] > 1 else ""
        figure.suptitle(
            f"Theorem on the embedded model, trait {config['trait']}\n{about(config)}{intervals}",
            fontsize=9, x=0.01, ha="left",
        )  # fmt: skip
        return save(figure, folder, f"llm_steps_{steps.folder.name[:6]}")


def _line(
    axes: Axes,
    table: pl.DataFrame,
    column: str,
    colour: str,
    marker: str,
    label: str,
    side: int = 0,
    logarithmic: bool = False,
) -> None:
    """Means of a column against the steps, a little to one side, and every run beside them."""
    table = table.filter(pl.col(column).is_finite()).sort("steps", "run")
    if not len(table):
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center")
        return
    logarithmic = logarithmic and bool((table[column] > 0).all())
    axes.plot(
        table["steps"] * 1.06 ** (2 * side - 1.4), table[column], marker, markersize=2.8,
        color=colour, alpha=0.35, markeredgewidth=0,
    )  # fmt: skip
    if logarithmic:
        axes.set_yscale("log")
    steps = table["steps"].unique().sort()
    values = [table.filter(steps=step)[column].to_numpy() for step in steps]
    found = np.array([interval(np.log(v) if logarithmic else v) for v in values])
    mean, low, high = (np.exp(found) if logarithmic else found).T
    axes.errorbar(
        steps.to_numpy() * 1.06 ** (2 * side), mean, yerr=[mean - low, high - mean], color=colour,
        marker=marker, markersize=4.5, linewidth=1.3, capsize=3, label=label,
        linestyle="--" if side < 0 else "-",
    )  # fmt: skip


def _limits(axes: Axes, table: pl.DataFrame, columns: Sequence[str]) -> None:
    """Of a logarithmic axis: those of the runs, since intervals of two span powers of ten."""
    values = np.concatenate([table[name].to_numpy() for name in columns])
    values = values[np.isfinite(values)]
    if len(values) and axes.get_yscale() == "log":
        axes.set_ylim(min(values) / 3, max(values) * 3)


def _zero(axes: Axes) -> None:
    if axes.get_yscale() == "linear":
        axes.axhline(0, color=BLACK, linewidth=0.9)
