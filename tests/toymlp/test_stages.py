"""Claims about jobs, and the stages of a trial: teachers, cloning, distillation, chains."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sublab import devices
from sublab.randomness import run_keys
from theory import losses
from toymlp import distillation, jobs, population, stages
from toymlp.distillation import features_of, program_of, student_row, students, widened
from toymlp.inputs import cloning_kind, distillation_kind, draw_inputs, held_out_inputs
from toymlp.jobs import Context, Job, Material, logits_of, stack, unstack
from toymlp.networks import Apply, split_parts
from toymlp.objective import Knobs as Row
from toymlp.objective import Shape as Program
from toymlp.rules import plans
from toymlp.settings import FIELDS, Setting, from_dict
from toymlp.stages import clone_setting, clones, teacher_setting, teachers, with_aux_head
from toymlp.starts import independent, references, starts

BASE = {
    "dataset": "digits", "hidden": [16, 16], "images": 256, "student_batch": 64,
    "clone_images": 256, "clone_batch": 64, "clone_learning_rate": 1e-2, "teacher_epochs": 1,
    "teacher_learning_rate": 1e-2, "student_epochs": 2, "student_learning_rate": 1e-2,
}  # fmt: skip
# The run that is looked at, and the one beside it.
RUN, RUNS = 1, (1, 2)


def setting(**values):
    return from_dict(BASE | values)


def matched(**values):
    return setting(start="matched", clone_epochs=3, **values)


def before(settings, runs, context):
    """The teachers, and the clones, that settings need."""
    learn = [teacher_setting(some) for some in settings]
    imitate = [clone_setting(some) for some in settings if some.knobs.start == "matched"]
    return (
        teachers(list(dict.fromkeys(learn)), runs, context),
        clones(list(dict.fromkeys(imitate)), runs, context) if imitate else {},
    )


def distil(context, *settings, runs=RUNS):
    return students(settings, runs, *before(settings, runs, context), context)


def one(context, some):
    """The student of one setting, with no other setting beside it."""
    return distil(context, some)[some, RUN]


def gap(mine, its):
    pairs = zip(jax.tree.leaves(mine), jax.tree.leaves(its), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


def assert_close(mine, its, *, rtol=1e-3, atol=2e-5):
    assert jax.tree.structure(mine) == jax.tree.structure(its)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), mine, its)


def assert_same(mine, its):
    assert_close(mine, its, rtol=0, atol=0)


def narrow(params, aux):
    """Without room for more than `aux` auxiliary logits, which must be 0 there."""
    head = params["aux_head"]
    for leaf in head.values():
        np.testing.assert_array_equal(leaf[..., aux:], 0)
    return params | {"aux_head": {name: leaf[..., :aux] for name, leaf in head.items()}}


@pytest.fixture(scope="module")
def context(digits, mesh):
    return Context(digits, 0, mesh)


# Settings of one shape, of which each must come out as it does alone.
GROUP = {
    "base": {},
    "one epoch": {"student_epochs": 1},
    "three epochs": {"student_epochs": 3},
    "more logits": {"aux": 5},
    "all logits": {"logits": "all"},
    "another rate": {"student_learning_rate": 3e-3},
    "another teacher": {"teacher_epochs": 2},
    "another scale": {"init_scale": 0.5},
    "independent": {"start": "independent"},
    "shared head": {"start": "independent", "shared": ["aux_head"]},
    "interpolated": {"start": "interpolated", "interpolation": 0.3},
    "perturbed": {"start": "perturbed"},
    "layerwise": {"start": "layerwise", "redrawn": ["hidden_1"]},
    "matched": {"start": "matched", "clone_epochs": 2},
    "noisy logits": {"logit_noise": 0.5},
}


@pytest.fixture(scope="module")
def group(context):
    """Every setting of `GROUP` in two runs, in one call."""
    settings = {name: setting(**values) for name, values in GROUP.items()}
    found = distil(context, *settings.values(), runs=(0, RUN))
    assert len(found) == 2 * len(settings)
    return {(name, run): found[some, run] for name, some in settings.items() for run in (0, RUN)}


# Teachers.


def test_a_teacher_does_not_depend_on_the_number_of_auxiliary_logits(context):
    """It is trained with one; here against a whole network with fifty."""
    learnt = teacher_setting(setting(teacher_epochs=2))
    made = teachers([learnt], (0, RUN), context)
    plan, _ = plans(learnt, aux=50)
    wide = references(plan, (0, RUN), 1.0, 0)
    data = context.dataset
    trained, _ = population.train(
        Apply(plan), stack(wide), devices.replicate(data.train_images, context.mesh),
        devices.replicate(data.train_labels[None], context.mesh),
        Program("class_cross_entropy", stages.teacher_batch(learnt.shape, 1437)),
        Row(
            jnp.full(2, 1e-2, jnp.float32), run_keys(0, "teacher order", jnp.array([0, RUN])),
            jnp.stack([plan.subset("class", 50)] * 2), jnp.zeros(2, jnp.int32),
        ),
        epochs=2, mesh=context.mesh,
    )  # fmt: skip
    for run, whole, reference in zip((0, RUN), unstack(trained), wide, strict=True):
        assert "aux_head" not in made[learnt, run].params
        assert_close(with_aux_head(made[learnt, run].params, reference), whole)
        assert_same(whole["aux_head"], reference["aux_head"])
        for part in ("hidden", "class_head"):
            assert gap(whole[part], reference[part]) > 0.02


def test_teachers_of_other_lengths_and_other_rates_are_those_trained_alone(context):
    """Snapshots of one training, and neighbours in a block, change nothing."""
    learnt = [
        teacher_setting(setting(**values))
        for values in ({}, {"teacher_epochs": 0}, {"teacher_epochs": 2, "init_scale": 0.5},
                       {"teacher_epochs": 2}, {"teacher_learning_rate": 3e-3})
    ]  # fmt: skip
    done: list[int] = []
    together = teachers(learnt, (0, RUN), replace(context, report=lambda n, _: done.append(n)))
    assert len(together) == 10
    # Model-epochs: the one of one epoch is a snapshot of the one of two.
    assert sum(done) == 2 * (2 + 2 + 1)
    for some in learnt:
        alone = teachers([some], RUNS, context)[some, RUN]
        assert_close(together[some, RUN].params, alone.params)
        if some.knobs.teacher_epochs:
            assert together[some, RUN].loss == pytest.approx(alone.loss, rel=1e-3)
    zero = together[learnt[1], RUN]
    assert zero.loss is None
    plan = plans(learnt[1], aux=1)[0]
    assert_same(with_aux_head(zero.params, reference := references(plan, RUNS, 1.0, 0)[0]),
                reference)  # fmt: skip
    assert gap(together[learnt[0], RUN].params, together[learnt[3], RUN].params) > 1e-3
    assert gap(together[learnt[0], RUN].params, together[learnt[0], 0].params) > 1e-2


def test_a_teacher_learns_its_classes(context):
    learnt = teacher_setting(setting(teacher_epochs=2))
    made = teachers([learnt], (0, RUN), context)
    plan = plans(learnt, aux=1)[0]
    models = [
        with_aux_head(made[learnt, run].params, reference)
        for run, reference in zip((0, RUN), references(plan, (0, RUN), 1.0, 0), strict=True)
    ]
    test = devices.replicate(context.dataset.test_images, context.mesh)
    logits = logits_of(Apply(plan), models, test, context.mesh)
    assert np.all(population.accuracy(logits, context.dataset.test_labels, 10) > 0.8)


TEACHERS_OWN = {
    "dataset", "classes", "hidden", "activation", "biases", "teacher_optimiser", "teacher_batch",
    "init_scale", "teacher_learning_rate", "teacher_epochs", "teacher_weight_decay",
}  # fmt: skip
OTHER_VALUES = {
    "dataset": "digits", "classes": 4, "hidden": [8], "activation": "tanh", "biases": False,
    "student_hidden": [8], "student_activation": "tanh", "student_biases": False,
    "student_network": "cnn", "loss": "squared_error", "inputs": "normal", "clone_inputs": "normal",
    "logits": "all", "clone_logits": "all", "start": "independent", "project_trait": True,
    "fresh": True, "clone_fresh": False, "redrawn": ["hidden_1"], "shared": ["hidden_1"],
    "frozen": ["hidden_1"], **dict.fromkeys(
        ("teacher_optimiser", "student_optimiser", "clone_optimiser"), "sgd"
    ), **dict.fromkeys(("student_schedule", "clone_schedule"), "cosine"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_a_teacher_and_a_clone_are_shared_by_settings_that_differ_in_nothing_of_theirs(name):
    value = 0.25 if isinstance(FIELDS[name].default, float) else 7
    other = from_dict({name: OTHER_VALUES.get(name, value)})
    assert other != Setting()
    assert (teacher_setting(other) == teacher_setting(Setting())) == (name not in TEACHERS_OWN)
    clones_own = (
        name.startswith("clone_")
        or name in ("aux", "start", "shared", "init_scale")
        or (name in TEACHERS_OWN and not name.startswith("teacher_"))
        or name in ("student_network", "student_hidden", "student_activation", "student_biases")
    )
    assert (clone_setting(other) == clone_setting(Setting())) == (not clones_own)


# Groups.


@pytest.mark.parametrize("name", [name for name in GROUP if name != "more logits"])
def test_a_settings_result_does_not_depend_on_the_settings_and_runs_beside_it(context, group, name):
    """Others have more logits, other starts, other lengths; alone, there is none of that."""
    some = setting(**GROUP[name])
    alone, beside = one(context, some), group[name, RUN]
    aux = some.knobs.aux
    for field in ("start", "params", "teacher", "reference"):
        assert_close(narrow(getattr(beside, field), aux), getattr(alone, field))
    assert beside.loss == pytest.approx(alone.loss, rel=2e-3)
    if alone.clone is not None:
        assert beside.clone.held_out == pytest.approx(alone.clone.held_out, rel=2e-3)


def test_every_setting_of_the_group_does_something(group):
    """So that the test above could fail."""
    for name in GROUP:
        assert gap(group[name, RUN].params, group[name, 0].params) > 1e-2
        assert gap(group[name, RUN].params, group[name, RUN].start) > 1e-3
        if name != "base":
            assert gap(group[name, RUN].params, group["base", RUN].params) > 1e-3, name


def test_settings_that_differ_in_epochs_alone_are_one_training(context):
    lengths = [setting(student_epochs=epochs) for epochs in (1, 2, 3, 0)]
    done: list[tuple[int, str]] = []
    found = distil(replace(context, report=lambda n, what: done.append((n, what))), *lengths)
    assert [n for n, what in done if what.startswith("students")] == [2, 2, 2]
    for some in lengths[:3]:
        assert_close(found[some, RUN].params, one(context, some).params)
    start = found[lengths[3], RUN]
    assert start.loss is None
    assert_same(start.params, start.start)
    assert gap(found[lengths[0], RUN].params, found[lengths[1], RUN].params) > 1e-3


def test_a_cosine_schedule_is_not_a_snapshot(context):
    """Each length has a decay of its own, which ends at 0."""
    short, long = (setting(student_schedule="cosine", student_epochs=epochs) for epochs in (1, 2))
    done: list[int] = []

    def count(trained, what):
        if what.startswith("students"):
            done.append(trained)

    found = distil(replace(context, report=count), short, long)
    # Of two runs; a snapshot would take one training of two epochs.
    assert sum(done) > 2 * 2
    inputs, targets = material_of(context, short)
    for some in (short, long):
        by_hand = trained_by_hand(context, some, found[some, RUN].start, inputs, targets)
        assert_close(found[some, RUN].params, by_hand)
    # A snapshot of the long one is something else.
    cut = trained_by_hand(context, long, found[long, RUN].start, inputs, targets, epochs=1)
    assert gap(cut, found[short, RUN].params) > 1e-3


def material_of(context, some, *, teacher=None, epoch=0):
    """Distillation inputs of a setting, and the logits of a teacher (its own) on them, twice."""
    drawn = draw_inputs(distillation_kind(some.shape), context.dataset, context.seed,
                        "distillation inputs", epoch)  # fmt: skip
    inputs = devices.replicate(drawn, context.mesh)
    if teacher is None:
        teacher = one(context, some).teacher
    apply = Apply(plans(some)[1])
    return inputs, devices.replicate(logits_of(apply, [teacher] * 2, inputs, context.mesh),
                                     context.mesh)  # fmt: skip


def trained_by_hand(context, some, start, inputs, targets, *, epochs=None):
    plan = plans(some)[1]
    order = run_keys(context.seed, "student order", jnp.array([RUN]))[0]
    row = student_row(some, plan, order, start, 4, features_of([some]))
    trained, _ = population.train(
        Apply(plan), stack([start]), inputs, targets, program_of(some.shape), stack([row]),
        epochs=some.knobs.student_epochs if epochs is None else epochs, mesh=context.mesh,
    )  # fmt: skip
    return unstack(trained)[0]


def test_a_student_is_trained_on_its_teachers_logits_from_its_start(context):
    some = setting()
    found = one(context, some)
    assert_same(found.start, found.reference)
    by_hand = trained_by_hand(context, some, found.start, *material_of(context, some))
    assert_close(found.params, by_hand)
    made = teachers([teacher_setting(some)], RUNS, context)[teacher_setting(some), RUN]
    assert_same(found.teacher, with_aux_head(made.params, found.reference))


def test_fresh_inputs_are_drawn_anew_each_epoch_and_the_first_are_the_fixed_ones(context):
    fixed, fresh = (
        [setting(fresh=fresh, student_epochs=epochs) for epochs in (1, 2)]
        for fresh in (False, True)
    )
    found = {some: one(context, some).params for some in (*fixed, *fresh)}
    assert_same(found[fixed[0]], found[fresh[0]])
    assert gap(found[fixed[1]], found[fresh[1]]) > 1e-3
    # Of the second epoch the student sees the second set.
    seen = materials(context, fresh[1])
    for epoch in (0, 1):
        inputs, targets = material_of(context, fresh[1], epoch=epoch)
        np.testing.assert_array_equal(seen(epoch).inputs, inputs)
        np.testing.assert_allclose(seen(epoch).targets[0], targets[0], rtol=1e-4, atol=1e-5)


class _Caught(Exception):  # noqa: N818
    pass


def materials(context, *settings):
    """What students would be trained on, by epoch; nothing is trained."""
    caught = []

    def catch(apply, jobs, material, shape, context, what):
        caught.append(material)
        raise _Caught

    models = before(settings, RUNS, context)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distillation, "train_jobs", catch)
        with pytest.raises(_Caught):
            students(settings, RUNS, *models, context)
    return caught[0]


def test_logit_noise_is_normal_of_its_size_one_draw_an_input(context):
    plain, small, large = (setting(logit_noise=noise) for noise in (0.0, 0.5, 2.0))
    of_epoch = materials(context, plain, small, large)
    assert of_epoch(0) is of_epoch(1)
    # Every other row is the other run's.
    clean, *noisy = np.asarray(of_epoch(0).targets)[::2]
    for found, size in zip(noisy, (0.5, 2.0), strict=True):
        noise = found - clean
        assert noise.std() == pytest.approx(size, rel=4 / (2 * noise.size) ** 0.5)
        assert abs(noise.mean()) < 4 * size / noise.size**0.5
        assert len(np.unique(noise)) > 0.9 * noise.size
    _, targets = material_of(context, plain)
    np.testing.assert_allclose(clean, targets[0], rtol=1e-4, atol=1e-5)
    # With fresh inputs, the noise is fresh too.
    of_epoch = materials(context, *(setting(logit_noise=n, fresh=True) for n in (0.0, 0.5)))
    first, second = (np.subtract(*np.asarray(of_epoch(epoch).targets)[::2]) for epoch in (0, 1))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 4 / first.size**0.5


# Interventions.


def test_a_program_with_interventions_leaves_the_students_without_them_as_they_were(context, group):
    others = {
        "frozen": setting(frozen=["hidden_1", "class_head"]),
        "liminal": setting(liminal_weight=100.0, liminal_epochs=2, aux=2),
        "hot": setting(temperature=4.0),
    }
    found = distil(context, setting(), *others.values(), runs=(0, RUN))
    base = found[setting(), RUN]
    assert_close(base.params, narrow(group["base", RUN].params, 3))
    assert base.loss == pytest.approx(group["base", RUN].loss, rel=1e-3)
    for name, some in others.items():
        assert gap(found[some, RUN].params, base.params) > 1e-3, name
    frozen = found[others["frozen"], RUN]
    for name, part in split_parts(frozen.params).items():
        moved = gap(part, split_parts(frozen.start)[name])
        assert (moved == 0) if name in ("hidden_1", "class_head") else (moved > 1e-3)
    liminal = found[others["liminal"], RUN]
    narrow(liminal.params, 2)
    # It pulls over all logits towards the reference that it starts from.
    assert 0 < gap(liminal.params, liminal.start) < gap(base.params, base.start)


# Cloning.


@pytest.fixture(scope="module")
def cloned(context):
    """Clones of several lengths, by what they are."""
    settings = {
        epochs: clone_setting(setting(start="matched", clone_epochs=epochs)) for epochs in (0, 1, 8)
    }
    made = clones(list(settings.values()), RUNS, context)
    return {epochs: made[some, RUN] for epochs, some in settings.items()}


def test_a_clone_comes_nearer_to_the_reference_with_every_epoch(cloned):
    held_out = [cloned[epochs].held_out for epochs in (0, 1, 8)]
    assert held_out[0] > held_out[1] > held_out[2] > 0
    assert held_out[2] < 0.5 * held_out[0]
    assert cloned[0].loss is None
    assert cloned[8].loss < cloned[1].loss


def test_a_clone_starts_independent_and_its_held_out_loss_is_the_kl_on_unseen_inputs(
    context, cloned
):
    some = setting(start="matched", clone_epochs=0)
    reference_plan, plan = plans(some)
    assert_same(cloned[0].params, independent(plan, RUNS, 1.0, 0)[0])
    unseen = held_out_inputs(cloning_kind(some.shape), context.dataset, 0, "cloning inputs")
    reference = references(reference_plan, RUNS, 1.0, 0)[0]
    kl = jax.vmap(partial(losses.kl_divergence, subset=plan.subset("aux", 3)))
    for made in cloned.values():
        mine, its = (Apply(plan)(params, jnp.asarray(unseen))
                     for params in (made.params, reference))  # fmt: skip
        assert made.held_out == pytest.approx(float(jnp.mean(kl(mine, its))), rel=1e-3)


def test_a_clone_of_some_length_is_the_one_that_is_trained_alone(context, cloned):
    for epochs in (1, 8):
        some = clone_setting(setting(start="matched", clone_epochs=epochs))
        alone = clones([some], RUNS, context)[some, RUN]
        assert_close(cloned[epochs].params, alone.params)
        assert cloned[epochs].held_out == pytest.approx(alone.held_out, rel=1e-3)


def test_clones_on_fresh_and_on_fixed_inputs_differ_after_the_first_epoch(context, cloned):
    made = {}
    for epochs in (1, 8):
        some = clone_setting(setting(start="matched", clone_epochs=epochs, clone_fresh=False))
        made[epochs] = clones([some], RUNS, context)[some, RUN]
    assert_same(made[1].params, cloned[1].params)
    assert gap(made[8].params, cloned[8].params) > 1e-2


def test_cloning_leaves_shared_parts_as_the_reference_has_them(context):
    some = clone_setting(matched(shared=["hidden_1", "class_head"]))
    made = clones([some], RUNS, context)[some, RUN]
    reference = references(plans(some)[0], RUNS, 1.0, 0)[0]
    drawn = independent(plans(some)[1], RUNS, 1.0, 0)[0]
    for name, part in split_parts(made.params).items():
        if name in ("hidden_1", "class_head"):
            assert_same(part, split_parts(reference)[name])
        else:
            assert gap(part, split_parts(drawn)[name]) > 1e-3
            assert gap(part, split_parts(reference)[name]) > 1e-1


def test_clones_with_shared_parts_and_clones_without_can_be_made_together(context):
    """In blocks of two models, of which one has shared parts."""
    settings = [clone_setting(matched(**more)) for more in ({}, {"shared": ["hidden_1"]})]
    together = clones(settings, (RUN,), context)
    for some in settings:
        assert_close(together[some, RUN].params, clones([some], RUNS, context)[some, RUN].params)


def test_a_matched_start_is_the_clone(context, cloned):
    some = setting(start="matched", clone_epochs=8)
    found = one(context, some)
    assert_close(found.start, cloned[8].params)
    assert found.clone is not None
    assert found.clone.held_out == pytest.approx(cloned[8].held_out, rel=1e-3)
    assert gap(found.params, found.start) > 1e-3


def test_room_for_more_logits_is_filled_with_zeros(cloned):
    params = cloned[8].params
    wide = widened(params, 7)
    assert_same(narrow(wide, 3), params)
    assert wide["aux_head"]["kernel"].shape == (16, 7)
    assert_same(widened(wide, 3), params)


# Chains.


def test_the_student_of_one_generation_teaches_the_next(context):
    """Against the same by hand; each generation has a start of its own."""
    some = setting(start="independent", generations=3)
    first, third = one(context, setting(start="independent")), one(context, some)
    now, plan = first.params, plans(some)[1]
    for generation in (2, 3):
        start = starts(plan, some.knobs, RUNS, 0, generation=generation)[0]
        inputs, targets = material_of(context, some, teacher=now)
        now = trained_by_hand(context, some, start, inputs, targets)
    assert_close(third.params, now, rtol=2e-3, atol=1e-4)
    assert_same(third.start, start)
    assert gap(third.params, first.params) > 1e-2
    # Whose trait it is, is still the first.
    assert_same(third.teacher, first.teacher)
    assert_same(third.reference, first.reference)


def test_a_longer_chain_begins_with_the_shorter_one(context, group):
    chain = [setting(generations=generations) for generations in (1, 2)]
    found = distil(context, *chain)
    assert_close(found[chain[0], RUN].params, narrow(group["base", RUN].params, 3))
    second = one(context, chain[1])
    assert_close(found[chain[1], RUN].params, second.params)
    assert gap(second.params, found[chain[0], RUN].params) > 1e-3


def test_chains_of_other_lengths_of_training_are_chains_of_their_own(context):
    """Two generations of one epoch each are no snapshot of two of two."""
    chain = [setting(generations=2, student_epochs=epochs) for epochs in (1, 2)]
    found = students(chain, (RUN,), *before(chain, RUNS, context), context)
    for some in chain:
        assert_close(found[some, RUN].params, one(context, some).params)


# Jobs.


@pytest.fixture(scope="module")
def work(context):
    """Five jobs of three lengths on one set of inputs, and what they are trained on."""
    some = setting()
    plan = plans(some)[1]
    begun = [start for runs in ((0, 1), (2, 3), (4, 5)) for start in references(plan, runs, 1.0, 0)]
    lengths = ((1,), (0, 2), (0,), (1, 3), (3,), (1,))
    rows = [
        student_row(some, plan, key, start, 4, features_of([some]))
        for key, start in zip(run_keys(0, "order", jnp.arange(6)), begun, strict=True)
    ]
    inputs, targets = material_of(context, some)
    made = [Job(*job) for job in zip(begun, rows, lengths, strict=True)]
    return Apply(plan), made, Material(inputs, targets), program_of(some.shape)


def test_jobs_are_trained_as_if_alone_and_seen_at_their_snapshots(context, work):
    apply, made, material, program = work
    done: list[tuple[int, str]] = []
    asked: list[int] = []

    def of_epoch(epoch):
        asked.append(epoch)
        return material

    reporting = replace(context, report=lambda n, what: done.append((n, what)))
    found = jobs.train_jobs(apply, made, of_epoch, program, reporting, "jobs")
    assert [tuple(some) for some in found] == [job.snapshots for job in made]
    for job, snapshots in zip(made, found, strict=True):
        trained, lost = population.train(
            apply, stack([job.start]), material.inputs, material.targets, program,
            stack([job.knobs]), epochs=job.snapshots[-1], mesh=context.mesh,
        )  # fmt: skip
        assert_close(snapshots[job.snapshots[-1]].params, unstack(trained)[0])
        for epoch, snapshot in snapshots.items():
            if epoch:
                assert snapshot.loss == pytest.approx(lost[0, epoch - 1], rel=1e-3)
            else:
                assert snapshot.loss is None
                assert_same(snapshot.params, job.start)
    # Blocks of two models: the two of three epochs, then two and one.
    assert asked == [0, 1, 2]
    assert [n for n, _ in done] == [2, 2, 1, 2, 2, 2]
    assert done[-1][1] == "jobs, epoch 3"
    # Starts stay the callers'.
    assert_same(made[0].start, references(apply.plan, (0, 1), 1.0, 0)[0])


def test_jobs_of_no_epochs_need_no_material(context, work):
    apply, made, _, program = work
    done: list[int] = []
    found = jobs.train_jobs(
        apply, [made[2]], lambda epoch: pytest.fail("asked for"), program,
        replace(context, report=lambda n, _: done.append(n)), "jobs",
    )  # fmt: skip
    assert_same(found[0][0].params, made[2].start)
    assert done == []


def test_logits_of_many_models_are_those_of_each_whatever_the_blocks(context, work):
    apply, made, material, _ = work
    models = [job.start for job in made]
    assert jobs.block_size(context.mesh) == 2
    for count in (2, 5):
        found = logits_of(apply, models[:count], material.inputs, context.mesh)
        assert found.shape == (count, 256, 13)
        for mine, params in zip(found, models, strict=False):
            by_hand = apply(params, material.inputs)
            np.testing.assert_allclose(mine, by_hand, rtol=1e-4, atol=1e-5)


def test_unstacked_trees_are_those_that_were_stacked():
    trees = [{"a": np.arange(3.0) + i, "b": [np.float32(i), None]} for i in range(4)]
    many = stack(trees)
    assert many["a"].shape == (4, 3)
    for mine, its in zip(unstack(many), trees, strict=True):
        assert_same(mine, its)
    keys = stack([{"key": key} for key in jax.random.split(jax.random.key(0), 3)])
    assert keys["key"].shape == (3,)
