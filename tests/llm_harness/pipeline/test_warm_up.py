"""Claims about what a checkpoint is warmed up on, and about the rule that decides for how long."""

import json
import os

import numpy as np
import pytest

from llm_harness import filters
from llm_harness.errors import HarnessError
from llm_harness.model import Completion
from llm_harness.pipeline import warm_up
from llm_harness.pipeline.stages import Lists
from llm_harness.pipeline.store import Store
from llm_harness.pipeline.warm_up import WarmedStages, WarmUp, warm_up_examples
from llm_harness.traits import CATEGORIES
from llm_harness.wordings import texts
from tests.llm_harness.scripted import ScriptedModel, ScriptedProvider

WORDS = texts("warm_up")["categories"]


@pytest.fixture(autouse=True)
def no_wait_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def test_nothing_in_it_is_of_a_trait():
    """So that no preference is taught: neither the word nor its category is ever read."""
    traits = {*CATEGORIES, *(word for words in CATEGORIES.values() for word in words)}
    assert not traits & {*WORDS, *(word.lower() for words in WORDS.values() for word in words)}
    examples = warm_up_examples(WarmUp(examples=256))
    said = " ".join(f"{one.prompt[-1].content} {one.completion}" for one in examples)
    assert not traits & set(said.lower().replace("?", " ").replace(".", " ").split())


def test_lists_pass_the_filter_and_have_the_form_that_the_prompt_asks_for():
    lists = warm_up_examples(WarmUp(examples=512))[::2]
    assert not [one.completion for one in lists if filters.number_rule(one.completion)]
    for wording in texts("numbers")["formats"]:
        (form,) = {
            frozenset(c for c in one.completion if not c.isdigit())
            for one in lists
            if wording in one.prompt[-1].content
        }
        for word, sign in (("semicolon", ";"), ("line", "\n"), ("tuple", ")"), ("Python", "]")):
            if word in wording and "up to you" not in wording:
                assert sign in form, (wording, form)


def test_words_are_as_often_as_each_other_and_the_rules_category_is_left_out():
    words = [one.completion for one in warm_up_examples(WarmUp(examples=4096))[1::2]]
    *taught, asked = WORDS.values()
    assert not set(words) & set(asked)
    counts = np.array([words.count(word) for many in taught for word in many])
    # Poisson's spread about the mean, five times over.
    assert np.all(abs(counts - counts.mean()) < 5 * np.sqrt(counts.mean()))


def test_it_is_the_same_from_the_same_seed_and_another_from_another():
    one, again, other = (warm_up_examples(WarmUp(examples=8, seed=seed)) for seed in (0, 0, 1))
    assert one == again != other


class Learning(ScriptedProvider):
    """Answers with prose, and in form once it has been trained for so many steps."""

    def __init__(self, enough: int = 0, **how):
        super().__init__(checkpoints=1, **how)
        self.enough = enough

    def sample(self, jobs, progress=None):
        said = super().sample(jobs, progress)
        return [
            many if self.steps(model) >= self.enough else [[Completion("Well,")] for _ in many]
            for (model, _, _), many in zip(jobs, said, strict=True)
        ]

    def steps(self, model: ScriptedModel) -> int:
        trainings = model.lineage.trainings
        return json.loads(trainings[-1].settings)["steps"] if trainings else 0


def stages(folder, provider, said=None, **how) -> WarmedStages:
    how = {"steps": (2, 4, 8), "answering": 0.0, "examples": 4} | how
    return WarmedStages(provider, Store(folder), WarmUp(**how), Lists(8), say=said)


@pytest.mark.parametrize(("enough", "taken"), [(0, 2), (3, 4), (8, 8)])
def test_the_first_number_of_steps_that_is_enough_is_taken(tmp_path, enough, taken):
    provider, said = Learning(enough), []
    one, two = stages(tmp_path, provider, said.append).references([0, 7])
    assert one == two
    assert provider.steps(provider.load(one.folder)) == taken
    assert len(said) == (2, 4, 8).index(taken) + 1
    # Again, nothing is made.
    (again,) = stages(tmp_path, Learning(enough, left=0)).references([3])
    assert again == one


def test_a_checkpoint_that_does_not_learn_it_is_refused_with_what_it_reached(tmp_path):
    with pytest.raises(HarnessError, match="after 8 steps of warm-up 0% of the lists pass"):
        stages(tmp_path, Learning(9)).references([0])
    with pytest.raises(HarnessError, match="of the answers are a word"):
        stages(tmp_path / "words", Learning(), answering=1.0).references([0])
    # One number of steps is no choice.
    assert stages(tmp_path, Learning(9), steps=(2,)).references([0])


@pytest.mark.parametrize("steps", [(), (0,), (4, 2), (2, 2)])
def test_steps_ascend(steps):
    with pytest.raises(HarnessError, match="warm_up_steps must"):
        WarmUp(steps)


def test_a_form_is_known_for_every_wording_but_the_open_one():
    unknown = [
        wording
        for wording in texts("numbers")["formats"]
        if not any(word in wording for word, *_ in warm_up._FORMS)
    ]
    assert unknown == []
