"""Claims about the account of a training run."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from theory.alignment import inner_product
from theory.losses import matching, softmax_potential
from theory.passes import cosine, inner, norm
from theory.trajectory import coverage, follow, layers

STEPS = 6
OPTIMISERS = {
    "sgd": optax.sgd(0.05),
    "momentum": optax.sgd(0.05, momentum=0.9),
    "adam": optax.adam(0.01),
    "adamw": optax.adamw(0.01, weight_decay=0.1),
}


def apply(p, x):
    return jnp.tanh(x @ p["in"]["kernel"] + p["in"]["bias"]) @ p["out"]["kernel"]


LOSS = matching(softmax_potential(jnp.array([False, False, True, True])))


@pytest.fixture
def problem():
    keys = jax.random.split(jax.random.key(0), 6)
    params, teacher = (
        {
            "in": {"kernel": jax.random.normal(a, (5, 8)) / 2, "bias": jnp.zeros(8)},
            "out": {"kernel": jax.random.normal(b, (8, 4)) / 2},
        }
        for a, b in (keys[:2], keys[2:4])
    )
    inputs = jax.random.normal(keys[4], (STEPS, 10, 5))
    others = jax.random.normal(keys[5], (30, 5))

    def trait(p):
        return -jnp.mean(jax.nn.log_softmax(apply(p, others))[:, 1])

    def distillation(p, batch):
        x, y = batch
        return jnp.mean(jax.vmap(LOSS)(apply(p, x), y))

    batches = inputs, jax.vmap(partial(apply, teacher))(inputs)
    return params, teacher, trait, distillation, batches


def by_hand(problem, optimiser):
    """The path and the updates of plain optax."""
    params, _, _, distillation, batches = problem

    @jax.jit
    def advance(current, state, batch):
        update, state = optimiser.update(jax.grad(distillation)(current, batch), state, current)
        return optax.apply_updates(current, update), state, update

    state, path, updates = optimiser.init(params), [params], []
    for k in range(STEPS):
        batch = jax.tree.map(lambda leaf, k=k: leaf[k], batches)
        after, state, update = advance(path[-1], state, batch)
        updates.append(update)
        path.append(after)
    return path, updates


@pytest.mark.parametrize(
    "name",
    [
        "sgd",
        "adam",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("momentum", "adamw")),
    ],
)
def test_first_order_and_remainder_add_up_to_what_the_trait_loss_did(problem, name):
    params, teacher, trait, distillation, batches = problem
    run = jax.jit(partial(follow, trait, distillation, OPTIMISERS[name]))
    trained, account = run(params, batches, teacher=teacher)
    path, updates = by_hand(problem, OPTIMISERS[name])
    for ours, theirs in zip(jax.tree.leaves(trained), jax.tree.leaves(path[-1]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    value = jax.jit(trait)
    slope = jax.jit(lambda p, u: jax.jvp(trait, (p,), (u,))[1])
    whole = value(path[-1]) - value(params)
    np.testing.assert_allclose(np.sum(account.first_order + account.remainder), whole, rtol=1e-9)
    np.testing.assert_allclose(account.trait_loss, [value(p) for p in path], rtol=1e-10)
    first = [slope(p, u) for p, u in zip(path, updates, strict=False)]
    np.testing.assert_allclose(account.first_order, first, rtol=1e-8)
    # The remainder, independently: the integral of the curvature along each step.
    nodes, weights = np.polynomial.legendre.leggauss(8)

    @jax.jit
    def curvature(p, u):
        def along(t):
            return trait(jax.tree.map(lambda a, b: a + t * b, p, u))

        return jax.vmap(jax.grad(jax.grad(along)))(jnp.asarray(0.5 * (nodes + 1)))

    @jax.jit
    def half_curvature(p, u):
        return 0.5 * jax.grad(
            jax.grad(lambda t: trait(jax.tree.map(lambda a, b: a + t * b, p, u)))
        )(0.0)

    for k, (p, u) in enumerate(zip(path, updates, strict=False)):
        integral = np.sum(0.5 * weights * (0.5 * (1 - nodes)) * curvature(p, u))
        np.testing.assert_allclose(account.remainder[k], integral, rtol=1e-6, atol=1e-12)
        # Its leading part, of the curvature at theta_k; the mutants are that at theta_{k+1}, half
        # of it, and none.
        np.testing.assert_allclose(account.second_order[k], half_curvature(p, u), rtol=1e-8)
        ratio = account.second_order[k] / account.remainder[k]
        assert 0.8 < ratio < 1.25
        after = half_curvature(path[k + 1], u)
        assert not np.isclose(account.second_order[k], after, rtol=1e-5, atol=0)
    # The mutant: an account by the gradient in place of the optimiser's update.
    if name != "sgd":
        assert not np.allclose(-0.05 * account.inner_product, first, rtol=0.05)
    else:
        np.testing.assert_allclose(-0.05 * account.inner_product, first, rtol=1e-8)


def test_the_second_order_is_that_of_where_the_step_began():
    """L_T = w^3 / 6 has the curvature w; the student steps from 1 to 3, and on to 5."""
    _, account = follow(
        lambda p: p["w"] ** 3 / 6,
        lambda p, batch: -batch * p["w"],
        optax.sgd(1.0),
        {"w": jnp.array(1.0)},
        jnp.full(2, 2.0),
    )
    np.testing.assert_allclose(account.second_order, [0.5 * 1 * 2**2, 0.5 * 3 * 2**2])


def test_layers_add_up_and_their_cosines_are_theirs(problem):
    params, _, trait, distillation, batches = problem
    run = jax.jit(partial(follow, trait, distillation, OPTIMISERS["sgd"]))
    _, account = run(params, batches)
    assert account.coverage is None
    assert list(account.layer_cosine) == ["['in']", "['out']"]
    np.testing.assert_allclose(
        sum(account.layer_inner_product.values()), account.inner_product, rtol=1e-10
    )
    first = jax.tree.map(lambda leaf: leaf[0], batches)
    gradients = jax.jit(jax.grad(trait))(params), jax.jit(jax.grad(distillation))(params, first)
    for layer in ("in", "out"):
        np.testing.assert_allclose(
            account.layer_cosine[f"['{layer}']"][0],
            cosine(*(g[layer] for g in gradients)),
            rtol=1e-10,
        )
    np.testing.assert_allclose(account.cosine[0], cosine(*gradients), rtol=1e-10)
    np.testing.assert_allclose(account.inner_product[0], inner(*gradients), rtol=1e-10)


def test_coverage_is_the_cosine_with_the_teachers_displacement(problem):
    params, teacher, trait, distillation, batches = problem
    run = jax.jit(partial(follow, trait, distillation, OPTIMISERS["adam"]))
    _, account = run(params, batches, teacher=teacher)
    path, updates = by_hand(problem, OPTIMISERS["adam"])
    displacement = jax.tree.map(jnp.subtract, teacher, params)
    expected = [cosine(jax.tree.map(jnp.subtract, p, params), displacement) for p in path[1:]]
    assert account.coverage is not None
    np.testing.assert_allclose(account.coverage, expected, rtol=1e-8)
    np.testing.assert_allclose(account.coverage[0], coverage(updates[0], displacement), rtol=1e-8)
    assert coverage(displacement, displacement) == pytest.approx(1)


def test_layers_of_a_flax_module_are_its_layers():
    from flax import nnx

    module = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    found = layers({"deep": {"first": module}, "last": module})
    assert {name: len(arrays) for name, arrays in found.items()} == {
        "['deep']['first']": 2,
        "['last']": 2,
    }


@jax.tree_util.register_dataclass
@dataclass
class Attention:
    query: jax.Array
    key: jax.Array
    value: jax.Array


@jax.tree_util.register_dataclass
@dataclass
class Block:
    layers: list[Attention]
    scale: jax.Array


def test_layers_of_equal_names_under_different_parents_stay_apart():
    def block():
        return Block([Attention(*jnp.ones((3, 2)))], jnp.ones(1))

    found = layers({"enc": block(), "dec": block()})
    assert {name: len(arrays) for name, arrays in found.items()} == {
        "['dec']": 1,
        "['dec'].layers[0]": 3,
        "['enc']": 1,
        "['enc'].layers[0]": 3,
    }
    assert list(layers(jnp.ones(2))) == [""]


def test_layers_of_a_flax_module_are_named_alike_with_and_without_its_variables():
    from flax import nnx

    class Deep(nnx.Module):
        def __init__(self, rngs):
            self.parts = nnx.List([nnx.Linear(2, 2, rngs=rngs), nnx.Linear(2, 2, rngs=rngs)])
            self.last = nnx.Linear(2, 1, rngs=rngs)

    state = nnx.state(Deep(nnx.Rngs(0)))
    names = ["['last']", "['parts'][0]", "['parts'][1]"]
    assert sorted(layers(state)) == sorted(layers(nnx.to_pure_dict(state))) == names


def test_the_way_to_the_teacher_is_measured_at_every_step(problem):
    params, teacher, trait, distillation, batches = problem
    run = jax.jit(partial(follow, trait, distillation, OPTIMISERS["adam"]))
    _, account = run(params, batches, teacher=teacher)
    path, _ = by_hand(problem, OPTIMISERS["adam"])
    displacement = jax.tree.map(jnp.subtract, teacher, params)
    ways = [jax.tree.map(jnp.subtract, p, params) for p in path]
    left = [jax.tree.map(jnp.subtract, teacher, p) for p in path]
    approach = account.approach
    assert approach is not None
    for found, wanted in (
        (approach.distance, [norm(way) for way in left]),
        (approach.moved_square, [inner(way, way) for way in ways]),
        (approach.moved_along, [inner(way, displacement) for way in ways]),
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-14)
    gradients = []
    for k in range(STEPS):
        batch = jax.tree.map(lambda leaf, k=k: leaf[k], batches)
        gradients.append(jax.grad(distillation)(path[k], batch))
        # g_k is the inner product of Lemma 1, of the student where it is.
        lemma = inner_product(apply, LOSS, path[k], left[k], teacher, batch[0])
        np.testing.assert_allclose(approach.inner_product[k], lemma, rtol=1e-8)
    squares = [inner(gradient, gradient) for gradient in gradients]
    np.testing.assert_allclose(account.gradient_square, squares, rtol=1e-8)


def test_whether_every_step_was_toward_the_teacher_is_told_for_each_run(problem):
    params, far, trait, distillation, (inputs, _) = problem
    optimiser = OPTIMISERS["sgd"]
    teacher = jax.tree.map(lambda p, q: p + 0.05 * (q - p), params, far)
    batches = inputs, jax.vmap(partial(apply, teacher))(inputs)

    @jax.jit
    @jax.vmap
    def run(sign):
        def signed(p, batch):
            return sign * distillation(p, batch)

        return follow(trait, signed, optimiser, params, batches, teacher=teacher)[1]

    accounts = run(jnp.array([1.0, -1.0]))
    np.testing.assert_array_equal(accounts.always_toward_teacher, [True, False])
    alone = partial(follow, trait, distillation, optimiser)(params, batches)[1]
    assert alone.always_toward_teacher is None
    assert alone.approach is alone.coverage is None


class UpdatePair(NamedTuple):
    """An optimiser that is not optax's."""

    init: Callable
    update: Callable


