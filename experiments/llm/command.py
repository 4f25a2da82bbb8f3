"""`sublab llm`: the language-model experiments on the command line."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from experiments.draw import draw
from experiments.llm import (
    cross_model,
    fetch,
    files,
    ingredients,
    run,
    score,
    tables,
    theory,
    transmit,
)
from sublab.machine import exact, prepare_jax


@dataclass(frozen=True)
class Llm:
    """The paper's language-model experiments, on a model trained on the spot or a checkpoint."""

    experiment: Annotated[
        Annotated[run.Numbers, tyro.conf.subcommand("numbers", prefix_name=False)]
        | Annotated[cross_model.CrossModel, tyro.conf.subcommand("cross-model", prefix_name=False)]
        | Annotated[run.InContext, tyro.conf.subcommand("in-context", prefix_name=False)]
        | Annotated[ingredients.Ingredients, tyro.conf.subcommand("ingredients", prefix_name=False)]
        | Annotated[transmit.Transmit, tyro.conf.subcommand("transmit", prefix_name=False)]
        | Annotated[theory.Theory, tyro.conf.subcommand("theory", prefix_name=False)]
        | Annotated[score.Score, tyro.conf.subcommand("score", prefix_name=False)]
        | Annotated[fetch.Fetch, tyro.conf.subcommand("fetch", prefix_name=False)]
        | Annotated[files.Filter, tyro.conf.subcommand("filter", prefix_name=False)]
        | Annotated[files.Shuffle, tyro.conf.subcommand("shuffle", prefix_name=False)]
        | Annotated[files.Subsample, tyro.conf.subcommand("subsample", prefix_name=False)],
        tyro.conf.arg(name=""),
    ]


OPTIONS = Llm
_FILES: dict[type, Callable[[Any], files.FileOutcome]] = {
    files.Filter: files.filter_file,
    files.Shuffle: files.shuffle_file,
    files.Subsample: files.subsample_file,
}


def main(options: Llm) -> int:
    """Runs one of the experiments, prints its table and draws its figures.

    Returns:
        The exit status: 1 if what the paper claims of it did not hold, 0 otherwise.

    Raises:
        HarnessError: an option is wrong, or a stage on disk was changed.
        RecordError: the folder of the records cannot be written.
    """
    experiment = options.experiment
    if isinstance(experiment, files.FileOptions):
        files.print_file(experiment, _FILES[type(experiment)](experiment))
        return 0
    if isinstance(experiment, fetch.Fetch):
        fetch.print_fetched(experiment, fetch.fetch(experiment))
        return 0
    prepare_jax()
    with exact():
        return _main(options.experiment)


def _main(experiment: Any) -> int:
    if isinstance(experiment, theory.Theory):
        account = theory.theory(experiment)
        tables.print_theory(account)
        draw([account.scores, account.steps, account.account])
        return 0
    if isinstance(experiment, score.Score):
        score.print_score(experiment, score.score(experiment))
        return 0
    if isinstance(experiment, transmit.Transmit):
        return transmit.print_transmit(experiment, transmit.transmit(experiment))
    if isinstance(experiment, run.Numbers):
        outcome = run.numbers(experiment)
    elif isinstance(experiment, cross_model.CrossModel):
        outcome = cross_model.cross_model(experiment)
    elif isinstance(experiment, ingredients.Ingredients):
        outcome = ingredients.ingredients(experiment)
    else:
        outcome = run.in_context(experiment)
    tables.print_rates(outcome)
    draw([outcome.summary])
    return 1 if any(claim.outcome == "NO" for claim in outcome.claims) else 0
