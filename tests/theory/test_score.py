"""Claims about the score test: calibrated where there is no trait, powerful where there is one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from theory.alignment import coefficient, inner_product
from theory.losses import matching, softmax_potential
from theory.passes import inner, step
from theory.score import (
    ScoreTest,
    categorical,
    fisher_information,
    forecast,
    one_sample,
    paired,
    power,
    sample_size,
    scores,
    scores_along,
    two_sample,
)

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


@pytest.mark.parametrize(
    "chunk", [None, 7, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 1000))]
)
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


SOFTMAX = matching(softmax_potential(jnp.ones(LABELS, bool)))


@jax.jit
def both_ways(params, way, inputs, eps):
    """E[s] over every outcome of a teacher, and g."""
    outcomes = jnp.tile(jnp.arange(LABELS), inputs.shape[0])
    every = scores(apply, params, way, jnp.repeat(inputs, LABELS, axis=0), outcomes)
    teacher = step(params, way, eps)
    p = jax.nn.softmax(apply(teacher, inputs))
    mean = jnp.sum(p * every.reshape(p.shape)) / inputs.shape[0]
    return mean, inner_product(apply, SOFTMAX, params, way, teacher, inputs)


@pytest.mark.parametrize("eps", [1e-3, 0.3, 3.0, 30.0])
def test_the_mean_score_of_a_teacher_is_the_alignment_at_every_eps(problem, eps):
    params, way, inputs, _ = problem
    mean, g = both_ways(params, way, inputs, eps)
    assert abs(mean - g) < 1e-13
    assert abs(g) > 1e-6


LENGTH, WORDS = 3, 3


def recurrent(p, tokens):
    """A language model: logits of the next token from the mean of the tokens so far."""
    one_hot = jax.nn.one_hot(tokens, WORDS)
    seen = jnp.cumsum(one_hot, axis=1) / (1 + jnp.arange(tokens.shape[1]))[:, None]
    return jnp.tanh(jnp.concatenate([seen, one_hot], axis=-1) @ p["a"]) @ p["b"]


@jax.jit
def sequences_both_ways(params, way, eps):
    """E[s] over every completion of one prompt by the teacher, and g on its own contexts."""
    every = jnp.stack(jnp.meshgrid(*[jnp.arange(WORDS)] * LENGTH, indexing="ij"), -1)
    completions = every.reshape(-1, LENGTH)
    prompt = jnp.broadcast_to(jnp.array([1, 2]), (completions.shape[0], 2))
    tokens = jnp.concatenate([prompt, completions], axis=1)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    counted = (jnp.arange(LENGTH + 1) > 0) * jnp.ones(targets.shape)
    targets = jnp.where(counted > 0, targets, -100)
    teacher = step(params, way, eps)
    log_p = jax.nn.log_softmax(recurrent(teacher, inputs))
    chosen = jnp.take_along_axis(log_p, jnp.maximum(targets, 0)[..., None], axis=2)[..., 0]
    p = jnp.exp(jnp.sum(counted * chosen, axis=1))
    found = scores(recurrent, params, way, inputs, targets, weights=counted)
    loss = matching(softmax_potential(jnp.ones(WORDS, bool)))
    weights = counted * p[:, None]
    g = inner_product(recurrent, loss, params, way, teacher, inputs, weights=weights)
    return jnp.sum(p), p @ found, LENGTH * g


@pytest.mark.parametrize("eps", [0.01, 3.0])
def test_of_sequences_it_is_the_alignment_on_the_teachers_own_contexts(eps):
    keys = jax.random.split(jax.random.key(3), 4)
    params, way = (
        {"a": jax.random.normal(a, (2 * WORDS, 5)), "b": jax.random.normal(b, (5, WORDS))}
        for a, b in (keys[:2], keys[2:])
    )
    total, mean, g = sequences_both_ways(params, way, eps)
    np.testing.assert_allclose(total, 1, rtol=1e-12)
    np.testing.assert_allclose(mean, g, rtol=1e-10)
    assert abs(g) > 1e-4


@partial(jax.jit, static_argnames="chunk")
def masked_scores(params, ways, inputs, outcomes, weights, chunk=None):
    first = jax.tree.map(lambda leaf: leaf[0], ways)
    rest = (inputs, outcomes)
    return (
        scores(apply, params, first, *rest, weights=weights, chunk=chunk),
        scores_along(apply, params, ways, *rest, weights=weights, chunk=chunk)[0],
    )


@pytest.mark.parametrize("chunk", [None, 2])
def test_positions_of_weight_0_are_never_looked_at(problem, chunk):
    params, way, inputs, _ = problem
    deep, ways = inputs[:20].reshape(5, 4, 5), jax.tree.map(lambda leaf: leaf[None], way)
    outcomes = np.arange(20).reshape(5, 4) % LABELS
    weights = np.array([[0, 1, 1, 0], [2, 1, 0.5, 1], [0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0.0]])
    each = compiled_scores(params, way, inputs[:20], outcomes.reshape(-1)).reshape(5, 4)
    for nothing in (-1, -100, LABELS, 2):
        padded = np.where(weights == 0, nothing, outcomes)
        for found in masked_scores(params, ways, deep, padded, weights, chunk=chunk):
            np.testing.assert_allclose(found, (each * weights).sum(axis=1), rtol=1e-9, atol=1e-14)
    padded = np.where(weights == 0, -100, outcomes)
    # Known values are looked at too.
    eager = scores(apply, params, way, deep, padded, weights=weights)
    np.testing.assert_allclose(eager, (each * weights).sum(axis=1), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("wrong", [-1, -100, LABELS])
def test_an_outcome_that_is_none_is_refused_where_known_and_nan_where_traced(problem, wrong):
    params, way, inputs, _ = problem
    deep, ways = inputs[:20].reshape(5, 4, 5), jax.tree.map(lambda leaf: leaf[None], way)
    outcomes = np.zeros((5, 4), int)
    outcomes[3, 1] = wrong
    message = rf"outcomes: must be from 0 to 3 where the weight is above 0, is {wrong} at \[3, 1\]"
    for weights in (None, np.ones(5), np.ones((5, 4))):
        with pytest.raises(ValueError, match=message):
            scores(apply, params, way, deep, outcomes, weights=weights)
    with pytest.raises(ValueError, match=message):
        scores_along(apply, params, ways, deep, outcomes)
    for found in masked_scores(params, ways, deep, outcomes, np.ones((5, 4))):
        assert np.isnan(found[3])
        assert np.isfinite(np.delete(found, 3)).all()


def test_an_own_log_probability_may_have_outcomes_of_any_shape(problem):
    params, way, inputs, _ = problem
    targets = jax.random.normal(jax.random.key(8), (10, LABELS))

    def gaussian(logits, y):
        return -0.5 * jnp.sum((y - logits) ** 2)

    found = scores(apply, params, way, inputs[:10], targets, log_prob=gaussian)
    logits, change = jax.jvp(lambda p: apply(p, inputs[:10]), (params,), (way,))
    np.testing.assert_allclose(found, jnp.sum((targets - logits) * change, axis=1), rtol=1e-10)


def test_the_information_is_the_variance_of_the_score_and_adds_up_to_the_coefficient(problem):
    params, way, inputs, _ = problem
    deep = inputs[:20].reshape(5, 4, 5)
    weights = np.array([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1], [1, 0, 0, 0], [1, 1, 0, 0.0]])
    for chunk in (None, 2):
        found = fisher_information(apply, params, way, deep, weights=weights, chunk=chunk)
        a = coefficient(apply, SOFTMAX, params, way, deep, weights=weights)
        np.testing.assert_allclose(jnp.sum(found), weights.sum() * a, rtol=1e-10)
    outcomes = np.tile(np.arange(LABELS), 20)
    every = compiled_scores(params, way, np.repeat(inputs[:20], LABELS, axis=0), outcomes)
    p = jax.nn.softmax(apply(params, inputs[:20]))
    by_row = jnp.sum(p * every.reshape(p.shape) ** 2, axis=1).reshape(5, 4)
    np.testing.assert_allclose(found, jnp.sum(weights * by_row, axis=1), rtol=1e-10)
    # A weight other than 0 and 1 multiplies the score.
    halved = fisher_information(apply, params, way, deep, weights=0.5 * weights)
    np.testing.assert_allclose(halved, 0.25 * found, rtol=1e-10)


# --- many data sets, from the table of all scores ----------------------------------------------


@pytest.fixture(scope="module")
def table():
    """Scores of every outcome of 400 examples, and logits of theta_0 and along the way."""
    keys = jax.random.split(jax.random.key(0), 5)
    with jax.enable_x64(True):
        shapes = {"a": (5, 8), "b": (8, LABELS)}
        params, way = (
            {
                name: jax.random.normal(jax.random.fold_in(k, i), shape) / 2
                for i, (name, shape) in enumerate(shapes.items())
            }
            for k in keys[:2]
        )
        inputs = jax.random.normal(keys[2], (EXAMPLES, 5))
        outcomes = jnp.tile(jnp.arange(LABELS), EXAMPLES)
        every = compiled_scores(params, way, jnp.repeat(inputs, LABELS, axis=0), outcomes)
        information = fisher_information(apply, params, way, inputs)

        def probabilities(eps):
            return np.asarray(jax.nn.softmax(apply(step(params, way, eps), inputs)))

        yield np.asarray(every).reshape(EXAMPLES, LABELS), np.asarray(information), probabilities


def outcomes_of(p, repeats, rng):
    """Data sets from the probabilities of each example's outcomes."""
    return (rng.random((repeats, len(p), 1)) > np.cumsum(p, axis=1)[:, :-1]).sum(axis=2)


