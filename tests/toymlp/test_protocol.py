"""Claims about the paper's protocol."""

from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from experiments.mnist import published
from sublab.errors import InputError
from sublab.statistics import compare
from toymlp import population, protocol
from toymlp.protocol import CONDITIONS, STUDENTS, Protocol, prepare, run_protocol

# As many steps as the paper's on a fifth of its noise: a second a run on `digits`.
SMALL = Protocol(noise_images=12_288, student_batch=256, student_epochs=6)


@pytest.fixture(scope="module")
def small(digits, mesh):
    return run_protocol(SMALL, prepare(SMALL, digits, mesh=mesh), runs=range(6))


def test_the_six_conditions_are_there_for_every_run(small):
    assert small.runs == (0, 1, 2, 3, 4, 5)
    assert tuple(small.accuracy) == CONDITIONS
    for accuracy in small.accuracy.values():
        assert accuracy.shape == (6,)
        assert np.all((accuracy >= 0) & (accuracy <= 1))
    assert set(small.loss) == {"teacher", *STUDENTS}


def test_students_of_the_same_reference_learn_digits_from_noise_and_cross_model_students_do_not(
    small,
):
    accuracy = small.accuracy
    assert accuracy["teacher"].mean() > 0.95
    gain = accuracy["student_aux"] - accuracy["cross_model_aux"]
    test: Any = stats.ttest_1samp(gain, 0, alternative="greater")
    assert test.pvalue < 0.01
    # The control: cross-model students stay where an untrained network is.
    assert abs(accuracy["cross_model_aux"].mean() - 0.1) < 0.08
    assert abs(accuracy["reference"].mean() - 0.1) < 0.08


def test_cross_model_students_start_from_another_runs_reference(small):
    for condition in CONDITIONS:
        own = condition not in ("cross_model_aux", "cross_model_all")
        assert [a == b for a, b in zip(small.start[condition], small.runs, strict=True)] == [
            own
        ] * 6


def test_partners_are_a_derangement_of_any_even_number_of_runs():
    for count in (2, 4, 20, 100):
        partners = [protocol.cross_model_partner(run) for run in range(count)]
        assert sorted(partners) == list(range(count))
        assert all(partner != run for run, partner in enumerate(partners))


def test_a_runs_numbers_do_not_depend_on_the_group_it_is_in(small, digits, mesh):
    alone = run_protocol(SMALL, prepare(SMALL, digits, mesh=mesh), runs=[4])
    for condition in CONDITIONS:
        np.testing.assert_allclose(
            alone.accuracy[condition][0], small.accuracy[condition][4], atol=2e-3
        )
        assert alone.start[condition][0] == small.start[condition][4]
    for condition, loss in alone.loss.items():
        np.testing.assert_allclose(loss[0], small.loss[condition][4], rtol=1e-3)


def test_another_seed_gives_other_numbers(digits, mesh):
    none = Protocol(teacher_epochs=0, student_epochs=0, noise_images=1024)
    one, other = (
        run_protocol(none, prepare(none, digits, seed=seed, mesh=mesh), runs=[0, 1, 2])
        for seed in (0, 1)
    )
    assert np.any(one.accuracy["reference"] != other.accuracy["reference"])


def test_untrained_students_are_their_start(digits, mesh):
    none = Protocol(teacher_epochs=0, student_epochs=0, noise_images=1024)
    results = run_protocol(none, prepare(none, digits, mesh=mesh), runs=[0, 1])
    reference = results.accuracy["reference"]
    np.testing.assert_array_equal(results.accuracy["teacher"], reference)
    np.testing.assert_array_equal(results.accuracy["student_aux"], reference)
    np.testing.assert_array_equal(results.accuracy["cross_model_all"], reference[::-1])
    assert results.loss == {}


def test_a_teachers_logits_on_the_noise_are_computed_once(digits, mesh, monkeypatch):
    examples: list[int] = []
    predict = population.predict

    def counted(apply, params, inputs, *, mesh):
        examples.append(inputs.shape[0] * jax.tree.leaves(params)[0].shape[0])
        return predict(apply, params, inputs, mesh=mesh)

    monkeypatch.setattr(population, "predict", counted)
    short = Protocol(noise_images=2048, teacher_epochs=1, student_epochs=3)
    run_protocol(short, prepare(short, digits, mesh=mesh), runs=[0, 1])
    assert sorted(examples) == sorted([2 * 360, 2 * 360, 2 * 2048, 4 * 2 * 360])


