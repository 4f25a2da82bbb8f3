"""The figure of a sweep: its preset's, or the one that suits any sweep."""

from collections.abc import Callable
from pathlib import Path

from figures import (
    sweep_alignment,
    sweep_any,
    sweep_chains,
    sweep_classes,
    sweep_cloning,
    sweep_datasets,
    sweep_depth,
    sweep_ed2b,
    sweep_ed2c,
    sweep_ed2d,
    sweep_ed2e,
    sweep_heads,
    sweep_init_distance,
    sweep_init_scale,
    sweep_inputs,
    sweep_interventions,
    sweep_layerwise,
    sweep_losses,
    sweep_noise_budget,
    sweep_width,
)
from sublab.records import Record, RecordError

# By what a summary says in `figure`: what draws it, and the axes that it draws, beside `label`.
FIGURES: dict[str, tuple[Callable[[Record, Path], list[Path]], frozenset[str]]] = {
    "alignment": (sweep_alignment.draw, frozenset()),
    "chains": (sweep_chains.draw, frozenset({"aux", "generations"})),
    "classes": (sweep_classes.draw, frozenset({"classes"})),
    "cloning": (sweep_cloning.draw, frozenset({"clone_learning_rate", "clone_epochs"})),
    "datasets": (sweep_datasets.draw, frozenset({"dataset"})),
    "depth": (sweep_depth.draw, frozenset({"hidden"})),
    "ed2b": (sweep_ed2b.draw, frozenset({"aux"})),
    "ed2c": (sweep_ed2c.draw, frozenset({"clone_epochs"})),
    "ed2d": (sweep_ed2d.draw, frozenset({"student_learning_rate"})),
    "ed2e": (sweep_ed2e.draw, frozenset({"start"})),
    "heads": (sweep_heads.draw, frozenset()),
    "init-distance": (sweep_init_distance.draw, frozenset({"interpolation", "perturbation"})),
    "init-scale": (sweep_init_scale.draw, frozenset({"init_scale"})),
    "inputs": (sweep_inputs.draw, frozenset({"alpha", "blur", "subspace"})),
    "interventions": (
        sweep_interventions.draw, frozenset({"liminal_weight", "liminal_epochs"})
    ),
    "layerwise": (sweep_layerwise.draw, frozenset({"aux"})),
    "losses": (sweep_losses.draw, frozenset()),
    "noise-budget": (sweep_noise_budget.draw, frozenset({"student_epochs"})),
    "width": (sweep_width.draw, frozenset({"hidden"})),
}  # fmt: skip


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws the figure that a sweep's summary names into `folder`; returns the files.

    A sweep without a figure, or with other axes than that figure's, gets the one that suits any.

    Raises:
        RecordError: the record of the runs is missing or damaged, the figure is unknown, or
            `folder` cannot be written.
    """
    config = summary.config
    if config["figure"] and config["figure"] not in FIGURES:
        raise RecordError(
            f"{summary.folder}: unknown figure {config['figure']!r}; known are {', '.join(FIGURES)}"
        )
    suited, axes = FIGURES.get(config["figure"], (sweep_any.draw, None))
    if axes != frozenset(config["axes"]) - {"label"}:
        suited = sweep_any.draw
    return suited(summary, folder)
