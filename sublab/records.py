"""Records: one folder per finished piece of an experiment, whole or absent.

    <out>/<experiment>/<hash of config>/config.json      everything that decides the numbers
                                        table.parquet    the numbers
                                        provenance.json  versions, device, git revision, data
                                        model.safetensors, ...  files that the writer attached
                                        measures/<name>.json    what was measured of it later

A folder is written beside its place and renamed into it, so a reader never sees half of one and
writers never collide. A folder that does not check out is never trusted: `read` raises. What is
checked is content: the config against the folder's name, the table and attached files against sums
in the provenance, a later measurement against a sum of its own. So nothing is forced onto the disk
(fsync) while it is written: a killed process leaves its folder under a temporary name, and of a
machine that loses power, files that were cut do not match their sums.
"""

import hashlib
import io
import json
import re
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sublab.errors import InputError
from sublab.files import write_whole

_FILES = ("config.json", "table.parquet", "provenance.json")
# A temporary folder is written in well under a second; older ones (seconds) belong to killed
# writers. Its name is that of a record between dots, and a random end.
_ABANDONED = 3600
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.\w+")
_MEASURES = "measures"
# In the config of a record that was made of others: a summary, say.
DERIVED = "derived"
_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*")

# A value of a later measurement.
Value = float | int | None | list[float]


class RecordError(InputError):
    """A record is damaged, or records cannot be kept in a folder; the message is one line."""


@dataclass(frozen=True)
class Record:
    """One record that checked out.

    Attributes:
        folder: folder that holds it.
        config: everything that decides the numbers.
        table: numbers, with those of later measurements as further columns.
        provenance: circumstances of its making, which decide no number.
    """

    folder: Path
    config: dict[str, Any]
    table: pl.DataFrame
    provenance: dict[str, Any]


class MeasureError(RecordError):
    """A later measurement of a record is damaged, the record itself is not.

    Attributes:
        path: file of the measurement.
    """

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path}: damaged measurement ({reason})")
        self.path = path


def config_hash(config: dict[str, Any]) -> str:
    """16 hexadecimal digits that depend on the content of `config`, not on its order."""
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def folder_of(out: Path, experiment: str, config: dict[str, Any]) -> Path:
    """Where the record of `config` lies, or would."""
    return out / experiment / config_hash(config)


def write(
    out: Path,
    experiment: str,
    config: dict[str, Any],
    table: pl.DataFrame,
    provenance: dict[str, Any],
    files: Mapping[str, bytes] | None = None,
) -> Record:
    """Writes a record in one step; if a good one is there already, that one stays.

    Args:
        out: folder of all records.
        experiment: kind of the record.
        config: everything that decides the numbers.
        table: numbers.
        provenance: circumstances of the making.
        files: contents by name of further files, such as `model.safetensors`. A good record that
            is there already is given those that it lacks.

    Raises:
        RecordError: `out` cannot be written.
        ValueError: the table has a column that `scan` adds, or a file has a name that it must not.
    """
    if clash := {"experiment", "record"} & set(table.columns):
        raise ValueError(f"a record's table must not have the column(s) {sorted(clash)}")
    files = dict(files or {})
    for name in files:
        if not _NAME.fullmatch(name) or name in (*_FILES, _MEASURES):
            raise ValueError(f"a record's file must not be called {name!r}")
    folder = folder_of(out, experiment, config)
    stream = io.BytesIO()
    table.write_parquet(stream)
    parquet = stream.getvalue()
    provenance = provenance | {
        "table_sha256": _sha256(parquet),
        "table_rows": table.height,
        "table_schema": _sha256(repr(list(table.schema.items())).encode()),
        "files": {name: _sha256(content) for name, content in files.items()},
    }
    contents = dict(zip(_FILES, (_json(config), parquet, _json(provenance)), strict=True)) | files
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            temporary.chmod(0o755)
            for name, content in contents.items():
                (temporary / name).write_bytes(content)
            if _rename_into_place(temporary, folder):
                config, provenance = (json.loads(contents[n]) for n in (_FILES[0], _FILES[2]))
                return Record(folder, config, table, provenance)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _attach(folder, files)
    except OSError as error:
        raise RecordError(f"{folder}: cannot be written ({error.strerror})") from None
    return _read_mended(folder, lambda line: None)


