"""Claims where a process is the point: killed sweeps, worker processes, Dask, devices."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments.sweep import store
from experiments.sweep.run import RUNS
from sublab import records
from tests.experiments.sweep.small import file_of, folders, same_numbers, sweep, trained_models

ROOT = Path(__file__).parents[3]
# As the tests' own process: the same programs, from the same cache.
ENVIRONMENT = {"JAX_NUM_CPU_DEVICES": "2"}


def command(folder: Path, *more: str) -> list[str]:
    words = ["sweep", str(file_of(folder)), "--runs", "3", "--out", str(folder / "out")]
    return [sys.executable, "-m", "experiments.cli", *words, *more]


def test_a_killed_sweep_goes_on_from_what_was_recorded(whole, tmp_path, trained):
    killed = subprocess.Popen(
        command(tmp_path, "--group", "1"),
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    out = tmp_path / "out"
    while killed.poll() is None and not folders(out, store.STUDENTS):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    kept = trained_models(out)
    assert 0 < kept < 15
    outcome = sweep(tmp_path, runs=3, group=1)
    assert sum(trained.values()) == 15 - kept
    assert trained_models(out) == 15
    same_numbers(outcome.table, whole.table)


def test_worker_processes_give_the_same_table(whole, tmp_path):
    there = sweep(tmp_path, runs=3, group=2, workers=2)
    assert there.failures == ()
    same_numbers(there.table, whole.table)


@pytest.mark.slow
def test_dask_finishes_without_loss_or_doubles_when_a_worker_is_killed(whole, tmp_path):
    distributed = pytest.importorskip("distributed")
    out, killed = tmp_path / "out", []
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as watcher,
    ):

        def kill() -> None:
            """Kills a worker that is at work, once a first task has been recorded."""
            while not killed:
                time.sleep(0.05)
                if not folders(out / "models", "teachers"):
                    continue
                for address, keys in watcher.processing().items():
                    if keys:
                        pid = watcher.scheduler_info()["workers"][address]["metrics"].get("pid")
                        pid = pid or watcher.run(os.getpid, workers=[address])[address]
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                        break

        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        there = sweep(tmp_path, runs=3, group=1, scheduler=cluster.scheduler_address)
        thread.join(10)
    assert killed
    assert there.failures == ()
    assert trained_models(out) == 15
    same_numbers(there.table, whole.table)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4])
def test_the_number_of_devices_changes_no_number(whole, tmp_path, count):
    done = subprocess.run(
        command(tmp_path, "--group", "2"),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(count)},
    )
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    first = records.read_all(out, store.STUDENTS)[0]
    assert first.provenance["device"]["count"] == count
    assert len(folders(out, store.STUDENTS)) == 12
    (wide,) = records.read_all(out, RUNS)
    same_numbers(wide.table, whole.table)
