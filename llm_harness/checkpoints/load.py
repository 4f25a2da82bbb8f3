"""A checkpoint from its path, whatever its form."""

from pathlib import Path

from llm_harness.checkpoints.folder import load_folder
from llm_harness.checkpoints.gguf_file import load_gguf
from llm_harness.decoder.model import DecoderModel
from llm_harness.decoder.network import DType
from llm_harness.errors import HarnessError


def load_checkpoint(
    path: Path,
    dtype: DType = "float32",
    template: str | None = None,
    date: str | None = None,
) -> DecoderModel:
    """The model at a path.

    Args:
        path: a folder of Hugging Face's form, or a GGUF file.
        dtype: of the parameters in memory.
        template: chat template to be used in place of the checkpoint's.
        date: day that the template is told; None for today.

    Raises:
        HarnessError: there is none, or one that is damaged or not supported.
    """
    if path.is_dir():
        return load_folder(path, dtype, template, date)
    if path.is_file():
        return load_gguf(path, dtype, template, date)
    raise HarnessError(f"{path} is not there; a checkpoint is a folder or a GGUF file")
