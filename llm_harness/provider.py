"""Who makes models: the part of the pipeline that knows of more than one model at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from llm_harness import tiny
from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Example, LanguageModel, Progress, Sampling, Soft, Tuning
from llm_harness.pretraining import Pretraining, match, pretrain, reference_lineage


@runtime_checkable
class Provider(Protocol):
    """Makes references, and samples and fine-tunes many models, together where it can."""

    def references(self, seeds: Sequence[int], progress: Progress | None = None) -> list[Any]:
        """One reference for each seed; different seeds are different initialisations."""
        ...

    def reference_key(self, seed: int) -> Any:
        """What decides a reference, for its place in the store."""
        ...

    def sample(
        self, jobs: Sequence[tuple[Any, Sequence[Chat], Sampling]], progress: Progress | None = None
    ) -> list[list[list[str]]]:
        """`LanguageModel.sample` of each job."""
        ...

    def fine_tune(
        self,
        jobs: Sequence[tuple[Any, Sequence[Example], Tuning]],
        progress: Progress | None = None,
    ) -> list[Any]:
        """`LanguageModel.fine_tune` of each job."""
        ...

    def distil(
        self,
        jobs: Sequence[tuple[Any, Any, Sequence[Example], Tuning]],
        targets: Soft,
        progress: Progress | None = None,
    ) -> list[Any]:
        """The student of each (student, teacher, examples, tuning), on soft targets."""
        ...

    def match(
        self, pairs: Sequence[tuple[Any, Any]], progress: Progress | None = None
    ) -> list[Any]:
        """Behavioural cloning: the first of each pair, trained to answer as the second does."""
        ...

    def save(self, model: Any, folder: Path) -> None:
        """Writes what is needed to have the model again."""
        ...

    def load(self, folder: Path) -> Any:
        """A model that `save` wrote."""
        ...


class Embedded:
    """The embedded model as a provider: populations in one compiled program.

    Args:
        pretraining: how references are made.
        cloning: how behaviour is matched.
    """

    def __init__(self, pretraining: Pretraining | None = None, cloning: Pretraining | None = None):
        self.pretraining = pretraining or Pretraining()
        self.cloning = cloning or Pretraining()

    def references(
        self, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[tiny.TinyModel]:
        return pretrain(seeds, self.pretraining, progress)

    def reference_key(self, seed: int) -> Any:
        return reference_lineage(seed, self.pretraining).identity

    def sample(
        self,
        jobs: Sequence[tuple[tiny.TinyModel, Sequence[Chat], Sampling]],
        progress: Progress | None = None,
    ) -> list[list[list[str]]]:
        return tiny.sample_together(jobs, progress)

    def fine_tune(
        self,
        jobs: Sequence[tuple[tiny.TinyModel, Sequence[Example], Tuning]],
        progress: Progress | None = None,
    ) -> list[tiny.TinyModel]:
        return tiny.fine_tune_together(jobs, progress)

    def distil(
        self,
        jobs: Sequence[tuple[tiny.TinyModel, tiny.TinyModel, Sequence[Example], Tuning]],
        targets: Soft,
        progress: Progress | None = None,
    ) -> list[tiny.TinyModel]:
        return tiny.distil_together(jobs, targets, progress)

    def match(
        self,
        pairs: Sequence[tuple[tiny.TinyModel, tiny.TinyModel]],
        progress: Progress | None = None,
    ) -> list[tiny.TinyModel]:
        return match(pairs, self.cloning, progress)

    def save(self, model: tiny.TinyModel, folder: Path) -> None:
        model.save(folder)

    def load(self, folder: Path) -> tiny.TinyModel:
        return tiny.load(folder)


class OneByOne:
    """Models of any kind, each asked on its own: all that a remote service needs.

    Args:
        models: a reference for each seed, in their order.
        save: writes a model into a folder.
        load: reads it again.
    """

    def __init__(self, models: Sequence[LanguageModel], save: Any, load: Any):
        self.models = list(models)
        self.save = save
        self.load = load

    def references(
        self, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[LanguageModel]:
        return [self.models[seed] for seed in seeds]

    def reference_key(self, seed: int) -> Any:
        return self.models[seed].lineage.identity

    def sample(
        self,
        jobs: Sequence[tuple[LanguageModel, Sequence[Chat], Sampling]],
        progress: Progress | None = None,
    ) -> list[list[list[str]]]:
        return [model.sample(prompts, sampling, progress) for model, prompts, sampling in jobs]

    def fine_tune(
        self,
        jobs: Sequence[tuple[LanguageModel, Sequence[Example], Tuning]],
        progress: Progress | None = None,
    ) -> list[LanguageModel]:
        return [model.fine_tune(examples, tuning, progress) for model, examples, tuning in jobs]

    def distil(
        self,
        jobs: Sequence[tuple[LanguageModel, LanguageModel, Sequence[Example], Tuning]],
        targets: Soft,
        progress: Progress | None = None,
    ) -> list[LanguageModel]:
        raise _needs_probabilities("trained on soft targets")

    def match(
        self, pairs: Sequence[tuple[LanguageModel, LanguageModel]], progress: Progress | None = None
    ) -> list[LanguageModel]:
        raise _needs_probabilities("matched in behaviour")


def _needs_probabilities(what: str) -> HarnessError:
    return HarnessError(
        f"these models cannot be {what}: that needs their probabilities of every token; a provider "
        f"of your own can say how"
    )
