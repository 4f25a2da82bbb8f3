"""`sublab verify`: the theory's claims on random instances, with records and a verdict."""

import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from threading import Event, Lock
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from experiments import records, verify_examples
from experiments.progress import progress, say
from experiments.provenance import provenance
from experiments.verify_summary import summarise
from theory import families, instances, verify
from theory.families import FAMILIES, Family
from theory.instances import Kinds
from toymlp.errors import InputError
from toymlp.randomness import run_keys

EXPERIMENT, SUMMARY = "verify", "verify_summary"
# Raised whenever the same settings come to give other numbers, so that old records are not reused.
_VERSION = 1
# Instances of a block share their kinds, so that a traced choice is a real branch; a program
# evaluates the blocks of one record, one after the other.
_BLOCKS = 50
_RECORD = verify.BLOCK * _BLOCKS
_CHOICES = {
    "activation": tuple(families.ACTIVATIONS),
    "loss": instances.LOSSES,
    "trait": instances.TRAITS,
    "data": instances.DATA,
}


@dataclass(frozen=True)
class Options:
    """The theory's claims on random instances: models, data, losses and traits, in float64."""

    instances: int = 10_000
    """Random instances, spread evenly over the architectures."""
    out: Path = Path("results")
    """Folder for records and figures; finished groups found there are reused."""
    seed: int = 0
    """Base seed; an instance depends on the seed and its own number alone."""


@dataclass(frozen=True)
class Outcome:
    """What a verification gave.

    Attributes:
        table: one row per instance.
        summary: one row per claim, order of the remainder, and control.
        examples: the curves and the grid that the figures show.
        holds: whether no claim is violated, every order is 2, and every control is violated.
    """

    table: pl.DataFrame
    summary: records.Record
    examples: list[records.Record]
    holds: bool


def run(options: Options) -> Outcome:
    """Evaluates what is not yet recorded in `options.out`, and sums up.

    Raises:
        InputError: a setting is wrong.
        RecordError: `options.out` cannot be written.
    """
    if not len(FAMILIES) <= options.instances <= 10**7:
        raise InputError(
            f"instances must be from {len(FAMILIES)}, one for each architecture, to 10000000, "
            f"got {options.instances}"
        )
    if not 0 <= options.seed < 2**32:
        raise InputError(f"seed must be from 0 to 2**32 - 1, got {options.seed}")
    records.prepare(options.out)
    groups = _evaluate(options)
    table = pl.concat(group.table for group in groups)
    config = {
        "experiment": SUMMARY,
        "version": _VERSION,
        "seed": options.seed,
        "instances": options.instances,
        "records": [group.folder.name for group in groups],
    }
    summary = records.find(options.out, SUMMARY, config, say) or records.write(
        options.out, SUMMARY, config, summarise(table), provenance(wall_seconds=0.0)
    )
    examples = verify_examples.record(options.out, options.seed, table, draw_kinds)
    return Outcome(table, summary, examples, bool(summary.table["holds"].drop_nulls().all()))


def draw_kinds(seed: int, family: Family, first: int, blocks: int) -> dict[str, np.ndarray]:
    """The kinds of `blocks` blocks from block `first` on, as indices; any block alike alone."""
    rows = [
        np.random.default_rng([seed, zlib.crc32(family.name.encode()), block]).integers(
            [len(names) for names in _CHOICES.values()]
        )
        for block in range(first, first + blocks)
    ]
    return dict(zip(_CHOICES, np.array(rows, np.int32).T, strict=True))


@cache
def _program(family: Family) -> Callable[..., dict[str, jax.Array]]:
    one = partial(verify.evaluate, family)
    return jax.jit(lambda keys, kinds: jax.lax.map(
        lambda block: jax.vmap(one, in_axes=(0, None))(*block), (keys, kinds)
    ))  # fmt: skip


def _evaluate(options: Options) -> list[records.Record]:
    """The records of all groups, family by family; families run side by side, one a device."""
    shares = {
        family: options.instances // len(FAMILIES) + (i < options.instances % len(FAMILIES))
        for i, family in enumerate(FAMILIES)
    }
    found: dict[tuple[Family, int], records.Record] = {}
    for family, share in shares.items():
        for first in range(0, share, _RECORD):
            config = _config(options, family, first, min(_RECORD, share - first))
            if record := records.find(options.out, EXPERIMENT, config, say):
                found[family, first] = record
    already = sum(len(record.table) for record in found.values())
    if already:
        say(f"{already} of {options.instances} instances found in {options.out}, reused")
    if already < options.instances:
        say(f"evaluating {options.instances - already} instances; compiling takes most of it")
    devices, lock, stop = jax.local_devices(), Lock(), Event()
    done = already
    with progress(options.instances, already) as advance:

        def work(task: tuple[int, Family]) -> None:
            nonlocal done
            place, family = task
            device = devices[place % len(devices)]
            for first in range(0, shares[family], _RECORD):
                if (family, first) in found or stop.is_set():
                    continue
                size = min(_RECORD, shares[family] - first)
                with jax.enable_x64(True), jax.default_device(device):
                    record = _group(options, family, first, size)
                with lock:
                    found[family, first] = record
                    done += size
                    advance(done, f"{family.name}: {first + size} of {shares[family]}")

        # The longest programs first, so that no device is left with one of them at the end.
        tasks = list(enumerate(reversed(FAMILIES)))
        with ThreadPoolExecutor(max_workers=len(devices)) as pool:
            try:
                list(pool.map(work, tasks))
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
    return [
        found[family, first]
        for family, share in shares.items()
        for first in range(0, share, _RECORD)
    ]


def _group(options: Options, family: Family, first: int, size: int) -> records.Record:
    start = time.monotonic()
    kinds = draw_kinds(options.seed, family, first // verify.BLOCK, _BLOCKS)
    keys = run_keys(
        options.seed, f"verify {family.name}", jnp.arange(first, first + _RECORD)
    ).reshape(_BLOCKS, verify.BLOCK)
    found = _program(family)(keys, Kinds(**{name: jnp.asarray(k) for name, k in kinds.items()}))
    columns: dict[str, Any] = {
        "family": [family.name] * size,
        "instance": np.arange(first, first + size),
    }
    for name, names in _CHOICES.items():
        columns[name] = np.asarray(names)[np.repeat(kinds[name], verify.BLOCK)[:size]]
    for name, values in found.items():
        flat = np.asarray(values).reshape(_RECORD, *np.shape(values)[2:])[:size]
        columns[name] = flat if flat.ndim == 1 else flat.tolist()
    # A number that does not apply is null; one that came out infinite stays what it is.
    table = pl.DataFrame(columns).with_columns(pl.col(pl.Float64).fill_nan(None))
    return records.write(
        options.out, EXPERIMENT, _config(options, family, first, size), table,
        provenance(wall_seconds=time.monotonic() - start),
    )  # fmt: skip


def _config(options: Options, family: Family, first: int, size: int) -> dict[str, Any]:
    return {
        "experiment": EXPERIMENT,
        "version": _VERSION,
        "seed": options.seed,
        "family": family.name,
        "first": first,
        "instances": size,
    }
