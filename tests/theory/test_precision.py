"""Claims about the precision of products: float32 stays float32, whatever the machine rounds.

A GPU's default rounds the factors of a float32 product to TF32. The models here do the same to
their factors, wherever nothing asks for the highest precision while they are traced.
"""

import inspect
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import theory
from tests.programs import HIGHEST, precisions
from theory import passes
from theory.losses import class_cross_entropy

EPS = np.array([0.003, 0.03])
LOSS = theory.matching(theory.softmax_potential(jnp.ones(4, bool)))


@pytest.fixture(autouse=True)
def float32() -> Iterator[None]:
    with jax.enable_x64(False):
        yield


@jax.custom_jvp
def tf32(x):
    """The nearest number with 10 bits of mantissa."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    return jax.lax.bitcast_convert_type((bits + 0x1000) & ~0x1FFF, jnp.float32)


# Its derivative, for this purpose, is that of the identity.
tf32.defjvps(lambda tangent, _, x: tangent)


def rounded_product(a, b):
    asked = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    return a @ b if asked == "highest" else tf32(a) @ tf32(b)


def network(product, params, inputs):
    return product(jnp.tanh(product(inputs, params["first"])), params["second"])


@pytest.fixture(name="setting")
def make_setting():
    """Parameters, a direction and inputs of a small network, in float32."""
    random = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    params, direction = ({"first": draw(20, 16) / 4, "second": draw(16, 4) / 4} for _ in range(2))
    return params, direction, draw(64, 20)


def test_rounding_to_tf32_keeps_10_bits_of_mantissa():
    values = jnp.array([1.0, 1 + 2**-10, 1 + 2**-11 - 2**-20, 1 + 2**-11, -3.14159], jnp.float32)
    expected = [1.0, 1 + 2**-10, 1.0, 1 + 2**-10, -3.140625]
    np.testing.assert_array_equal(tf32(values), np.array(expected, np.float32))


def test_where_products_are_rounded_the_curve_is_float32s_within_its_own_bound(
    setting, monkeypatch
):
    params, direction, inputs = setting

    def curve(product):
        # A new function each time, so that nothing is reused from another precision.
        apply = partial(network, product)
        return theory.curve(apply, LOSS, params, direction, EPS, inputs)

    exact = curve(jnp.matmul)

    def miss(product):
        found = curve(product)
        gap = jnp.abs(found.inner_product - exact.inner_product) / exact.rounding
        return float(jnp.max(gap)), float(jnp.max(jnp.abs(found.rho / exact.rho - 1)))

    gap, rho = miss(rounded_product)
    assert gap <= 1
    assert rho < 1e-3
    monkeypatch.setattr(passes, "_PRODUCTS", None)
    gap, rho = miss(rounded_product)
    assert gap > 3
    assert rho > 10


def test_where_products_are_rounded_direction_and_inner_product_are_float32s(setting, monkeypatch):
    params, direction, inputs = setting
    teacher = passes.step(params, direction, 0.003)

    def numbers(product):
        apply = partial(network, product)
        student = theory.student_direction(apply, LOSS, params, teacher, inputs)
        product = theory.inner_product(apply, LOSS, params, direction, teacher, inputs)
        return np.array([product, passes.inner(student, direction)])

    exact = numbers(jnp.matmul)
    np.testing.assert_allclose(numbers(rounded_product), exact, rtol=1e-5)
    monkeypatch.setattr(passes, "_PRODUCTS", None)
    assert (np.abs(numbers(rounded_product) / exact - 1) > 3e-4).all()


def convolutional(params, inputs):
    """A model that convolves, multiplies, and adds up by an einsum."""
    windows = jax.lax.conv_general_dilated(inputs[:, None, :], params["filter"], (1,), "VALID")
    return jnp.einsum("nco,oz->nz", jnp.tanh(windows), params["out"])


def quadratic_loss(z, y):
    return 0.5 * (z - y) @ jnp.diag(jnp.arange(1.0, 5.0)) @ (z - y)


def declared(loss):
    """The matching loss of loss(z, 0), which declares that it has no null space."""
    value = partial(loss, y=jnp.zeros(4))
    return theory.matching(value, lambda vector: vector)


PARAMS = {"filter": np.ones((2, 1, 3), np.float32), "out": np.ones((6, 4), np.float32)}
INPUTS = np.linspace(-1, 1, 40, dtype=np.float32).reshape(5, 8)
SIZES = np.array([0.1, 0.2], np.float32)
# What a test may do to each function, in terms of the parameters; `apply` and losses are new each
# time, so that each is traced anew.
CASES: dict[str, Callable] = {
    "bilinear_coefficient": lambda f, apply, loss, _, p: f(
        apply,
        loss,
        p,
        p,
        INPUTS,
        student_map=theory.diagonal(2.0),
        teacher_map=theory.diagonal(1.0),
    ),
    "coefficient": lambda f, apply, loss, _, p: f(apply, loss, p, p, INPUTS),
    "coefficient_by_example": lambda f, apply, loss, _, p: f(apply, loss, p, p, INPUTS),
    "coefficient_by_layer": lambda f, apply, loss, _, p: f(apply, loss, p, p, INPUTS),
    "coefficient_by_logit": lambda f, apply, loss, _, p: f(apply, loss, p, p, INPUTS),
    "conditions": lambda f, apply, loss, _, p: f(loss, apply(p, INPUTS), apply(p, INPUTS)),
    "curve": lambda f, apply, loss, _, p: f(apply, loss, p, p, SIZES, INPUTS),
    "descend": lambda f, apply, loss, _, p: f(
        apply, declared(loss), p, p, INPUTS, rate=0.1, steps=2
    ),
    "descend_labels": lambda f, apply, loss, _, p: f(
        apply, declared(loss), p, p, INPUTS, rate=0.1, steps=2
    ),
    "follow": lambda f, apply, loss, trait, p: f(
        trait, lambda q, batch: jnp.mean(apply(q, batch)), optax.sgd(0.1), p, INPUTS[None]
    ),
    "fisher_information": lambda f, apply, loss, _, p: f(apply, p, p, INPUTS),
    "gram": lambda f, apply, loss, _, p: f(
        apply, loss, p, jax.tree.map(lambda leaf: leaf[None], p), INPUTS
    ),
    "horizon": lambda f, apply, loss, _, p: f(apply, loss, p, p, INPUTS, largest=1.0),
    "inner_product": lambda f, apply, loss, _, p: f(apply, loss, p, p, p, INPUTS),
    "inner_product_by_example": lambda f, apply, loss, _, p: f(apply, loss, p, p, p, INPUTS),
    "inner_product_by_layer": lambda f, apply, loss, _, p: f(apply, loss, p, p, p, INPUTS),
    "inner_product_by_logit": lambda f, apply, loss, _, p: f(apply, loss, p, p, p, INPUTS),
    "inner_product_reverse": lambda f, apply, loss, _, p: f(apply, loss, p, p, p, INPUTS),
    "interval_certificate": lambda f, apply, loss, _, p: f(
        apply, declared(loss), p, p, INPUTS, largest=1.0, points=2
    ),
    "largest_rate": lambda f, apply, loss, _, p: f(apply, declared(loss), p, INPUTS),
    "nonlinearity": lambda f, apply, loss, _, p: f(apply, declared(loss), p, p, INPUTS),
    "other_start": lambda f, apply, loss, _, p: f(apply, loss, p, p, p, INPUTS),
    "project": lambda f, apply, loss, _, p: f(apply, declared(loss), p, p, INPUTS, iterations=2),
    "project_labels": lambda f, apply, loss, _, p: f(
        apply, declared(loss), p, p, INPUTS, iterations=2
    ),
    "safe_step": lambda f, apply, loss, trait, p: f(trait, p, p, SIZES),
    "scores": lambda f, apply, loss, _, p: f(apply, p, p, INPUTS, jnp.arange(5) % 4),
    "scores_along": lambda f, apply, loss, _, p: f(
        apply, p, jax.tree.map(lambda leaf: leaf[None], p), INPUTS, jnp.arange(5) % 4
    ),
    "spectrum": lambda f, apply, loss, _, p: f(apply, loss, p, p, INPUTS, products=2),
    "student_direction": lambda f, apply, loss, _, p: f(apply, loss, p, p, INPUTS, chunk=2),
    "teacher_direction": lambda f, apply, loss, trait, p: f(trait, p),
    "unit_of_eps": lambda f, apply, loss, _, p: f(apply, p, p, INPUTS),
    "transferred_gain": lambda f, apply, loss, trait, p: f(trait, p, p, p),
    "trait_change": lambda f, apply, loss, trait, p: f(apply, loss, trait, p, SIZES, SIZES, INPUTS),
    "untouched": lambda f, apply, loss, trait, p: f(trait, p),
}
# These look at known numbers, and cannot be traced as a whole.
UNTRACED = {"theorem_1", "require_conditions", "ignores_readout"}


def test_every_function_that_takes_a_model_or_a_loss_has_its_case():
    multiplying = {
        name
        for name in theory.__all__
        if inspect.isfunction(getattr(theory, name))
        and {"apply", "loss", "trait_loss"}
        & set(inspect.signature(getattr(theory, name)).parameters)
    }
    assert multiplying == CASES.keys() | UNTRACED


def asked_by(name: str) -> list[set]:
    def apply(params, inputs):
        return convolutional(params, inputs)

    def loss(z, y):
        return quadratic_loss(z, y)

    def trait(params):
        return jnp.mean(apply(params, INPUTS) ** 2)

    case = partial(CASES[name], getattr(theory, name), apply, loss, trait)
    return precisions(case, PARAMS)


@pytest.mark.parametrize("name", CASES)
def test_every_product_of_a_public_function_asks_for_the_highest_precision(name, monkeypatch):
    # The model of `conditions` is called by the case itself, outside the theory.
    outside = 4 if name == "conditions" else 0
    asked = asked_by(name)[outside:]
    assert len(asked) > 1
    assert all(precision == {HIGHEST} for precision in asked)
    monkeypatch.setattr(passes, "_PRODUCTS", None)
    assert not any(HIGHEST in precision for precision in asked_by(name))


def test_the_matching_loss_and_the_class_loss_ask_for_it_wherever_they_are_used():
    def class_loss(z, _):
        return class_cross_entropy(z, jnp.int32(1), jnp.ones(4, bool))

    for loss in (theory.matching(lambda z: z @ jnp.eye(4) @ z), class_loss):
        asked = precisions(jax.value_and_grad(loss), jnp.ones(4), jnp.ones(4))
        assert asked
        assert all(precision == {HIGHEST} for precision in asked)


def test_what_is_not_traced_as_a_whole_calls_models_and_losses_at_the_highest_precision():
    asked = []

    def note():
        asked.append(jax.config.jax_default_matmul_precision)  # pyright: ignore

    def apply(params, inputs):
        note()
        return inputs @ params

    def loss(z, y):
        note()
        return LOSS(z, y)

    params = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)))
    inputs = jnp.asarray(np.random.default_rng(2).normal(size=(6, 3)))

    def trait(params):
        note()
        return jnp.mean(jax.nn.logsumexp(apply(params, inputs), axis=1))

    theory.theorem_1(apply, loss, trait, params, SIZES, 0.1, inputs)
    theory.require_conditions(loss, inputs @ params, inputs @ params)
    assert len(asked) > 10
    before = len(asked)
    readout = theory.Readout(1, (0, 1))

    def regulariser(params, inputs):
        return trait(params) + jnp.sum(inputs)

    theory.ignores_readout(regulariser, params, readout, inputs, jax.random.key(0), probes=1)
    assert len(asked) > before
    before = len(asked)
    theory.commutation(jax.grad(trait), params, readout, (1, 0))
    assert len(asked) > before
    assert set(asked) == {"highest"}
