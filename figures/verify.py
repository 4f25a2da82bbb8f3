"""The figures of `sublab verify`: remainders, cosines, curves and a grid of steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from figures.style import BLACK, BLUE, GREEN, ORANGE, VERMILION, save, styled
from sublab.records import Record, read

# How figures call what records name.
_NAMES = {
    "squared_error": "squared error",
    "weighted_squared_error": "weighted squared error",
    "softmax": "softmax",
    "softmax_temperature": "softmax with temperature",
    "softmax_subset": "softmax of a subset",
    "bernoulli": "Bernoulli",
    "poisson": "Poisson",
    "log_cosh": "log cosh",
    "cross_entropy": "cross-entropy",
    "regulariser": "regulariser",
    "tanh": "tanh",
    "gelu": "GELU",
    "softplus": "softplus",
    "relu": "ReLU",
}
_COLOURS = {"tanh": BLUE, "gelu": GREEN, "softplus": ORANGE, "relu": VERMILION}
# Lines drawn of each activation: enough to show a spread, few enough to tell them apart.
_LINES = 30
_SMALL = 7.5


def draw_summary(summary: Record, folder: Path) -> list[Path]:
    """Draws the remainders and the cosines of all instances that a summary rests on.

    Args:
        summary: the record of a verification's summary, beside the records of its instances.
        folder: the folder that figures go to.

    Returns:
        The files.

    Raises:
        RecordError: a record that the summary rests on is missing or damaged, or `folder` cannot
            be written.
    """
    groups = summary.folder.parents[1] / "verify"
    tables = (read(groups / name).table for name in summary.config["records"])
    table = pl.concat(tables, how="diagonal")
    return [*_draw_remainders(summary, table, folder), *_draw_cosines(summary, table, folder)]


def draw_curves(curves: Record, folder: Path) -> list[Path]:
    """Draws g(eps) against its leading order eps a, with the horizon and the certificate's reach.

    Args:
        curves: the record of a verification's examples.
        folder: the folder that figures go to.

    Returns:
        The files.

    Raises:
        RecordError: `folder` cannot be written.
    """
    table = curves.table
    families = table["family"].unique(maintain_order=True).to_list()
    with styled():
        figure, panels = _row(2.4, len(families), 3.1)
        for axes, family in zip(panels, families, strict=True):
            _curve(axes, table.filter(family=family).to_dict(as_series=False))
        panels[0].set_ylabel("g(ε) / a", fontsize=8)
        _title(
            figure,
            "Alignment of student and teacher at finite steps, one instance (n = 1) of each "
            "architecture",
            curves,
        )
        figure.legend(handles=_curve_legend(), loc="outside lower center", ncols=4)
        return save(figure, folder, f"verify_curves_{curves.folder.name[:6]}")


def draw_grid(grid: Record, folder: Path) -> list[Path]:
    """Draws what a student's step does to the trait loss, over teacher's and student's steps.

    Args:
        grid: the record of a verification's grid of steps.
        folder: the folder that figures go to.

    Returns:
        The files.

    Raises:
        RecordError: `folder` cannot be written.
    """
    table = grid.table
    eps, alpha = (table[name].unique().sort().to_numpy() for name in ("eps", "alpha"))
    change = table.sort("eps", "alpha")["change"].to_numpy().reshape(len(eps), len(alpha)).T
    safe = table.sort("eps").unique("eps", maintain_order=True)["safe_alpha"].to_numpy()
    instance = table.row(0, named=True)
    share = 100 * change / abs(instance["trait_loss"])
    with styled():
        figure, axes = plt.subplots(figsize=(5.6, 4.0))
        axes.grid(visible=False)
        picture = axes.pcolormesh(
            eps,
            alpha,
            share,
            cmap="PuOr_r",
            shading="nearest",
            rasterized=True,
            norm=SymLogNorm(linthresh=0.1, vmin=-100, vmax=100),
        )
        ticks = [-100, -10, -1, 0, 1, 10, 100]
        bar = figure.colorbar(picture, ax=axes, extend="max", ticks=ticks)
        bar.set_ticklabels([str(tick) for tick in ticks])
        bar.set_label("change of the trait loss, % of it", fontsize=8)
        axes.contour(eps, alpha, share, levels=[0.0], colors=[BLACK], linewidths=1.1)
        reach = np.where(safe > 0, safe, np.nan)
        axes.plot(eps, reach, color=BLACK, linewidth=1.6, linestyle="--", label="guaranteed below")
        axes.fill_between(
            eps, alpha[0], reach, facecolor="none", edgecolor=BLACK, hatch="...", linewidth=0
        )
        axes.plot([], [], color=BLACK, linewidth=1.1, label="no change")
        axes.set(
            xscale="log",
            yscale="log",
            xlim=(eps[0], eps[-1]),
            ylim=(alpha[0], alpha[-1]),
            xlabel="teacher's step ε, in units that move a logit by 1",
            ylabel=r"student's step $\alpha$, in its units",
        )
        activation, loss, trait = _kinds(instance)
        axes.set_title(
            f"{instance['family']}, {activation}; loss: {loss}; trait: {trait}\n"
            f"one instance (n = 1), seed {grid.config['seed']}; dotted: the trait loss must fall; "
            "white: overflow",
            loc="left",
            fontsize=8,
        )
        figure.legend(loc="outside lower center", ncols=2)
        return save(figure, folder, f"verify_steps_{grid.folder.name[:6]}")


# What draws each kind of record.
DRAW: dict[str, Callable[[Record, Path], list[Path]]] = {
    "verify_summary": draw_summary,
    "verify_curves": draw_curves,
    "verify_grid": draw_grid,
}


def _draw_remainders(summary: Record, instances: pl.DataFrame, folder: Path) -> list[Path]:
    """The remainder g(eps) - eps a over eps: its order is 2 where the model is smooth."""
    table = instances.filter((pl.col("family") != "linear") & pl.col("slope").is_not_null())
    orders = {row["name"]: row for row in summary.table.filter(kind="order").to_dicts()}
    eps = np.array(summary.config["remainder_eps"])
    with styled():
        figure, panels = plt.subplots(
            1, len(_COLOURS) + 1, figsize=(10.6, 2.9), width_ratios=[1] * len(_COLOURS) + [1.25]
        )
        for axes, activation in zip(panels, _COLOURS, strict=False):
            rows = table.filter(activation=activation)
            _remainders(axes, rows, activation, orders[activation], eps)
        panels[0].set_ylabel("|g(ε) - ε a|, share of the last", fontsize=8)
        _slopes(panels[-1], table)
        _title(
            figure,
            f"Order of the remainder: models that are not linear, n = {len(table):,} instances",
            summary,
        )
        return save(figure, folder, f"verify_remainder_{summary.folder.name[:6]}")


def _draw_cosines(summary: Record, instances: pl.DataFrame, folder: Path) -> list[Path]:
    """The cosine of the student's and the teacher's direction, shared against independent start."""
    table = instances.select("family", "cosine", "cosine_independent").drop_nulls()
    families = table["family"].unique(maintain_order=True).to_list()
    with styled():
        figure, panels = _row(2.1, len(families), 2.8, sharey=True)
        for axes, family in zip(panels, families, strict=True):
            _cosines(axes, table.filter(family=family), family)
        panels[0].set_ylabel("share of instances", fontsize=8)
        _title(
            figure,
            "Cosine of the student's and the teacher's direction, trait gradients",
            summary,
        )
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2)
        return save(figure, folder, f"verify_cosine_{summary.folder.name[:6]}")


def _row(width: float, panels: int, height: float, **settings: Any) -> tuple[Figure, list[Axes]]:
    """A figure with panels beside each other.

    Args:
        width: the width of a panel, in inches.
        panels: how many panels there are.
        height: the height of the figure, in inches.
        settings: what `plt.subplots` is told besides.
    """
    figure, axes = plt.subplots(
        1, panels, figsize=(width * panels + 0.4, height), squeeze=False, **settings
    )
    return figure, list(axes[0])


def _title(figure: Figure, text: str, record: Record) -> None:
    figure.suptitle(f"{text}, seed {record.config['seed']}", fontsize=9, x=0.01, ha="left")


def _panel_title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=_SMALL)
    axes.tick_params(labelsize=7)


def _shares(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Weights with which a histogram counts shares."""
    return np.full(len(values), 1 / len(values))


