"""Where a model comes from: what it was drawn as, and everything that it was trained on since."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class TrainingRecord:
    """One step of a model's history.

    Attributes:
        kind: `pretraining`, `fine-tuning`, `distillation` or `cloning`.
        data_sha256: of what it was trained on, as `model.examples_sha256` gives for examples.
        settings: everything else that decides the outcome, as JSON.
    """

    kind: str
    data_sha256: str
    settings: str


@dataclass(frozen=True)
class Lineage:
    """Where a model comes from. Two models with the same lineage are the same model.

    Attributes:
        initialisation: names the draw of parameters, or the checkpoint or hosted model.
        trainings: everything it was trained on since, in order.
    """

    initialisation: str
    trainings: tuple[TrainingRecord, ...] = ()

    @cached_property
    def identity(self) -> str:
        """16 hexadecimal digits that stand for all of it."""
        return sha256_of(asdict(self))[:16]

    def trained(self, kind: str, data_sha256: str, settings: dict[str, Any]) -> "Lineage":
        """The lineage after one more training."""
        text = json.dumps(settings, sort_keys=True)
        return Lineage(
            self.initialisation, (*self.trainings, TrainingRecord(kind, data_sha256, text))
        )


def lineage_of(value: dict[str, Any]) -> Lineage:
    """The lineage that `dataclasses.asdict` made `value` of.

    Raises:
        KeyError, TypeError: it is something else.
    """
    trainings = tuple(TrainingRecord(**training) for training in value["trainings"])
    return Lineage(value["initialisation"], trainings)


def sha256_of(value: Any) -> str:
    """SHA-256 of a value that JSON can write."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