def read(folder: Path) -> Record:
    """The record in `folder`, once every part of it is shown to be whole.

    Attached files are not read; `read_file` does, and checks them.

    Raises:
        MeasureError: a later measurement is not what was written; the rest of the record is.
        RecordError: a file is missing, unreadable, or not what was written.
    """
    config, parquet, provenance = _checked(folder)
    try:
        table = pl.read_parquet(parquet)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _damaged(folder, error) from None
    values = read_measures(folder)
    if values and table.height != 1:
        raise RecordError(f"{folder}: damaged record (measurements of a table of many rows)")
    columns = [_series(name, [value]) for name, value in values.items()]
    return Record(folder, config, table.with_columns(columns), provenance)


def read_file(folder: Path, name: str) -> bytes:
    """The content of a file that was attached to the record in `folder`.

    Raises:
        RecordError: it was not attached, is missing, or is not what was written.
    """
    try:
        sums = json.loads((folder / "provenance.json").read_bytes())["files"]
        if name not in sums:
            raise RecordError(f"{folder}: no file {name} was kept in this record")
        content = (folder / name).read_bytes()
        if _sha256(content) != sums[name]:
            raise RecordError(f"{folder}: damaged record ({name} does not match its sum)")
        return content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, error) from None


def extend(folder: Path, name: str, values: Mapping[str, Value]) -> None:
    """Adds a later measurement to the record in `folder`, whose table has one row.

    `read` and `scan` give its values as further columns. Any number of processes may do so at
    once; a measurement of the same name is replaced.

    Args:
        folder: folder of the record.
        name: name of the measurement.
        values: columns; a number, None or a list of numbers each.

    Raises:
        RecordError: the record is damaged, or cannot be written.
        ValueError: a name is not allowed, or a column is there already.
    """
    record = read(folder)
    if not _NAME.fullmatch(name):
        raise ValueError(f"a measurement must not be called {name!r}")
    if record.table.height != 1:
        raise ValueError(f"{folder}: measurements are of one row, this table has many")
    own = _read_measure(folder / _MEASURES / f"{name}.json", missing_is_empty=True)
    clash = set(values) & ({"experiment", "record", *record.table.columns} - own.keys())
    if clash:
        raise ValueError(f"{folder}: the column(s) {sorted(clash)} are there already")
    content = json.dumps({"values": dict(values)}, sort_keys=True)
    text = json.dumps({"sha256": _sha256(content.encode()), "content": content}, indent=2)
    try:
        (folder / _MEASURES).mkdir(exist_ok=True)
        write_whole(folder / _MEASURES / f"{name}.json", f"{text}\n".encode())
    except OSError as error:
        raise RecordError(f"{folder}: cannot be written ({error.strerror})") from None


def read_measures(folder: Path) -> dict[str, Value]:
    """The later measurements of the record in `folder`: values by column.

    Raises:
        MeasureError: one is not what was written.
    """
    values: dict[str, Value] = {}
    try:
        paths = sorted((folder / _MEASURES).glob("*.json"))
    except OSError as error:
        raise RecordError(f"{folder}: cannot be read ({error.strerror})") from None
    for path in paths:
        if not path.name.startswith("."):
            values |= _read_measure(path)
    return values


def find(
    out: Path, experiment: str, config: dict[str, Any], say: Callable[[str], None]
) -> Record | None:
    """The record of `config`, or None if there is none to trust.

    A damaged one is moved aside, and `say` is told so in one line; of one in which nothing but a
    later measurement is damaged, that measurement alone.
    """
    folder = folder_of(out, experiment, config)
    if not folder.exists():
        return None
    try:
        return _read_mended(folder, say)
    except RecordError as error:
        say(f"{error}; moved to {set_aside(folder).name}, and made again")
        return None


def find_or_make(
    out: Path,
    experiment: str,
    config: dict[str, Any],
    make: Callable[[], tuple[pl.DataFrame, dict[str, Any]]],
    say: Callable[[str], None],
) -> Record:
    """The record of `config`; where there is none to trust, make() gives its table and provenance.

    Raises:
        RecordError: `out` cannot be written.
    """
    return find(out, experiment, config, say) or write(out, experiment, config, *make())


