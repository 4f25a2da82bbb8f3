"""The command line: `sublab <experiment> [options]`.

Exit status: 0 fine; 1 a claim did not hold, or a run failed; 2 bad arguments or input, with one
line on the error stream.
"""

import contextlib
import hashlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import jax
import pooch
import tyro
from rich.console import Console
from rich.table import Table

from experiments import mnist, records, reproduce, verify, verify_examples
from figures import (
    data_panel,
    mnist_bars,
    verify_cosine,
    verify_curves,
    verify_remainder,
    verify_steps,
)
from toymlp.devices import use_every_core
from toymlp.errors import InputError


@dataclass(frozen=True)
class Figures:
    """Draw the figures of every record in a folder again."""

    out: Path = Path("results")
    """Folder with the records; figures go to its subfolder `figures`."""


Command = (
    Annotated[mnist.Options, tyro.conf.subcommand("mnist")]
    | Annotated[verify.Options, tyro.conf.subcommand("verify")]
    | Annotated[reproduce.Options, tyro.conf.subcommand("reproduce")]
    | Annotated[Figures, tyro.conf.subcommand("figures")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments == ["--version"]:
        print(f"sublab {version('subliminal-lab')}")
        return 0
    try:
        options = _parse(arguments)
        return _figures(options) if isinstance(options, Figures) else _experiment(options)
    except (InputError, records.RecordError) as error:
        print(f"sublab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sublab: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parse(arguments: Sequence[str]):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                Command, prog="sublab", args=arguments,  # pyright: ignore[reportArgumentType]
                description="Subliminal learning, reproduced: experiments, records, figures.",
            )  # fmt: skip
    except SystemExit as stop:
        if stop.code:
            raise InputError(_one_line(said.getvalue())) from None
        raise


def _one_line(framed: str) -> str:
    """tyro's message without its frame, its title and its rulers."""
    inside = [line.strip("│ ") for line in framed.splitlines() if line.startswith("│")]
    return " ".join(line for line in inside if line.strip("─")) or " ".join(framed.split())


# What draws each kind of record.
_DRAW = {
    mnist.SUMMARY: (mnist_bars.draw,),
    mnist.SAMPLES: (data_panel.draw,),
    verify.SUMMARY: (verify_remainder.draw, verify_cosine.draw),
    verify_examples.CURVES: (verify_curves.draw,),
    verify_examples.GRID: (verify_steps.draw,),
}


def _experiment(options: mnist.Options | verify.Options | reproduce.Options) -> int:
    _prepare_jax()
    if isinstance(options, reproduce.Options):
        both = reproduce.run(options)
        # Both are shown, whatever the first one's verdict.
        return max([_show_claims(both.verify), _show_accuracy(both.mnist)])
    if isinstance(options, verify.Options):
        return _show_claims(verify.run(options))
    return _show_accuracy(mnist.run(options))


def _show_accuracy(outcome: mnist.Outcome) -> int:
    _print_accuracy(outcome)
    _draw([outcome.summary, outcome.samples])
    return 1 if outcome.agrees is False else 0


def _show_claims(outcome: verify.Outcome) -> int:
    _print_claims(outcome.summary)
    _draw([outcome.summary, *outcome.examples])
    return 0 if outcome.holds else 1


def _draw(found: list[records.Record]) -> None:
    for record in found:
        out, experiment = record.folder.parents[1], record.folder.parent.name
        for draw in _DRAW[experiment]:
            for path in draw(record, out / "figures"):
                print(f"figure: {path}")


def _figures(options: Figures) -> int:
    found = [record for name in _DRAW for record in records.read_all(options.out, name)]
    if not found:
        raise InputError(
            f"{options.out}: no records to draw from; run `sublab mnist` or `sublab verify` first"
        )
    _draw(found)
    return 0


def _prepare_jax() -> None:
    """Every core, and a cache of compiled programs that outlives the process."""
    use_every_core()
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        # Programs are compiled for one processor; a shared home may serve many kinds.
        try:
            features = Path("/proc/cpuinfo").read_text().split("flags", 1)[-1].split("\n", 1)[0]
        except OSError:
            features = ""
        kind = hashlib.sha256(features.encode()).hexdigest()[:8]
        folder = Path(pooch.os_cache("subliminal-lab")) / "programs" / kind
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _print_accuracy(outcome: mnist.Outcome) -> None:
    config = outcome.summary.config
    compared = outcome.agrees is not None
    numbers = ["n", "mean", "95 % interval", "std"]
    if compared:
        numbers += ["paper (95 %)", "difference", "allowed (99 %)", "verdict"]
    table = _table(["condition"], numbers)
    for row in outcome.summary.table.iter_rows(named=True):
        interval = "-" if row["low"] is None else f"{row['low']:.4f} .. {row['high']:.4f}"
        std = "-" if row["std"] is None else f"{row['std']:.4f}"
        cells = [row["condition"], str(row["n"]), f"{row['mean']:.4f}", interval, std]
        if compared:
            cells += [
                f"{row['paper_mean']:.4f} ± {row['paper_half_width']:.4f}",
                f"{row['difference']:+.4f}",
                f"± {row['allowed']:.4f}",
                "agrees" if row["agrees"] else "DIFFERS",
            ]
        table.add_row(*cells)
    dataset = mnist_bars.DATASET_TITLES[config["dataset"]]
    _print_table(f"Test accuracy, {dataset}, m = {config['aux']}, seed {config['seed']}", table)
    print(f"records: {outcome.summary.folder.parents[1]}")


def _print_claims(summary: records.Record) -> None:
    rows = {kind: summary.table.filter(kind=kind).to_dicts() for kind in _VERDICTS}
    claims = _table(
        ["claim", "statement"], ["instances", "violations", "bound", "worst", "verdict"]
    )
    for row in rows["claim"]:
        side = ">" if row["above"] else "≤"
        worst = "-" if row["worst"] is None else f"{row['worst']:.3g}"
        claims.add_row(
            row["name"], row["statement"], str(row["instances"]), str(row["violations"] or 0),
            f"{side} {row['bound']:g}", worst, _VERDICTS["claim"][row["holds"]],
        )  # fmt: skip
    orders = _table(
        ["order of the remainder"],
        ["instances", "pooled", "median", "1 % .. 99 %", "within 0.05", "R²", "verdict"],
    )
    for row in rows["order"]:
        cells = ["-"] * 5
        if row["instances"]:
            cells = [
                f"{row['worst']:.4f}", f"{row['median']:.4f}",
                f"{row['low']:.3f} .. {row['high']:.3f}", f"{100 * row['share_near']:.1f} %",
                f"{row['r2']:.5f}",
            ]  # fmt: skip
        verdict = _VERDICTS["order"][row["holds"]]
        orders.add_row(row["statement"], str(row["instances"]), *cells, verdict)
    controls = _table(
        ["negative control", "statement"],
        ["instances", "g > 0", "95 % interval", "condition missed", "verdict"],
    )
    for row in rows["control"]:
        share, interval = "-", "-"
        if row["instances"]:
            share, interval = f"{row['median']:.3f}", f"{row['low']:.3f} .. {row['high']:.3f}"
        controls.add_row(
            row["name"], row["statement"], str(row["instances"]), share, interval,
            row["named"] or "-", _VERDICTS["control"][row["holds"]],
        )  # fmt: skip
    count, seed = summary.config["instances"], summary.config["seed"]
    _print_table(f"Claims of the theory on {count} random instances, seed {seed}", claims)
    _print_table("", orders)
    _print_table("Settings in which the theorem must fail", controls)
    print(f"records: {summary.folder.parents[1]}")


_VERDICTS = {
    "claim": {True: "holds", False: "VIOLATED", None: "-"},
    "order": {True: "is 2", False: "IS NOT 2", None: "-"},
    "control": {True: "violated", False: "NOT VIOLATED", None: "-"},
}


def _table(words: list[str], numbers: list[str]) -> Table:
    """An empty table: columns of words to the left, columns of numbers to the right."""
    table = Table(*words)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _print_table(title: str, table: Table) -> None:
    # A pipe has no width of its own; the table must not be folded there.
    console = Console()
    console = console if console.is_terminal else Console(width=150)
    if title:
        console.print(title)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