def _kinds(instance: dict[str, Any]) -> list[str]:
    """An instance's activation, loss and trait, as figures call them."""
    return [_NAMES[instance[kind]] for kind in ("activation", "loss", "trait")]


def _remainders(
    axes: Axes,
    table: pl.DataFrame,
    activation: str,
    order: dict[str, Any],
    eps: Float[np.ndarray, " eps"],
) -> None:
    title = f"{_NAMES[activation]}, n = {len(table):,}"
    if len(table):
        for line in table["remainders"].head(_LINES):
            axes.plot(eps, line, color=_COLOURS[activation], alpha=0.25, linewidth=0.8)
        axes.plot(eps, (eps / eps[-1]) ** 2, color=BLACK, linestyle="--", linewidth=1.2)
        axes.set(xscale="log", yscale="log", ylim=(3e-6, 3))
        title += f"\norder {order['worst']:.3f}, median {order['median']:.3f}\nR² {order['r2']:.4f}"
    _panel_title(axes, title)
    axes.set_xlabel("ε, 1 moves a logit by 1 (dashed: ε²)", fontsize=7)


def _slopes(axes: Axes, table: pl.DataFrame) -> None:
    bins = np.linspace(1.8, 2.2, 81)
    for activation, colour in _COLOURS.items():
        slopes = table.filter(activation=activation)["slope"].to_numpy()
        if len(slopes):
            axes.hist(
                np.clip(slopes, bins[0], bins[-1]),
                bins=list(bins),
                histtype="step",
                color=colour,
                weights=_shares(slopes),
                label=_NAMES[activation],
                linestyle="--" if activation == "relu" else "-",
                linewidth=1.2,
            )
    axes.axvspan(1.95, 2.05, color=BLACK, alpha=0.07, linewidth=0)
    axes.set(yscale="log", xlim=(bins[0], bins[-1]))
    axes.set_xlabel("order of one instance (ends: beyond)", fontsize=8)
    axes.set_ylabel("share of instances", fontsize=8)
    _panel_title(axes, "grey: 2 ± 0.05")
    axes.legend(fontsize=6.5, loc="upper left")


