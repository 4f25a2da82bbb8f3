"""Results folders with made-up values, of real presets: summaries without any training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from experiments.sweep import run as sweep_run
from experiments.sweep.file import Sweep, read_preset
from experiments.sweep.store import SweepStore
from experiments.sweep.summary import published_rows, runs_table, summary_config, summary_table
from sublab import records
from toymlp.checks import canonical
from toymlp.data import size_of
from toymlp.measures import columns_of
from toymlp.settings import Setting

MADE = {
    "versions": {"jax": "0.10.2", "python": "3.11.7"},
    "device": {"kind": "cpu", "processor": "Processor x 2", "system": "Linux-host"},
    "data": {"origin": "/a/folder/of/mine", "sha256": "0"},
    "git": "0123456789abcdef",
}


class MadeUpStore(SweepStore):
    """A store of records that has every setting and run, with numbers out of the air."""

    def __init__(self, measure: tuple[str, ...], steps: int):
        super().__init__(Path(), 0, {})
        self.columns, self.steps = columns_of(measure), steps

    def row(self, wanted: Any) -> dict[str, Any]:
        setting, run = wanted
        rng = np.random.default_rng([run, setting.model.aux, len(setting.start.kind)])
        return {
            name: rng.uniform(0.1, 0.9, self.steps).tolist() if column.many else rng.uniform()
            for name, column in self.columns.items()
        }


def of_preset(name: str, size: Any = "cpu") -> Sweep:
    """A preset with canonical settings."""
    sweep = read_preset(name, size)

    def spelt(point: Any) -> Any:
        return replace(point, setting=canonical(point.setting, images(point.setting)))

    return replace(sweep, points=tuple(map(spelt, sweep.points)))


def images(setting: Setting) -> int:
    return size_of(setting.dataset).train


def record(
    out: Path, sweep: Sweep, runs: int | None = None, *, steps: int = 2, date: str = "2026-01-01"
) -> records.Record:
    """Writes the records of a sweep's table and summary; returns that of the summary."""
    runs = sweep.runs if runs is None else runs
    store = MadeUpStore(sweep.measure, steps)
    table, long = runs_table(sweep, runs, store)
    config = summary_config(sweep, images, runs, 0) | {"version": 0}
    made = MADE | {"finished": f"{date}T00:00:00+00:00"}
    head = {"experiment": sweep_run.RUNS, "name": sweep.name, "runs": runs, "size": sweep.size}
    wide = records.write(out, sweep_run.RUNS, head | {"steps": steps}, table, made)
    config |= {
        "experiment": sweep_run.SUMMARY,
        "runs_record": wide.folder.name,
        "samples_record": None,
        "published": published_rows(sweep, images, table),
    }
    return records.write(out, sweep_run.SUMMARY, config, summary_table(sweep, long), made)


def means(summary: records.Record, metric: str) -> pl.DataFrame:
    """The rows of one metric."""
    return summary.table.filter(metric=metric)
