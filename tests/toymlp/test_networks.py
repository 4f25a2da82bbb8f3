"""Claims about the networks of the sweeps."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sublab.randomness import run_keys
from toymlp import networks
from toymlp.networks import (
    CHANNELS,
    Apply,
    Features,
    Plan,
    draw,
    join_parts,
    keep_aux,
    part_key,
    split_parts,
    student_plan,
    teacher_plan,
)
from toymlp.settings import Shape

PLAN = Plan("mlp", 64, (16, 16), 10, 5, "relu", True)
LINEAR = replace(PLAN, hidden=())
SHALLOW = replace(PLAN, hidden=(16,))
CNN = replace(PLAN, network="cnn", hidden=(16,), aux=3)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 64)).astype(np.float32)


def seen(function, params, images=IMAGES):
    """function(params, images), on the host."""
    return np.asarray(function(params, jnp.asarray(images)))


ACTIVATION = {
    "relu": lambda x: np.maximum(x, 0),
    # Flax's GELU is the approximation with tanh.
    "gelu": lambda x: 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


def drawn(plan, *, runs=(0, 1), scale=1.0):
    keys = run_keys(0, "reference", jnp.asarray(runs))
    params = draw(plan, keys, jnp.full(len(runs), scale, jnp.float32))
    return jax.tree.map(np.asarray, params)


def one(plan):
    return jax.tree.map(lambda leaf: leaf[0], drawn(plan))


def shapes_of(plan):
    """Parameters without values: nothing is compiled."""
    many = jax.eval_shape(
        partial(draw, plan), run_keys(0, "any", jnp.arange(1)), jnp.ones(1, jnp.float32)
    )
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), many)


def any_params(plan, seed=1):
    """Every array at random, so that biases are seen too."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes_of(plan)
    )


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_model_with_fewer_auxiliary_logits_is_one_with_more_cut_down():
    many, few = one(PLAN), one(replace(PLAN, aux=3))
    parts, fewer = split_parts(many), split_parts(few)
    assert list(parts) == list(fewer) == list(PLAN.parts)
    for name in PLAN.parts[:-1]:
        assert_same(parts[name], fewer[name])
    assert fewer["aux_head"]["kernel"].shape == (16, 3)
    for name, leaf in fewer["aux_head"].items():
        np.testing.assert_array_equal(leaf, many["aux_head"][name][..., :3])
    # Columns are draws of their own.
    columns = many["aux_head"]["kernel"].T
    assert len(np.unique(columns[:, 0])) == 5
    assert abs(np.corrcoef(columns)[0, 1]) < 4 / columns.shape[1] ** 0.5


def test_parts_of_one_key_are_drawn_from_keys_of_their_own():
    parts = split_parts(one(PLAN))
    layers = [parts[name]["kernel"].ravel()[:256] for name in ("hidden_1", "hidden_2")]
    assert abs(np.corrcoef(layers)[0, 1]) < 4 / 16
    heads = [parts[name]["kernel"][:, :5].ravel() for name in ("class_head", "aux_head")]
    assert abs(np.corrcoef(heads)[0, 1]) < 4 / heads[0].size ** 0.5
    key = jax.random.key(3)
    bits = [jax.random.key_data(part_key(key, part)) for part in (*PLAN.parts, "hidden_3")]
    assert len(np.unique(bits, axis=0)) == 5


def test_a_part_of_one_name_and_size_is_the_same_in_another_network():
    mine, shallow, conv = (split_parts(one(plan)) for plan in (PLAN, SHALLOW, CNN))
    for name in ("hidden_1", "class_head", "aux_head"):
        assert_same(mine[name], shallow[name])
    assert_same(mine["class_head"], conv["class_head"])
    assert mine["hidden_1"]["kernel"].shape != conv["hidden_1"]["kernel"].shape


def test_a_model_of_a_population_does_not_depend_on_the_others():
    one, other = drawn(PLAN), drawn(PLAN, runs=(1, 7))
    assert_same(jax.tree.map(lambda leaf: leaf[1], one), jax.tree.map(lambda leaf: leaf[0], other))
    kernel = one["class_head"]["kernel"]
    assert np.all(kernel[0] != kernel[1])


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_weights_are_normal_with_the_scale_over_the_root_of_fan_in_and_biases_zero(scale):
    fan_in = {"hidden_1": 64, "hidden_2": 16, "class_head": 16, "aux_head": 16}
    assert_standard_normal(drawn(PLAN, scale=scale), fan_in, scale)


def test_the_cnns_weights_are_too_over_three_by_three_places_and_all_channels():
    fan_in = {"hidden_1": 9, "hidden_2": 9 * 16, "hidden_3": 2 * 2 * 32, "class_head": 16,
              "aux_head": 16}  # fmt: skip
    assert_standard_normal(drawn(CNN, scale=2.0), fan_in, 2.0)


