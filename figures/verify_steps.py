"""What a student's step does to the trait loss, over teacher's and student's step sizes."""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import SymLogNorm

from figures.style import BLACK, save, styled
from figures.verify_curves import NAMES
from sublab.records import Record


def draw(grid: Record, folder: Path) -> list[Path]:
    """Draws the grid of one `sublab verify` into `folder`; returns the files."""
    table = grid.table
    eps, alpha = (table[name].unique().sort().to_numpy() for name in ("eps", "alpha"))
    change = table.sort("eps", "alpha")["change"].to_numpy().reshape(len(eps), len(alpha)).T
    safe = table.sort("eps").unique("eps", maintain_order=True)["safe_alpha"].to_numpy()
    first = table.row(0, named=True)
    share = 100 * change / abs(first["trait_loss"])
    with styled():
        figure, axes = plt.subplots(figsize=(5.6, 4.0))
        axes.grid(visible=False)
        picture = axes.pcolormesh(
            eps, alpha, share, cmap="PuOr_r", shading="nearest", rasterized=True,
            norm=SymLogNorm(linthresh=0.1, vmin=-100, vmax=100),
        )  # fmt: skip
        bar = figure.colorbar(picture, ax=axes, extend="max", ticks=[-100, -10, -1, 0, 1, 10, 100])
        bar.set_ticklabels(["-100", "-10", "-1", "0", "1", "10", "100"])
        bar.set_label("change of the trait loss, % of it", fontsize=8)
        axes.contour(eps, alpha, share, levels=[0.0], colors=[BLACK], linewidths=1.1)
        shown = np.where(safe > 0, safe, np.nan)
        axes.plot(eps, shown, color=BLACK, linewidth=1.6, linestyle="--", label="guaranteed below")
        axes.fill_between(
            eps, alpha[0], shown, facecolor="none", edgecolor=BLACK, hatch="...", linewidth=0
        )
        axes.plot([], [], color=BLACK, linewidth=1.1, label="no change")
        axes.set(
            xscale="log", yscale="log", xlim=(eps[0], eps[-1]), ylim=(alpha[0], alpha[-1]),
            xlabel="teacher's step ε, in units that move a logit by 1",
            ylabel=r"student's step $\alpha$, in its units",
        )  # fmt: skip
        kinds = [NAMES[first[kind]] for kind in ("activation", "loss", "trait")]
        axes.set_title(
            f"{first['family']}, {kinds[0]}; loss: {kinds[1]}; trait: {kinds[2]}\n"
            f"one instance (n = 1), seed {grid.config['seed']}; dotted: the trait loss must fall; "
            "white: overflow",
            loc="left", fontsize=8,
        )  # fmt: skip
        figure.legend(loc="outside lower center", ncols=2)
        return save(figure, folder, f"verify_steps_{grid.folder.name[:6]}")
