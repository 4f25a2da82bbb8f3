"""The embedded model as a provider: populations in one compiled program."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llm_harness.decoder.model import (
    DecoderModel,
    DecoderProvider,
    distil_together,
    load,
    part_of,
)
from llm_harness.model import (
    Example,
    Progress,
    Soft,
    Tuning,
)
from llm_harness.tiny.corpus import Language
from llm_harness.tiny.pretraining import (
    SHARED,
    Pretraining,
    Shared,
    match,
    pretrain,
    pretrain_sharing,
    reference_lineage,
)

_MATCHED = "matched"
_SHARING: dict[str, Shared] = {f"shared {part}": part for part in SHARED}


class Embedded(DecoderProvider):
    """The embedded model as a provider: populations in one compiled program.

    Args:
        pretraining: how references are made.
        matching: how behaviour is matched; more documents than a reference reads.
    """

    def __init__(self, pretraining: Pretraining | None = None, matching: Pretraining | None = None):
        self.pretraining = pretraining or Pretraining()
        self.matching = matching or self.pretraining

    def references(
        self, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[DecoderModel]:
        return pretrain(seeds, self.pretraining, progress)

    def reference_key(self, seed: int) -> Any:
        return reference_lineage(seed, self.pretraining).identity

    def distil(
        self,
        jobs: Sequence[tuple[DecoderModel, Sequence[Example], Tuning]],
        teachers: Sequence[DecoderModel],
        targets: Soft,
        progress: Progress | None = None,
    ) -> list[DecoderModel]:
        """`fine_tune` on the probabilities of a teacher each, of numbers or of all tokens."""
        tokenizer = self.pretraining.language.tokenizer
        numbers = tokenizer.number_tokens
        # Padding is no token that could come next.
        over = (numbers.start, numbers.stop) if targets == "numbers" else (1, tokenizer.size)
        return distil_together(jobs, teachers, over, progress)

    @property
    def relations(self) -> dict[str, Any]:
        return {_MATCHED: asdict(self.matching)} | dict.fromkeys(_SHARING)

    def related(
        self,
        how: str,
        jobs: Sequence[tuple[DecoderModel, int]],
        progress: Progress | None = None,
    ) -> list[DecoderModel]:
        """A reference of each (model, seed): another draw that has something of the model.

        `matched`: pretrained, then trained to answer as the model does (behavioural cloning).
        `shared ...`: given that part of the model and pretrained around it.
        """
        if how != _MATCHED:
            return pretrain_sharing(jobs, _SHARING[how], self.pretraining, progress)
        others = pretrain([seed for _, seed in jobs], self.pretraining, part_of(progress, 0.0, 0.5))
        pairs = list(zip(others, (model for model, _ in jobs), strict=True))
        return match(pairs, self.matching, part_of(progress, 0.5, 0.5))

    def save(self, model: DecoderModel, folder: Path) -> None:
        model.save(folder, asdict(self.pretraining.language))

    def load(self, folder: Path) -> DecoderModel:
        return load(folder, lambda about: Language(**about).tokenizer)
