"""Claims about directions, inner product and coefficient, and the mutants that they catch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from experiments.verify import families, instances
from tests.theory.draws import MLP, all_kinds, key, seeds, smooth_kinds, some
from theory.alignment import (
    coefficient,
    inner_product,
    inner_product_reverse,
    linearise,
    student_direction,
    teacher_direction,
    unit_of_eps,
)
from theory.checks import operations
from theory.losses import matching, softmax_potential, squared_potential
from theory.passes import inner, norm, rows, step

SMALL, MODERATE = 1e-4, 0.3


@jax.jit
def measured(seed, kinds):
    """What the library says of an instance, and what its mutants say."""
    instance = instances.draw(MLP, key(seed), kinds)
    apply, loss = instances.model(MLP, instance), instances.loss(instance)
    start, inputs = instance.params, instance.inputs
    trait = teacher_direction(instances.trait_loss(apply, instance), start)

    def along(way):
        eps = unit_of_eps(apply, instance.params, way, instance.inputs) * jnp.array(
            [SMALL, MODERATE]
        )
        teacher = step(start, way, eps[1])
        args = apply, loss, start, way
        detached, small, reverse = jax.lax.map(
            lambda size: inner_product_reverse(*args, step(start, way, size), inputs),
            jnp.concatenate([jnp.zeros(1), eps]),
        )
        student = student_direction(apply, loss, start, teacher, inputs)
        squares = matching(squared_potential(jnp.ones(families.OUTPUTS)))
        return {
            "reverse": reverse,
            "identity": inner_product(*args, teacher, inputs),
            "size": jnp.maximum(jnp.abs(reverse), 1e-3 * norm(student) * norm(way)),
            "small": small / eps[0],
            "coefficient": coefficient(*args, inputs),
            "mutants": {
                # J taken at the teacher, not at the start.
                "wrong point": _identity(apply, loss, start, teacher, way, teacher, inputs),
                "half": 0.5 * reverse,
                "detached": detached,
                "flipped": -small / eps[0],
                "M of another loss": coefficient(apply, squares, start, way, inputs),
                "M dropped": jnp.mean(jnp.sum(linearise(apply, start, way, inputs)[1] ** 2, 1)),
            },
        }

    # One program for both directions.
    pair = jax.tree.map(lambda *leaves: jnp.stack(leaves), trait, instance.random_direction)
    numbers = jax.lax.map(along, pair)
    return tuple(jax.tree.map(lambda leaf, i=i: leaf[i], numbers) for i in range(2))


def named(seed, kinds):
    """`measured`, by the direction's name."""
    return dict(zip(("trait", "random"), jax.device_get(measured(seed, kinds)), strict=True))


def _identity(apply, loss, start, teacher, way, at, inputs):
    logits, _ = linearise(apply, start, way, inputs)
    _, change = linearise(apply, at, way, inputs)
    gradient = jax.vmap(jax.grad(loss))(logits, rows(apply(teacher, inputs)))
    return -jnp.mean(jnp.sum(gradient * change, axis=1))


def agree(found, name="reverse"):
    """Reverse mode and the identity, to 1e-10 relative."""
    value = found[name] if name in found else found["mutants"][name]
    return abs(value - found["identity"]) <= 1e-10 * found["size"]


def positive(found, value="small"):
    """Lemma 1 at a small eps."""
    return (found[value] if value in found else found["mutants"][value]) > 0


def tends_to(found, name="coefficient"):
    """g(eps) / eps at small eps is a, by finite difference."""
    value = found[name] if name in found else found["mutants"][name]
    return abs(found["small"] - value) <= 0.02 * value


@given(seed=seeds, kinds=all_kinds)
def test_reverse_mode_equals_the_identity(seed, kinds):
    found = named(seed, kinds)
    assert agree(found["random"])
    # A blind trait has g = 0 both ways.
    assert agree(found["trait"]) or abs(found["trait"]["reverse"]) < 1e-13


@given(seed=seeds, kinds=all_kinds)
def test_lemma_1_holds_along_any_direction(seed, kinds):
    assert positive(named(seed, kinds)["random"])


@given(seed=seeds, kinds=smooth_kinds)
def test_lemma_1_holds_along_a_traits_gradient(seed, kinds):
    assert positive(named(seed, kinds)["trait"])


@given(seed=seeds, kinds=smooth_kinds)
def test_the_coefficient_is_the_slope_of_g(seed, kinds):
    for found in named(seed, kinds).values():
        assert found["coefficient"] > 0
        assert tends_to(found)


@pytest.mark.parametrize("mutant", ["wrong point", "half", "detached"])
def test_the_identity_catches(mutant):
    found = [named(*draw)["random"] for draw in some(8)]
    assert all(agree(each) for each in found)
    assert not any(agree(each, mutant) for each in found)


@pytest.mark.parametrize("mutant", ["flipped", "detached"])
def test_lemma_1_catches(mutant):
    assert not any(positive(named(*draw)["random"], mutant) for draw in some(8))


