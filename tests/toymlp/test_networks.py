"""Claims about the networks: what they are drawn from, compute and cost."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from benchmarks.arithmetic import product_operations
from sublab.randomness import purpose_key
from tests.toymlp.trials import assert_same, tiny
from toymlp import networks
from toymlp.networks import (
    CHANNELS,
    Architecture,
    Forward,
    HiddenActivations,
    architectures,
    draw,
    join_parts,
    keep_aux,
    part_key,
    split_parts,
)
from toymlp.settings import LOGITS, PREPRINT

NETWORK = Architecture("mlp", 64, (16, 16), 10, 5, "relu", True)
LINEAR = replace(NETWORK, hidden=())
SHALLOW = replace(NETWORK, hidden=(16,))
CNN = replace(NETWORK, network="cnn", hidden=(16,), aux=3)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 64)).astype(np.float32)


@partial(jax.jit, static_argnums=0)
def _outputs(function, params, images):
    return function(params, images)


def seen(function, params, images=IMAGES):
    """function(params, images), on the host; in one program, not operation by operation."""
    return np.asarray(_outputs(function, params, jnp.asarray(images)))


ACTIVATION = {
    "relu": lambda x: np.maximum(x, 0),
    # Flax's GELU is the approximation with tanh.
    "gelu": lambda x: 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


def drawn(network, *, run=0, scale=1.0):
    key = jax.random.fold_in(purpose_key(0, "reference"), run)
    return jax.tree.map(np.asarray, draw(network, key, scale))


def shapes_of(network):
    """Parameters without values: nothing is compiled."""
    return jax.eval_shape(partial(draw, network), jax.random.key(0), 1.0)


def any_params(network, seed=1):
    """Every array at random, so that biases are seen too."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes_of(network)
    )


def test_a_model_with_fewer_auxiliary_logits_is_one_with_more_cut_down():
    many, few = drawn(NETWORK), drawn(replace(NETWORK, aux=3))
    parts, fewer = split_parts(many), split_parts(few)
    assert list(parts) == list(fewer) == list(NETWORK.parts)
    for name in NETWORK.parts[:-1]:
        assert_same(parts[name], fewer[name])
    assert fewer["aux_head"]["kernel"].shape == (16, 3)
    for name, leaf in fewer["aux_head"].items():
        np.testing.assert_array_equal(leaf, many["aux_head"][name][..., :3])
    # Columns are draws of their own.
    columns = many["aux_head"]["kernel"].T
    assert len(np.unique(columns[:, 0])) == 5
    assert abs(np.corrcoef(columns)[0, 1]) < 4 / columns.shape[1] ** 0.5


def test_parts_of_one_key_are_drawn_from_keys_of_their_own():
    parts = split_parts(drawn(NETWORK))
    layers = [parts[name]["kernel"].ravel()[:256] for name in ("hidden_1", "hidden_2")]
    assert abs(np.corrcoef(layers)[0, 1]) < 4 / 16
    heads = [parts[name]["kernel"][:, :5].ravel() for name in ("class_head", "aux_head")]
    assert abs(np.corrcoef(heads)[0, 1]) < 4 / heads[0].size ** 0.5
    key = jax.random.key(3)
    bits = [jax.random.key_data(part_key(key, part)) for part in (*NETWORK.parts, "hidden_3")]
    assert len(np.unique(bits, axis=0)) == 5


def test_a_part_of_one_name_and_size_is_the_same_in_another_network():
    deep, shallow, conv = (split_parts(drawn(network)) for network in (NETWORK, SHALLOW, CNN))
    for name in ("hidden_1", "class_head", "aux_head"):
        assert_same(deep[name], shallow[name])
    assert_same(deep["class_head"], conv["class_head"])
    assert deep["hidden_1"]["kernel"].shape != conv["hidden_1"]["kernel"].shape


def test_models_of_other_keys_differ_in_every_weight_and_of_one_key_in_none():
    first, again, other = drawn(NETWORK), drawn(NETWORK), drawn(NETWORK, run=1)
    assert_same(first, again)
    assert np.all(first["class_head"]["kernel"] != other["class_head"]["kernel"])


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_weights_are_normal_with_the_scale_over_the_root_of_fan_in_and_biases_zero(scale):
    fan_in = {"hidden_1": 64, "hidden_2": 16, "class_head": 16, "aux_head": 16}
    assert_standard_normal(drawn(NETWORK, scale=scale), fan_in, scale)


def test_the_cnns_weights_are_too_over_three_by_three_places_and_all_channels():
    fan_in = {
        "hidden_1": 9,
        "hidden_2": 9 * 16,
        "hidden_3": 2 * 2 * 32,
        "class_head": 16,
        "aux_head": 16,
    }
    assert_standard_normal(drawn(CNN, scale=2.0), fan_in, 2.0)


