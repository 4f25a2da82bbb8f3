"""Claims about g at finite eps: the certificate, the horizon, linear models, rounding."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from experiments.verify import instances
from tests.theory.draws import LINEAR, MLP, all_kinds, key, seeds, some
from theory.alignment import coefficient, inner_product, inner_product_reverse, unit_of_eps
from theory.certificate import Curve, curve, horizon, smallest_eps
from theory.conditions import require_conditions
from theory.losses import matching, poisson_potential, softmax_potential, squared_potential
from theory.passes import step

EPS = np.geomspace(0.01, 100.0, 25)


@jax.jit
def measured(seed, kinds):
    instance = instances.draw(MLP, key(seed), kinds)
    apply, loss = instances.model(MLP, instance), instances.loss(instance)
    start, inputs, way = instance.params, instance.inputs, instance.random_direction
    eps = unit_of_eps(apply, start, way, inputs) * EPS
    reverse = jax.lax.map(
        lambda size: inner_product_reverse(apply, loss, start, way, step(start, way, size), inputs),
        eps,
    )
    return curve(apply, loss, start, way, eps, inputs), reverse


def wrong(found: Curve, reverse, certified) -> int:
    """How often a certificate stands where reverse mode's g is not positive."""
    known = np.isfinite(reverse) & np.isfinite(found.rho)
    return int(np.sum(known & np.asarray(certified) & (np.asarray(reverse) <= 0)))


@given(seed=seeds, kinds=all_kinds)
def test_the_certificate_never_certifies_a_wrong_sign(seed, kinds):
    found, reverse = measured(seed, kinds)
    assert wrong(found, reverse, found.certified) == 0
    assert found.certified[0]
    # What is certified is what rho says.
    known = np.isfinite(found.rho)
    np.testing.assert_array_equal(
        np.asarray(found.rho < 1)[known], np.asarray(found.certified)[known]
    )


@pytest.mark.parametrize("mutant", ["half of rho", "linear model", "flipped"])
def test_a_wrong_certificate_certifies_wrong_signs(mutant):
    mistakes = 0
    for draw in some(60):
        found, reverse = measured(*draw)
        certified = {
            "half of rho": found.rho / 2 < 1,
            "linear model": np.ones(len(EPS), bool),
            "flipped": ~found.certified,
        }[mutant]
        mistakes += wrong(found, reverse, certified)
    assert mistakes > 0


@given(seed=seeds, kinds=all_kinds)
def test_the_curve_is_the_inner_product_at_each_eps(seed, kinds):
    found, reverse = measured(seed, kinds)
    known = np.isfinite(reverse)
    size = np.maximum(np.abs(reverse), np.asarray(found.rounding) * 1e9)
    assert np.all((np.abs(found.inner_product - reverse) <= 1e-8 * size)[known])
    np.testing.assert_allclose(
        found.remainder, found.inner_product - found.eps * found.coefficient, rtol=1e-12
    )


@jax.jit
def linear(seed, kinds, convex):
    instance = instances.draw(LINEAR, key(seed), kinds)
    apply, potential = instances.model(LINEAR, instance), instances.potential(instance)
    # The mutant: a potential that is not convex.
    loss = matching(lambda z: jax.lax.cond(convex, potential, lambda z: jnp.sum(jnp.sin(z)), z))
    # A thousand of these must not overflow the exponential of a Poisson loss.
    way = jax.tree.map(lambda leaf: 0.02 * leaf, instance.random_direction)
    return curve(apply, loss, instance.params, way, np.geomspace(1e-3, 1e3, 25), instance.inputs)


@given(seed=seeds, kinds=all_kinds)
def test_a_linear_model_is_aligned_at_every_eps(seed, kinds):
    found = linear(seed, kinds, convex=True)
    assert np.all(found.inner_product > 0)
    assert np.all(found.certified)


def test_a_linear_model_is_not_aligned_by_a_potential_that_is_not_convex():
    products = [linear(*draw, convex=False).inner_product for draw in some(5)]
    assert all(np.any(np.asarray(product) < 0) for product in products)


