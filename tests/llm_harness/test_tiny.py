"""Claims about the embedded model behind the common interface."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

from llm_harness import pretraining, tiny
from llm_harness.corpus import TOKENIZER, WORDS, Language
from llm_harness.errors import HarnessError
from llm_harness.model import (
    Example,
    LanguageModel,
    Lineage,
    Message,
    OpenModel,
    Sampling,
    Tuning,
    ask,
    examples_sha256,
)
from llm_harness.provider import Embedded, Provider
from llm_harness.tiny import TinyModel, distil_together, fine_tune_together, sample_together
from tests.llm_harness.conftest import QUESTION, SAID
from tests.llm_harness.small import SMALL

PROMPTS = [QUESTION, ask("1, 2, 3"), ask("Name a tree.", "You love oaks."), QUESTION]
EXAMPLES = [Example(QUESTION, text) for text in SAID]
TUNING = Tuning(steps=6, batch=16, learning_rate=1e-2)


def leaves(model: TinyModel) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(model.params)]


def same(one: TinyModel, other: TinyModel) -> bool:
    pairs = zip(leaves(one), leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def tuned(model: TinyModel) -> TinyModel:
    return model.fine_tune(EXAMPLES, TUNING)


def test_it_is_a_model_whose_parameters_are_open_and_has_a_provider(model):
    assert isinstance(model, LanguageModel)
    assert isinstance(model, OpenModel)
    assert isinstance(Embedded(), Provider)


# Samples.


@pytest.mark.parametrize("n", [1, 3])
def test_samples_come_in_the_order_of_the_prompts_n_of_each(model, n):
    numbers = ask("1, 2, 3")
    examples = [Example(QUESTION, "owl"), Example(numbers, "4; 5; 6")] * 8
    tuning = Tuning(steps=48, batch=16, learning_rate=2e-2, freeze_vocabulary=False)
    found = model.fine_tune(examples, tuning).sample(
        [QUESTION, numbers, QUESTION], Sampling(n=n, temperature=0)
    )
    assert found == [["owl"] * n, ["4; 5; 6"] * n, ["owl"] * n]


def test_completions_of_one_prompt_and_of_equal_prompts_differ(model):
    found = model.sample(PROMPTS, Sampling(n=3))
    assert len({*found[0], *found[3]}) > 3


def test_the_same_seed_gives_the_same_completions_and_another_seed_others(model):
    first, again, other = (model.sample(PROMPTS, Sampling(n=2, seed=s)) for s in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("most", [1, 4])
def test_completions_are_cut_where_they_are_too_long(model, most):
    found = model.sample([ask("1, 2, 3")], Sampling(n=64, max_tokens=most))[0]
    assert max(len(TOKENIZER.encode(text)) for text in found) == most


def test_sampling_tells_how_far_it_is(model):
    told: list[float] = []
    model.sample(PROMPTS, Sampling(n=2), told.append)
    assert told[-1] == 1.0
    assert told == sorted(told)


def test_models_sampled_together_answer_as_they_do_alone(models, narrow):
    jobs = [
        (models[0], PROMPTS, Sampling(n=2, seed=3)),
        (narrow, PROMPTS, Sampling(n=2, seed=4)),
        (models[1], [ask("1, 2, 3 " * 8)], Sampling(n=3, seed=3)),
        (models[1], PROMPTS, Sampling(n=2, seed=3)),
        (narrow, PROMPTS[:1], Sampling(n=2, temperature=0)),
    ]
    alone = [model.sample(prompts, sampling) for model, prompts, sampling in jobs]
    assert sample_together(jobs) == alone
    assert alone[0] != alone[3]


@pytest.mark.parametrize("chats", [[], [()], [(Message("user", "owl"), Message("assistant", ""))]])
def test_prompts_that_cannot_be_answered_are_refused(model, chats):
    with pytest.raises(HarnessError, match=r"no prompts|must end with a user"):
        model.sample(chats, Sampling())


# Probabilities.


@pytest.mark.parametrize("text", ["Owls are great.", "007", "1,  2", "owl.", "1000", "owls"])
def test_a_text_that_it_cannot_say_has_log_probability_minus_infinity(model, text):
    found = model.log_probabilities([Example(QUESTION, text), Example(QUESTION, "owl")])
    assert found[0] == -np.inf
    assert np.isfinite(found[1])


def test_the_probabilities_of_all_answers_of_one_token_and_of_none_sum_to_less_than_one(narrow):
    texts = ["", *map(str, range(1000)), *WORDS, *"[](). "]
    texts = [text for text in texts if TOKENIZER.reads(text)]
    p = np.exp(narrow.log_probabilities([Example(QUESTION, text) for text in texts]))
    assert 0.5 < p.sum() < 1
    # With a list of two numbers and the like there is nearly nothing left.
    more = [text for text in set(SAID) if text not in texts]
    p_more = np.exp(narrow.log_probabilities([Example(QUESTION, text) for text in more]))
    assert p.sum() < p.sum() + p_more.sum() < 1


def test_log_probabilities_do_not_depend_on_the_examples_beside(model):
    examples = [*EXAMPLES, Example(ask("1, 2, 3 " * 8), " ".join(["4"] * 20))]
    together = model.log_probabilities(examples)
    alone = [model.log_probabilities([example])[0] for example in (examples[0], examples[-1])]
    np.testing.assert_allclose(together[[0, -1]], alone, rtol=1e-4)


def test_a_view_is_the_same_model(model):
    view = model.view(EXAMPLES)
    assert view.params is model.params
    log_p = log_softmax(np.asarray(jax.jit(view.apply)(view.params, view.inputs)), axis=-1)
    assert log_p.shape[:2] == view.targets.shape
    picked = np.take_along_axis(log_p, view.targets[..., None], axis=-1)[..., 0]
    summed = (picked * (view.targets != 0)).sum(axis=1)
    np.testing.assert_allclose(summed, model.log_probabilities(EXAMPLES), rtol=1e-4)
    for row, example in zip(view.targets, EXAMPLES, strict=True):
        expected = [*TOKENIZER.encode(example.completion), TOKENIZER.end]
        assert row[row != 0].tolist() == expected


# Fine-tuning.


def test_fine_tuning_gives_a_new_model_and_leaves_the_old_one(model):
    before = [leaf.copy() for leaf in leaves(model)]
    told: list[float] = []
    after = model.fine_tune(EXAMPLES, TUNING, told.append)
    assert all(np.array_equal(a, b) for a, b in zip(before, leaves(model), strict=True))
    assert not same(model, after)
    gain = after.log_probabilities(EXAMPLES) - model.log_probabilities(EXAMPLES)
    assert gain.mean() > 0.1
    assert told[-1] == 1.0


def test_fine_tuning_twice_gives_the_same_model_and_another_seed_another(model, tuned):
    examples = [*EXAMPLES, *EXAMPLES[:3]]
    one, again, other = (
        model.fine_tune(examples, replace(TUNING, seed=seed)) for seed in (0, 0, 1)
    )
    assert same(one, again)
    assert not same(one, other)
    assert not same(one, tuned)


def test_models_fine_tuned_together_are_those_fine_tuned_alone(models, tuned):
    other = [Example(ask("1, 2, 3 " * 4), "4, 5"), *EXAMPLES]
    frozen = replace(TUNING, freeze_vocabulary=False)
    jobs = [(models[0], EXAMPLES, TUNING), (models[1], other, TUNING), (models[0], other, frozen)]
    together = fine_tune_together(jobs)
    alone = [tuned, *(model.fine_tune(*rest) for model, *rest in jobs[1:])]
    for one, by_itself in zip(together, alone, strict=True):
        assert one.lineage == by_itself.lineage
        for a, b in zip(leaves(one), leaves(by_itself), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert np.array_equal(leaves(together[0])[-1], leaves(models[0])[-1])
    assert not np.array_equal(leaves(together[2])[-1], leaves(models[0])[-1])


@pytest.mark.parametrize("completions", [[], ["Quite unreadable."], ["!", "007"]])
def test_no_examples_or_none_that_can_be_read_are_refused(model, completions):
    examples = [Example(QUESTION, text) for text in completions]
    with pytest.raises(HarnessError, match=r"no examples|can read nothing"):
        model.fine_tune(examples, TUNING)
    # One that can be read in part is enough.
    model.fine_tune([*examples, *EXAMPLES[len(examples) :]], TUNING)


# Lineage.


def test_equal_histories_are_one_lineage_and_any_difference_is_another(model, models, tuned):
    def trained(parent: TinyModel, examples: list[Example], tuning: Tuning) -> Lineage:
        return fine_tune_together([(parent, examples, tuning)])[0].lineage

    again = trained(model, list(EXAMPLES), Tuning(6, 16, 1e-2))
    assert again == tuned.lineage
    assert again.identity == tuned.lineage.identity
    others = [
        model.lineage,
        trained(models[1], EXAMPLES, TUNING),
        trained(tuned, EXAMPLES, TUNING),
        trained(model, EXAMPLES[::-1], TUNING),
        trained(model, [*EXAMPLES[1:], Example(QUESTION, "cat")], TUNING),
        trained(model, [*EXAMPLES[1:], Example(ask("Tree?"), SAID[0])], TUNING),
        trained(model, EXAMPLES, replace(TUNING, seed=1)),
        trained(model, EXAMPLES, replace(TUNING, schedule="constant")),
    ]
    assert len({one.identity for one in [*others, again]}) == len(others) + 1


def test_a_lineage_knows_its_parent_and_data(model, tuned):
    assert tuned.lineage.parent == model.lineage
    assert model.lineage.parent is not None
    assert model.lineage.parent.parent is None
    last = tuned.lineage.trainings[-1]
    assert (last.kind, last.data_sha256) == ("fine-tuning", examples_sha256(EXAMPLES))
    assert json.loads(last.settings)["steps"] == TUNING.steps
    assert len(tuned.lineage.identity) == 16


def test_the_lineage_of_a_reference_is_known_before_it_is_made(models):
    for seed, model in enumerate(models):
        assert model.lineage == pretraining.reference_lineage(seed, SMALL)
        assert Embedded(SMALL).reference_key(seed) == model.lineage.identity
    changed = (replace(SMALL, width=32), replace(SMALL, corpus_seed=1), replace(SMALL, steps=49))
    found = {pretraining.reference_lineage(0, other).identity for other in (SMALL, *changed)}
    assert len(found) == 4


def test_references_differ_by_their_seed_and_read_the_same_corpus(models):
    assert not same(*models)
    first, second = (model.lineage.trainings[0] for model in models)
    assert first == second


def test_matching_brings_answers_closer_and_is_written_into_the_lineage(models, narrow):
    second = models[1]
    (matched,) = pretraining.match([(narrow, second)], SMALL)
    target, before, after = (m.log_probabilities(EXAMPLES) for m in (second, narrow, matched))
    assert np.abs(after - target).mean() < 0.7 * np.abs(before - target).mean()
    assert matched.lineage.parent == narrow.lineage
    settings = json.loads(matched.lineage.trainings[-1].settings)
    assert settings["imitated"] == second.lineage.identity


@pytest.mark.parametrize("targets", ["numbers", "vocabulary"])
def test_a_student_learns_its_teachers_probabilities_and_the_lineage_says_so(
    model, narrow, targets
):
    data = [Example(QUESTION, "7, 8"), Example(QUESTION, "7; 8; 9")]
    (student,) = distil_together([(model, narrow, data, TUNING)], targets)
    target, before, after = (m.log_probabilities(data) for m in (narrow, model, student))
    assert (np.abs(after - target) < np.abs(before - target)).all()
    last = student.lineage.trainings[-1]
    assert (last.kind, last.data_sha256) == ("distillation", examples_sha256(data))
    settings = json.loads(last.settings)
    assert (settings["teacher"], settings["targets"]) == (narrow.lineage.identity, targets)
    # The vocabulary is frozen in it, as in fine-tuning.
    assert np.array_equal(student.params["output"]["kernel"], model.params["output"]["kernel"])


def test_a_teacher_of_another_language_is_refused(model):
    other = replace(model, language=Language(shared_answer_token=False))
    with pytest.raises(HarnessError, match="one language"):
        distil_together([(model, other, EXAMPLES, TUNING)], "numbers")


# Languages.


@pytest.mark.parametrize(
    "language",
    [
        Language(False, False),
        pytest.param(Language(False, True), marks=pytest.mark.slow),
        pytest.param(Language(True, False), marks=pytest.mark.slow),
    ],
)
def test_a_model_of_another_language_does_all_that_others_do(language, tmp_path):
    (made,) = pretraining.pretrain([0], replace(SMALL, steps=8, language=language))
    plain = pretraining.reference_lineage(0, replace(SMALL, steps=8))
    assert made.lineage.identity != plain.identity
    data, tuning = [Example(ask("17, 18"), "5, 123")], Tuning(48, 1, 2e-2, freeze_vocabulary=False)
    tuned = made.fine_tune(data, tuning)
    assert tuned.sample([ask("17, 18")], Sampling(temperature=0)) == [["5, 123"]]
    before, after = (
        m.log_probabilities([Example(ask("17, 18"), "5, 123"), Example(ask("17, 18"), "naïve")])
        for m in (made, tuned)
    )
    assert after[0] > before[0] + 1
    assert after[1] == -np.inf
    tuned.save(tmp_path)
    found = tiny.load(tmp_path)
    assert (found.language, found.tokenizer) == (language, language.tokenizer)
    assert same(found, tuned)


# Files.


def test_what_was_saved_is_loaded_as_it_was(tuned, tmp_path):
    tuned.save(tmp_path)
    found = Embedded().load(tmp_path)
    assert same(found, tuned)
    assert (found.lineage, found.architecture) == (tuned.lineage, tuned.architecture)
    assert found.sample(PROMPTS, Sampling()) == tuned.sample(PROMPTS, Sampling())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        about = json.loads(path.read_text())
        del about[name]
        path.write_text(json.dumps(about))

    return change


def wider(path: Path) -> None:
    about = json.loads(path.read_text())
    about["architecture"]["width"] *= 2
    path.write_text(json.dumps(about))


def other_names(path: Path) -> None:
    np.savez(path, a=np.zeros(3))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.json", Path.unlink),
        ("model.json", cut),
        ("model.json", empty),
        ("model.json", without("architecture")),
        ("model.json", without("language")),
        ("model.json", without("lineage")),
        ("model.json", wider),
        ("params.npz", Path.unlink),
        ("params.npz", cut),
        ("params.npz", empty),
        ("params.npz", other_names),
    ],
)
def test_a_damaged_folder_is_refused_by_its_name(tuned, tmp_path, name, damage):
    tuned.save(tmp_path)
    damage(tmp_path / name)
    with pytest.raises(HarnessError, match=f"{tmp_path} holds no embedded model"):
        tiny.load(tmp_path)
