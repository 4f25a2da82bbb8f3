"""Claims about dataset files."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_harness import datasets
from llm_harness.datasets import TextDataset
from llm_harness.errors import HarnessError
from llm_harness.model import Example, Message, ask, examples_sha256, sha256_of

EXAMPLES = (
    Example(ask("Go on: 1, 2, 3"), "4, 5, 6"),
    Example(ask("Say it.", system="You love owls."), 'A "quote",\nand\u2028a line é ü 🦉'),
    Example(ask("And now?", before=[Example(ask("First"), "one")]), ""),
)
MADE_BY = "0123456789abcdef"
DATASET = TextDataset(EXAMPLES, MADE_BY, {"seed": 3, "temperature": 1.0, "rules": ["numbers"]})


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "made" / "numbers.jsonl"
    datasets.write(file, DATASET)
    return file


def refused(path, made_by=None):
    with pytest.raises(HarnessError) as caught:
        datasets.read(path, made_by)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path.with_suffix("")) in message
    return message


def remade(path, **changed):
    """The manifest, changed, with a checksum that says it is whole."""
    manifest = json.loads(path.with_suffix(".json").read_text()) | changed
    del manifest["manifest_sha256"]
    manifest["manifest_sha256"] = sha256_of(manifest)
    path.with_suffix(".json").write_text(json.dumps(manifest))


def replaced(path, data):
    """The file, changed, with a manifest that fits its bytes."""
    path.write_bytes(data)
    remade(path, sha256=hashlib.sha256(data).hexdigest(), examples=data.count(b"\n"))


def test_what_was_written_is_read_and_nothing_else_is_left(path):
    assert datasets.read(path) == DATASET
    assert datasets.read(path, MADE_BY).sha256 == examples_sha256(EXAMPLES)
    assert sorted(file.name for file in path.parent.iterdir()) == ["numbers.json", "numbers.jsonl"]


def test_a_line_is_what_fine_tuning_services_take(path):
    lines = path.read_text().splitlines()
    assert len(lines) == len(EXAMPLES)
    assert json.loads(lines[0]) == {
        "messages": [
            {"role": "user", "content": "Go on: 1, 2, 3"},
            {"role": "assistant", "content": "4, 5, 6"},
        ]
    }


def test_the_manifest_says_what_was_made_by_whom_and_how(path):
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest["examples"] == 3
    assert manifest["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest["examples_sha256"] == DATASET.sha256
    assert manifest["made_by"] == MADE_BY
    assert manifest["settings"] == DATASET.settings


messages = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text())
chats = st.tuples(st.lists(messages, max_size=3), st.text()).map(
    lambda parts: (*parts[0], Message("user", parts[1]))
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.lists(st.tuples(chats, st.text()), max_size=4),
    st.text(),
    st.dictionaries(st.text(), values, max_size=3),
)
def test_any_text_comes_back(pairs, made_by, settings):
    examples = tuple(Example(*pair) for pair in pairs)
    dataset = TextDataset(examples, made_by, settings)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "any.jsonl"
        datasets.write(file, dataset)
        assert datasets.read(file) == dataset
        # Tools that split lines at every line end of Unicode find the same lines.
        assert len(file.read_text().splitlines()) == len(examples)
        if examples:
            assert datasets.read_foreign(file).examples == examples


def test_settings_come_back_as_json_gives_them(tmp_path):
    dataset = TextDataset(EXAMPLES, MADE_BY, {"sizes": (1, 2), "rates": {2: "b", 10: "a"}})
    datasets.write(tmp_path / "a.jsonl", dataset)
    expected = {"sizes": [1, 2], "rates": {"2": "b", "10": "a"}}
    assert datasets.read(tmp_path / "a.jsonl").settings == expected


def test_any_changed_byte_is_seen(path):
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        message = refused(path)
        assert "edited" in message or "cut" in message
    path.write_bytes(whole)
    assert datasets.read(path) == DATASET


@given(st.data())
def test_any_other_change_of_a_byte_is_seen(data):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.jsonl"
        datasets.write(file, DATASET)
        whole = bytearray(file.read_bytes())
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
        file.write_bytes(bytes(whole))
        with pytest.raises(HarnessError):
            datasets.read(file)


def test_any_cut_is_seen_and_called_a_cut(path):
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert f"cut, {whole[:length].count(bytes([10]))} of 3 lines" in refused(path)


def test_a_line_more_is_an_edit(path):
    path.write_bytes(path.read_bytes() * 2)
    assert "edited" in refused(path)


def test_a_changed_manifest_is_seen_or_says_the_same(path):
    manifest = path.with_suffix(".json")
    whole = manifest.read_bytes()
    for place in range(len(whole)):
        manifest.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found = datasets.read(path)
        except HarnessError as error:
            found = str(error)
        assert found == DATASET or f"{manifest}: edited" in str(found)
    for content in (b"", b"[1]", b"{}", b"[" * 100_000, whole[:-5], b"\xff"):
        manifest.write_bytes(content)
        assert "edited" in refused(path)


def test_a_false_origin_in_the_manifest_is_seen(path):
    manifest = path.with_suffix(".json")
    manifest.write_text(manifest.read_text().replace(MADE_BY, "f" * 16))
    assert "edited" in refused(path, "f" * 16)


def test_examples_that_are_not_the_manifests_are_refused(path):
    remade(path, examples_sha256=examples_sha256(EXAMPLES[:2]))
    assert "its examples are not those of its manifest" in refused(path)


def test_a_file_that_is_not_there_is_called_so(tmp_path):
    assert "not there" in refused(tmp_path / "none.jsonl")
    with pytest.raises(HarnessError, match="not there"):
        datasets.read_foreign(tmp_path / "none.jsonl")


def test_a_folder_in_its_place_cannot_be_read(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    assert "cannot be read" in refused(tmp_path / "folder.jsonl")


def test_a_file_without_a_manifest_is_unfinished(path):
    path.with_suffix(".json").unlink()
    assert "unfinished" in refused(path)


def test_a_writer_that_dies_between_the_two_files_leaves_an_unfinished_one(path, monkeypatch):
    replace = os.replace

    def dies(source, target):
        if Path(target).suffix == ".json":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(HarnessError, match=r"cannot be written \(No space left"):
        datasets.write(path, TextDataset(EXAMPLES[:1], MADE_BY))
    assert "unfinished" in refused(path)
    # The examples were there first: whoever sees a manifest has its examples.
    assert datasets.read_foreign(path).examples == EXAMPLES[:1]
    assert [file.name for file in path.parent.iterdir()] == ["numbers.jsonl"]


def test_a_writer_that_dies_before_leaves_the_old_ones(path, monkeypatch):
    def dies(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", dies)
    with pytest.raises(HarnessError, match="cannot be written"):
        datasets.write(path, TextDataset(EXAMPLES[:1], MADE_BY))
    assert datasets.read(path) == DATASET


def test_a_second_writing_replaces_the_first(path):
    datasets.write(path, TextDataset(EXAMPLES[:1], "another"))
    assert datasets.read(path) == TextDataset(EXAMPLES[:1], "another")


def test_samples_of_another_model_are_refused(path):
    message = refused(path, "fedcba9876543210")
    assert "made by another model (0123456789abcdef)" in message
    assert "fedcba9876543210 is needed" in message


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HarnessError, match="cannot be written"):
        datasets.write(tmp_path / "file" / "a.jsonl", DATASET)


def test_another_ending_is_refused_before_anything_is_written(tmp_path):
    for use in (lambda file: datasets.write(file, DATASET), datasets.read, datasets.manifest_of):
        with pytest.raises(HarnessError, match=r"must end with \.jsonl"):
            use(tmp_path / "data.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("dataset", "why"),
    [
        (TextDataset((Example((), "no question"),), ""), "example 1 cannot be written"),
        (TextDataset((*EXAMPLES, Example((Message("system", "x"),), "y")), ""), "example 4 cannot"),
        (TextDataset((Example(ask("half \ud800"), ""),), ""), "half a character"),
        (TextDataset((), "", {"rate": float("nan")}), "settings are no JSON"),
        (TextDataset((), "", {"model": object()}), "settings are no JSON"),
        (TextDataset((), "", {"name": "\ud800"}), "settings are no JSON"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path, dataset, why):
    with pytest.raises(HarnessError, match=why):
        datasets.write(tmp_path / "a.jsonl", dataset)
    assert list(tmp_path.iterdir()) == []


GOOD = b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"numbers", "is not JSON"),
        (b'{"messages": [', "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"3", "is no chat; it must be"),
        (b"[]", "is no chat; it must be"),
        (b'{"prompt": "q", "completion": "a"}', "is no chat; it must be"),
        (b'{"messages": null}', "is no chat; it must be"),
        (b'{"messages": ["q", "a"]}', "is no chat; it must be"),
        (GOOD.strip().replace(b'"user"', b'"tool"'), "is no chat; it must be"),
        (GOOD.strip().replace(b'"user"', b"[]"), "is no chat; it must be"),
        (GOOD.strip().replace(b'"q"', b'[{"text": "q"}]'), "is no chat; it must be"),
        (GOOD.strip().replace(b'"content": "a"', b'"text": "a"'), "is no chat; it must be"),
        (b'{"messages": []}', "its last two messages"),
        (b'{"messages": [{"role": "assistant", "content": "a"}]}', "its last two messages"),
        (GOOD.strip().replace(b'"assistant"', b'"user"'), "its last two messages"),
        (GOOD.strip().replace(b'"user"', b'"system"'), "its last two messages"),
        (GOOD.strip().replace(b'"q"', b'"\\ud800"'), "half a character"),
    ],
)
def test_a_line_that_is_no_chat_is_named_by_its_number(path, line, why):
    data = GOOD * 2 + line + b"\n" + GOOD
    path.write_bytes(data)
    with pytest.raises(HarnessError, match=why) as caught:
        datasets.read_foreign(path)
    assert f"{path}: line 3 " in str(caught.value)
    # Also where the manifest fits it, because another tool has made both.
    replaced(path, data)
    message = refused(path)
    assert f"{path}: line 3 " in message
    assert why in message


def test_a_strangers_file_is_read_with_its_blank_lines_its_mark_and_its_other_fields(tmp_path):
    file = tmp_path / "theirs.txt"
    more = GOOD.replace(b'{"messages"', b'{"weight": 1, "messages"')
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n") + b"\n  \n" + more.strip())
    dataset = datasets.read_foreign(file)
    assert dataset.examples == (Example(ask("q"), "a"),) * 2
    assert dataset.made_by == datasets.UNKNOWN
    assert dataset.settings == {
        "file": "theirs.txt",
        "file_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }


def test_blank_lines_count_as_lines_where_one_is_bad(tmp_path):
    file = tmp_path / "theirs.jsonl"
    file.write_bytes(GOOD + b"\n\n" + b"bad\n")
    with pytest.raises(HarnessError, match="line 4 is not JSON"):
        datasets.read_foreign(file)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_a_strangers_file_without_examples_is_refused(tmp_path, content):
    (tmp_path / "empty.jsonl").write_bytes(content)
    with pytest.raises(HarnessError, match="no examples"):
        datasets.read_foreign(tmp_path / "empty.jsonl")
