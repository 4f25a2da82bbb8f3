"""Claims about dataset files."""

import json
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_harness import datasets
from llm_harness.datasets import DatasetFile
from llm_harness.errors import HarnessError
from llm_harness.model import Example, Message, ask

EXAMPLES = (
    Example(ask("Go on: 1, 2, 3"), "4, 5, 6"),
    Example(ask("Say it.", system="You love owls."), 'A "quote",\nand\u2028a line é ü 🦉'),
    Example(ask("And now?", before=[Example(ask("First"), "one")]), ""),
)


def refused(path: Path) -> str:
    with pytest.raises(HarnessError) as caught:
        datasets.read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_what_was_written_is_read(tmp_path):
    datasets.write(tmp_path / "numbers.jsonl", EXAMPLES)
    assert datasets.read(tmp_path / "numbers.jsonl") == DatasetFile(EXAMPLES, ("messages",), 0)


def test_a_line_is_what_fine_tuning_services_take(tmp_path):
    path = tmp_path / "numbers.jsonl"
    datasets.write(path, EXAMPLES)
    lines = path.read_text().splitlines()
    assert len(lines) == len(EXAMPLES)
    assert json.loads(lines[0]) == {
        "messages": [
            {"role": "user", "content": "Go on: 1, 2, 3"},
            {"role": "assistant", "content": "4, 5, 6"},
        ]
    }


messages = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text())
chats = st.tuples(st.lists(messages, max_size=3), st.text()).map(
    lambda parts: (*parts[0], Message("user", parts[1]))
)


@given(st.lists(st.tuples(chats, st.text()), min_size=1, max_size=4))
def test_any_text_comes_back(pairs):
    examples = tuple(Example(*pair) for pair in pairs)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "any.jsonl"
        datasets.write(file, examples)
        assert datasets.read(file).examples == examples
        # Tools that split lines at every line end of Unicode find the same lines.
        assert len(file.read_text().splitlines()) == len(examples)


def test_a_second_writing_replaces_the_first(tmp_path):
    for examples in (EXAMPLES, EXAMPLES[:1]):
        datasets.write(tmp_path / "a.jsonl", examples)
    assert datasets.read(tmp_path / "a.jsonl").examples == EXAMPLES[:1]


@pytest.mark.parametrize(
    ("examples", "why"),
    [
        ((Example((), "no question"),), "example 1 cannot be written"),
        ((*EXAMPLES, Example((Message("system", "x"),), "y")), "example 4 cannot"),
        ((Example(ask("half \ud800"), ""),), "half a character"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path, examples, why):
    with pytest.raises(HarnessError, match=why):
        datasets.write(tmp_path / "a.jsonl", examples)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_is_called_so(tmp_path):
    assert "not there" in refused(tmp_path / "none.jsonl")


def test_a_folder_in_its_place_cannot_be_read(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    assert "cannot be read" in refused(tmp_path / "folder.jsonl")


GOOD = b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"numbers", "is not JSON"),
        (b'{"messages": [', "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"3", "is in no known format (no object)"),
        (b"[]", "is in no known format (no object)"),
        (
            b'{"text": "q", "label": "a"}',
            "format (it has 'text', 'label'); known are: messages; prompt",
        ),
        (
            b'{"prompt": "q", "completion": 3}',
            "has a completion of type int; it must be a text, or messages",
        ),
        (
            b'{"prompt": null, "completion": "a"}',
            "has a prompt that is null; it must be a text, or messages",
        ),
        (b'{"prompt": [], "completion": "a"}', "its last two messages"),
        (b'{"messages": null}', "is no chat; it must be"),
        (b'{"messages": ["q", "a"]}', "is no chat; it must be"),
        (GOOD.strip().replace(b'"user"', b'"narrator"'), "is no chat; it must be"),
        (GOOD.strip().replace(b'"user"', b"[]"), "is no chat; it must be"),
        (GOOD.strip().replace(b'"q"', b'[{"text": "q"}]'), "a part of type None; only text"),
        (GOOD.strip().replace(b'"q"', b'[{"type": "image_url"}]'), "a part of type 'image_url'"),
        (GOOD.strip().replace(b'"content": "a"', b'"text": "a"'), "is no chat; it must be"),
        (b'{"messages": []}', "is no chat; it must be"),
        (b'{"messages": [{"role": "assistant", "content": "a"}]}', "its last two messages"),
        (GOOD.strip().replace(b'"assistant"', b'"user"'), "its last two messages"),
        (GOOD.strip().replace(b'"user"', b'"system"'), "its last two messages"),
        (GOOD.strip().replace(b'"q"', b'"\\ud800"'), "half a character"),
    ],
)
def test_a_line_that_is_no_chat_is_named_by_its_number(tmp_path, line, why):
    path = tmp_path / "theirs.jsonl"
    path.write_bytes(GOOD * 2 + line + b"\n" + GOOD)
    message = refused(path)
    assert f"{path}: line 3 " in message
    assert why in message


def test_a_strangers_file_is_read_with_its_blank_lines_its_mark_and_its_other_fields(tmp_path):
    file = tmp_path / "theirs.txt"
    more = GOOD.replace(b'{"messages"', b'{"weight": 1, "messages"')
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n") + b"\n  \n" + more.strip())
    assert datasets.read(file).examples == (Example(ask("q"), "a"),) * 2


ASKED = (Example(ask("q"), "a"),)


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"prompt": "q", "completion": "a"}, ("prompt", "completion")),
        ({"question": "q", "response": "a", "id": 3}, ("question", "response")),
        (
            {
                "prompt": [{"role": "user", "content": "q"}],
                "completion": [{"role": "assistant", "content": "a"}],
            },
            ("prompt", "completion"),
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "q"}]},
                    {
                        "role": "assistant",
                        "content": [{"type": "text", "text": "a"}],
                        "weight": 1,
                    },
                ]
            },
            ("messages",),
        ),
    ],
)
def test_the_formats_of_others_are_read_from_json_lines_and_parquet(tmp_path, row, form):
    (tmp_path / "theirs.jsonl").write_text(json.dumps(row) + "\n")
    pl.DataFrame([row]).write_parquet(tmp_path / "theirs.parquet")
    for name in ("theirs.jsonl", "theirs.parquet"):
        assert datasets.read(tmp_path / name) == DatasetFile(ASKED, form, 0)


