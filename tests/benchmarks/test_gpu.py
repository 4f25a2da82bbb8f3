"""Claims about `benchmarks/gpu.py`: it needs nothing that a bare machine lacks, and measures."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import golden, gpu
from benchmarks.equivalence import equivalence
from toymlp.train import PRECISIONS

ROOT = Path(__file__).parents[2]
# What a machine with JAX and an accelerator need not have.
ABSENT = ("polars", "tyro", "pooch", "requests", "safetensors")
# What goes before a program, so that these are missing.
PROGRAM = f"""
import runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"no module named {{name}}", name=name)

sys.meta_path.insert(0, Missing())
"""


def without_them(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def test_rooms_of_models_import_without_tables_command_line_and_downloads():
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for room in ("theory", "toymlp")
        for path in (ROOT / room).glob("*.py")
    )
    modules += ["benchmarks.gpu"]
    modules += [f"llm_harness.decoder.{name}" for name in ("network", "generation", "training")]
    # Rich comes with flax, which is there; but nothing of ours that uses it is loaded.
    program = f"for name in {modules}: __import__(name)\nassert 'sublab.console' not in sys.modules"
    done = without_them(program)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_every_part_runs_at_smoke_size_and_is_written(tmp_path):
    path = tmp_path / "gpu.json"
    arguments = ["--size", "smoke", "--dataset", "digits", "--json", str(path)]
    program = 'runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)'
    done = without_them(program, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(path.read_text())
    assert set(gpu.PARTS) <= figures.keys()
    assert all("failed" not in figures[part] for part in gpu.PARTS)
    assert figures["correctness"]["theory, float64"]["largest_relative_error"] < 1e-9
    sixfold = figures["fig10b"]["float32"]
    assert sixfold["trained_students"] == 8
    assert sixfold["rates"]["students"]["teraflops"] > 0
    for sample in sixfold["accuracy"].values():
        assert sample["mean"] == pytest.approx(np.mean(sample["runs"]), abs=1e-6)
        assert sample["n"] == 2
    assert figures["ed2b"]["trained_students"] == 12
    assert figures["ed2c"]["accuracy"].keys() == {
        "teacher",
        "cloned for 0 epochs",
        "cloned for 1 epochs",
    }
    for measured in ("forward", "training_step", "sampling"):
        assert figures["decoder"][measured]["tokens_a_second"] > 0
    assert figures["decoder"]["sampling"]["share_of_limit"] > 0


def test_a_part_that_fails_is_noted_and_the_others_are_written(tmp_path, monkeypatch):
    def fails(machine, done):
        raise ValueError("no such product")

    def works(machine, done):
        return {"figure": 1.0}

    monkeypatch.setattr(gpu, "PARTS", {"first": fails, "second": works, "third": works})
    path = tmp_path / "gpu.json"
    arguments = ["--size", "smoke", "--dataset", "digits", "--json", str(path), "--parts"]
    assert gpu.main([*arguments, "first", "second"]) == 1
    figures = json.loads(path.read_text())
    assert figures["first"]["failed"] == "ValueError: no such product"
    assert figures["second"]["figure"] == 1.0
    assert "third" not in figures


def test_a_part_that_time_does_not_allow_is_noted_and_is_no_success(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "PARTS", {"first": lambda *_: {"figure": 1.0}})
    path = tmp_path / "gpu.json"
    arguments = ["--size", "smoke", "--dataset", "digits", "--json", str(path), "--seconds", "0"]
    assert gpu.main(arguments) == 1
    assert json.loads(path.read_text())["first"]["skipped"] == "0 seconds were over"


def test_what_must_be_true_is_looked_at_first():
    assert next(iter(gpu.PARTS)) == "correctness"


def test_what_must_be_true_decides_the_exit_status(tmp_path, monkeypatch):
    path = tmp_path / "gpu.json"
    arguments = ["--size", "smoke", "--dataset", "digits", "--json", str(path), "--parts", "only"]
    for within, status in ((True, 0), (False, 1)):
        figures = {"product": {"relative_error": 0.1, "within": within}}
        monkeypatch.setattr(gpu, "PARTS", {"only": lambda *_, figures=figures: figures})
        assert gpu.main(arguments) == status


def test_equivalence_asks_for_the_whole_interval_within_the_margin():
    few = np.array([0.01, -0.01, 0.02, 0.0])
    assert not equivalence("teacher", few)["within"]
    assert equivalence("student, all logits", few)["within"]
    assert not equivalence("student, all logits", few + 0.03)["within"]


def test_a_precision_that_is_not_equivalent_is_not_the_fastest():
    def took(seconds: float, **within: bool) -> dict:
        rows = {name: {"within": value} for name, value in within.items()}
        return {"seconds": seconds, "compile_seconds": 1.0, "equivalence": rows}

    figures = {
        "float32": took(20.0),
        "tf32": took(9.0, teacher=True, student=True),
        "bfloat16": took(5.0, teacher=True, student=False),
    }
    assert gpu.fastest({"fig10b": figures}, tuple(PRECISIONS)) == "tf32"
    assert gpu.fastest({}, tuple(PRECISIONS)) == "float32"


def test_the_stored_numbers_of_the_theory_are_what_a_cpu_computes():
    stored = np.load(golden.STORED)
    with jax.enable_x64(True):
        numbers = golden.theory_numbers(np.float64)
    assert numbers.keys() | {"population"} == set(stored.files)
    for name, value in numbers.items():
        np.testing.assert_allclose(value, stored[name], rtol=1e-9, atol=1e-12, err_msg=name)
