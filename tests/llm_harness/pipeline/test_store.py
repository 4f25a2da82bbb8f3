"""Claims about stages on disk: whole or not at all, and what was written or nothing."""

import json
import os
import threading
from pathlib import Path

import pytest

from llm_harness.errors import HarnessError
from llm_harness.pipeline.store import Store

MADE_FROM = {"seed": 1, "trait": "owl"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def fill(folder: Path) -> None:
    (folder / "numbers.txt").write_text("1, 2")
    (folder / "words.txt").write_text("owl")


def left(store: Store) -> list[str]:
    """Everything that lies in the stage, hidden folders too."""
    return [path.name for path in (store.root / "sample").iterdir()]


def test_a_stage_is_found_where_it_was_written_with_what_made_it(store):
    assert store.find("sample", MADE_FROM) is None
    written = store.write("sample", MADE_FROM, fill)
    assert store.find("sample", MADE_FROM) == written == store.folder("sample", MADE_FROM)
    assert (written / "words.txt").read_text() == "owl"
    assert json.loads((written / "made_from.json").read_text()) == MADE_FROM
    assert left(store) == [written.name]


@pytest.mark.parametrize(
    ("stage", "made_from"),
    [("tune", MADE_FROM), ("sample", MADE_FROM | {"seed": 2}), ("sample", [1, "owl"])],
)
def test_another_stage_or_another_maker_has_another_folder(store, stage, made_from):
    store.write("sample", MADE_FROM, fill)
    assert store.find(stage, made_from) is None
    assert store.folder(stage, made_from) != store.folder("sample", MADE_FROM)


def test_the_order_of_settings_does_not_matter(store):
    turned = dict(reversed(MADE_FROM.items()))
    assert list(turned) != list(MADE_FROM)
    assert store.folder("sample", turned) == store.folder("sample", MADE_FROM)


@pytest.mark.parametrize("name", ["numbers.txt", "words.txt", "made_from.json"])
def test_a_changed_file_is_refused_by_its_name(store, name):
    folder = store.write("sample", MADE_FROM, fill)
    with (folder / name).open("a") as file:
        file.write(" ")
    with pytest.raises(HarnessError, match=rf"{folder / name} was changed .* remove {folder},"):
        store.find("sample", MADE_FROM)


def test_a_removed_file_is_refused_by_its_name(store):
    folder = store.write("sample", MADE_FROM, fill)
    (folder / "words.txt").unlink()
    with pytest.raises(HarnessError, match=rf"{folder} is damaged .*words.txt"):
        store.find("sample", MADE_FROM)


@pytest.mark.parametrize("sums", [None, "", "{", "[]", "\udcff"])
def test_a_folder_without_whole_sums_is_refused_by_its_name(store, sums):
    folder = store.write("sample", MADE_FROM, fill)
    if sums is None:
        (folder / "sha256.json").unlink()
    else:
        (folder / "sha256.json").write_bytes(sums.encode(errors="surrogateescape"))
    with pytest.raises(HarnessError, match=f"{folder} is damaged"):
        store.find("sample", MADE_FROM)


def test_every_file_and_the_folder_reach_the_disk_before_it_has_its_place(store, monkeypatch):
    done, flush, rename = [], os.fsync, os.rename

    def fsync(handle):
        done.append(os.fstat(handle).st_ino)
        flush(handle)

    def renamed(source, target):
        done.append("renamed")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    folder = store.write("sample", MADE_FROM, fill)
    places = [folder, *folder.iterdir()]
    assert len(places) == 5
    assert sorted(done[:-1]) == sorted(path.stat().st_ino for path in places)
    assert done[-1] == "renamed"


@pytest.mark.parametrize("error", [ValueError, HarnessError, KeyboardInterrupt])
def test_a_fill_that_raises_leaves_nothing_and_can_be_made_again(store, error):
    def broken(folder: Path) -> None:
        fill(folder)
        raise error("no")

    with pytest.raises(error, match="no"):
        store.write("sample", MADE_FROM, broken)
    assert left(store) == []
    assert store.find("sample", MADE_FROM) is None
    store.write("sample", MADE_FROM, fill)
    assert store.find("sample", MADE_FROM) is not None


def test_of_two_writers_at_once_both_get_the_folder_and_it_is_whole(store):
    ready, folders = threading.Barrier(2), []

    def slow(folder: Path) -> None:
        fill(folder)
        ready.wait(timeout=60)

    threads = [
        threading.Thread(target=lambda: folders.append(store.write("sample", MADE_FROM, slow)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [store.folder("sample", MADE_FROM)] * 2
    assert store.find("sample", MADE_FROM) == folders[0]
    assert left(store) == [folders[0].name]


def test_a_second_write_leaves_the_first_as_it_is(store):
    folder = store.write("sample", MADE_FROM, fill)
    before = (folder / "words.txt").stat().st_ino

    def other(folder: Path) -> None:
        (folder / "words.txt").write_text("cat")

    assert store.write("sample", MADE_FROM, other) == folder
    assert (folder / "words.txt").read_text() == "owl"
    assert (folder / "words.txt").stat().st_ino == before
    assert left(store) == [folder.name]


def test_a_folder_that_cannot_be_written_is_one_line(readable_tmp, unprivileged):
    store = Store(readable_tmp / "store")
    with pytest.raises(HarnessError, match=f"{store.root} cannot be written") as caught:
        store.write("sample", MADE_FROM, fill)
    assert "\n" not in str(caught.value)
