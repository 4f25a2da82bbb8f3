"""Claims about the training of populations."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import arithmetic
from sublab import devices, settings
from sublab.randomness import run_keys, shuffle
from tests.toymlp.peak import peak_of
from tests.toymlp.trials import (
    KEYS,
    assert_close,
    assert_same,
    is_optional_setting,
    neighbours,
    tiny,
)
from toymlp import train
from toymlp.networks import Forward, architectures
from toymlp.settings import PREPRINT, TEACHER, Training
from toymlp.stages import Draws
from toymlp.train import Fit, Material, accuracy, fit, logits_of, stack, unstack

NETWORK = architectures(tiny())[0]
DRAWS = Draws(NETWORK, 0)
LEARNING = replace(TEACHER, batch=64, learning_rate=1e-2, epochs=2)


def learner(run, **changes):
    """A model of a run that learns labels; it depends on its run alone."""
    training = replace(LEARNING, **changes)
    return Fit(
        DRAWS.reference(1.0, run),
        training,
        aux=3,
        order=run_keys(0, "order", jnp.array([run]))[0],
        target=0,
        snapshots=(training.epochs,),
    )


@pytest.fixture(scope="module")
def labelled(context):
    """Every training image and its label."""
    data = context.dataset
    return Material(
        devices.replicate(data.train_images, context.mesh),
        devices.replicate(data.train_labels[None], context.mesh),
    )


def learnt(fits, material, context, architecture=NETWORK):
    """The last snapshot of each model."""
    snapshots = fit(architecture, fits, lambda _: material, context, "learners")
    return [of_model[max(of_model)] for of_model in snapshots]


@pytest.fixture(scope="module")
def seven(labelled, context):
    """The models of seven runs, trained together."""
    return learnt([learner(run) for run in range(7)], labelled, context)


@pytest.mark.parametrize("runs", [[3], [6, 0, 3, 5, 1]])
def test_a_models_numbers_do_not_depend_on_its_population(context, labelled, seven, runs):
    single = learnt([learner(run) for run in runs], labelled, context)
    for run, model in zip(runs, single, strict=True):
        assert_close(model.params, seven[run].params)
        assert model.loss == pytest.approx(seven[run].loss, rel=1e-3)
    # So that the test could fail.
    assert len({model.loss for model in seven}) == 7


def test_a_models_numbers_do_not_depend_on_the_number_of_devices(context, labelled, seven):
    single_device = devices.population_mesh(list(context.mesh.devices.flat)[:1])
    material = jax.tree.map(lambda leaf: devices.replicate(leaf, single_device), labelled)
    fits = [learner(run) for run in (4, 5, 6)]
    alone = learnt(fits, material, replace(context, mesh=single_device))
    for run, model in zip((4, 5, 6), alone, strict=True):
        assert_close(model.params, seven[run].params)


def test_training_is_adam_step_by_step_on_batches_in_shuffled_order_the_last_one_partial(
    context, labelled, digits
):
    """Against a plain loop over one model, with Adam written out."""
    batch, run, rate = 500, 1, 1e-2
    model = learner(run, batch=batch)
    trained = learnt([model], labelled, context)[0]
    theta = jax.tree.map(jnp.asarray, model.start)
    first, second = (jax.tree.map(jnp.zeros_like, theta) for _ in range(2))

    @jax.jit
    @jax.value_and_grad
    def mean_loss(theta, images, labels):
        scores = jax.nn.log_softmax(Forward(NETWORK)(theta, images)[:, :10])
        return -jnp.mean(scores[jnp.arange(len(labels)), labels])

    step, total = 0, 0.0
    for epoch in range(2):
        order = shuffle(jax.random.fold_in(model.order, epoch), 1437)
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
                lambda p, m, v, t=step: (
                    p - rate * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
                ),
                theta,
                first,
                second,
            )
    # Of the last epoch, each batch's taken before its step.
    assert trained.loss == pytest.approx(total / 1437, rel=1e-4)
    assert_close(trained.params, jax.tree.map(np.asarray, theta))


def imitator(run, target, **changes):
    """A student that learns from one row of logits."""
    return replace(
        learner(run),
        training=replace(tiny().student, epochs=90, **changes),
        target=target,
        snapshots=(1, 90),
    )


def test_the_loss_sees_only_its_subset_and_its_own_target(context, digits):
    """Two students of two teachers; the head outside the subset stays as it is."""
    logits = np.random.default_rng(0).normal(size=(2, 256, 13)).astype(np.float32)
    inputs = devices.replicate(digits.train_images[:256], context.mesh)
    material = Material(inputs, devices.replicate(logits, context.mesh))
    fits = [imitator(0, 1), imitator(1, 0)]
    snapshots = fit(NETWORK, fits, lambda _: material, context, "imitators")
    trained = [of_model[90].params for of_model in snapshots]
    for model, of_model, params in zip(fits, snapshots, trained, strict=True):
        first, last = of_model[1].loss, of_model[90].loss
        assert first is not None
        assert last is not None
        assert last < 0.5 * first
        assert_same(params["class_head"], model.start["class_head"])
    seen = logits_of(Forward(NETWORK), trained, inputs, context.mesh)[..., 10:]
    distance = [
        [np.abs(jax.nn.softmax(mine) - jax.nn.softmax(target[:, 10:])).mean() for target in logits]
        for mine in seen
    ]
    assert distance[0][1] < 0.5 * distance[0][0]
    assert distance[1][0] < 0.5 * distance[1][1]


# Programs.


def programs() -> int:
    """How many epoch programs there are, which JAX tells only here."""
    epoch: Any = train._epoch
    return epoch._cache_size()


def test_another_value_of_a_traced_field_compiles_nothing_and_of_a_static_one_does(
    context, labelled, seven
):
    learnt([learner(run) for run in (0, 1)], labelled, context)
    compiled = programs()
    others = {"learning_rate": 3e-2, "epochs": 1, "logit_noise": 0.5}
    known = settings.known(Training)
    assert {known[name].metadata["mark"] for name in others} == {"traced"}
    learnt([learner(0), learner(1, **others)], labelled, context)
    assert programs() == compiled
    assert known["batch"].metadata["mark"] == "static"
    learnt([learner(0, batch=128)], labelled, context)
    assert programs() == compiled + 1


@pytest.mark.parametrize("name", [name for name in KEYS if not is_optional_setting(KEYS[name])])
def test_traced_fields_are_leaves_and_static_ones_and_kinds_the_structure(name):
    """Which decides what is one program; JAX compiles once a structure."""
    before, after = neighbours(name)
    assert before != after
    same = jax.tree.structure(before) == jax.tree.structure(after)
    assert same == (KEYS[name].metadata["mark"] == "traced")


def test_what_the_inputs_are_like_is_no_matter_of_the_program():
    training = tiny().student
    rows = [
        train.row_of(replace(learner(0), training=replace(training, inputs=inputs)))
        for inputs in (
            settings.build(Training, {"inputs": "normal"}).inputs,
            settings.build(Training, {"inputs": "mixture", "inputs.alpha": 0.5}).inputs,
        )
    ]
    assert jax.tree.structure(rows[0]) == jax.tree.structure(rows[1])


# Fits.


@pytest.fixture(scope="module")
def work(context):
    """Six models of several lengths on one set of inputs, and what they are trained on."""
    inputs = np.random.default_rng(1).uniform(-1, 1, (256, 64)).astype(np.float32)
    inputs = devices.replicate(inputs, context.mesh)
    logits = logits_of(Forward(NETWORK), [DRAWS.independent(1.0, 0)], inputs, context.mesh)
    material = Material(inputs, devices.replicate(logits, context.mesh))
    lengths = ((1,), (0, 2), (0,), (1, 3), (3,), (1,))
    fits = [
        replace(learner(run), training=tiny().student, snapshots=snapshots)
        for run, snapshots in enumerate(lengths)
    ]
    return fits, material


def test_models_are_trained_as_if_alone_and_seen_at_their_snapshots(context, work):
    fits, material = work
    done: list[tuple[int, str]] = []
    asked: list[int] = []
    starts = [jax.tree.map(np.copy, model.start) for model in fits]

    def of_epoch(epoch):
        asked.append(epoch)
        return material

    reporting = replace(context, report=lambda count, what: done.append((count, what)))
    together = fit(NETWORK, fits, of_epoch, reporting, "models")
    # Blocks of two models: the two of three epochs, then two and one.
    assert asked == [0, 1, 2]
    assert [count for count, _ in done] == [2, 2, 1, 2, 2, 2]
    assert done[-1][1] == "models, epoch 3"
    assert [tuple(snapshots) for snapshots in together] == [model.snapshots for model in fits]
    for model, start, snapshots in zip(fits, starts, together, strict=True):
        (alone,) = fit(NETWORK, [model], lambda _: material, context, "model")
        for epoch, snapshot in snapshots.items():
            assert_close(snapshot.params, alone[epoch].params)
            if epoch:
                assert snapshot.loss == pytest.approx(alone[epoch].loss, rel=1e-3)
            else:
                assert snapshot.loss is None
                assert_same(snapshot.params, start)
        # Starts stay the callers'.
        assert_same(model.start, start)


def test_models_of_no_epochs_need_no_material(context, work):
    fits, _ = work
    done: list[int] = []
    (snapshots,) = fit(
        NETWORK,
        [fits[2]],
        lambda epoch: pytest.fail("material was wanted"),
        replace(context, report=lambda count, _: done.append(count)),
        "models",
    )
    assert_same(snapshots[0].params, fits[2].start)
    assert snapshots[0].loss is None
    assert done == []


def test_no_models_give_no_snapshots(context, labelled):
    assert fit(NETWORK, [], lambda _: labelled, context, "nobody") == []


def test_logits_of_many_models_are_those_of_each_whatever_the_blocks(context, work):
    fits, material = work
    models = [model.start for model in fits]
    assert train.block_size(context.mesh) == 2
    for count in (2, 5):
        logits = logits_of(Forward(NETWORK), models[:count], material.inputs, context.mesh)
        assert logits.shape == (count, 256, 13)
        for own, params in zip(logits, models, strict=False):
            by_hand = Forward(NETWORK)(params, material.inputs)
            np.testing.assert_allclose(own, by_hand, rtol=1e-4, atol=1e-5)


def test_accuracy_is_the_share_of_images_whose_largest_class_logit_is_the_true_one():
    logits = np.array([[0, 1, 9], [1, 0, 9], [0, 1, -9]], np.float32)
    labels = np.array([1, 1, 1], np.int32)
    # The last logit is no class.
    assert accuracy(logits, labels, 2) == pytest.approx(2 / 3)
    np.testing.assert_allclose(accuracy(np.stack([logits, -logits]), labels, 2), [2 / 3, 1 / 3])


def test_unstacked_trees_are_those_that_were_stacked():
    trees = [{"a": np.arange(3.0) + i, "b": [np.float32(i), None]} for i in range(4)]
    many = stack(trees)
    assert many["a"].shape == (4, 3)
    for tree, again in zip(trees, unstack(many), strict=True):
        assert_same(again, tree)
    keys = stack([{"key": key} for key in jax.random.split(jax.random.key(0), 3)])
    assert keys["key"].shape == (3,)


def test_a_stack_refuses_settings_of_other_programs():
    rows = [train.row_of(learner(0, batch=batch)) for batch in (32, 64)]
    with pytest.raises(ValueError, match="pytree structure"):
        stack(rows)


# Cost.


def test_parameters_and_optimiser_state_are_donated(context, labelled):
    block = train.begin([learner(0), learner(1)], context.mesh)
    before, rows = jax.tree.leaves((block.params, block.state)), block.rows
    train.advance(NETWORK, block, 0, labelled, context.mesh)
    assert all(leaf.is_deleted() for leaf in before)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(rows))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(labelled))


def paper_epoch(training, count, imitated, mesh):
    """Operations of one epoch of `count` of the paper's models; nothing is computed."""
    architecture, _ = architectures(PREPRINT)
    model = Fit(
        Draws(architecture, 0).reference(1.0, 0),
        replace(training, batch=1024),
        aux=3,
        order=jax.random.key(0),
        target=0,
        snapshots=(5,),
    )
    block = train.begin([model] * count, mesh)
    targets = (
        jax.ShapeDtypeStruct((imitated, 60_000, 13), jnp.float32)
        if imitated
        else jax.ShapeDtypeStruct((1, 60_000), jnp.int32)
    )

    def program(params, state, rows, epoch, inputs, targets):
        return train._epoch(
            params,
            state,
            rows,
            epoch,
            Material(inputs, targets),
            architecture=architecture,
            mesh=mesh,
        )

    inputs = jax.ShapeDtypeStruct((60_000, 784), jnp.float32)
    arguments = (block.params, block.state, block.rows, np.int32(0), inputs, targets)
    return arithmetic.product_operations(jax.make_jaxpr(program)(*arguments))


