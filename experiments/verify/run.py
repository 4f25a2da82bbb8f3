"""`sublab verify`: the theory's claims on random instances, with records and a verdict."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import chain, count
from pathlib import Path
from threading import Event, Lock
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array, Bool, Float, Key

from experiments.verify import evaluate as verify
from experiments.verify import examples as verify_examples
from experiments.verify.families import FAMILIES
from experiments.verify.instances import BLOCK, CHOICES, Kinds, draw_keys, draw_kinds
from experiments.verify.suites import SUITES, Suite
from experiments.verify.summary import summarise
from sublab import records
from sublab.console import progress, say
from sublab.errors import InputError
from sublab.machine import exact, provenance
from sublab.randomness import check_seed

EXPERIMENT, SUMMARY = "verify", "verify_summary"
# Raised whenever the same settings come to give other numbers, so that old records are not reused.
_VERSION = 2
# A record holds this many instances; a program evaluates them block by block.
_RECORD = 500


@dataclass(frozen=True)
class VerifyOptions:
    """The theory's claims on random instances: models, data, losses and traits, in float64."""

    instances: int = 10_000
    """Random instances of one step, spread evenly over the architectures."""
    trained: int = 500
    """Random problems that are trained for many steps, or to rest."""
    out: Path = Path("results")
    """Folder for records and figures; finished groups found there are reused."""
    seed: int = 0
    """Base seed; an instance depends on the seed and its own number alone."""


@dataclass(frozen=True)
class VerifyOutcome:
    """What a verification gave.

    Attributes:
        table: a row for each instance.
        summary: a row for each claim, order of the remainder, and control.
        examples: the records of the curves and of the grid that figures show.
        holds: whether no claim is violated, every order is 2, and every control is violated.
    """

    table: pl.DataFrame
    summary: records.Record
    examples: list[records.Record]
    holds: bool


def run(options: VerifyOptions) -> VerifyOutcome:
    """Evaluates what is not yet recorded in `options.out`, and sums up.

    Args:
        options: how many instances, from which seed, and where records are.

    Raises:
        InputError: an option is out of its range.
        RecordError: `options.out` cannot be written.
    """
    if not len(FAMILIES) <= options.instances <= 10**7:
        raise InputError(
            f"instances must be from {len(FAMILIES)}, one for each architecture, to 10000000, "
            f"got {options.instances}"
        )
    if not 1 <= options.trained <= 10**6:
        raise InputError(f"trained must be from 1 to 1000000, got {options.trained}")
    check_seed(options.seed)
    records.prepare(options.out)
    groups = _evaluate(options)
    table = pl.concat((group.table for group in groups), how="diagonal")
    config = {
        "experiment": SUMMARY,
        "version": _VERSION,
        "seed": options.seed,
        "instances": options.instances,
        "trained": options.trained,
        "records": [group.folder.name for group in groups],
        # The steps of `remainders`, for who reads the records.
        "remainder_eps": verify.SMALL.tolist(),
    }
    summary = records.find_or_make(
        options.out,
        SUMMARY,
        config,
        lambda: (summarise(table), provenance(wall_seconds=0.0)),
        say,
    )
    examples = verify_examples.record(options.out, options.seed, table)
    return VerifyOutcome(table, summary, examples, bool(summary.table["holds"].drop_nulls().all()))


@dataclass(frozen=True)
class _Group:
    """Instances of one suite, which one record holds.

    Attributes:
        suite: what they are instances of.
        first: the number of the first of them.
        size: how many there are.
    """

    suite: Suite
    first: int
    size: int


@cache
def _program(suite: Suite) -> Callable[..., dict[str, Array]]:
    """evaluate(keys, wanted, kinds) of the blocks of one record, with a leading axis of blocks."""
    # A program of its own, so that it is traced once for its shapes and its values.
    if suite.family is None:
        evaluate = jax.jit(lambda keys, _: jax.vmap(suite.evaluate)(keys))
    else:
        evaluate = jax.jit(jax.vmap(suite.evaluate, in_axes=(0, None)))

    def of_block(
        block: tuple[Key[Array, " instances"], Bool[Array, ""], Kinds | None],
    ) -> dict[str, Float[Array, "instances *numbers"]]:
        keys, wanted, kinds = block
        empty = jax.tree.map(jnp.zeros_like, jax.eval_shape(evaluate, keys, kinds))
        return jax.lax.cond(wanted, lambda: evaluate(keys, kinds), lambda: empty)

    return jax.jit(lambda *blocks: jax.lax.map(of_block, blocks))


