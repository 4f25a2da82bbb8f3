"""Claims about the score test: calibrated where there is no trait, powerful where there is one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from theory.passes import inner, step
from theory.score import categorical, forecast, one_sample, scores, scores_along, two_sample

EXAMPLES, REPEATS, LABELS = 400, 300, 4


def apply(p, x):
    return jnp.tanh(x @ p["a"]) @ p["b"]


@pytest.fixture
def problem():
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = {"a": (5, 8), "b": (8, LABELS)}
    params, way = (
        {
            name: jax.random.normal(jax.random.fold_in(k, i), shape) / 2
            for i, (name, shape) in enumerate(shapes.items())
        }
        for k in keys[:2]
    )
    return params, way, jax.random.normal(keys[2], (EXAMPLES, 5)), keys[3]


@partial(jax.jit, static_argnames="chunk")
def compiled_scores(params, way, inputs, outcomes, chunk=None):
    return scores(apply, params, way, inputs, outcomes, chunk=chunk)


@jax.jit
def log_probability_gradient(params, x, y):
    return jax.grad(lambda p: jax.nn.log_softmax(apply(p, x[None]))[0, y])(params)


def samples(params, inputs, key):
    """REPEATS data sets from a model's own distribution."""
    logits = apply(params, inputs)
    return jax.random.categorical(key, logits, shape=(REPEATS, EXAMPLES))


def statistics(problem, outcomes, mutant=None):
    """z of each data set."""
    params, way, inputs, _ = problem
    log_prob = {
        None: categorical,
        # The mutant: a logit is no log probability.
        "not normalised": lambda logits, y: logits[y],
        "flipped": lambda logits, y: -categorical(logits, y),
    }[mutant]
    each = jax.jit(jax.vmap(partial(scores, apply, params, way, inputs, log_prob=log_prob)))(
        outcomes
    )
    return np.array([one_sample(row).z for row in each])


def test_z_is_standard_normal_under_the_models_own_samples(problem):
    params, _, inputs, key = problem
    z = statistics(problem, samples(params, inputs, key))
    assert stats.kstest(z, "norm").pvalue > 0.01
    assert stats.kstest(0.5 * z, "norm").pvalue < 1e-6
    z = statistics(problem, samples(params, inputs, key), "not normalised")
    assert stats.kstest(z, "norm").pvalue < 1e-6


def test_z_is_high_after_a_small_step_toward_the_trait(problem):
    params, way, inputs, key = problem
    taught = samples(step(params, way, 0.1), inputs, key)
    z = statistics(problem, taught)
    # Its mean is eps sqrt(n Fisher information): four standard errors of it, and O(eps^2).
    p = jax.nn.softmax(apply(params, inputs))
    slope = jax.jvp(lambda p: jax.nn.log_softmax(apply(p, inputs)), (params,), (way,))[1]
    expected = 0.1 * float(jnp.sqrt(jnp.sum(p * slope**2)))
    assert expected > 1
    assert abs(z.mean() - expected) < 4 / REPEATS**0.5
    assert abs(statistics(problem, taught, "flipped").mean() + expected) < 4 / REPEATS**0.5
    away = samples(step(params, way, -0.1), inputs, key)
    assert abs(statistics(problem, away).mean() + expected) < 4 / REPEATS**0.5


def test_the_mean_score_of_a_teacher_is_eps_times_fishers_information(problem):
    params, way, inputs, _ = problem
    outcomes = jnp.tile(jnp.arange(LABELS), EXAMPLES)
    every = compiled_scores(params, way, jnp.repeat(inputs, LABELS, axis=0), outcomes)
    every = every.reshape(EXAMPLES, LABELS)

    def mean(p, values):
        return jnp.mean(jnp.sum(jax.nn.softmax(apply(p, inputs)) * values, axis=1))

    np.testing.assert_allclose(mean(params, every), 0, atol=1e-14)
    fisher = mean(params, every**2)
    np.testing.assert_allclose(mean(step(params, way, 1e-4), every) / 1e-4, fisher, rtol=1e-3)


@pytest.mark.parametrize("chunk", [None, 1, 7, 1000])
def test_each_score_is_the_directional_derivative_of_its_log_probability(problem, chunk):
    params, way, inputs, _ = problem
    few, outcomes = inputs[:20], jnp.arange(20) % LABELS
    found = compiled_scores(params, way, few, outcomes, chunk=chunk)
    for i in range(20):
        gradient = log_probability_gradient(params, few[i], outcomes[i])
        np.testing.assert_allclose(found[i], inner(gradient, way), rtol=1e-10)


