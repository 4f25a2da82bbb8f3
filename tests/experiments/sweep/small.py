"""The one tiny sweep of these tests, so that they share compiled programs, and what it trained."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from experiments.sweep.run import SweepOptions, SweepOutcome, run
from sublab.settings import differences, known
from toymlp.settings import PREPRINT, Setting

BASE = """\
[base]
dataset = "digits"
model.hidden = [16]
student.inputs.count = 256
student.batch = 64
student.epochs = 1
student.learning_rate = 1e-2
teacher.epochs = 1
teacher.learning_rate = 1e-2
"""
SMALL = f"""\
title = "Small"
measure = ["agreement"]
{BASE}
[grid]
model.aux = [2, 5]
[[list]]
label = "student"
[[list]]
label = "cross-model"
start = "independent"
[baseline]
label = "cross-model"
"""
# One setting of it; as wide as the widest, so that it needs no program of its own.
ONE = f"{BASE}model.aux = 5\n"
METRICS = ("accuracy", "teacher_accuracy", "start_accuracy", "final_loss", "agreement")


def toml_of(setting: Setting) -> str:
    """A sweep file whose base has `setting`: one point."""
    lines = [
        f"{name}.kind = {json.dumps(value)}"
        if known(Setting)[name].is_kind
        else f"{name} = {json.dumps(value)}"
        for name, value in differences(setting, PREPRINT).items()
        if value is not None
    ]
    return "\n".join(["[base]", *lines, ""])


def file_of(folder: Path, text: str = SMALL) -> Path:
    """`text` as a sweep file in `folder`."""
    folder.mkdir(exist_ok=True)
    path = folder / "small.toml"
    path.write_text(text, "utf-8")
    return path


def sweep(folder: Path, text: str = SMALL, runs: int = 2, **more) -> SweepOutcome:
    """Runs the sweep that `text` says, with records in `folder / "out"`."""
    options: dict[str, Any] = {"out": folder / "out"} | more
    return run(SweepOptions(file=file_of(folder, text), runs=runs, **options))


def folders(out: Path, kind: str) -> set[str]:
    """Names of the records of a kind."""
    return {path.name for path in (out / kind).glob("*") if not path.name.startswith(".")}


def trained_models(out: Path) -> int:
    """How many teachers, clones and students are recorded."""
    kinds = ("sweep", "models/teachers", "models/clones")
    return sum(len(folders(out, kind)) for kind in kinds)


def same_numbers(
    table: pl.DataFrame, other: pl.DataFrame, metrics: Sequence[str] = METRICS
) -> None:
    """Asserts that two tables have the same rows, with measured numbers equal but for rounding."""
    table, other = (side.sort("point", "run") for side in (table, other))
    assert table.select("point", "run").equals(other.select("point", "run"))
    for name in metrics:
        np.testing.assert_allclose(table[name], other[name], rtol=1e-4, atol=3e-3)
