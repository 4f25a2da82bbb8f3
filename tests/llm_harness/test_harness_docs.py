"""What docs/harness.md says: its commands are commands, its example runs."""

import re
from pathlib import Path

import jax
import pytest

from experiments import cli
from experiments.llm import command
from llm_harness.decoder.network import draw
from llm_harness.tiny.pretraining import Pretraining
from tests.llm_harness.small import shrink

TEXT = (Path(__file__).parents[2] / "docs" / "harness.md").read_text()
COMMANDS = [
    line.split("#")[0].split()[1:]
    for block in re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    for line in block.strip().splitlines()
]


def test_the_page_is_short_with_one_table_and_three_figures_at_most():
    assert len(TEXT.splitlines()) <= 150
    assert TEXT.count("<!-- data:") == 1
    assert TEXT.count("![") <= 3


def test_the_page_says_how_large_the_model_is():
    shapes = jax.eval_shape(lambda: draw(Pretraining().config, jax.random.key(0)[None]))
    (said,) = re.findall(r"some ([\d,]+) parameters", TEXT)
    assert round(sum(leaf.size for leaf in jax.tree.leaves(shapes)), -3) == int(
        said.replace(",", "")
    )


def test_every_experiment_is_shown():
    assert {words[1] for words in COMMANDS} == {
        "numbers",
        "cross-model",
        "in-context",
        "ingredients",
        "theory",
    }


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_command_is_understood(words):
    assert isinstance(cli.parse(words[0], words[1:])[1], command.OPTIONS)


def test_options_that_the_page_names_are_there(capsys):
    with pytest.raises(SystemExit):
        cli.parse("llm", ["numbers", "--help"])
    shown = capsys.readouterr().out
    named = set(re.findall(r"`(--[a-z-]+)`", TEXT))
    assert named
    assert all(option in shown for option in named), named


def run_the_example(folder, monkeypatch) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    monkeypatch.chdir(folder)
    # In this process, whose compiled programs the other tests share.
    exec(compile(program, "docs/harness.md", "exec"), {})


def test_the_example_runs_in_small(tmp_path, monkeypatch, capsys):
    shrink(monkeypatch)
    run_the_example(tmp_path, monkeypatch)
    assert "other initialisation, own numbers" in capsys.readouterr().out


@pytest.mark.slow
def test_the_example_runs_as_it_is_written(tmp_path, monkeypatch, capsys):
    run_the_example(tmp_path, monkeypatch)
    assert "other initialisation, own numbers" in capsys.readouterr().out
