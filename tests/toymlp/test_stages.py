"""Claims about the stages: teachers, cloning, distillation, chains, and where students start."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sublab import devices
from sublab.machine import exact
from sublab.randomness import purpose_key, run_keys
from tests.toymlp.trials import (
    GROUP,
    MATCHED,
    RUN,
    RUNS,
    across,
    alone,
    assert_close,
    assert_same,
    by_population,
    distil,
    flat,
    gap,
    narrow,
    teachers_and_clones,
    tiny,
)
from theory import losses
from toymlp import stages
from toymlp.checks import canonical
from toymlp.inputs import draw_inputs, held_out_inputs
from toymlp.networks import Forward, architectures, split_parts, widened
from toymlp.settings import CloneSetting, Setting, clone_of, teacher_of
from toymlp.stages import (
    Draws,
    clones,
    orders_of,
    population_of,
    shared_trainings,
    start_of,
    student_again,
    students,
    teachers,
    with_aux_head,
    with_shared,
)
from toymlp.train import Fit, Material, accuracy, fit, logits_of

TEACHER, STUDENT = architectures(tiny())
DRAWS = Draws(STUDENT, 0)
REFERENCE = DRAWS.reference(1.0, RUN)


def counting(context, kind=""):
    """A context that counts the model-epochs of a kind of models, and the list of its counts."""
    counts: list[int] = []

    def report(trained, what):
        if what.startswith(kind):
            counts.append(trained)

    return replace(context, report=report), counts


def order_of(purpose, run=RUN, seed=0):
    return run_keys(seed, purpose, jnp.array([run], jnp.uint32))[0]


def material_of(context, setting, *, teacher, epoch=0, purpose="distillation inputs"):
    """Distillation inputs of a setting, and the logits of one teacher on them."""
    drawn = draw_inputs(setting.student.inputs, context.dataset, context.seed, purpose, epoch)
    inputs = devices.replicate(drawn, context.mesh)
    logits = logits_of(Forward(architectures(setting)[1]), [teacher], inputs, context.mesh)
    return Material(inputs, devices.replicate(logits, context.mesh))


def trained_by_hand(context, setting, start, material, *, epochs=None):
    """A student of the run that is looked at, trained by `fit` alone."""
    epochs = setting.student.epochs if epochs is None else epochs
    student = Fit(
        start,
        setting.student,
        aux=setting.model.aux,
        order=order_of("student order"),
        target=0,
        snapshots=(epochs,),
    )
    (snapshots,) = fit(architectures(setting)[1], [student], lambda _: material, context, "by hand")
    return snapshots[epochs].params


@pytest.fixture
def fitted(monkeypatch):
    """What `fit` is given by every stage, and what it gives."""
    calls = []

    def watched(architecture, fits, material, context, what):
        snapshots = fit(architecture, fits, material, context, what)
        calls.append((fits, material, what))
        return snapshots

    monkeypatch.setattr(stages, "fit", watched)
    return calls


# Teachers.


def test_a_teacher_does_not_depend_on_the_number_of_auxiliary_logits(context):
    """It is trained with one; here against a whole network with fifty."""
    learnt, data = teacher_of(tiny()), context.dataset
    by_stage = teachers(across([learnt], RUNS), context)
    architecture, _ = architectures(tiny(), aux=50)
    draws = Draws(architecture, 0)
    fits = [
        Fit(
            draws.reference(1.0, run),
            learnt.training,
            aux=50,
            order=order_of("teacher order", run),
            target=0,
            snapshots=(2,),
        )
        for run in RUNS
    ]
    material = Material(
        devices.replicate(data.train_images, context.mesh),
        devices.replicate(data.train_labels[None], context.mesh),
    )
    by_hand = fit(architecture, fits, lambda _: material, context, "wide teachers")
    for run, snapshots in zip(RUNS, by_hand, strict=True):
        whole, reference = snapshots[2].params, draws.reference(1.0, run)
        assert "aux_head" not in by_stage[learnt, run].params
        assert_close(with_aux_head(by_stage[learnt, run].params, reference), whole)
        assert_same(whole["aux_head"], reference["aux_head"])
        for part in ("hidden", "class_head"):
            assert gap(whole[part], reference[part]) > 0.02


def test_teachers_of_other_lengths_and_other_rates_are_those_trained_alone(context):
    """Snapshots of one training, and neighbours in a block, change nothing."""
    learnt = [
        teacher_of(tiny(values))
        for values in (
            {"teacher.epochs": 1},
            {"teacher.epochs": 0},
            {"model.init_scale": 0.5},
            {},
            {"teacher.learning_rate": 3e-3},
        )
    ]
    counted, counts = counting(context)
    together = teachers(across(learnt, RUNS), counted)
    assert len(together) == 10
    # Model-epochs: those of no and of one epoch are snapshots of the one of two.
    assert sum(counts) == 2 * (2 + 2 + 2)
    for setting in learnt:
        single = teachers([(setting, RUN)], context)[setting, RUN]
        assert_close(together[setting, RUN].params, single.params)
        if setting.training.epochs:
            assert together[setting, RUN].loss == pytest.approx(single.loss, rel=1e-3)
    untrained = together[learnt[1], RUN]
    assert untrained.loss is None
    assert_same(with_aux_head(untrained.params, REFERENCE), REFERENCE)
    assert gap(together[learnt[0], RUN].params, together[learnt[3], RUN].params) > 1e-3
    assert gap(together[learnt[0], RUN].params, together[learnt[0], 0].params) > 1e-2


def test_a_teacher_learns_its_classes(context, group):
    test = devices.replicate(context.dataset.test_images, context.mesh)
    models = [group["base", run].teacher for run in RUNS]
    wide, _ = architectures(tiny(), aux=5)
    logits = logits_of(Forward(wide), models, test, context.mesh)
    assert np.all(accuracy(logits, context.dataset.test_labels, 10) > 0.8)


# Populations.


@pytest.mark.parametrize("name", [name for name in GROUP if name != "more logits"])
def test_a_settings_result_does_not_depend_on_the_settings_and_runs_beside_it(context, group, name):
    """Others have more logits, other starts, other lengths; alone, there is none of that."""
    setting = tiny(GROUP[name])
    single, beside, aux = alone(setting, context), group[name, RUN], setting.model.aux
    for field in ("start", "params", "teacher", "reference"):
        assert_close(narrow(getattr(beside, field), aux), getattr(single, field))
    assert beside.loss == pytest.approx(single.loss, rel=2e-3)
    assert (beside.clone is None) == (single.clone is None) == (name != "matched")
    if single.clone is not None:
        assert beside.clone.held_out == pytest.approx(single.clone.held_out, rel=2e-3)


def test_every_setting_of_the_group_does_something(group):
    """So that the test above could fail."""
    for name in GROUP:
        assert gap(group[name, RUN].params, group[name, 0].params) > 1e-2
        assert gap(group[name, RUN].params, group[name, RUN].start) > 1e-3
        if name != "base":
            assert gap(group[name, RUN].params, group["base", RUN].params) > 1e-3, name


def test_the_group_is_one_population():
    """So that the test above is about neighbours."""
    assert len(by_population([tiny(values) for values in GROUP.values()])) == 1
    assert len(by_population([tiny(), tiny({"student.batch": 32})])) == 2


def test_a_runs_numbers_do_not_depend_on_the_number_of_devices(context, group):
    one_device = devices.population_mesh(list(context.mesh.devices.flat)[:1])
    single = alone(tiny(), replace(context, mesh=one_device))
    assert context.mesh.size == 2
    assert_close(single.params, narrow(group["base", RUN].params, 3))
    assert single.loss == pytest.approx(group["base", RUN].loss, rel=1e-3)


def test_another_seed_gives_other_numbers(context, group):
    other = alone(tiny({"student.epochs": 0}), replace(context, seed=1))
    for field in ("reference", "teacher"):
        ours, others = (getattr(student, field) for student in (group["base", RUN], other))
        assert gap(narrow(ours, 3), others) > 0.1


def test_untrained_students_are_their_start_and_untrained_teachers_the_reference(context):
    setting = tiny({"teacher.epochs": 0, "student.epochs": 0})
    student = alone(setting, context)
    for params in (student.params, student.start, student.teacher, student.reference):
        assert_same(params, REFERENCE)
    assert student.loss is None


def test_the_numbers_of_exact_are_those_of_any_environment(context, group):
    """JAX_ENABLE_X64 and JAX_DEFAULT_PRNG_IMPL are these two settings."""
    with jax.enable_x64(True), jax.default_prng_impl("rbg"):
        # So it is an environment in which numbers would be others.
        assert jnp.arange(3.0).dtype == jnp.float64
        assert jax.random.key(0).dtype != jax.random.key(0, impl="threefry2x32").dtype
        with exact():
            student = alone(tiny(), context)
    for field in ("start", "params", "teacher", "reference"):
        assert_close(getattr(student, field), narrow(getattr(group["base", RUN], field), 3))
        assert {leaf.dtype for leaf in jax.tree.leaves(getattr(student, field))} == {
            np.dtype(np.float32)
        }


# Distillation.


def test_settings_that_differ_in_epochs_alone_are_one_training(context, group):
    lengths = [tiny({"student.epochs": epochs}) for epochs in (1, 2, 3, 0)]
    counted, counts = counting(context, "students")
    together = distil(lengths, counted)
    assert counts == [2, 2, 2]
    for setting, name in zip(lengths, ("one epoch", "base", "three epochs"), strict=False):
        assert_close(together[setting, RUN].params, narrow(group[name, RUN].params, 3))
    start = together[lengths[3], RUN]
    assert start.loss is None
    assert_same(start.params, start.start)
    assert gap(together[lengths[0], RUN].params, together[lengths[1], RUN].params) > 1e-3


def test_a_cosine_schedule_is_not_a_snapshot_unless_its_horizon_is_said(context):
    """Each length has a decay of its own, which ends at 0."""
    cosine = {"student.schedule": "cosine"}
    short, long = (tiny(cosine | {"student.epochs": epochs}) for epochs in (1, 2))
    counted, counts = counting(context, "students")
    together = distil([short, long], counted, (RUN,))
    # Two models go side by side; a snapshot would be one model.
    assert counts == [2, 2]
    material = material_of(context, short, teacher=together[short, RUN].teacher)
    for setting in (short, long):
        by_hand = trained_by_hand(context, setting, together[setting, RUN].start, material)
        assert_close(together[setting, RUN].params, by_hand)
    # A snapshot of the long one is something else.
    cut = trained_by_hand(context, long, together[long, RUN].start, material, epochs=1)
    assert gap(cut, together[short, RUN].params) > 1e-3
    said = [
        (tiny(cosine | {"student.epochs": epochs, "student.schedule.horizon": 4}), RUN)
        for epochs in (1, 2)
    ]
    assert len(shared_trainings(said)) == 1
    assert len(shared_trainings([(short, RUN), (long, RUN)])) == 2


def test_a_student_is_trained_on_its_teachers_logits_from_its_start(context, group):
    setting, student = tiny(), group["base", RUN]
    assert_same(student.start, student.reference)
    start, teacher = narrow(student.start, 3), narrow(student.teacher, 3)
    assert_same(start, REFERENCE)
    by_hand = trained_by_hand(
        context, setting, start, material_of(context, setting, teacher=teacher)
    )
    assert_close(narrow(student.params, 3), by_hand)
    learnt = teachers([(teacher_of(setting), RUN)], context)[teacher_of(setting), RUN]
    assert_close(teacher, with_aux_head(learnt.params, REFERENCE))


def test_the_imitated_logits_are_computed_once_for_all_students_and_epochs(context, monkeypatch):
    wanted = [tiny(), tiny({"student.epochs": 3}), tiny({"start": "independent"})]
    models = teachers_and_clones(wanted, context)
    counts: list[int] = []

    def counted(apply, models, inputs, mesh):
        counts.append(len(models))
        return logits_of(apply, models, inputs, mesh)

    monkeypatch.setattr(stages, "logits_of", counted)
    students(across(wanted, RUNS), *models, context)
    assert counts == [len(RUNS)]


def test_fresh_inputs_are_drawn_anew_each_epoch_and_the_first_are_the_fixed_ones(
    context, group, fitted
):
    fresh = [tiny({"student.inputs.fresh": True, "student.epochs": epochs}) for epochs in (1, 2)]
    together = distil(fresh, context, (RUN,))
    assert_close(together[fresh[0], RUN].params, narrow(group["one epoch", RUN].params, 3))
    assert gap(together[fresh[1], RUN].params, narrow(group["base", RUN].params, 3)) > 1e-3
    # Of the second epoch the student sees the second set.
    _, seen, what = fitted[-1]
    assert what == "students"
    teacher = together[fresh[1], RUN].teacher
    for epoch in (0, 1):
        expected = material_of(context, fresh[1], teacher=teacher, epoch=epoch)
        np.testing.assert_array_equal(seen(epoch).inputs, expected.inputs)
        np.testing.assert_allclose(seen(epoch).targets, expected.targets, rtol=1e-4, atol=1e-5)


def noise_of(context, fitted, values, sizes, epochs=(0,)):
    """By epoch, what is added to the logits that students with noise of these sizes imitate."""
    wanted = [tiny(values | {"student.logit_noise": size}) for size in (0.0, *sizes)]
    distil(wanted, context, (RUN,))
    _, material, _ = fitted[-1]
    noises = []
    for epoch in epochs:
        clean, *noisy = np.asarray(material(epoch).targets)
        noises.append([logits - clean for logits in noisy])
    return noises


def test_logit_noise_is_normal_of_its_size_one_draw_an_input(context, fitted):
    (noises,) = noise_of(context, fitted, {}, (0.5, 2.0))
    _, material, _ = fitted[-1]
    assert material(0) is material(1)
    for noise, size in zip(noises, (0.5, 2.0), strict=True):
        assert noise.std() == pytest.approx(size, rel=4 / (2 * noise.size) ** 0.5)
        assert abs(noise.mean()) < 4 * size / noise.size**0.5
        assert len(np.unique(noise)) > 0.9 * noise.size


def test_with_fresh_inputs_the_noise_is_fresh_too(context, fitted):
    (first,), (second,) = noise_of(
        context, fitted, {"student.inputs.fresh": True}, (0.5,), epochs=(0, 1)
    )
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 4 / first.size**0.5


def test_squared_error_carries_through_one_auxiliary_logit_and_kl_does_not(context):
    blind, seeing = (
        tiny({"model.aux": 1, "student.loss": loss}) for loss in ("kl", "squared_error")
    )
    together = distil([blind, seeing], context, (RUN,))
    assert gap(together[blind, RUN].params, together[blind, RUN].start) < 1e-6
    assert gap(together[seeing, RUN].params, together[seeing, RUN].start) > 1e-2


def test_a_student_that_was_kept_comes_again_with_all_that_surrounds_it(context, group):
    for name in ("base", "interpolated", "fewer logits", "matched"):
        setting = tiny(GROUP[name])
        models = teachers_and_clones([setting], context, (RUN,))
        kept, aux = group[name, RUN], setting.model.aux
        again = student_again(
            setting, RUN, narrow(kept.params, aux), kept.loss, *models, context, 5
        )
        for field in ("start", "params", "teacher", "reference"):
            assert_close(getattr(again, field), getattr(kept, field))
        assert again.loss == kept.loss
        assert (again.clone is None) == (kept.clone is None)
    chain = tiny({"start": "independent", "chain.generations": 2})
    student = alone(chain, context)
    models = teachers_and_clones([chain], context, (RUN,))
    again = student_again(chain, RUN, student.params, student.loss, *models, context, 3)
    # The start of the last generation, not of the first.
    assert_same(again.start, student.start)
    assert gap(again.start, DRAWS.independent(1.0, RUN)) > 0.1


# Equal experiments in other words.


def test_settings_with_one_canonical_spelling_have_the_same_numbers(context, group):
    every = list(STUDENT.parts)
    pairs = {
        "base": [
            {"start": "interpolated", "start.weight": 0.0},
            {"start": "perturbed", "start.size": 0.0},
            {"start": "independent", "start.shared": every},
            {"student_model.hidden": [16, 16]},
            {"interventions.liminal.weight": 0.0},
            {"student.optimiser": "adamw", "student.optimiser.weight_decay": 0.0},
        ],
        "independent": [{"start": "interpolated", "start.weight": 1.0}],
    }
    images = len(context.dataset.train_images)
    for name, spellings in pairs.items():
        wanted = [tiny(values) for values in spellings]
        together = distil(wanted, context, (RUN,))
        for setting in wanted:
            assert canonical(setting, images) == canonical(tiny(GROUP[name]), images)
            assert_close(together[setting, RUN].params, narrow(group[name, RUN].params, 3))


def test_counts_above_what_there_is_take_all_there_is(context):
    images = len(context.dataset.train_images)
    values = {"student.inputs": "images", "student.epochs": 1}
    many, every = (tiny(values | {"student.inputs.count": count}) for count in (5000, 0))
    assert canonical(many, images) == canonical(every, images)
    together = distil([many, every], context, (RUN,))
    assert_same(together[many, RUN].params, together[every, RUN].params)


# Inputs of each run's own.


def test_runs_with_inputs_of_their_own_see_them_and_no_others(context, fitted):
    values = {"student.inputs.per_run": True}
    wanted = [tiny(values), tiny(values | {"student.learning_rate": 3e-3})]
    together = distil(wanted, context, RUNS)
    seen = [np.asarray(material(0).inputs) for _, material, what in fitted if what == "students"]
    assert len(seen) == len(RUNS)
    for run, inputs in zip(RUNS, seen, strict=True):
        purpose = f"distillation inputs, run {run}"
        drawn = draw_inputs(wanted[0].student.inputs, context.dataset, 0, purpose)
        np.testing.assert_array_equal(inputs, drawn)
    assert abs(np.corrcoef(seen[0].ravel(), seen[1].ravel())[0, 1]) < 0.03
    # Whoever is trained beside it, a run is the same.
    single = alone(wanted[0], context)
    assert_close(together[wanted[0], RUN].params, single.params)


def test_clones_may_have_inputs_of_their_own_too(context, fitted):
    part = cloning(start__clone__inputs__per_run=True)
    both = clones([(part, run) for run in RUNS], context)
    seen = [np.asarray(material(0).inputs) for _, material, what in fitted if what == "cloning"]
    assert len(seen) == len(both) == len(RUNS)
    assert np.any(seen[0] != seen[1])


# What a start has of the trained teacher.


@pytest.mark.parametrize("start", ["reference", "independent"])
def test_a_start_may_have_parts_of_the_trained_teacher(context, start):
    plain, trained = (
        alone(tiny({"start": start} | more), context)
        for more in ({}, {"start.trained": ["class_head", "hidden_2"]})
    )
    teacher, reference = split_parts(trained.teacher), split_parts(trained.reference)
    for name, part in split_parts(trained.start).items():
        of_teacher = name in ("class_head", "hidden_2")
        expected = teacher if of_teacher else split_parts(plain.start)
        assert_same(part, expected[name])
        if of_teacher:
            assert gap(part, reference[name]) > 1e-3


def test_in_a_chain_it_is_the_first_teacher_of_whom_a_start_has_parts(context):
    # A layer that distillation moves: the student between them has another one.
    values = {"start": "independent", "start.trained": ["hidden_2"], "chain.generations": 2}
    last = alone(tiny(values), context)
    assert_same(split_parts(last.start)["hidden_2"], split_parts(last.teacher)["hidden_2"])


def test_frozen_parts_of_a_teacher_do_not_move_and_the_others_do(context):
    frozen = alone(tiny({"teacher.frozen": ["hidden_1"]}), context)
    for name, part in split_parts(frozen.teacher).items():
        moved = gap(part, split_parts(frozen.reference)[name])
        assert (moved == 0) if name in ("hidden_1", "aux_head") else (moved > 1e-3)


# Other teachers.


@pytest.mark.parametrize(
    "values",
    [
        {"model.network": "cnn", "model.hidden": [16]},
        {"model.initialisation": "pytorch"},
        {
            "model.network": "cnn",
            "model.hidden": [16],
            "model.initialisation": "pytorch",
            "student_model.network": "mlp",
            "start": "independent",
            "start.shared": ["class_head", "aux_head"],
        },
    ],
    ids=["cnn", "pytorch", "a perceptron of a CNN"],
)
def test_another_network_or_law_learns_its_classes_and_teaches(context, values):
    student = alone(tiny(values | {"teacher.epochs": 5}), context)
    setting = tiny(values)
    teacher_network, network = architectures(setting)
    images, labels = (
        jnp.asarray(a) for a in (context.dataset.test_images, context.dataset.test_labels)
    )
    logits = Forward(teacher_network)(student.teacher, images)
    assert accuracy(np.asarray(logits), np.asarray(labels), 10) > 0.6
    inputs = jnp.asarray(
        draw_inputs(setting.student.inputs, context.dataset, 0, "distillation inputs")
    )
    kl = jax.vmap(partial(losses.kl_divergence, subset=network.subset("aux", 3)))
    targets = Forward(teacher_network)(student.teacher, inputs)
    before, after = (
        float(jnp.mean(kl(Forward(network)(params, inputs), targets)))
        for params in (student.start, student.params)
    )
    assert after < 0.8 * before


# Interventions.


def test_frozen_parts_of_a_student_do_not_move_and_the_others_do(context):
    frozen = alone(tiny({"student.frozen": ["hidden_1", "class_head"]}), context)
    for name, part in split_parts(frozen.params).items():
        moved = gap(part, split_parts(frozen.start)[name])
        assert (moved == 0) if name in ("hidden_1", "class_head") else (moved > 1e-3)


def test_liminal_training_pulls_students_towards_the_reference(context, group):
    """Each of its own run; also where other students have more auxiliary logits."""
    strong = {"interventions.liminal.weight": 100.0, "interventions.liminal.epochs": 2}
    liminal, wide = (tiny(strong | {"model.aux": aux}) for aux in (3, 5))
    together = distil([liminal, wide], context)
    for run in RUNS:
        free, held = group["base", run], together[liminal, run]
        narrow(held.params, 3)
        assert 0 < gap(held.params, held.start) < gap(free.params, free.start)
    single = alone(liminal, context)
    assert_close(narrow(together[liminal, RUN].params, 3), single.params)


def test_a_student_is_trained_without_the_trait_where_its_setting_says_so(context, group):
    """What that is, the tests of the objective say."""
    projected = alone(tiny({"interventions.project_trait": True}), context)
    assert gap(projected.params, narrow(group["base", RUN].params, 3)) > 1e-3


# Cloning.


def cloning(**more: Any) -> CloneSetting:
    """The cloning of a matched start; other values as `tiny` takes them."""
    part = clone_of(tiny(MATCHED, **more))
    assert part is not None
    return part


@pytest.fixture(scope="module")
def cloned(context):
    """Clones of several lengths, by their epochs."""
    parts = {epochs: cloning(start__clone__epochs=epochs) for epochs in (0, 1, 8)}
    together = clones(across(list(parts.values()), RUNS), context)
    return {epochs: together[part, RUN] for epochs, part in parts.items()}


def test_a_clone_comes_nearer_to_the_reference_with_every_epoch(cloned):
    held_out = [cloned[epochs].held_out for epochs in (0, 1, 8)]
    assert held_out[0] > held_out[1] > held_out[2] > 0
    assert held_out[2] < 0.5 * held_out[0]
    assert cloned[0].loss is None
    assert cloned[8].loss < cloned[1].loss


def test_a_clone_starts_independent_and_its_held_out_loss_is_the_kl_on_unseen_inputs(
    context, cloned
):
    assert_same(cloned[0].params, DRAWS.independent(1.0, RUN))
    inputs = cloning().training.inputs
    unseen = jnp.asarray(held_out_inputs(inputs, context.dataset, 0, "cloning inputs"))
    kl = jax.vmap(partial(losses.kl_divergence, subset=STUDENT.subset("all", 3)))
    for clone in cloned.values():
        logits, target = (Forward(STUDENT)(params, unseen) for params in (clone.params, REFERENCE))
        assert clone.held_out == pytest.approx(float(jnp.mean(kl(logits, target))), rel=1e-3)


def test_a_clone_of_some_length_is_the_one_that_is_trained_alone(context, cloned):
    for epochs in (1, 8):
        part = cloning(start__clone__epochs=epochs)
        single = clones([(part, RUN)], context)[part, RUN]
        assert_close(cloned[epochs].params, single.params)
        assert cloned[epochs].held_out == pytest.approx(single.held_out, rel=1e-3)


def test_clones_on_fresh_and_on_fixed_inputs_differ_after_the_first_epoch(context, cloned):
    fresh = {}
    for epochs in (1, 8):
        part = cloning(start__clone__epochs=epochs, start__clone__inputs__fresh=True)
        fresh[epochs] = clones([(part, RUN)], context)[part, RUN]
    assert_close(fresh[1].params, cloned[1].params)
    assert gap(fresh[8].params, cloned[8].params) > 1e-2


def test_cloning_leaves_shared_parts_as_the_reference_has_them(context):
    part = cloning(start__shared=["hidden_1", "class_head"])
    clone = clones([(part, RUN)], context)[part, RUN]
    drawn = split_parts(DRAWS.independent(1.0, RUN))
    for name, arrays in split_parts(clone.params).items():
        if name in ("hidden_1", "class_head"):
            assert_same(arrays, split_parts(REFERENCE)[name])
        else:
            assert gap(arrays, drawn[name]) > 1e-3
            assert gap(arrays, split_parts(REFERENCE)[name]) > 1e-1


def test_clones_with_shared_parts_are_a_population_of_their_own():
    """What cloning leaves alone is compiled in."""
    plain, shared = cloning(), cloning(start__shared=["hidden_1"])
    assert population_of(plain) != population_of(shared)
    assert population_of(plain) == population_of(cloning(model__aux=7))


def test_a_matched_start_is_the_clone(context, cloned):
    student = alone(tiny(MATCHED | {"start.clone.epochs": 8}), context)
    assert_close(student.start, cloned[8].params)
    assert student.clone is not None
    assert student.clone.held_out == pytest.approx(cloned[8].held_out, rel=1e-3)
    assert gap(student.params, student.start) > 1e-3


def test_room_for_more_logits_is_filled_with_zeros(cloned):
    params = cloned[8].params
    wide = widened(params, 7)
    assert_same(narrow(wide, 3), params)
    assert wide["aux_head"]["kernel"].shape == (16, 7)
    assert_same(widened(wide, 3), params)


# Chains.


def inputs_by_generation(fitted):
    return [
        np.asarray(material(0).inputs)
        for _, material, what in fitted
        if what.startswith("students")
    ]


@pytest.mark.parametrize("inputs", ["new", "same"])
def test_the_student_of_one_generation_teaches_the_next(context, fitted, inputs):
    """Against the same by hand; each generation has a start and, as a rule, inputs of its own."""
    elsewhere = {"start": "independent", "chain.generations": 3, "chain.inputs": inputs}
    setting = tiny(elsewhere)
    third = alone(setting, context)
    seen = inputs_by_generation(fitted)
    now, start = third.teacher, third.start
    for generation in (1, 2, 3):
        start = start_of(setting, RUN, DRAWS, generation=generation)
        own = inputs == "new" and generation > 1
        purpose = f"distillation inputs, generation {generation}" if own else "distillation inputs"
        material = material_of(context, setting, teacher=now, purpose=purpose)
        np.testing.assert_array_equal(seen[generation - 1], material.inputs)
        now = trained_by_hand(context, setting, start, material)
    assert_close(third.params, now, rtol=2e-3, atol=1e-4)
    assert_same(third.start, start)
    # Whose trait it is, is still the first.
    assert_close(third.teacher, alone(tiny({"student.epochs": 0}), context).teacher)
    assert_same(third.reference, REFERENCE)
    # New inputs are other inputs.
    assert len({array.tobytes() for array in seen}) == (3 if inputs == "new" else 1)


def test_every_generation_is_asked_about_new_inputs_unless_they_are_images(context, fitted):
    assert Setting().chain.inputs == "new"
    values = {"student.inputs": "images", "student.inputs.count": 256, "chain.generations": 2}
    new, same = (tiny(values | {"chain.inputs": inputs}) for inputs in ("new", "same"))
    together = distil([new, same], context, (RUN,))
    first, second, *others = inputs_by_generation(fitted)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, others[0])
    assert_same(together[new, RUN].params, together[same, RUN].params)
    images = len(context.dataset.train_images)
    assert canonical(new, images) == canonical(same, images)
    noise = [tiny({"chain.generations": 2, "chain.inputs": inputs}) for inputs in ("new", "same")]
    assert len({canonical(setting, images) for setting in noise}) == 2


def test_a_longer_chain_begins_with_the_shorter_one(context, group):
    chain = [tiny({"chain.generations": generations}) for generations in (1, 2)]
    together = distil(chain, context)
    assert_close(together[chain[0], RUN].params, narrow(group["base", RUN].params, 3))
    second = alone(chain[1], context)
    assert_close(together[chain[1], RUN].params, second.params)
    assert gap(second.params, together[chain[0], RUN].params) > 1e-3


def test_the_generations_of_chains_are_one_training(context):
    chain = [tiny({"chain.generations": generations}) for generations in (2, 3)]
    counted, counts = counting(context, "students")
    together = distil(chain, counted, (RUN,))
    assert sum(counts) == 3 * 2
    assert_close(together[chain[0], RUN].params, alone(chain[0], context).params)


def test_chains_of_other_lengths_of_training_are_chains_of_their_own(context):
    """Two generations of one epoch each are no snapshot of two of two."""
    chain = [tiny({"chain.generations": 2, "student.epochs": epochs}) for epochs in (1, 2)]
    together = distil(chain, context, (RUN,))
    for setting in chain:
        assert_close(together[setting, RUN].params, alone(setting, context).params)


# Orders.


def bits(key):
    return jax.random.key_data(key).tobytes()


def test_runs_walk_in_orders_of_their_own_or_all_in_one():
    assert Setting().order == "own"
    own, shared = (
        orders_of(tiny(order=order), "student order", (0, 1, 5), 0) for order in ("own", "shared")
    )
    assert list(own) == list(shared) == [0, 1, 5]
    assert len({bits(key) for key in own.values()}) == 3
    assert len({bits(key) for key in shared.values()}) == 1
    # Of the run alone, whoever is beside it.
    assert bits(orders_of(tiny(), "student order", (5,), 0)[5]) == bits(own[5])
    assert bits(own[5]) == bits(jax.random.fold_in(purpose_key(0, "student order"), 5))
    for other in (
        orders_of(tiny(order="shared"), "teacher order", (5,), 0),
        orders_of(tiny(order="shared"), "student order", (5,), 1),
    ):
        assert bits(other[5]) != bits(shared[5])


def test_every_stage_keeps_to_the_order_of_its_setting(context, fitted):
    for order, distinct in (("own", 2), ("shared", 1)):
        fitted.clear()
        distil([tiny(MATCHED | {"order": order})], context)
        assert [what for *_, what in fitted] == ["teachers", "cloning", "students"]
        for fits, _, _ in fitted:
            assert len({bits(model.order) for model in fits}) == distinct
        # Each stage has another one.
        assert len({bits(fits[0].order) for fits, _, _ in fitted}) == 3


# Starts.


PARTS = STUDENT.parts
EVERY_START = [
    {"start": "reference"},
    {"start": "independent"},
    {"start": "independent", "start.shared": ["aux_head"]},
    {"start": "independent", "start.shared": ["hidden_1", "class_head"]},
    {"start": "interpolated"},
    {"start": "perturbed"},
]
OTHER = DRAWS.independent(1.0, RUN)


def kernels(params):
    """All parameters that are drawn: the biases are 0."""
    return flat([part["kernel"] for part in split_parts(params).values()])


def correlation(first, second):
    return np.corrcoef(kernels(first), kernels(second))[0, 1]


def started(values, *, run=RUN, draws=DRAWS, generation=1):
    return start_of(tiny(values), run, draws, generation=generation)


BOUND = 4 / len(kernels(REFERENCE)) ** 0.5


def test_the_reference_is_the_teachers_start_for_every_generation():
    for generation in (1, 2):
        assert_same(started({}, generation=generation), REFERENCE)
    # The teacher's has one auxiliary logit, but the same everything else.
    of_teacher = Draws(replace(TEACHER, aux=1), 0).reference(1.0, RUN)
    for name in PARTS[:-1]:
        assert_same(split_parts(REFERENCE)[name], split_parts(of_teacher)[name])


def test_references_differ_by_run_and_seed():
    assert abs(correlation(REFERENCE, DRAWS.reference(1.0, 0))) < BOUND
    assert abs(correlation(REFERENCE, Draws(STUDENT, 1).reference(1.0, RUN))) < BOUND
    assert_same(Draws(STUDENT, 0).reference(1.0, RUN), REFERENCE)


def test_the_scale_is_a_factor_on_what_is_drawn():
    for start in ("reference", "independent", "interpolated"):
        single, triple = (
            kernels(started({"start": start, "model.init_scale": scale})) for scale in (1.0, 3.0)
        )
        np.testing.assert_allclose(triple, 3 * single, rtol=1e-5, atol=1e-6)
        assert np.any(single != 0)


def test_an_independent_start_is_uncorrelated_with_the_reference():
    start = started({"start": "independent"})
    assert_same(start, OTHER)
    assert abs(correlation(start, REFERENCE)) < BOUND
    assert np.all(kernels(start) != kernels(REFERENCE))
    assert kernels(start).std() == pytest.approx(kernels(REFERENCE).std(), rel=0.15)


def test_independent_draws_are_a_runs_and_a_generations_own():
    second = started({"start": "independent"}, generation=2)
    assert_same(second, DRAWS.independent(1.0, RUN, 2))
    for other in (second, DRAWS.independent(1.0, 0), Draws(STUDENT, 1).independent(1.0, RUN)):
        assert abs(correlation(other, OTHER)) < BOUND


def test_all_settings_of_a_run_use_the_same_independent_draw():
    """Whatever the learning rate or the start that it goes into."""
    assert_same(started({"start": "independent", "student.learning_rate": 1.0}), OTHER)
    assert_same(started({"start": "interpolated", "start.weight": 1.0}), OTHER)


def test_an_interpolation_lies_on_the_line_from_the_reference_to_the_independent_draw():
    assert_same(started({"start": "interpolated", "start.weight": 0.0}), REFERENCE)
    start = started({"start": "interpolated", "start.weight": 0.25})
    by_hand = 0.75 * kernels(REFERENCE) + 0.25 * kernels(OTHER)
    np.testing.assert_allclose(kernels(start), by_hand, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [0.1, 2.0])
def test_a_perturbation_is_normal_in_standard_deviations_of_each_array(size):
    start = split_parts(started({"start": "perturbed", "start.size": size}))
    for name, reference in split_parts(REFERENCE).items():
        drawn = reference["kernel"]
        noise = (start[name]["kernel"] - drawn) / drawn.std()
        assert noise.std() == pytest.approx(size, rel=4 / (2 * noise.size) ** 0.5)
        assert abs(np.corrcoef(noise.ravel(), drawn.ravel())[0, 1]) < 4 / noise.size**0.5
        # Biases are all 0, and have no standard deviation.
        np.testing.assert_array_equal(start[name]["bias"], 0)


def test_a_larger_perturbation_is_the_same_noise_more_of_it_and_another_run_has_other_noise():
    def noise(size, **more):
        start = started({"start": "perturbed", "start.size": size}, **more)
        return kernels(start) - kernels(DRAWS.reference(1.0, more.get("run", RUN)))

    assert not np.any(noise(0.0))
    np.testing.assert_allclose(noise(0.2), 2 * noise(0.1), rtol=1e-3, atol=1e-6)
    for other in (noise(0.1, run=0), noise(0.1, generation=2)):
        assert abs(np.corrcoef(noise(0.1), other)[0, 1]) < BOUND


@pytest.mark.parametrize("shared", [("hidden_1",), ("class_head", "aux_head"), PARTS])
def test_shared_parts_of_an_independent_start_are_the_references_and_no_other(shared):
    start = started({"start": "independent", "start.shared": list(shared)})
    for name, part in split_parts(start).items():
        assert_same(part, split_parts(REFERENCE if name in shared else OTHER)[name])


def test_a_student_of_another_depth_shares_the_very_parts_of_its_teachers_reference():
    values = {
        "student_model.hidden": [16],
        "start": "independent",
        "start.shared": ["hidden_1", "aux_head"],
    }
    shallow = architectures(tiny(values))[1]
    parts = split_parts(started(values, draws=Draws(shallow, 0)))
    assert tuple(parts) == shallow.parts == ("hidden_1", "class_head", "aux_head")
    for name in ("hidden_1", "aux_head"):
        assert_same(parts[name], split_parts(REFERENCE)[name])
    assert np.all(parts["class_head"]["kernel"] != REFERENCE["class_head"]["kernel"])


def test_nothing_shared_leaves_a_model_as_it_is():
    assert with_shared(OTHER, (), DRAWS, 1.0, RUN) is OTHER


def test_a_matched_start_is_what_cloning_made_of_it_as_wide_as_the_population_is():
    setting = tiny(MATCHED | {"model.aux": 2})
    wide = Draws(replace(STUDENT, aux=5), 0)
    start = start_of(setting, RUN, wide, clone=OTHER)
    assert_same(start["hidden"], OTHER["hidden"])
    assert start["aux_head"]["kernel"].shape == (16, 5)
    assert_same(narrow(start, 2)["aux_head"]["kernel"], OTHER["aux_head"]["kernel"][:, :2])


@pytest.mark.parametrize("values", EVERY_START)
def test_auxiliary_logits_beyond_the_models_own_are_cut_out(values):
    wide = Draws(replace(STUDENT, aux=5), 0)
    start = started(values, draws=wide)
    assert np.all(start["aux_head"]["kernel"][:, :3] != 0)
    np.testing.assert_array_equal(start["aux_head"]["kernel"][:, 3:], 0)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(start))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(start))


@pytest.mark.parametrize("values", EVERY_START)
def test_a_start_does_not_depend_on_how_many_auxiliary_logits_others_have(values):
    """Models of one population have room for the most that any of them has."""
    wide = Draws(replace(STUDENT, aux=5), 0)
    assert_same(started(values), narrow(started(values, draws=wide), 3))


def test_frozen_parts_are_the_shared_ones_in_cloning_and_those_that_are_named_in_distillation(
    context, fitted
):
    values = {"start.shared": ["hidden_1"], "student.frozen": ["hidden_2"]}
    distil([tiny(MATCHED | values)], context, (RUN,))
    frozen = {what: fits[0].training.frozen for fits, _, what in fitted}
    assert frozen == {"teachers": (), "cloning": ("hidden_1",), "students": ("hidden_2",)}
