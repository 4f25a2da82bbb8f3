"""Claims about one step of one model: loss, interventions, optimiser; on whole populations."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sublab import devices
from sublab.randomness import purpose_of, run_keys, shuffle
from theory import losses
from theory.passes import inner
from toymlp import objective, population
from toymlp.jobs import stack, unstack
from toymlp.networks import Apply, Plan, draw, split_parts
from toymlp.objective import Extras, Knobs, Shape
from toymlp.stages import trainable

PLAN = Plan("mlp", 64, (16, 16), 10, 3, "relu", True)
APPLY = Apply(PLAN)
IMAGES, RATE, DECAY = 256, 0.05, 0.5
AUX, ALL, CLASS = (PLAN.subset(logits, 3) for logits in ("aux", "all", "class"))


def two(purpose):
    """Two models that have nothing to do with each other."""
    drawn = draw(PLAN, run_keys(0, purpose, jnp.arange(2)), jnp.ones(2, jnp.float32))
    return jax.tree.map(np.asarray, drawn)


@pytest.fixture(scope="module")
def start():
    return two("reference")


@pytest.fixture(scope="module")
def inputs(mesh):
    noise = np.random.default_rng(0).uniform(-1, 1, (IMAGES, 64)).astype(np.float32)
    return devices.replicate(noise, mesh)


@pytest.fixture(scope="module")
def targets(mesh, inputs):
    """Logits of two teachers that are far away."""
    return devices.replicate(population.predict(APPLY, two("teacher"), inputs, mesh=mesh), mesh)


def rows(*, subset=AUX, rates=(RATE, RATE), teachers=(0, 1), **knobs):
    """The knobs of two models."""
    return Knobs(
        jnp.asarray(rates, jnp.float32), run_keys(0, "order", jnp.arange(2)),
        jnp.stack([subset, subset]), jnp.asarray(teachers, jnp.int32),
        **{name: jnp.asarray(value) for name, value in knobs.items() if name != "trainable"},
        trainable=knobs.get("trainable"),
    )  # fmt: skip


def after(shape, knobs, start, inputs, targets, mesh, *, epochs=1, first=0, extras=None):
    """Parameters after each epoch, and the losses."""
    block = population.begin(start, knobs, shape, mesh)
    found, lost = [], []
    for epoch in range(first, first + epochs):
        loss = population.advance(
            APPLY, block, epoch, inputs, targets, shape, mesh, extras or Extras()
        )
        lost.append(devices.gather(loss, 2))
        found.append(devices.gather(block.params, 2))
    return found, lost


@jax.jit
def kl_gradient(params, inputs, teacher, subset, temperature=1.0):
    def mean(params):
        each = jax.vmap(partial(losses.kl_divergence, subset=subset, temperature=temperature))
        return jnp.mean(each(APPLY(params, inputs), teacher))

    return jax.grad(mean)(params)


def model(params, index):
    return jax.tree.map(lambda leaf: leaf[index], params)


def assert_close(one, other, *, rtol=1e-3, atol=2e-5):
    for mine, its in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(mine, its, rtol=rtol, atol=atol)


def gap(one, other):
    return max(float(np.abs(a - b).max()) for a, b in zip(
        jax.tree.leaves(one), jax.tree.leaves(other), strict=True))  # fmt: skip


def adam(theta, g, state, rate, t, decay=0.0):
    first, second = state if state else (np.zeros_like(g), np.zeros_like(g))
    state = first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
    step = first / (1 - 0.9**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    return theta - rate * (step + decay * theta), state


def momentum(theta, g, state, rate, _, keep=0.9):
    velocity = g if state is None else keep * state + g
    return theta - rate * velocity, velocity


# Optax's rules, of one array: (parameters, gradient, state, rate, number of the step from 1).
BY_HAND = {
    "sgd": partial(momentum, keep=0.0),
    "momentum": momentum,
    "adam": adam,
    "adamw": partial(adam, decay=DECAY),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_steps_are_the_optimisers_on_the_gradient_of_the_mean_loss(
    name, start, inputs, targets, mesh
):
    """One step an epoch, three epochs, each model with a learning rate of its own."""
    rates = (0.01, 0.003) if name.startswith("adam") else (0.5, 0.1)
    knobs = rows(rates=rates, weight_decay=jnp.full(2, DECAY, jnp.float32), temperature=jnp.ones(2))
    found, _ = after(Shape("kl", IMAGES, name), knobs, start, inputs, targets, mesh, epochs=3)
    for i, rate in enumerate(rates):
        leaves, structure = jax.tree.flatten(model(start, i))
        states = [None] * len(leaves)
        for step, trained in enumerate(found):
            params = jax.tree.unflatten(structure, leaves)
            gradient = jax.tree.leaves(kl_gradient(params, inputs, targets[i], AUX))
            moved = [
                BY_HAND[name](theta, np.asarray(g), state, rate, step + 1)
                for theta, g, state in zip(leaves, gradient, states, strict=True)
            ]
            leaves, states = (list(some) for some in zip(*moved, strict=True))
            assert_close(model(trained, i), jax.tree.unflatten(structure, leaves))


def test_momentum_and_decay_are_more_than_the_first_step(start, inputs, targets, mesh):
    """What tells momentum from SGD, and adamw from Adam."""
    more = {"weight_decay": jnp.full(2, DECAY, jnp.float32), "temperature": jnp.ones(2)}
    sgd, momentum, adam, adamw = (
        after(Shape("kl", IMAGES, name), rows(**more), start, inputs, targets, mesh, epochs=2)[0]
        for name in ("sgd", "momentum", "adam", "adamw")
    )
    assert gap(sgd[0], momentum[0]) < 1e-6
    assert gap(sgd[1], momentum[1]) > 1e-3
    assert gap(adam[0], adamw[0]) > 1e-3


def test_the_temperature_of_each_model_is_that_of_the_theorys_loss(start, inputs, targets, mesh):
    temperatures = (1.0, 3.0)
    knobs = rows(
        weight_decay=jnp.full(2, DECAY, jnp.float32),
        temperature=jnp.asarray(temperatures, jnp.float32),
    )
    found, _ = after(Shape("kl", IMAGES, "sgd"), knobs, start, inputs, targets, mesh)
    for i, temperature in enumerate(temperatures):
        taken = jax.tree.map(lambda a, b: (a - b) / RATE, model(start, i), model(found[0], i))
        of_theory = kl_gradient(model(start, i), inputs, targets[i], AUX, temperature)
        assert_close(taken, of_theory, rtol=1e-2, atol=1e-4)
        another = kl_gradient(model(start, i), inputs, targets[i], AUX, 4 - temperature)
        assert gap(taken, another) > 1e-3


def cosine_knobs(start, horizons, frozen=((), ())):
    keep = [
        trainable(some, parts, True) for some, parts in zip(unstack(start), frozen, strict=True)
    ]
    return rows(horizon=jnp.asarray(horizons, jnp.float32), trainable=stack(keep))


def test_a_cosine_schedule_falls_to_0_at_its_horizon(start, inputs, targets, mesh):
    """Each model has its own horizon; steps are one an epoch."""
    shape, horizons = Shape("kl", IMAGES, "sgd", "cosine"), (2, 4)
    found, _ = after(shape, cosine_knobs(start, horizons), start, inputs, targets, mesh, epochs=5)
    for i, horizon in enumerate(horizons):
        params = model(start, i)
        for step, trained in enumerate(found):
            rate = RATE * 0.5 * (1 + np.cos(np.pi * min(step / horizon, 1)))
            before, gradient = params, kl_gradient(params, inputs, targets[i], AUX)
            params = jax.tree.map(lambda p, g, rate=rate: p - rate * g, params, gradient)
            assert_close(model(trained, i), params, atol=1e-5)
            assert (gap(model(trained, i), before) > 1e-4) == (step < horizon)
            params = model(trained, i)


def test_frozen_parts_do_not_move_and_the_others_move_as_they_would(start, inputs, targets, mesh):
    shape, frozen = Shape("kl", IMAGES, "sgd", "cosine"), (("hidden_1", "aux_head"), ())
    found, _ = after(shape, cosine_knobs(start, (1e6, 1e6), frozen), start, inputs, targets, mesh)
    free, _ = after(shape, cosine_knobs(start, (1e6, 1e6)), start, inputs, targets, mesh)
    for i, parts in enumerate(frozen):
        before, now, would = (split_parts(model(some, i)) for some in (start, found[0], free[0]))
        for name in PLAN.parts:
            assert_close(now[name], before[name] if name in parts else would[name], atol=0, rtol=0)
        assert gap(before["hidden_1"], would["hidden_1"]) > 1e-4
        assert gap(before["aux_head"], would["aux_head"]) > 1e-4
        # Class logits are not in the loss.
        assert gap(before["class_head"], would["class_head"]) == 0


def trait_gradient(params, key, images, labels):
    """On the images that the step draws."""
    drawn = jax.random.randint(key, (IMAGES,), 0, len(images))

    def mean(params):
        each = jax.vmap(partial(losses.class_cross_entropy, subset=CLASS))
        return jnp.mean(each(APPLY(params, images[drawn]), labels[drawn]))

    return jax.grad(mean)(params)


def test_what_is_aligned_with_the_trait_is_removed_and_what_opposes_it_is_left(start, digits):
    params, key = model(start, 0), jax.random.key(7)
    images, labels = jnp.asarray(digits.train_images), jnp.asarray(digits.train_labels)
    extras = Extras(trait_images=images, trait_labels=labels)
    knobs = replace(model(rows(), 0), classes=CLASS)
    without = jax.jit(
        lambda gradient: objective.without_trait(
            APPLY, params, gradient, knobs, key, IMAGES, extras
        )
    )
    trait = jax.jit(trait_gradient)(params, key, images, labels)
    random = np.random.default_rng(0)
    plain = jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), params
    )
    if inner(plain, trait) < 0:
        plain = jax.tree.map(jnp.negative, plain)
    lengths = float(jnp.sqrt(inner(plain, plain) * inner(trait, trait)))
    assert inner(plain, trait) / lengths > 1e-3
    projected = without(plain)
    assert abs(inner(projected, trait)) / lengths < 1e-5
    # Nothing else is removed: what is gone is along the trait gradient.
    gone = jax.tree.map(jnp.subtract, plain, projected)
    length_gone = float(jnp.sqrt(inner(gone, gone) * inner(trait, trait)))
    assert inner(gone, trait) / length_gone == pytest.approx(1, abs=1e-3)
    opposed = jax.tree.map(jnp.negative, plain)
    assert gap(without(opposed), opposed) == 0
    nothing = jax.tree.map(jnp.zeros_like, plain)
    assert gap(without(nothing), nothing) == 0
    # The class loss's own gradient is removed altogether.
    assert gap(without(trait), nothing) < 1e-6


def test_a_population_steps_along_the_gradient_without_the_trait(start, inputs, digits, mesh):
    """The first model learns from one that knows the digits, the second from its opposite."""
    images, labels = jnp.asarray(digits.train_images), jnp.asarray(digits.train_labels)
    extras = Extras(
        trait_images=devices.replicate(digits.train_images, mesh),
        trait_labels=devices.replicate(digits.train_labels, mesh),
    )
    keys = run_keys(0, "order", jnp.arange(2))
    traits = []
    for i in range(2):
        key = jax.random.fold_in(jax.random.fold_in(keys[i], purpose_of("trait")), 0)
        key = jax.random.fold_in(key, 0)
        traits.append(jax.jit(trait_gradient)(model(start, i), key, images, labels))
    teachers = stack([
        jax.tree.map(lambda p, g, sign=sign: np.asarray(p - sign * 0.5 * g), model(start, i), trait)
        for i, (sign, trait) in enumerate(zip((1, -1), traits, strict=True))
    ])  # fmt: skip
    targets = devices.replicate(population.predict(APPLY, teachers, inputs, mesh=mesh), mesh)
    knobs = replace(rows(subset=ALL), classes=jnp.stack([CLASS, CLASS]))
    shape = Shape("kl", IMAGES, "sgd", project_trait=True)
    found, _ = after(shape, knobs, start, inputs, targets, mesh, extras=extras)
    for i, aligned in enumerate((True, False)):
        taken = jax.tree.map(lambda a, b: (a - b) / RATE, model(start, i), model(found[0], i))
        plain = kl_gradient(model(start, i), inputs, targets[i], ALL)
        lengths = jnp.sqrt(inner(plain, plain) * inner(traits[i], traits[i]))
        assert (inner(plain, traits[i]) / lengths > 0.05) == aligned
        assert inner(taken, traits[i]) / lengths < 1e-3
        if aligned:
            assert abs(inner(taken, traits[i])) / lengths < 1e-3
        else:
            assert_close(taken, plain, rtol=1e-2, atol=1e-5)


def liminal(start, inputs, targets, mesh, *, weights, epochs_on=(9, 9), rate=0.5, **keywords):
    """Two models with the first start, the first teacher, and themselves as the reference."""
    both = stack([jax.tree.map(np.asarray, model(start, 0))] * 2)
    moved = both if keywords.pop("at_reference", True) else jax.tree.map(
        lambda leaf: leaf + np.float32(0.1), both
    )  # fmt: skip
    reference = population.predict(APPLY, both, inputs, mesh=mesh)[1:]
    knobs = rows(
        rates=(rate, rate),
        teachers=(0, 0),
        liminal_weight=jnp.asarray(weights, jnp.float32),
        liminal_epochs=jnp.asarray(epochs_on, jnp.int32),
        liminal_subset=jnp.stack([ALL, ALL]),
        reference=jnp.zeros(2, jnp.int32),
    )
    order = jnp.stack([knobs.order[0]] * 2)
    found, lost = after(
        Shape("kl", 64, "sgd"), replace(knobs, order=order), moved, inputs, targets, mesh,
        extras=Extras(reference_logits=devices.replicate(reference, mesh)), **keywords,
    )  # fmt: skip
    logits = population.predict(APPLY, found[-1], inputs, mesh=mesh)
    away = [
        float(jnp.mean(jax.vmap(partial(losses.kl_divergence, subset=ALL))(mine, reference[0])))
        for mine in logits
    ]
    return found, lost, away


def test_the_liminal_term_keeps_a_student_near_the_reference_over_all_logits(
    start, inputs, targets, mesh
):
    found, lost, (free, held) = liminal(start, inputs, targets, mesh, weights=(0.0, 3.0), epochs=5)
    assert held < 0.5 * free
    assert gap(model(found[-1], 1), model(start, 0)) > 1e-4
    # It imitates its teacher the less.
    assert lost[-1][1] > lost[-1][0]


def test_the_liminal_term_is_on_for_its_epochs_and_off_after_them(start, inputs, targets, mesh):
    keywords = {"weights": (0.0, 10.0), "epochs_on": (2, 2), "at_reference": False}
    for epoch in (0, 1, 2, 3):
        found, _, _ = liminal(start, inputs, targets, mesh, first=epoch, **keywords)
        apart = gap(model(found[0], 0), model(found[0], 1))
        assert apart > 1e-3 if epoch < 2 else apart == 0


def test_the_loss_that_is_reported_is_the_distillation_loss_alone(start, inputs, targets, mesh):
    found, lost, away = liminal(
        start, inputs, targets, mesh, weights=(0.0, 1e3), rate=1e-12, at_reference=False
    )
    each = jax.vmap(partial(losses.kl_divergence, subset=AUX))
    expected = jnp.mean(each(APPLY(model(found[0], 0), inputs), targets[0]))
    np.testing.assert_allclose(lost[0], [expected] * 2, rtol=1e-4)
    # With its weight the term would be larger by far.
    assert 1e3 * away[1] > 10 * expected


def test_an_epochs_batches_are_all_rows_once_in_shuffled_order_and_padding_weighs_nothing():
    key = jax.random.key(5)
    for epoch in (0, 3):
        batches, weights = objective.epoch_batches(key, epoch, 10, 4)
        assert batches.shape == weights.shape == (3, 4)
        np.testing.assert_array_equal(weights.ravel(), [1] * 10 + [0] * 2)
        order = np.ravel(batches)[:10]
        np.testing.assert_array_equal(order, shuffle(jax.random.fold_in(key, epoch), 10))
        assert sorted(order) == list(range(10))
    assert objective.epoch_batches(key, 0, 8, 4)[0].shape == (2, 4)