def assert_standard_normal(params, fan_in, scale):
    assert set(split_parts(params)) == set(fan_in)
    for name, part in split_parts(params).items():
        weights = part["kernel"].ravel() * fan_in[name] ** 0.5 / scale
        assert stats.kstest(weights, "norm").pvalue > 1e-3, name
        assert np.std(weights) == pytest.approx(1, abs=4 / (2 * weights.size) ** 0.5)
        np.testing.assert_array_equal(part["bias"], 0)


@pytest.mark.parametrize("plan", [PLAN, LINEAR, CNN], ids=["mlp", "linear", "cnn"])
def test_joined_parts_are_the_parameters_that_were_split(plan):
    params = any_params(plan)
    parts = split_parts(params)
    assert tuple(parts) == plan.parts
    assert_same(join_parts(parts), params)
    # In whatever order they come.
    assert_same(join_parts(dict(reversed(parts.items()))), params)


def test_more_than_nine_hidden_layers_keep_their_order():
    plan = replace(PLAN, hidden=tuple(range(4, 15)))
    params = any_params(plan)
    parts = split_parts(params)
    assert tuple(parts) == plan.parts
    assert [part["kernel"].shape[1] for part in parts.values()][:-2] == list(plan.hidden)
    assert_same(join_parts(parts), params)


@pytest.mark.parametrize("plan", [PLAN, LINEAR, CNN], ids=["mlp", "linear", "cnn"])
@pytest.mark.parametrize("aux", [0, 2, 3])
def test_auxiliary_logits_beyond_those_kept_are_zero_and_the_others_as_they_were(plan, aux):
    params = any_params(plan)
    before = seen(Apply(plan), params)
    after = seen(Apply(plan), keep_aux(params, aux))
    kept = plan.classes + aux
    np.testing.assert_array_equal(after[:, :kept], before[:, :kept])
    np.testing.assert_array_equal(after[:, kept:], 0)
    assert np.all(before[:, kept:] != 0)