def test_the_coefficient_catches_another_matrix():
    found = [named(*draw)["random"] for draw in some(16) if draw[1].loss != 0]
    for mutant in ("M of another loss", "M dropped"):
        # The other matrix may come close by chance.
        assert sum(bool(tends_to(each, mutant)) for each in found) <= 2


@given(seed=seeds, kinds=all_kinds)
def test_a_blind_trait_has_g_0_at_every_eps(seed, kinds):
    kinds = instances.Kinds(kinds.activation, kinds.loss, jnp.int32(3), kinds.data)
    found = named(seed, kinds)["trait"]
    for value in ("reverse", "identity", "small", "coefficient"):
        assert abs(found[value]) < 1e-12


def test_a_trait_that_the_loss_sees_is_not_taken_for_a_blind_one():
    """The mutant: a trait along a vector that is not in the loss's null space."""
    for seed, kinds in some(8, trait=0):
        assert abs(named(seed, kinds)["trait"]["coefficient"]) > 1e-12


def linear_apply(params, inputs):
    return jnp.tanh(inputs) @ params["kernel"] + params["bias"]


def small_problem(dtype=jnp.float64, examples=23):
    a, b, c, d = jax.random.split(jax.random.key(0), 4)
    params = {"kernel": jax.random.normal(a, (6, 4), dtype), "bias": jnp.zeros(4, dtype)}
    way = jax.tree.map(lambda leaf: jax.random.normal(b, leaf.shape, dtype), params)
    inputs = jax.random.normal(c, (examples, 6), dtype)
    return params, way, step(params, way, 0.1), inputs, d


LOSS = matching(squared_potential(jnp.array([1.0, 2.0, 0.5, 1.0])))


@pytest.mark.parametrize(
    "chunk", [5, 100, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 23))]
)
def test_chunks_change_nothing_but_memory(chunk):
    params, way, teacher, inputs, _ = small_problem()
    for function in (inner_product, inner_product_reverse):
        whole = function(linear_apply, LOSS, params, way, teacher, inputs)
        part = function(linear_apply, LOSS, params, way, teacher, inputs, chunk=chunk)
        np.testing.assert_allclose(part, whole, rtol=1e-13)
    np.testing.assert_allclose(
        coefficient(linear_apply, LOSS, params, way, inputs, chunk=chunk),
        coefficient(linear_apply, LOSS, params, way, inputs),
        rtol=1e-13,
    )


def test_positions_of_an_example_count_as_examples_do():
    params, way, teacher, inputs, _ = small_problem(examples=24)
    flat = inner_product(linear_apply, LOSS, params, way, teacher, inputs)
    for function in (inner_product, inner_product_reverse):
        deep = function(linear_apply, LOSS, params, way, teacher, inputs.reshape(8, 3, 6))
        np.testing.assert_allclose(deep, flat, rtol=1e-13)


def test_students_that_start_elsewhere_are_measured_from_there():
    params, way, teacher, inputs, other_key = small_problem()
    other = jax.tree.map(lambda leaf: jax.random.normal(other_key, leaf.shape), params)
    by_hand = jax.grad(
        lambda p: jnp.mean(jax.vmap(LOSS)(linear_apply(p, inputs), linear_apply(teacher, inputs)))
    )(other)
    expected = -inner(by_hand, way)
    for function in (inner_product, inner_product_reverse):
        found = function(linear_apply, LOSS, other, way, teacher, inputs)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def largest_array(program) -> int:
    """Elements of the largest intermediate array of a program, however deep inside."""
    outputs = [variable for equation in operations(program) for variable in equation.outvars]
    return max(getattr(variable.aval, "size", 0) for variable in outputs)


@pytest.mark.parametrize("function", [inner_product, inner_product_reverse, coefficient])
def test_nothing_of_the_size_of_a_jacobian_is_formed(function):
    """Wide model, few examples: parameters dominate, and nothing is larger than they are."""
    width, chunk = 200, 4
    params = {"kernel": jnp.ones((width, 50)), "bias": jnp.zeros(50)}
    inputs = jnp.ones((64, width))
    teacher = () if function is coefficient else (params,)
    loss = matching(squared_potential(jnp.ones(50)))
    program = jax.make_jaxpr(partial(function, linear_apply, loss, chunk=chunk))(
        params, params, *teacher, inputs
    )
    # The largest may be the inputs themselves, cut into chunks, or one copy of the parameters.
    assert largest_array(program.jaxpr) <= max(width * 50, inputs.size)
    jacobian = jax.make_jaxpr(jax.jacrev(lambda p: linear_apply(p, inputs[:chunk])))(params)
    assert largest_array(jacobian.jaxpr) > max(width * 50, inputs.size)


