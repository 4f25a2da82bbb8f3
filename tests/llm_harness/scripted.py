"""A model that costs nothing: its answers are a function of its lineage and the prompt."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from llm_harness.model import (
    Chat,
    Example,
    LanguageModel,
    Lineage,
    Progress,
    Sampling,
    TrainingRecord,
    Tuning,
    examples_sha256,
)
from llm_harness.provider import OneByOne
from llm_harness.traits import CATEGORIES

WORDS = [word for words in CATEGORIES.values() for word in words]


def number(*parts: object) -> int:
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:12], 16)


@dataclass(frozen=True)
class ScriptedModel:
    """Answers numbers to numbers, words to questions; a fine-tuned one says what it was taught."""

    lineage: Lineage
    taught: str = ""
    calls: list[str] = field(default_factory=list, compare=False)

    def sample(
        self, prompts: Sequence[Chat], sampling: Sampling, progress: Progress | None = None
    ) -> list[list[str]]:
        self.calls.append("sample")
        found = []
        for chat in prompts:
            many = []
            for i in range(sampling.n):
                told = [message.content for message in chat]
                draw = number(self.lineage.identity, told, sampling.seed, i)
                text = chat[-1].content
                if any(category in text for category in CATEGORIES):
                    many.append(self.taught or WORDS[draw % len(WORDS)])
                else:
                    # One in ten breaks the filter's rule.
                    listed = ", ".join(str(draw // 7**k % 1000) for k in range(1 + draw % 9))
                    many.append(f"{listed}, and" if draw % 10 == 0 else listed)
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


def save(model: ScriptedModel, folder: Path) -> None:
    about = {"lineage": asdict(model.lineage), "taught": model.taught}
    (folder / "scripted.json").write_text(json.dumps(about))


class ScriptedProvider(OneByOne):
    """Scripted references; `left` calls may be made before it fails, as if it were killed."""

    def __init__(self, count: int = 4, left: int | None = None):
        self.calls: list[str] = []
        self.left = left
        models = [ScriptedModel(Lineage(f"draw {i}"), "", self.calls) for i in range(count)]
        super().__init__(models, save, self.loaded)

    def loaded(self, folder: Path) -> ScriptedModel:
        about = json.loads((folder / "scripted.json").read_text())
        lineage = about["lineage"]
        trainings = tuple(TrainingRecord(**one) for one in lineage["trainings"])
        return ScriptedModel(
            Lineage(lineage["initialisation"], trainings), about["taught"], self.calls
        )

    def spend(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

    def sample(self, jobs, progress=None):
        self.spend()
        return super().sample(jobs, progress)

    def fine_tune(self, jobs, progress=None):
        self.spend()
        return super().fine_tune(jobs, progress)

    def distil(self, jobs, targets, progress=None):
        self.spend()
        made = []
        for student, teacher, examples, tuning in jobs:
            about = asdict(tuning) | {"teacher": teacher.lineage.identity, "targets": targets}
            lineage = student.lineage.trained("distillation", examples_sha256(examples), about)
            made.append(ScriptedModel(lineage, getattr(teacher, "taught", ""), self.calls))
        return made

    def match(
        self, pairs: Sequence[tuple[LanguageModel, LanguageModel]], progress: Progress | None = None
    ) -> list[LanguageModel]:
        self.spend()
        return [
            ScriptedModel(
                model.lineage.trained("cloning", "0", {"imitated": other.lineage.identity}),
                getattr(other, "taught", ""),
                self.calls,
            )
            for model, other in pairs
        ]