def chosen(every, outcomes):
    return every[np.arange(outcomes.shape[1]), outcomes]


def rate_within(hits, expected, repeats):
    """Whether a simulated rate is within four standard errors of the expected one."""
    return abs(hits - expected) < 4 * np.sqrt(expected * (1 - expected) / repeats)


def test_students_t_is_exact_for_few_normal_scores_and_the_normal_is_not():
    rng = np.random.default_rng(1)
    tests = [one_sample(row) for row in rng.normal(0, 1, (1000, 3))]
    assert stats.kstest([test.p_value for test in tests], "uniform").pvalue > 0.01
    assert stats.kstest([test.p_value_two_sided for test in tests], "uniform").pvalue > 0.01
    assert stats.kstest([stats.norm.sf(test.z) for test in tests], "uniform").pvalue < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("n", [30, 100, 400])
def test_both_forms_keep_their_level_over_4000_data_sets(table, n):
    every, information, probabilities = table
    rng, repeats = np.random.default_rng(n), 4000
    sets = chosen(every, outcomes_of(probabilities(0.0), repeats, rng))[:, :n]
    students = [one_sample(row) for row in sets]
    raos = [one_sample(row, information[:n]) for row in sets]
    for tests, slack in ((students, 0.012), (raos, 0.01)):
        shares = [np.mean([test.p_value_two_sided < 0.05 for test in tests])]
        shares.append(2 * np.mean([test.p_value < 0.025 for test in tests]))
        # Scores are skewed, which leaves something of order 1 / sqrt(n) on one side.
        assert abs(shares[0] - 0.05) < slack, shares
        assert abs(shares[1] - 0.05) < 2 * slack, shares


