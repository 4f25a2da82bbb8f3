"""Claims about the inputs that students are distilled on, and about the classes that are kept."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from sublab.settings import build
from toymlp import data
from toymlp.inputs import draw_inputs, held_out_inputs, input_count
from toymlp.settings import Training

COUNT = 5000
NOISE = ("uniform", "normal", "bernoulli", "blurred", "subspace")
DRAWN_WITH_IMAGES = ("mixture", "shuffled")
EVERY = (*NOISE, *DRAWN_WITH_IMAGES, "images")
VARIANCE = {"uniform": 1 / 3, "normal": 1.0, "bernoulli": 1.0, "blurred": 1 / 3, "subspace": 1 / 3}


# Numbers that the kinds have, where they are not said.
NUMBERS = {"subspace": {"dimension": 8}, "blurred": {"width": 1.0}}


def of_kind(name, count=COUNT, **numbers):
    """Inputs of a kind, as a setting has them."""
    numbers = {"count": count} | NUMBERS.get(name, {}) | numbers
    values = {f"inputs.{key}": value for key, value in numbers.items()}
    return build(Training, {"inputs": name} | values).inputs


def draw(dataset, name, *, count=COUNT, seed=0, purpose="distillation inputs", epoch=0, **numbers):
    return draw_inputs(of_kind(name, count, **numbers), dataset, seed, purpose, epoch)


def neighbours(inputs):
    """The correlation of a pixel with the next one in its row, and with the one below."""
    square = inputs.reshape(-1, 8, 8)
    return [
        np.corrcoef(square[:, :, :-1].ravel(), square[:, :, 1:].ravel())[0, 1],
        np.corrcoef(square[:, :-1].ravel(), square[:, 1:].ravel())[0, 1],
    ]


@pytest.mark.parametrize("name", NOISE)
def test_noise_has_mean_0_and_its_kinds_variance(digits, name):
    inputs = draw(digits, name)
    assert inputs.shape == (COUNT, 64)
    assert inputs.dtype == np.float32
    # A blurred image of 64 pixels has about 64 / (4 pi) of them to itself, the subspace 8.
    independent = COUNT * {"blurred": 5, "subspace": 8}.get(name, 64)
    std = VARIANCE[name] ** 0.5
    assert inputs.mean() == pytest.approx(0, abs=4 * std / independent**0.5)
    assert inputs.var() == pytest.approx(VARIANCE[name], rel=4 * (2 / independent) ** 0.5)
    if name != "subspace":
        # No pixel is like no other.
        np.testing.assert_allclose(inputs.var(0), VARIANCE[name], rtol=0.15)


def test_uniform_and_normal_noise_have_the_distributions_of_their_names(digits):
    uniform, normal = draw(digits, "uniform"), draw(digits, "normal")
    assert stats.kstest(uniform[:500].ravel(), "uniform", args=(-1, 2)).pvalue > 1e-3
    assert stats.kstest(normal[:500].ravel(), "norm").pvalue > 1e-3
    assert uniform.min() >= -1
    assert uniform.max() < 1
    # The tests above tell the two apart, also at the same variance.
    assert stats.kstest(normal[:500].ravel() / 3**0.5, "uniform", args=(-1, 2)).pvalue < 1e-3


def test_pixels_of_plain_noise_are_independent_and_those_of_blurred_noise_like_their_neighbours(
    digits,
):
    for name in ("uniform", "normal"):
        assert np.abs(neighbours(draw(digits, name))).max() < 0.01
    # A Gaussian filter of width s gives pixels at distance d a correlation exp(-d^2 / 4 s^2).
    for width in (1.0, 0.75):
        expected = np.exp(-1 / (4 * width**2))
        np.testing.assert_allclose(
            neighbours(draw(digits, "blurred", width=width)), expected, atol=0.03
        )
    assert min(neighbours(draw(digits, "blurred", width=2.0))) > 0.9


@pytest.mark.parametrize("width", [0.3, 2.0, 10.0])
def test_blurred_noise_keeps_its_variance_however_wide_the_blur(digits, width):
    inputs = draw(digits, "blurred", width=width)
    # A wide blur leaves one independent number an image.
    assert inputs.var() == pytest.approx(1 / 3, rel=4 * (2 / COUNT) ** 0.5)


@pytest.mark.parametrize("rank", [1, 8, 64])
def test_noise_in_a_subspace_has_its_rank_in_every_epoch_together(digits, rank):
    sets = [draw(digits, "subspace", count=200, dimension=rank, epoch=epoch) for epoch in (0, 1)]
    sets.append(held_out_inputs(of_kind("subspace", 200, dimension=rank), digits, 0, "elsewhere"))
    together = np.concatenate(sets).astype(np.float64)
    values = np.linalg.svd(together, compute_uv=False)
    assert np.sum(values > 1e-4 * values[0]) == rank
    # All directions of it alike.
    assert values[rank - 1] > 0.5 * values[0]
    another = draw(digits, "subspace", count=200, dimension=rank, seed=1)
    values = np.linalg.svd(np.concatenate([together, another]), compute_uv=False)
    assert np.sum(values > 1e-4 * values[0]) == min(64, 2 * rank)


def test_a_shuffled_image_has_the_pixels_of_its_image_in_another_order_each_its_own(digits):
    inputs, images = draw(digits, "shuffled"), digits.train_images
    np.testing.assert_array_equal(np.sort(inputs, axis=1), np.sort(images, axis=1))
    assert np.mean(np.any(inputs != images, axis=1)) > 0.99
    # The border of the digits is black; of shuffled ones it is not.
    assert images[:, 0].std() < 0.05
    assert inputs[:, 0].std() > 0.3
    # One permutation for all would keep some pixels dark in every image.
    assert inputs.mean(0).std() < 0.1 * images.mean(0).std()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 3.0])
def test_a_mixture_is_its_image_and_alpha_times_uniform_noise(digits, alpha):
    inputs = draw(digits, "mixture", alpha=alpha)
    noise = inputs - digits.train_images
    if alpha == 0:
        np.testing.assert_array_equal(noise, 0)
        return
    assert np.abs(noise).max() <= alpha * (1 + 1e-5)
    assert stats.kstest(noise[:500].ravel() / alpha, "uniform", args=(-1, 2)).pvalue > 1e-3
    # It knows nothing of the image.
    assert abs(np.corrcoef(noise.ravel(), digits.train_images.ravel())[0, 1]) < 0.015


def test_images_are_the_first_training_images(digits):
    np.testing.assert_array_equal(draw(digits, "images"), digits.train_images)
    few = draw(digits, "images", count=100, seed=3, epoch=2)
    np.testing.assert_array_equal(few, digits.train_images[:100])


@pytest.mark.parametrize("name", EVERY)
def test_kinds_made_of_images_are_at_most_as_many_and_noise_as_many_as_asked_for(digits, name):
    capped = name in ("images", *DRAWN_WITH_IMAGES)
    for count in (1, 200, 5000):
        expected = min(count, 1437) if capped else count
        assert len(draw(digits, name, count=count)) == expected
        assert input_count(of_kind(name, count), 1437) == expected


@pytest.mark.parametrize("name", [*NOISE, *DRAWN_WITH_IMAGES])
def test_a_draw_is_decided_by_seed_purpose_and_epoch(digits, name):
    first = draw(digits, name, count=300)
    np.testing.assert_array_equal(draw(digits, name, count=300), first)
    for other in (
        draw(digits, name, count=300, seed=1),
        draw(digits, name, count=300, purpose="cloning inputs"),
        draw(digits, name, count=300, epoch=1),
        draw(digits, name, count=300, epoch=2),
    ):
        assert np.mean(other == first) < 0.55


def test_epochs_are_draws_without_relation(digits):
    first, second = (draw(digits, "uniform", epoch=epoch) for epoch in (0, 1))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 4 / first.size**0.5
    # Nor are the blocks of one epoch those of another.
    blocks = [draws[at : at + 100] for draws in (first, second) for at in (0, 2048, 4096)]
    assert len({block.tobytes() for block in blocks}) == 6


@pytest.mark.parametrize("name", NOISE)
def test_the_first_blocks_are_the_same_however_many_are_drawn(digits, name):
    many, few = draw(digits, name, count=5000), draw(digits, name, count=4096)
    np.testing.assert_array_equal(many[:4096], few)
    np.testing.assert_array_equal(draw(digits, name, count=2048), few[:2048])
    assert np.any(few[:2048] != few[2048:])


@pytest.mark.parametrize("name", EVERY)
def test_held_out_inputs_are_of_the_kind_and_no_model_was_trained_on_them(digits, name):
    trained = np.concatenate([draw(digits, name, count=1000, epoch=epoch) for epoch in range(3)])
    unseen = held_out_inputs(of_kind(name, 1000), digits, 0, "distillation inputs")
    assert len(unseen) == (1000 if name in NOISE else 360)
    assert not {row.tobytes() for row in trained} & {row.tobytes() for row in unseen}
    again = held_out_inputs(of_kind(name, 1000), digits, 0, "distillation inputs")
    np.testing.assert_array_equal(again, unseen)
    if name in VARIANCE:
        assert unseen.var() == pytest.approx(VARIANCE[name], rel=0.1)


def test_held_out_inputs_of_images_are_made_of_test_images(digits):
    np.testing.assert_array_equal(
        held_out_inputs(of_kind("images", 300), digits, 0, "any"), digits.test_images[:300]
    )
    noise = held_out_inputs(of_kind("mixture", alpha=0.1), digits, 0, "any") - digits.test_images
    assert 0.05 < np.abs(noise).max() <= 0.1001
    shuffled = held_out_inputs(of_kind("shuffled"), digits, 0, "any")
    np.testing.assert_array_equal(np.sort(shuffled, axis=1), np.sort(digits.test_images, axis=1))


def test_held_out_noise_is_no_more_than_enough(digits):
    assert len(held_out_inputs(of_kind("uniform", 10_000), digits, 0, "any")) == 4096
    assert len(held_out_inputs(of_kind("uniform", 10), digits, 0, "any")) == 10


def test_a_count_of_0_is_as_many_as_there_are_images():
    for name in EVERY:
        assert input_count(of_kind(name, 0), 1437) == 1437


@pytest.mark.parametrize("scale", [0.25, 3.0])
@pytest.mark.parametrize("name", ["uniform", "normal", "bernoulli"])
def test_scaled_noise_is_the_same_draw_times_its_scale(digits, name, scale):
    plain, scaled = (draw(digits, name, count=300, scale=factor) for factor in (1.0, scale))
    np.testing.assert_allclose(scaled, scale * plain, rtol=1e-6)


@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
def test_bernoulli_noise_is_at_its_ends_with_its_probability(digits, probability):
    inputs = draw(digits, "bernoulli", scale=0.5, probability=probability)
    assert set(np.unique(inputs)) <= {np.float32(-0.5), np.float32(0.5)}
    spread = (probability * (1 - probability) / inputs.size) ** 0.5
    assert np.mean(inputs > 0) == pytest.approx(probability, abs=4 * spread)


def test_fresh_inputs_are_the_same_draw_as_fixed_ones_of_that_epoch(digits):
    """Whether there is a draw an epoch is for the stages to say."""
    for name in (*NOISE, *DRAWN_WITH_IMAGES):
        fixed, fresh = (draw(digits, name, count=50, fresh=fresh) for fresh in (False, True))
        np.testing.assert_array_equal(fixed, fresh)


def test_the_first_classes_are_kept_with_their_images_in_their_order(digits):
    kept = data.keep_classes(digits, 4)
    assert kept.classes == 4
    for images, labels, all_images, all_labels in (
        (kept.train_images, kept.train_labels, digits.train_images, digits.train_labels),
        (kept.test_images, kept.test_labels, digits.test_images, digits.test_labels),
    ):
        assert set(labels) == {0, 1, 2, 3}
        rows = [i for i, label in enumerate(all_labels) if label < 4]
        np.testing.assert_array_equal(images, all_images[rows])
        np.testing.assert_array_equal(labels, all_labels[rows])
    # What was read from the disk is still the same.
    assert (kept.sha256, kept.name) == (digits.sha256, "digits")
    assert len(digits.train_images) == 1437


def test_no_classes_or_all_of_them_keep_the_whole(digits):
    for classes in (0, 10):
        assert data.keep_classes(digits, classes) is digits


def test_kinds_made_of_images_use_the_kept_ones_alone(digits):
    kept = replace(data.keep_classes(digits, 2), name="digits")
    np.testing.assert_array_equal(draw(kept, "images"), kept.train_images)
    assert len(draw(kept, "mixture")) == len(kept.train_images) < 400
