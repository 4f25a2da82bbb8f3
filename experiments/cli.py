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

from experiments import mnist, records, reproduce
from figures import data_panel, mnist_bars
from toymlp.devices import use_every_core
from toymlp.errors import InputError


@dataclass(frozen=True)
class Figures:
    """Draw the figures of every record in a folder again."""

    out: Path = Path("results")
    """Folder with the records; figures go to its subfolder `figures`."""


Command = (
    Annotated[mnist.Options, tyro.conf.subcommand("mnist")]
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


def _experiment(options: mnist.Options | reproduce.Options) -> int:
    _prepare_jax()
    run = reproduce.run if isinstance(options, reproduce.Options) else mnist.run
    outcome = run(options)  # pyright: ignore[reportArgumentType]
    _print_summary(outcome)
    folder = options.out / "figures"
    _print_paths(
        [*mnist_bars.draw(outcome.summary, folder), *data_panel.draw(outcome.samples, folder)]
    )
    return 1 if outcome.agrees is False else 0


def _figures(options: Figures) -> int:
    summaries = records.read_all(options.out, mnist.SUMMARY)
    samples = records.read_all(options.out, mnist.SAMPLES)
    if not summaries and not samples:
        raise InputError(f"{options.out}: no records to draw from; run `sublab mnist` first")
    folder = options.out / "figures"
    _print_paths(
        [
            *(path for record in summaries for path in mnist_bars.draw(record, folder)),
            *(path for record in samples for path in data_panel.draw(record, folder)),
        ]
    )
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


def _print_summary(outcome: mnist.Outcome) -> None:
    config = outcome.summary.config
    compared = outcome.agrees is not None
    table = Table()
    for name in ("condition", "n", "mean", "95 % interval", "std"):
        table.add_column(name, justify="left" if name == "condition" else "right")
    if compared:
        for name in ("paper (95 %)", "difference", "allowed (99 %)", "verdict"):
            table.add_column(name, justify="right")
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
    # A pipe has no width of its own; the table must not be folded there.
    console = Console()
    console = console if console.is_terminal else Console(width=140)
    dataset = mnist_bars.DATASET_TITLES[config["dataset"]]
    console.print(f"Test accuracy, {dataset}, m = {config['aux']}, seed {config['seed']}")
    console.print(table)
    print(f"records: {outcome.summary.folder.parents[1]}")


def _print_paths(paths: list[Path]) -> None:
    for path in paths:
        print(f"figure: {path}")


if __name__ == "__main__":
    sys.exit(main())