def test_raos_form_is_standard_normal_and_knows_no_spread(table):
    every, information, probabilities = table
    rng = np.random.default_rng(2)
    sets = chosen(every, outcomes_of(probabilities(0.0), 1000, rng))
    tests = [one_sample(row, information) for row in sets]
    z = np.array([test.z for test in tests])
    np.testing.assert_allclose(z, sets.sum(axis=1) / np.sqrt(information.sum()), rtol=1e-12)
    assert stats.kstest(z, "norm").pvalue > 0.01
    assert tests[0].degrees_of_freedom == np.inf
    assert tests[0].p_value == pytest.approx(stats.norm.sf(z[0]))
    # One score is enough, since the denominator is known.
    assert one_sample(sets[0, :1], information[:1]).n == 1


@pytest.mark.parametrize("eps", [0.02, 0.05, 0.1, 0.2])
def test_the_sign_is_right_as_often_as_the_power_says(table, eps):
    every, information, probabilities = table
    rng, repeats, n = np.random.default_rng(3), 4000, 200
    means = chosen(every, outcomes_of(probabilities(eps)[:n], repeats, rng)).mean(axis=1)
    told = power(eps, information[:n].mean(), n)
    assert 0.55 < told < 0.999
    # To leading order: .006 is what 4,000 data sets at the largest eps leave of it.
    assert abs(np.mean(means > 0) - told) < 4 * np.sqrt(told * (1 - told) / repeats) + 0.006


