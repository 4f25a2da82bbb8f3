"""Claims about docs/tour.ipynb: what is kept of its outputs, and that it runs."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.tour import ROOT, TOUR

NOTEBOOK = json.loads(TOUR.read_text("utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def texts(cell) -> str:
    """All that a cell gave, as text."""
    return json.dumps(cell["outputs"])


def test_every_cell_of_code_has_run_in_order_and_none_failed():
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    for cell in CODE:
        kinds = [output["output_type"] for output in cell["outputs"]]
        assert "error" not in kinds
        # A cell that only defines things shows nothing.
        last = "".join(cell["source"]).rstrip().splitlines()[-1]
        assert kinds or " = " in last, last
        assert all(output.get("name") != "stderr" for output in cell["outputs"])


def test_it_is_small_and_names_no_folder_of_the_machine_it_ran_on():
    assert TOUR.stat().st_size < 300_000
    for cell in NOTEBOOK["cells"]:
        said = "".join(cell["source"]) + (texts(cell) if "outputs" in cell else "")
        assert not re.search(r"(?<![\w.<:/])/(?:home|root|tmp|work|usr|var|Users|opt)\b", said)


def test_what_it_shows_is_what_its_text_says():
    shown = " ".join(map(texts, CODE))
    assert "Theorem 1 holds: True" in shown
    residual, mean = (
        float(re.findall(pattern, shown)[0])
        for pattern in (r"changing places: ([\d.e-]+)", r"over all orders: mean ([\d.]+)")
    )
    assert (residual, mean) == (0.0, 0.1)
    same, other = (
        float(re.findall(rf"student, {start} start +([\d.]+)", shown)[0])
        for start in ("same", "another")
    )
    assert same > 0.5
    assert other < 0.3
    assert re.search(r"image/(svg|png)", shown)


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path):
    program = (
        "import sys, pathlib, nbformat; from tests.tour import TOUR, executed; "
        "nbformat.write(executed(TOUR), pathlib.Path(sys.argv[1]))"
    )
    # A process of its own: its kernel is not to inherit what the tests' process has set up.
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "tour.ipynb")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    again = json.loads((tmp_path / "tour.ipynb").read_text("utf-8"))
    assert [cell["source"] for cell in again["cells"]] == [
        cell["source"] for cell in NOTEBOOK["cells"]
    ]
