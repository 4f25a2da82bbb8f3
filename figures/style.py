"""One style for every figure: readable in grey, and by colour-blind people."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

# The package has set the backend for whoever imports matplotlib after it; this is for a process
# that had imported it before.
matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from sublab.records import RecordError

# Okabe and Ito's colours, apart in lightness too; hatches tell them apart where there is no colour.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, GREY = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CCCCCC",
)
FORMATS = ("pdf", "svg", "png")

_SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#DDDDDD",
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    # The same records give the same bytes.
    "svg.hashsalt": "subliminal-lab",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


@contextmanager
def styled() -> Iterator[None]:
    """Everything drawn inside has the project's style."""
    with plt.rc_context(_SETTINGS):
        yield


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes `figure` to folder/name in every format of `FORMATS`, and closes it.

    Each file is written beside its place and renamed, so none is ever half there.

    Raises:
        RecordError: `folder` cannot be written.
    """
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Laid out once: it takes longer than drawing, and all formats show the same picture.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for form in FORMATS:
            path, partial = folder / f"{name}.{form}", folder / f".{name}.{form}"
            date = {"pdf": "CreationDate", "svg": "Date"}.get(form)
            figure.savefig(partial, format=form, metadata={date: None} if date else None)
            paths.append(partial.replace(path))
    except OSError as error:
        raise RecordError(f"{folder}: figures cannot be written ({error.strerror})") from None
    finally:
        plt.close(figure)
    return paths
