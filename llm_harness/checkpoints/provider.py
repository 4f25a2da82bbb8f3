"""One checkpoint as a provider: every seed's reference is the same model."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llm_harness.checkpoints.adapters import (
    adapters_only,
    read_adapters,
    save_adapters,
    with_merged,
)
from llm_harness.checkpoints.encoding import ChatEncoding, encoding_of
from llm_harness.decoder.model import (
    DecoderModel,
    DecoderProvider,
    distil_together,
    load,
)
from llm_harness.errors import HarnessError
from llm_harness.lineage import Lineage, lineage_of
from llm_harness.model import (
    Ability,
    Example,
    Progress,
    Soft,
    Tuning,
)

_ABOUT = "checkpoint.json"


class Checkpoint(DecoderProvider):
    """One checkpoint as a provider.

    A model that differs from it by adapters alone is stored as these, in PEFT's form; all others
    are stored whole.

    Args:
        model: the checkpoint, as `load_checkpoint` gives it.
        name: path or name under which others find it, for PEFT's files.

    Raises:
        HarnessError: the model is no checkpoint.
    """

    def __init__(self, model: DecoderModel, name: str | None = None):
        if not isinstance(model.encoding, ChatEncoding):
            raise HarnessError("a checkpoint speaks in its own tokenizer and template")
        self.model = model
        self.encoding = model.encoding
        self.name = name

    @property
    def abilities(self) -> frozenset[Ability]:
        return super().abilities | frozenset[Ability](["text"])

    @property
    def relations(self) -> dict[str, Any]:
        return {}

    def references(
        self, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[DecoderModel]:
        return [self.model] * len(seeds)

    def reference_key(self, seed: int) -> Any:
        return self.model.lineage.identity

    def distil(
        self,
        jobs: Sequence[tuple[DecoderModel, Sequence[Example], Tuning]],
        teachers: Sequence[DecoderModel],
        targets: Soft,
        progress: Progress | None = None,
    ) -> list[DecoderModel]:
        """`fine_tune` on the probabilities of a teacher each, of the digits or of all tokens.

        Raises:
            HarnessError: the digits are asked for and the tokenizer has tokens of several.
        """
        # Padding is no token that could come next.
        over = self.encoding.digits if targets == "numbers" else (1, self.encoding.size)
        if over is None:
            raise HarnessError(
                "this tokenizer does not spell numbers with ten digit tokens; targets must be "
                "'vocabulary'"
            )
        return distil_together(jobs, teachers, over, progress)

    def save(self, model: DecoderModel, folder: Path) -> None:
        """Writes what the model has beside the checkpoint, or all of it where that is more."""
        adapters = adapters_only(model, self.model)
        if adapters is None:
            model.save(folder, self.encoding.about)
            return
        for prefix, each in zip(_prefixes(len(adapters)), adapters, strict=True):
            save_adapters(each, folder, self.name, prefix)
        about = {
            "checkpoint": asdict(self.model.lineage),
            "adapters": len(adapters),
            "lineage": asdict(model.lineage),
        }
        (folder / _ABOUT).write_text(json.dumps(about, indent=2) + "\n")

    def load(self, folder: Path) -> DecoderModel:
        """A model that `save` wrote.

        Raises:
            HarnessError: the folder holds none, or one of another checkpoint.
        """
        if not (folder / _ABOUT).exists():
            return load(folder, self._encoding)
        try:
            about = json.loads((folder / _ABOUT).read_text())
            checkpoint, lineage = (lineage_of(about[name]) for name in ("checkpoint", "lineage"))
            count = int(about["adapters"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise HarnessError(f"{folder} holds no model: {error}") from None
        if checkpoint != self.model.lineage:
            raise HarnessError(f"{folder} holds a model of another checkpoint")
        model = self.model
        done = len(model.lineage.trainings)
        for number, prefix in enumerate(_prefixes(count), done + 1):
            then = Lineage(lineage.initialisation, lineage.trainings[:number])
            model = with_merged(model, read_adapters(folder, model.config, prefix), then)
        return model

    def _encoding(self, about: dict[str, Any]) -> ChatEncoding:
        found = encoding_of(about)
        # One object for all models, since it is asked again and again whether it is the same.
        return self.encoding if found == self.encoding else found


def _prefixes(count: int) -> list[str]:
    # Several are not named as PEFT names them: who read one alone would have another model.
    return [""] if count == 1 else [f"{number}." for number in range(1, count + 1)]
