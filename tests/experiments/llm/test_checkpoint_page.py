"""The commands of docs/checkpoints.md on checkpoints are commands."""

import re
from pathlib import Path

import pytest

from experiments import cli
from experiments.llm import command

PAGE = (Path(__file__).parents[3] / "docs" / "checkpoints.md").read_text()
# The commands on hosted models are run, in test_transmit.
OURS = PAGE.partition("## A hosted model")[0]
BLOCKS = re.findall(r"```sh\n(.*?)```", OURS, flags=re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]


@pytest.mark.parametrize("line", LINES)
def test_a_command_is_understood(line):
    _, name, *words = line.partition("#")[0].split()
    assert isinstance(cli.parse(name, words)[1], command.OPTIONS)


@pytest.mark.parametrize(
    ("name", "section", "expected", "others"),
    [
        ("numbers", "A checkpoint", {"--model", "--warm-up-steps"}, {"--size"}),
        ("transmit", "A hosted model", {"--through", "--judge"}, {"--model-role"}),
    ],
)
def test_options_that_it_names_are_there(capsys, name, section, expected, others):
    with pytest.raises(SystemExit):
        cli.parse("llm", [name, "--help"])
    shown = capsys.readouterr().out
    text = PAGE.partition(f"## {section}")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(--[a-z-]+)", text))
    assert expected <= named
    assert [option for option in named - others if option not in shown] == []