def test_rho_is_0_for_a_linear_model_and_the_remainder_too_with_squared_error():
    params = {"w": jnp.eye(3)}
    way = {"w": jnp.arange(9.0).reshape(3, 3)}
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(11, 3)))
    loss = matching(squared_potential(jnp.ones(3)))
    found = curve(lambda p, x: x @ p["w"], loss, params, way, np.array([0.1, 10.0]), inputs)
    np.testing.assert_allclose(found.rho, 0, atol=1e-12)
    np.testing.assert_allclose(found.remainder / found.inner_product, 0, atol=1e-12)


def test_rho_is_the_ratio_of_its_definition():
    """Against a dense quadrature of the mean Hessian, on one softmax instance."""
    rng = np.random.default_rng(1)
    params, way = ({"w": jnp.asarray(rng.normal(size=(4, 5)))} for _ in range(2))
    inputs = jnp.asarray(rng.normal(size=(7, 4)))

    def apply(p, x):
        return jnp.tanh(x @ p["w"]) @ jnp.ones((5, 3)).at[0, 1].set(-2.0).at[3, 2].set(3.0)

    potential = softmax_potential(jnp.ones(3, bool))
    # At the smaller eps rho is so small that its square is lost among terms that cancel.
    eps = np.array([1e-6, 0.02, 0.7])
    found = curve(apply, matching(potential), params, way, eps, inputs)
    start, change = jax.jvp(lambda p: apply(p, inputs), (params,), (way,))
    hessian = jax.vmap(jax.hessian(potential))

    def ratio(eps):
        moved = apply(step(params, way, eps), inputs) - start
        between = jax.lax.map(lambda t: hessian(start + t * moved), (jnp.arange(2000) + 0.5) / 2000)
        mean = jnp.mean(between, axis=0)
        left = moved - eps * change
        squares = [jnp.mean(jnp.einsum("ni,nij,nj->n", v, mean, v)) for v in (left, eps * change)]
        return jnp.sqrt(squares[0] / squares[1])

    np.testing.assert_allclose(found.rho, jax.lax.map(ratio, jnp.asarray(eps)), rtol=1e-4)


def crooked(p, x):
    """Logits that run forward to p = 1, and back from there."""
    return x * jnp.sin(0.5 * jnp.pi * p["w"])


SQUARES = matching(squared_potential(jnp.ones(1)))


def test_the_horizon_is_where_g_changes_sign():
    params, way, inputs = {"w": jnp.zeros(1)}, {"w": jnp.ones(1)}, jnp.ones((3, 1))
    found = horizon(crooked, SQUARES, params, way, inputs, largest=10.0)
    # g(eps) is in proportion to sin(pi eps / 2), which is positive up to 2.
    np.testing.assert_allclose(found.eps_star, 2.0, rtol=1e-6)
    assert 0 < found.eps_certified <= found.eps_star
    inside = curve(
        crooked, SQUARES, params, way, np.array([0.999, 1.001]) * float(found.eps_certified), inputs
    )
    np.testing.assert_array_equal(inside.certified, [True, False])
    assert horizon(crooked, SQUARES, params, way, inputs, largest=1.5).eps_star == np.inf
    back = {"w": -way["w"]}
    np.testing.assert_allclose(
        horizon(crooked, SQUARES, params, back, inputs, largest=10.0).eps_star, 2.0, rtol=1e-6
    )


def test_chunks_change_nothing_of_the_curve():
    params, way, inputs = {"w": jnp.zeros(1)}, {"w": jnp.ones(1)}, jnp.linspace(-1, 1, 13)[:, None]
    call = partial(curve, crooked, SQUARES, params, way, np.array([0.1, 1.0]), inputs)
    for whole, part in zip(jax.tree.leaves(call()), jax.tree.leaves(call(chunk=4)), strict=True):
        np.testing.assert_allclose(part, whole, rtol=1e-12)


def test_bad_steps_are_refused_by_name():
    params, way, inputs = {"w": jnp.zeros(1)}, {"w": jnp.ones(1)}, jnp.ones((3, 1))
    call = partial(curve, crooked, SQUARES, params, way)
    for bad, shown in ((0.0, "0"), (-1.0, "-1"), (np.nan, "nan"), (np.inf, "inf")):
        with pytest.raises(ValueError, match=f"eps: must be finite and above 0, got {shown}"):
            call(np.array([0.1, bad]), inputs)
    with pytest.raises(ValueError, match="largest: must be finite and above 0"):
        horizon(crooked, SQUARES, params, way, inputs, largest=0.0)
    with pytest.raises(ValueError, match="points: must be at least 2"):
        horizon(crooked, SQUARES, params, way, inputs, largest=1.0, points=1)
    with pytest.raises(ValueError, match="eps: the model's logits overflow at the largest"):
        curve(lambda p, x: x * jnp.exp(p["w"]), SQUARES, params, way, np.array([1.0, 1e4]), inputs)


