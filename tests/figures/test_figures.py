"""Claims about the files of all figures, and about the style that they share."""

import os
import subprocess
import sys

import pytest

from figures import style
from sublab.records import RecordError


def drawn():
    """A figure with a line and a text."""
    figure, axes = style.plt.subplots()
    axes.plot([0, 1], [0, 1])
    axes.set_title("a line")
    return figure


def test_a_figure_is_pdf_svg_and_png_and_the_same_picture_gives_the_same_bytes(tmp_path):
    files = []
    for folder in ("first", "second"):
        with style.styled():
            files.append(style.save(drawn(), tmp_path / folder, "line"))
    starts = {".pdf": b"%PDF", ".svg": b"<?xml", ".png": b"\x89PNG"}
    assert [path.suffix for path in files[0]] == list(starts)
    for first, second in zip(*files, strict=True):
        assert first.read_bytes().startswith(starts[first.suffix])
        assert first.read_bytes() == second.read_bytes()
    assert style.plt.imread(files[0][-1])[..., :3].std() > 0.05
    assert style.plt.get_fignums() == []


def test_a_figure_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "figures").write_text("a file")
    with style.styled(), pytest.raises(RecordError, match="cannot be written"):
        style.save(drawn(), tmp_path / "figures", "line")
    assert style.plt.get_fignums() == []
    assert [path.name for path in tmp_path.iterdir()] == ["figures"]


def test_style_is_left_as_it_was():
    before = dict(style.plt.rcParams)
    with style.styled():
        assert style.plt.rcParams["svg.hashsalt"] == "subliminal-lab"
    assert dict(style.plt.rcParams) == before


@pytest.mark.parametrize(
    ("module", "backend"),
    [("sweep", "module://matplotlib_inline.backend_inline"), ("llm", "no_such_backend")],
)
def test_files_are_drawn_whatever_backend_the_environment_names(module, backend):
    """Notebooks export the first to every process that they start, able to import it or not."""
    code = f"import figures.{module}, matplotlib; print(matplotlib.get_backend())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"MPLBACKEND": backend},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip().lower() == "agg"