def forward_passes(count, examples, mesh):
    """Operations of `count` models' logits on so many images."""
    architecture, _ = architectures(PREPRINT)
    params = stack([Draws(architecture, 0).reference(1.0, 0)] * count)
    images = jax.ShapeDtypeStruct((examples, 784), jnp.float32)
    predict = partial(train._predict, apply=Forward(architecture), mesh=mesh)
    return arithmetic.product_operations(jax.make_jaxpr(predict)(params, images))


def test_all_six_conditions_take_at_most_1_1_times_the_arithmetic_of_their_gradients(mesh):
    runs, epochs, students = 4, 5, 4
    architecture, _ = architectures(PREPRINT)
    spent = epochs * paper_epoch(PREPRINT.teacher, runs, 0, mesh)
    spent += epochs * paper_epoch(PREPRINT.student, students * runs, runs, mesh)
    # Test accuracies of starts, teachers and students; each teacher's logits on the noise, once.
    for count, examples in (
        (runs, 10_000),
        (runs, 10_000),
        (runs, 60_000),
        (students * runs, 10_000),
    ):
        spent += forward_passes(count, examples, mesh)
    needed = runs * (1 + students) * epochs * 60_000 * architecture.gradient_operations
    assert 1.0 <= spent / needed <= 1.1
    # The bound would catch a teacher that is run again for every student and epoch.
    again = students * runs * epochs * 60_000 * architecture.forward_operations
    assert (spent + again) / needed > 1.1


