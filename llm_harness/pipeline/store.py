"""Stages on disk: each is written beside its place and renamed into it, whole or not at all.

A folder is named by what made it, so that a stage that is there is not made again, and no two
settings share one. Its files are checked by their SHA-256 when they are read.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_harness.errors import HarnessError
from llm_harness.lineage import sha256_of

_SUMS = "sha256.json"


@dataclass(frozen=True)
class Store:
    """A folder of stages.

    Attributes:
        root: is made where it is not there.
    """

    root: Path

    def folder(self, stage: str, made_from: Any) -> Path:
        """Where a stage that is made from `made_from` (anything JSON can write) lies."""
        return self.root / stage / sha256_of(made_from)[:16]

    def find(self, stage: str, made_from: Any) -> Path | None:
        """The stage's folder, or None where it has not been made.

        Raises:
            HarnessError: a file in it is not what was written.
        """
        folder = self.folder(stage, made_from)
        if not folder.exists():
            return None
        try:
            sums = json.loads((folder / _SUMS).read_text())
            for name, sha256 in sums.items():
                if hashlib.sha256((folder / name).read_bytes()).hexdigest() != sha256:
                    raise HarnessError(
                        f"{folder / name} was changed after it was written; remove {folder}, "
                        f"and it is made again"
                    )
        except (OSError, ValueError, AttributeError) as error:
            raise HarnessError(
                f"{folder} is damaged ({error}); remove it, and it is made again"
            ) from None
        return folder

    def write(self, stage: str, made_from: Any, fill: Callable[[Path], None]) -> Path:
        """Makes a stage: `fill` writes its files into the folder that it is given.

        Raises:
            HarnessError: the store cannot be written.
        """
        folder = self.folder(stage, made_from)
        beside = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
        try:
            beside.mkdir(parents=True)
            fill(beside)
            text = json.dumps(made_from, indent=2, sort_keys=True, ensure_ascii=False)
            (beside / "made_from.json").write_text(text + "\n")
            sums = {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(beside.iterdir())
            }
            (beside / _SUMS).write_text(json.dumps(sums, indent=2) + "\n")
            # A power cut must not leave a folder in its place whose files are empty.
            for path in (*beside.iterdir(), beside):
                _flush(path)
            try:
                os.rename(beside, folder)
            except OSError:
                # Another process was first, with the same content.
                if not folder.exists():
                    raise
        except OSError as error:
            raise HarnessError(f"{self.root} cannot be written: {error}") from None
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return folder


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
