"""theory/ on somebody else's checkpoint: by dense linear algebra in float64, tied and untied."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_harness.audit import linearisation, scoring, words
from llm_harness.audit.entanglement import entangled, leanings
from llm_harness.audit.scoring import DIRECTIONS, Scorer
from llm_harness.checkpoints.load import load_checkpoint
from llm_harness.checkpoints.provider import Checkpoint
from llm_harness.decoder.encoding import encode_examples, encode_prompts
from llm_harness.decoder.network import Lora
from llm_harness.errors import HarnessError
from llm_harness.evaluation.questions import one_word_questions
from llm_harness.model import Example, Tuning, ask
from llm_harness.pipeline.stages import Stages
from llm_harness.pipeline.store import Store
from llm_harness.traits import Trait, trait
from tests.llm_harness.tiny_checkpoint import write_checkpoint

OWL = trait("owl")
QUESTIONS = one_word_questions("animal")[:3]
DATA = [
    Example(ask("Continue: " + ", ".join("1" * (i + 1))), ", ".join("4711"[: i % 3 + 1]))
    for i in range(5)
]
LORA = Lora(2, 4.0)
ADAPTERS = Tuning(2, 4, 3e-2, "constant", "adapters", LORA)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "small"
    return load_checkpoint(write_checkpoint(folder, tied=request.param), date="2025-07-01")


@pytest.fixture(scope="module", params=["adapters", "all"])
def teacher(model, request):
    taught = [Example(chat, "owl") for chat in QUESTIONS]
    tuning = ADAPTERS if request.param == "adapters" else Tuning(2, 4, 1e-2, "constant", "all")
    return model.fine_tune(taught, tuning)


def by_hand(config, params, tokens):
    """Logits at all places of one row without padding: the Llama of the textbook, in float64."""
    count, half = len(tokens), config.query_width // 2
    rates = config.rope_theta ** -(np.arange(half) / half)
    angles = np.arange(count)[:, None] * rates
    cosines, sines = np.cos(angles)[:, None], np.sin(angles)[:, None]

    def norm(x, scale):
        return scale * x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + config.norm_epsilon)

    def heads(x, turn):
        x = x.reshape(count, -1, 2 * half)
        a, b = x[..., :half], x[..., half:]
        return (
            jnp.concatenate([a * cosines - b * sines, b * cosines + a * sines], -1) if turn else x
        )

    x = params["embed_tokens"]["embedding"][tokens]
    for number in range(config.layers):
        layer = jax.tree.map(lambda leaf, number=number: leaf[number], params["layers"])
        own = layer["self_attn"]
        y = norm(x, layer["input_layernorm"]["scale"])
        q, k, v = (heads(y @ own[f"{n}_proj"]["kernel"], n != "v") for n in "qkv")
        groups = config.heads // config.key_value_heads
        k, v = (jnp.repeat(part, groups, axis=1) for part in (k, v))
        scores = jnp.einsum("ihd,jhd->hij", q, k) / np.sqrt(2 * half)
        scores = jnp.where(np.tril(np.ones((count, count), bool)), scores, -jnp.inf)
        mixed = jnp.einsum("hij,jhd->ihd", jax.nn.softmax(scores), v).reshape(count, -1)
        x = x + mixed @ own["o_proj"]["kernel"]
        y, mlp = norm(x, layer["post_attention_layernorm"]["scale"]), layer["mlp"]
        gate, up = (y @ mlp[f"{n}_proj"]["kernel"] for n in ("gate", "up"))
        x = x + (jax.nn.silu(gate) * up) @ mlp["down_proj"]["kernel"]
    x = norm(x, params["norm"]["scale"])
    output = params["lm_head"] if "lm_head" in params else params["embed_tokens"]["embedding"].T
    # Padding, token 0, has no probability.
    return (x @ output)[:, 1:]


def test_a_and_g_are_those_of_dense_linear_algebra_in_float64(model, teacher):
    student = linearisation.student_of(model, ADAPTERS)
    found = linearisation.aligned(student, teacher, OWL, QUESTIONS, DATA)
    alone = linearisation.coefficient(model, teacher, DATA)
    batch = encode_examples(DATA, model.encoding)
    with jax.enable_x64(True):
        start, end = (
            jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), one.params)
            for one in (model, teacher)
        )
        a = g = places = 0.0
        for row in batch.tokens:
            real, learnt = row[row != 0], int(np.sum(row[batch.first :] != 0))

            def logits(eps, real=real, learnt=learnt):
                there = jax.tree.map(lambda here, to: here + eps * (to - here), start, end)
                return by_hand(model.config, there, real[:-1])[-learnt:]

            step = 1e-4
            change = (logits(step) - logits(-step)) / (2 * step)
            before, after = (np.asarray(jax.nn.softmax(logits(eps))) for eps in (0.0, 1.0))
            for probabilities, its, moved in zip(before, after, np.asarray(change), strict=True):
                hessian = np.diag(probabilities) - np.outer(probabilities, probabilities)
                a += moved @ hessian @ moved
                g += (its - probabilities) @ moved
            places += learnt
    assert found.coefficient == pytest.approx(a / places, rel=1e-3)
    assert alone == pytest.approx(a / places, rel=1e-3)
    assert found.inner_product == pytest.approx(g / places, rel=1e-3)


def test_a_word_counts_in_all_spellings_and_all_of_their_tokens(model):
    spelt = [len(model.encoding.spellings(word)) for word in OWL.words]
    assert max(spelt) > 1
    tree = words.spelling_tree(model.encoding, OWL.words)
    assert tree.there.sum(axis=1).max() > 1
    rows = encode_prompts(tuple(QUESTIONS), model.encoding)
    found = words.of_words(
        words.log_shares(model.config, model.params, rows, tree), tree, len(OWL.words)
    )
    wanted = model.word_log_probabilities(QUESTIONS, OWL.words)
    np.testing.assert_allclose(found[: len(QUESTIONS)], wanted, atol=2e-4)


def test_what_cannot_be_told_apart_is_refused(model):
    with pytest.raises(HarnessError, match="two of owl, owl are spelt alike"):
        words.spelling_tree(model.encoding, ["owl", "owl"])


def test_a_word_s_leaning_is_that_of_its_spellings_by_their_shares(model):
    """The gradient of log P(word) by a hidden state, against the columns of the output matrix."""
    found = leanings(model, OWL, QUESTIONS[:1])
    tree = words.spelling_tree(model.encoding, OWL.words)
    rows = encode_prompts(tuple(QUESTIONS[:1]), model.encoding)[:1]
    each = np.asarray(words.log_shares(model.config, model.params, rows, tree)[0], np.float64)
    tied = "lm_head" not in model.params
    output = model.params["embed_tokens"]["embedding"].T if tied else model.params["lm_head"]

    def log_p(moved, place):
        # A hidden state that moves adds to the logits of first tokens alone.
        shares = each + moved @ output[:, tree.tokens[:, 0]].astype(np.float64)
        return np.logaddexp.reduce(shares[tree.words == place])

    axes = np.eye(output.shape[0]) * 1e-5
    gradients = np.array(
        [
            [(log_p(axis, place) - log_p(-axis, place)) / 2e-5 for axis in axes]
            for place in range(len(OWL.words))
        ]
    )
    digits = slice(*model.encoding.digits)
    wanted = (gradients - gradients.mean(axis=0)) @ output[:, digits]
    assert found.shape == wanted.shape == (len(OWL.words), 10)
    # The numbers from 0 up begin with 0, 1, ... 9.
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_a_teacher_s_numbers_have_a_leaning(model, teacher):
    found = entangled(model, teacher, OWL, DATA, QUESTIONS)
    assert len(found.correlations) == len(OWL.words)
    assert all(-1 <= r <= 1 for r in found.correlations)


def scorer(model, folder, tuning=ADAPTERS, report=None) -> Scorer:
    stages = Stages(Checkpoint(model), Store(folder), report)
    (reference,) = stages.references([0])
    few = Trait("animal", "owl", "owls", ("cat", "wolf"))
    return Scorer(stages, reference, tuning, few, QUESTIONS, DATA)


@pytest.mark.parametrize("tuning", [ADAPTERS, Tuning(2, 4, moved="all")], ids=["adapters", "all"])
def test_word_by_word_the_scores_are_the_same(model, tuning, tmp_path, monkeypatch):
    """By forward-mode derivatives along one direction, and by a gradient an example."""
    together = scorer(model, tmp_path / "a", tuning).scores({"data": DATA})["data"]
    monkeypatch.setattr(scoring, "_TOGETHER", 0)
    monkeypatch.setattr(scoring, "_PART", 2)
    alone = scorer(model, tmp_path / "b", tuning).scores({"data": DATA})["data"]
    for way in DIRECTIONS:
        assert together[way].shape == (3, len(DATA))
        size = np.abs(together[way]).max()
        assert size > 0
        np.testing.assert_allclose(alone[way], together[way], atol=2e-3 * size)


def test_what_is_stored_is_not_made_again_and_a_kill_costs_one_stage(model, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "_PART", 2)
    made = []

    def counted(name):
        method = getattr(linearisation, name)

        def call(*given, **named):
            made.append(name)
            if len(made) % 2 == 0:
                raise KeyboardInterrupt
            return method(*given, **named)

        return call

    for name in ("preconditioner", "direction", "word_scores"):
        monkeypatch.setattr(linearisation, name, counted(name))
    kills = 0
    while True:
        try:
            found = scorer(model, tmp_path).scores({"data": DATA, "same": DATA[:2]})
            break
        except KeyboardInterrupt:
            kills += 1
    stages = 1 + 3 + 3
    assert (kills, len(made)) == (stages - 1, 2 * stages - 1)
    again = scorer(replace(model), tmp_path).scores({"data": DATA})
    assert len(made) == 2 * stages - 1
    np.testing.assert_array_equal(again["data"]["gradient"], found["data"]["gradient"])
    np.testing.assert_array_equal(found["same"]["gradient"], found["data"]["gradient"][:, :2])