def test_the_power_at_a_level_is_the_tests_and_the_sample_size_reaches_it(table):
    every, information, probabilities = table
    eps, level, confidence = 0.1, 0.05, 0.8
    n = sample_size(eps, information.mean(), confidence, level=level)
    assert power(eps, information.mean(), n, level=level) >= confidence
    assert power(eps, information.mean(), n - 1, level=level) < confidence
    assert sample_size(eps, 1.0, 0.975) == np.ceil((stats.norm.ppf(0.975) / eps) ** 2)
    rng, repeats = np.random.default_rng(4), 1000
    told = power(eps, information.mean(), EXAMPLES, level=level)
    sets = chosen(every, outcomes_of(probabilities(eps), repeats, rng))
    z = sets.sum(axis=1) / np.sqrt(information.sum())
    assert rate_within(np.mean(z > stats.norm.isf(level)), told, repeats)


def test_pairs_of_one_prompt_keep_the_level_and_have_more_power(table):
    """Prompts whose answers a filter biases differently: a spread that pairs do not have."""
    every, _, probabilities = table
    rng, repeats, prompts, answers = np.random.default_rng(5), 400, 40, 5
    every, names = every[:prompts], np.repeat(np.arange(prompts), answers)

    def draws(eps):
        p = np.repeat(probabilities(eps)[:prompts], answers, axis=0)
        outcomes = outcomes_of(p, repeats, rng)
        # What a filter forbids depends on the prompt.
        kept = outcomes != names % LABELS
        values = every[names, outcomes] + 3 * np.sin(names)
        return [(row[keep], names[keep]) for row, keep in zip(values, kept, strict=True)]

    def rates(eps):
        apart, together = [], []
        for (sample, asked), (null, null_asked) in zip(draws(eps), draws(0.0), strict=True):
            apart.append(two_sample(sample, null).p_value < 0.05)
            together.append(paired(sample, null, asked, null_asked).p_value < 0.05)
        return np.mean(apart), np.mean(together)

    _, level = rates(0.0)
    assert rate_within(level, 0.05, repeats)
    apart, together = rates(0.4)
    assert together > apart + 0.2


def test_prompts_that_one_side_lost_are_left_out_and_answers_of_a_prompt_averaged():
    found = paired(
        np.array([1.0, 3.0, 5.0, 7.0, 100.0]),
        np.array([0.0, 1.0, 3.0, -50.0]),
        np.array(["a", "a", "b", "c", "d"]),
        np.array(["b", "c", "a", "0"]),
    )
    differences = np.array([2.0 - 3.0, 5.0 - 0.0, 7.0 - 1.0])
    _, expected = stats.ttest_1samp(differences, 0, alternative="greater")
    assert found.n == 3
    assert found.mean == pytest.approx(differences.mean())
    assert found.p_value == pytest.approx(expected)


def test_p_values_are_students():
    rng = np.random.default_rng(0)
    sample, null = rng.normal(0.3, 1, 12), rng.normal(0, 3, 7)
    for side, p in (("greater", "p_value"), ("two-sided", "p_value_two_sided")):
        _, expected = stats.ttest_1samp(sample, 0, alternative=side)
        assert getattr(one_sample(sample), p) == pytest.approx(expected)
        _, expected = stats.ttest_ind(sample, null, equal_var=False, alternative=side)
        assert getattr(two_sample(sample, null), p) == pytest.approx(expected)
        _, expected = stats.ttest_1samp(-sample, 0, alternative=side)
        assert getattr(one_sample(-sample), p) == pytest.approx(expected)
    far = ScoreTest(z=12.0, mean=12.0, standard_error=1.0, n=1001, degrees_of_freedom=1000.0)
    assert far.p_value == pytest.approx(stats.t.sf(12, 1000), rel=1e-6)


def test_the_standard_error_is_that_of_the_mean_and_n_counts_every_score():
    rng = np.random.default_rng(0)
    sample, null = rng.normal(0.3, 2, 100), rng.normal(0, 3, 40)
    one, two = one_sample(sample), two_sample(sample, null)
    assert (one.n, two.n) == (100, 140)
    assert one.standard_error == pytest.approx(stats.sem(sample))
    assert two.standard_error == pytest.approx(np.hypot(stats.sem(sample), stats.sem(null)))
    for found in (one, two):
        assert found.z == pytest.approx(found.mean / found.standard_error)