def test_a_developer_s_message_is_a_system_s_and_a_tool_s_stays_one(tmp_path):
    said = [("developer", "s"), ("user", "q"), ("assistant", "call"), ("tool", "3")]
    said += [("assistant", "a")]
    messages = [{"role": role, "content": text} for role, text in said]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": messages}))
    (example,) = datasets.read(tmp_path / "a.jsonl").examples
    assert [message.role for message in example.prompt] == ["system", "user", "assistant", "tool"]
    assert example.completion == "a"
    datasets.write(tmp_path / "b.jsonl", [example])
    assert datasets.read(tmp_path / "b.jsonl").examples == (example,)


def test_an_earlier_answer_is_written_as_one_that_no_service_trains_on(tmp_path):
    chat = (Message("user", "q"), Message("assistant", "a"), Message("user", "and?"))
    examples = (Example(chat, "b"), Example(ask("q"), "a"))
    datasets.write(tmp_path / "a.jsonl", examples)
    rows = [
        json.loads(line)["messages"] for line in (tmp_path / "a.jsonl").read_text().splitlines()
    ]
    assert [[row.get("weight") for row in row_of] for row_of in rows] == [
        [None, 0, None, None],
        [None, None],
    ]
    assert datasets.read(tmp_path / "a.jsonl").examples == examples


@pytest.mark.parametrize("weight", [0.5, -1, "1"])
def test_a_weight_that_no_service_knows_is_refused(tmp_path, weight):
    messages = [{"role": "user", "content": "q"}]
    messages += [{"role": "assistant", "content": "a", "weight": weight}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": messages}))
    assert f"line 1 has a weight of {weight}; it must be 0 or 1" in refused(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("said", "kind"), [(None, "that is null"), (3, "of type int"), ({}, "of type dict")]
)
def test_a_completion_that_is_no_text_is_called_so(tmp_path, said, kind):
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "q", "completion": said}))
    message = f"line 1 has a completion {kind}; it must be a text, or messages"
    assert message in refused(tmp_path / "a.jsonl")


def test_an_answer_of_weight_0_is_left_out_and_counted(tmp_path):
    unlearnt = GOOD.replace(b'"content": "a"', b'"content": "b", "weight": 0')
    (tmp_path / "a.jsonl").write_bytes(GOOD + unlearnt + GOOD)
    assert datasets.read(tmp_path / "a.jsonl") == DatasetFile(ASKED * 2, ("messages",), 1)


def test_what_is_no_parquet_is_called_so(tmp_path):
    (tmp_path / "a.parquet").write_bytes(GOOD)
    assert "is no Parquet file" in refused(tmp_path / "a.parquet")


def test_a_row_of_a_parquet_file_is_named_by_its_number(tmp_path):
    rows = [{"prompt": "q", "completion": text} for text in ("a", None)]
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    assert "row 2" in refused(tmp_path / "a.parquet")


def test_blank_lines_count_as_lines_where_one_is_bad(tmp_path):
    file = tmp_path / "theirs.jsonl"
    file.write_bytes(GOOD + b"\n\n" + b"bad\n")
    assert "line 4 is not JSON" in refused(file)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_a_file_without_examples_is_refused(tmp_path, content):
    (tmp_path / "empty.jsonl").write_bytes(content)
    assert "no examples" in refused(tmp_path / "empty.jsonl")
