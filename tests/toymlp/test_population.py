"""Claims about the training of populations."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import arithmetic
from benchmarks.memory import peak_in_a_process
from sublab import devices
from sublab.randomness import run_keys, shuffle
from toymlp import models, operations, population

ARCHITECTURE = models.Architecture(inputs=64)


def members(runs, architecture=ARCHITECTURE):
    """Apply, starts and teacher's knobs of `runs`: each depends on its run alone."""
    runs = jnp.asarray(runs)
    apply, params = models.initialise(architecture, run_keys(0, "reference", runs))
    knobs = population.Knobs(
        learning_rate=jnp.full(len(runs), 3e-4, jnp.float32),
        order=run_keys(0, "order", runs),
        subset=jnp.tile(architecture.class_logits(), (len(runs), 1)),
        teacher=jnp.zeros(len(runs), jnp.int32),
    )
    return apply, params, knobs


def train(runs, dataset, mesh, epochs, batch, **keywords):
    apply, params, knobs = members(runs, models.Architecture(inputs=dataset.train_images.shape[1]))
    inputs = devices.replicate(dataset.train_images, mesh)
    labels = devices.replicate(dataset.train_labels[None], mesh)
    params, loss = population.train(
        apply, params, inputs, labels, population.Shape("class_cross_entropy", batch), knobs,
        epochs=epochs, mesh=mesh, **keywords,
    )  # fmt: skip
    logits = population.predict(
        apply, params, devices.replicate(dataset.test_images, mesh), mesh=mesh
    )
    return params, loss, logits


@pytest.fixture(scope="module")
def of_25(mnist, mesh):
    return train(range(25), mnist, mesh, epochs=1, batch=1024)


@pytest.mark.parametrize("runs", [[3], [9, 24, 0, 3, 7, 18, 1]])
def test_a_seeds_numbers_do_not_depend_on_its_population(mnist, mesh, of_25, runs):
    _, loss, logits = train(runs, mnist, mesh, epochs=1, batch=1024)
    _, loss_of_25, logits_of_25 = of_25
    scale = np.abs(logits_of_25[runs]).max()
    np.testing.assert_allclose(logits, logits_of_25[runs], rtol=1e-3, atol=1e-3 * scale)
    np.testing.assert_allclose(loss, loss_of_25[runs], rtol=1e-3)
    ours, theirs = (
        population.accuracy(some, mnist.test_labels, 10) for some in (logits, logits_of_25[runs])
    )
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    assert theirs.min() > 0.85


def test_a_seeds_numbers_do_not_depend_on_the_number_of_devices(digits, mesh):
    one = devices.population_mesh(list(mesh.devices.flat)[:1])
    _, _, on_one = train([4, 5, 6], digits, one, epochs=3, batch=25)
    _, _, on_two = train([4, 5, 6], digits, mesh, epochs=3, batch=25)
    np.testing.assert_allclose(on_one, on_two, rtol=1e-3, atol=1e-3 * np.abs(on_two).max())


def test_training_is_adam_step_by_step_on_batches_in_shuffled_order_the_last_one_partial(
    digits, mesh
):
    """Against a plain loop over one model, with Adam written out."""
    batch, epochs, run = 500, 2, 11
    params, loss, _ = train([run], digits, mesh, epochs=epochs, batch=batch)
    apply, start, knobs = members([run])
    theta = jax.tree.map(lambda leaf: leaf[0], start)
    first, second = (jax.tree.map(jnp.zeros_like, theta) for _ in range(2))

    @jax.jit
    @jax.value_and_grad
    def mean_loss(theta, images, labels):
        scores = jax.nn.log_softmax(apply(theta, images)[:, :10])
        return -jnp.mean(scores[jnp.arange(len(labels)), labels])

    step, by_hand = 0, []
    for epoch in range(epochs):
        order = shuffle(jax.random.fold_in(knobs.order[0], epoch), 1437)
        batches = [order[i : i + batch] for i in range(0, 1437, batch)]
        assert [len(rows) for rows in batches] == [500, 500, 437]
        total = 0.0
        for rows in batches:
            step += 1
            value, g = mean_loss(theta, digits.train_images[rows], digits.train_labels[rows])
            total += float(value) * len(rows)
            first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, g)
            second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, second, g)
            theta = jax.tree.map(
                lambda p, m, v, t=step: p
                - 3e-4 * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8),
                theta, first, second,
            )  # fmt: skip
        by_hand.append(total / 1437)
    np.testing.assert_allclose(loss[0], by_hand, rtol=1e-4)
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(theta), strict=True):
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-3, atol=2e-5)


def test_the_loss_sees_only_its_subset_and_its_own_teacher(digits, mesh):
    """Two students of two teachers; the outputs outside the subset keep their last layer."""
    apply, start, knobs = members([0, 1])
    teachers = np.random.default_rng(0).normal(size=(2, 200, 13)).astype(np.float32)
    knobs = population.Knobs(
        jnp.full(2, 1e-2, jnp.float32), knobs.order,
        jnp.tile(ARCHITECTURE.aux_logits(), (2, 1)), jnp.array([1, 0], jnp.int32),
    )  # fmt: skip
    inputs = devices.replicate(digits.train_images[:200], mesh)
    params, loss = population.train(
        apply, start, inputs, devices.replicate(teachers, mesh), population.Shape("kl", 64), knobs,
        epochs=30, mesh=mesh,
    )  # fmt: skip
    assert np.all(loss[:, -1] < 0.5 * loss[:, 0])
    output_weights, before = (
        next(leaf for leaf in jax.tree.leaves(tree) if leaf.shape[1:] == (256, 13))
        for tree in (params, start)
    )
    np.testing.assert_array_equal(output_weights[..., :10], before[..., :10])
    logits = population.predict(apply, params, inputs, mesh=mesh)[..., 10:]
    gap = np.array([[np.abs(jax.nn.softmax(logits[s]) - jax.nn.softmax(teachers[t, :, 10:])).mean()
                     for t in (0, 1)] for s in (0, 1)])  # fmt: skip
    assert gap[0, 1] < 0.5 * gap[0, 0]
    assert gap[1, 0] < 0.5 * gap[1, 1]


