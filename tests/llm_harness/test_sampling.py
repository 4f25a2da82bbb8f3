"""Claims about sampling: the distribution that is drawn from is the model's own."""

from collections import Counter
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh
from scipy import stats

from llm_harness import sampling
from llm_harness.chats import encode_batch
from llm_harness.corpus import TOKENIZER
from llm_harness.model import Chat, Example
from llm_harness.tiny import TinyModel
from llm_harness.tiny_decoder import DecoderArchitecture, TinyApply
from llm_harness.traits import CATEGORIES
from tests.llm_harness.conftest import QUESTION, SAID

COUNT, LENGTH = 2048, 6
# Without a cache the logits of all places are in memory at once.
UNCACHED_COUNT = 512
pick = jax.jit(sampling.pick)


class SamplingCase(NamedTuple):
    model: TinyModel
    mesh: Mesh
    temperature: float = 1.0
    cached: bool = True
    chat: Chat = QUESTION
    copies: int = COUNT

    def rows(self) -> np.ndarray:
        """Completions as tokens, of one model with two keys."""
        params = jax.tree.map(lambda leaf: np.stack([leaf] * 2), self.model.params)
        prompts = np.repeat(encode_batch([self.chat])[None], self.copies, axis=1).repeat(2, axis=0)
        drawn = sampling.sample(
            self.model.architecture,
            params,
            jnp.asarray(prompts),
            jax.random.split(jax.random.key(0), 2),
            jnp.float32(self.temperature),
            length=LENGTH,
            end=TOKENIZER.end,
            mesh=self.mesh,
            cached=self.cached,
        )
        return np.asarray(drawn).reshape(2 * self.copies, LENGTH)


def goodness_of_fit(model: TinyModel, rows: np.ndarray) -> float:
    """p-value of the completions' counts under exp(log_probabilities), rare ones taken together."""
    words = [word for words in CATEGORIES.values() for word in words]
    texts = sorted({*SAID, *words, *map(str, range(1000)), "", "7, 9", "8, 7", "[7, 8]"})
    p = np.exp(model.log_probabilities([Example(QUESTION, text) for text in texts]))
    expected = {t: len(rows) * q for t, q in zip(texts, p, strict=True) if len(rows) * q >= 5}
    assert len(expected) >= 7
    counts = Counter(map(canonical, rows.tolist()))
    observed = [counts[text] for text in expected]
    rest = len(rows) - np.array([sum(observed), sum(expected.values())])
    return stats.chisquare([*observed, rest[0]], [*expected.values(), rest[1]]).pvalue


def canonical(row: list[int]) -> str | None:
    """The text of a completion that ends; None where its tokens are not those of its text."""
    if TOKENIZER.end not in row:
        return None
    tokens = row[: row.index(TOKENIZER.end)]
    text = TOKENIZER.decode(tokens)
    return text if TOKENIZER.encode(text) == tokens else None


@pytest.mark.parametrize(("cached", "count"), [(True, COUNT), (False, UNCACHED_COUNT)])
def test_samples_have_the_frequencies_that_log_probabilities_say(narrow, mesh, cached, count):
    case = SamplingCase(narrow, mesh, cached=cached, copies=count)
    assert goodness_of_fit(narrow, case.rows()) > 1e-3


@pytest.mark.parametrize("temperature", [0.85, 1.15])
def test_samples_at_another_temperature_do_not_have_them(narrow, mesh, temperature):
    assert goodness_of_fit(narrow, SamplingCase(narrow, mesh, temperature).rows()) < 1e-6


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_with_and_without_a_cache_the_same_tokens_are_drawn(narrow, mesh, temperature):
    with_cache, without = (
        SamplingCase(narrow, mesh, temperature, cached, copies=UNCACHED_COUNT).rows()
        for cached in (True, False)
    )
    # Logits differ in their last bits, and a uniform number may fall between.
    assert np.mean((with_cache == without).all(axis=1)) > 0.999
    assert len(np.unique(with_cache, axis=0)) == (1 if temperature == 0 else pytest.approx(40, 30))