def test_a_step_that_rounding_drowns_is_refused_with_the_smallest_that_it_does_not():
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)}
    way = {"w": jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)}
    inputs = jnp.asarray(rng.normal(size=(50, 6)), jnp.float32)
    loss = matching(squared_potential(jnp.ones(4)))

    def apply(p, x):
        return jnp.tanh(x @ p["w"])

    call = partial(curve, apply, loss, params, way, inputs=inputs)
    with pytest.raises(ValueError, match=r"eps: 1e-07 is drowned by rounding in float32") as caught:
        call(np.array([1e-7, 0.1]))
    assert "float64" in str(caught.value)
    least = float(smallest_eps(call(np.array([0.1]))))
    assert 1e-7 < least < 1e-2
    # What is let through is right to about a per cent, and the estimate is not idle.
    exactly, way64, inputs64 = (
        jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tree) for tree in (params, way, inputs)
    )
    exact = curve(apply, loss, exactly, way64, np.array([1.01 * least]), inputs64)
    rough = call(np.array([1.01 * least]))
    error = abs(float(rough.inner_product[0] / exact.inner_product[0]) - 1)
    assert error < 0.01
    worst = 0.0
    for shrink in (30, 300, 3000):
        eps = least / shrink
        unchecked = inner_product(apply, loss, params, way, step(params, way, eps), inputs)
        teacher = step(exactly, way64, eps)
        exact = inner_product(apply, loss, exactly, way64, teacher, inputs64)
        worst = max(worst, abs(float(unchecked / exact) - 1))
    assert worst > 0.01


def test_a_blind_direction_is_known_as_such_and_drowned_at_no_eps():
    params, way = {"w": jnp.ones(3)}, {"w": jnp.full(3, 2.0)}
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(9, 3)))
    loss = matching(softmax_potential(jnp.ones(3, bool)))
    found = curve(lambda p, x: x + p["w"], loss, params, way, np.array([1e-9, 1.0]), inputs)
    assert found.blind
    assert np.all(np.abs(found.inner_product) <= 10 * found.rounding)
    # The mutant: a direction that the softmax does see.
    seen = curve(
        lambda p, x: x + p["w"],
        loss,
        params,
        {"w": jnp.array([1.0, 0, 0])},
        np.array([1.0]),
        inputs,
    )
    assert not seen.blind
    assert replace(seen, blind=jnp.asarray(True)).inner_product[0] > 10 * seen.rounding


def test_nothing_is_certified_of_a_loss_that_is_no_matching_loss():
    """It meets the conditions, and g is negative at a rho below 1."""

    def loss(z, y):
        u = z - y
        return jnp.sum(u**2 / (1 + u**4))

    def apply(p, x):
        return x * (p["w"] + 10 * p["w"] ** 2)

    params, way = {"w": jnp.zeros(1)}, {"w": jnp.ones(1)}
    require_conditions(loss, *np.random.default_rng(0).normal(size=(2, 20, 1)))
    found = curve(apply, loss, params, way, np.array([0.01, 1.0]), jnp.ones((3, 1)))
    assert found.inner_product[1] < 0
    assert found.rho[1] < 1
    assert not found.certified.any()
    assert horizon(apply, loss, params, way, jnp.ones((3, 1)), largest=1.0).eps_certified == 0


