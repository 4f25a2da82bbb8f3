"""Dataset files: ours, which fine-tuning services and TRL take, and those of others.

Ours are JSON lines of chats, the last message the answer; earlier ones of the assistant have weight
0, so that a service trains on the last one alone:

    {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}

Of others, JSON lines and Parquet are read, in any of the `FORMS`. Whether a stage's file is still
what was written is for the store to see (`pipeline.store`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm_harness.errors import HarnessError
from llm_harness.model import Example, Message, Role
from sublab.files import write_whole

# Keys that a row is known by: chats; prompt and answer, each a text or messages; texts.
FORMS = (("messages",), ("prompt", "completion"), ("question", "response"))
# A developer's messages are what others call a system's.
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_SHAPE = (
    '{"messages": [{"role": "system, developer, user, tool or assistant", "content": "text"}, ...]}'
)


@dataclass(frozen=True)
class DatasetFile:
    """What a file has in it.

    Attributes:
        examples: in their order.
        form: the keys that its first row was known by.
        left_out: rows whose answer has `weight` 0, which no service trains on.
    """

    examples: tuple[Example, ...]
    form: tuple[str, ...]
    left_out: int


def write(path: Path, examples: Sequence[Example]) -> None:
    """Writes examples, in their order, whole or not at all; what was there is replaced.

    Raises:
        HarnessError: an example could not be read back, and nothing is written.
        OSError: the file cannot be written.
    """
    write_whole(path, b"".join(_lines(path, examples)))


def read(path: Path) -> DatasetFile:
    """The examples in a file, ours or anybody's.

    Rows are chats (`messages`), the authors' `prompt` and `completion` (texts, or messages as TRL
    has them), or `question` and `response`; other keys are skipped, as are blank lines. A content
    may be a list of parts of type `text`. Of a chat the last message is learned, whatever answers
    stand before it and whatever their weight.

    Args:
        path: of JSON lines, or of Parquet where its name ends with .parquet.

    Raises:
        HarnessError: the file is not there, has no examples, or a row is none of these; the message
            has its number.
    """
    rows = _parquet(path) if path.suffix == ".parquet" else _json_lines(path)
    examples, form, left_out = [], (), 0
    for where, row in rows:
        keys, messages = _messages(where, row)
        form = form or keys
        if messages[-1][1] == 0:
            left_out += 1
            continue
        chat = [message for message, _ in messages]
        if problem := _problem(chat):
            raise HarnessError(f"{where} is no chat to train on: {problem}")
        examples.append(Example(tuple(chat[:-1]), chat[-1].content))
    if not examples:
        raise HarnessError(f"{path}: there are no examples in it")
    return DatasetFile(tuple(examples), form, left_out)


def _lines(path: Path, examples: Sequence[Example]) -> Iterator[bytes]:
    for number, example in enumerate(examples, 1):
        messages = [*example.prompt, Message("assistant", example.completion)]
        if problem := _problem(messages):
            raise HarnessError(f"{path}: example {number} cannot be written: {problem}")
        # ASCII: whoever splits lines elsewhere than here finds no other line ends in it.
        rows = [asdict(message) for message in messages]
        for row in rows[:-1]:
            if row["role"] == "assistant":
                row["weight"] = 0
        yield json.dumps({"messages": rows}).encode() + b"\n"


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    # Some editors put a byte-order mark in front.
    data = _bytes(path).removeprefix(b"\xef\xbb\xbf")
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            where = f"{path}: line {number}"
            try:
                yield where, json.loads(line.decode())
            except (ValueError, RecursionError):
                raise HarnessError(
                    f"{where} is not JSON; each line must be one JSON object"
                ) from None


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import polars as pl

    data = _bytes(path)
    try:
        table = pl.read_parquet(data)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise HarnessError(f"{path}: is no Parquet file ({reason})") from None
    for number, row in enumerate(table.iter_rows(named=True), 1):
        yield f"{path}: row {number}", row


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise HarnessError(f"{path}: not there; make it first, or name another file") from None
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror})") from None


def _messages(where: str, row: Any) -> tuple[tuple[str, ...], list[tuple[Message, Any]]]:
    """The keys that a row is known by, and its messages, each with its weight."""
    known = [keys for keys in FORMS if isinstance(row, Mapping) and all(key in row for key in keys)]
    if not known:
        found = f"it has {', '.join(map(repr, row))}" if isinstance(row, Mapping) else "no object"
        forms = "; ".join(" and ".join(keys) for keys in FORMS)
        raise HarnessError(f"{where} is in no known format ({found}); known are: {forms}")
    keys = known[0]
    if keys == ("messages",):
        parts = row["messages"]
    else:
        parts = []
        for key, role in zip(keys, ("user", "assistant"), strict=True):
            said = row[key]
            if not isinstance(said, str | list):
                kind = "that is null" if said is None else f"of type {type(said).__name__}"
                raise HarnessError(f"{where} has a {key} {kind}; it must be a text, or messages")
            parts += said if isinstance(said, list) else [{"role": role, "content": said}]
    if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
        raise HarnessError(f"{where} is no chat; it must be {_SHAPE}")
    return keys, [_message(where, part) for part in parts]


def _message(where: str, part: Any) -> tuple[Message, Any]:
    if isinstance(part, Mapping):
        role, content = part.get("role"), part.get("content")
        if isinstance(content, Sequence) and not isinstance(content, str):
            content = _joined(where, content)
        if isinstance(role, str) and role in _ROLES and isinstance(content, str):
            weight = part.get("weight")
            if weight not in (None, 0, 1):
                raise HarnessError(f"{where} has a weight of {weight}; it must be 0 or 1")
            return Message(_ROLES[role], content), weight
    raise HarnessError(f"{where} is no chat; it must be {_SHAPE}")


def _joined(where: str, parts: Sequence[Any]) -> str:
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise HarnessError(f"{where} has a part of type {kind!r}; only text can be read")
        texts.append(part["text"])
    return "".join(texts)


def _problem(messages: Sequence[Message]) -> str | None:
    roles = [message.role for message in messages]
    if len(roles) < 2 or roles[-1] != "assistant" or roles[-2] not in ("user", "tool"):
        return "its last two messages must be a user's and an assistant's"
    try:
        "".join(message.content for message in messages).encode()
    except UnicodeEncodeError:
        return "its text has half a character (a lone surrogate)"
    return None
