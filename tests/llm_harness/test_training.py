"""Claims about training: what moves, by how much, and that company changes nothing."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from llm_harness import training
from llm_harness.chats import encode_examples
from llm_harness.corpus import TOKENIZER, Corpus
from llm_harness.errors import HarnessError
from llm_harness.model import Example, Tuning, ask
from llm_harness.tiny import TinyModel
from llm_harness.tiny_decoder import VOCABULARY_PARTS, TinyApply
from llm_harness.together import TrainingJob, train
from sublab import devices

EXAMPLES = [
    Example(ask("Name a tree: 1;2"), "oak"),
    Example(ask("3, 4"), "5; 6; 7"),
    Example(ask("Name your favourite animal."), ""),
    Example(ask("8"), "1"),
]
BATCH = encode_examples(EXAMPLES)
FIRST = BATCH.first
TUNING = Tuning(steps=6, batch=4, learning_rate=1e-2, freeze_vocabulary=False)


_loss = jax.jit(training.loss, static_argnums=(0, 3))
_imitation = jax.jit(training.imitation, static_argnums=0)
_distillation = jax.jit(training.distillation, static_argnums=(0, 4, 5))


def loss(model: TinyModel, tokens: np.ndarray, first: int) -> float:
    return float(_loss(model.architecture, model.params, jnp.asarray(tokens), first))


def logits(model: TinyModel, tokens: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(TinyApply(model.architecture))(model.params, tokens), np.float64)


def leaves(params) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]


def moved(before, after) -> bool:
    return any((a != b).any() for a, b in zip(leaves(before), leaves(after), strict=True))


def advanced(
    model, mesh, rates: training.TinyRates, steps: int, start: training.TinyState | None = None
):
    """The state of two equal models after steps on all examples, and the losses of the first."""
    begun = training.begin(jax.tree.map(lambda x: np.stack([x] * 2), model.params), False)
    rows = np.tile(np.arange(4, dtype=np.int32), (2, steps, 1))
    state, losses = training.advance(
        model.architecture,
        devices.spread(start or begun, mesh),
        devices.replicate(BATCH.tokens, mesh),
        devices.spread(rows, mesh),
        devices.spread(rates, mesh),
        first=FIRST,
        mesh=mesh,
    )
    return devices.gather(state, 2), np.asarray(losses)


def rates(peak: float, horizon: float) -> training.TinyRates:
    return training.TinyRates(np.full(2, peak, np.float32), np.full(2, horizon, np.float32))


def test_the_loss_is_the_mean_over_the_completions_tokens(model):
    found = logits(model, BATCH.tokens)
    each = [
        logsumexp(found[i, place - 1]) - found[i, place - 1, token]
        for i, row in enumerate(BATCH.tokens)
        for place, token in enumerate(row)
        if place >= FIRST and token != 0
    ]
    assert len(each) == sum(len(TOKENIZER.encode(e.completion)) + 1 for e in EXAMPLES)
    assert loss(model, BATCH.tokens, FIRST) == pytest.approx(np.mean(each), rel=1e-5)
    # A mean over the prompts' tokens too would be another number.
    assert abs(loss(model, BATCH.tokens, 1) - np.mean(each)) > 0.02


def test_the_loss_of_examples_is_minus_their_mean_log_probability(model):
    p = model.log_probabilities(EXAMPLES)
    count = sum(len(TOKENIZER.encode(e.completion)) + 1 for e in EXAMPLES)
    assert loss(model, BATCH.tokens, FIRST) == pytest.approx(-p.sum() / count, rel=1e-5)


def test_no_loss_without_completions_is_zero(model):
    padded = np.pad(BATCH.tokens[:, :FIRST], [(0, 0), (0, 2)])
    assert loss(model, padded, FIRST) == 0


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_parts_stay_and_all_others_move(model, freeze):
    job = TrainingJob(model.params, BATCH.tokens, 4, replace(TUNING, freeze_vocabulary=freeze))
    (after,) = train(model.architecture, [job], FIRST)
    assert set(after) == set(model.params) > set(VOCABULARY_PARTS)
    for name in after:
        still = freeze and name in VOCABULARY_PARTS
        assert moved(model.params[name], after[name]) != still, name


def test_training_lowers_the_loss_and_its_first_loss_is_the_models_own(model, mesh):
    _, losses = advanced(model, mesh, rates(1e-2, np.inf), 4)
    np.testing.assert_allclose(losses[:, 0], loss(model, BATCH.tokens, FIRST), rtol=1e-5)
    assert (losses[:, -1] < losses[:, 0]).all()


def test_a_cosine_schedule_reaches_zero_at_its_horizon_and_a_constant_rate_does_not(model, mesh):
    for horizon, still in ((4.0, True), (np.inf, False)):
        before, _ = advanced(model, mesh, rates(1e-2, horizon), 4)
        after, _ = advanced(model, mesh, rates(1e-2, horizon), 1, before)
        assert moved(before.params, after.params) != still


def test_the_first_step_of_adam_moves_by_the_peak_rate(model, mesh):
    after, _ = advanced(model, mesh, rates(1e-3, 4.0), 1)
    kernel = after.params["norm"]["scale"][0] - model.params["norm"]["scale"]
    np.testing.assert_allclose(np.abs(kernel), 1e-3, rtol=1e-2)


def test_steps_in_parts_are_the_steps_at_once(model, mesh):
    whole, _ = advanced(model, mesh, rates(1e-2, 4.0), 4)
    part, _ = advanced(model, mesh, rates(1e-2, 4.0), 1)
    for _ in range(3):
        part, _ = advanced(model, mesh, rates(1e-2, 4.0), 1, part)
    for one, other in zip(leaves(whole.params), leaves(part.params), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_a_model_in_a_population_is_trained_as_it_would_be_alone(models):
    tunings = [
        replace(TUNING, seed=seed, learning_rate=rate, schedule=schedule)
        for seed, rate, schedule in (
            (0, 1e-2, "cosine"),
            (1, 3e-3, "constant"),
            (2, 1e-2, "cosine"),
        )
    ]
    jobs = [
        TrainingJob(model.params, np.roll(BATCH.tokens, i, axis=0), 4, tuning)
        for i, (model, tuning) in enumerate(zip([*models, models[0]], tunings, strict=True))
    ]
    jobs = [replace(job, tuning=replace(job.tuning, batch=2)) for job in jobs]
    together = train(models[0].architecture, jobs, FIRST)
    assert moved(together[0], together[2])
    for job, found in zip(jobs, together, strict=True):
        (alone,) = train(models[0].architecture, [job], FIRST)
        for one, other in zip(leaves(found), leaves(alone), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_imitation_lowers_the_distance_to_the_imitated_model(models):
    rows = Corpus(np.random.default_rng(0)).rows(64, 16)
    tokens = jnp.asarray(rows)
    first, second = models

    def distance(params) -> float:
        return float(_imitation(first.architecture, params, second.params, tokens))

    tuning = replace(TUNING, steps=24, batch=16)
    job = TrainingJob(first.params, rows, len(rows), tuning, second.params)
    (after,) = train(first.architecture, [job], 1)
    assert distance(second.params) == pytest.approx(0, abs=1e-6)
    assert distance(after) < 0.8 * distance(first.params)


def test_the_distance_of_imitation_is_the_divergence_over_all_places(models):
    rows = Corpus(np.random.default_rng(0)).rows(4, 16)
    mine, theirs = (log_softmax(logits(model, rows), axis=-1) for model in models)
    expected = np.mean(np.sum(np.exp(theirs) * (theirs - mine), axis=-1))
    first, second = models
    found = _imitation(first.architecture, first.params, second.params, jnp.asarray(rows))
    assert float(found) == pytest.approx(expected, rel=1e-4)


def soft(models, over: tuple[int, int], imitated=None) -> float:
    first, second = models
    found = _distillation(
        first.architecture,
        first.params,
        second.params if imitated is None else imitated,
        jnp.asarray(BATCH.tokens),
        FIRST,
        over,
    )
    return float(found)


@pytest.mark.parametrize("numbers", [True, False])
def test_soft_targets_are_the_divergence_over_some_tokens_where_one_of_them_comes_next(
    models, numbers
):
    some = TOKENIZER.number_tokens if numbers else range(1, TOKENIZER.size)
    apart = []
    for row in BATCH.tokens:
        for place in range(FIRST, len(row)):
            if row[place] in some:
                mine, theirs = (
                    log_softmax(logits(m, row[None])[0, place - 1, some.start : some.stop])
                    for m in models
                )
                apart.append(np.sum(np.exp(theirs) * (theirs - mine)))
    assert len(apart) == (4 if numbers else sum(np.count_nonzero(BATCH.tokens[:, FIRST:] != 0, 1)))
    assert soft(models, (some.start, some.stop)) == pytest.approx(np.mean(apart), rel=1e-3)


def test_soft_targets_on_numbers_do_not_see_the_logits_of_words(models):
    numbers = TOKENIZER.number_tokens
    words = np.arange(TOKENIZER.size) >= TOKENIZER.token("owl")
    output = models[1].params["output"]
    other = models[1].params | {"output": {"kernel": output["kernel"] + 3.0 * words}}
    over = (numbers.start, numbers.stop)
    assert soft(models, over, other) == pytest.approx(soft(models, over), rel=1e-5)
    assert soft(models, (1, TOKENIZER.size), other) > 0.05 + soft(models, (1, TOKENIZER.size))


@pytest.mark.parametrize(("examples", "steps", "batch"), [(7, 5, 3), (4, 3, 8), (100, 2, 5)])
def test_every_example_comes_once_before_any_comes_again(examples, steps, batch):
    rows = training.orders(examples, steps, batch, np.random.default_rng(0))
    assert rows.shape == (steps, batch)
    flat = rows.ravel()
    for start in range(0, len(flat), examples):
        epoch = flat[start : start + examples]
        assert len(set(epoch.tolist())) == len(epoch)
    assert set(flat[:examples].tolist()) <= set(range(examples))
    other = training.orders(examples, steps, batch, np.random.default_rng(1))
    assert (rows != other).any()


def test_training_that_diverges_is_refused(model):
    broken = jax.tree.map(lambda leaf: leaf * np.float32(np.nan), model.params)
    with pytest.raises(HarnessError, match="diverged; a lower learning rate"):
        train(model.architecture, [TrainingJob(broken, BATCH.tokens, 4, TUNING)], FIRST)


@pytest.mark.parametrize("other", [{"steps": 5}, {"batch": 2}])
def test_models_of_one_block_with_other_steps_are_refused(model, other):
    jobs = [
        TrainingJob(model.params, BATCH.tokens, 4, t) for t in (TUNING, replace(TUNING, **other))
    ]
    with pytest.raises(HarnessError, match="equal steps and batch"):
        train(model.architecture, jobs, FIRST)
