"""What is recorded of a sweep: a folder for each setting in each run, teachers and clones beside.

    <out>/sweep/<hash>/            a student: every setting and measurement, and its parameters
    <out>/models/teachers/<hash>/  a teacher, <out>/models/clones/<hash>/ a matched start

Models are kept apart from the tables, which `records.scan` reads as one. They are read when they
are needed and let go: a sweep does not hold its models in memory.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import load, save

from experiments.sweep.plan import Wanted
from sublab import records
from sublab.console import say
from sublab.settings import flatten
from theory.passes import Params
from toymlp.measures import MEASURES, Column, columns_of
from toymlp.settings import Setting, whole
from toymlp.stages import StageSetting, TrainedModel, stage_of
from toymlp.train import Precision

STUDENTS, _MODELS = "sweep", "models"
_FILE = "model.safetensors"
# Raised whenever the same setting comes to give other numbers, so that old records are not reused.
VERSION = 2


class SweepStore:
    """The records of one results folder, under one seed.

    Attributes:
        out: the folder.
        seed: base seed.
        data_sha256: digest of every data set, by its name.
        read_only: whether what is damaged is left where it is.
        precision: of the products of training.
    """

    def __init__(
        self,
        out: Path,
        seed: int,
        data_sha256: Mapping[str, str],
        read_only: bool = False,
        precision: Precision = "float32",
    ):
        self.out, self.seed, self.data_sha256 = out, seed, dict(data_sha256)
        self.read_only = read_only
        self.precision: Precision = precision
        # Rows of the tables, without models; None of what is not there.
        self._rows: dict[Wanted, dict[str, Any] | None] = {}

    def config(self, wanted: Wanted) -> dict[str, Any]:
        """Everything that decides the numbers of a setting in a run."""
        setting, run = wanted
        return {
            "experiment": STUDENTS if isinstance(setting, Setting) else stage_of(setting),
            "version": VERSION,
            "setting": flatten(_whole(setting)),
            "run": run,
            "seed": self.seed,
            "data_sha256": self.data_sha256[setting.dataset],
        } | said_precision(self.precision)

    def folder(self, wanted: Wanted) -> Path:
        """Where its record lies, or would."""
        return records.folder_of(*self._place(wanted), self.config(wanted))

    def row(self, wanted: Wanted) -> dict[str, Any] | None:
        """What is recorded of it; None where nothing is."""
        if wanted not in self._rows:
            self._rows[wanted] = None
            record = self._found(wanted)
            if record is not None:
                self._rows[wanted] = record.table.to_dicts()[0]
        return self._rows[wanted]

    def _found(self, wanted: Wanted) -> records.Record | None:
        if not self.read_only:
            return records.find(*self._place(wanted), self.config(wanted), say)
        try:
            folder = self.folder(wanted)
            return records.read(folder) if folder.exists() else None
        except records.RecordError as error:
            say(f"{error}; it would be made again")
            return None

    def lacking(self, wanted: Wanted, measure: Sequence[str]) -> tuple[str, ...]:
        """The measurements that a recorded student lacks."""
        row = self.row(wanted) or {}
        return tuple(name for name in measure if not MEASURES[name].columns.keys() <= row.keys())

    def is_kept(self, wanted: Wanted) -> bool:
        """Whether its parameters lie beside its record, whole."""
        if self.row(wanted) is None or not (self.folder(wanted) / _FILE).exists():
            return False
        return self.model(wanted) is not None

    def model(self, wanted: Wanted) -> TrainedModel | None:
        """A recorded model with its parameters; None where they are missing or damaged.

        What is damaged is dropped, to be made again; the record stays.
        """
        row = self.row(wanted)
        if row is None:
            return None
        folder = self.folder(wanted)
        try:
            params = unpacked(records.read_file(folder, _FILE))
        except records.RecordError as error:
            if (folder / _FILE).exists():
                say(f"{error}; {'it would be' if self.read_only else 'dropped, and'} made again")
                if not self.read_only:
                    (folder / _FILE).unlink()
            return None
        loss = row["final_loss"] if isinstance(wanted[0], Setting) else row["loss"]
        return TrainedModel(params, loss, row.get("held_out"))

    def write(
        self,
        wanted: Wanted,
        values: Mapping[str, Any],
        measured: Mapping[str, Mapping[str, Any]],
        model: TrainedModel | None,
        made: dict[str, Any],
    ) -> None:
        """Records what a task gave of a setting in a run.

        What is there already stays as it is, and gets the measurements and the parameters that it
        lacks.

        Args:
            wanted: setting and run.
            values: the columns that every student, or model, has; {} where it is only measured.
            measured: by measurement, the values of its columns.
            model: parameters to keep; None keeps none.
            made: circumstances, for the record's provenance.
        """
        files = {} if model is None else {_FILE: packed(model.params)}
        before = self.row(wanted)
        if before is None or files:
            table = self._table(wanted, values, measured)
            record = records.write(*self._place(wanted), self.config(wanted), table, made, files)
            before = record.table.to_dicts()[0]
        for name in measured:
            if not MEASURES[name].columns.keys() <= before.keys():
                records.extend(self.folder(wanted), name, dict(measured[name]))
                before |= measured[name]
        self._rows[wanted] = before

    def _table(
        self,
        wanted: Wanted,
        values: Mapping[str, Any],
        measured: Mapping[str, Mapping[str, Any]],
    ) -> pl.DataFrame:
        setting, run = wanted
        if not isinstance(setting, Setting):
            columns = dict.fromkeys(values, pl.Float64)
            return pl.DataFrame([dict(values)], schema=columns)
        settings = {name: records.cell(value) for name, value in flatten(setting).items()}
        row = settings | {"seed": self.seed, "run": run}
        row |= said_precision(self.precision) | dict(values)
        for columns in measured.values():
            row |= columns
        types = {name: column_type(about) for name, about in columns_of(list(measured)).items()}
        return pl.DataFrame([row], schema_overrides=types)

    def _place(self, wanted: Wanted) -> tuple[Path, str]:
        if isinstance(wanted[0], Setting):
            return self.out, STUDENTS
        return self.out / _MODELS, stage_of(wanted[0])


def said_precision(precision: Precision) -> dict[str, str]:
    """What a config and a table say of a precision: nothing of float32, which all had at first."""
    return {} if precision == "float32" else {"precision": precision}


def column_type(about: Column) -> Any:
    """The type of a measurement's column in a table."""
    return pl.List(pl.Float64) if about.many else pl.Float64


def packed(params: Params) -> bytes:
    """Parameters as the bytes of a safetensors file, arrays by their path."""
    arrays: dict[str, np.ndarray] = {}

    def add(tree: Mapping[Any, Any], path: str) -> None:
        for name, leaf in tree.items():
            if isinstance(leaf, dict):
                add(leaf, f"{path}{name}/")
            else:
                arrays[f"{path}{name}"] = np.ascontiguousarray(leaf)

    add(params, "")
    return save(arrays)


def unpacked(content: bytes) -> Params:
    """The parameters of which `packed` gives the bytes."""
    params: dict[Any, Any] = {}
    for path, array in load(content).items():
        *owners, name = (int(key) if key.isdecimal() else key for key in path.split("/"))
        inside = params
        for owner in owners:
            inside = inside.setdefault(owner, {})
        inside[name] = array
    return params


def _whole(setting: StageSetting) -> Setting:
    return setting if isinstance(setting, Setting) else whole(setting)
