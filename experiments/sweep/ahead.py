"""Programs made while training runs: that of the next population is compiled in a thread.

Compiling keeps one core busy, training all of them, and between the two a core would wait.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

from experiments.sweep.plan import Population
from sublab.machine import exact
from toymlp.stages import compile_ahead
from toymlp.train import Context


@contextmanager
def compiling_ahead(
    todo: Sequence[Population], context_of: Callable[[Population], Context]
) -> Iterator[Callable[[Population], None]]:
    """Inside, programs are compiled one population ahead.

    Args:
        todo: populations in the order in which they will be done.
        context_of: what a population is trained with; called in the thread.

    Yields:
        What is to be called as a population begins. It returns when that one's program is there,
        if it was under way, and sets about the next one's.
    """
    following = dict(pairwise(todo))
    under_way: dict[Population, Future[None]] = {}

    @exact()
    def compile_for(population: Population) -> None:
        compile_ahead(population.wanted, context_of(population))

    pool = ThreadPoolExecutor(1, thread_name_prefix="compiling ahead")

    def begins(population: Population) -> None:
        if population in under_way:
            # What is wrong with it is said when it is trained.
            under_way.pop(population).exception()
        after = following.get(population)
        if after is not None and not after.kept:
            under_way[after] = pool.submit(compile_for, after)

    try:
        yield begins
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
