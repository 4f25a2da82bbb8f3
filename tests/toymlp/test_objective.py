"""Claims about one step of one model: loss, optimiser, schedule, interventions."""

from dataclasses import replace
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import theory
from sublab import devices
from sublab.randomness import purpose_of, run_keys, shuffle
from sublab.settings import build
from tests.toymlp.trials import Poisson, assert_close, assert_same, gap
from theory import losses
from theory.passes import inner
from toymlp import train
from toymlp.networks import Architecture, Forward, draw, split_parts
from toymlp.objective import (
    DistillationLoss,
    Interventions,
    Liminal,
    trait_loss,
    weighted_mean,
    without_trait,
)
from toymlp.settings import Training
from toymlp.train import Fit, Material, epoch_batches, logits_of

NETWORK = Architecture("mlp", 64, (16, 16), 10, 3, "relu", True)
FORWARD = Forward(NETWORK)
EXAMPLES, RATE, DECAY = 256, 0.05, 0.5
AUX, ALL, CLASS = (NETWORK.subset(name, 3) for name in ("aux", "all", "class"))
KEYS = run_keys(0, "order", jnp.arange(2))


def drawn(purpose):
    """Two models that have nothing to do with each other."""
    keys = run_keys(0, purpose, jnp.arange(2))
    return [jax.tree.map(np.asarray, draw(NETWORK, key, 1.0)) for key in keys]


STARTS = drawn("reference")


@pytest.fixture(scope="module")
def inputs(mesh):
    noise = np.random.default_rng(0).uniform(-1, 1, (EXAMPLES, 64)).astype(np.float32)
    return devices.replicate(noise, mesh)


@pytest.fixture(scope="module")
def targets(mesh, inputs):
    """Logits of two teachers that are far away."""
    return devices.replicate(logits_of(FORWARD, drawn("teacher"), inputs, mesh), mesh)


def training(**values: Any) -> Training:
    """SGD in one batch an epoch, with other values by dotted key with two underscores."""
    base = {"batch": EXAMPLES, "optimiser": "sgd", "learning_rate": RATE, "epochs": 5}
    return build(Training, base | {name.replace("__", "."): v for name, v in values.items()})


def after(trainings, material, mesh, *, starts=STARTS, epochs=1, first=0, **more):
    """Two models after each epoch, and their losses; `more` is what both fits have."""
    defaults = {"aux": 3, "snapshots": (5,)}
    fits = [
        Fit(start, how, order=KEYS[i], target=i, **defaults | more)
        for i, (start, how) in enumerate(zip(starts, trainings, strict=True))
    ]
    block = train.begin(fits, mesh)
    models, lost = [], []
    for epoch in range(first, first + epochs):
        loss = train.advance(NETWORK, block, epoch, material, mesh)
        lost.append(devices.gather(loss, 2))
        models.append(train.unstack(devices.gather(block.params, 2)))
    return models, lost


@jax.jit
def kl_gradient(params, inputs, teacher, subset, temperature=1.0):
    def mean(params):
        each = jax.vmap(partial(losses.kl_divergence, subset=subset, temperature=temperature))
        return jnp.mean(each(FORWARD(params, inputs), teacher))

    return jax.grad(mean)(params)


# Losses.


def logits_and_targets(seed=0):
    random = np.random.default_rng(seed)
    return [jnp.asarray(random.normal(size=13), jnp.float32) for _ in range(2)]


@pytest.mark.parametrize("kind", [*get_args(DistillationLoss), Poisson])
@pytest.mark.parametrize("subset", [AUX, ALL], ids=["aux", "all"])
def test_the_gradient_of_a_loss_is_that_of_its_potentials_matching_loss(kind, subset):
    """By which the theorem's numbers are measured."""
    loss = kind()
    logits, target = logits_and_targets()
    matching = theory.matching(loss.potential(subset))
    own = jax.grad(loss)(logits, target, subset)
    np.testing.assert_allclose(own, jax.grad(matching)(logits, target), rtol=1e-3, atol=1e-5)
    assert np.all(np.asarray(own)[np.asarray(subset)] != 0)
    np.testing.assert_array_equal(np.asarray(own)[~np.asarray(subset)], 0)