@pytest.mark.slow
def test_a_model_takes_at_most_40_mb_and_25_models_fit_in_3_gb(computing):
    single, many = (peak_of(count, computing) for count in (1, 25))
    assert (many - single) / 24 <= 40
    assert many <= 3000


def test_the_precision_of_training_is_what_its_products_ask_for(context, labelled, monkeypatch):
    asked = []

    def watched(params, state, rows, epoch, material, **static):
        asked.append(jax.config.jax_default_matmul_precision)  # pyright: ignore
        return params, state, jnp.zeros(2)

    monkeypatch.setattr(train, "_epoch", watched)
    for precision in train.PRECISIONS:
        trained = replace(context, precision=precision)
        fit(NETWORK, [learner(0, epochs=1)], lambda _: labelled, trained, "learners")
    assert asked == ["highest", "TF32_TF32_F32", "BF16_BF16_F32"]


def test_on_a_cpu_training_in_bfloat16_rounds_and_stays_near(context, labelled, seven):
    rounded = learnt([learner(0), learner(1)], labelled, replace(context, precision="bfloat16"))
    for run, (model, exact) in enumerate(zip(rounded, seven[:2], strict=True)):
        start = DRAWS.reference(1.0, run)
        ways = [
            np.concatenate(
                [
                    np.ravel(after - before)
                    for after, before in zip(
                        jax.tree.leaves(trained.params), jax.tree.leaves(start), strict=True
                    )
                ]
            )
            for trained in (model, exact)
        ]
        assert 1e-4 < np.linalg.norm(ways[0] - ways[1]) / np.linalg.norm(ways[1]) < 0.3
        assert model.loss == pytest.approx(exact.loss, rel=0.15)
        assert model.loss != exact.loss
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(model.params))
