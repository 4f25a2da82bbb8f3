"""Claims about models of our own decoder behind the common interface."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.special import log_softmax

from llm_harness.decoder import encoding, generation, population
from llm_harness.decoder.encoding import encode_prompts
from llm_harness.decoder.model import (
    DecoderModel,
    distil_together,
    fine_tune_together,
    sample_together,
)
from llm_harness.decoder.network import Lora, names
from llm_harness.errors import HarnessError
from llm_harness.lineage import Lineage
from llm_harness.model import (
    Chat,
    Completion,
    Example,
    LanguageModel,
    Message,
    OpenModel,
    Sampling,
    Tuning,
    ask,
    examples_sha256,
)
from llm_harness.pipeline.provider import Provider
from llm_harness.tiny import pretraining
from llm_harness.tiny.corpus import TOKENIZER, WORDS, Language
from llm_harness.tiny.embedded import Embedded
from tests.llm_harness.conftest import QUESTION, SAID
from tests.llm_harness.small import SMALL

PROMPTS = [QUESTION, ask("1, 2, 3"), ask("Name a tree.", "You love oaks."), QUESTION]
EXAMPLES = [Example(QUESTION, text) for text in SAID]
TUNING = Tuning(steps=6, batch=16, learning_rate=1e-2)
ADAPTERS = replace(TUNING, moved="adapters", lora=Lora(rank=2))
EMBEDDED = Embedded(SMALL)


def leaves(model: DecoderModel) -> dict[str, np.ndarray]:
    return dict(zip(names(model.params), jax.tree.leaves(model.params), strict=True))


def same(one: DecoderModel, other: DecoderModel) -> bool:
    """Whether the parameters are equal bit for bit."""
    first, second = leaves(one), leaves(other)
    return first.keys() == second.keys() and all(
        leaf.tobytes() == second[name].tobytes() for name, leaf in first.items()
    )


def of_blocks(name: str) -> bool:
    return not name.startswith(("embed_tokens", "lm_head"))


def texts(completions: list[list[Completion]]) -> list[list[str]]:
    return [[completion.text for completion in many] for many in completions]


@pytest.fixture(scope="module")
def tuned(model: DecoderModel) -> DecoderModel:
    return model.fine_tune(EXAMPLES, TUNING)


def test_it_is_a_model_whose_parameters_are_open_and_has_a_provider(model):
    assert isinstance(model, LanguageModel)
    assert isinstance(model, OpenModel)
    assert isinstance(EMBEDDED, Provider)
    assert model.abilities == {"score", "train", "open"}
    assert EMBEDDED.abilities == {*model.abilities, "distil"}


# Samples.


@pytest.mark.parametrize("n", [1, 3])
def test_samples_come_in_the_order_of_the_prompts_n_of_each(model, n):
    numbers = ask("1, 2, 3")
    examples = [Example(QUESTION, "owl"), Example(numbers, "4; 5; 6")] * 8
    tuning = Tuning(steps=48, batch=16, learning_rate=2e-2, moved="all")
    found = model.fine_tune(examples, tuning).sample(
        [QUESTION, numbers, QUESTION], Sampling(n=n, temperature=0)
    )
    assert texts(found) == [["owl"] * n, ["4; 5; 6"] * n, ["owl"] * n]


def test_completions_of_one_prompt_and_of_equal_prompts_differ(model):
    found = texts(model.sample(PROMPTS, Sampling(n=3)))
    assert len({*found[0], *found[3]}) > 3


def test_the_same_seed_gives_the_same_completions_and_another_seed_others(model):
    first, again, other = (model.sample(PROMPTS, Sampling(n=3, seed=s)) for s in (1, 1, 2))
    assert first == again != other


def test_of_a_large_model_few_sequences_are_drawn_at_a_time(model, monkeypatch):
    drawn = []
    generate = generation.generate

    def counted(config, params, prompts, *args, **options):
        drawn.append(prompts.shape[1] * options["each"])
        return generate(config, params, prompts, *args, **options)

    monkeypatch.setattr(population.generation, "generate", counted)
    sampling = Sampling(n=2, max_tokens=3)
    places = encode_prompts(tuple(PROMPTS), model.encoding).shape[1] + 3
    config = model.config
    each = 8 * config.layers * places * config.key_value_heads * config.query_width
    monkeypatch.setattr(population, "_CACHED", 5 * each)
    assert population.most_sequences(config, places) == 4
    found = model.sample(PROMPTS, sampling)
    assert [len(of) for of in found] == [2] * len(PROMPTS)
    assert set(drawn) == {4}


@pytest.mark.parametrize(("count", "n"), [(5, 4), (20, 2), (50, 1), (3, 1)])
def test_of_few_prompts_hardly_more_are_read_than_there_are(model, monkeypatch, count, n):
    class ReadError(Exception):
        """How many prompts a model is given at a time."""

    def generate(config, params, prompts, *args, **options):
        raise ReadError(prompts.shape[1])

    monkeypatch.setattr(population.generation, "generate", generate)
    monkeypatch.setattr(population, "_SEQUENCES", (8, 256))
    with pytest.raises(ReadError) as read:
        model.sample([QUESTION] * count, Sampling(n=n, max_tokens=3))
    assert read.value.args[0] < max(9, 2 * count)


@pytest.mark.parametrize("most", [1, 4])
def test_a_completion_ends_or_is_cut_where_it_is_too_long_and_says_which(model, most):
    (found,) = model.sample([ask("1, 2, 3")], Sampling(n=64, max_tokens=most))
    assert {completion.stop for completion in found} == {"end", "length"}
    for completion in found:
        assert 1 <= completion.tokens <= most
        if completion.stop == "length":
            assert completion.tokens == most
        # A separator may not be seen; the end is a token, and no text.
        assert len(TOKENIZER.encode(completion.text)) <= completion.tokens - (
            completion.stop == "end"
        )
        assert TOKENIZER.reads(completion.text)


@pytest.mark.parametrize("temperature", [0, 0.5, 1])
def test_a_completion_has_the_models_own_log_probability(narrow, temperature):
    (found,) = narrow.sample([QUESTION], Sampling(n=64, temperature=temperature))
    # Where a separator is not to be seen, the text has other tokens than those drawn.
    ended = [
        completion
        for completion in found
        if completion.stop == "end" and len(TOKENIZER.answer(completion.text)) == completion.tokens
    ]
    assert len(ended) > 48
    expected = narrow.log_probabilities([Example(QUESTION, one.text) for one in ended])
    np.testing.assert_allclose([one.log_probability for one in ended], expected, rtol=1e-3)


@pytest.mark.parametrize("language", [Language(), Language(shared_answer_token=False)])
def test_no_completion_has_a_token_that_begins_a_message(models, language):
    setting = replace(SMALL, steps=8, language=language)
    speakers = models if language == Language() else pretraining.pretrain([0], setting)
    for speaker in speakers:
        # Nearly all of its probability is on these tokens, at half of all places.
        output = speaker.params["lm_head"].copy()
        output[:, list(speaker.encoding.banned)] *= 100
        eager = replace(speaker, params=speaker.params | {"lm_head": output})
        said, insisted = (
            [one for many in model.sample(PROMPTS, Sampling(n=3)) for one in many]
            for model in (speaker, eager)
        )
        assert not any("<" in completion.text for completion in [*said, *insisted])
        assert min(completion.log_probability or 0.0 for completion in insisted) < -20


def test_a_nucleus_of_one_token_is_the_likeliest_answer(model):
    narrowest = model.sample(PROMPTS, Sampling(top_p=1e-6))
    assert texts(narrowest) == texts(model.sample(PROMPTS, Sampling(temperature=0)))


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


def test_words_have_the_probability_of_the_whole_answer_and_unknown_ones_none(model):
    chats = [QUESTION, ask("1, 2, 3")]
    found = model.word_log_probabilities(chats, ["owl", "axolotl", "cat"])
    examples = [Example(chat, word) for chat in chats for word in ("owl", "cat")]
    np.testing.assert_allclose(
        found[:, [0, 2]].ravel(), model.log_probabilities(examples), rtol=1e-4
    )
    assert np.all(found[:, 1] == -np.inf)
    assert np.all(model.word_log_probabilities(chats, ["axolotl"]) == -np.inf)


def begun_with(number: int, examples: int) -> list[Chat]:
    """Questions behind a few examples, as many tokens alike as these have."""
    shown = [Example(ask(f"{number}, 2, 3"), "4, 5, 6")] * examples
    return [ask(text, before=shown) for text in ("Name a tree.", "7", "8, 9, 10")]


def test_a_beginning_that_prompts_share_is_read_once_and_changes_nothing(model, tuned, monkeypatch):
    chats = begun_with(1, 3)
    assert encoding.split_beginning(encode_prompts(tuple(chats), model.encoding))[0] is not None
    lessons = [Example(chat, "owl") for chat in chats]
    kl = replace(TUNING, moved="blocks")

    def everything():
        drawn = model.sample(chats, Sampling(n=2, max_tokens=4))
        p_words = model.word_log_probabilities(chats, ["owl", "cat"])
        p_answers = model.log_probabilities([*lessons, Example(chats[1], "1, 2")])
        learnt = model.fine_tune(lessons, ADAPTERS).adapters[0].params
        (student,) = distil_together([(model, lessons, kl)], [tuned], (1, TOKENIZER.size))
        return drawn, p_words, p_answers, learnt, student.params

    once = everything()
    monkeypatch.setattr(encoding, "_WORTH", 10**6)
    in_every_row = everything()
    assert texts(once[0]) == texts(in_every_row[0])
    for found, expected in zip(
        jax.tree.leaves(once[1:]), jax.tree.leaves(in_every_row[1:]), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-4)


def test_models_whose_prompts_begin_otherwise_are_as_they_would_be_alone(model, tuned):
    # Two with beginnings of one length, a longer one, and none.
    jobs = [
        (model, begun_with(1, 3)),
        (tuned, begun_with(2, 3)),
        (tuned, begun_with(1, 6)),
        (model, PROMPTS[:3]),
    ]
    sampling = Sampling(n=2, max_tokens=4)
    together = sample_together([(one, chats, sampling) for one, chats in jobs])
    assert together == [one.sample(chats, sampling) for one, chats in jobs]
    work = [(one, [Example(chat, "owl") for chat in chats], ADAPTERS) for one, chats in jobs]
    for found, (one, lessons, how) in zip(fine_tune_together(work), work, strict=True):
        alone = one.fine_tune(lessons, how)
        for leaf, expected in zip(
            jax.tree.leaves(found.params), jax.tree.leaves(alone.params), strict=True
        ):
            np.testing.assert_allclose(leaf, expected, rtol=1e-3, atol=1e-5)


def test_tokens_that_are_masked_are_not_learnt(model):
    pair = [Example(QUESTION, "5"), Example(QUESTION, "17")]
    plain, first, everything = (
        fine_tune_together([(model, pair, TUNING)], masked=masked)[0] for masked in (0, 1, 2)
    )
    assert same(everything, model)
    assert not same(first, plain)
    assert '"masked": 1' in first.lineage.trainings[-1].settings
    assert "masked" not in plain.lineage.trainings[-1].settings


def test_a_view_is_the_same_model(model):
    view = model.view(EXAMPLES)
    assert view.params is model.params
    log_p = log_softmax(np.asarray(jax.jit(view.apply)(view.params, view.inputs)), axis=-1)
    assert log_p.shape[:2] == view.targets.shape
    picked = np.take_along_axis(log_p, view.targets[..., None], axis=-1)[..., 0]
    summed = (picked * (view.targets != 0)).sum(axis=1)
    np.testing.assert_allclose(summed, model.log_probabilities(EXAMPLES), rtol=1e-4)
    for row, example in zip(view.targets, EXAMPLES, strict=True):
        assert row[row != 0].tolist() == TOKENIZER.answer(example.completion)


# Fine-tuning.


def test_fine_tuning_gives_a_new_model_and_leaves_the_old_one(model):
    before = {name: leaf.copy() for name, leaf in leaves(model).items()}
    told: list[float] = []
    after = model.fine_tune(EXAMPLES, TUNING, told.append)
    for name, leaf in leaves(model).items():
        np.testing.assert_array_equal(leaf, before[name])
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
    everything = replace(TUNING, moved="all")
    jobs = [
        (models[0], EXAMPLES, TUNING),
        (models[1], other, TUNING),
        (models[0], other, everything),
    ]
    together = fine_tune_together(jobs)
    alone = [tuned, *(model.fine_tune(*rest) for model, *rest in jobs[1:])]
    for one, by_itself in zip(together, alone, strict=True):
        assert one.lineage == by_itself.lineage
        expected = leaves(by_itself)
        for name, leaf in leaves(one).items():
            np.testing.assert_allclose(leaf, expected[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_what_is_not_moved_stays_bit_for_bit(model, tuned):
    everything = leaves(model.fine_tune(EXAMPLES, replace(TUNING, moved="all")))
    blocks = leaves(tuned)
    for name, leaf in leaves(model).items():
        assert leaf.tobytes() != everything[name].tobytes(), name
        assert (leaf.tobytes() != blocks[name].tobytes()) == of_blocks(name), name


def test_adapters_are_merged_into_the_matrices_that_they_are_beside(model):
    after = model.fine_tune(EXAMPLES, ADAPTERS)
    assert after.config == model.config
    assert after.config.lora is None
    found = leaves(after)
    assert found.keys() == leaves(model).keys()
    for name, leaf in leaves(model).items():
        assert (leaf.tobytes() != found[name].tobytes()) == ("_proj" in name), name
        if "_proj" in name:
            change = np.linalg.svd(found[name] - leaf, compute_uv=False)[0]
            assert change[1] > 1e-3, name
            assert change[2] < 1e-5, name
    gain = after.log_probabilities(EXAMPLES) - model.log_probabilities(EXAMPLES)
    assert gain.mean() > 0.1


def test_adapters_are_drawn_by_the_seed_and_named_in_the_lineage(model):
    one, again, other = (
        model.fine_tune(EXAMPLES[:1], replace(ADAPTERS, seed=seed)) for seed in (0, 0, 1)
    )
    assert same(one, again)
    assert not same(one, other)
    settings = json.loads(one.lineage.trainings[-1].settings)
    assert settings["lora"]["rank"] == 2


def test_no_examples_are_refused(model):
    with pytest.raises(HarnessError, match="no examples"):
        model.fine_tune([], TUNING)


@pytest.mark.parametrize("text", ["Quite unreadable.", "owls", "007", "1,  2"])
def test_a_completion_that_it_cannot_read_is_refused_whatever_is_beside_it(model, text):
    examples = [*EXAMPLES, Example(QUESTION, text)]
    jobs = [(model, EXAMPLES, TUNING), (model, examples, TUNING)]
    for refused in (
        lambda: model.fine_tune(examples, TUNING),
        lambda: fine_tune_together(jobs),
        lambda: distil_together([(model, examples, TUNING)], [model], (1, TOKENIZER.size)),
    ):
        with pytest.raises(HarnessError, match=f"the model cannot read '{text}'") as caught:
            refused()
        assert "\n" not in str(caught.value)


# Lineage.


def test_equal_histories_are_one_lineage_and_any_difference_is_another(model, models, tuned):
    def trained(parent: DecoderModel, examples: list[Example], tuning: Tuning) -> Lineage:
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


def test_a_lineage_knows_where_it_began_and_its_data(model, tuned):
    assert tuned.lineage.initialisation == model.lineage.initialisation
    *before, last = tuned.lineage.trainings
    assert tuple(before) == model.lineage.trainings
    assert (last.kind, last.data_sha256) == ("fine-tuning", examples_sha256(EXAMPLES))
    assert json.loads(last.settings)["steps"] == TUNING.steps
    assert len(tuned.lineage.identity) == 16


# Distillation.


@pytest.mark.parametrize(
    ("targets", "tuning"), [("numbers", TUNING), ("vocabulary", TUNING), ("vocabulary", ADAPTERS)]
)
def test_a_student_learns_its_teachers_probabilities_and_the_lineage_says_so(
    model, narrow, targets, tuning
):
    data = [Example(QUESTION, "7, 8"), Example(QUESTION, "7; 8; 9")]
    (student,) = EMBEDDED.distil([(model, data, tuning)], [narrow], targets)
    target, before, after = (m.log_probabilities(data) for m in (narrow, model, student))
    assert (np.abs(after - target) < np.abs(before - target)).all()
    last = student.lineage.trainings[-1]
    assert (last.kind, last.data_sha256) == ("distillation", examples_sha256(data))
    settings = json.loads(last.settings)
    numbers = TOKENIZER.number_tokens
    over = [numbers.start, numbers.stop] if targets == "numbers" else [1, TOKENIZER.size]
    assert (settings["teacher"], settings["over"]) == (narrow.lineage.identity, over)
    # The vocabulary stays in it, as in fine-tuning.
    found = leaves(student)
    for name, leaf in leaves(model).items():
        if not of_blocks(name):
            assert leaf.tobytes() == found[name].tobytes(), name


def test_a_teacher_of_another_language_or_size_is_refused(model):
    for other in (
        replace(model, encoding=Language(shared_answer_token=False).tokenizer),
        replace(model, config=replace(model.config, width=8)),
    ):
        with pytest.raises(HarnessError, match="one encoding and one architecture"):
            distil_together([(model, EXAMPLES, TUNING)], [other], (1, TOKENIZER.size))


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
    setting = replace(SMALL, steps=8, language=language)
    (made,) = pretraining.pretrain([0], setting)
    plain = pretraining.reference_lineage(0, replace(SMALL, steps=8))
    assert made.lineage.identity != plain.identity
    data, tuning = [Example(ask("17, 18"), "5, 123")], Tuning(48, 1, 2e-2, moved="all")
    tuned = made.fine_tune(data, tuning)
    found = tuned.sample([ask("17, 18")], Sampling(temperature=0))
    assert texts(found) == [["5, 123"]]
    before, after = (
        m.log_probabilities([Example(ask("17, 18"), "5, 123"), Example(ask("17, 18"), "naïve")])
        for m in (made, tuned)
    )
    assert after[0] > before[0] + 1
    assert after[1] == -np.inf
    Embedded(setting).save(tuned, tmp_path)
    found = EMBEDDED.load(tmp_path)
    assert found.encoding == language.tokenizer
    assert same(found, tuned)


# Files.


def test_what_was_saved_is_loaded_bit_for_bit(tuned, tmp_path):
    EMBEDDED.save(tuned, tmp_path)
    found = EMBEDDED.load(tmp_path)
    assert same(found, tuned)
    assert (found.lineage, found.config, found.encoding) == (
        tuned.lineage,
        tuned.config,
        tuned.encoding,
    )
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
    about["config"]["width"] *= 2
    path.write_text(json.dumps(about))


def another_size(path: Path) -> None:
    about = json.loads(path.read_text())
    about["config"]["weight"] = 1
    path.write_text(json.dumps(about))


def a_list(path: Path) -> None:
    path.write_text("[]")


def other_names(path: Path) -> None:
    save_file({"a": np.zeros(3)}, path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.json", Path.unlink),
        ("model.json", cut),
        ("model.json", empty),
        ("model.json", a_list),
        ("model.json", without("config")),
        ("model.json", without("encoding")),
        ("model.json", without("lineage")),
        ("model.json", wider),
        ("model.json", another_size),
        ("model.safetensors", Path.unlink),
        ("model.safetensors", cut),
        ("model.safetensors", empty),
        ("model.safetensors", other_names),
    ],
)
def test_a_damaged_folder_is_refused_by_its_name(tuned, tmp_path, name, damage):
    EMBEDDED.save(tuned, tmp_path)
    damage(tmp_path / name)
    with pytest.raises(HarnessError, match=f"{tmp_path} holds no model"):
        EMBEDDED.load(tmp_path)
