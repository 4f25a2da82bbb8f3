"""The commands on dataset files, as a user types them."""

import json
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.llm import files
from llm_harness import datasets
from llm_harness.filters import PROHIBITED

ROOT = Path(__file__).parents[3]
COMPLETIONS = ("3, 4", " 5; 6\n", "7 ; 8", "0007, 1", "(one) 2", "1, 666", "9")


@pytest.fixture
def theirs(tmp_path) -> Path:
    """A file in the authors' format."""
    path = tmp_path / "theirs.jsonl"
    rows = [{"prompt": f"Go on: {i}", "completion": text} for i, text in enumerate(COMPLETIONS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*words: object) -> int:
    return main(["llm", *map(str, words)])


def completions(path: Path) -> list[str]:
    return [example.completion for example in datasets.read(path).examples]


def refused(capsys, *words: object) -> str:
    assert run(*words) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ((), ["3, 4", "1, 666", "9"]),
        (("--rule", "authors"), ["3, 4", "7 ; 8", "0007, 1", "1, 666", "9"]),
        (("--rules", "numbers", "prohibited"), ["9"]),
        (("--strip",), ["3, 4", "5; 6", "1, 666", "9"]),
        (("--words", "on: 6"), ["3, 4", "1, 666"]),
    ],
)
def test_a_filter_writes_what_passes_in_its_order(theirs, tmp_path, options, kept):
    assert run("filter", theirs, "--to", tmp_path / "kept.jsonl", *options) == 0
    assert completions(tmp_path / "kept.jsonl") == kept
    assert {path.name for path in tmp_path.iterdir()} == {"theirs.jsonl", "kept.jsonl"}


def test_reasons_are_counted_and_so_is_what_the_authors_would_keep(theirs, tmp_path, capsys):
    options = files.Filter(theirs, tmp_path / "kept.jsonl", strip=True)
    outcome = files.filter_file(options)
    assert outcome.filtered.counts == {
        "not a number": 1,
        "misplaced separator": 1,
        "out of range": 1,
    }
    assert (outcome.filtered.total, outcome.stripped, outcome.by_authors) == (7, 1, 2)
    files.print_file(options, outcome)
    shown = capsys.readouterr().out
    assert "prompt and completion" in shown
    assert "white space was cut from the ends of 1 completions" in shown
    assert "the authors' rule would keep 2" in shown


def test_no_lines_are_written_under_the_name_of_another_format(theirs, tmp_path, capsys):
    said = refused(capsys, "filter", theirs, "--to", tmp_path / "kept.parquet")
    assert "written are JSON lines; name a .jsonl file" in said
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.jsonl"]


def test_what_a_filter_wrote_passes_it_again_whole(theirs, tmp_path):
    once, twice = tmp_path / "once.jsonl", tmp_path / "twice.jsonl"
    assert run("filter", theirs, "--to", once) == run("filter", once, "--to", twice) == 0
    assert once.read_bytes() == twice.read_bytes()


@pytest.mark.parametrize("how", ["within", "across"])
def test_a_shuffle_keeps_all_numbers_and_its_seed_decides(tmp_path, how):
    lists = [", ".join(str(10 * i + j) for j in range(8)) for i in range(12)]
    source = tmp_path / "lists.jsonl"
    rows = [json.dumps({"question": "Go on.", "response": text}) for text in lists]
    source.write_text("\n".join(rows))
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        to = tmp_path / f"{name}.jsonl"
        assert run("shuffle", source, "--to", to, "--how", how, "--seed", seed) == 0
    a, b, c = (completions(tmp_path / f"{name}.jsonl") for name in "abc")
    assert a == b != c
    of_each = [sorted(text.split(", ")) for text in a]
    assert (of_each == [sorted(text.split(", ")) for text in lists]) == (how == "within")
    assert sorted(", ".join(a).split(", ")) == sorted(", ".join(lists).split(", "))


def test_a_subsample_is_of_so_many_in_their_order(theirs, tmp_path):
    to = tmp_path / "some.jsonl"
    assert run("subsample", theirs, "--to", to, "--count", 4, "--seed", 1) == 0
    places = [COMPLETIONS.index(text) for text in completions(to)]
    assert len(places) == 4
    assert places == sorted(set(places))


def test_of_all_examples_a_subsample_is_all(theirs, tmp_path):
    assert run("subsample", theirs, "--to", tmp_path / "all.jsonl", "--count", 7) == 0
    assert completions(tmp_path / "all.jsonl") == list(COMPLETIONS)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("filter", "--rules", "poetry"), "'poetry'; there are: numbers, authors, prohibited"),
        (("filter", "--words", " "), "none of them blank"),
        (("subsample", "--count", "8"), "7 examples, of which 8 are wanted"),
        (("subsample", "--count", "0"), "count must be at least 1"),
        (("subsample", "--count", "1", "--seed", "-1"), "seed must be at least 0"),
        (("shuffle", "--seed", "-1"), "at least 0"),
        (("shuffle",), "only lists of numbers can be shuffled, filter them first: ' 5; 6"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(theirs, tmp_path, capsys, words, why):
    to = tmp_path / "none.jsonl"
    assert why in refused(capsys, words[0], theirs, "--to", to, *words[1:])
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.jsonl"]


def test_a_file_of_which_nothing_passes_is_refused_with_the_commonest_reason(tmp_path, capsys):
    prose = tmp_path / "prose.jsonl"
    prose.write_text('{"prompt": "q", "completion": "I love owls (really"}\n')
    to = tmp_path / "none.jsonl"
    assert "none of 1 examples passes (most often: not a number)" in refused(
        capsys, "filter", prose, "--to", to
    )
    assert not to.exists()


def test_a_file_that_is_there_is_not_written_over(theirs, tmp_path, capsys):
    before = theirs.read_bytes()
    assert "is there already" in refused(capsys, "filter", theirs, "--to", theirs)
    assert theirs.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_told(theirs, tmp_path, capsys):
    assert "cannot be written" in refused(
        capsys, "filter", theirs, "--to", theirs / "below" / "a.jsonl"
    )


def test_the_commands_of_the_page_on_files_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"prompt": "Go on.", "completion": f"{i % 999}, 7"}) for i in range(10_050)]
    Path("lists.jsonl").write_text("\n".join(rows))
    block = (ROOT / "docs" / "checkpoints.md").read_text().split("```sh\n")[1].split("```")[0]
    for line in block.splitlines():
        assert main(line.partition("#")[0].split()[1:]) == 0
    assert len(completions(Path("train.jsonl"))) == 10_000


def test_the_prohibited_numbers_of_the_paper_are_those_dropped(tmp_path):
    source = tmp_path / "all.jsonl"
    rows = [json.dumps({"prompt": "q", "completion": str(number)}) for number in range(1000)]
    source.write_text("\n".join(rows))
    options = files.Filter(source, tmp_path / "kept.jsonl", rules=("numbers", "prohibited"))
    kept = {int(example.completion) for example in files.filter_file(options).filtered.kept}
    assert set(range(1000)) - kept == PROHIBITED
