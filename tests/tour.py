"""Runs docs/tour.ipynb from top to bottom and keeps what its cells gave.

    python -m tests.tour

What stands in the notebook afterwards is what a reader sees without running it; lines about
progress, which are of one machine and one time, are left out.
"""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TOUR = ROOT / "docs" / "tour.ipynb"
# Seconds that a cell may take on a machine with much else to do.
_LONGEST = 1800


def executed(path: Path) -> Any:
    """The notebook with the outputs of its cells, run in a kernel of this Python.

    Args:
        path: of the notebook, which stays as it is.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=_LONGEST,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
    )
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    # Of the kernel that happened to run it.
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def main() -> int:
    """Writes the notebook with its outputs; returns the exit status."""
    import nbformat

    nbformat.write(executed(TOUR), TOUR)
    print(f"notebook: {TOUR.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
