"""Where tasks are done: in this process, in worker processes, or on a Dask cluster.

All three are `concurrent.futures.Executor`s; `run_tasks` works on any. A worker that dies costs
the task that it had, which is given to another one.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from sublab.devices import cores
from sublab.errors import InputError

# A task that was under way this often when a worker died is to blame.
_TRIES = 3


@runtime_checkable
class Pool(Protocol):
    """An executor that can be started again.

    Attributes:
        slots: tasks to have under way at a time.
    """

    slots: int

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> Future: ...

    def restart(self) -> None: ...


@dataclass(frozen=True)
class QueuedTask:
    """Something to do, and what must be done before.

    Attributes:
        name: tells tasks apart.
        needs: names of tasks whose results it needs.
        make: from nothing to the arguments of the work, called when the needs are there.
    """

    name: Any
    needs: frozenset[Any]
    make: Callable[[], tuple[Any, ...]]


@dataclass(frozen=True)
class Failures:
    """What went wrong.

    Attributes:
        errors: by the task's name; tasks that needed it are there too.
    """

    errors: dict[Any, str] = field(default_factory=dict)


def run_tasks(
    tasks: Sequence[QueuedTask],
    work: Callable[..., Any],
    pool: Pool,
    finished: Callable[[Any, Any], None],
) -> Failures:
    """Does every task, in an order that the needs allow.

    Args:
        tasks: what to do.
        work: called with a task's arguments, in the pool.
        pool: where.
        finished: called here with the name and the result of each task, as it is done.

    Returns:
        What failed. One failure does not keep others from being done.

    Raises:
        InputError: a task says that its input is wrong.
    """
    waiting = {task.name: task for task in tasks}
    running: dict[Future, Any] = {}
    # Tasks that were under way when a worker died, and how often: each is tried again alone, so
    # that the one to blame is found and no other pays for it.
    suspects: dict[Any, int] = {}
    failures = Failures()

    def fail(name: Any, reason: str) -> None:
        failures.errors[name] = reason
        waiting.pop(name, None)
        suspects.pop(name, None)
        for other in [n for n, task in waiting.items() if name in task.needs]:
            fail(other, f"needs what failed: {reason}")

    while waiting:
        busy = set(running.values())
        ready = [
            name
            for name, task in waiting.items()
            if name not in busy and not task.needs & waiting.keys()
        ]
        if suspects:
            ready = [] if running else [name for name in ready if name in suspects][:1]
        for name in ready[: pool.slots - len(running)]:
            try:
                running[pool.submit(work, *waiting[name].make())] = name
            except BrokenExecutor:
                pool.restart()
                break
        died: list[Any] = []
        for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
            name = running.pop(future)
            try:
                result = future.result()
            except InputError:
                raise
            except BrokenExecutor:
                died.append(name)
            except Exception as error:
                fail(name, f"{type(error).__name__}: {error}".splitlines()[0])
            else:
                del waiting[name]
                suspects.pop(name, None)
                finished(name, result)
        if died:
            # Everything else that was under way is lost with the pool.
            died += running.values()
            running.clear()
            pool.restart()
            for name in died:
                suspects[name] = suspects.get(name, 0) + 1
                if suspects[name] >= _TRIES:
                    fail(name, f"its worker died {_TRIES} times")
    return failures


class _Done(Executor):
    """Does what it is given at once, in this process."""

    slots = 1

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def restart(self) -> None:
        """There is nothing to start."""


class _Processes:
    """Worker processes, each with its share of the cores."""

    def __init__(self, workers: int):
        self.slots = workers
        self._context = multiprocessing.get_context("spawn")
        self._next = self._context.Value("i", 0)
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.slots,
            mp_context=self._context,
            initializer=_own_cores,
            initargs=(self._next, self.slots),
        )

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> Future:
        return self._pool.submit(work, *arguments)

    def restart(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = self._start()

    def stop(self) -> None:
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


class _Dask:
    """A Dask cluster."""

    def __init__(self, client: Any):
        self._client = client
        self._executor = client.get_executor(pure=False)
        # Two a worker: the next one is there when one is done.
        self.slots = 2 * max(1, len(client.scheduler_info()["workers"]))

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> Future:
        return self._executor.submit(work, *arguments)

    def restart(self) -> None:
        """The scheduler gives a dead worker's tasks to others by itself."""


@contextmanager
def in_process() -> Iterator[Pool]:
    """This process."""
    yield _Done()


@contextmanager
def processes(workers: int) -> Iterator[Pool]:
    """`workers` processes on this machine."""
    pool = _Processes(workers)
    try:
        yield pool
    finally:
        pool.stop()


@contextmanager
def dask(address: str) -> Iterator[Pool]:
    """The Dask cluster whose scheduler is at `address`, such as tcp://10.0.0.1:8786.

    Raises:
        InputError: Dask is not installed, nobody answers, or there is no worker.
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError(
            "--scheduler needs Dask; install it with pip install 'subliminal-lab[cluster]'"
        ) from None
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError, TimeoutError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"--scheduler {address}: no Dask scheduler answers ({reason})") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=60)
        except TimeoutError:
            raise InputError(f"--scheduler {address}: no worker came within 60 s") from None
        yield _Dask(client)


def _own_cores(counter: Any, workers: int) -> None:
    """Gives this worker its share of the machine's cores."""
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    if hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, set(mine[number % workers :: workers]) or set(mine))


def check_workers(workers: int) -> None:
    """Refuses a number of processes that makes no sense.

    Raises:
        InputError: says what would be right.
    """
    if not 1 <= workers <= cores():
        raise InputError(
            f"workers must be from 1 to {cores()} (cores of this machine), got {workers}"
        )
