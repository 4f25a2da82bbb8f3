"""Claims about the command line: exit status, one line for bad input, nothing half-written."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, is_dataclass, replace
from importlib import import_module
from pathlib import Path

import polars as pl
import pytest

from experiments import cli, draw
from experiments.sweep import command as sweep_command
from experiments.sweep import run as sweep
from experiments.sweep import store
from sublab import records

SUBLAB = [sys.executable, "-m", "experiments.cli"]
# The smallest experiment, as `sublab mnist` takes it.
SMOKE = ["--size", "smoke"]
HEAVY = ("jax", "jaxlib", "tyro", "polars", "matplotlib", "numpy", "rich", "scipy", "pooch")


def sublab(capfd, *arguments) -> tuple[int, str, str]:
    status = cli.main([str(argument) for argument in arguments])
    said = capfd.readouterr()
    return status, said.out, said.err


def assert_one_line(err: str, *parts: str) -> None:
    assert err.count("\n") == 1, err
    assert err.startswith("sublab: ")
    assert "Traceback" not in err
    for part in parts:
        assert part in err


def test_a_good_command_prints_a_table_and_its_figures_and_ends_with_0(capfd, tmp_path):
    status, out, err = sublab(capfd, "mnist", *SMOKE, "--runs", 2, "--out", tmp_path / "r")
    assert status == 0
    for word in ("condition", "mean", "95 % interval", "std", "student, auxiliary logits"):
        assert word in out
    assert "scikit-learn digits" in out
    assert "100 %" in err
    drawn = [Path(line.split(": ")[1]) for line in out.splitlines() if line.startswith("figure: ")]
    assert len(drawn) == 3
    assert all(path.stat().st_size > 1000 for path in drawn)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--runs", "-3"], ["runs must be at least 1, got -3"]),
        (["--runs", "0"], ["runs must be at least 1, got 0"]),
        (["--runs", "many"], ["--runs", "many"]),
        (["--set", "model.aux=0"], ["model.aux = 0 is not allowed", "from 1 to 10,000"]),
        (["--set", "model.aux=1"], ["a softmax over one logit is constant"]),
        (["--set", "dataset=cifar"], ["cifar", "mnist", "digits"]),
        (["--set", "student.loss=hinge"], ["hinge", "kl", "squared_error"]),
        (["--set", "student.learning_rate=nan"], ["student.learning_rate", "above 0"]),
        (["--set", "student.learning_rate=-1"], ["student.learning_rate", "above 0"]),
        (["--set", "teacher.epochs=1000000000"], ["teacher.epochs", "to 100,000"]),
        (["--set", "model.hidden=[1073741824]"], ["model.hidden", "to 65,536"]),
        (["--set", "aux=3"], ["aux is called model.aux now"]),
        (["--set", "model.aux"], ["write key=value"]),
        (["--seed", "-1"], ["seed must be from 0"]),
        (["--group", "0"], ["group must be at least 1"]),
        (["--memory", "0"], ["memory must be above 0"]),
        (["--data-dir", "absent"], ["absent", "is not a folder"]),
        (["--colour", "red"], ["--colour"]),
    ],
)
def test_a_bad_argument_is_one_line_and_status_2(capfd, tmp_path, arguments, parts):
    out = tmp_path / "r"
    size = [] if "--data-dir" in arguments else SMOKE
    status, printed, err = sublab(capfd, "mnist", *size, "--out", out, *arguments)
    assert (status, printed) == (2, "")
    assert_one_line(err, *parts)
    assert not out.exists() or list(out.iterdir()) == []


def test_an_argument_of_a_subcommand_has_the_name_that_a_user_knows(capfd):
    status, _, err = sublab(capfd, "llm", "fetch", "other")
    assert status == 2
    assert_one_line(err, "invalid choice 'other' for argument 'model'")


@pytest.mark.parametrize("arguments", [[], ["paint"], ["--colour"]])
def test_a_missing_or_unknown_command_is_one_line_and_status_2(capfd, arguments):
    status, _, err = sublab(capfd, *arguments)
    assert status == 2
    assert_one_line(err, "mnist", "reproduce", "figures", "verify", "sweep", "llm", "results")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [(["swep"], "sweep"), (["llm", "nubmers"], "numbers"), (["mnist", "--rnus", "3"], "--runs")],
)
def test_a_mistyped_command_subcommand_or_option_is_told_the_nearest(capfd, arguments, meant):
    status, _, err = sublab(capfd, *arguments)
    assert status == 2
    assert_one_line(err, meant, "you mean")


def test_a_file_where_the_folder_should_be_is_one_line_and_status_2(capfd, tmp_path):
    (tmp_path / "file").write_text("mine")
    status, _, err = sublab(capfd, "mnist", *SMOKE, "--out", tmp_path / "file")
    assert status == 2
    assert_one_line(err, str(tmp_path / "file"), "must be a folder")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_read_only_folder_is_one_line_and_status_2(capfd, readable_tmp, unprivileged):
    status, _, err = sublab(capfd, "mnist", *SMOKE, "--out", readable_tmp)
    assert status == 2
    assert_one_line(err, str(readable_tmp), "cannot be written")
    assert list(readable_tmp.iterdir()) == []


def test_damaged_data_is_one_line_and_status_2(capfd, tmp_path):
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b damaged")
    status, _, err = sublab(capfd, "mnist", "--data-dir", folder.parent, "--out", tmp_path / "r")
    assert status == 2
    assert_one_line(err, str(folder), "missing train-labels-idx1-ubyte")


def test_figures_from_a_damaged_record_are_one_line_and_status_2(capfd, tmp_path):
    out = tmp_path / "r"
    sublab(capfd, "mnist", *SMOKE, "--runs", 2, "--out", out)
    before = {path: path.read_bytes() for path in (out / "figures").iterdir()}
    assert sublab(capfd, "figures", "--out", out)[0] == 0
    assert {path: path.read_bytes() for path in (out / "figures").iterdir()} == before
    record = records.read_all(out, sweep.RUNS)[0]
    (record.folder / "config.json").write_text("{}")
    status, printed, err = sublab(capfd, "figures", "--out", out)
    assert (status, printed) == (2, "")
    assert_one_line(err, str(record.folder), "damaged record")
    assert {path: path.read_bytes() for path in (out / "figures").iterdir()} == before


def test_figures_from_nothing_are_one_line_and_status_2(capfd, tmp_path):
    status, _, err = sublab(capfd, "figures", "--out", tmp_path)
    assert status == 2
    assert_one_line(err, "no records")


def test_a_failed_verdict_is_status_1_and_a_held_one_0(capfd, tmp_path, monkeypatch):
    # Figures take seconds, and are the same matter everywhere.
    monkeypatch.setattr(sweep_command, "draw", lambda drawable: [])
    status, _, _ = sublab(capfd, "mnist", *SMOKE, "--runs", 2, "--out", tmp_path)
    assert status == 0
    run = sweep.run
    for agrees, expected in ((False, 1), (True, 0), (None, 0)):

        def judged(options, agrees=agrees):
            outcome = run(options)
            assert outcome.summary is not None
            compared = {"equal": True, "difference": 0.4, "allowed": 0.1, "agrees": agrees}
            rows = [row | compared for row in outcome.summary.config["published"]]
            config = outcome.summary.config | {"published": rows}
            return replace(outcome, summary=replace(outcome.summary, config=config))

        monkeypatch.setattr(sweep, "run", judged)
        status, out, _ = sublab(capfd, "mnist", *SMOKE, "--runs", 2, "--out", tmp_path)
        assert status == expected
        assert ("DIFFERS" in out) == (agrees is False)
        assert (" agrees " in out) == (agrees is True)


# --- the table of commands ---------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], [], ["swep"]])
def test_help_version_and_a_wrong_command_import_nothing_heavy(arguments):
    program = (
        f"import sys; from experiments import cli; cli.main({arguments})\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert process.stdout.splitlines()[-1] == "[]"


def test_help_has_every_command_with_its_line(capfd):
    status, out, _ = sublab(capfd, "--help")
    assert status == 0
    for name, command in cli.COMMANDS.items():
        assert f"  {name}" in out
        assert command.help in out
    assert sublab(capfd, "--version")[:2] == (0, "sublab 0.1.0\n")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_where_the_table_says_and_prints_its_options(capfd, name):
    command = cli.COMMANDS[name]
    module = import_module(command.module)
    assert callable(getattr(module, command.main))
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert not stop.value.code
    printed = capfd.readouterr().out
    assert f"usage: sublab {name}" in printed
    if is_dataclass(getattr(module, command.options)) and name not in ("llm", "results"):
        assert "--out" in printed


@dataclass(frozen=True)
class Painting:
    """A command of the tests."""

    colour: str = "red"
    """What to paint with."""


def test_a_line_of_the_table_is_all_that_a_new_command_takes(capfd, monkeypatch):
    seen = []
    module = type(sys)("painting")
    module.OPTIONS = Painting  # pyright: ignore[reportAttributeAccessIssue]
    module.main = lambda options: seen.append(options) or 1  # pyright: ignore
    monkeypatch.setitem(sys.modules, "painting", module)
    monkeypatch.setitem(cli.COMMANDS, "paint", cli.Command("paints", "painting"))
    assert sublab(capfd, "paint", "--colour", "blue") == (1, "", "")
    assert seen == [Painting("blue")]


def test_every_kind_of_record_that_is_drawn_has_a_function_that_draws_it():
    for kind, module in draw.DRAWN_BY.items():
        assert callable(import_module(module).DRAW[kind])


# --- the environment ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value"),
    [("JAX_PLATFORMS", "nonsense"), ("JAX_ENABLE_X64", "maybe")],
)
def test_a_bad_environment_is_one_line_and_status_2(tmp_path, variable, value):
    process = subprocess.run(
        [*SUBLAB, "mnist", *SMOKE, "--out", str(tmp_path)],
        env=os.environ | {variable: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout) == (2, "")
    assert_one_line(process.stderr, variable, value)
    assert list(tmp_path.iterdir()) == []


SMALL_LLM = "--pretraining-steps 48 --lists 256 --kept 16 --student-steps 4 --answers 1 --runs 2"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["mnist", *SMOKE, "--runs", "2"],
        ["verify", "--instances", "60"],
        ["llm", "numbers", *SMALL_LLM.split()],
    ],
    ids=lambda words: words[0],
)
def test_the_environment_changes_no_number_of_a_record(tmp_path, words):
    theirs = {"JAX_ENABLE_X64": "1", "JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_RANDOM_SEED_OFFSET": "3"}
    theirs |= {"JAX_THREEFRY_PARTITIONABLE": "0", "JAX_NUMPY_DTYPE_PROMOTION": "strict"}
    for name, environment in (("plain", {}), ("other", theirs)):
        process = subprocess.run(
            [*SUBLAB, *words, "--out", str(tmp_path / name)],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        # In small, a language model transmits nothing, and the command says so with 1.
        assert process.returncode in ((0, 1) if words[0] == "llm" else (0,)), process.stderr
    plain, other = (records.scan(tmp_path / name).collect() for name in ("plain", "other"))
    assert plain.equals(other)
    if words[0] == "verify":
        assert len(list((tmp_path / "plain" / "figures").glob("*.png"))) == 4


def test_a_notebooks_backend_for_figures_does_not_matter(tmp_path):
    """As a notebook exports it to the commands that are started from there."""
    backend = "module://a_backend_that_is_not_installed_here"
    process = subprocess.run(
        [*SUBLAB, "figures", "--out", str(tmp_path)],
        env=os.environ | {"MPLBACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert_one_line(process.stderr, "no records")
    program = (
        "import os; from experiments import cli; cli.main([]); from figures import style\n"
        "import matplotlib; print(matplotlib.get_backend().lower())"
    )
    process = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"MPLBACKEND": backend},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout == "agg\n"


def test_an_interrupt_says_how_to_go_on(capfd, tmp_path, monkeypatch):
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "run", interrupted)
    status, _, err = sublab(capfd, "mnist", *SMOKE, "--out", tmp_path)
    assert status == 130
    assert_one_line(err, "the same command goes on")


def rows(out: Path) -> pl.DataFrame:
    """All numbers below `out`, in an order of their own."""
    table = records.scan(out).collect()
    keep = [name for name in table.columns if name not in ("record", "pixels")]
    return table.select(keep).sort(pl.all())


@pytest.mark.slow
def test_kill_9_at_any_moment_then_the_same_command_gives_the_same_table(tmp_path):
    """Killed while starting, while training, and right after each record appears."""
    command = [*SUBLAB, "mnist", *SMOKE, "--set", "student.inputs.count=8192"]
    command += ["--runs", "6", "--group", "2"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run([*command, "--out", str(whole)], check=True, capture_output=True)
    stamps: dict[Path, int] = {}
    for records_wanted, delay in ((0, 1.0), (1, 0.0), (1, 1.0), (2, 0.05)):
        process = subprocess.Popen(
            [*command, "--out", str(broken)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 120
        while len(done(broken)) < records_wanted and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.01)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        for folder in done(broken):
            assert records.read(folder)
            stamps.setdefault(folder, (folder / "table.parquet").stat().st_mtime_ns)
    assert len(stamps) >= 2
    last = subprocess.run(
        [*command, "--out", str(broken)], check=True, capture_output=True, text=True
    )
    assert "recorded" in last.stderr
    for folder, stamp in stamps.items():
        assert (folder / "table.parquet").stat().st_mtime_ns == stamp
    assert rows(broken).equals(rows(whole))


def done(out: Path) -> list[Path]:
    return [path for path in (out / store.STUDENTS).glob("*") if not path.name.startswith(".")]