def read_all(out: Path, experiment: str) -> list[Record]:
    """Every record of `experiment`, oldest first.

    Raises:
        RecordError: one of them is damaged.
    """
    folders = list(_folders(out, experiment))
    return [read(folder) for folder in sorted(folders, key=lambda path: path.stat().st_mtime)]


def scan(out: Path) -> pl.LazyFrame:
    """All records below `out` as one lazy table, with columns `experiment` and `record` in front.

    Everything that was measured is there once: tables that were made of other records, which say
    so by a true `DERIVED` in their config, are left out.

    A column that an experiment does not have is null in its rows. Later measurements are columns
    too. Attached files are not read.

    Raises:
        RecordError: a record is damaged, or there is none.
    """
    experiments = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    # Tables of one schema are read together: one by one takes several times as long.
    alike: dict[tuple[str, str], list[_Table]] = defaultdict(list)
    measured: list[dict[str, Any]] = []
    for experiment in experiments:
        for folder in _folders(out, experiment):
            config, parquet, provenance = _checked(folder)
            if config.get(DERIVED):
                continue
            schema = provenance.get("table_schema", folder.name)
            alike[experiment, schema].append(_Table(folder, parquet, provenance))
            if values := read_measures(folder):
                measured.append({"experiment": experiment, "record": folder.name} | values)
    if not alike:
        raise RecordError(f"{out}: no records here")
    frames = [_together(experiment, tables) for (experiment, _), tables in alike.items()]
    table = pl.concat(frames, how="diagonal_relaxed")
    if measured:
        names = dict.fromkeys(name for row in measured for name in row)
        columns = [_series(name, [row.get(name) for row in measured]) for name in names]
        table = _joined(table, pl.DataFrame(columns))
    return table.lazy()


@dataclass(frozen=True)
class _Table:
    """A record's table as bytes, with what is known of it."""

    folder: Path
    parquet: bytes
    provenance: dict[str, Any]


def _together(experiment: str, tables: list[_Table]) -> pl.DataFrame:
    """Tables of one schema as one, with the columns of `scan` in front."""
    try:
        whole = pl.read_parquet([table.parquet for table in tables])
        rows = [table.provenance["table_rows"] for table in tables]
        names = np.repeat([table.folder.name for table in tables], rows)
        if len(names) != whole.height:
            raise ValueError("not as many rows as were written")
    # A record of an older version does not say what its table is; or something is wrong with one.
    except (pl.exceptions.PolarsError, OSError, KeyError, ValueError, TypeError):
        frames = [
            read(table.folder).table.select(pl.lit(table.folder.name).alias("record"), pl.all())
            for table in tables
        ]
        named = pl.concat(frames, how="diagonal_relaxed")
        return named.select(pl.lit(experiment).alias("experiment"), pl.all())
    front = [pl.lit(experiment).alias("experiment"), pl.Series("record", names.tolist())]
    return whole.select(*front, pl.all())


