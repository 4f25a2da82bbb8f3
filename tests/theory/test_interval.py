"""Claims about the certificate over an interval: tight where it can be, never wrong."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import interval
from theory.alignment import inner_product
from theory.interval import (
    constant_drift,
    coordinate_drift,
    interval_certificate,
    softmax_drift,
)
from theory.losses import (
    bernoulli_potential,
    matching,
    poisson_potential,
    softmax_potential,
    squared_potential,
)
from theory.passes import step

OUTPUTS = 3
SUBSET = np.array([True, True, False])
SQUARED = matching(squared_potential(jnp.ones(1)))
BERNOULLI = matching(bernoulli_potential)


def bend(p, x):
    """theta - 0.25 theta^2 for every example."""
    return (p["w"] - 0.25 * p["w"] ** 2) * x


def at(value):
    return {"w": jnp.full(1, value)}


@pytest.mark.parametrize("drift", [None, constant_drift])
def test_it_is_tight_for_a_parabola_under_squared_error(drift):
    """g = s (1 - s / 4), so that the bound 2 |J d| / kappa = 4 is where g turns."""
    found = interval_certificate(
        bend, SQUARED, at(0.0), at(1.0), jnp.ones((2, 1)), largest=10.0, drift=drift
    )
    assert float(found.reach) == pytest.approx(4.0)
    np.testing.assert_allclose(found.bound, 4.0)
    assert found.sizes.shape == (32,)


def line(p, x):
    return p["w"] * x


def test_a_linear_model_under_squared_error_is_certified_as_far_as_one_looks():
    found = interval_certificate(
        line, SQUARED, at(0.0), at(1.0), jnp.ones((2, 1)), largest=1e3, drift=constant_drift
    )
    assert float(found.reach) == 1e3
    assert np.isinf(found.bound).all()


def test_a_direction_that_nothing_sees_is_not_certified():
    found = interval_certificate(line, SQUARED, at(0.0), at(1.0), jnp.zeros((2, 1)), largest=1.0)
    assert float(found.reach) == 0


def swing(p, x):
    """A logit that rises for ever, and a confident one that swings through 0 and back in 20."""
    s = p["w"][0]
    return jnp.where(x > 0, s, 12 + 18 * jnp.sin(2 * jnp.pi * s / 20))


def test_bounds_on_the_hessian_at_eps_alone_would_certify_a_negative_g():
    inputs = jnp.array([[1.0], [-1.0]])
    largest, start, way = 20.0, at(0.0), at(1.0)

    def g(eps):
        return float(inner_product(swing, BERNOULLI, start, way, step(start, way, eps), inputs))

    # The mean Hessian at eps = 20 is between 0.1 and 1 times that at the start.
    logits = np.array([0.0, 12.0])
    variance = 1 / (2 + 2 * np.cosh(logits))
    velocity, acceleration = np.array([1.0, 1.8 * np.pi]), np.array([0.0, 18 * (np.pi / 10) ** 2])
    wrong_bound = 2 * np.sqrt(
        0.1 * np.sum(variance * velocity**2) / np.sum(variance * acceleration**2)
    )
    assert wrong_bound > largest
    assert g(20.0) > 0
    assert g(15.0) < 0
    for drift in (None, coordinate_drift):
        found = interval_certificate(
            swing, BERNOULLI, start, way, inputs, largest=largest, points=200, drift=drift
        )
        assert 0.1 < float(found.reach) < 15
        assert all(g(share * float(found.reach)) > 0 for share in np.linspace(0.01, 0.999, 16))


CASES = (
    (squared_potential(jnp.array([0.5, 2.0, 0.0])), constant_drift),
    (softmax_potential(jnp.array(SUBSET), 1.7), softmax_drift(jnp.array(SUBSET), 1.7)),
    (bernoulli_potential, coordinate_drift),
    (poisson_potential, coordinate_drift),
)
LOSSES = [(matching(potential), drift) for potential, drift in CASES]


def network(p, x):
    return jnp.tanh(x @ p["a"]) @ p["b"]


def certify(seed):
    """By loss: the reaches by eigenvalues and by drift, and g at 16 sizes within each."""
    keys = jax.random.split(jax.random.key(seed), 5)
    params, way = (
        {"a": jax.random.normal(a, (4, 6)), "b": jax.random.normal(b, (6, OUTPUTS))}
        for a, b in (keys[:2], keys[2:4])
    )
    inputs = jax.random.normal(keys[4], (8, 4))
    shares = jnp.arange(1, 17) / 16.001

    def of(loss, drift):
        args = network, loss, params, way
        found = [
            interval_certificate(*args, inputs, largest=3.0, drift=each) for each in (None, drift)
        ]
        sizes = jnp.stack([one.reach for one in found])[:, None] * shares
        g = jax.lax.map(
            lambda eps: inner_product(*args, step(params, way, eps), inputs), sizes.reshape(-1)
        )
        return found[0].reach, found[1].reach, g, jnp.diff(found[1].bound)

    return [of(loss, drift) for loss, drift in LOSSES]


certified = jax.jit(certify)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31 - 1))
def test_g_is_positive_wherever_it_is_certified(seed):
    for by_eigenvalues, by_drift, g, rise in jax.device_get(certified(np.uint32(seed))):
        assert 0 < by_drift <= by_eigenvalues * (1 + 1e-9)
        assert (g > 0).all()
        # What holds up to some s holds up to every smaller one.
        assert (rise <= 0).all()


def relu(p, x):
    return jax.nn.relu(x @ p["w"]) @ p["v"]


def test_a_kink_between_two_points_of_the_grid_is_allowed_for():
    """One unit is on and rises; at s = 1 another comes on that counts thrice, downwards."""
    start = {"w": jnp.array([[-1.0, 1.0]]), "v": jnp.array([[-3.0], [1.0]])}
    way = {"w": jnp.ones((1, 2)), "v": jnp.zeros((2, 1))}
    rest = (relu, SQUARED, start, way, jnp.ones((1, 1)))
    found = interval_certificate(*rest, largest=10.0)
    # g = s up to 1, and 3 - 2 s beyond.
    assert 1 < float(found.reach) < 1.5
    assert not found.bound[found.sizes > 2].any()
    finer = interval_certificate(*rest, largest=10.0, points=1000)
    assert float(finer.reach) == pytest.approx(1.5, rel=0.02)
    # In the very first step a kink may lie at its start.
    early = interval_certificate(*rest, largest=100.0)
    assert float(early.reach) == 0


@jax.jit
def certify_relu(seed):
    """Two networks whose hidden units go on and off: the reach, and g at 25 sizes within it."""

    def of(rows, loss, output_share, largest):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), rows), 5)
        params, way = (
            {"w": jax.random.normal(a, (4, 6)), "v": share * jax.random.normal(b, (6, OUTPUTS))}
            for a, b, share in ((*keys[:2], 1.0), (*keys[2:4], output_share))
        )
        inputs = jax.random.normal(keys[4], (rows, 4))
        args = relu, loss, params, way
        reach = interval_certificate(*args, inputs, largest=largest).reach
        sizes = reach * jnp.linspace(0.02, 0.999, 25)
        g = jax.lax.map(lambda eps: inner_product(*args, step(params, way, eps), inputs), sizes)
        return reach, g

    return of(5, LOSSES[1][0], 1.0, 3.0), of(2, LOSSES[0][0], 0.0, 10.0)


def test_networks_with_kinks_are_never_certified_wrongly():
    reaches = []
    for seed in range(40):
        for reach, g in jax.device_get(certify_relu(np.uint32(seed))):
            assert reach == 0 or (g > 0).all()
            reaches.append(reach)
    assert np.mean(np.array(reaches) > 0) > 0.7


def wave(p, x):
    return (p["w"] + 0.6 * jnp.sin(64 * jnp.pi * p["w"])) * x


def test_a_wave_whose_zeros_an_even_grid_would_hit_is_not_certified_away():
    rest = (wave, SQUARED, at(0.0), at(1.0), jnp.ones((1, 1)))
    # g turns negative where s = -0.6 sin(64 pi s), just above 1 / 64.
    assert float(interval_certificate(*rest, largest=1.0).reach) < 1 / 64
    resolved = interval_certificate(*rest, largest=1.0, points=2000)
    assert 0.002 < float(resolved.reach) < 1 / 64


def test_the_steps_of_the_grid_are_all_different():
    sizes = np.asarray(
        interval_certificate(
            line, SQUARED, at(0.0), at(1.0), jnp.ones((1, 1)), largest=4.0, points=16
        ).sizes
    )
    steps = np.diff(np.concatenate([[0.0], sizes])) / (4 / 16)
    assert sizes[-1] == 4
    assert (steps >= 0.5).all()
    assert (steps <= 1.5).all()
    assert len(np.unique(np.round(steps, 6))) == len(steps)


def shifted(p, x):
    return jnp.tanh(x @ p["w"]) + p["b"] + jnp.sum(p["b"] ** 3)


@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.float64, marks=pytest.mark.slow)])
def test_a_direction_that_is_seen_by_rounding_alone_is_not_certified(dtype):
    subset = jnp.array([True, False, True])
    loss = matching(softmax_potential(subset))
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(20, 4)), dtype)
    start = {"w": jnp.asarray(rng.normal(size=(4, OUTPUTS)), dtype), "b": jnp.ones(OUTPUTS, dtype)}
    for _ in range(3):
        same = rng.normal()
        blind = {"w": jnp.zeros_like(start["w"]), "b": jnp.asarray([same, 7.0, same], dtype)}
        seen = blind | {"b": blind["b"].at[0].multiply(1.1)}
        for drift, (way, certifies) in product(
            (None, softmax_drift(subset)), ((blind, False), (seen, True))
        ):
            found = interval_certificate(
                shifted, loss, start, way, inputs, largest=1.0, drift=drift
            )
            assert bool(found.reach > 0) == certifies


def flatten(p, x):
    return (p["w"] - 0.05 * p["w"] ** 2) * x


def test_the_bounds_are_those_of_the_formula_where_it_can_be_written_out():
    """One yes/no output from even odds: curvature 0.1, slope 1, displacement u = s - s^2 / 20."""
    rest = (BERNOULLI, at(0.0), at(1.0), jnp.ones((1, 1)))
    by_drift, by_eigenvalues = (
        interval_certificate(flatten, *rest, largest=4.0, points=800, drift=drift)
        for drift in (coordinate_drift, None)
    )
    u = by_drift.sizes - 0.05 * by_drift.sizes**2
    # h- / h+ = exp(-u), the ratio of the means of exp(-t u) and exp(t u) over t.
    np.testing.assert_allclose(by_drift.bound, 20 * np.exp(-u / 2), rtol=0.01)
    ratio = 4 * (jax.nn.sigmoid(u) - 0.5) / u
    np.testing.assert_allclose(by_eigenvalues.bound, 20 * np.sqrt(ratio), rtol=0.01)


def test_where_the_model_is_not_finite_nothing_is_certified():
    def root(p, x):
        return jnp.sqrt(1 - p["w"]) * x

    rest = (SQUARED, at(0.0), at(1.0), jnp.ones((2, 1)))
    # Also where what is not finite has no weight: 0 times infinity.
    for weights in (None, np.array([1.0, 0.0])):
        found = interval_certificate(
            root, *rest, largest=2.0, drift=constant_drift, weights=weights
        )
        assert found.bound[-1] == 0
        assert 0 < float(found.reach) < 1
    # Overflow of the Hessian: exp(s + s^2 / 20).
    rest = (matching(poisson_potential), at(0.0), at(-1.0), -jnp.ones((1, 1)))
    found = interval_certificate(flatten, *rest, largest=1e3, drift=coordinate_drift)
    assert found.bound[-1] == 0
    assert 0 <= float(found.reach) < 20


def test_a_softmaxs_drift_sees_only_its_subset_in_units_of_the_temperature():
    drift = softmax_drift(jnp.array(SUBSET), 2.0)
    assert float(drift(jnp.array([1.0, -2.0, 50.0]))) == 1.5
    assert float(drift(jnp.array([1.0, -2.0, -50.0]))) == 1.5


@pytest.mark.parametrize("number", range(len(LOSSES)))
def test_a_declared_drift_bounds_the_hessian(number):
    potential, drift = CASES[number]
    rng = np.random.default_rng(number)
    hessian = jax.jit(jax.hessian(potential))
    tightest = 0.0
    for _ in range(50):
        z, u = rng.normal(0, (6, 2), (OUTPUTS, 2)).T
        # Along the output that moves most, of those that every loss sees.
        v = np.eye(OUTPUTS)[np.argmax(np.abs(u[:2]))]
        before, after = (float(v @ hessian(point) @ v) for point in (z, z + u))
        width = float(drift(jnp.asarray(u)))
        assert abs(np.log(after / before)) <= width + 1e-9
        tightest = max(tightest, abs(np.log(after / before)) / width if width else 1.0)
    # No bound is idle: a tenth less would be wrong.
    assert tightest > 0.9


def test_a_jump_between_two_points_of_the_grid_is_allowed_for():
    """A curvature that peaks off the grid: without the allowance it would be underestimated."""

    def peaked(p, x):
        return (p["w"] - 0.2 * jnp.sin(7 * p["w"]) / 49) * x

    found = interval_certificate(
        peaked, SQUARED, at(0.0), at(1.0), jnp.ones((1, 1)), largest=2.0, points=8
    )
    # f'(0) = 1 - 0.2 / 7; |f''| is at most 0.2.
    assert (found.bound <= 2 * (1 - 0.2 / 7) / 0.2 + 1e-9)[2:].all()


def test_between_two_points_a_number_may_rise_as_much_as_it_was_seen_to():
    found = interval._supremum(jnp.array([0.0, 1.0, 0.5, 0.75]))
    np.testing.assert_allclose(found, [2.0, 2.0, 2.0])
    np.testing.assert_allclose(interval._supremum(jnp.array([0.5, 0.5, 0.7])), [0.5, 0.9])


def test_chunks_and_weights_change_nothing_but_the_rows():
    inputs = jnp.linspace(-1, 1, 12).reshape(6, 2)
    params = {"a": jnp.ones((2, 3)) / 2, "b": jnp.eye(3)}
    way = {"a": jnp.arange(6.0).reshape(2, 3), "b": -jnp.arange(9.0).reshape(3, 3)}
    loss, drift = LOSSES[1]

    def reach(inputs, **keywords):
        return interval_certificate(
            network, loss, params, way, inputs, largest=0.2, drift=drift, **keywords
        ).bound

    assert (reach(inputs) > 0).all()
    np.testing.assert_allclose(reach(inputs, chunk=4), reach(inputs), rtol=1e-10)
    weights = np.array([1.0, 1, 1, 1, 0, 0])
    np.testing.assert_allclose(reach(inputs, weights=weights), reach(inputs[:4]), rtol=1e-10)


def test_bad_arguments_are_refused_by_name():
    rest = (at(0.0), at(1.0), jnp.ones((2, 1)))
    with pytest.raises(ValueError, match="loss: must be a matching loss whose potential declares"):
        interval_certificate(line, lambda z, y: jnp.sum((z - y) ** 2), *rest, largest=1.0)
    with pytest.raises(ValueError, match="loss: must be a matching loss whose potential declares"):
        interval_certificate(line, matching(lambda z: jnp.sum(z**4)), *rest, largest=1.0)
    with pytest.raises(ValueError, match="largest: must be finite and above 0"):
        interval_certificate(line, SQUARED, *rest, largest=0.0)
    with pytest.raises(ValueError, match="points: must be at least 2"):
        interval_certificate(line, SQUARED, *rest, largest=1.0, points=1)
