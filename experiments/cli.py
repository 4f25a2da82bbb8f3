"""The command line: `sublab <experiment> [options]`.

Exit status: 0 fine; 1 a claim did not hold, or a run failed; 2 bad arguments or input, with one
line on the error stream.
"""

import contextlib
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments import mnist, reproduce, tables
from experiments.llm import ingredients as llm_ingredients
from experiments.llm import run as llm
from experiments.llm import tables as llm_tables
from experiments.llm import theory as llm_theory
from experiments.sweep import run as sweep
from experiments.sweep import tables as sweep_tables
from experiments.verify import examples as verify_examples
from experiments.verify import run as verify
from experiments.verify import tables as verify_tables
from figures import (
    data_panel,
    mnist_bars,
    verify_cosine,
    verify_curves,
    verify_remainder,
    verify_steps,
)
from figures import llm as llm_figures
from figures import (
    sweep as sweep_figures,
)
from llm_harness.errors import HarnessError
from sublab import records
from sublab.errors import InputError
from sublab.machine import prepare_jax


@dataclass(frozen=True)
class Figures:
    """Draw the figures of every record in a folder again."""

    out: Path = Path("results")
    """Folder with the records; figures go to its subfolder `figures`."""


@dataclass(frozen=True)
class Llm:
    """The paper's language-model experiments, on a small model that is trained on the spot."""

    experiment: Annotated[
        Annotated[llm.Numbers, tyro.conf.subcommand("numbers", prefix_name=False)]
        | Annotated[llm.CrossModel, tyro.conf.subcommand("cross-model", prefix_name=False)]
        | Annotated[llm.InContext, tyro.conf.subcommand("in-context", prefix_name=False)]
        | Annotated[
            llm_ingredients.Ingredients, tyro.conf.subcommand("ingredients", prefix_name=False)
        ]
        | Annotated[llm_theory.Theory, tyro.conf.subcommand("theory", prefix_name=False)]
        | Annotated[llm.Code, tyro.conf.subcommand("code", prefix_name=False)]
        | Annotated[llm.Cot, tyro.conf.subcommand("cot", prefix_name=False)],
        tyro.conf.arg(name=""),
    ]


Command = (
    Annotated[mnist.Options, tyro.conf.subcommand("mnist")]
    | Annotated[verify.Options, tyro.conf.subcommand("verify")]
    | Annotated[sweep.Options, tyro.conf.subcommand("sweep")]
    | Annotated[Llm, tyro.conf.subcommand("llm")]
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
        if isinstance(options, Llm):
            return _llm(options.experiment)
        return _figures(options) if isinstance(options, Figures) else _experiment(options)
    except (InputError, HarnessError, records.RecordError) as error:
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
    sweep.SUMMARY: (sweep_figures.draw,),
    **{kind: (draw,) for kind, draw in llm_figures.DRAW.items()},
}


def _experiment(
    options: mnist.Options | verify.Options | sweep.Options | reproduce.Options,
) -> int:
    prepare_jax()
    if isinstance(options, sweep.Options):
        return _sweep(options)
    if isinstance(options, reproduce.Options):
        both = reproduce.run(options)
        # Both are shown, whatever the first one's verdict.
        return max([_show_claims(both.verify), _show_accuracy(both.mnist)])
    if isinstance(options, verify.Options):
        return _show_claims(verify.run(options))
    return _show_accuracy(mnist.run(options))


def _sweep(options: sweep.Options) -> int:
    if options.dry_run:
        sweep_tables.print_plan(sweep.plan(options))
        return 0
    outcome = sweep.run(options)
    for reason in outcome.failures:
        print(f"sublab: {reason}", file=sys.stderr)
    if outcome.summary is None:
        print("sublab: what was done is recorded; the same command goes on", file=sys.stderr)
        return 1
    sweep_tables.print_sweep(outcome.sweep, outcome.summary)
    _draw([outcome.summary])
    return 0


def _llm(options: Any) -> int:
    prepare_jax()
    if isinstance(options, llm.Filtering):
        llm_tables.print_filtering(llm.filtering(options))
        return 0
    if isinstance(options, llm_theory.Theory):
        found = llm_theory.theory(options)
        llm_tables.print_theory(found)
        _draw([found.scores, found.steps, found.account])
        return 0
    if isinstance(options, llm.Numbers):
        outcome = llm.numbers(options)
    elif isinstance(options, llm.CrossModel):
        outcome = llm.cross_model(options)
    elif isinstance(options, llm_ingredients.Ingredients):
        outcome = llm_ingredients.ingredients(options)
    else:
        outcome = llm.in_context(options)
    llm_tables.print_rates(outcome)
    _draw([outcome.summary])
    return 1 if outcome.holds is False else 0


def _show_accuracy(outcome: mnist.Outcome) -> int:
    tables.print_accuracy(outcome)
    _draw([outcome.summary, outcome.samples])
    return 1 if outcome.agrees is False else 0


def _show_claims(outcome: verify.Outcome) -> int:
    verify_tables.print_claims(outcome.summary)
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
            f"{options.out}: no records to draw from; run `sublab mnist`, `sublab verify` or "
            f"`sublab sweep` first"
        )
    _draw(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
