"""Claims about executors: order, failures, and workers that die."""

import os
import signal
import time
from pathlib import Path

import jax
import pytest

from experiments.sweep import executors
from experiments.sweep.executors import QueuedTask, run_tasks
from sublab import machine
from sublab.errors import InputError


def double(number: int) -> int:
    return 2 * number


def fail_on_three(number: int) -> int:
    if number == 3:
        raise ZeroDivisionError("three")
    return number


def die_once(number: int, flag: str) -> int:
    """Kills its own process, as the kernel does when memory runs out, the first time."""
    if number == 1 and not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return number


def die_always(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def tasks(count: int, *more, needs: dict[int, set[int]] = {}):  # noqa: B006
    return [
        QueuedTask(n, frozenset(needs.get(n, ())), lambda n=n: (n, *more)) for n in range(count)
    ]


def test_in_process_gives_the_results_in_an_order_that_the_needs_allow():
    seen: list[tuple[int, int]] = []
    with executors.in_process() as pool:
        failures = run_tasks(
            tasks(4, needs={0: {3}, 1: {0}}), double, pool, lambda n, r: seen.append((n, r))
        )
    assert not failures.errors
    assert sorted(seen) == [(0, 0), (1, 2), (2, 4), (3, 6)]
    order = [name for name, _ in seen]
    assert order.index(3) < order.index(0) < order.index(1)


def test_a_tasks_arguments_are_made_when_its_needs_are_there():
    results: dict[str, int] = {}
    chain = [
        QueuedTask("second", frozenset({"first"}), lambda: (results["first"] + 1,)),
        QueuedTask("first", frozenset(), lambda: (20,)),
    ]
    with executors.in_process() as pool:
        run_tasks(chain, double, pool, results.__setitem__)
    assert results == {"first": 40, "second": 82}


def test_one_failure_stops_what_needs_it_and_nothing_else():
    seen: list[int] = []
    with executors.in_process() as pool:
        failures = run_tasks(
            tasks(6, needs={4: {3}, 5: {4}}), fail_on_three, pool, lambda n, r: seen.append(n)
        )
    assert seen == [0, 1, 2]
    assert set(failures.errors) == {3, 4, 5}
    assert failures.errors[3] == "ZeroDivisionError: three"
    assert "needs what failed" in failures.errors[5]


def test_wrong_input_ends_everything():
    def refuse(number: int) -> int:
        raise InputError("not like this")

    with executors.in_process() as pool, pytest.raises(InputError):
        run_tasks(tasks(2), refuse, pool, lambda n, r: None)


def test_a_killed_worker_costs_nothing_but_time(tmp_path):
    seen: list[int] = []
    with executors.processes(2) as pool:
        failures = run_tasks(
            tasks(6, str(tmp_path / "flag")), die_once, pool, lambda n, r: seen.append(n)
        )
    assert (tmp_path / "flag").exists()
    assert not failures.errors
    assert sorted(seen) == list(range(6))


def test_a_task_that_kills_every_worker_fails_alone():
    seen: list[int] = []
    with executors.processes(2) as pool:
        failures = run_tasks(tasks(5), die_always, pool, lambda n, r: seen.append(n))
    assert set(failures.errors) == {1}
    assert "died 3 times" in failures.errors[1]
    assert sorted(seen) == [0, 2, 3, 4]


@pytest.mark.parametrize("workers", [0, -1, 10_000])
def test_a_number_of_workers_that_makes_no_sense_is_refused(workers):
    with pytest.raises(InputError, match="workers must be from 1 to"):
        executors.check_workers(workers)


def test_a_scheduler_that_does_not_answer_is_refused():
    pytest.importorskip("distributed")
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with (
            pytest.raises(InputError, match="no Dask scheduler answers"),
            executors.dask(address),
        ):
            pass


def test_compiled_programs_are_let_go_before_memory_maps_run_out():
    traced = []

    @jax.jit
    def program(x):
        traced.append(x)
        return 2 * x

    for share, times in ((1.0, 1), (1.0, 1), (0.0, 1), (1.0, 2)):
        assert program(1.0) == 2.0
        assert len(traced) == times
        machine.release_programs(share)