def test_another_learning_rate_compiles_nothing(digits, mesh):
    train([0, 1], digits, mesh, epochs=1, batch=25)
    # How many programs there are, JAX tells only here.
    programs: Any = population._epoch
    compiled = programs._cache_size()
    apply, params, knobs = members([0, 1])
    knobs = population.Knobs(knobs.learning_rate * 2, knobs.order, knobs.subset, knobs.teacher)
    population.train(
        apply, params, devices.replicate(digits.train_images, mesh),
        devices.replicate(digits.train_labels[None], mesh),
        population.Shape("class_cross_entropy", 25), knobs, epochs=1, mesh=mesh,
    )  # fmt: skip
    assert programs._cache_size() == compiled


def test_every_epoch_is_reported_and_the_callers_start_stays_usable(digits, mesh):
    seen: list[tuple[int, int]] = []
    apply, start, knobs = members([0, 1])
    kept = jax.tree.map(np.asarray, start)
    for _ in range(2):
        population.train(
            apply, start, devices.replicate(digits.train_images, mesh),
            devices.replicate(digits.train_labels[None], mesh),
            population.Shape("class_cross_entropy", 25), knobs, epochs=2, mesh=mesh,
            report=lambda done, epochs: seen.append((done, epochs)),
        )  # fmt: skip
    assert seen == [(1, 2), (2, 2)] * 2
    jax.tree.map(np.testing.assert_array_equal, kept, jax.tree.map(np.asarray, start))


def test_no_epochs_leave_the_start_and_no_loss(digits, mesh):
    params, loss, _ = train([2], digits, mesh, epochs=0, batch=25)
    assert loss.shape == (1, 0)
    jax.tree.map(np.testing.assert_array_equal, params, members([2])[1])


def _epoch_of_the_paper(mesh, loss, models_, teachers):
    """The paper's epoch program with shapes only: nothing is computed."""
    architecture = models.Architecture(inputs=784)
    apply, params, knobs = members(range(models_), architecture)
    shape = population.Shape(loss, 1024)
    state = population._start(params, knobs, shape=shape, mesh=mesh)
    inputs = jax.ShapeDtypeStruct((60_000, 784), jnp.float32)
    targets = (
        jax.ShapeDtypeStruct((1, 60_000), jnp.int32)
        if loss == "class_cross_entropy"
        else jax.ShapeDtypeStruct((teachers, 60_000, 13), jnp.float32)
    )
    program = partial(population._epoch, apply=apply, shape=shape, mesh=mesh)
    return apply, architecture, program, (params, state, knobs, np.int32(0), inputs, targets)


def test_all_six_conditions_take_at_most_1_1_times_the_arithmetic_of_their_gradients(mesh):
    runs, epochs, students = 4, 5, 4
    apply, architecture, teacher, arguments = _epoch_of_the_paper(
        mesh, "class_cross_entropy", runs, 1
    )
    spent = epochs * arithmetic.product_operations(jax.make_jaxpr(teacher)(*arguments))
    _, _, student, arguments = _epoch_of_the_paper(mesh, "kl", students * runs, runs)
    spent += epochs * arithmetic.product_operations(jax.make_jaxpr(student)(*arguments))
    # Every model's test accuracy, and each teacher's logits on the noise, once.
    for count, examples in ((runs, 10_000), (runs, 10_000), (runs, 60_000),
                            (students * runs, 10_000)):  # fmt: skip
        params = members(range(count), architecture)[1]
        images = jax.ShapeDtypeStruct((examples, 784), jnp.float32)
        predict = partial(population._predict, apply=apply, mesh=mesh)
        spent += arithmetic.product_operations(jax.make_jaxpr(predict)(params, images))
    needed = runs * (1 + students) * epochs * 60_000 * operations.gradient(architecture.products)
    assert 1.0 <= spent / needed <= 1.1
    # The bound would catch a teacher that is run again for every student and epoch.
    again = students * runs * epochs * 60_000 * operations.forward(architecture.products)
    assert (spent + again) / needed > 1.1


def test_parameters_and_optimiser_state_are_donated(digits, mesh):
    apply, params, knobs = members([0, 1])
    params, knobs = devices.spread((params, knobs), mesh)
    shape = population.Shape("class_cross_entropy", 25)
    state = population._start(params, knobs, shape=shape, mesh=mesh)
    population._epoch(
        params, state, knobs, np.int32(0), devices.replicate(digits.train_images, mesh),
        devices.replicate(digits.train_labels[None], mesh),
        apply=apply, shape=shape, mesh=mesh,
    )  # fmt: skip
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((params, state)))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(knobs))


def test_a_model_takes_at_most_40_mb_and_25_models_fit_in_3_gb(computing, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", computing["XLA_FLAGS"])
    one, many = (peak_in_a_process(models, images=60_000, batch=1024) for models in (1, 25))
    assert (many - one) / 24 <= 40
    assert many <= 3000