@pytest.mark.parametrize("x64", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_blind_direction_has_no_sign_no_certificate_and_no_horizon(x64):
    loss = matching(softmax_potential(np.ones(3, bool)))
    with jax.enable_x64(x64):
        for seed in range(10):
            keys = jax.random.split(jax.random.key(seed), 2)
            params = {"w": jax.random.normal(keys[0], (4, 3)), "b": jnp.zeros(3)}
            way = {"w": jnp.zeros((4, 3)), "b": jnp.full(3, 0.3)}
            inputs = jax.random.normal(keys[1], (9, 4))
            found = curve(biased, loss, params, way, np.array([1e-3, 0.1, 3.0]), inputs)
            assert found.blind
            assert not found.certified.any()
            reach = horizon(biased, loss, params, way, inputs, largest=3.0)
            assert reach.blind
            assert np.isnan([reach.eps_star, reach.eps_certified]).all()


def test_a_loss_is_taken_at_its_word_that_it_sees_nothing():
    blind = matching(SQUARES.potential.value, jnp.zeros_like)
    params, way, inputs = {"w": jnp.full(1, 0.25)}, {"w": jnp.ones(1)}, jnp.ones((3, 1))
    found = horizon(crooked, blind, params, way, inputs, largest=1.0)
    assert found.blind
    assert np.isnan([found.eps_star, found.eps_certified]).all()


def biased(p, x):
    return x @ p["w"] + p["b"]


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_a_direction_whose_effects_cancel_is_blind_and_one_that_hardly_does_is_not(factor):
    """Two weights of one feature, moved against each other: J d is 0, or rounding."""

    def apply(p, x):
        return x @ p["w"] + (factor * x) @ p["v"] + p["b"]

    params = {"w": jnp.full((6, 2), 0.1), "v": jnp.full((6, 2), 0.7), "b": jnp.zeros(2)}
    rng = np.random.default_rng(0)
    kernel, inputs = jnp.asarray(rng.normal(size=(6, 2))), jnp.asarray(rng.normal(size=(5, 6)))
    loss = matching(squared_potential(np.ones(2)))
    for off, blind in ((0.0, True), (1e-9, False)):
        way = {"w": kernel, "v": -kernel / factor, "b": jnp.full(2, off)}
        assert curve(apply, loss, params, way, np.array([1e6]), inputs).blind == blind


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_a_common_offset_of_the_logits_makes_nothing_blind(offset):
    with jax.enable_x64(False):
        keys = jax.random.split(jax.random.key(0), 3)
        params = {"w": jax.random.normal(keys[0], (4, 3)), "b": jnp.full(3, offset)}
        way = {"w": jax.random.normal(keys[1], (4, 3)), "b": jnp.zeros(3)}
        inputs = jax.random.normal(keys[2], (9, 4))
        loss = matching(squared_potential(np.ones(3)))
        found = curve(biased, loss, params, way, np.array([50.0]), inputs)
        assert not found.blind
        np.testing.assert_allclose(found.inner_product / found.coefficient, 50, rtol=0.01)


def test_the_horizon_knows_rounding():
    """In float32 and at tiny eps g is rounding, whose sign is no horizon."""
    with jax.enable_x64(False):
        keys = jax.random.split(jax.random.key(1), 3)
        params, way = ({"w": jax.random.normal(k, (6, 4))} for k in keys[:2])
        inputs = jax.random.normal(keys[2], (50, 6))
        loss = matching(squared_potential(np.ones(4)))

        def reach(**sizes):
            return horizon(tanh, loss, params, way, inputs, **sizes)

        for largest in (0.01, 0.1, 0.3):
            found = reach(largest=largest)
            assert found.eps_star == found.eps_certified == np.inf
            assert found.smallest > 1e-6 * largest
        with pytest.raises(ValueError, match="smallest: 1e-07 is drowned by rounding in float32"):
            reach(largest=0.1, smallest=1e-7)
        with pytest.raises(ValueError, match="largest: 1e-06 is drowned by rounding in float32"):
            reach(largest=1e-6)
        assert np.isnan(jax.jit(lambda: reach(largest=0.1, smallest=1e-7).eps_star)())


def tanh(p, x):
    return jnp.tanh(x @ p["w"])


def test_the_rounding_of_parameters_that_cancel_is_known():
    """f = tanh(x w) (A - B) with A and B of 3e4: its logits are small, and its rounding is not."""

    def apply(p, x):
        return tanh(p, x) @ (p["a"] - p["b"])

    with jax.enable_x64(False):
        keys = jax.random.split(jax.random.key(2), 4)
        large = 3e4 + jax.random.normal(keys[0], (4, 3))
        params = {
            "w": jax.random.normal(keys[1], (6, 4)),
            "a": large + jax.random.normal(keys[3], (4, 3)),
            "b": large,
        }
        # Each moves by itself: what a and b gain rounds to their own size.
        way = {
            name: jax.random.normal(key, params[name].shape)
            for name, key in zip("wab", jax.random.split(keys[2], 3), strict=True)
        }
        inputs = jnp.linspace(-1, 1, 180).reshape(30, 6)
        loss = matching(squared_potential(np.ones(3)))
        with pytest.raises(ValueError, match="eps: 4e-05 is drowned by rounding"):
            curve(apply, loss, params, way, np.array([4e-5, 1.0]), inputs)
        least = float(smallest_eps(curve(apply, loss, params, way, np.array([1.0]), inputs)))
        small = curve(apply, loss, params, way, np.array([1.05 * least]), inputs).inner_product[0]
    start, towards, data = (
        jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)
        for tree in (params, way, inputs)
    )
    loss = matching(squared_potential(np.ones(3)))
    exact = curve(apply, loss, start, towards, np.array([1.05 * least]), data).inner_product[0]
    np.testing.assert_allclose(small, exact, rtol=0.02)


