"""Claims about README.md: its commands are commands, its examples run, what it names is there.

Commands of `sublab` run in the test's own process, at smoke size. Those that compute for minutes
are run where they are tested, as they stand here: `verify` by tests/experiments/test_cli.py in
processes of its own, `llm` by tests/experiments/llm/test_llm.py. Those of make are slow.
"""

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from experiments import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PREFIX = ".venv/bin/sublab "


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.strip().splitlines()]
OURS = [command.removeprefix(PREFIX) for command in COMMANDS if command.startswith(PREFIX)]
MAKE = [command for command in COMMANDS if command.startswith("make ")]
HEAVY = ("verify", "llm")


def smoke(command: str, out: Path) -> list[str]:
    """The words of a command in small: fewer runs, another folder, smoke size, nothing else."""
    words = shlex.split(command)
    for flag, value in (
        ("--runs", "2"),
        ("--out", str(out)),
        ("--to", str(out / "report.html" if words[0] == "report" else out / "tables")),
    ):
        if flag in words:
            words[words.index(flag) + 1] = value
    if words[0] in ("mnist", "sweep"):
        words += ["--size", "smoke"]
    if words[0] == "results":
        words += ["--smoke"]
    return words


def test_the_readme_shows_the_two_commands_first():
    assert COMMANDS[:2] == ["make reproduce", "make test"]


@pytest.mark.parametrize("command", OURS)
def test_every_command_is_one_and_its_options_are_known(command):
    name, *arguments = shlex.split(command)
    run, options = cli.parse(name, arguments)
    assert callable(run)
    assert options is not None


def test_the_commands_run_one_after_the_other(tmp_path, capsys):
    for command in OURS:
        if not command.startswith(HEAVY):
            assert cli.main(smoke(command, tmp_path)) == 0, command
    assert "to train: " in capsys.readouterr().out
    figures = {path.name.split("_smoke")[0] for path in (tmp_path / "figures").glob("*.png")}
    papers = {name for name in figures if name.startswith("paper_")}
    assert len(papers) == 5
    assert figures - papers == {"fig10b", "sweep_ed2b"}
    assert (tmp_path / "report.html").exists()
    # The table of `sublab mnist` as the README shows it; the other is another experiment.
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"fig10b.csv", "fig10b.json"}


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """This Python's own environment, which make takes for one that is set up."""
    folder = tmp_path / "venv"
    folder.mkdir()
    for path in Path(sys.prefix).iterdir():
        if not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    for stamp in (".core", ".dev"):
        (folder / stamp).write_text("")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", MAKE)
def test_make_runs(command, venv, tmp_path):
    small = {
        "reproduce": ["RUNS=1", "INSTANCES=60", "DATASET=digits", f"OUT={tmp_path / 'results'}"],
        "test": ["TESTS=tests/sublab/test_devices.py"],
        "check": [],
        "bench": [
            "BENCH=--models 2 --epochs 1 --images 2048",
            "BENCH_SWEEP=--runs 2 --epochs 1 --images 2048 --dataset digits",
            "BENCH_MEMORY=--images 2048 4096",
            "BENCH_TIMES=--runs 1 --size smoke",
            # PyTorch is gigabytes; tests/benchmarks has what does not need it.
            "PEERS=",
        ],
    }
    words = [*command.split(), f"VENV={venv}", *small[command.split()[1]]]
    made = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, (words, made.stdout[-2000:], made.stderr[-2000:])
    if "reproduce" in command:
        figures = [path.name for path in (tmp_path / "results" / "figures").glob("*.png")]
        assert sum(name.startswith("verify_") for name in figures) == 4
        assert any(name.startswith("fig10b_") for name in figures)


def test_every_target_of_make_that_the_readme_names_is_one():
    named = set(re.findall(r"`make ([\w-]+)", README)) | {command.split()[1] for command in MAKE}
    wanted = {"reproduce", "report", "test", "test-slow", "test-newest", "check", "docs", "bench"}
    assert wanted <= named
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([\w-]+):", makefile, flags=re.MULTILINE))
    assert named <= targets


def test_every_command_that_there_is_stands_in_the_table():
    shown = set(re.findall(r"^\| `sublab (\w+)` \|", README, flags=re.MULTILINE))
    # `make reproduce` is `sublab reproduce`.
    assert shown == cli.COMMANDS.keys() - {"reproduce"}


def test_install_command_names_an_extra_that_exists():
    (command,) = [c for c in COMMANDS if "pip install" in c]
    (extra,) = re.findall(r"\.\[(\w+)\]", command)
    assert extra in (distribution("subliminal-lab").metadata.get_all("Provides-Extra") or [])


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "accuracy"), (1, "True")], ids=["sweep", "theory"]
)
def test_python_example_runs(tmp_path, capsys, monkeypatch, number, shown):
    program = blocks("python")[number]
    assert len([line for line in program.splitlines() if line.strip()]) <= 15
    monkeypatch.chdir(tmp_path)
    if "jax_enable_x64" not in program:
        exec(compile(program, "README.md", "exec"), {})
        assert shown in capsys.readouterr().out
        return
    # The types of the whole process: not those of the tests.
    words = [sys.executable, "-W", "error", "-c", program]
    made = subprocess.run(
        words,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown in made.stdout
    # What the comment in the example says: positive, and certified where rho is below 1.
    gains, rhos = (
        [float(number) for number in group.split()]
        for group in re.findall(r"\[([^\]]*)\]", made.stdout)
    )
    assert all(gain > 0 for gain in gains)
    assert any(0 < rho < 1 for rho in rhos)
