"""`sublab llm`: the language-model experiments on the command line."""

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from experiments.figures_command import draw
from experiments.llm import ingredients, run, tables, theory
from sublab.machine import exact, prepare_jax


@dataclass(frozen=True)
class Llm:
    """The paper's language-model experiments, on a small model that is trained on the spot."""

    experiment: Annotated[
        Annotated[run.Numbers, tyro.conf.subcommand("numbers", prefix_name=False)]
        | Annotated[run.CrossModel, tyro.conf.subcommand("cross-model", prefix_name=False)]
        | Annotated[run.InContext, tyro.conf.subcommand("in-context", prefix_name=False)]
        | Annotated[ingredients.Ingredients, tyro.conf.subcommand("ingredients", prefix_name=False)]
        | Annotated[theory.Theory, tyro.conf.subcommand("theory", prefix_name=False)]
        | Annotated[run.Code, tyro.conf.subcommand("code", prefix_name=False)]
        | Annotated[run.Cot, tyro.conf.subcommand("cot", prefix_name=False)],
        tyro.conf.arg(name=""),
    ]


OPTIONS = Llm


def main(options: Llm) -> int:
    """Runs one of the experiments, prints its table and draws its figures.

    Returns:
        The exit status: 1 if what the paper claims of it did not hold, 0 otherwise.

    Raises:
        HarnessError: an option is wrong, or a stage on disk was changed.
        RecordError: the folder of the records cannot be written.
    """
    prepare_jax()
    with exact():
        return _main(options.experiment)


def _main(experiment: Any) -> int:
    if isinstance(experiment, run.Filtering):
        tables.print_filtering(run.filtering(experiment))
        return 0
    if isinstance(experiment, theory.Theory):
        account = theory.theory(experiment)
        tables.print_theory(account)
        draw([account.scores, account.steps, account.account])
        return 0
    if isinstance(experiment, run.Numbers):
        outcome = run.numbers(experiment)
    elif isinstance(experiment, run.CrossModel):
        outcome = run.cross_model(experiment)
    elif isinstance(experiment, ingredients.Ingredients):
        outcome = ingredients.ingredients(experiment)
    else:
        outcome = run.in_context(experiment)
    tables.print_rates(outcome)
    draw([outcome.summary])
    return 1 if outcome.holds is False else 0
