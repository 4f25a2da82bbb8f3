"""`sublab report` on the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.report.make import report


@dataclass(frozen=True)
class ReportOptions:
    """The paper's claims against the records: one HTML file that needs nothing else."""

    out: Path = Path("results")
    """Folder with the records."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from", metavar="FOLDER")] = None
    """Folder with the tables that `sublab results export` wrote, in place of records."""
    to: Path | None = None
    """File that is written; by default report.html in the folder of the records, or, with --from,
    in the current directory."""


OPTIONS = ReportOptions


def main(options: ReportOptions) -> int:
    """Writes the page and says where it is and how many claims have which verdict.

    Returns:
        The exit status, 0: a claim that is not borne out is what the page is there to say.

    Raises:
        InputError: there are no records or tables, one is damaged, or the page cannot be written.
    """
    outcome = report(options.out, tables=options.from_, to=options.to)
    counts = outcome.table["verdict"].value_counts(sort=True, name="rows").rows()
    print(", ".join(f"{word}: {rows}" for word, rows in sorted(counts)))
    print(f"report: {outcome.path}")
    return 0