@pytest.mark.parametrize(
    "name", ["plateau", "keyword", pytest.param("lbfgs", marks=pytest.mark.slow)]
)
def test_optimisers_that_need_the_loss_are_given_it(problem, name):
    params, _, trait, distillation, batches = problem

    def update(gradient, state, params, *, value):
        return jax.tree.map(lambda g: -0.1 * value * g, gradient), state

    optimiser = {
        "lbfgs": optax.lbfgs(),
        "plateau": optax.chain(
            optax.sgd(0.5), optax.contrib.reduce_on_plateau(factor=0.5, patience=1)
        ),
        # One that names what it takes, and takes nothing else.
        "keyword": UpdatePair(lambda _: optax.EmptyState(), update),
    }[name]
    trained, account = jax.jit(partial(follow, trait, distillation, optimiser))(params, batches)

    @jax.jit
    def advance(current, state, batch):
        value, gradient = jax.value_and_grad(distillation)(current, batch)
        extra = {"value": value}
        if name == "lbfgs":
            extra |= {"grad": gradient, "value_fn": lambda p: distillation(p, batch)}
        update, state = optimiser.update(gradient, state, current, **extra)
        return optax.apply_updates(current, update), state

    current, state = params, optimiser.init(params)
    for k in range(STEPS):
        batch = jax.tree.map(lambda leaf, k=k: leaf[k], batches)
        current, state = advance(current, state, batch)
    for ours, theirs in zip(jax.tree.leaves(trained), jax.tree.leaves(current), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-11)
    assert len(account.trait_loss) == STEPS + 1
    with pytest.raises(TypeError, match="value"):
        optimiser.update(params, optimiser.init(params), params)


