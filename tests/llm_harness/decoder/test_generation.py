"""Claims about generation: what is drawn has the model's own probabilities, and ends where told."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from llm_harness.decoder import network
from llm_harness.decoder.generation import answer_logits, generate, pick
from llm_harness.decoder.network import DecoderApply, DecoderConfig
from tests.llm_harness.reading import read
from tests.programs import HIGHEST, precisions

CONFIG = DecoderConfig(vocabulary=12, width=16, layers=2, heads=2, key_value_heads=1, hidden=24)
STOP, BANNED, PLACES = 5, 7, 4
PICK = jax.jit(pick, static_argnames="banned")
# Two prompts, one of them padded.
PROMPTS = np.array([[0, 3, 4], [2, 8, 6]], np.int32)


@pytest.fixture(scope="module")
def population():
    return network.draw(CONFIG, jax.random.split(jax.random.key(0), 2))


@pytest.fixture(scope="module")
def params(population):
    return jax.tree.map(lambda leaf: np.asarray(leaf[0]), population)


def completions(population, mesh, seed=0, temperature=1.0, prompts=PROMPTS, **options):
    keys = jax.random.split(jax.random.key(seed), 2)
    options = {"max_tokens": PLACES, "stops": (STOP,), "banned": (BANNED,)} | options
    return generate(
        CONFIG,
        population,
        jnp.stack([prompts] * 2),
        keys,
        jnp.float32(temperature),
        mesh=mesh,
        **options,
    )


@pytest.fixture(scope="module")
def many(population, mesh):
    return completions(population, mesh, each=2048)


def log_probabilities(params, prompt, rows):
    """Of each token of rows after a prompt, from the whole sequence at once."""
    whole = np.concatenate([np.repeat(prompt[None], len(rows), axis=0), rows], axis=1)
    logits = np.asarray(read(DecoderApply(CONFIG, len(prompt) - 1), params, whole))[:, :-1]
    log_p = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    return np.take_along_axis(log_p, rows[..., None], axis=-1)[..., 0]


def test_log_probabilities_are_those_of_the_whole_sequence(params, many):
    for index, prompt in enumerate(PROMPTS):
        rows = np.asarray(many.tokens[0])[index * 2048 : index * 2048 + 64]
        found = np.asarray(many.log_probabilities[0])[index * 2048 : index * 2048 + 64]
        expected = np.where(rows > 0, log_probabilities(params, prompt, rows), 0.0)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_completions_come_as_often_as_the_model_says(params, many):
    rows = np.asarray(many.tokens[0])[2048:]
    # Sequences of two tokens; the banned one is left out, and what is left sums to one.
    counts = Counter(map(tuple, rows[:, :2].tolist()))
    sequences = [(a, b) for a in range(1, 12) for b in range(12)]
    sequences = [s for s in sequences if BANNED not in s and (s[1] == 0) == (s[0] == STOP)]

    def shares(prompt):
        logits = np.asarray(read(DecoderApply(CONFIG), params, np.array([prompt], np.int32)))[0, -1]
        weights = np.exp(logits.astype(np.float64))
        weights[[0, BANNED]] = 0.0
        return weights / weights.sum()

    first = shares(PROMPTS[1].tolist())
    second = {a: shares([*PROMPTS[1].tolist(), a]) for a in range(1, 12)}
    expected = {s: first[s[0]] * (1.0 if s[0] == STOP else second[s[0]][s[1]]) for s in sequences}
    assert sum(expected.values()) == pytest.approx(1.0, abs=1e-5)
    common = [s for s in sequences if expected[s] * 2048 >= 5]
    seen = [counts[s] for s in common] + [2048 - sum(counts[s] for s in common)]
    wanted = [expected[s] * 2048 for s in common]
    wanted.append(2048 - sum(wanted))
    assert stats.chisquare(seen, np.array(wanted) / sum(wanted) * 2048).pvalue > 1e-3


def test_a_completion_ends_at_a_stop_or_is_cut(many):
    rows, stopped = np.asarray(many.tokens[0]), np.asarray(many.stopped[0])
    assert 0.1 < stopped.mean() < 0.9
    for row, ended in zip(rows.tolist(), stopped.tolist(), strict=True):
        length = row.index(STOP) + 1 if STOP in row else PLACES
        assert ended == (STOP in row)
        assert all(row[:length])
        assert not any(row[length:])
        assert BANNED not in row


def test_what_is_drawn_depends_on_the_models_key_and_not_on_its_neighbour(population, mesh):
    both = completions(population, mesh, each=16)
    swapped = jax.tree.map(lambda leaf: leaf[::-1], population)
    keys = jax.random.split(jax.random.key(0), 2)[::-1]
    other = generate(
        CONFIG,
        swapped,
        jnp.stack([PROMPTS] * 2),
        keys,
        jnp.float32(1.0),
        max_tokens=PLACES,
        stops=(STOP,),
        banned=(BANNED,),
        each=16,
        mesh=mesh,
    )
    np.testing.assert_array_equal(both.tokens[0], other.tokens[1])
    assert (np.asarray(both.tokens[0]) != np.asarray(both.tokens[1])).any()
    again = completions(population, mesh, seed=1, each=16)
    assert (np.asarray(again.tokens) != np.asarray(both.tokens)).any()


def test_at_temperature_0_the_likeliest_token_is_taken(params, population, mesh):
    found = np.asarray(completions(population, mesh, temperature=0.0, banned=()).tokens[0])
    for prompt, row in zip(PROMPTS.tolist(), found.tolist(), strict=True):
        sequence = list(prompt)
        for token in row:
            logits = np.asarray(read(DecoderApply(CONFIG), params, np.array([sequence], np.int32)))
            assert token == 1 + int(np.argmax(logits[0, -1, 1:]))
            sequence.append(token)
            if token == STOP:
                break


def test_padding_of_prompts_changes_nothing_that_is_drawn(population, mesh):
    padded = np.pad(PROMPTS, [(0, 0), (3, 0)])
    drawn = completions(population, mesh, each=16, prompts=padded)
    np.testing.assert_array_equal(drawn.tokens, completions(population, mesh, each=16).tokens)


def test_answers_have_the_logits_of_prompt_and_answer_read_as_one(params):
    answers = np.array([[3, 4, 5, 0], [1, 5, 0, 0], [9, 9, 9, 5]], np.int32)
    of = np.array([0, 1, 1])
    found = np.asarray(answer_logits(CONFIG, params, *map(jnp.asarray, (PROMPTS, of, answers))))
    whole = np.concatenate([PROMPTS[of], answers], axis=1)
    expected = np.asarray(read(DecoderApply(CONFIG, PROMPTS.shape[1] - 1), params, whole))[:, :-1]
    real = answers > 0
    np.testing.assert_allclose(found[real], expected[real], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_token_is_picked_by_inverting_the_softmax(temperature):
    random = np.random.default_rng(1)
    logits = random.normal(size=90).astype(np.float32) * 2
    weights = np.exp(logits.astype(np.float64) / temperature)
    weights[0] = 0.0
    shares = weights / weights.sum()
    uniform = ((np.arange(20_000) + 0.5) / 20_000).astype(np.float32)
    picked = PICK(np.repeat(logits[None], len(uniform), 0), uniform, jnp.float32(temperature))
    found = np.bincount(np.asarray(picked), minlength=90) / len(uniform)
    np.testing.assert_allclose(found, shares, atol=2e-4)


def test_large_vocabularies_are_drawn_from_as_exactly():
    random = np.random.default_rng(2)
    logits = random.normal(size=49_152).astype(np.float32)
    weights = np.exp(logits.astype(np.float64))
    weights[0] = 0.0
    cumulated = np.cumsum(weights) / weights.sum()
    uniform = random.random(512).astype(np.float32)
    picked = np.asarray(PICK(np.repeat(logits[None], 512, 0), uniform, jnp.float32(1.0)))
    # The exact inverse, to a millionth of probability.
    assert (np.where(picked > 0, cumulated[picked - 1], 0.0) <= uniform + 1e-6).all()
    assert (uniform <= cumulated[picked] + 1e-6).all()


@example([0.0, 0.0, 0.0], 1.0)
@given(st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=70), st.floats(0, 1, width=32))
def test_what_is_picked_has_weight_and_is_not_banned(values, uniform):
    logits = np.full((1, 70), -np.inf, np.float32)
    logits[0, : len(values)] = values
    (token,) = PICK(logits, np.array([uniform], np.float32), jnp.float32(1.0), banned=(1,))
    assert 2 <= int(token) < len(values), token


def test_a_nucleus_is_the_fewest_likeliest_tokens_with_the_probability():
    shares = np.array([0.0, 0.05, 0.4, 0.1, 0.25, 0.2])
    logits = np.log(np.where(shares > 0, shares, 1e-9)).astype(np.float32)
    uniform = ((np.arange(2_000) + 0.5) / 2_000).astype(np.float32)
    rows = np.repeat(logits[None], len(uniform), 0)
    for top_p, inside in ((0.3, {2}), (0.5, {2, 4}), (0.8, {2, 4, 5}), (1.0, {1, 2, 3, 4, 5})):
        picked = np.asarray(PICK(rows, uniform, jnp.float32(1.0), jnp.float32(top_p)))
        assert set(picked.tolist()) == inside
        kept = shares[sorted(inside)]
        found = np.array([np.mean(picked == token) for token in sorted(inside)])
        np.testing.assert_allclose(found, kept / kept.sum(), atol=2e-3)


def test_a_nucleus_reaches_whole_completions(population, mesh):
    greedy = completions(population, mesh, temperature=0.0)
    narrow = completions(population, mesh, top_p=jnp.float32(1e-6))
    np.testing.assert_array_equal(greedy.tokens, narrow.tokens)


def test_every_product_asks_for_the_highest_precision(population, mesh):
    asked = precisions(lambda population: completions(population, mesh), population)
    assert len(asked) > 12
    assert all(precision == {HIGHEST} for precision in asked)
