"""`sublab figures` on the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.draw import DRAWN_BY, draw
from sublab import records
from sublab.errors import InputError


@dataclass(frozen=True)
class FigureOptions:
    """Draw the figures of every record in a folder again, or those of the paper in its layout."""

    out: Path = Path("results")
    """Folder with the records; figures go to its subfolder `figures`."""
    paper: bool = False
    """Draw the paper's figures instead, each in the paper's layout; a panel without records names
    the command that fills it."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from", metavar="FOLDER")] = None
    """With --paper: folder with tables of `sublab results export`, in place of records."""


OPTIONS = FigureOptions


def main(options: FigureOptions) -> int:
    """Draws every record below `options.out`, or the paper's figures; returns the exit status.

    Raises:
        InputError: there is nothing to draw, or a table is damaged.
        RecordError: a record is damaged, or a figure cannot be written.
    """
    if options.paper:
        from experiments.report.paper import draw_paper

        for path, missing in draw_paper(options.out, tables=options.from_).items():
            print(f"figure: {path}")
            if missing:
                print(f"  without records: {', '.join(missing)}")
        return 0
    if options.from_ is not None:
        raise InputError("--from has tables, of which the paper's figures are drawn: add --paper")
    drawable = [record for kind in DRAWN_BY for record in records.read_all(options.out, kind)]
    if not drawable:
        raise InputError(
            f"{options.out}: no records to draw from; run `sublab mnist`, `sublab verify` or "
            f"`sublab sweep` first"
        )
    draw(drawable)
    return 0