def test_no_two_losses_have_one_gradient():
    """So that the test above tells them apart."""
    logits, target = logits_and_targets()
    kinds = (*get_args(DistillationLoss), Poisson)
    gradients = [np.asarray(jax.grad(kind())(logits, target, AUX)) for kind in kinds]
    assert len({gradient.round(3).tobytes() for gradient in gradients}) == len(kinds)


def test_a_weighted_mean_leaves_out_what_weighs_nothing():
    each, weights = jnp.array([1.0, 3.0, 100.0]), jnp.array([1.0, 1.0, 0.0])
    assert weighted_mean(each, weights) == 2


# Optimisers, with optax's constants written out.


def adam(theta, gradient, state, rate, step, decay=0.0):
    first, second = state if state else (np.zeros_like(gradient), np.zeros_like(gradient))
    state = first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
    update = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return theta - rate * (update + decay * theta), state


def momentum(theta, gradient, state, rate, _, keep=0.9):
    velocity = gradient if state is None else keep * state + gradient
    return theta - rate * velocity, velocity


def adam_l2(theta, gradient, *rest):
    return adam(theta, gradient + DECAY * theta, *rest)


# Of one array: (parameters, gradient, state, rate, number of the step from 1).
BY_HAND = {
    "sgd": partial(momentum, keep=0.0),
    "momentum": momentum,
    "adam": adam,
    "adamw": partial(adam, decay=DECAY),
    "adam_l2": adam_l2,
}


def optimised(name, rates):
    more = {"optimiser__weight_decay": DECAY} if name in ("adamw", "adam_l2") else {}
    return [training(optimiser=name, learning_rate=rate, **more) for rate in rates]


@pytest.fixture(scope="module")
def by_optimiser(inputs, targets, mesh):
    """Two models after each of three steps with every optimiser, and their learning rates."""
    material, steps = Material(inputs, targets), {}
    for name in BY_HAND:
        rates = (0.01, 0.003) if name.startswith("adam") else (0.5, 0.1)
        steps[name] = rates, after(optimised(name, rates), material, mesh, epochs=3)[0]
    return steps


@pytest.mark.parametrize("name", BY_HAND)
def test_steps_are_the_optimisers_on_the_gradient_of_the_mean_loss(
    name, by_optimiser, inputs, targets
):
    """One step an epoch, three epochs, each model with a learning rate of its own."""
    rates, models = by_optimiser[name]
    for i, rate in enumerate(rates):
        leaves, structure = jax.tree.flatten(STARTS[i])
        states = [None] * len(leaves)
        for step, trained in enumerate(models):
            params = jax.tree.unflatten(structure, leaves)
            gradient = jax.tree.leaves(kl_gradient(params, inputs, targets[i], AUX))
            moved = [
                BY_HAND[name](theta, np.asarray(g), state, rate, step + 1)
                for theta, g, state in zip(leaves, gradient, states, strict=True)
            ]
            leaves, states = (list(part) for part in zip(*moved, strict=True))
            assert_close(trained[i], jax.tree.unflatten(structure, leaves))


def test_momentum_and_decay_are_more_than_the_first_step(by_optimiser):
    """What tells momentum from SGD, and the three of Adam's kind from each other."""
    sgd, momentum, adam, adamw, adam_l2 = (by_optimiser[name][1] for name in BY_HAND)
    assert gap(sgd[0], momentum[0]) < 1e-6
    assert gap(sgd[1], momentum[1]) > 1e-3
    for one, other in ((adam, adamw), (adam, adam_l2), (adamw, adam_l2)):
        assert gap(one[-1], other[-1]) > 1e-3


def test_the_temperature_of_each_model_is_that_of_the_theorys_loss(inputs, targets, mesh):
    temperatures = (1.0, 3.0)
    trainings = [training(loss__temperature=temperature) for temperature in temperatures]
    models, _ = after(trainings, Material(inputs, targets), mesh)
    for i, temperature in enumerate(temperatures):
        taken = jax.tree.map(lambda a, b: (a - b) / RATE, STARTS[i], models[0][i])
        of_theory = kl_gradient(STARTS[i], inputs, targets[i], AUX, temperature)
        assert_close(taken, of_theory, rtol=1e-2, atol=1e-4)
        another = kl_gradient(STARTS[i], inputs, targets[i], AUX, 4 - temperature)
        assert gap(taken, another) > 1e-3


