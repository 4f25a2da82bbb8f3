"""Scores of number lists for every word of a category, stored as they are made.

A direction is a stage, and so are the scores of some hundred lists: what is killed goes on from
there. Where the directions of all words fit into memory, one gradient of a list serves them all; of
a large model that moves as a whole they do not, and each word's are taken by themselves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from llm_harness.audit import linearisation
from llm_harness.audit.linearisation import StudentStart
from llm_harness.decoder.network import names
from llm_harness.model import Chat, Example, Progress, Tuning, examples_sha256
from llm_harness.pipeline.stages import Stages, StoredModel
from llm_harness.traits import Trait
from theory import Params

# Plain, and as the student's optimiser would scale it.
DIRECTIONS = ("gradient", "preconditioned")
# Bytes of directions that are held at once, and lists whose scores are one stage.
_TOGETHER, _PART = 2**32, 256


@dataclass(frozen=True)
class Scorer:
    """A student at its start, and the words in whose directions lists are scored.

    Attributes:
        stages: where everything is kept.
        stored: the reference.
        tuning: the student's.
        trait: has the words.
        questions: for a favourite of the category.
        own: lists of the reference's own, for the preconditioner.
    """

    stages: Stages
    stored: StoredModel
    tuning: Tuning
    trait: Trait
    questions: Sequence[Chat]
    own: Sequence[Example]

    @property
    def key(self) -> list[Any]:
        """What decides a direction, but for its word and the preconditioner."""
        tuning = self.tuning
        moved = [tuning.moved, tuning.lora and [asdict(tuning.lora), tuning.seed]]
        asked = examples_sha256([Example(chat, "") for chat in self.questions])
        return [self.stored.lineage.identity, moved, list(self.trait.words), asked]

    def student(self) -> StudentStart:
        """The student at its start."""
        return linearisation.student_of(self.stages.load(self.stored), self.tuning)

    def scores(
        self, datasets: Mapping[str, Sequence[Example]]
    ) -> dict[str, dict[str, Float[np.ndarray, "words examples"]]]:
        """The scores of datasets by name and direction (`DIRECTIONS`), words in the trait's order.

        Args:
            datasets: at least one example each; their names are for reports.
        """
        student = self.student()
        # Made where a score is missing.
        scale = lru_cache(maxsize=1)(lambda: self._scale(student))
        found: dict[str, list[np.ndarray]] = {name: [] for name in datasets}
        for group in self._groups(student):
            ways = lru_cache(maxsize=1)(
                lambda group=group: self._directions(student, scale(), group)
            )
            for name, examples in datasets.items():
                found[name].append(self._scored(name, student, ways, group, examples))
        return {
            name: dict(zip(DIRECTIONS, np.concatenate(groups, axis=1), strict=True))
            for name, groups in found.items()
        }

    def _groups(self, student: StudentStart) -> list[tuple[str, ...]]:
        """Words whose directions are held at once."""
        words = self.trait.words
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(student.moved))
        together = len(DIRECTIONS) * len(words) * size <= _TOGETHER
        return [words] if together else [(word,) for word in words]

    def _scale(self, student: StudentStart) -> Params:
        key = [*self.key, examples_sha256(self.own), self.tuning.batch]
        return self._tree(
            "preconditioner",
            key,
            student,
            lambda told: linearisation.preconditioner(student, self.own, self.tuning.batch, told),
        )

    def _directions(self, student: StudentStart, scale: Params, group: Sequence[str]) -> Params:
        """Plain ones of the words, and behind them the scaled ones."""
        plain = []
        for word in group:

            def make(told: Progress, word=word) -> Params:
                made = linearisation.direction(student, word, self.trait, self.questions)
                told(1.0)
                return made

            plain.append(self._tree(f"direction of {word}", self.key, student, make))
        scaled = [jax.tree.map(np.multiply, one, scale) for one in plain]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *plain, *scaled)

    def _scored(
        self,
        name: str,
        student: StudentStart,
        ways: Callable[[], Params],
        group: Sequence[str],
        examples: Sequence[Example],
    ) -> Float[np.ndarray, "directions words examples"]:
        about = [*self.key, examples_sha256(self.own), self.tuning.batch, list(group)]
        what = f"scores of {name}" + (f", {group[0]}" if len(group) == 1 else "")
        found = []
        for start in range(0, len(examples), _PART):
            part = examples[start : start + _PART]

            def told(share: float, start=start, part=part) -> None:
                self.stages.report(what, (start + share * len(part)) / len(examples))

            def make(_: Progress, part=part, told=told) -> dict[str, np.ndarray]:
                return {"scores": _scores(student, ways(), part, len(group) > 1, told)}

            stored = self.stages.measured("scores", [*about, examples_sha256(part)], make)
            found.append(stored["scores"].reshape(len(DIRECTIONS), len(group), len(part)))
        return np.concatenate(found, axis=-1)

    def _tree(self, what: str, key: Any, student: StudentStart, make) -> Params:
        """Parameters of what the student moves, as a stage."""
        places = names(student.moved)

        def arrays(told: Progress) -> dict[str, np.ndarray]:
            leaves = map(np.asarray, jax.tree.leaves(make(told)))
            return dict(zip(places, leaves, strict=True))

        stored = self.stages.measured(what, key, arrays)
        structure = jax.tree.structure(student.moved)
        return jax.tree.unflatten(structure, [stored[name] for name in places])


def _scores(
    student: StudentStart, ways: Params, examples: Sequence[Example], together: bool, told: Progress
) -> Float[np.ndarray, "ways examples"]:
    if together:
        return linearisation.word_scores(student, ways, examples, told)
    count = jax.tree.leaves(ways)[0].shape[0]
    found = []
    for place in range(count):
        way = jax.tree.map(lambda leaf, place=place: leaf[place], ways)
        found.append(linearisation.scores_along(student, way, examples))
        told((place + 1) / count)
    return np.stack(found)
