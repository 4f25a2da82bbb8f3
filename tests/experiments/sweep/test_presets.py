"""Every preset, at smoke size, from the command to its figure; and the documents of sweeps."""

import re
import shutil
import tomllib
from pathlib import Path

import polars as pl
import pytest

from experiments import cli
from experiments.sweep import docs as sweep_docs
from experiments.sweep import run as sweep
from experiments.sweep.file import presets, read_file
from sublab import records

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "sweeps.md"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One folder for all, so that what presets have in common is trained once."""
    return tmp_path_factory.mktemp("out")


@pytest.mark.parametrize("name", presets())
def test_a_preset_runs_at_smoke_size_and_draws_its_figure(name, out, capsys):
    assert cli.main(["sweep", "--preset", name, "--size", "smoke", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"over {2} runs" in said
    (summary,) = [
        record for record in records.read_all(out, sweep.SUMMARY) if record.config["name"] == name
    ]
    accuracy = summary.table.filter(pl.col("metric") == "accuracy")
    assert accuracy["n"].to_list() == [2] * len(summary.config["points"])
    drawn = list((out / "figures").glob(f"sweep_{name}_smoke_n2_*"))
    assert {path.suffix for path in drawn} == {".pdf", ".svg", ".png"}


def test_figures_of_sweeps_are_drawn_again(out, tmp_path):
    again = tmp_path / "out"
    shutil.copytree(out, again, ignore=shutil.ignore_patterns("figures", "models"))
    assert cli.main(["figures", "--out", str(again)]) == 0
    drawn = {path.name for path in (again / "figures").iterdir()}
    assert drawn >= {path.name for path in (out / "figures").iterdir()}


def test_the_tables_of_the_page_are_those_of_the_types():
    page = PAGE.read_text("utf-8")
    assert sweep_docs.filled(page) == page
    # The check would see a setting that the page has otherwise.
    assert sweep_docs.filled(page.replace("| `aux` | 3 |", "| `aux` | 4 |")) == page
    with pytest.raises(ValueError, match="no marks for the table 'knobs'"):
        sweep_docs.filled(page.replace("<!-- knobs: generated -->", ""))


def test_the_worked_example_is_the_file_beside_the_page_and_runs(tmp_path, capsys):
    (shown,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    path = ROOT / "docs" / "activation.toml"
    assert tomllib.loads(shown) == tomllib.loads(path.read_text("utf-8"))
    assert len(read_file(path, "cpu").points) == 8
    words = ["sweep", str(path), "--size", "smoke", "--out", str(tmp_path)]
    assert cli.main(words) == 0
    assert list((tmp_path / "figures").glob("sweep_activation_smoke_n2_*.png"))
    assert "differences are paired, to label = cross-model" in capsys.readouterr().out