def _joined(table: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
    """`table` with the columns of `measured`, by experiment and record."""
    keys = ["experiment", "record"]
    # What some records measured when they were made and others later is one column.
    both = [name for name in measured.columns if name in table.columns and name not in keys]
    joined = table.join(measured, on=keys, how="left", maintain_order="left", suffix=" (later)")
    filled = [pl.coalesce(name, f"{name} (later)").alias(name) for name in both]
    return joined.with_columns(filled).drop([f"{name} (later)" for name in both])


def cell(value: Any) -> Any:
    """A setting as a table has it: a list joined by hyphens, anything else as it is."""
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else value


def set_aside(folder: Path) -> Path:
    """Moves a damaged record out of the way, where nothing reads it, and says where to.

    Raises:
        RecordError: it cannot be moved.
    """
    for attempt in range(1000):
        aside = folder.parent / f".damaged-{folder.name}-{attempt}"
        if not aside.exists():
            try:
                return folder.rename(aside)
            except OSError as error:
                raise RecordError(f"{folder}: cannot be moved ({error.strerror})") from None
    raise RecordError(f"{folder.parent}: too many damaged records; delete the .damaged-* folders")


def prepare(out: Path) -> None:
    """Makes sure, before any work, that records can be kept in `out`; makes the folder.

    Also sweeps away what writers that were killed have left.

    Raises:
        RecordError: `out` is a file, or cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except (FileExistsError, NotADirectoryError):
        raise RecordError(f"{out}: is or lies below a file, but must be a folder (--out)") from None
    except OSError as error:
        raise RecordError(
            f"{out}: cannot be written ({error.strerror}); choose another --out"
        ) from None
    for path in (*out.glob("*/.*"), *out.glob("*/*/.*")):
        if _TEMPORARY.fullmatch(path.name) and time.time() - path.stat().st_mtime > _ABANDONED:
            shutil.rmtree(path, ignore_errors=True)


def _folders(out: Path, experiment: str) -> Iterator[Path]:
    parent = out / experiment
    for folder in sorted(parent.iterdir()) if parent.is_dir() else []:
        if not folder.name.startswith(".") and len(folder.name) == 16 and folder.is_dir():
            yield folder


def _rename_into_place(temporary: Path, folder: Path) -> bool:
    """Whether `temporary` became `folder`; if not, a good record is there already."""
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        try:
            read(folder)
            return False
        except MeasureError:
            return False
        except RecordError:
            set_aside(folder)
            temporary.rename(folder)
    return True


def _read_mended(folder: Path, say: Callable[[str], None]) -> Record:
    """The record in `folder`, once later measurements that are damaged were dropped from it.

    Raises:
        RecordError: anything else of it is damaged.
    """
    try:
        return read(folder)
    except MeasureError as error:
        say(f"{error}; dropped, to be measured again")
        error.path.unlink(missing_ok=True)
        return _read_mended(folder, say)


def _attach(folder: Path, files: Mapping[str, bytes]) -> None:
    """Gives a record those of `files` that it lacks, or has damaged."""
    lacking = {}
    for name, content in files.items():
        try:
            read_file(folder, name)
        except RecordError:
            lacking[name] = content
    if not lacking:
        return
    for name, content in lacking.items():
        write_whole(folder / name, content)
    path = folder / "provenance.json"
    provenance = json.loads(path.read_bytes())
    sums = {name: _sha256(content) for name, content in lacking.items()}
    write_whole(path, _json(provenance | {"files": provenance.get("files", {}) | sums}))


def _checked(folder: Path) -> tuple[dict[str, Any], bytes, dict[str, Any]]:
    """Config, table as bytes and provenance of a record, once they are shown to belong together.

    Raises:
        RecordError: a file is missing, unreadable, or not what was written.
    """
    try:
        config_bytes, parquet, provenance_bytes = ((folder / name).read_bytes() for name in _FILES)
        config, provenance = json.loads(config_bytes), json.loads(provenance_bytes)
        if config_hash(config) != folder.name:
            raise RecordError(f"{folder}: damaged record (config.json does not match its folder)")
        if _sha256(parquet) != provenance["table_sha256"]:
            raise RecordError(f"{folder}: damaged record (table.parquet does not match its sum)")
        return config, parquet, provenance
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, error) from None


def _damaged(folder: Path, error: Exception) -> RecordError:
    """What is said of a record that `error` came of."""
    if isinstance(error, RecordError):
        return error
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, OSError) and error.strerror:
        reason = f"{Path(error.filename or folder).name}: {error.strerror}"
    return RecordError(f"{folder}: damaged record ({reason})")


def _read_measure(path: Path, missing_is_empty: bool = False) -> dict[str, Value]:
    """The values of a later measurement, by column.

    Raises:
        MeasureError: it is not what was written.
    """
    try:
        outer = json.loads(path.read_bytes())
        if _sha256(outer["content"].encode()) != outer["sha256"]:
            raise MeasureError(path, "it does not match its sum")
        return json.loads(outer["content"])["values"]
    except FileNotFoundError:
        if missing_is_empty:
            return {}
        raise MeasureError(path, "it is gone") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, RecordError):
            raise
        raise MeasureError(path, f"{type(error).__name__}: {error}".splitlines()[0]) from None


def _series(name: str, values: list[Any]) -> pl.Series:
    """A column of a later measurement; whole numbers and others in one are all floats."""
    present = [value for value in values if value is not None]
    if any(isinstance(value, list) for value in present):
        return pl.Series(name, values, dtype=pl.List(pl.Float64), strict=False)
    if any(isinstance(value, float) for value in present):
        return pl.Series(name, values, dtype=pl.Float64, strict=False)
    return pl.Series(name, values)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
