"""Claims about teacher and student that move differently, and what they predict of real steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory.alignment import coefficient, inner_product, student_direction
from theory.bilinear import bilinear_coefficient, diagonal, gram, lora, mask, other_start
from theory.losses import matching, softmax_potential, squared_potential
from theory.passes import inner, step

FEATURES, WIDTH, OUTPUTS, EXAMPLES = 6, 10, 5, 12
RANKS = (1, 2, 4, 8, 16)
SOFTMAX = matching(softmax_potential(jnp.ones(OUTPUTS, bool)))
SQUARED = matching(squared_potential(jnp.ones(OUTPUTS)))


def network(p, x):
    return jnp.tanh(x @ p["in"]) @ p["out"]


def draw(key):
    """Parameters, inputs, and the targets of a trait."""
    keys = jax.random.split(key, 4)
    params = {
        "in": jax.random.normal(keys[0], (FEATURES, WIDTH)) / FEATURES**0.5,
        "out": jax.random.normal(keys[1], (WIDTH, OUTPUTS)) / WIDTH**0.5,
    }
    inputs = jax.random.normal(keys[2], (EXAMPLES, FEATURES))
    return params, inputs, jax.random.normal(keys[3], (EXAMPLES, FEATURES + OUTPUTS))


def trait_of(targets):
    x, y = targets[:, :FEATURES], targets[:, FEATURES:]
    return lambda p: jnp.mean(jnp.square(network(p, x) - y))


def factors(key, rank):
    first, second = jax.random.split(key)
    return {
        "in": jax.random.normal(first, (FEATURES, rank)) / rank**0.5,
        "out": jax.random.normal(second, (WIDTH, rank)) / rank**0.5,
    }


def maps(key):
    """Pairs of maps, student's first; those of even number are equal up to a factor."""
    one, other, third = jax.random.split(key, 3)
    params = jax.eval_shape(lambda: draw(one)[0])
    bools = jax.tree.map(lambda leaf: jax.random.bernoulli(third, 0.5, leaf.shape), params)
    scale = jax.tree.map(lambda leaf: jnp.exp(jax.random.normal(third, leaf.shape)), params)
    adapter, second = lora(factors(one, 2)), lora(factors(other, 2))
    doubled = diagonal(jax.tree.map(lambda leaf: 2 * leaf, scale))
    return [
        (mask(bools), mask(bools)),
        (mask(bools), None),
        (adapter, adapter),
        (adapter, second),
        (doubled, diagonal(scale)),
        (None, diagonal(scale)),
    ]


@jax.jit
def measured(seed):
    """Of every pair of maps: the coefficient, and what small real steps do to the trait."""
    key = jax.random.key(seed)
    params, inputs, targets = draw(key)
    trait = trait_of(targets)
    gradient = jax.grad(trait)(params)
    eps, alpha = 1e-3, 1e-3

    def changed(student, teacher):
        away = gradient if teacher is None else teacher(gradient)
        taught = step(params, away, -eps)
        way = student_direction(network, SOFTMAX, params, taught, inputs)
        way = way if student is None else student(way)
        return (trait(step(params, way, alpha)) - trait(step(params, way, -alpha))) / 2

    def of(pair, scale):
        student, teacher = pair
        found = bilinear_coefficient(
            network,
            SOFTMAX,
            params,
            gradient,
            inputs,
            student_map=student,
            teacher_map=teacher,
            scale=scale,
        )
        return found, changed(student, teacher) / (-alpha * eps)

    pairs = maps(jax.random.fold_in(key, 1))
    return [of(pair, 2.0 if number == 4 else 1.0) for number, pair in enumerate(pairs)]


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31 - 1))
def test_the_coefficient_predicts_the_traits_change_under_any_two_maps(seed):
    for number, (found, change) in enumerate(measured(np.uint32(seed))):
        size = found.student * found.teacher
        assert abs(change - found.coefficient) < 0.02 * size
        assert abs(found.coefficient) <= size * (1 + 1e-12)
        assert not found.ensured or found.coefficient > 0
        if number % 2 == 0:
            assert found.coefficient > 0
            assert found.cosine == pytest.approx(1)
            assert found.ensured
        # The pair of diagonals differs by the factor 2, which the scale undoes.
        if number == 4:
            assert found.difference < 1e-12 * found.teacher