def test_an_overflow_is_no_horizon():
    def apply(p, x):
        return x * p["w"]

    params, way, inputs = {"w": jnp.zeros(1)}, {"w": jnp.ones(1)}, jnp.ones((3, 1))
    loss = matching(poisson_potential)
    with pytest.raises(ValueError, match="largest: the model's logits overflow at eps = "):
        horizon(apply, loss, params, way, inputs, largest=1e6)
    assert horizon(apply, loss, params, way, inputs, largest=50.0).eps_star == np.inf
    assert np.isnan(
        jax.jit(lambda: horizon(apply, loss, params, way, inputs, largest=1e6).eps_star)()
    )


def test_a_horizon_below_what_is_looked_at_is_0_and_a_bad_bracket_is_refused():
    params, way, inputs = {"w": jnp.zeros(1)}, {"w": jnp.ones(1)}, jnp.ones((3, 1))
    # g is positive up to 2 and from 4 to 6: negative from the first on that is looked at.
    found = horizon(crooked, SQUARES, params, way, inputs, smallest=2.5, largest=5.5)
    assert (found.eps_star, found.eps_certified) == (0, 0)
    for smallest in (2.0, jnp.float32(2.0), np.float64(2.0)):
        with pytest.raises(ValueError, match="smallest: must be below largest, 1, is 2"):
            horizon(crooked, SQUARES, params, way, inputs, smallest=smallest, largest=1.0)


def test_the_two_horizons_differ_where_rho_passes_1_before_g_turns():
    params, way = {"w": jnp.zeros(2)}, {"w": jnp.ones(2)}
    inputs, loss = jnp.ones((3, 2)), matching(squared_potential(np.ones(2)))

    def apply(p, x):
        # A second output that curves across what the first does.
        return x * jnp.stack([p["w"][0], 3 * p["w"][1] ** 2])

    found = horizon(apply, loss, params, way, inputs, largest=5.0)
    assert found.eps_star == np.inf
    np.testing.assert_allclose(found.eps_certified, 1 / 3, rtol=1e-6)


def test_curve_and_horizon_trace_over_eps_alone():
    params, way, inputs = {"w": jnp.zeros(1)}, {"w": jnp.ones(1)}, jnp.ones((3, 1))

    def g(eps):
        return curve(crooked, SQUARES, params, way, eps[None], inputs).inner_product[0]

    eps = jnp.array([0.1, 1.0])
    np.testing.assert_allclose(jax.vmap(g)(eps), jnp.stack([g(each) for each in eps]))
    middle = jnp.array(0.5)
    slope = (g(middle + 1e-4) - g(middle - 1e-4)) / 2e-4
    np.testing.assert_allclose(jax.grad(g)(middle), slope, rtol=1e-6)


def test_weights_count_rows_as_often():
    """A row of weight 2 is two rows, one of weight 0 none: for positions too."""
    rng = np.random.default_rng(0)
    params, way = ({"w": jnp.asarray(rng.normal(size=(6, 4)))} for _ in range(2))
    inputs = jnp.asarray(rng.normal(size=(5, 3, 6)))
    weights = np.array([[1.0, 1, 0], [2, 0, 0], [1, 1, 1], [0, 0, 0], [0, 1, 2]])
    flat = np.repeat(np.asarray(inputs).reshape(15, 6), weights.ravel().astype(int), axis=0)
    loss = matching(softmax_potential(np.ones(4, bool)))
    repeated = curve(tanh, loss, params, way, np.array([0.1, 1.0]), jnp.asarray(flat))
    for chunk in (None, 2):
        weighted = curve(
            tanh, loss, params, way, np.array([0.1, 1.0]), inputs, weights=weights, chunk=chunk
        )
        for name in ("inner_product", "coefficient", "rho", "certified", "blind"):
            np.testing.assert_allclose(
                getattr(weighted, name), getattr(repeated, name), rtol=1e-9, err_msg=name
            )
        np.testing.assert_allclose(weighted.rounding, repeated.rounding, rtol=0.5)


