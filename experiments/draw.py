"""Which figure shows which kind of record, and drawing them."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from sublab import records

# By the kind of a record: the module that draws it, imported when such a record is drawn, whose
# `DRAW` has the functions.
DRAWN_BY: dict[str, str] = {
    "verify_summary": "figures.verify",
    "verify_curves": "figures.verify",
    "verify_grid": "figures.verify",
    "sweep_summary": "figures.sweep",
    "llm_numbers_summary": "figures.llm",
    "llm_cross_model_summary": "figures.llm",
    "llm_in_context_summary": "figures.llm",
    "llm_ingredients_summary": "figures.llm",
    "llm_theory_scores": "figures.llm",
    "llm_theory_steps": "figures.llm",
    "llm_theory_account": "figures.llm",
}


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
        for path in import_module(DRAWN_BY[kind]).DRAW[kind](record, out / "figures"):
            print(f"figure: {path}")
            paths.append(path)
    return paths
