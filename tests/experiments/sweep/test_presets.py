"""Every preset, at smoke size, from the command to its figure."""

import re
import shutil

import polars as pl
import pytest

from experiments import cli
from experiments.sweep import run as sweep_run
from experiments.sweep.file import presets
from sublab import records

# What share programs with the others' tests, and one that clones; the slow tier has them all.
FEW = ("init-distance", "ed2c")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One folder for all, so that what presets have in common is trained once."""
    return tmp_path_factory.mktemp("out")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in presets()],
)
def test_a_preset_runs_at_smoke_size_and_draws_its_figure(name, out, capsys):
    assert cli.main(["sweep", "--preset", name, "--size", "smoke", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"over (1 to )?2 runs", said)
    (summary,) = [
        record
        for record in records.read_all(out, sweep_run.SUMMARY)
        if record.config["name"] == name
    ]
    accuracy = summary.table.filter(pl.col("metric") == "accuracy")
    assert accuracy["n"].to_list() == [point["runs"] for point in summary.config["points"]]
    assert set(accuracy["n"]) <= {1, 2}
    drawn = list((out / "figures").glob(f"*{name}_smoke_n2_*"))
    assert {path.suffix for path in drawn} == {".pdf", ".svg", ".png"}
    # In one folder each experiment is recorded once, whichever preset asked for it.
    students = records.scan(out).filter(pl.col("experiment") == "sweep").collect()
    settings = [name for name in students.columns if "." in name or name in ("start", "run")]
    assert not students.select(settings).is_duplicated().any()


def test_figures_of_sweeps_are_drawn_again(out, tmp_path, capsys):
    if not (out / "figures").exists():
        words = ["sweep", "--preset", FEW[0], "--size", "smoke", "--out", str(out)]
        assert cli.main(words) == 0
    again = tmp_path / "out"
    shutil.copytree(out, again, ignore=shutil.ignore_patterns("figures", "models", "sweep"))
    assert cli.main(["figures", "--out", str(again)]) == 0
    drawn = {path.name for path in (again / "figures").iterdir()}
    assert drawn == {path.name for path in (out / "figures").iterdir()}
