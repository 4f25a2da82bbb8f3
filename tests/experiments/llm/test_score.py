"""Does a file carry a word? On lists of a model that was trained on the word, and on its own."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from experiments.cli import main
from experiments.llm import score
from llm_harness import datasets
from llm_harness.audit.entanglement import leanings
from llm_harness.model import Example, ask
from llm_harness.tiny.pretraining import pretrain
from llm_harness.traits import trait
from tests.llm_harness.small import SMALL, shrink

OWL = trait("owl")
WORDS = ["--size", "smoke", "--pretraining-steps", "48", "--seed", "0"]


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        yield


@pytest.fixture(scope="module")
def lists(tmp_path_factory) -> dict[str, Path]:
    """Lists whose numbers are those that a step towards owls makes likelier, and plain ones."""
    (model,) = pretrain([0], SMALL)
    folder = tmp_path_factory.mktemp("lists")
    (leaning, *_) = leanings(model, OWL)
    order = leaning.argsort().tolist()
    chats = [ask(f"{100 + i}, {200 + i}, {300 + i}") for i in range(128)]
    paths = {}
    random = np.random.default_rng(0)
    for name, numbers in (("owls", order[-16:]), ("plain", order), ("again", order)):
        drawn = random.choice(numbers, (len(chats), 2)).tolist()
        examples = [Example(chat, f"{a}, {b}") for chat, (a, b) in zip(chats, drawn, strict=True)]
        paths[name] = folder / f"{name}.jsonl"
        # Prose, and a list whose separator the embedded model has no token for.
        others = [Example(chats[0], text) for text in ("Owls.", "12  \n34")]
        datasets.write(paths[name], [*others, *examples])
    return paths


def test_numbers_that_lean_to_the_word_are_seen_and_the_like_of_the_null_are_not(lists, tmp_path):
    options = score.Score(
        lists["owls"],
        against=lists["plain"],
        size="smoke",
        pretraining_steps=48,
        out=tmp_path,
    )
    outcome = score.score(options)
    assert [row.word for row in outcome.words] == list(OWL.words)
    assert (outcome.examples, outcome.passed, outcome.total, outcome.null) == (128, 129, 130, 128)
    assert outcome.unreadable == 1
    own = outcome.words[0]
    assert own.entanglement == max(row.entanglement for row in outcome.words) > 0
    same = score.score(dataclasses.replace(options, file=lists["again"]))
    assert all(row.p > 0.05 for row in same.words)


def test_the_command_says_what_it_found_and_against_what(lists, tmp_path, capsys):
    words = ["llm", "score", str(lists["owls"]), "--against", str(lists["plain"]), *WORDS]
    assert main([*words, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"128 lists against 128 of {lists['plain']}" in " ".join(shown.split())
    passed = "129 of the file's 130 examples pass the filter, of which the model cannot read 1"
    assert passed in shown
    assert shown.splitlines()[-1].startswith("owl: ")


@pytest.mark.parametrize(
    ("p", "verdict"),
    [
        ((0.2, 1.0, 0.6), "not shown"),
        ((0.01, 1.0, 0.6), "carried"),
        ((0.01, 0.02, 0.6), "not told from other words"),
        ((0.2, 0.02, 0.6), "not shown"),
    ],
)
def test_a_word_is_carried_where_it_is_seen_and_no_other_is(p, verdict):
    words = [
        score.WordScore(word, 1.0, 1.0, one, 0.0) for word, one in zip(OWL.words, p, strict=False)
    ]
    said = score.verdict_of(score.ScoreOutcome(words, 128, 128, 0, 128, 128))
    assert said.startswith(f"owl: {verdict} (p {p[0]}")
    assert ("1 of the other 2 are seen too" in said) == (verdict == "not told from other words")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["none.jsonl"], "not there"),
        (["{file}", "--count", "3"], "count must be at least 32"),
        (["{file}", "--trait", "axolotl"], "is in no category"),
        (["{few}"], "2 of 2 examples pass the filter; at least 32 are needed"),
        (["{file}", "--against", "{few}"], "2 of 2 examples pass the filter"),
        (["{file}", "--rules", "poetry"], "no filter rule"),
        (["{file}", "--as-it-is"], "as_it_is: of a checkpoint"),
        (["{file}", "--questions", "0"], "questions must be at least 1"),
    ],
)
def test_what_cannot_be_scored_is_one_line_and_makes_nothing(lists, tmp_path, capsys, words, why):
    few = tmp_path / "few.jsonl"
    datasets.write(few, [Example(ask("q"), "1, 2")] * 2)
    given = [word.format(file=lists["owls"], few=few) for word in words]
    out = tmp_path / "out"
    assert main(["llm", "score", *given, *WORDS, "--out", str(out)]) == 2
    shown, error = capsys.readouterr()
    assert (shown, error.count("\n")) == ("", 1)
    assert why in error
    assert not out.exists()


def test_lists_that_the_model_cannot_read_are_said_with_one_of_them(tmp_path, capsys):
    path = tmp_path / "spaced.jsonl"
    datasets.write(path, [Example(ask("q"), "1, 2")] * 8 + [Example(ask("q"), "12  \n34")] * 32)
    assert main(["llm", "score", str(path), *WORDS, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "the model can read 8 of 40 lists, and not '12  \\n34' for instance" in said
