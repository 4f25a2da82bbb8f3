"""Claims about the account of a training run."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from theory.losses import matching, softmax_potential
from theory.passes import cosine, inner
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


@pytest.mark.parametrize("name", OPTIMISERS)
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

    for k, (p, u) in enumerate(zip(path, updates, strict=False)):
        integral = np.sum(0.5 * weights * (0.5 * (1 - nodes)) * curvature(p, u))
        np.testing.assert_allclose(account.remainder[k], integral, rtol=1e-6, atol=1e-12)
        # Its leading part; the mutants are half of it, and none.
        ratio = account.second_order[k] / account.remainder[k]
        assert 0.8 < ratio < 1.25
    # The mutant: an account by the gradient in place of the optimiser's update.
    if name != "sgd":
        assert not np.allclose(-0.05 * account.inner_product, first, rtol=0.05)
    else:
        np.testing.assert_allclose(-0.05 * account.inner_product, first, rtol=1e-8)


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


def test_bad_arguments_are_refused_by_name(problem):
    params, _, trait, distillation, batches = problem
    call = partial(follow, trait, distillation, OPTIMISERS["sgd"])
    with pytest.raises(ValueError, match="teacher: must have the tree structure"):
        call(params, batches, teacher={"in": params["in"]})
    with pytest.raises(ValueError, match="batches: every array needs one leading axis"):
        call(params, (batches[0], batches[1][:2]))
    with pytest.raises(ValueError, match="displacement"):
        coverage(params, {"in": params["in"]})
