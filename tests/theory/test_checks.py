"""Arguments that cannot be used are refused by name, before anything is computed."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import theory
from theory import checks, passes


@pytest.fixture(autouse=True)
def types_unchecked() -> Iterator[None]:
    """A user's run has no type checker that would refuse first, in words of its own."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


PARAMS = {"w": np.ones((6, 1))}
INPUTS = np.linspace(-1, 1, 24).reshape(4, 6)
LOSS = theory.matching(theory.squared_potential(np.ones(1)))
EPS = np.array([0.1, 0.2])


def apply(p, x):
    return jnp.tanh(x @ p["w"])


def trait(p):
    return jnp.sum(p["w"] ** 2)


# Each function that takes a model, called with a given model and loss.
CALLS = {
    "student_direction": lambda f, m, loss, **k: f(m, loss, PARAMS, PARAMS, INPUTS, **k),
    "inner_product": lambda f, m, loss, **k: f(m, loss, PARAMS, PARAMS, PARAMS, INPUTS, **k),
    "inner_product_reverse": lambda f, m, loss, **k: f(
        m, loss, PARAMS, PARAMS, PARAMS, INPUTS, **k
    ),
    "coefficient": lambda f, m, loss, **k: f(m, loss, PARAMS, PARAMS, INPUTS, **k),
    "curve": lambda f, m, loss, **k: f(m, loss, PARAMS, PARAMS, EPS, INPUTS, **k),
    "horizon": lambda f, m, loss, **k: f(m, loss, PARAMS, PARAMS, INPUTS, largest=1.0, **k),
    "trait_change": lambda f, m, loss, **k: f(m, loss, trait, PARAMS, EPS, EPS, INPUTS, **k),
    "theorem_1": lambda f, m, loss, **k: f(m, loss, trait, PARAMS, EPS, 0.1, INPUTS, **k),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_model_or_loss_of_the_wrong_shape_is_refused(name):
    call = partial(CALLS[name], getattr(theory, name))
    for model, message in (
        (lambda p, x: apply(p, x)[:, 0], r"apply: .*it gives \[4\]; for one output an example"),
        (lambda p, x: apply(p, x).T, r"apply: logits need the axes .*it gives \[1, 4\]"),
        (lambda p, x: (apply(p, x), 1), "apply: must give one array of logits, gives a tuple"),
        (lambda p, x: apply(p, x) > 0, "apply: its logits must be floating point, is bool"),
        (
            lambda p, x: apply(p, x).astype(jnp.bfloat16),
            "apply: its logits must be float32 or float64, is bfloat16; cast it up",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call(model, LOSS)
    with pytest.raises(ValueError, match=r"loss: must give one number .* gives \(1,\)"):
        call(apply, lambda z, y: (z - y) ** 2)


def test_what_is_no_function_of_the_right_kind_is_refused():
    potential = theory.squared_potential(np.ones(1))
    with pytest.raises(ValueError, match=r"loss: is a potential; its loss is theory.matching"):
        theory.coefficient(apply, potential, PARAMS, PARAMS, INPUTS)  # pyright: ignore

    class Unhashable:
        __hash__ = None  # pyright: ignore[reportAssignmentType]

        def __call__(self, params, inputs):
            return apply(params, inputs)

    with pytest.raises(ValueError, match="apply: must be hashable"):
        theory.coefficient(Unhashable(), LOSS, PARAMS, PARAMS, INPUTS)
    with pytest.raises(ValueError, match="loss: must be hashable"):
        theory.coefficient(apply, Unhashable(), PARAMS, PARAMS, INPUTS)
    with pytest.raises(ValueError, match=r"trait_loss: must give one number, gives \(6, 1\)"):
        theory.teacher_direction(lambda p: p["w"], PARAMS)


def in_bfloat16(p, x):
    return apply(p, x).astype(jnp.bfloat16).astype(x.dtype)


@pytest.mark.parametrize(
    "model",
    [
        in_bfloat16,
        jax.jit(in_bfloat16),
        lambda p, x: jax.lax.map(lambda row: in_bfloat16(p, row[None])[0], x),
        lambda p, x: jax.lax.cond(jnp.sum(x) > 0, in_bfloat16, apply, p, x),
    ],
    ids=["at the top", "in a call", "in a loop", "in a branch"],
)
def test_low_precision_inside_a_model_is_refused(model):
    with pytest.raises(ValueError, match="apply: computes in bfloat16, whose rounding would pass"):
        theory.coefficient(model, LOSS, PARAMS, PARAMS, INPUTS)


@pytest.mark.parametrize("name", ["student_direction", "coefficient", "inner_product", "curve"])
def test_logits_that_are_no_number_are_said_to_be_so(name):
    with pytest.raises(ValueError, match="apply: its logits"):
        CALLS[name](getattr(theory, name), lambda p, x: apply(p, x) * jnp.nan, LOSS)
    with pytest.raises(ValueError, match="apply: its logits"):
        theory.unit_of_eps(lambda p, x: apply(p, x) * jnp.nan, PARAMS, PARAMS, INPUTS)


def test_the_leaf_of_the_inputs_that_is_at_fault_is_named():
    def of_image(p, x):
        return apply(p, x["image"])

    for key, said in ((np.ones(2), "2"), (np.array(1.0), "none")):
        with pytest.raises(ValueError, match=rf"inputs: .*; inputs\['key'\] has {said}"):
            theory.coefficient(
                of_image, LOSS, PARAMS, PARAMS, {"image": INPUTS, "mask": np.ones(4), "key": key}
            )


def test_the_tree_that_has_a_leaf_too_many_is_named():
    more = PARAMS | {"v": np.ones(1)}
    with pytest.raises(ValueError, match=r"direction: .*; only direction has \['v'\]"):
        theory.coefficient(apply, LOSS, PARAMS, more, INPUTS)
    with pytest.raises(ValueError, match=r"direction: .*; only params has \['v'\]"):
        theory.coefficient(apply, LOSS, more, PARAMS, INPUTS)


def test_a_least_eps_that_is_named_is_accepted():
    with jax.enable_x64(False):
        rng = np.random.default_rng(0)
        start, way = ({"w": jnp.asarray(rng.normal(size=(6, 1)), jnp.float32)} for _ in range(2))
        inputs = jnp.asarray(rng.normal(size=(40, 6)), jnp.float32)
        with pytest.raises(ValueError, match="it must be at least") as refusal:
            theory.curve(apply, LOSS, start, way, np.array([1e-8]), inputs)
        least = float(str(refusal.value).split("at least ")[1].split()[0])
        theory.curve(apply, LOSS, start, way, np.array([least]), inputs)
        with pytest.raises(ValueError, match="drowned"):
            theory.curve(apply, LOSS, start, way, np.array([0.8 * least]), inputs)


def test_masks_of_booleans_and_lists_of_sizes_are_taken():
    found = theory.coefficient(apply, LOSS, PARAMS, PARAMS, INPUTS, weights=np.arange(4) > 1)
    np.testing.assert_allclose(
        found, theory.coefficient(apply, LOSS, PARAMS, PARAMS, INPUTS[2:]), rtol=1e-12
    )
    listed: Any = [0.1, 0.2]
    theory.curve(apply, LOSS, PARAMS, PARAMS, listed, INPUTS)


@pytest.mark.parametrize("name", CALLS)
def test_weights_that_are_none_are_refused(name):
    call = partial(CALLS[name], getattr(theory, name), apply, LOSS)
    for weights, message in (
        (np.ones(5), r"weights: .*shape \[4\], or one an example, has shape \[5\]"),
        (np.ones((4, 1, 1)), r"weights: needs one number a row"),
        (np.array([2.0, -1, 0, 0]), "weights: must be finite, 0 or more"),
        (np.zeros(4), "weights: must be finite, 0 or more, and above 0 in at least one row"),
        (np.array([1.0, np.nan, 0, 0]), "weights: must be finite"),
        (np.array([1.0, np.inf, 0, 0]), "weights: must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            call(weights=weights)


def test_parameters_that_the_theory_cannot_work_in_are_refused():
    for bad, message in (
        (
            {"w": jnp.ones((6, 1), jnp.bfloat16)},
            r"params\['w'\]: must be float32 or float64, is bf",
        ),
        ({"w": np.ones((6, 1), np.float16)}, r"params\['w'\]: must be float32 or float64, is fl"),
        ({"w": 1.0}, r"params\['w'\]: must be an array, is a float"),
        ({"w": np.ones((6, 1), complex)}, r"params\['w'\]: must be floating point, is complex"),
    ):
        with pytest.raises(ValueError, match=message):
            theory.coefficient(apply, LOSS, bad, bad, INPUTS)
        with pytest.raises(ValueError, match=message):
            theory.teacher_direction(lambda p: jnp.sum(p["w"]), bad)


def test_sizes_that_are_no_row_of_numbers_are_refused():
    not_rows: list[Any] = [0.1, np.array([]), np.ones((2, 2))]
    for bad in not_rows:
        for call in (
            lambda bad: theory.curve(apply, LOSS, PARAMS, PARAMS, bad, INPUTS),
            lambda bad: theory.theorem_1(apply, LOSS, trait, PARAMS, bad, 0.1, INPUTS),
            lambda bad: theory.trait_change(apply, LOSS, trait, PARAMS, bad, EPS, INPUTS),
        ):
            with pytest.raises(ValueError, match=r"eps: must be a row of 1 or more numbers, has s"):
                call(bad)
        with pytest.raises(ValueError, match="alphas: must be a row of 1 or more numbers"):
            theory.safe_step(trait, PARAMS, PARAMS, bad)
    alphas: Any = EPS
    with pytest.raises(ValueError, match=r"alpha: must be one number, has shape \[2\]"):
        theory.theorem_1(apply, LOSS, trait, PARAMS, EPS, alphas, INPUTS)
    with pytest.raises(ValueError, match="alpha: must be finite and above 0, got inf"):
        theory.theorem_1(apply, LOSS, trait, PARAMS, EPS, np.inf, INPUTS)
    # Equal neighbours do not ascend.
    with pytest.raises(ValueError, match="eps: must ascend"):
        theory.theorem_1(apply, LOSS, trait, PARAMS, np.ones(2), 0.1, INPUTS)
    checks.check_sizes(np.array([0.1, 0.2]), "eps", ascending=True)


def test_a_direction_or_teacher_that_is_not_a_number_is_refused():
    nowhere = {"w": np.full((6, 1), np.nan)}
    for function in (theory.inner_product, theory.inner_product_reverse):
        for arguments, name in (
            ((PARAMS, nowhere, PARAMS), "direction"),
            ((PARAMS, PARAMS, nowhere), "teacher"),
        ):
            with pytest.raises(ValueError, match=rf"{name}\['w'\]: holds NaN"):
                function(apply, LOSS, *arguments, INPUTS)
    # Known values are looked at also while something else is traced.
    with pytest.raises(ValueError, match=r"direction\['w'\]: holds NaN"):
        jax.jit(lambda x: theory.coefficient(apply, LOSS, PARAMS, nowhere, x))(INPUTS)


def test_inputs_of_no_one_length_are_refused():
    for inputs in (
        {"x": INPUTS, "y": INPUTS[:3]},
        {"x": np.float64(1.0), "y": np.float64(2.0)},
        {"x": np.ones((0, 6))},
    ):
        with pytest.raises(ValueError, match="inputs: every array needs a leading axis"):
            theory.coefficient(lambda p, x: apply(p, x["x"]), LOSS, PARAMS, PARAMS, inputs)


def test_one_number_that_is_none_is_enough_to_refuse_a_result():
    # The root's gradient is infinite at 0.
    params = {"w": jnp.array([1.0, 0.0])}
    with pytest.raises(ValueError, match="trait_loss: its gradient at params is NaN or infinite"):
        theory.teacher_direction(lambda p: jnp.sum(jnp.sqrt(p["w"])), params)


def test_one_weight_an_example_is_that_of_each_of_its_positions():
    inputs = INPUTS.reshape(2, 2, 6)
    by_example, by_position = (
        theory.coefficient(apply, LOSS, PARAMS, PARAMS, inputs, weights=weights)
        for weights in (np.array([1.0, 3.0]), np.array([[1.0, 1.0], [3.0, 3.0]]))
    )
    assert by_example == by_position
    assert by_example != theory.coefficient(apply, LOSS, PARAMS, PARAMS, inputs)


def test_the_mean_counts_rows_and_not_examples():
    """A model with positions: a and the direction are means over all of them."""
    flat = [
        theory.coefficient(apply, LOSS, PARAMS, PARAMS, INPUTS),
        theory.student_direction(apply, LOSS, PARAMS, {"w": 2 * PARAMS["w"]}, INPUTS)["w"],
    ]
    deep = [
        theory.coefficient(apply, LOSS, PARAMS, PARAMS, INPUTS.reshape(2, 2, 6)),
        theory.student_direction(
            apply, LOSS, PARAMS, {"w": 2 * PARAMS["w"]}, INPUTS.reshape(2, 2, 6)
        )["w"],
    ]
    for found, expected in zip(deep, flat, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_cosine_with_nothing_is_0():
    nothing = {"w": jnp.zeros(3)}
    assert passes.cosine(nothing, {"w": jnp.ones(3)}) == 0


def test_scrambling_keeps_sizes_and_leaves_no_pattern():
    tree = {"a": jnp.ones((40, 50)), "b": jnp.ones(2000)}
    found = passes.scramble(tree)
    for name, leaf in tree.items():
        np.testing.assert_array_equal(jnp.abs(found[name]), leaf)
        assert abs(float(jnp.mean(found[name]))) < 0.1
        neighbours = found[name].ravel()
        assert abs(float(jnp.mean(neighbours[1:] * neighbours[:-1]))) < 0.2
    # Nor do two arrays share one.
    assert abs(float(jnp.mean(found["a"].ravel() * found["b"]))) < 0.1
    moved = passes.nudge({"a": jnp.full(10, 3.0)})["a"]
    np.testing.assert_allclose(jnp.abs(moved / 3 - 1), np.finfo(float).eps, rtol=0.6)


def test_inputs_spread_over_devices_by_their_type_are_taken_in_chunks():
    if jax.device_count() < 2:
        pytest.skip("needs two devices")
    mesh = jax.make_mesh((2,), ("examples",))
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("examples"))
    spread = jax.device_put(jnp.asarray(INPUTS), where)
    whole = theory.coefficient(apply, LOSS, PARAMS, PARAMS, INPUTS)
    for chunk in (None, 1, 3):
        found = theory.coefficient(apply, LOSS, PARAMS, PARAMS, spread, chunk=chunk)
        np.testing.assert_allclose(found, whole, rtol=1e-12)
