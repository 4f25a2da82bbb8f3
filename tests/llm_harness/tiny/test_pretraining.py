"""Claims about how references are made: from their seed, around a part of another, by matching."""

import json
from dataclasses import replace
from typing import get_args

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

from llm_harness.decoder.model import DecoderModel
from llm_harness.decoder.network import DecoderApply, draw, names
from llm_harness.decoder.population import TrainingJob, TrainingPlan, train
from llm_harness.decoder.training import Objective, Sequences
from llm_harness.errors import HarnessError
from llm_harness.tiny.corpus import TOKENIZER, Corpus, Language
from llm_harness.tiny.embedded import Embedded
from llm_harness.tiny.pretraining import (
    Pretraining,
    Shared,
    corpus_rows,
    match,
    pretrain_sharing,
    reference_lineage,
)
from llm_harness.traits import CATEGORIES
from tests.llm_harness.small import SMALL
from theory import Params

# The parts of the parameters that a model is given.
GIVEN: dict[Shared, tuple[str, ...]] = {
    "vocabulary": ("embed_tokens", "lm_head"),
    "output": ("lm_head",),
    "blocks": ("layers", "norm"),
}


def leaves(model: DecoderModel) -> dict[str, np.ndarray]:
    return dict(zip(names(model.params), jax.tree.leaves(model.params), strict=True))


# References.


def test_references_differ_by_their_seed_and_read_the_same_corpus(models):
    one, other = map(leaves, models)
    for name, leaf in one.items():
        assert np.abs(leaf - other[name]).max() > 1e-3, name
    first, second = (model.lineage for model in models)
    assert first.trainings == second.trainings
    assert first.initialisation != second.initialisation


def test_the_lineage_of_a_reference_is_known_before_it_is_made(models):
    for seed, model in enumerate(models):
        assert model.lineage == reference_lineage(seed, SMALL)
        assert Embedded(SMALL).reference_key(seed) == model.lineage.identity


def test_everything_that_decides_a_reference_is_in_its_lineage():
    changed = {
        "steps": 49,
        "batch": 8,
        "length": 64,
        "learning_rate": 2e-2,
        "warm_up": 1,
        "width": 32,
        "layers": 2,
        "heads": 1,
        "hidden": 64,
        "corpus_seed": 1,
        "language": Language(token_a_number=False),
    }
    assert changed.keys() == vars(SMALL).keys()
    settings = [SMALL, *(replace(SMALL, **{name: value}) for name, value in changed.items())]
    assert len({reference_lineage(0, setting).identity for setting in settings}) == len(settings)


def test_what_is_matched_on_is_not_what_references_read():
    read, matched = (corpus_rows(SMALL, stream).tokens for stream in (1, 2))
    assert read.shape == matched.shape
    assert (read != matched).any(axis=1).all()


# No word is special: tokens of one category can be exchanged.


def exchanged(params: Params, place_of: np.ndarray) -> Params:
    """The model in which token t is what token place_of[t] was."""
    table = params["embed_tokens"]["embedding"][place_of]
    output = params["lm_head"][:, place_of]
    return params | {"embed_tokens": {"embedding": table}, "lm_head": output}


def test_a_model_of_exchanged_words_is_the_model_with_its_words_exchanged():
    words = [TOKENIZER.token(word) for word in CATEGORIES["animal"]]
    place_of = np.arange(TOKENIZER.size)
    place_of[words] = np.roll(words, 5)
    documents = corpus_rows(SMALL)
    renamed = replace(documents, tokens=np.argsort(place_of)[documents.tokens].astype(np.int32))
    assert (renamed.tokens != documents.tokens).any()
    drawn = draw(SMALL.config, jax.random.key(7)[None])
    start = jax.tree.map(lambda leaf: np.asarray(leaf[0]), drawn)
    plan = TrainingPlan(Objective(), "all", SMALL.steps, SMALL.batch, "cosine", SMALL.steps // 2)

    def trained(params: Params, read: Sequences) -> Params:
        job = TrainingJob(params, read, len(read.tokens), 1e-3, seed=3)
        return train(SMALL.config, plan, [job])[0]

    before = exchanged(start, place_of)
    wanted, found = exchanged(trained(start, documents), place_of), trained(before, renamed)
    for name, *parts in zip(
        names(found), *map(jax.tree.leaves, (before, wanted, found)), strict=True
    ):
        was, expected, leaf = parts
        # Sums over the vocabulary are in another order: a hundredth of what must have moved.
        np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-4, err_msg=name)
        assert np.abs(leaf - was).max() > 0.01, name


# Parts of another model.


@pytest.mark.parametrize("shared", get_args(Shared))
def test_a_model_made_around_a_part_of_another_has_it_bit_for_bit_and_differs_elsewhere(
    models, shared
):
    (made,) = pretrain_sharing([(models[0], 1)], shared, SMALL)
    taken, found, own = map(leaves, (models[0], made, models[1]))
    for name, leaf in found.items():
        if name.split(".")[0] in GIVEN[shared]:
            assert leaf.tobytes() == taken[name].tobytes(), name
        else:
            assert np.abs(leaf - taken[name]).max() > 1e-3, name
        # Of the same draw as the reference of its seed, but trained around something else.
        assert np.abs(leaf - own[name]).max() > 1e-3, name
    (step,) = made.lineage.trainings
    assert made.lineage.initialisation == models[1].lineage.initialisation
    assert json.loads(step.settings)["shared"] == shared
    assert json.loads(step.settings)["of"] == models[0].lineage.identity
    assert step.data_sha256 == models[0].lineage.trainings[0].data_sha256


# Matching.


def test_matching_by_logits_brings_log_probabilities_closer(models, narrow):
    other = models[1]
    (matched,) = match([(narrow, other)], SMALL)
    read = Corpus(np.random.default_rng(99)).rows(16, SMALL.length)
    target, before, after = (
        log_softmax(np.asarray(jax.jit(DecoderApply(SMALL.config))(m.params, read.tokens)), -1)
        for m in (other, narrow, matched)
    )
    there = read.documents == 1
    distances = [np.abs(one - target)[there].mean() for one in (before, after)]
    assert distances[1] < 0.7 * distances[0]
    assert matched.lineage.trainings[:-1] == narrow.lineage.trainings
    last = matched.lineage.trainings[-1]
    assert last.kind == "cloning"
    assert json.loads(last.settings)["imitated"] == other.lineage.identity


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"length": 0}, "length must be at least 1"),
        ({"learning_rate": float("nan")}, "learning rate is above 0"),
        ({"learning_rate": 0.0}, "learning rate is above 0"),
        ({"heads": 3}, "cannot be cut among 3 heads"),
    ],
)
def test_a_pretraining_out_of_its_range_is_refused(changed, words):
    with pytest.raises(HarnessError, match=words):
        Pretraining(**changed)