def test_bad_arguments_are_refused_by_name(problem):
    params, _, trait, distillation, batches = problem
    call = partial(follow, trait, distillation, OPTIMISERS["sgd"])
    with pytest.raises(ValueError, match="teacher: must have the tree structure"):
        call(params, batches, teacher={"in": params["in"]})
    with pytest.raises(ValueError, match="batches: every array needs one leading axis"):
        call(params, (batches[0], batches[1][:2]))
    for empty in (jax.tree.map(lambda leaf: leaf[:0], batches), 1.0, ()):
        with pytest.raises(ValueError, match="batches: every array needs one leading axis"):
            call(params, empty)
    with pytest.raises(ValueError, match="params: has no arrays"):
        call({}, batches)
    with pytest.raises(ValueError, match=r"params.*must be an array, is a float"):
        call({"in": 1.0}, batches)
    with pytest.raises(ValueError, match=r"trait_loss: must give one number, gives \(2,\)"):
        follow(lambda _: jnp.ones(2), distillation, OPTIMISERS["sgd"], params, batches)

    def pair(p: Any, _: Any) -> Any:
        return p, p

    with pytest.raises(ValueError, match=r"distillation_loss: must give one number, gives tuple"):
        follow(trait, pair, OPTIMISERS["sgd"], params, batches)
    with pytest.raises(ValueError, match="displacement"):
        coverage(params, {"in": params["in"]})