def _cosines(axes: Axes, table: pl.DataFrame, family: str) -> None:
    looks = {
        "cosine_independent": ("independent start", VERMILION, "..."),
        "cosine": ("shared start", BLUE, "///"),
    }
    above = {}
    for column, (label, colour, hatch) in looks.items():
        values = table[column].to_numpy()
        above[column] = 100 * float(np.mean(values > 0))
        axes.hist(
            values,
            bins=list(np.linspace(-1, 1, 61)),
            color=colour,
            alpha=0.55,
            hatch=hatch,
            edgecolor=BLACK,
            linewidth=0.3,
            weights=_shares(values),
            label=label,
        )
    axes.axvline(0, color=BLACK, linewidth=0.8)
    _panel_title(
        axes,
        f"{family}, n = {len(table):,}\nabove 0: {above['cosine']:.0f} % shared,\n"
        f"{above['cosine_independent']:.0f} % independent",
    )


def _curve(axes: Axes, rows: dict[str, list]) -> None:
    eps, g = np.array(rows["eps"]), np.array(rows["inner_product"], float)
    star, certified = rows["eps_star"][0], rows["eps_certified"][0]
    # Steps well beyond the horizon say nothing more, and would flatten what lies before it.
    end = min(eps[-1], 2.5 * star)
    inside = eps <= end
    if certified > eps[0]:
        axes.axvspan(eps[0], min(certified, end), color=GREEN, alpha=0.13, linewidth=0)
    axes.plot(eps[inside], eps[inside], color=ORANGE, linestyle="--", linewidth=1.2)
    axes.plot(eps[inside], g[inside], ".-", color=BLUE, linewidth=1.6, markersize=4)
    axes.axhline(0, color=BLACK, linewidth=0.7)
    if np.isfinite(star):
        axes.axvline(star, color=VERMILION, linestyle=":", linewidth=1.4)
    finite = g[inside][np.isfinite(g[inside])]
    low, high = min(0.0, finite.min()), max(finite.max(), 0.0)
    axes.set(
        xscale="log",
        xlim=(eps[0], end),
        ylim=(max(1.3 * low, -1.2 * high) - 0.1 * high, 1.35 * high),
    )
    axes.set_xlabel("ε, in units that move a logit by 1", fontsize=_SMALL)
    activation, loss, trait = _kinds({name: values[0] for name, values in rows.items()})
    _panel_title(axes, f"{rows['family'][0]}, {activation}\nloss: {loss}\ntrait: {trait}")
    ends = ("beyond 30" if np.isinf(end) else f"{end:.2g}" for end in (star, certified))
    axes.text(
        0.03,
        0.97,
        "ε* {}\n$\\rho$ < 1 to {}".format(*ends),
        transform=axes.transAxes,
        va="top",
        fontsize=6.5,
    )


def _curve_legend() -> list[Artist]:
    return [
        Line2D([], [], color=BLUE, linewidth=1.6, marker=".", label="g(ε)"),
        Line2D([], [], color=ORANGE, linestyle="--", label="leading order ε a"),
        Line2D([], [], color=VERMILION, linestyle=":", label="horizon ε*"),
        Rectangle((0, 0), 1, 1, color=GREEN, alpha=0.13, label=r"certified: $\rho$(ε) < 1"),
    ]
