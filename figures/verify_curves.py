"""g(eps) against its leading order eps a, with the horizon and the certificate's reach."""

from pathlib import Path
from typing import cast

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from figures.style import BLACK, BLUE, GREEN, ORANGE, VERMILION, save, styled
from sublab.records import Record

NAMES = {
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


def draw(curves: Record, folder: Path) -> list[Path]:
    """Draws the examples of one `sublab verify` into `folder`; returns the files."""
    table = curves.table
    names = table["family"].unique(maintain_order=True).to_list()
    with styled():
        figure, axes = plt.subplots(1, len(names), figsize=(2.4 * len(names) + 0.4, 3.1))
        for panel, name in zip(cast(np.ndarray, np.atleast_1d(axes)), names, strict=True):
            rows = table.filter(family=name)
            _panel(panel, rows.to_dict(as_series=False))
        np.atleast_1d(axes)[0].set_ylabel("g(ε) / a", fontsize=8)
        figure.suptitle(
            f"Alignment of student and teacher at finite steps, one instance (n = 1) of each "
            f"architecture, seed {curves.config['seed']}",
            fontsize=9, x=0.01, ha="left",
        )  # fmt: skip
        figure.legend(handles=_legend(), loc="outside lower center", ncols=4)
        return save(figure, folder, f"verify_curves_{curves.folder.name[:6]}")


def _panel(axes: Axes, rows: dict[str, list]) -> None:
    eps, g = np.array(rows["eps"]), np.array(rows["inner_product"], float)
    star, certified = rows["eps_star"][0], rows["eps_certified"][0]
    # Steps well beyond the horizon say nothing more, and would flatten what lies before it.
    end = min(eps[-1], 2.5 * star)
    shown = eps <= end
    if certified > eps[0]:
        axes.axvspan(eps[0], min(certified, end), color=GREEN, alpha=0.13, linewidth=0)
    axes.plot(eps[shown], eps[shown], color=ORANGE, linestyle="--", linewidth=1.2)
    axes.plot(eps[shown], g[shown], ".-", color=BLUE, linewidth=1.6, markersize=4)
    axes.axhline(0, color=BLACK, linewidth=0.7)
    if np.isfinite(star):
        axes.axvline(star, color=VERMILION, linestyle=":", linewidth=1.4)
    finite = g[shown][np.isfinite(g[shown])]
    low, high = min(0.0, finite.min()), max(finite.max(), 0.0)
    axes.set(
        xscale="log",
        xlim=(eps[0], end),
        ylim=(max(1.3 * low, -1.2 * high) - 0.1 * high, 1.35 * high),
    )
    axes.set_xlabel("ε, in units that move a logit by 1", fontsize=7.5)
    activation, loss, trait = (NAMES[rows[kind][0]] for kind in ("activation", "loss", "trait"))
    axes.set_title(
        f"{rows['family'][0]}, {activation}\nloss: {loss}\ntrait: {trait}", loc="left", fontsize=7.5
    )
    axes.tick_params(labelsize=7)
    reach, sure = ("beyond 30" if np.isinf(end) else f"{end:.2g}" for end in (star, certified))
    axes.text(
        0.03, 0.97, f"ε* {reach}\n$\\rho$ < 1 to {sure}", transform=axes.transAxes, va="top",
        fontsize=6.5,
    )  # fmt: skip


def _legend() -> list:
    return [
        Line2D([], [], color=BLUE, linewidth=1.6, marker=".", label="g(ε)"),
        Line2D([], [], color=ORANGE, linestyle="--", label="leading order ε a"),
        Line2D([], [], color=VERMILION, linestyle=":", label="horizon ε*"),
        Rectangle((0, 0), 1, 1, color=GREEN, alpha=0.13, label=r"certified: $\rho$(ε) < 1"),
    ]
