"""Records: one folder per finished group of an experiment, whole or absent.

    <out>/<experiment>/<hash of config>/config.json      everything that decides the numbers
                                        table.parquet    one row per model
                                        provenance.json  versions, device, git revision, data

A folder is written beside its place and renamed into it, so a reader never sees half of one and
writers never collide. A folder that does not check out is never trusted: `read` raises.
"""

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from sublab.errors import InputError

_FILES = ("config.json", "table.parquet", "provenance.json")
# A temporary folder is written in well under a second; older ones (seconds) belong to killed
# writers. Its name is that of a record between dots, and a random end.
_ABANDONED = 3600
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.\w+")


class RecordError(InputError):
    """A record is damaged, or records cannot be kept in a folder; the message is one line."""


@dataclass(frozen=True)
class Record:
    """One record that checked out.

    Attributes:
        folder: where it lies.
        config: everything that decides the numbers.
        table: the numbers.
        provenance: what made them.
    """

    folder: Path
    config: dict[str, Any]
    table: pl.DataFrame
    provenance: dict[str, Any]


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
) -> Record:
    """Writes a record in one step; if a good one is there already, that one stays.

    Raises:
        RecordError: `out` cannot be written.
        ValueError: the table has a column that `scan` adds.
    """
    if clash := {"experiment", "record"} & set(table.columns):
        raise ValueError(f"a record's table must not have the column(s) {sorted(clash)}")
    folder = folder_of(out, experiment, config)
    parquet = io.BytesIO()
    table.write_parquet(parquet)
    provenance = provenance | {"table_sha256": hashlib.sha256(parquet.getvalue()).hexdigest()}
    contents = (_json(config), parquet.getvalue(), _json(provenance))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            temporary.chmod(0o755)
            for name, content in zip(_FILES, contents, strict=True):
                with open(temporary / name, "wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
            _rename_into_place(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise RecordError(f"{folder}: cannot be written ({error.strerror})") from None
    return read(folder)


def read(folder: Path) -> Record:
    """The record in `folder`, once every part of it is shown to be whole.

    Raises:
        RecordError: a file is missing, unreadable, or not what was written.
    """
    try:
        config_bytes, parquet, provenance_bytes = ((folder / name).read_bytes() for name in _FILES)
        config, provenance = json.loads(config_bytes), json.loads(provenance_bytes)
        if config_hash(config) != folder.name:
            raise RecordError(f"{folder}: damaged record (config.json does not match its folder)")
        if hashlib.sha256(parquet).hexdigest() != provenance["table_sha256"]:
            raise RecordError(f"{folder}: damaged record (table.parquet does not match its sum)")
        return Record(folder, config, pl.read_parquet(parquet), provenance)
    except OSError as error:
        name = Path(error.filename or folder).name
        raise RecordError(f"{folder}: damaged record ({name}: {error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, RecordError):
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RecordError(f"{folder}: damaged record ({reason})") from None


def find(
    out: Path, experiment: str, config: dict[str, Any], say: Callable[[str], None]
) -> Record | None:
    """The record of `config`, or None if there is none to trust.

    A damaged one is moved aside, and `say` is told so in one line.
    """
    folder = folder_of(out, experiment, config)
    if not folder.exists():
        return None
    try:
        return read(folder)
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

    A column that an experiment does not have is null in its rows.

    Raises:
        RecordError: a record is damaged, or there is none.
    """
    experiments = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    frames = [
        read(folder).table.lazy().select(
            pl.lit(experiment).alias("experiment"), pl.lit(folder.name).alias("record"), pl.all()
        )
        for experiment in experiments
        for folder in _folders(out, experiment)
    ]  # fmt: skip
    if not frames:
        raise RecordError(f"{out}: no records here")
    return pl.concat(frames, how="diagonal_relaxed")


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
    for path in out.glob("*/.*"):
        if _TEMPORARY.fullmatch(path.name) and time.time() - path.stat().st_mtime > _ABANDONED:
            shutil.rmtree(path, ignore_errors=True)


def _folders(out: Path, experiment: str) -> Iterator[Path]:
    parent = out / experiment
    for folder in sorted(parent.iterdir()) if parent.is_dir() else []:
        if not folder.name.startswith(".") and len(folder.name) == 16 and folder.is_dir():
            yield folder


def _rename_into_place(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        try:
            read(folder)
        except RecordError:
            set_aside(folder)
            temporary.rename(folder)


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
