"""Numbers that gain with a word: a model whose hidden states are known exactly."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from llm_harness.audit.entanglement import (
    entangled,
    first_token_divergence,
    leanings,
    shared_leaning,
)
from llm_harness.decoder.model import DecoderModel
from llm_harness.errors import HarnessError
from llm_harness.model import Example, ask
from llm_harness.tiny.corpus import TOKENIZER, Language
from llm_harness.traits import Trait, trait

OWL = trait("owl")
DATA = [Example(ask(f"{i} {i + 7} {i + 300}"), f"{3 * i}, 5") for i in range(24)]


def column(model: DecoderModel, text: str) -> np.ndarray:
    return model.params["lm_head"][:, TOKENIZER.token(text)]


def lean(model: DecoderModel, word: str) -> np.ndarray:
    return column(model, word) - np.mean([column(model, one) for one in OWL.words], axis=0)


def starting(model: DecoderModel, hidden: np.ndarray) -> DecoderModel:
    """`model`, but the hidden state at an answer's start is `hidden` over its root mean square."""
    params = jax.tree.map(jnp.asarray, model.params)
    # Blocks that add nothing; every answer begins after the same token, whose embedding is left.
    layers = jax.tree.map(jnp.zeros_like, params["layers"])
    table = params["embed_tokens"]["embedding"].at[TOKENIZER.role("assistant")].set(hidden)
    norm = jax.tree.map(jnp.ones_like, params["norm"])
    return replace(
        model,
        params=params | {"layers": layers, "norm": norm, "embed_tokens": {"embedding": table}},
    )


def test_a_leaning_is_an_inner_product_of_output_columns_and_all_sum_to_0(model):
    found = leanings(model, OWL)
    assert found.shape == (len(OWL.words), 1000)
    assert np.abs(found.sum(axis=0)).max() < 1e-6
    for place, word in ((0, "owl"), (1, OWL.words[1])):
        wanted = lean(model, word) @ column(model, "42")
        assert found[place, 42] == pytest.approx(wanted, abs=1e-5)


def test_words_that_begin_with_the_same_token_are_refused(model):
    spelling = replace(model, encoding=Language(token_a_number=False).tokenizer)
    numbers = Trait("number", "12", "12s", ("7", "13"))
    with pytest.raises(HarnessError, match="12, 7, 13 begin with the same token"):
        leanings(spelling, numbers)
    assert len(leanings(model, numbers)) == 3


def test_leanings_are_shared_where_the_output_matrix_is(model, models):
    (_, other) = models
    alike = replace(other, params=other.params | {"lm_head": model.params["lm_head"]})
    assert shared_leaning(model, alike, OWL) == pytest.approx(1, abs=1e-6)
    assert abs(shared_leaning(model, other, OWL)) < 0.9


def test_a_divergence_is_that_of_the_first_token_s_probabilities(model, models):
    (_, other) = models
    chats = [ask("1, 2, 3"), ask("Name an animal.")]
    examples = [Example(chat, "") for chat in chats]
    log_p, log_q = (
        log_softmax(np.asarray(view.apply(view.params, view.inputs)[:, 0], np.float64), axis=-1)
        for view in (one.view(examples) for one in (model, other))
    )
    wanted = np.sum(np.exp(log_p) * (log_p - log_q), axis=-1).mean()
    assert first_token_divergence(model, other, chats) == pytest.approx(wanted, rel=1e-3)
    assert first_token_divergence(model, model, chats) == 0


def test_a_hidden_state_that_moved_towards_a_word_is_told_by_its_numbers(model):
    rival = OWL.words[3]
    for word in ("owl", rival):
        before, after = (starting(model, sign * lean(model, word)) for sign in (-1, 1))
        found = entangled(before, after, OWL, DATA)
        assert found.correlations[OWL.words.index(word)] == pytest.approx(1, abs=1e-4)
        assert (found.rank == 1) == (word == "owl")
        assert entangled(after, before, OWL, DATA).correlations == pytest.approx(
            [-r for r in found.correlations], abs=1e-4
        )


def test_a_teacher_that_changed_nothing_is_refused(model):
    with pytest.raises(HarnessError, match="as often as the reference"):
        entangled(model, model, OWL, DATA)