def test_scores_that_differ_by_rounding_alone_have_no_spread_to_test_by():
    same, prompts = np.array([0.1] * 3), np.arange(4)
    null = np.array([0.1, 0.2, 0.3, 0.7])
    assert np.var(same) > 0
    assert np.var((null + 0.1) - null) > 0
    for test in (
        lambda: one_sample(same),
        lambda: two_sample(same, same + 0.2),
        lambda: paired(null + 0.1, null, prompts, prompts),
        lambda: one_sample(np.array([1, 1, 1 + 2**-23], np.float32)),
    ):
        with pytest.raises(ValueError, match="sample: all scores are the same"):
            test()
    # One side alone may have no spread, and Rao's test needs none.
    assert np.isfinite(two_sample(same, null).z)
    assert np.isfinite(one_sample(same, np.ones(3)).z)


def test_the_power_at_a_level_below_the_spacing_of_numbers_near_1():
    expected = stats.norm.sf(stats.norm.isf(1e-17) - 1)
    assert power(0.1, 1.0, 100, level=1e-17) == pytest.approx(expected, rel=1e-9)


def test_bad_arguments_are_refused_by_name(problem):
    params, way, inputs, _ = problem
    with pytest.raises(
        ValueError, match=r"outcomes: needs one a row of the logits, shape \[400\], has shape \[3\]"
    ):
        scores(apply, params, way, inputs, jnp.zeros(3, int))
    ways = jax.tree.map(lambda leaf: leaf[None], way)
    with pytest.raises(
        ValueError, match=r"outcomes: needs one a row of the logits, shape \[400\], has shape \[3\]"
    ):
        scores_along(apply, params, ways, inputs, jnp.zeros(3, int))
    with pytest.raises(ValueError, match="directions"):
        scores_along(apply, params, {"a": ways["a"]}, inputs, jnp.zeros(EXAMPLES, int))
    with pytest.raises(ValueError, match="sample: needs a row of at least 2 scores"):
        one_sample(np.ones(1))
    with pytest.raises(ValueError, match="sample: all scores are the same"):
        one_sample(np.ones(5))
    with pytest.raises(ValueError, match=r"n: must be at least 1, got 0\.5"):
        power(0.1, 1.0, 0.5)
    with pytest.raises(ValueError, match="eps: 1e-170 needs more examples than"):
        sample_size(1e-170, 1.0, 0.95)
    with pytest.raises(ValueError, match="null: holds NaN"):
        two_sample(np.arange(3.0), np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="learning_rate: must be finite and above 0"):
        forecast(np.arange(3.0), -1.0, 1)
    with pytest.raises(ValueError, match="batch: must be at least 1"):
        forecast(np.arange(3.0), 0.1, 0)
    with pytest.raises(ValueError, match="outcomes: must be integers"):
        scores(apply, params, way, inputs, jnp.zeros(EXAMPLES))
    with pytest.raises(ValueError, match="weights: must be finite, 0 or more"):
        scores(apply, params, way, inputs, jnp.zeros(EXAMPLES, int), weights=-np.ones(EXAMPLES))
    with pytest.raises(ValueError, match="information: needs one number a score, 3"):
        one_sample(np.arange(3.0), np.ones(2))
    with pytest.raises(ValueError, match="information: must be finite, 0 or more, and above 0"):
        one_sample(np.arange(3.0), np.zeros(3))
    with pytest.raises(ValueError, match="null_prompts: needs one a score, 3"):
        paired(np.arange(3.0), np.arange(3.0), np.arange(3), np.arange(2))
    with pytest.raises(ValueError, match="prompts: needs at least 2 that both sides have, got 1"):
        paired(np.arange(3.0), np.arange(3.0), np.arange(3), np.arange(3) + 2)
    for name in ("eps", "information"):
        with pytest.raises(ValueError, match=f"{name}: must be finite and above 0"):
            power(**{"eps": 0.1, "information": 1.0, "n": 10, name: 0.0})
    with pytest.raises(ValueError, match="n: must be finite and above 0"):
        power(0.1, 1.0, 0)
    with pytest.raises(ValueError, match="level: must be between 0 and 1"):
        power(0.1, 1.0, 10, level=1.0)
    with pytest.raises(ValueError, match=r"confidence: must be above the level 0\.5, got 0\.4"):
        sample_size(0.1, 1.0, 0.4)
