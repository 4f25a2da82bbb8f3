"""Claims about the command line: exit status, one line for bad input, nothing half-written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from experiments import cli, mnist
from sublab import records

SUBLAB = [sys.executable, "-m", "experiments.cli"]
SMOKE = [
    "--dataset",
    "digits",
    "--noise-images",
    "1024",
    "--student-epochs",
    "1",
    "--teacher-epochs",
    "1",
]


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
    for word in ("condition", "mean", "95 % interval", "std", "student_aux", "cross_model_all"):
        assert word in out
    assert "scikit-learn digits" in out
    assert "100 %" in err
    drawn = [Path(line.split(": ")[1]) for line in out.splitlines() if line.startswith("figure: ")]
    assert len(drawn) == 6
    assert all(path.stat().st_size > 1000 for path in drawn)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--runs", "-3"], ["runs must be at least 1, got -3"]),
        (["--runs", "0"], ["runs must be at least 1, got 0"]),
        (["--runs", "many"], ["--runs", "many"]),
        (["--aux", "0"], ["aux must be at least 1"]),
        (["--aux", "1"], ["a softmax over one logit is constant"]),
        (["--dataset", "cifar"], ["cifar", "mnist", "digits"]),
        (["--loss", "hinge"], ["hinge", "kl", "squared_error"]),
        (["--learning-rate", "nan"], ["learning_rate must be a positive finite number, got nan"]),
        (["--learning-rate=-1"], ["learning_rate must be a positive finite number"]),
        (["--seed", "-1"], ["seed must be from 0"]),
        (["--group", "0"], ["group must be at least 1"]),
        (["--hidden"], ["hidden must be one or more positive widths"]),
        (["--data-dir", "absent"], ["absent", "is not a folder"]),
        (["--colour", "red"], ["--colour"]),
    ],
)
def test_a_bad_argument_is_one_line_and_status_2(capfd, tmp_path, arguments, parts):
    out = tmp_path / "r"
    dataset = [] if "--dataset" in arguments or "--data-dir" in arguments else SMOKE[:2]
    status, printed, err = sublab(capfd, "mnist", *dataset, "--out", out, *arguments)
    assert (status, printed) == (2, "")
    assert_one_line(err, *parts)
    assert not out.exists() or list(out.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["paint"]])
def test_a_missing_or_unknown_command_is_one_line_and_status_2(capfd, arguments):
    status, _, err = sublab(capfd, *arguments)
    assert status == 2
    assert_one_line(err, "mnist", "reproduce", "figures")


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
    status, _, err = sublab(
        capfd, "mnist", "--data-dir", folder.parent, "--out", tmp_path / "r"
    )  # fmt: skip
    assert status == 2
    assert_one_line(err, str(folder), "missing train-labels-idx1-ubyte")


def test_figures_from_a_damaged_record_are_one_line_and_status_2(capfd, tmp_path):
    out = tmp_path / "r"
    sublab(capfd, "mnist", *SMOKE, "--runs", 2, "--out", out)
    before = {path: path.read_bytes() for path in (out / "figures").iterdir()}
    assert sublab(capfd, "figures", "--out", out)[0] == 0
    assert {path: path.read_bytes() for path in (out / "figures").iterdir()} == before
    (record,) = records.read_all(out, mnist.EXPERIMENT)
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
    status, _, _ = sublab(capfd, "mnist", *SMOKE, "--runs", 2, "--out", tmp_path)
    assert status == 0
    run = mnist.run
    for agrees, expected in ((False, 1), (True, 0), (None, 0)):

        def judged(options, agrees=agrees):
            outcome = run(options)
            shown = outcome.summary.table.with_columns(
                paper_mean=0.5, paper_half_width=0.1, difference=0.4, allowed=0.1, agrees=False
            )
            summary = records.Record(
                outcome.summary.folder, outcome.summary.config, shown, outcome.summary.provenance
            )
            return mnist.Outcome(outcome.table, summary, outcome.samples, agrees)

        monkeypatch.setattr(mnist, "run", judged)
        status, out, _ = sublab(capfd, "mnist", *SMOKE, "--runs", 2, "--out", tmp_path)
        assert status == expected
        assert ("DIFFERS" in out) == (agrees is not None)


def test_version_and_help_end_with_0(capfd):
    assert sublab(capfd, "--version")[:2] == (0, "sublab 0.1.0\n")
    for arguments in (["--help"], ["mnist", "--help"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert not stop.value.code
    assert "--runs" in capfd.readouterr().out


def test_an_interrupt_says_how_to_go_on(capfd, tmp_path, monkeypatch):
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mnist, "run", interrupted)
    status, _, err = sublab(capfd, "mnist", *SMOKE, "--out", tmp_path)
    assert status == 130
    assert_one_line(err, "the same command goes on")


def rows(out: Path) -> pl.DataFrame:
    """All numbers below `out`, in an order of their own."""
    table = records.scan(out).collect()
    keep = [name for name in table.columns if name not in ("record", "pixels")]
    return table.select(keep).sort(pl.all())


def test_kill_9_at_any_moment_then_the_same_command_gives_the_same_table(tmp_path):
    """Killed while starting, while training, and right after each record appears."""
    command = [*SUBLAB, "mnist", *SMOKE, "--noise-images", "8192", "--runs", "6", "--group", "2"]
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
    assert "runs found" in last.stderr
    for folder, stamp in stamps.items():
        assert (folder / "table.parquet").stat().st_mtime_ns == stamp
    assert rows(broken).equals(rows(whole))


def done(out: Path) -> list[Path]:
    return [path for path in (out / mnist.EXPERIMENT).glob("*") if not path.name.startswith(".")]
