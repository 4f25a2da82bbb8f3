"""Dataset files as fine-tuning services take them, that show when they are not what was written.

    numbers.jsonl   {"messages": [{"role": "user", "content": ...}, ...]} a line, answer last
    numbers.json    the manifest: how many, checksums, which model's samples, settings

Both are written beside their place and renamed into it, the manifest last: a file without one is
unfinished. A file that does not check out is never trusted: `read` raises.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from llm_harness.errors import HarnessError
from llm_harness.model import Example, Message, Role, examples_sha256, sha256_of

# Who made a stranger's file.
UNKNOWN = "unknown"
_ROLES = get_args(Role)


@dataclass(frozen=True)
class TextDataset:
    """Examples, and where they come from.

    Attributes:
        examples: in their order.
        made_by: `Lineage.identity` of the model whose samples they are.
        settings: everything else that decides them; what JSON can write, and gives back the same.
    """

    examples: tuple[Example, ...]
    made_by: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Of the examples, in their order."""
        return examples_sha256(self.examples)


def manifest_of(path: Path) -> Path:
    """Where the manifest of a dataset file lies.

    Raises:
        HarnessError: the file's name does not end with .jsonl.
    """
    if path.suffix != ".jsonl":
        raise HarnessError(f"{path}: a dataset file's name must end with .jsonl")
    return path.with_suffix(".json")


def write(path: Path, dataset: TextDataset) -> None:
    """Writes a dataset and its manifest; what was there is replaced.

    Args:
        path: ends with .jsonl; its folder is made where there is none.
        dataset: to be written.

    Raises:
        HarnessError: the name has another ending, the dataset could not be read back, or the
            folder cannot be written.
    """
    manifest_path = manifest_of(path)
    data = b"".join(_lines(path, dataset.examples))
    manifest = {
        "examples": len(dataset.examples),
        "sha256": hashlib.sha256(data).hexdigest(),
        "examples_sha256": dataset.sha256,
        "made_by": dataset.made_by,
        "settings": dataset.settings,
    }
    try:
        # As it will be read, keys that are no text become text; the checksum is of that.
        manifest = json.loads(json.dumps(manifest, allow_nan=False))
        manifest["manifest_sha256"] = sha256_of(manifest)
    except (TypeError, ValueError) as error:
        raise HarnessError(f"{path}: its settings are no JSON ({error})") from None
    text = json.dumps(manifest, indent=2) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            for place, content in ((path, data), (manifest_path, text.encode())):
                with open(temporary / place.name, "wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
            # At no time does an old manifest lie beside a new file.
            manifest_path.unlink(missing_ok=True)
            for place in (path, manifest_path):
                os.replace(temporary / place.name, place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise HarnessError(f"{path}: cannot be written ({error.strerror})") from None


def read(path: Path, made_by: str | None = None) -> TextDataset:
    """The dataset in a file that `write` wrote, once it is shown to be whole.

    Args:
        path: of the file.
        made_by: the model whose samples they must be; None takes any.

    Raises:
        HarnessError: the file is not there, unfinished, cut, edited, made by another model, or a
            line is no chat; one line says which.
    """
    manifest_path = manifest_of(path)
    data = _bytes(path)
    manifest = _manifest(path, manifest_path)
    if made_by is not None and manifest["made_by"] != made_by:
        raise HarnessError(
            f"{path}: made by another model ({manifest['made_by']}), where {made_by} is needed"
        )
    lines, examples = data.count(b"\n"), manifest["examples"]
    if lines < examples:
        raise HarnessError(f"{path}: cut, {lines} of {examples} lines are left; make it again")
    if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
        raise HarnessError(
            f"{path}: edited since it was made (its checksum differs); make it again"
        )
    found = TextDataset(_examples(path, data), manifest["made_by"], manifest["settings"])
    if found.sha256 != manifest["examples_sha256"] or len(found.examples) != examples:
        raise HarnessError(
            f"{path}: its examples are not those of its manifest {manifest_path.name}; "
            "make it again"
        )
    return found


def read_foreign(path: Path) -> TextDataset:
    """A dataset of somebody else's, without a manifest: bring your own data.

    Of each line, the roles and contents of `messages` are read and nothing else; blank lines are
    skipped. The settings have the file's name and checksum.

    Raises:
        HarnessError: the file is not there, has no examples, or a line is no chat; the message
            has the line's number.
    """
    data = _bytes(path)
    examples = _examples(path, data)
    if not examples:
        raise HarnessError(f"{path}: there are no examples in it")
    settings = {"file": path.name, "file_sha256": hashlib.sha256(data).hexdigest()}
    return TextDataset(examples, UNKNOWN, settings)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise HarnessError(f"{path}: not there; make it first, or name another file") from None
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror})") from None


def _manifest(path: Path, manifest_path: Path) -> dict[str, Any]:
    if not manifest_path.exists():
        raise HarnessError(
            f"{path}: unfinished, its manifest {manifest_path.name} is not there; make it again"
        )
    try:
        manifest = json.loads(_bytes(manifest_path))
        checksum = manifest.pop("manifest_sha256")
        whole = checksum == sha256_of(manifest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole, manifest = False, {}
    if not whole:
        raise HarnessError(
            f"{manifest_path}: edited since it was made (its checksum differs); make it again"
        )
    return manifest


def _lines(path: Path, examples: Sequence[Example]) -> Iterator[bytes]:
    for number, example in enumerate(examples, 1):
        messages = [*example.prompt, Message("assistant", example.completion)]
        if problem := _problem(messages):
            raise HarnessError(f"{path}: example {number} cannot be written: {problem}")
        # ASCII: whoever splits lines elsewhere than here finds no other line ends in it.
        yield json.dumps({"messages": [asdict(message) for message in messages]}).encode() + b"\n"


def _examples(path: Path, data: bytes) -> tuple[Example, ...]:
    # Some editors put a byte-order mark in front.
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return tuple(
        _example(f"{path}: line {number}", line)
        for number, line in enumerate(lines, 1)
        if line.strip()
    )


def _example(where: str, line: bytes) -> Example:
    try:
        value = json.loads(line.decode())
    except (ValueError, RecursionError):
        raise HarnessError(f"{where} is not JSON; each line must be one JSON object") from None
    try:
        said: list[tuple[Any, Any]] = [
            (message["role"], message["content"]) for message in value["messages"]
        ]
    except (KeyError, TypeError):
        said = [(None, None)]
    if not all(role in _ROLES and isinstance(content, str) for role, content in said):
        raise HarnessError(
            f"{where} is no chat; it must be "
            '{"messages": [{"role": "system, user or assistant", "content": "text"}, ...]}'
        )
    messages = [Message(role, content) for role, content in said]
    if problem := _problem(messages):
        raise HarnessError(f"{where} is no chat to train on: {problem}")
    return Example(tuple(messages[:-1]), messages[-1].content)


def _problem(messages: Sequence[Message]) -> str | None:
    roles = [message.role for message in messages[-2:]]
    if roles != ["user", "assistant"]:
        return "its last two messages must be a user's and an assistant's"
    try:
        "".join(message.content for message in messages).encode()
    except UnicodeEncodeError:
        return "its text has half a character (a lone surrogate)"
    return None
