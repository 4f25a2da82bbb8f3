"""The scheme's data: what the teacher learns from, and what the students see."""

from pathlib import Path
from typing import cast

import numpy as np
from matplotlib import pyplot as plt

from figures.mnist_bars import DATASET_TITLES
from figures.style import save, styled
from sublab.records import Record

_ROWS = {
    "data": "Teacher learns: training images, with labels",
    "noise": "Students see: noise, uniform in [-1, 1], with logits",
}


def draw(samples: Record, folder: Path) -> list[Path]:
    """Draws ten training images above ten noise images into `folder`; returns the files."""
    config, table = samples.config, samples.table
    rows = {kind: table.filter(kind=kind) for kind in _ROWS}
    columns = max(map(len, rows.values()))
    with styled():
        figure = plt.figure(figsize=(6.4, 2.1))
        figure.suptitle(
            f"{DATASET_TITLES[config['dataset']]}, ten images of each kind "
            f"(n = {config['noise_images']:,} noise images, seed {config['seed']})",
            fontsize=9, x=0.01, ha="left",
        )  # fmt: skip
        for part, kind in zip(cast(np.ndarray, figure.subfigures(2, 1)), _ROWS, strict=True):
            part.suptitle(_ROWS[kind], fontsize=8, x=0.01, ha="left")
            for axes, row in zip(
                part.subplots(1, columns).flat, rows[kind].iter_rows(named=True), strict=True
            ):
                image = np.reshape(row["pixels"], (row["side"], row["side"]))
                axes.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
                axes.set_axis_off()
        return save(figure, folder, f"data_{config['dataset']}_{samples.folder.name[:6]}")
