"""Who makes models: the part of the pipeline that knows of more than one model at a time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from llm_harness.model import Ability, Chat, Completion, Example, Progress, Sampling, Tuning


@runtime_checkable
class Provider(Protocol):
    """Makes references, and samples and fine-tunes many models, together where it can.

    Two more methods are for models whose probabilities and parameters are ours, as the embedded
    one: `distil(jobs, teachers, targets, progress)`, as `fine_tune` on the probabilities of a
    teacher each; and `related(how, jobs, progress)`, for each (model, seed) a reference that has
    something in common with the model; `how` is one of `relations`. Their `fine_tune` takes
    `masked` too, tokens at the start of each completion that are not learnt.
    """

    @property
    def relations(self) -> Mapping[str, Any]:
        """What a reference can have in common with another model, and what decides how."""
        ...

    @property
    def abilities(self) -> frozenset[Ability]:
        """What its models can do; asked before any work begins."""
        ...

    def references(self, seeds: Sequence[int], progress: Progress | None = None) -> list[Any]:
        """One reference for each seed; different seeds are different initialisations."""
        ...

    def reference_key(self, seed: int) -> Any:
        """What decides a reference, for its place in the store."""
        ...

    def sample(
        self, jobs: Sequence[tuple[Any, Sequence[Chat], Sampling]], progress: Progress | None = None
    ) -> list[list[list[Completion]]]:
        """`LanguageModel.sample` of each job."""
        ...

    def fine_tune(
        self,
        jobs: Sequence[tuple[Any, Sequence[Example], Tuning]],
        progress: Progress | None = None,
    ) -> list[Any]:
        """`LanguageModel.fine_tune` of each job."""
        ...

    def save(self, model: Any, folder: Path) -> None:
        """Writes what is needed to have the model again."""
        ...

    def load(self, folder: Path) -> Any:
        """A model that `save` wrote."""
        ...