def test_the_condition_holds_at_some_scale_if_and_only_if_the_sign_is_right():
    signs = set()
    for seed in range(12):
        params, inputs, targets = draw(jax.random.key(seed))
        gradient = jax.grad(trait_of(targets))(params)
        one, other = (lora(factors(jax.random.key(offset + seed), 1)) for offset in (0, 100))
        at = partial(bilinear_coefficient, network, SOFTMAX, params, gradient, inputs)
        at = partial(at, student_map=one, teacher_map=other)
        found = at()
        least = float(found.student**2 / (2 * jnp.abs(found.coefficient)))
        above, below = (at(scale=share * least) for share in (1.01, 0.99))
        assert bool(above.ensured) == bool(found.coefficient > 0)
        assert not below.ensured
        signs.add(bool(found.coefficient > 0))
    assert signs == {True, False}


def test_without_maps_it_is_the_papers_coefficient_and_chunks_change_nothing():
    params, inputs, targets = draw(jax.random.key(2))
    gradient = jax.grad(trait_of(targets))(params)
    weights = np.arange(EXAMPLES, dtype=float)
    rest = {"weights": weights, "chunk": 5}
    found = bilinear_coefficient(network, SOFTMAX, params, gradient, inputs, **rest)
    a = coefficient(network, SOFTMAX, params, gradient, inputs, weights=weights)
    assert found.coefficient == pytest.approx(float(a))
    assert found.student == pytest.approx(float(a) ** 0.5)
    assert found.difference == 0
    assert found.ensured


def test_gram_is_the_form_of_the_coefficient():
    params, inputs, _ = draw(jax.random.key(3))
    ways = jax.tree.map(lambda leaf: jnp.stack([leaf, jnp.flip(leaf), leaf**2]), params)
    found = gram(network, SOFTMAX, params, ways, inputs)
    mixed = jnp.array([0.3, -2.0, 1.0])
    sum_of_them = jax.tree.map(lambda leaf: jnp.tensordot(mixed, leaf, 1), ways)
    a = coefficient(network, SOFTMAX, params, sum_of_them, inputs)
    np.testing.assert_allclose(mixed @ found @ mixed, a, rtol=1e-12)
    np.testing.assert_allclose(found, found.T, rtol=1e-12)


def test_loras_map_is_what_a_first_step_of_its_output_factors_does():
    params, _, targets = draw(jax.random.key(4))
    trait = trait_of(targets)
    inner_factors = factors(jax.random.key(5), 3)

    def adapted(output_factors):
        return jax.tree.map(lambda w, a, b: w + a @ b, params, inner_factors, output_factors)

    zero = {"in": jnp.zeros((3, WIDTH)), "out": jnp.zeros((3, OUTPUTS))}
    slopes = jax.grad(lambda b: trait(adapted(b)))(zero)
    moved = jax.tree.map(jnp.subtract, adapted(jax.tree.map(lambda s: -0.1 * s, slopes)), params)
    told = lora(inner_factors)(jax.grad(trait)(params))
    for name in params:
        np.testing.assert_allclose(moved[name], -0.1 * told[name], rtol=1e-9, atol=1e-14)
    # What has no adapter is frozen, and the inner factors do not move.
    half = lora({"in": inner_factors["in"], "out": None})(jax.grad(trait)(params))
    assert not half["out"].any()
    np.testing.assert_array_equal(half["in"], told["in"])
    for slope in jax.tree.leaves(
        jax.grad(lambda a: trait(jax.tree.map(lambda w, a, b: w + a @ b, params, a, zero)))(
            inner_factors
        )
    ):
        assert not slope.any()


def test_maps_are_symmetric_and_positive_semi_definite():
    params, _, _ = draw(jax.random.key(6))
    u, v = (jax.tree.map(lambda leaf, s=s: jnp.sin(s * leaf), params) for s in (3.0, 7.0))
    for student, teacher in maps(jax.random.key(7)):
        for each in (student, teacher):
            if each is not None:
                np.testing.assert_allclose(inner(u, each(v)), inner(v, each(u)), rtol=1e-12)
                assert inner(u, each(u)) >= 0
    kept = mask({"in": True, "out": jnp.zeros((WIDTH, OUTPUTS), bool)})(u)
    np.testing.assert_array_equal(kept["in"], u["in"])
    assert not kept["out"].any()
    np.testing.assert_array_equal(diagonal({"in": 2.0, "out": 0.0})(u)["in"], 2 * u["in"])


