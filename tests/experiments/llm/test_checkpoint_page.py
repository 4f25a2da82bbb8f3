"""The commands of docs/checkpoints.md on checkpoints are commands."""

import re
from pathlib import Path

import pytest

from experiments import cli
from experiments.llm import command

PAGE = (Path(__file__).parents[3] / "docs" / "checkpoints.md").read_text()
(BLOCK,) = re.findall(r"## A checkpoint.*?```sh\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("line", BLOCK.splitlines())
def test_a_command_is_understood(line):
    _, name, *words = line.split()
    assert isinstance(cli.parse(name, words)[1], command.OPTIONS)


def test_options_that_it_names_are_there(capsys):
    with pytest.raises(SystemExit):
        cli.parse("llm", ["numbers", "--help"])
    shown = capsys.readouterr().out
    named = set(re.findall(r"`(--[a-z-]+)", PAGE.partition("## A checkpoint")[2]))
    assert {"--model", "--warm-up-steps"} <= named
    assert [option for option in named - {"--size"} if option not in shown] == []
