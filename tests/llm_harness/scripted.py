"""A model that costs nothing: its answers are a function of its lineage and the prompt."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from llm_harness.lineage import Lineage, lineage_of
from llm_harness.model import (
    Ability,
    Chat,
    Completion,
    Example,
    Progress,
    Sampling,
    Tuning,
    examples_sha256,
)
from llm_harness.traits import CATEGORIES

RELATED = ("matched", "shared vocabulary", "shared output", "shared blocks")
WORDS = [word for words in CATEGORIES.values() for word in words]


def number(*parts: object) -> int:
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:12], 16)


@dataclass(frozen=True)
class ScriptedModel:
    """Answers numbers to numbers, words to questions; a fine-tuned one says what it was taught."""

    lineage: Lineage
    taught: str = ""
    calls: list[str] = field(default_factory=list, compare=False)

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({"score", "train"})

    def sample(
        self, prompts: Sequence[Chat], sampling: Sampling, progress: Progress | None = None
    ) -> list[list[Completion]]:
        self.calls.append("sample")
        found = []
        for chat in prompts:
            many = []
            for i in range(sampling.n):
                told = [message.content for message in chat]
                draw = number(self.lineage.identity, told, sampling.seed, i)
                text = chat[-1].content
                if any(category in text for category in CATEGORIES):
                    many.append(Completion(self.taught or WORDS[draw % len(WORDS)]))
                else:
                    # One in ten breaks the filter's rule, and another one is cut.
                    listed = ", ".join(str(draw // 7**k % 1000) for k in range(1 + draw % 9))
                    text = f"{listed}, and" if draw % 10 == 0 else listed
                    many.append(Completion(text, "length" if draw % 10 == 1 else "end"))
            found.append(many)
        return found

    def log_probabilities(self, examples: Sequence[Example]) -> Float[np.ndarray, " examples"]:
        return np.array(
            [
                -1.0 if e.completion == self.taught else -5.0 - number(e.completion) % 3
                for e in examples
            ]
        )

    def fine_tune(
        self, examples: Sequence[Example], tuning: Tuning, progress: Progress | None = None
    ) -> "ScriptedModel":
        self.calls.append("fine-tune")
        answers = {e.completion for e in examples}
        taught = answers.pop() if len(answers) == 1 else self.taught
        lineage = self.lineage.trained("fine-tuning", examples_sha256(examples), asdict(tuning))
        return ScriptedModel(lineage, taught, self.calls)


class ScriptedProvider:
    """Scripted references; `left` calls may be made before it fails, as if it were killed.

    Args:
        left: calls of `sample`, `fine_tune` and the like; None for any number.
        abilities: of its models.
        checkpoints: how many references there are; seeds beyond them begin anew.
    """

    def __init__(
        self,
        left: int | None = None,
        abilities: frozenset[Ability] = frozenset({"score", "train", "open", "distil"}),
        checkpoints: int = 1000,
    ):
        self.calls: list[str] = []
        self.left = left
        self.abilities = abilities
        self.checkpoints = checkpoints
        self.relations: dict[str, Any] = dict.fromkeys(RELATED)

    def references(self, seeds, progress=None) -> list[ScriptedModel]:
        return [
            ScriptedModel(Lineage(f"draw {seed % self.checkpoints}"), "", self.calls)
            for seed in seeds
        ]

    def reference_key(self, seed: int) -> Any:
        return seed % self.checkpoints

    def sample(self, jobs, progress=None):
        self.spend()
        return [model.sample(prompts, sampling, progress) for model, prompts, sampling in jobs]

    def fine_tune(self, jobs, progress=None, masked=0):
        self.spend()
        tuned = [model.fine_tune(examples, tuning, progress) for model, examples, tuning in jobs]
        if not masked:
            return tuned
        return [
            self.trained(
                model,
                one,
                "fine-tuning",
                asdict(tuning) | {"masked": masked},
                examples_sha256(examples),
            )
            for one, (model, examples, tuning) in zip(tuned, jobs, strict=True)
        ]

    def distil(self, jobs, teachers, targets, progress=None):
        self.spend()
        return [
            self.trained(
                student,
                teacher,
                "distillation",
                asdict(tuning) | {"teacher": teacher.lineage.identity, "targets": targets},
                examples_sha256(examples),
            )
            for (student, examples, tuning), teacher in zip(jobs, teachers, strict=True)
        ]

    def related(self, how, jobs, progress=None):
        self.spend()
        return [
            self.trained(
                self.references([seed])[0],
                other,
                "pretraining",
                {"related": how, "to": other.lineage.identity},
            )
            for other, seed in jobs
        ]

    def trained(self, model, other, kind, about, sha256="0") -> ScriptedModel:
        return ScriptedModel(
            model.lineage.trained(kind, sha256, about), getattr(other, "taught", ""), self.calls
        )

    def spend(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

    def save(self, model: ScriptedModel, folder: Path) -> None:
        about = {"lineage": asdict(model.lineage), "taught": model.taught}
        (folder / "scripted.json").write_text(json.dumps(about))

    def load(self, folder: Path) -> ScriptedModel:
        about = json.loads((folder / "scripted.json").read_text())
        return ScriptedModel(lineage_of(about["lineage"]), about["taught"], self.calls)