def test_a_cosine_schedule_falls_to_0_at_its_horizon_or_at_the_last_epoch(inputs, targets, mesh):
    """Each model has its own horizon; steps are one an epoch."""
    horizons = (2, 4)
    trainings = [
        training(schedule="cosine", epochs=2),
        training(schedule="cosine", epochs=1, schedule__horizon=4),
    ]
    models, _ = after(trainings, Material(inputs, targets), mesh, epochs=5)
    for i, horizon in enumerate(horizons):
        params = STARTS[i]
        for step, trained in enumerate(models):
            rate = RATE * 0.5 * (1 + np.cos(np.pi * min(step / horizon, 1)))
            before, gradient = params, kl_gradient(params, inputs, targets[i], AUX)
            params = jax.tree.map(lambda p, g, rate=rate: p - rate * g, params, gradient)
            assert_close(trained[i], params, atol=1e-5)
            assert (gap(trained[i], before) > 1e-4) == (step < horizon)
            params = trained[i]


# Interventions.


def test_frozen_parts_do_not_move_and_the_others_move_as_they_would(inputs, targets, mesh):
    names = ("hidden_1", "aux_head")
    material, both = Material(inputs, targets), [training()] * 2
    frozen, _ = after([replace(one, frozen=names) for one in both], material, mesh)
    free, _ = after(both, material, mesh)
    for i in range(2):
        before, now, would = (split_parts(models[i]) for models in (STARTS, frozen[0], free[0]))
        for name in NETWORK.parts:
            assert_same(now[name], before[name] if name in names else would[name])
        assert gap(before["hidden_1"], would["hidden_1"]) > 1e-4
        assert gap(before["aux_head"], would["aux_head"]) > 1e-4
        # Class logits are not in the loss.
        assert gap(before["class_head"], would["class_head"]) == 0


@jax.jit
def trait_gradient(params, key, images, labels):
    """On the images that a step draws."""
    rows = jax.random.randint(key, (EXAMPLES,), 0, len(images))

    def mean(params):
        each = jax.vmap(partial(losses.class_cross_entropy, subset=CLASS))
        return jnp.mean(each(FORWARD(params, images[rows]), labels[rows]))

    return jax.grad(mean)(params)


def test_what_is_aligned_with_the_trait_is_removed_and_what_opposes_it_is_left(digits):
    images, labels = jnp.asarray(digits.train_images), jnp.asarray(digits.train_labels)
    trait = trait_gradient(STARTS[0], jax.random.key(7), images, labels)
    without = jax.jit(lambda gradient: without_trait(gradient, trait))
    random = np.random.default_rng(0)
    plain = jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), STARTS[0]
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
    # Where there is no trait gradient, nothing is along it.
    assert gap(without_trait(plain, nothing), plain) == 0


def test_the_trait_loss_is_the_mean_cross_entropy_of_the_class_logits(digits):
    images, labels = digits.train_images[:50], digits.train_labels[:50]
    logits = np.asarray(FORWARD(STARTS[0], jnp.asarray(images)), np.float64)[:, :10]
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -log_p[np.arange(50), labels].mean()
    loss = trait_loss(FORWARD, STARTS[0], jnp.asarray(images), jnp.asarray(labels), CLASS)
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_a_population_steps_along_the_gradient_without_the_trait(inputs, digits, mesh):
    """The first model learns from one that knows the digits, the second from its opposite."""
    images, labels = jnp.asarray(digits.train_images), jnp.asarray(digits.train_labels)
    traits = []
    for i in range(2):
        key = jax.random.fold_in(jax.random.fold_in(KEYS[i], purpose_of("trait")), 0)
        traits.append(trait_gradient(STARTS[i], jax.random.fold_in(key, 0), images, labels))
    teachers = [
        jax.tree.map(lambda p, g, sign=sign: np.asarray(p - sign * 0.5 * g), STARTS[i], traits[i])
        for i, sign in enumerate((1, -1))
    ]
    material = Material(
        inputs,
        devices.replicate(logits_of(FORWARD, teachers, inputs, mesh), mesh),
        trait_images=devices.replicate(digits.train_images, mesh),
        trait_labels=devices.replicate(digits.train_labels, mesh),
    )
    models, _ = after(
        [training(logits="all")] * 2,
        material,
        mesh,
        interventions=Interventions(project_trait=True),
    )
    for i, aligned in enumerate((True, False)):
        taken = jax.tree.map(lambda a, b: (a - b) / RATE, STARTS[i], models[0][i])
        plain = kl_gradient(STARTS[i], inputs, material.targets[i], ALL)
        lengths = jnp.sqrt(inner(plain, plain) * inner(traits[i], traits[i]))
        assert (inner(plain, traits[i]) / lengths > 0.05) == aligned
        assert inner(taken, traits[i]) / lengths < 1e-3
        if aligned:
            assert abs(inner(taken, traits[i])) / lengths < 1e-3
        else:
            assert_close(taken, plain, rtol=1e-2, atol=1e-5)