def signs_by_rank(seed):
    """Of every rank: the coefficient of the same inner factors, and of independent ones."""
    key = jax.random.key(seed)
    params, inputs, targets = draw(key)
    gradient = jax.grad(trait_of(targets))(params)

    def of(rank):
        one, other = (
            factors(jax.random.fold_in(key, 2 * rank + which), rank) for which in range(2)
        )
        ways = [lora(each)(gradient) for each in (one, other)]
        products = gram(
            network, SOFTMAX, params, jax.tree.map(lambda *w: jnp.stack(w), *ways), inputs
        )
        return products[0, 0], products[0, 1]

    return jnp.stack([jnp.stack(of(rank)) for rank in RANKS])


def test_shared_inner_factors_of_lora_always_align_and_independent_ones_the_more_the_rank():
    found = np.asarray(jax.jit(jax.vmap(signs_by_rank))(jnp.arange(200, dtype=jnp.uint32)))
    assert (found[:, :, 0] > 0).all()
    share = (found[:, :, 1] > 0).mean(axis=0)
    assert 0.7 < share[0] < 0.9
    assert share[-1] > 0.99
    assert share[0] < share[1] < share[2]


# --- other starts ------------------------------------------------------------------------------


def bottleneck(p, x):
    return jnp.tanh(x @ p["in"]) @ p["down"] @ p["up"]


def _gap(start, teacher, way, inputs):
    """|(J_S - J_T) d| in the variance of the teacher's softmax."""
    logits, change = jax.jvp(lambda p: bottleneck(p, inputs), (teacher,), (way,))
    other = jax.jvp(lambda p: bottleneck(p, inputs), (start,), (way,))[1]
    p, difference = jax.nn.softmax(logits), other - change
    mean = jnp.sum(p * difference, axis=1)
    return jnp.sqrt(jnp.mean(jnp.sum(p * difference**2, axis=1) - mean**2))


@jax.jit
def from_another_start(seed, distance):
    """Expansion and g at +-eps, for a start matched in behaviour and for one that is not."""
    keys = jax.random.split(jax.random.key(seed), 7)
    shapes = {"in": (FEATURES, WIDTH), "down": (WIDTH, 4), "up": (4, OUTPUTS)}
    teacher, way, away = (
        {
            name: jax.random.normal(jax.random.fold_in(key, i), shape) / shape[0] ** 0.5
            for i, (name, shape) in enumerate(shapes.items())
        }
        for key in keys[:3]
    )
    inputs = jax.random.normal(keys[3], (EXAMPLES, FEATURES))
    turn = jnp.eye(4) + distance * jax.random.normal(keys[4], (4, 4))
    matched = teacher | {
        "down": teacher["down"] @ turn,
        "up": jnp.linalg.solve(turn, teacher["up"]),
    }
    unmatched = step(teacher, away, distance)

    def of(start):
        def g(eps):
            taught = step(teacher, way, eps)
            return inner_product(bottleneck, SOFTMAX, start, way, taught, inputs)

        eps = 1e-4
        zero, above, below = jax.lax.map(g, jnp.array([0.0, eps, -eps]))
        found = other_start(bottleneck, SOFTMAX, start, teacher, way, inputs)
        return found, zero, (above - below) / (2 * eps), above, _gap(start, teacher, way, inputs)

    return of(matched), of(unmatched)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31 - 1), distance=st.sampled_from([0.01, 0.1, 0.3, 1.0]))
def test_g_of_another_start_is_its_constant_and_slope(seed, distance):
    matched, unmatched = from_another_start(np.uint32(seed), distance)
    for found, constant, slope, _, gap in (matched, unmatched):
        size = found.teacher * (found.teacher + found.difference)
        assert abs(found.constant - constant) < 1e-12 + 1e-9 * abs(constant)
        assert abs(found.slope - slope) < 1e-5 * size
        assert found.difference == pytest.approx(float(gap), rel=1e-6)
        assert found.ensured == (gap < found.teacher)
        assert not found.ensured or found.slope > 0
    assert abs(matched[0].constant) < 1e-10
    if matched[0].ensured:
        assert matched[3] > 0
    # A start nearby is near enough.
    if distance == 0.01:
        assert matched[0].ensured


def test_a_constant_of_the_wrong_sign_outweighs_a_small_step():
    constants = [from_another_start(np.uint32(seed), 0.3)[1] for seed in range(12)]
    wrong = [(found, g) for found, _, _, g, _ in constants if found.constant < 0]
    assert wrong
    assert all(g < 0 for _, g in wrong)
    assert any(found.ensured for found, _ in wrong)


def direct(p, x):
    return x @ p["w"] + p["b"]