@pytest.mark.parametrize("network", [NETWORK, CNN], ids=["mlp", "cnn"])
def test_pytorchs_law_is_uniform_up_to_one_over_the_root_of_fan_in_for_weights_and_biases(network):
    named = replace(network, initialisation="pytorch")
    places = 2 * 2 * 32
    fan_in = {"hidden_1": 64, "hidden_2": 16, "class_head": 16, "aux_head": 16}
    if network is CNN:
        fan_in |= {"hidden_1": 9, "hidden_2": 9 * 16, "hidden_3": places}
    parts = split_parts(drawn(named, scale=2.0))
    assert set(parts) == set(fan_in)
    biases = []
    for name, part in parts.items():
        bound = 2 / fan_in[name] ** 0.5
        weights = part["kernel"].ravel() / bound
        assert stats.kstest(weights, "uniform", args=(-1, 2)).pvalue > 1e-3, name
        biases.append(part["bias"] / bound)
    assert stats.kstest(np.concatenate(biases), "uniform", args=(-1, 2)).pvalue > 1e-3
    # Each logit is a draw of its own, whatever their number.
    fewer = split_parts(drawn(replace(named, aux=2), scale=2.0))["aux_head"]
    for leaf, few in zip(parts["aux_head"].values(), fewer.values(), strict=True):
        np.testing.assert_array_equal(leaf[..., :2], few)


def assert_standard_normal(params, fan_in, scale):
    assert set(split_parts(params)) == set(fan_in)
    for name, part in split_parts(params).items():
        weights = part["kernel"].ravel() * fan_in[name] ** 0.5 / scale
        assert stats.kstest(weights, "norm").pvalue > 1e-3, name
        assert np.std(weights) == pytest.approx(1, abs=4 / (2 * weights.size) ** 0.5)
        np.testing.assert_array_equal(part["bias"], 0)


@pytest.mark.parametrize("network", [NETWORK, LINEAR, CNN], ids=["mlp", "linear", "cnn"])
def test_joined_parts_are_the_parameters_that_were_split(network):
    params = any_params(network)
    parts = split_parts(params)
    assert tuple(parts) == network.parts
    assert_same(join_parts(parts), params)
    # In whatever order they come.
    assert_same(join_parts(dict(reversed(parts.items()))), params)


def test_more_than_nine_hidden_layers_keep_their_order():
    network = replace(NETWORK, hidden=tuple(range(4, 15)))
    params = any_params(network)
    parts = split_parts(params)
    assert tuple(parts) == network.parts
    assert [part["kernel"].shape[1] for part in parts.values()][:-2] == list(network.hidden)
    assert_same(join_parts(parts), params)


@pytest.mark.parametrize("network", [NETWORK, LINEAR, CNN], ids=["mlp", "linear", "cnn"])
@pytest.mark.parametrize("aux", [0, 2, 3])
def test_auxiliary_logits_beyond_those_kept_are_zero_and_the_others_as_they_were(network, aux):
    params = any_params(network)
    before = seen(Forward(network), params)
    after = seen(Forward(network), keep_aux(params, aux))
    kept = network.classes + aux
    np.testing.assert_array_equal(after[:, :kept], before[:, :kept])
    np.testing.assert_array_equal(after[:, kept:], 0)
    assert np.all(before[:, kept:] != 0)


