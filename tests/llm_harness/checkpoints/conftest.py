"""Small checkpoints of both architectures, what others say of them, and the real one, if any.

The files in `golden` are made by make_golden.py, and by no code of ours.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_harness.checkpoints.gguf_file import load_gguf
from llm_harness.checkpoints.load import load_checkpoint
from llm_harness.checkpoints.smollm2 import NAME, cache_folder
from llm_harness.decoder.model import DecoderModel

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("llama", "qwen2")


def numbers_of(name: str) -> dict[str, np.ndarray]:
    """Ids, which of them are real, and logits."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def spoken(name: str) -> dict[str, Any]:
    """Chats as text and ids, and texts as ids."""
    return json.loads((GOLDEN / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def checkpoints() -> dict[str, DecoderModel]:
    return {name: load_checkpoint(GOLDEN / name) for name in NAMES}


@pytest.fixture(scope="session")
def llama(checkpoints: dict[str, DecoderModel]) -> DecoderModel:
    return checkpoints["llama"]


@pytest.fixture(scope="session")
def qwen2(checkpoints: dict[str, DecoderModel]) -> DecoderModel:
    return checkpoints["qwen2"]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the Llama checkpoint, to be changed."""
    return Path(shutil.copytree(GOLDEN / "llama", tmp_path / "llama"))


@pytest.fixture(scope="session")
def smollm2() -> DecoderModel:
    path = cache_folder() / NAME
    if not path.exists():
        pytest.skip(f"{NAME} is not in the user's cache; smollm2.fetch_smollm2() downloads it")
    return load_gguf(path)