@jax.jit
def of_movements(students, teachers):
    """The condition for movements that are the parameters' own."""
    params = {"w": jnp.zeros((8, 1), students.dtype), "b": jnp.zeros(1, students.dtype)}

    def of(student, teacher):
        ways = [{"w": way, "b": params["b"]} for way in (student, teacher)]
        return bilinear_coefficient(
            direct,
            matching(squared_potential(jnp.ones(1, students.dtype))),
            params,
            params,
            jnp.eye(8, dtype=students.dtype),
            student_map=lambda _: ways[0],
            teacher_map=lambda _: ways[1],
        ).ensured

    return jax.vmap(of)(students, teachers)


def test_rounding_ensures_nothing():
    """Movements at right angles to rounding, with a coefficient just below 0."""
    rng = np.random.default_rng(0)
    teachers, students = rng.normal(size=(2, 2000, 8, 1))
    along = np.sum(students * teachers, 1, keepdims=True) / np.sum(teachers**2, 1, keepdims=True)
    across = 1e-4 * (students - along * teachers)
    nearly, clearly = (np.float32(across + share * teachers) for share in (-1e-9, 1e-2))
    teachers = np.float32(teachers)
    wrong = np.sum(nearly.astype(float) * teachers, axis=(1, 2)) < 0
    assert wrong.sum() > 500
    assert not np.asarray(of_movements(nearly, teachers))[wrong].any()
    assert np.asarray(of_movements(clearly, teachers)).all()


@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.float64, marks=pytest.mark.slow)])
def test_a_direction_that_the_loss_does_not_see_is_never_ensured(dtype):
    # Signs in turn would be the same on the whole subset.
    subset = matching(softmax_potential(jnp.array([True, False, True])))
    rng = np.random.default_rng(1)
    params, inputs = (
        {"w": jnp.asarray(rng.normal(size=(4, 3)), dtype), "b": jnp.zeros(3, dtype)},
        jnp.asarray(rng.normal(size=(20, 4)), dtype),
    )
    for _ in range(4):
        shared = np.repeat(rng.normal(size=(4, 1)), 3, axis=1)
        blind = {"w": jnp.asarray(shared, dtype), "b": jnp.full(3, rng.normal(), dtype)}
        seen = blind | {"b": blind["b"].at[0].add(0.1)}
        elsewhere = step(params, blind, 0.1)
        for way, expected in ((blind, False), (seen, True)):
            found = bilinear_coefficient(direct, subset, params, way, inputs)
            assert bool(found.ensured) == expected
            found = other_start(direct, subset, params, elsewhere, way, inputs)
            assert bool(found.ensured) == expected


def test_a_subtree_without_an_adapter_is_frozen():
    gradient = {"a": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}, "b": {"bias": jnp.ones(2)}}
    found = lora({"a": {"kernel": jnp.ones((3, 1)), "bias": None}, "b": None})(gradient)
    np.testing.assert_array_equal(found["a"]["kernel"], 3 * jnp.ones((3, 2)))
    assert not found["a"]["bias"].any()
    assert not found["b"]["bias"].any()
    with pytest.raises(ValueError, match=r"factors: A of shape \[3, 1\] is none for a dict"):
        lora({"a": jnp.ones((3, 1)), "b": None})(gradient)


def test_bad_arguments_are_refused_by_name():
    params, inputs, _ = draw(jax.random.key(8))
    args = (network, SQUARED, params)
    with pytest.raises(ValueError, match="gradient: must have the tree structure of params"):
        bilinear_coefficient(*args, {"in": params["in"]}, inputs)
    with pytest.raises(ValueError, match="student_map: what it gives: must have the tree"):
        bilinear_coefficient(*args, params, inputs, student_map=lambda g: {"in": g["in"]})
    with pytest.raises(ValueError, match="teacher_map: what it gives"):
        bilinear_coefficient(*args, params, inputs, teacher_map=lambda g: {"out": g["out"]})
    with pytest.raises(ValueError, match="scale: must be finite and above 0"):
        bilinear_coefficient(*args, params, inputs, scale=0.0)
    with pytest.raises(ValueError, match=r"scale\['in'\]: must be finite and 0 or more"):
        diagonal({"in": -1.0, "out": 1.0})
    wrong = lora({"in": jnp.ones((WIDTH, 2)), "out": None})
    with pytest.raises(ValueError, match=r"factors: A of shape \[10, 2\] is none for a kernel"):
        wrong(params)
    with pytest.raises(ValueError, match="teacher_params"):
        other_start(*args, {"in": params["in"]}, params, inputs)
    with pytest.raises(ValueError, match="directions"):
        gram(*args, jax.tree.map(lambda leaf: leaf.T[None], params), inputs)