@pytest.mark.parametrize("activation", ACTIVATION)
def test_logits_are_a_plain_matrix_formula_with_each_activation(activation):
    plan = replace(PLAN, activation=activation)
    params = any_params(plan)
    now = IMAGES.astype(np.float64)
    for layer in (params["hidden"][0], params["hidden"][1]):
        now = ACTIVATION[activation](now @ layer["kernel"] + layer["bias"])
    heads = [params[name] for name in ("class_head", "aux_head")]
    by_hand = np.concatenate([now @ head["kernel"] + head["bias"] for head in heads], axis=1)
    np.testing.assert_allclose(seen(Apply(plan), params), by_hand, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("plan", [PLAN, CNN], ids=["mlp", "cnn"])
def test_the_last_layers_features_times_the_heads_are_the_logits(plan):
    params = any_params(plan)
    features = seen(Features(plan), params)
    assert features.shape == (3, sum(plan.widths))
    *_, last = np.split(features, np.cumsum(plan.widths)[:-1], axis=-1)
    assert last.shape == (3, 16)
    heads = [params[name] for name in ("class_head", "aux_head")]
    by_hand = np.concatenate([last @ head["kernel"] + head["bias"] for head in heads], axis=1)
    logits = seen(Apply(plan), params)
    np.testing.assert_allclose(logits, by_hand, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("plan", [PLAN, CNN], ids=["mlp", "cnn"])
def test_images_may_have_any_axes_before_their_pixels(plan):
    params = any_params(plan)
    many = np.stack([IMAGES, IMAGES[::-1]])
    for function, width in ((Apply(plan), plan.outputs), (Features(plan), sum(plan.widths))):
        flat, single, stacked = (seen(function, params, some) for some in (IMAGES, IMAGES[0], many))
        assert (flat.shape, single.shape) == ((3, width), (width,))
        assert stacked.shape == (2, 3, width)
        np.testing.assert_allclose(single, flat[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(stacked[1], flat[::-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("plan", [PLAN, LINEAR, CNN], ids=["mlp", "linear", "cnn"])
def test_without_biases_there_are_none(plan):
    without = replace(plan, biases=False)
    bare = any_params(without)
    for name, part in split_parts(any_params(plan)).items():
        assert set(part) == {"kernel", "bias"}
        assert set(split_parts(bare)[name]) == {"kernel"}
        assert split_parts(bare)[name]["kernel"].shape == part["kernel"].shape
    np.testing.assert_array_equal(seen(Apply(without), bare, np.zeros_like(IMAGES)), 0)
    assert np.all(seen(Apply(without), bare) != 0)
    assert np.any(seen(Apply(plan), any_params(plan), np.zeros_like(IMAGES)) != 0)


def test_a_model_without_hidden_layers_is_linear_and_one_with_them_is_not():
    a, b = IMAGES[:1], IMAGES[1:2]
    for plan, linear in ((LINEAR, True), (PLAN, False)):
        apply, params = Apply(plan), any_params(plan)
        offset = seen(apply, params, np.zeros_like(a))
        of_sum = seen(apply, params, 2 * a - 3 * b) - offset
        sum_of = 2 * (seen(apply, params, a) - offset) - 3 * (seen(apply, params, b) - offset)
        assert np.allclose(of_sum, sum_of, rtol=1e-3, atol=1e-3) == linear
    assert LINEAR.parts == ("class_head", "aux_head")
    assert LINEAR.widths == ()
    assert set(shapes_of(LINEAR)) == {"class_head", "aux_head"}


def test_the_cnn_has_two_convolutions_of_stride_two_and_one_dense_layer():
    params = any_params(CNN)
    shapes = {name: part["kernel"].shape for name, part in split_parts(params).items()}
    assert shapes == {
        "hidden_1": (3, 3, 1, 16), "hidden_2": (3, 3, 16, 32), "hidden_3": (2 * 2 * 32, 16),
        "class_head": (16, 10), "aux_head": (16, 3),
    }  # fmt: skip
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == (
        9 * 16 + 16 + 9 * 16 * 32 + 32 + 128 * 16 + 16 + 16 * 13 + 13
    )
    assert CNN.widths == (4 * 4 * 16, 2 * 2 * 32, 16)
    assert seen(Apply(CNN), params).shape == (3, 13)
    # MNIST's odd half: 28, 14, 7.
    assert replace(CNN, pixels=784).widths == (14 * 14 * 16, 7 * 7 * 32, 16)
    assert CHANNELS == (16, 32)


def test_the_cnns_features_are_convolutions_written_out():
    params = any_params(CNN)
    first, second = (params["hidden"][i] for i in (0, 1))
    now = IMAGES.reshape(3, 8, 8, 1)
    found = []
    for layer in (first, second):
        side = now.shape[1] // 2
        # An even side is padded below and on the right alone.
        padded = np.pad(now, ((0, 0), (0, 1), (0, 1), (0, 0)))
        out = np.empty((3, side, side, layer["kernel"].shape[-1]))
        for i in range(side):
            for j in range(side):
                window = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
                out[:, i, j] = np.tensordot(window, layer["kernel"], 3) + layer["bias"]
        now = np.maximum(out, 0)
        found.append(now.reshape(3, -1))
    features = seen(Features(CNN), params)
    np.testing.assert_allclose(features[:, :384], np.hstack(found), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("side", [28, 8, 7, 5, 1])
def test_a_convolution_as_a_product_is_the_one_of_the_library(side):
    images, kernel = (
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate([(3, side, side, 2), (3, 3, 2, 4)])
    )
    expected = jax.lax.conv_general_dilated(
        images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    found = networks._convolution(images, kernel, (2, 2), "SAME")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_apply_is_equal_where_the_plans_are():
    same = Plan("mlp", 64, (16, 16), 10, 5, "relu", True)
    assert Apply(PLAN) == Apply(same)
    assert hash(Apply(PLAN)) == hash(Apply(same))
    assert Apply(PLAN) != Apply(replace(PLAN, aux=4))


def test_a_subset_has_the_class_logits_or_the_first_m_auxiliary_logits_or_both():
    plan = replace(PLAN, classes=3, aux=4)
    np.testing.assert_array_equal(plan.subset("class", 2), [True] * 3 + [False] * 4)
    np.testing.assert_array_equal(plan.subset("aux", 2), [False] * 3 + [True] * 2 + [False] * 2)
    np.testing.assert_array_equal(plan.subset("all", 2), [True] * 5 + [False] * 2)
    assert plan.outputs == 7


def test_the_student_has_the_teachers_network_but_for_what_is_said():
    shape = Shape(hidden=(16, 8), activation="tanh", biases=False)
    teacher = teacher_plan(shape, 64, 10, 3)
    assert teacher == Plan("mlp", 64, (16, 8), 10, 3, "tanh", False)
    assert student_plan(shape, 64, 10, 3) == teacher
    for field, value, in_plan in (
        ("student_network", "cnn", "network"),
        ("student_hidden", (4,), "hidden"),
        ("student_activation", "relu", "activation"),
        ("student_biases", True, "biases"),
    ):
        other = replace(shape, **{field: value})
        assert student_plan(other, 64, 10, 3) == replace(teacher, **{in_plan: value})
        assert teacher_plan(other, 64, 10, 3) == teacher
