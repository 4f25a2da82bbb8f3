"""The commands of docs/checkpoints.md on checkpoints are commands."""

import re
from pathlib import Path

import pytest

from experiments import cli
from experiments.llm import command

PAGE = (Path(__file__).parents[3] / "docs" / "checkpoints.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]


@pytest.mark.parametrize("line", LINES)
def test_a_command_is_understood(line):
    _, name, *words = line.partition("#")[0].split()
    assert isinstance(cli.parse(name, words)[1], command.OPTIONS)


def test_options_that_it_names_are_there(capsys):
    with pytest.raises(SystemExit):
        cli.parse("llm", ["numbers", "--help"])
    shown = capsys.readouterr().out
    section = PAGE.partition("## A checkpoint")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(--[a-z-]+)", section))
    assert {"--model", "--warm-up-steps"} <= named
    assert [option for option in named - {"--size"} if option not in shown] == []