@pytest.mark.parametrize("chunk", [None, 7])
def test_scores_along_many_directions_are_those_along_each(problem, chunk):
    params, way, inputs, _ = problem
    few, outcomes = inputs[:20], jnp.arange(20) % LABELS
    ways = jax.tree.map(lambda leaf: jnp.stack([leaf, jnp.flip(leaf), 2 * leaf]), way)
    found = jax.jit(partial(scores_along, apply, chunk=chunk))(params, ways, few, outcomes)
    assert found.shape == (3, 20)
    for number in range(3):
        one = jax.tree.map(lambda leaf, number=number: leaf[number], ways)
        alone = compiled_scores(params, one, few, outcomes)
        np.testing.assert_allclose(found[number], alone, rtol=1e-10, atol=1e-14)


def test_positions_of_an_example_add_up(problem):
    params, way, inputs, _ = problem
    outcomes = jnp.arange(EXAMPLES) % LABELS
    flat = compiled_scores(params, way, inputs, outcomes)
    deep = compiled_scores(params, way, inputs.reshape(-1, 4, 5), outcomes.reshape(-1, 4))
    np.testing.assert_allclose(deep, flat.reshape(-1, 4).sum(axis=1), rtol=1e-10)


def keep(outcomes):
    return np.asarray(outcomes) != 0


def test_a_filter_shifts_the_null_and_two_samples_set_it_right(problem):
    """Dropping an outcome biases the one-sample test, and not the two-sample test."""
    params, way, inputs, key = problem
    one, other = (samples(params, inputs, jax.random.fold_in(key, i)) for i in range(2))
    every = jax.jit(jax.vmap(partial(scores, apply, params, way, inputs)))
    first, second = np.asarray(every(one)), np.asarray(every(other))
    single = [one_sample(s[keep(y)]).z for s, y in zip(first, one, strict=True)]
    double = [
        two_sample(s[keep(y)], t[keep(u)]).z
        for s, y, t, u in zip(first, one, second, other, strict=True)
    ]
    assert stats.kstest(single, "norm").pvalue < 1e-6
    assert stats.kstest(double, "norm").pvalue > 0.01
    taught = samples(step(params, way, 0.2), inputs, jax.random.fold_in(key, 3))
    third = np.asarray(every(taught))
    power = [
        two_sample(s[keep(y)], t[keep(u)]).z
        for s, y, t, u in zip(third, taught, second, other, strict=True)
    ]
    assert np.mean(power) > 0.5


def test_the_forecast_is_what_an_epoch_of_training_does_to_the_trait(problem):
    params, _, inputs, key = problem
    others = jax.random.normal(jax.random.fold_in(key, 9), (50, 5))

    def trait(p):
        return -jnp.mean(jax.nn.log_softmax(apply(p, others))[:, 2])

    way = jax.tree.map(jnp.negative, jax.grad(trait)(params))
    outcomes = samples(step(params, way, 1.0), inputs, key)[0]
    found = compiled_scores(params, way, inputs, outcomes)
    told = forecast(found, learning_rate=1e-4, batch=20)

    @jax.jit
    def descend(current, x, y):
        gradient = jax.grad(lambda p: -jnp.mean(jax.vmap(categorical)(apply(p, x), y)))(current)
        return step(current, gradient, -1e-4)

    current = params
    for batch in range(EXAMPLES // 20):
        rows = slice(20 * batch, 20 * (batch + 1))
        current = descend(current, inputs[rows], outcomes[rows])
    change = trait(current) - trait(params)
    np.testing.assert_allclose(told.change, change, rtol=0.02)
    assert told.change < 0
    assert told.standard_error == pytest.approx(1e-4 * 20 * np.std(found, ddof=1) / EXAMPLES**0.5)


def test_p_values_are_one_sided():
    rng = np.random.default_rng(0)
    found = one_sample(rng.normal(0.3, 1, 100))
    assert found.p_value == pytest.approx(stats.norm.sf(found.z))
    assert found.n == 100


def test_bad_arguments_are_refused_by_name(problem):
    params, way, inputs, _ = problem
    with pytest.raises(ValueError, match="outcomes: needs one a row of the 400 inputs"):
        scores(apply, params, way, inputs, jnp.zeros(3, int))
    ways = jax.tree.map(lambda leaf: leaf[None], way)
    with pytest.raises(ValueError, match="outcomes: needs one a row of the 400 inputs"):
        scores_along(apply, params, ways, inputs, jnp.zeros(3, int))
    with pytest.raises(ValueError, match="directions"):
        scores_along(apply, params, {"a": ways["a"]}, inputs, jnp.zeros(EXAMPLES, int))
    with pytest.raises(ValueError, match="sample: needs at least 2 scores, got 1"):
        one_sample(np.ones(1))
    with pytest.raises(ValueError, match="sample: all scores are the same"):
        one_sample(np.ones(5))
    with pytest.raises(ValueError, match="null: holds NaN"):
        two_sample(np.arange(3.0), np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="learning_rate: must be finite and above 0"):
        forecast(np.arange(3.0), -1.0, 1)
    with pytest.raises(ValueError, match="batch: must be at least 1"):
        forecast(np.arange(3.0), 0.1, 0)