def test_the_rounding_of_a_row_of_weight_0_counts_for_nothing():
    """Such a row's logits move a million times as far as the others' do."""
    rng = np.random.default_rng(0)
    params, way = ({"w": jnp.asarray(rng.normal(size=(6, 4)))} for _ in range(2))
    inputs = jnp.asarray(rng.normal(size=(5, 6)) * np.array([1, 1e6, 1, 1, 1e6])[:, None])
    weights, eps = np.array([1.0, 0, 1, 1, 0]), np.array([0.1, 1.0])
    loss = matching(softmax_potential(np.ones(4, bool)))

    def rounding(inputs, weights):
        found = curve(lambda p, x: x @ p["w"], loss, params, way, eps, inputs, weights=weights)
        return np.broadcast_to(found.rounding, eps.shape)

    # Rounding is rounding's own size, so an estimate of it is known to within a few times.
    ratio = rounding(inputs, weights) / rounding(inputs[weights > 0], np.ones(3))
    assert np.all((ratio > 1e-2) & (ratio < 1e2)), ratio


def test_a_head_of_zeros_has_rounding_as_any_other():
    """All logits are 0, and so is the difference of any two of their gradients."""
    loss = matching(softmax_potential(np.ones(3, bool)))
    with jax.enable_x64(False):
        params, way = {"w": jnp.zeros((4, 3))}, {"w": jax.random.normal(jax.random.key(0), (4, 3))}
        inputs = jax.random.normal(jax.random.key(1), (9, 4))
        for eps in (1e-8, 1e-7):
            with pytest.raises(ValueError, match="drowned by rounding"):
                curve(lambda p, x: x @ p["w"], loss, params, way, np.array([eps]), inputs)
        found = horizon(lambda p, x: x @ p["w"], loss, params, way, inputs, largest=1e-3)
        assert found.eps_star == found.eps_certified == np.inf


def test_the_coefficient_of_the_curve_is_the_coefficient():
    rng = np.random.default_rng(3)
    params, way = ({"w": jnp.asarray(rng.normal(size=(6, 4)))} for _ in range(2))
    inputs = jnp.asarray(rng.normal(size=(5, 6)))
    loss = matching(softmax_potential(np.ones(4, bool)))
    found = curve(tanh, loss, params, way, np.array([0.1]), inputs)
    expected = coefficient(tanh, loss, params, way, inputs)
    np.testing.assert_allclose(found.coefficient, expected, rtol=1e-12)


def test_an_eps_at_which_g_changes_its_sign_is_not_drowned():
    params, way, inputs = {"w": jnp.full(1, 0.25)}, {"w": jnp.ones(1)}, jnp.ones((3, 1))
    found = curve(crooked, SQUARES, params, way, np.array([1.5]), inputs)
    assert abs(found.inner_product[0]) < found.rounding < 1e-12 < found.coefficient


def test_an_eps_that_leads_out_of_where_the_loss_is_flat_is_not_drowned():
    """A softmax that is sure: a is rounding, and g, far enough from the start, is not."""
    params, way = {"w": jnp.array([[36.5, 0.0]])}, {"w": jnp.array([[-1.0, 1.0]])}
    loss = matching(softmax_potential(np.ones(2, bool)))
    found = curve(lambda p, x: x @ p["w"], loss, params, way, np.array([30.0]), jnp.ones((3, 1)))
    assert smallest_eps(found) > 30
    np.testing.assert_allclose(found.inner_product, 2, rtol=1e-6)


