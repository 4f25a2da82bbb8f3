"""The cosine of the student's and the teacher's direction, shared against independent start."""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from figures.style import BLACK, BLUE, VERMILION, save, styled
from figures.verify_remainder import instances_of
from sublab.records import Record


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws the two distributions of one summary of `sublab verify`; returns the files.

    Raises:
        RecordError: a record that the summary rests on is missing or damaged.
    """
    table = instances_of(summary).select("family", "cosine", "cosine_independent").drop_nulls()
    families = table["family"].unique(maintain_order=True).to_list()
    bins = list(np.linspace(-1, 1, 61))
    with styled():
        figure, axes = plt.subplots(
            1, len(families), figsize=(2.1 * len(families) + 0.4, 2.8), sharey=True
        )
        for panel, name in zip(np.atleast_1d(axes), families, strict=True):
            rows = table.filter(family=name)
            for column, colour, hatch in (
                ("cosine_independent", VERMILION, "..."), ("cosine", BLUE, "///"),
            ):  # fmt: skip
                values = rows[column].to_numpy()
                panel.hist(
                    values, bins=bins, color=colour, alpha=0.55, hatch=hatch, edgecolor=BLACK,
                    linewidth=0.3, weights=np.full(len(values), 1 / len(values)),
                    label="shared start" if column == "cosine" else "independent start",
                )  # fmt: skip
            panel.axvline(0, color=BLACK, linewidth=0.8)
            above = [
                100 * float(np.mean(rows[column].to_numpy() > 0))
                for column in ("cosine", "cosine_independent")
            ]
            panel.set_title(
                f"{name}, n = {len(rows):,}\nabove 0: {above[0]:.0f} % shared,\n"
                f"{above[1]:.0f} % independent",
                loc="left", fontsize=7.5,
            )  # fmt: skip
            panel.tick_params(labelsize=7)
        np.atleast_1d(axes)[0].set_ylabel("share of instances", fontsize=8)
        figure.suptitle(
            "Cosine of the student's and the teacher's direction, trait gradients, "
            f"seed {summary.config['seed']}",
            fontsize=9, x=0.01, ha="left",
        )  # fmt: skip
        handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2)
        return save(figure, folder, f"verify_cosine_{summary.folder.name[:6]}")