def test_bad_input_is_refused_by_the_arguments_name():
    params, way, teacher, inputs, _ = small_problem()
    call = partial(inner_product, linear_apply, LOSS)
    bad = {
        r"direction: must have the tree structure.*\['bias'\]": (
            params,
            {"kernel": way["kernel"]},
            teacher,
            inputs,
        ),
        r"teacher\['kernel'\]: shape \(2, 4\), but params has \(6, 4\)": (
            params,
            way,
            teacher | {"kernel": jnp.ones((2, 4))},
            inputs,
        ),
        r"direction\['bias'\]: float32, but params has float64": (
            params,
            way | {"bias": jnp.zeros(4, jnp.float32)},
            teacher,
            inputs,
        ),
        r"params\['bias'\]: holds NaN": (
            params | {"bias": jnp.full(4, jnp.nan)},
            way,
            teacher,
            inputs,
        ),
        r"params\['bias'\]: must be floating point, is int": (
            params | {"bias": jnp.zeros(4, int)},
            way,
            teacher,
            inputs,
        ),
        "params: has no arrays": ({}, way, teacher, inputs),
        "inputs: every array needs a leading axis": (params, way, teacher, jnp.ones((0, 6))),
        "inputs: holds NaN": (params, way, teacher, inputs.at[3, 1].set(jnp.inf)),
    }
    for message, arguments in bad.items():
        with pytest.raises(ValueError, match=message):
            call(*arguments)
    with pytest.raises(ValueError, match="chunk: must be at least 1, got 0"):
        call(params, way, teacher, inputs, chunk=0)
    with pytest.raises(ValueError, match="trait_loss: its gradient at params is NaN"):
        teacher_direction(lambda p: jnp.sqrt(-jnp.sum(p["kernel"] ** 2)), params)


def crossed(z, y):
    """A loss that is no matching loss, and is not the same with z and y exchanged."""
    return jnp.sum(jnp.cosh(z - y) * (1 + y**2)) + jnp.sum(z * jnp.roll(y, 1))


def test_a_loss_that_is_no_matching_loss_is_taken_as_it_is():
    params, way, teacher, inputs, _ = small_problem()
    labels = linear_apply(teacher, inputs)
    by_hand = jax.grad(lambda p: jnp.mean(jax.vmap(crossed)(linear_apply(p, inputs), labels)))
    expected = -inner(by_hand(params), way)
    for function in (inner_product, inner_product_reverse):
        found = function(linear_apply, crossed, params, way, teacher, inputs)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_every_mean_has_its_weights():
    params, way, teacher, inputs, _ = small_problem(examples=6)
    weights = np.array([1.0, 0, 2, 0, 1, 3])
    repeated = inputs[np.repeat(np.arange(6), weights.astype(int))]
    means = (
        partial(inner_product, linear_apply, LOSS, params, way, teacher),
        partial(inner_product_reverse, linear_apply, LOSS, params, way, teacher),
        partial(coefficient, linear_apply, LOSS, params, way),
        partial(unit_of_eps, linear_apply, params, way),
    )
    for mean in means:
        np.testing.assert_allclose(mean(inputs, weights=weights), mean(repeated), rtol=1e-12)


def test_the_unit_of_eps_moves_a_logit_by_1():
    params, way, _, inputs, _ = small_problem()
    unit = unit_of_eps(linear_apply, params, way, inputs)
    moved = linear_apply(step(params, way, unit), inputs) - linear_apply(params, inputs)
    np.testing.assert_allclose(jnp.sqrt(jnp.mean(moved**2)), 1, rtol=1e-12)
    # A direction that moves no logit moves itself by 1.
    unseen = {"kernel": params["kernel"], "bias": params["bias"], "unused": jnp.zeros(3)}
    still = jax.tree.map(jnp.zeros_like, unseen) | {"unused": jnp.array([3.0, 0, 4.0])}
    np.testing.assert_allclose(unit_of_eps(linear_apply, unseen, still, inputs), 0.2)


def test_the_coefficient_is_its_definition():
    params, way, _, inputs, _ = small_problem()
    potential = softmax_potential(jnp.array([True, True, False, True]))
    logits, change = linearise(linear_apply, params, way, inputs)
    hessians = jax.vmap(jax.hessian(potential))(logits)
    expected = jnp.mean(jnp.einsum("ni,nij,nj->n", change, hessians, change))
    found = coefficient(linear_apply, matching(potential), params, way, inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_teacher_steps_downhill():
    params = {"w": jnp.array([1.0, -3.0])}
    found = teacher_direction(lambda p: jnp.sum(p["w"] ** 2), params)
    np.testing.assert_array_equal(found["w"], [-2.0, 6.0])


def test_the_unit_of_eps_goes_with_the_units_of_the_logits():
    params, way, _, inputs, _ = small_problem()
    plain = unit_of_eps(linear_apply, params, way, inputs)
    small = unit_of_eps(lambda p, x: 1e-9 * linear_apply(p, x), params, way, inputs)
    np.testing.assert_allclose(small, 1e9 * plain, rtol=1e-9)
    # What moves no logit: to its length.
    still = {"kernel": jnp.zeros((6, 4)), "bias": jnp.ones(4)}
    unmoved = unit_of_eps(lambda p, x: linear_apply(p, x) - p["bias"], params, still, inputs)
    np.testing.assert_allclose(unmoved, 0.5)