def _evaluate(options: VerifyOptions) -> list[records.Record]:
    """The records of all groups, suite by suite; suites run side by side, one a device."""
    groups = {suite: _groups(options, suite) for suite in SUITES}
    recorded: dict[_Group, records.Record] = {}
    for group in chain(*groups.values()):
        if record := records.find(options.out, EXPERIMENT, _config(options, group), say):
            recorded[group] = record
    total = sum(group.size for group in chain(*groups.values()))
    count_recorded = sum(group.size for group in recorded)
    if count_recorded:
        say(f"{count_recorded:,} of {total:,} instances found in {options.out}, reused")
    if count_recorded < total:
        left = sum(1 for suite in groups.values() if any(group not in recorded for group in suite))
        # More than were asked for, which are those of one step.
        say(
            f"evaluating {total - count_recorded:,} random instances, of one step and beyond; most "
            f"of the time goes into compiling {left} program{'' if left == 1 else 's'}, during "
            f"which nothing moves here"
        )
    devices, lock, stop, lap = jax.local_devices(), Lock(), Event(), laps()
    with progress(total, count_recorded) as advance:

        def work(place: int, of_suite: list[_Group]) -> None:
            nonlocal count_recorded
            for group in of_suite:
                if group in recorded or stop.is_set():
                    continue
                with exact(x64=True), jax.default_device(devices[place % len(devices)]):
                    record = _record(options, group, lap)
                with lock:
                    recorded[group] = record
                    count_recorded += group.size
                    reached = group.first + group.size
                    share = of_suite[-1].first + of_suite[-1].size
                    advance(count_recorded, f"{group.suite.name}: {reached} of {share}")

        # The longest programs first, so that no device is left with one of them at the end.
        tasks = [groups[suite] for suite in sorted(SUITES, key=lambda suite: -suite.weight)]
        with ThreadPoolExecutor(max_workers=len(devices)) as pool:
            try:
                list(pool.map(work, count(), tasks))
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
    return [recorded[group] for group in chain(*groups.values())]


def _groups(options: VerifyOptions, suite: Suite) -> list[_Group]:
    """The groups of one suite: its share of the instances, cut up."""
    share = suite.share(options.instances, options.trained)
    return [_Group(suite, first, min(_RECORD, share - first)) for first in range(0, share, _RECORD)]


def laps() -> Callable[[], float]:
    """Gives lap(): seconds since it was called last, by whichever thread.

    Records that are made side by side say by how much each made the whole longer, so that the sum
    is the time that a person has waited.
    """
    lock, last = Lock(), time.monotonic()

    def lap() -> float:
        nonlocal last
        with lock:
            before, last = last, time.monotonic()
            return last - before

    return lap


def _record(options: VerifyOptions, group: _Group, lap: Callable[[], float]) -> records.Record:
    """Evaluates the instances of one group, and writes their record."""
    suite = group.suite
    numbers = np.arange(group.first, group.first + _RECORD)
    keys = draw_keys(options.seed, suite.name, jnp.asarray(numbers)).reshape(-1, suite.block)
    # One size of program for all groups; what the last one has no use for is not evaluated.
    wanted = suite.block * jnp.arange(len(keys)) < group.size
    columns: dict[str, Any] = {
        "family": [suite.name] * group.size,
        "instance": numbers[: group.size],
    }
    chosen = None
    if suite.family is not None:
        kinds = draw_kinds(options.seed, suite.name, group.first // BLOCK, len(keys))
        chosen = Kinds(**{name: jnp.asarray(index) for name, index in kinds.items()})
        for name, names in CHOICES.items():
            columns[name] = np.asarray(names)[np.repeat(kinds[name], BLOCK)[: group.size]]
    for name, values in _program(suite)(keys, wanted, chosen).items():
        flat = np.asarray(values).reshape(_RECORD, *np.shape(values)[2:])[: group.size]
        columns[name] = flat if flat.ndim == 1 else flat.tolist()
    # A number that does not apply is null; one that came out infinite stays what it is.
    table = pl.DataFrame(columns).with_columns(pl.col(pl.Float64).fill_nan(None))
    about = provenance(wall_seconds=lap())
    return records.write(options.out, EXPERIMENT, _config(options, group), table, about)


def _config(options: VerifyOptions, group: _Group) -> dict[str, Any]:
    """What decides the numbers of one group's record."""
    return {
        "experiment": EXPERIMENT,
        "version": _VERSION,
        "seed": options.seed,
        "family": group.suite.name,
        "first": group.first,
        "instances": group.size,
    }