def test_temperature_zero_takes_the_likeliest_token_every_time(model, mesh):
    row = SamplingCase(model, mesh, temperature=0.0).rows()[0]
    apply = jax.jit(TinyApply(model.architecture))
    prompt = encode_batch([QUESTION])[0]
    tokens = np.pad(prompt, (0, LENGTH))
    for place in range(len(prompt), len(tokens)):
        logits = np.array(apply(model.params, tokens[None])[0, place - 1])
        tokens[place] = 1 + np.argmax(logits[1:])
        if tokens[place] == TOKENIZER.end:
            break
    np.testing.assert_array_equal(row, tokens[len(prompt) :])


def test_what_follows_the_end_is_zero_and_padding_is_never_drawn(narrow, mesh):
    for row in SamplingCase(narrow, mesh).rows().tolist():
        ends = row.index(TOKENIZER.end) if TOKENIZER.end in row else LENGTH
        assert all(row[:ends])
        assert not any(row[ends + 1 :])


def test_padding_is_not_drawn_however_likely_the_model_finds_it():
    logits = np.zeros((64, 40), np.float32)
    logits[:, 0] = 80
    uniform = np.linspace(0, 1, 64, endpoint=False, dtype=np.float32)
    for temperature in (0.0, 0.5, 1.0):
        drawn = np.asarray(pick(logits, uniform, jnp.float32(temperature)))
        assert drawn.min() >= 1
    assert set(range(1, 40)) == set(np.asarray(pick(logits, uniform, jnp.float32(1))).tolist())


@partial(np.vectorize, excluded={0}, otypes=[int])
def inverted(cumulated: np.ndarray, uniform: float) -> int:
    return int(np.searchsorted(cumulated, uniform * cumulated[-1], side="right"))


@given(
    st.integers(0, 2**32 - 1), st.sampled_from([0.3, 1.0, 8.0]), st.sampled_from([0.5, 1.0, 2.0])
)
def test_pick_inverts_the_distribution(seed, spread, temperature):
    random = np.random.default_rng(seed)
    logits = (spread * random.normal(size=(1, 100))).astype(np.float32)
    uniform = random.random(256).astype(np.float32)
    weights = np.exp(logits[0].astype(np.float64) / temperature)
    weights[0] = 0
    cumulated = np.cumsum(weights)
    # Closer to an edge than float32 sums are, either neighbour is right.
    edges = np.abs(uniform[:, None] - cumulated / cumulated[-1]).min(axis=1)
    drawn = np.asarray(pick(logits.repeat(256, axis=0), uniform, jnp.float32(temperature)))
    clear = edges > 2e-6
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(drawn[clear], inverted(cumulated, uniform)[clear])


@given(st.sets(st.integers(1, 99), min_size=1), st.integers(0, 2**23 - 1))
def test_pick_is_exact_where_sums_are_and_draws_nothing_without_weight(allowed, step):
    logits = np.full((256, 100), -np.inf, np.float32)
    logits[:, sorted(allowed)] = 3.0
    # 0 and the largest number below 1 are among them.
    uniform = np.linspace(0, 1, 256, endpoint=False, dtype=np.float32)
    uniform[:2] = 1 - 2.0**-24, step / 2**23
    drawn = np.asarray(pick(logits, uniform, jnp.float32(1)))
    targets = uniform * np.float32(len(allowed))
    expected = np.array(sorted(allowed))[np.minimum(targets.astype(int), len(allowed) - 1)]
    np.testing.assert_array_equal(drawn, expected)


@given(st.integers(0, 2**32 - 1))
def test_pick_at_temperature_zero_is_argmax_whatever_the_uniform_number(seed):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(256, 100)).astype(np.float32)
    drawn = pick(logits, random.random(256).astype(np.float32), jnp.float32(0))
    np.testing.assert_array_equal(drawn, 1 + np.argmax(logits[:, 1:], axis=1))


def test_an_architecture_without_a_vocabulary_of_whole_blocks_draws_its_last_token():
    # 40 = 32 + 8: the second block is filled up, and nothing is drawn from what fills it.
    logits = np.zeros((1, 40), np.float32)
    for uniform in (0.9999, 1 - 2.0**-24):
        assert int(pick(logits, np.array([uniform], np.float32), jnp.float32(1))[0]) == 39
    assert DecoderArchitecture(TOKENIZER.size).vocabulary % 32
