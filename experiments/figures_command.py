"""`sublab figures`, and which figure shows which kind of record."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from sublab import records
from sublab.errors import InputError

# By the kind of a record: the functions that draw it, each in a module that is imported when such
# a record is drawn.
DRAWN_BY: dict[str, tuple[str, ...]] = {
    "verify_summary": ("figures.verify_remainder:draw", "figures.verify_cosine:draw"),
    "verify_curves": ("figures.verify_curves:draw",),
    "verify_grid": ("figures.verify_steps:draw",),
    "sweep_summary": ("figures.sweep:draw",),
    "llm_numbers_summary": ("figures.llm_picking:draw",),
    "llm_cross_model_summary": ("figures.llm_heat_map:draw",),
    "llm_in_context_summary": ("figures.llm_in_context:draw",),
    "llm_ingredients_summary": ("figures.llm_ingredients_dots:draw",),
    "llm_theory_scores": ("figures.llm_score_test:draw",),
    "llm_theory_steps": ("figures.llm_steps:draw",),
    "llm_theory_account": ("figures.llm_account:draw",),
}


@dataclass(frozen=True)
class FigureOptions:
    """Draw the figures of every record in a folder again."""

    out: Path = Path("results")
    """Folder with the records; figures go to its subfolder `figures`."""


OPTIONS = FigureOptions


def main(options: FigureOptions) -> int:
    """Draws every record below `options.out`; returns the exit status.

    Raises:
        InputError: there is none to draw.
        RecordError: a record is damaged, or a figure cannot be written.
    """
    drawable = [record for kind in DRAWN_BY for record in records.read_all(options.out, kind)]
    if not drawable:
        raise InputError(
            f"{options.out}: no records to draw from; run `sublab mnist`, `sublab verify` or "
            f"`sublab sweep` first"
        )
    draw(drawable)
    return 0


def draw(drawable: Sequence[records.Record]) -> list[Path]:
    """Draws records into the folder `figures` beside them; prints and returns the files.

    Args:
        drawable: records of kinds that `DRAWN_BY` has.

    Raises:
        RecordError: a record that a figure rests on is damaged, or a figure cannot be written.
    """
    paths = []
    for record in drawable:
        out, kind = record.folder.parents[1], record.folder.parent.name
        for place in DRAWN_BY[kind]:
            module, function = place.split(":")
            for path in getattr(import_module(module), function)(record, out / "figures"):
                print(f"figure: {path}")
                paths.append(path)
    return paths
