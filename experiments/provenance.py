"""What made a record: versions, device, git revision, data, time."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from populations.devices import cores

_PACKAGES = ("subliminal-lab", "jax", "jaxlib", "flax", "optax", "numpy", "polars")


def provenance(
    *, wall_seconds: float, data_sha256: str | None = None, data_origin: str | None = None
) -> dict[str, Any]:
    """Everything about the making of a record that does not decide its numbers.

    Args:
        wall_seconds: what the group took, compilation included.
        data_sha256: of the dataset; None where there is none.
        data_origin: where it was read from.
    """
    devices = jax.local_devices()
    return {
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in _PACKAGES},
        "device": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
            "processor": _processor(),
            "system": platform.platform(),
        },
        "git": _git_revision(),
        "data": {"sha256": data_sha256, "origin": data_origin} if data_sha256 else None,
        "wall_seconds": round(wall_seconds, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} x {cores()}"


def _git_revision() -> str | None:
    """The commit of this source tree, with +changes where it is not clean; None outside git."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ("git", "-C", str(here), *arguments), capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # An installed copy may lie inside some other project's checkout.
        if Path(git("rev-parse", "--show-toplevel")) != here.parent:
            return None
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