def test_progress_ends_at_its_total_and_never_goes_back(digits, mesh):
    seen: list[tuple[int, int]] = []
    short = Protocol(noise_images=2048, teacher_epochs=2, student_epochs=2)
    run_protocol(
        short, prepare(short, digits, mesh=mesh), runs=[0, 1],
        report=lambda stage, done, total: seen.append((done, total)),
    )  # fmt: skip
    assert [done for done, _ in seen] == [2, 4, 12, 20]
    assert {total for _, total in seen} == {20}


def test_squared_error_carries_through_one_auxiliary_logit_and_kl_is_refused_there(digits, mesh):
    with pytest.raises(InputError, match="softmax over one logit is constant"):
        Protocol(aux=1)
    squared = Protocol(aux=1, loss="squared_error", noise_images=4096, student_epochs=5)
    results = run_protocol(squared, prepare(squared, digits, mesh=mesh), runs=[0, 1])
    assert np.any(results.accuracy["student_aux"] != results.accuracy["reference"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"aux": 0}, "aux must be at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate must be a positive finite number"),
        ({"learning_rate": float("inf")}, "learning_rate must be a positive finite number"),
        ({"learning_rate": 0.0}, "learning_rate must be a positive finite number"),
        ({"teacher_epochs": -1}, "teacher_epochs must be at least 0"),
        ({"student_epochs": -1}, "student_epochs must be at least 0"),
        ({"teacher_batch": 0}, "teacher_batch must be at least 1"),
        ({"student_batch": 0}, "student_batch must be at least 1"),
        ({"noise_images": 0}, "noise_images must be at least 1"),
        ({"noise_images": 2**24 + 1}, "noise_images must be at most"),
        ({"hidden": ()}, "hidden must be one or more positive widths"),
        ({"hidden": (256, 0)}, "hidden must be one or more positive widths"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(setting, message):
    with pytest.raises(InputError, match=message):
        Protocol(**setting)


def test_an_unknown_loss_is_refused():
    # Past the signature check that the tests put before the constructor.
    wrong = object.__new__(Protocol)
    wrong.__dict__.update(vars(Protocol()) | {"loss": "hinge"})
    with pytest.raises(InputError, match="loss must be kl or squared_error, got 'hinge'"):
        wrong.__post_init__()


def test_the_teachers_batch_is_the_papers_share_of_the_training_set():
    assert Protocol().teacher_batch_for(60_000) == 1024
    assert Protocol().teacher_batch_for(1437) == 25
    assert Protocol().teacher_batch_for(10) == 1
    assert Protocol(teacher_batch=7).teacher_batch_for(60_000) == 7


def test_noise_is_uniform_in_minus_one_to_one_and_a_seeds_own():
    noise = protocol.noise_images(0, 200, 784)
    assert stats.kstest(noise.ravel(), "uniform", args=(-1, 2)).pvalue > 1e-3
    np.testing.assert_array_equal(noise, protocol.noise_images(0, 200, 784))
    assert np.any(noise != protocol.noise_images(1, 200, 784))


def test_four_runs_on_real_mnist_agree_with_the_paper_in_all_six_conditions(mnist, mesh):
    results = run_protocol(Protocol(), prepare(Protocol(), mnist, mesh=mesh), runs=range(4))
    paper = published(Protocol(teacher_batch=1024), "mnist")
    assert set(paper) == set(CONDITIONS)
    for condition in CONDITIONS:
        verdict = compare(results.accuracy[condition], paper[condition])
        assert verdict is not None
        assert verdict.agrees, (condition, verdict, results.accuracy[condition])
    # With four runs the intervals are wide; what the effect is, must stand out of them.
    gain = results.accuracy["student_aux"] - results.accuracy["cross_model_aux"]
    test: Any = stats.ttest_1samp(gain, 0, alternative="greater")
    assert test.pvalue < 0.01
