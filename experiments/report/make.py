"""From records or tables to the page, and the same as a table."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from experiments.report import evidence, page
from experiments.report.claims import sections
from sublab.errors import InputError
from sublab.files import write_whole

NAME = "report.html"


@dataclass(frozen=True)
class ReportOutcome:
    """What a report gave.

    Attributes:
        path: the page.
        table: a row a statement: section, statement, source, n, ours, mean, low, high (of a share),
            paper, verdict, why, command, seconds.
    """

    path: Path
    table: pl.DataFrame


def report(
    out: Path = Path("results"), *, tables: Path | None = None, to: Path | None = None
) -> ReportOutcome:
    """Writes the page of the paper's claims against records; nothing is trained.

    Equal records, or equal tables, give equal bytes.

    Args:
        out: folder with the records.
        tables: folder with the tables that `sublab results export` wrote, in place of records.
        to: file that is written; by default `report.html` in `out`, or, of tables, in the current
            directory.

    Raises:
        InputError: there are no records or tables, or one is damaged, or the page cannot be
            written; then there is none, or the one from before.
    """
    found = evidence.of_records(out) if tables is None else evidence.of_tables(tables)
    path = to or (out / NAME if tables is None else Path(NAME))
    parts = page.parts_of(sections(), found)
    _write(path, page.rendered(parts))
    return ReportOutcome(path, page.table_of(parts))


def _write(path: Path, text: str) -> None:
    """Writes the page.

    Raises:
        InputError: it cannot be written.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; --to names the file that is written")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