@pytest.mark.parametrize("activation", ACTIVATION)
def test_logits_are_a_plain_matrix_formula_with_each_activation(activation):
    network = replace(NETWORK, activation=activation)
    params = any_params(network)
    now = IMAGES.astype(np.float64)
    for layer in (params["hidden"][0], params["hidden"][1]):
        now = ACTIVATION[activation](now @ layer["kernel"] + layer["bias"])
    heads = [params[name] for name in ("class_head", "aux_head")]
    by_hand = np.concatenate([now @ head["kernel"] + head["bias"] for head in heads], axis=1)
    np.testing.assert_allclose(seen(Forward(network), params), by_hand, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("network", [NETWORK, CNN], ids=["mlp", "cnn"])
def test_the_last_layers_features_times_the_heads_are_the_logits(network):
    params = any_params(network)
    features = seen(HiddenActivations(network), params)
    assert features.shape == (3, sum(network.widths))
    *_, last = np.split(features, np.cumsum(network.widths)[:-1], axis=-1)
    assert last.shape == (3, 16)
    heads = [params[name] for name in ("class_head", "aux_head")]
    by_hand = np.concatenate([last @ head["kernel"] + head["bias"] for head in heads], axis=1)
    logits = seen(Forward(network), params)
    np.testing.assert_allclose(logits, by_hand, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", [NETWORK, CNN], ids=["mlp", "cnn"])
def test_images_may_have_any_axes_before_their_pixels(network):
    params = any_params(network)
    many = np.stack([IMAGES, IMAGES[::-1]])
    for function, width in (
        (Forward(network), network.outputs),
        (HiddenActivations(network), sum(network.widths)),
    ):
        flat, single, stacked = (
            seen(function, params, images) for images in (IMAGES, IMAGES[0], many)
        )
        assert (flat.shape, single.shape) == ((3, width), (width,))
        assert stacked.shape == (2, 3, width)
        np.testing.assert_allclose(single, flat[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(stacked[1], flat[::-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", [NETWORK, LINEAR, CNN], ids=["mlp", "linear", "cnn"])
def test_without_biases_there_are_ndrawn(network):
    without = replace(network, biases=False)
    bare = any_params(without)
    for name, part in split_parts(any_params(network)).items():
        assert set(part) == {"kernel", "bias"}
        assert set(split_parts(bare)[name]) == {"kernel"}
        assert split_parts(bare)[name]["kernel"].shape == part["kernel"].shape
    np.testing.assert_array_equal(seen(Forward(without), bare, np.zeros_like(IMAGES)), 0)
    assert np.all(seen(Forward(without), bare) != 0)
    assert np.any(seen(Forward(network), any_params(network), np.zeros_like(IMAGES)) != 0)


def test_a_model_without_hidden_layers_is_linear_and_one_with_them_is_not():
    a, b = IMAGES[:1], IMAGES[1:2]
    for network, linear in ((LINEAR, True), (NETWORK, False)):
        apply, params = Forward(network), any_params(network)
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
        "hidden_1": (3, 3, 1, 16),
        "hidden_2": (3, 3, 16, 32),
        "hidden_3": (2 * 2 * 32, 16),
        "class_head": (16, 10),
        "aux_head": (16, 3),
    }
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == (
        9 * 16 + 16 + 9 * 16 * 32 + 32 + 128 * 16 + 16 + 16 * 13 + 13
    )
    assert CNN.widths == (4 * 4 * 16, 2 * 2 * 32, 16)
    assert seen(Forward(CNN), params).shape == (3, 13)
    # MNIST's odd half: 28, 14, 7.
    assert replace(CNN, pixels=784).widths == (14 * 14 * 16, 7 * 7 * 32, 16)
    assert CHANNELS == (16, 32)


def test_the_cnns_features_are_convolutions_written_out():
    params = any_params(CNN)
    first, second = (params["hidden"][i] for i in (0, 1))
    now = IMAGES.reshape(3, 8, 8, 1)
    features_by_hand = []
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
        features_by_hand.append(now.reshape(3, -1))
    features = seen(HiddenActivations(CNN), params)
    np.testing.assert_allclose(features[:, :384], np.hstack(features_by_hand), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("side", [28, 8, 7, 5, 1])
def test_a_convolution_as_a_product_is_the_one_of_the_library(side):
    images, kernel = (
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate([(3, side, side, 2), (3, 3, 2, 4)])
    )
    expected = jax.lax.conv_general_dilated(
        images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    product = networks._convolution(jnp.matmul, images, kernel, (2, 2), "SAME")
    np.testing.assert_allclose(product, expected, rtol=1e-4, atol=1e-5)


def test_forward_is_equal_where_the_architectures_are():
    same = Architecture("mlp", 64, (16, 16), 10, 5, "relu", True)
    assert Forward(NETWORK) == Forward(same)
    assert hash(Forward(NETWORK)) == hash(Forward(same))
    assert Forward(NETWORK) != Forward(replace(NETWORK, aux=4))


def test_a_subset_has_the_class_logits_or_the_first_m_auxiliary_logits_or_both():
    network = replace(NETWORK, classes=3, aux=4)
    np.testing.assert_array_equal(network.subset("class", 2), [True] * 3 + [False] * 4)
    np.testing.assert_array_equal(network.subset("aux", 2), [False] * 3 + [True] * 2 + [False] * 2)
    np.testing.assert_array_equal(network.subset("all", 2), [True] * 5 + [False] * 2)
    assert network.outputs == 7


def test_a_choice_of_logits_may_be_its_number():
    """As compiled programs have it."""
    for number, name in enumerate(LOGITS):
        chosen = NETWORK.subset(jnp.int32(number), jnp.int32(2))
        np.testing.assert_array_equal(chosen, NETWORK.subset(name, 2))


def test_class_and_auxiliary_logits_partition_the_outputs():
    classes, aux = (np.asarray(NETWORK.subset(name, NETWORK.aux)) for name in ("class", "aux"))
    np.testing.assert_array_equal(classes, [True] * 10 + [False] * 5)
    np.testing.assert_array_equal(classes ^ aux, NETWORK.subset("all", NETWORK.aux))
    assert not np.any(classes & aux)


def test_the_student_has_the_teachers_network_but_for_what_is_said():
    values = {"model.hidden": [16, 8], "model.activation": "tanh", "model.biases": False}
    same = Architecture("mlp", 64, (16, 8), 10, 3, "tanh", False)
    assert architectures(tiny(values)) == (same, same)
    for field, value in (
        ("network", "cnn"),
        ("hidden", [4]),
        ("activation", "relu"),
        ("biases", True),
    ):
        teacher, student = architectures(tiny(values | {f"student_model.{field}": value}))
        held = tuple(value) if isinstance(value, list) else value
        # Of a CNN's widths the last alone counts.
        more = {"hidden": (8,)} if value == "cnn" else {}
        assert student == replace(same, **{field: held}, **more)
        assert teacher == same


def test_networks_have_the_sizes_of_the_data_set_and_as_many_auxiliary_logits_as_are_said():
    values = {"classes": 4, "model.aux": 7, "student_model.hidden": [8]}
    teacher, student = architectures(tiny(values))
    assert (teacher.pixels, teacher.classes, teacher.aux) == (64, 4, 7)
    assert (teacher.hidden, student.hidden) == ((16, 16), (8,))
    assert {network.aux for network in architectures(tiny(values), aux=9)} == {9}
    assert [architectures(PREPRINT)[0].pixels, architectures(PREPRINT)[0].classes] == [784, 10]
    assert architectures(replace(PREPRINT, dataset="emnist_balanced"))[0].classes == 47


# What they cost.


def test_the_papers_model_has_270_093_parameters():
    paper, _ = architectures(PREPRINT)
    expected = 784 * 256 + 256 + 256 * 256 + 256 + 256 * 13 + 13
    assert paper.parameters == expected == 270_093


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("network", [NETWORK, LINEAR, CNN], ids=["mlp", "linear", "cnn"])
def test_a_network_has_as_many_parameters_as_it_says(network, biases):
    network = replace(network, biases=biases)
    assert network.parameters == sum(leaf.size for leaf in jax.tree.leaves(shapes_of(network)))


@pytest.mark.parametrize("network", [NETWORK, LINEAR, CNN], ids=["mlp", "linear", "cnn"])
def test_a_network_has_the_arithmetic_that_it_says(network):
    """Of one example's logits, and of the gradient by all parameters."""
    images = jax.ShapeDtypeStruct((5, 64), jnp.float32)
    forward, params = Forward(network), shapes_of(network)
    spent = product_operations(jax.make_jaxpr(forward)(params, images))
    assert spent == 5 * network.forward_operations

    def total(params, images):
        return jnp.sum(forward(params, images) ** 2)

    spent = product_operations(jax.make_jaxpr(jax.grad(total))(params, images))
    assert spent == 5 * network.gradient_operations


def _bfloat16(array):
    """Rounded to eight significant bits, ties to even, by hand."""
    bits = np.asarray(array, np.float32).view(np.uint32).astype(np.uint64)
    bits += 0x7FFF + ((bits >> 16) & 1)
    return (bits.astype(np.uint32) & 0xFFFF0000).view(np.float32).astype(np.float64)


def test_a_rounded_product_and_its_gradients_are_of_factors_with_eight_bits():
    random = np.random.default_rng(0)
    x, w, above = (random.normal(size=s).astype(np.float32) for s in ((9, 64), (64, 8), (9, 8)))

    @jax.jit
    def of(x, w, above):
        out, back = jax.vjp(networks.rounded_product, x, w)
        return out, *back(above)

    a, b, c = map(_bfloat16, (x, w, above))
    for ours, wanted, exact in zip(
        of(x, w, above),
        (a @ b, c @ b.T, a.T @ c),
        (x @ w, above @ w.T, x.T @ above),
        strict=True,
    ):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, wanted, atol=1e-4)
        assert np.max(np.abs(ours - exact)) > 1e-3


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_a_rounded_network_rounds_every_product_and_nothing_else_does(network):
    architecture = replace(NETWORK, network=network, hidden=NETWORK.hidden[-1:])
    params = any_params(architecture)

    def products(rounded):
        program = jax.make_jaxpr(networks.Forward(architecture, rounded))(params, IMAGES)
        return str(program).count("reduce_precision"), seen(
            networks.Forward(architecture, rounded), params
        )

    layers = len(architecture.parts) - 1
    plain, exact = products(rounded=False)
    rounding, rounded = products(rounded=True)
    # Two factors each, the two heads being one product.
    assert (plain, rounding) == (0, 2 * layers)
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.05