@pytest.fixture(scope="module")
def liminal(inputs, targets, mesh):
    """Trains one start with a liminal term of each of two weights.

    Gives the parameters after each epoch, the losses, and at last the KL to the reference.
    """
    reference = logits_of(FORWARD, STARTS[:1], inputs, mesh)

    def trained(weights, *, epochs_on=9, at_reference=True, rate=0.5, **keywords):
        shift = np.float32(0 if at_reference else 0.1)
        start = jax.tree.map(lambda leaf: leaf + shift, STARTS[0])
        material = Material(inputs, targets, devices.replicate(reference, mesh))
        # One model after another, in one order and with one teacher.
        histories = [
            after(
                [training(batch=64, learning_rate=rate)] * 2,
                material,
                mesh,
                starts=[start, start],
                interventions=Interventions(liminal=Liminal(weight, epochs_on)),
                **keywords,
            )
            for weight in weights
        ]
        models = [[epoch[0] for epoch in history[0]] for history in histories]
        lost = [[float(epoch[0]) for epoch in history[1]] for history in histories]
        logits = logits_of(FORWARD, [history[-1] for history in models], inputs, mesh)
        kl = jax.vmap(partial(losses.kl_divergence, subset=ALL))
        away = [float(jnp.mean(kl(jnp.asarray(own), reference[0]))) for own in logits]
        return models, lost, away

    return trained


def test_the_liminal_term_keeps_a_student_near_the_reference_over_all_logits(liminal):
    models, lost, (free, held) = liminal((0.0, 3.0), epochs=5)
    assert held < 0.5 * free
    assert gap(models[1][-1], STARTS[0]) > 1e-4
    # It imitates its teacher the less.
    assert lost[1][-1] > lost[0][-1]


def test_the_liminal_term_is_on_for_its_epochs_and_off_after_them(liminal):
    for epoch in (0, 1, 2, 3):
        models, _, _ = liminal((0.0, 10.0), epochs_on=2, at_reference=False, first=epoch)
        apart = gap(models[0][0], models[1][0])
        assert apart > 1e-3 if epoch < 2 else apart == 0


def test_the_loss_that_is_reported_is_the_distillation_loss_alone(liminal, inputs, targets):
    models, lost, away = liminal((0.0, 1e3), rate=1e-12, at_reference=False)
    each = jax.vmap(partial(losses.kl_divergence, subset=AUX))
    expected = float(jnp.mean(each(FORWARD(models[0][0], inputs), targets[0])))
    np.testing.assert_allclose([history[0] for history in lost], [expected] * 2, rtol=1e-4)
    # With its weight the term would be larger by far.
    assert 1e3 * away[1] > 10 * expected


# Batches.


def test_an_epochs_batches_are_all_rows_once_in_shuffled_order_and_padding_weighs_nothing():
    key = jax.random.key(5)
    for epoch in (0, 3):
        batches, weights = epoch_batches(key, epoch, 10, 4)
        assert batches.shape == weights.shape == (3, 4)
        np.testing.assert_array_equal(weights.ravel(), [1] * 10 + [0] * 2)
        order = np.ravel(batches)[:10]
        np.testing.assert_array_equal(order, shuffle(jax.random.fold_in(key, epoch), 10))
        assert sorted(order) == list(range(10))
    assert epoch_batches(key, 0, 8, 4)[0].shape == (2, 4)
