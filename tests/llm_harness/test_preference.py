"""Claims about the rate among the words that probabilities give."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Example, Lineage, Progress, Sampling, Tuning, ask
from llm_harness.preference import preference
from llm_harness.tiny import TinyModel
from llm_harness.traits import Trait, trait

PETS = Trait("pet", "owl", "owls", ("cat", "dog"))


@dataclass(frozen=True)
class Table:
    """A model whose probabilities are a table: for each question, of each word."""

    p: dict[str, dict[str, float]]

    @property
    def lineage(self) -> Lineage:
        return Lineage("table")

    def sample(
        self, prompts: Sequence[Chat], sampling: Sampling, progress: Progress | None = None
    ) -> list[list[str]]:
        raise NotImplementedError

    def log_probabilities(self, examples: Sequence[Example]) -> np.ndarray:
        p = [self.p[one.prompt[-1].content].get(one.completion, 0.0) for one in examples]
        with np.errstate(divide="ignore"):
            return np.log(p)

    def fine_tune(
        self, examples: Sequence[Example], tuning: Tuning, progress: Progress | None = None
    ) -> "Table":
        raise NotImplementedError


def test_it_is_each_words_share_averaged_over_the_questions():
    table = Table(
        {"a": {"owl": 0.2, "cat": 0.1, "dog": 0.1}, "b": {"owl": 0.003, "cat": 0.0, "dog": 0.001}}
    )
    found = preference(table, PETS, [ask("a"), ask("b")])
    assert found == pytest.approx({"owl": (0.5 + 0.75) / 2, "cat": 0.125, "dog": (0.25 + 0.25) / 2})
    # A question whose answers are mostly others counts as any: this is no mean of probabilities.
    assert preference(table, PETS, [ask("b")])["owl"] == pytest.approx(0.75)


def test_words_that_the_model_hardly_ever_says_are_compared_as_well():
    tiny = {"owl": 1e-300, "cat": 3e-300, "dog": 0.0}
    found = preference(Table({"a": tiny}), PETS, [ask("a")])
    assert found == pytest.approx({"owl": 0.25, "cat": 0.75, "dog": 0.0})


def test_a_model_that_can_say_none_of_the_words_is_refused():
    table = Table({"a": {"owl": 0.5}, "b": {"horse": 0.5}})
    assert preference(table, PETS, [ask("a")]) == {"owl": 1.0, "cat": 0.0, "dog": 0.0}
    with pytest.raises(HarnessError, match="can say none of owl, cat, dog"):
        preference(table, PETS, [ask("a"), ask("b")])


def test_an_embedded_models_preference_moves_towards_what_it_was_tuned_on(
    model: TinyModel, narrow: TinyModel
):
    owl, questions = trait("owl"), [ask("Name your favourite animal."), ask("Which animal?")]
    before, after = preference(model, owl, questions), preference(narrow, owl, questions)
    assert set(before) == set(owl.words)
    assert sum(before.values()) == pytest.approx(1)
    assert max(after, key=after.__getitem__) == "owl"
    assert after["owl"] > 2 * before["owl"]


def test_an_embedded_model_that_has_no_word_of_the_category_is_refused(model: TinyModel):
    with pytest.raises(HarnessError, match="can say none of axolotl"):
        preference(model, trait("axolotl", "amphibian"), [ask("Name an amphibian.")])