def test_the_smallest_eps_is_that_at_which_rounding_may_be_a_hundredth_of_g():
    rng = np.random.default_rng(4)
    params, way = ({"w": jnp.asarray(rng.normal(size=(6, 4)))} for _ in range(2))
    inputs, loss = jnp.asarray(rng.normal(size=(5, 6))), matching(squared_potential(np.ones(4)))
    call = partial(curve, tanh, loss, params, way, inputs=inputs)
    found = call(np.array([0.1]))
    least = float(smallest_eps(found))
    np.testing.assert_allclose(found.rounding, 0.01 * least * found.coefficient)
    assert call(np.array([1.1 * least])).inner_product > 0
    with pytest.raises(ValueError, match="drowned"):
        call(np.array([0.9 * least]))


def test_no_eps_is_large_enough_where_nothing_is_seen():
    params, way = {"w": jnp.ones((4, 2))}, {"w": jnp.zeros((4, 2)).at[:, 1].set(1.0)}
    inputs, loss = jnp.ones((3, 4)), matching(squared_potential(np.array([1.0, 0.0])))
    found = curve(lambda p, x: x @ p["w"], loss, params, way, np.array([1.0]), inputs)
    assert smallest_eps(found) == np.inf


def test_a_blind_direction_of_an_undeclared_loss_is_known_at_the_eps_looked_at():
    loss = matching(softmax_potential(np.ones(3, bool)).value)
    for seed in range(10):
        keys = jax.random.split(jax.random.key(seed), 2)
        params = {"w": jax.random.normal(keys[0], (4, 3)), "b": jnp.zeros(3)}
        way = {"w": jnp.zeros((4, 3)), "b": jnp.full(3, 0.3)}
        inputs = jax.random.normal(keys[1], (9, 4))
        assert curve(biased, loss, params, way, np.array([0.1, 3.0]), inputs).blind


def test_a_g_of_0_ends_the_horizon():
    def there_and_back(p, x):
        return x * jnp.where(p["w"] < 1, p["w"], 0)

    params, way, inputs = {"w": jnp.zeros(1)}, {"w": jnp.ones(1)}, jnp.ones((3, 1))
    found = horizon(there_and_back, SQUARES, params, way, inputs, largest=10.0)
    np.testing.assert_allclose(found.eps_star, 1.0, rtol=1e-6)


# Logits that hold what no parameter does, so that only the part of the rounding that a case is
# named for is as large as what rounding does.
ROUNDED = {
    # Of a logit's own size.
    "large logits": (SQUARES, lambda x: 1000.3 * jnp.ones_like(x[:, :1])),
    # Of a common offset a softmax sees what it does to each logit apart.
    "a common offset": (
        matching(softmax_potential(np.ones(3, bool))),
        lambda x: 400.3 + 0.1 * x[:, :3],
    ),
    # A softmax that is sure: its probabilities round, whatever its logits do.
    "a sure softmax": (
        matching(softmax_potential(np.ones(2, bool))),
        lambda x: jnp.array([14.7, 0.0]) * jnp.ones_like(x[:, :2]),
    ),
}


def rounded_model(offset, p, x):
    return offset(x) + x[:, 3:] @ p["w"]


@pytest.mark.parametrize("name", ROUNDED)
def test_each_part_of_the_rounding_counts(name):
    loss, offset = ROUNDED[name]
    apply = partial(rounded_model, offset)
    rng = np.random.default_rng(0)
    outputs = offset(jnp.ones((1, 6))).shape[1]
    way = {"w": rng.normal(size=(3, outputs)).astype(np.float32)}
    # At parameters of 0 a unit in their last place is nothing.
    params, inputs = {"w": np.zeros_like(way["w"])}, rng.normal(size=(1, 6)).astype(np.float32)
    errors, sizes = [], np.geomspace(1e-6, 1e-3, 40)
    with jax.enable_x64(False):
        rounding = curve(apply, loss, params, way, np.array([1e3], np.float32), inputs).rounding
        products = [
            inner_product(apply, loss, params, way, step(params, way, e), inputs) for e in sizes
        ]
    start, towards, data = (
        jax.tree.map(lambda leaf: leaf.astype(np.float64), tree) for tree in (params, way, inputs)
    )
    for size, product in zip(sizes, products, strict=True):
        exact = inner_product(apply, loss, start, towards, step(start, towards, size), data)
        errors.append(abs(float(product) - float(exact)))
    # A bound, and of about the right size.
    assert 1e-3 < max(errors) / float(rounding) <= 1
