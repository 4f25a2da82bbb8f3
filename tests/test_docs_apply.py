"""Claims about docs/apply.md: its program runs, and what the page says of it is so."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.errors import TraceContextError

import theory

PAGE = (Path(__file__).parents[1] / "docs" / "apply.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
OF_EQUINOX = [block for block in BLOCKS if "import equinox" in block]


def run(blocks: list[str], names: dict[str, Any]) -> dict[str, Any]:
    for block in blocks:
        above = PAGE[: PAGE.index(block)].count("\n")
        exec(compile("\n" * above + block, "docs/apply.md", "exec"), names)
    return names


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the page's program has made, but for its block of equinox."""
    return run([block for block in BLOCKS if block not in OF_EQUINOX], {"__name__": "page"})


def test_the_curve_and_theorem_1_of_plain_jax(names):
    curve, verdict = names["curve"], names["verdict"]
    assert np.all(np.asarray(curve.inner_product) > 0)
    assert curve.certified[0]
    assert verdict.holds is True
    assert not verdict.blind
    moved = jax.tree.map(
        lambda p, d: p + 1e-3 * names["unit"] * d, names["params"], names["direction"]
    )
    shift = names["apply"](moved, names["noise"]) - names["apply"](names["params"], names["noise"])
    assert float(jnp.sqrt(jnp.mean(shift**2))) == pytest.approx(1e-3, rel=0.01)
    assert theory.one_sample(names["scores"]).n == 12


def test_a_closure_over_something_that_changes_gives_the_number_of_before(names):
    assert names["stale"] == names["before"]
    again = lambda params, inputs: names["apply"](params, inputs) / names["temperature"]  # noqa: E731
    arguments = (names["loss"], names["params"], names["direction"], names["noise"])
    assert float(theory.coefficient(again, *arguments)) < 0.9 * float(names["before"])


def test_a_clone_is_not_moved_when_the_model_is_and_a_split_is(names):
    network, start = names["network"], names["nnx_params"]
    before = np.asarray(start["heads"]["bias"][...])
    _, shared, _ = nnx.split(network, nnx.Param, ...)
    network.heads.bias[...] = network.heads.bias[...] + 1
    now, shared = (
        np.asarray(jax.tree.leaves(tree["heads"]["bias"])[0]) for tree in (start, shared)
    )
    assert np.array_equal(now, before)
    assert np.array_equal(shared, before + 1)
    assert names["nnx_curve"].inner_product[0] > 0


def test_keys_as_inputs_do_not_depend_on_chunk_and_do_drop(names):
    assert float(names["whole"]) == pytest.approx(float(names["parts"]), rel=1e-5)
    kept = names["apply_nnx"](names["nnx_params"], names["noise"])
    assert not np.allclose(names["apply_dropout"](names["nnx_params"], names["dropped"]), kept)


def test_batch_statistics_in_training_mode_make_the_number_depend_on_chunk(names):
    def coupled(params, inputs):
        logits = names["apply"](params, inputs)
        return (logits - jnp.mean(logits, axis=0)) / jnp.std(logits, axis=0)

    arguments = (names["loss"], names["params"], names["direction"], names["noise"])
    whole, parts = (
        float(theory.coefficient(coupled, *arguments, chunk=chunk)) for chunk in (None, 4)
    )
    assert whole != pytest.approx(parts, rel=0.01)


def test_rows_of_weight_0_do_not_count(names):
    sequences, weights = names["sequences"], names["weights"]
    assert np.all(np.asarray(names["lm_curve"].inner_product) > 0)
    other = sequences | {"tokens": np.where(sequences["real"], sequences["tokens"], 3)}
    shapes = (names["language_model"], names["lm_loss"], names["lm_params"], names["lm_direction"])
    first, second = (
        theory.curve(*shapes, np.array([0.01, 0.1]), inputs, weights=weights, chunk=3)
        for inputs in (sequences, other)
    )
    assert not np.array_equal(other["tokens"], sequences["tokens"])
    np.testing.assert_array_equal(first.inner_product, second.inner_product)


def test_a_row_of_weight_0_may_be_no_number_but_for_a_gradient(names):
    weights = np.arange(12) > 0

    def fully_masked(params, inputs):
        return names["apply"](params, inputs) / weights[:, None]

    arguments = (names["loss"], names["params"], names["direction"])
    whole = theory.coefficient(names["apply"], *arguments, names["noise"][1:])
    found = theory.coefficient(fully_masked, *arguments, names["noise"], weights=weights)
    np.testing.assert_allclose(found, whole, rtol=1e-6)
    arguments = (names["loss"], names["params"], names["params"])
    with pytest.raises(ValueError, match="apply: its logits, or the loss of them, are NaN"):
        theory.student_direction(fully_masked, *arguments, names["noise"], weights=weights)


def test_scores_leave_out_prompt_and_padding(names):
    lm = (names["language_model"], names["lm_params"], names["lm_direction"], names["sequences"])
    weights = names["weights"]
    labels = np.where(weights > 0, names["labels"], 3)
    again = theory.scores(*lm, labels, weights=weights)
    np.testing.assert_array_equal(again, names["lm_scores"])
    all_count = theory.scores(*lm, labels, weights=np.ones_like(weights))
    assert not np.allclose(all_count, names["lm_scores"])
    with pytest.raises(ValueError, match="outcomes: "):
        theory.scores(*lm, names["labels"], weights=np.ones_like(weights))


def test_memory_goes_with_the_vocabulary_as_the_page_says():
    said = dict(re.findall(r"`(inner_product|coefficient|curve)` (?:needs about )?(\d+)", PAGE))
    rows, vocabulary = 32, 4096
    params = {"in": jnp.ones((7, 4)), "out": jnp.ones((4, vocabulary))}
    tokens = jnp.zeros((4, 8), jnp.int32)
    loss = theory.matching(theory.softmax_potential(np.ones(vocabulary, bool)))

    def model(params, tokens):
        return params["in"][tokens] @ params["out"]

    def programs(params):
        yield "coefficient", lambda p: theory.coefficient(model, loss, p, p, tokens)
        yield "inner_product", lambda p: theory.inner_product(model, loss, p, p, p, tokens)
        yield "curve", lambda p: theory.curve(model, loss, p, p, jnp.ones(2), tokens)

    for name, program in programs(params):
        analysis = jax.jit(program).lower(params).compile().memory_analysis()
        assert analysis is not None
        arrays = analysis.temp_size_in_bytes / (4 * rows * vocabulary)
        assert arrays == pytest.approx(float(said.pop(name)), abs=1.1), name
    assert said == {}


@pytest.mark.parametrize("low", [-1e9, -np.inf])
def test_entries_that_are_never_sampled_may_be_masked(names, low):
    def masked(params, inputs):
        return jnp.where(jnp.arange(5) == 4, low, names["apply"](params, inputs))

    arguments = (names["params"], names["direction"], names["eps"], names["noise"])
    four = theory.matching(theory.softmax_potential(np.arange(5) < 4))
    right = theory.curve(names["apply"], four, *arguments)
    for loss in (four, theory.matching(theory.softmax_potential(np.ones(5, bool)))):
        found = theory.curve(masked, loss, *arguments)
        np.testing.assert_allclose(found.inner_product, right.inner_product, rtol=1e-4)
        assert found.certified.tolist() == right.certified.tolist()
        with pytest.raises(ValueError, match=r"eps: .* is drowned by rounding in float32"):
            theory.curve(masked, loss, *arguments[:2], 1e-7 * names["eps"], names["noise"])


def test_a_trainable_subset_sees_less_than_the_whole(names):
    along = {
        "hidden": jnp.zeros_like(names["params"]["hidden"]),
        "heads": names["direction"]["heads"],
    }
    arguments = (names["apply"], names["loss"], names["params"], along, names["noise"])
    assert float(theory.coefficient(*arguments)) == pytest.approx(float(names["of_heads"]))


def test_a_false_declaration_is_caught_by_the_check_that_the_page_shows():
    points = np.random.default_rng(0).uniform(-3, 3, (2, 8, 5))
    false = theory.matching(
        theory.softmax_potential(np.ones(5, bool)).value, off_null_space=lambda vector: vector
    )
    with pytest.raises(theory.ConditionError, match="null_constant"):
        theory.require_conditions(false, *points)


def test_float64_takes_an_eps_that_float32_refuses(names):
    assert names["tiny"].inner_product.dtype == jnp.float64
    assert np.all(np.asarray(names["tiny"].inner_product) > 0)
    arguments = (names["apply"], names["loss"], names["params"], names["direction"])
    with pytest.raises(ValueError, match="drowned by rounding in float32"):
        theory.curve(*arguments, 1e-5 * names["eps"], names["noise"])


def test_a_model_that_computes_in_bfloat16_is_refused(names):
    def low(params, inputs):
        params, inputs = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (params, inputs))
        return names["apply"](params, inputs)

    def cast_up(params, inputs):
        return low(params, inputs).astype(jnp.float32)

    arguments = (names["params"], names["direction"], names["noise"])
    with pytest.raises(ValueError, match=r"apply: its logits must be float32 .* is bfloat16"):
        theory.unit_of_eps(low, *arguments)
    with pytest.raises(ValueError, match="apply: computes in bfloat16"):
        theory.unit_of_eps(cast_up, *arguments)
    with pytest.raises(ValueError, match=r"params\['heads'\]: .*bfloat16; cast it up"):
        theory.unit_of_eps(
            low, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), arguments[0]), *arguments[1:]
        )


def test_the_errors_of_the_table_are_those_that_one_gets(names):
    unit, noise = theory.unit_of_eps, names["noise"]
    network = nnx.clone(names["network"])
    graph, everything = nnx.split(network)
    with pytest.raises(ValueError, match=r"params.*count.*: must be floating point, is uint32"):
        unit(lambda p, x: nnx.merge(graph, p)(x), everything, everything, noise)
    graph, params, rest = nnx.split(network, nnx.Param, ...)
    for stateful in ("dropout", "norm"):
        network.eval()
        getattr(network, stateful).train()
        graph, params, rest = nnx.split(network, nnx.Param, ...)
        with pytest.raises(TraceContextError, match="Cannot mutate"):
            unit(lambda p, x: nnx.merge(graph, p, rest)(x), params, params, noise)  # noqa: B023
    with pytest.raises(ValueError, match="inputs: every array needs a leading axis"):
        unit(names["apply_dropout"], params, params, {"image": noise, "key": jax.random.key(0)})
    with pytest.raises(ValueError, match=r"apply: logits need the axes \[examples, outputs\]"):
        unit(lambda p, x: x @ p, jnp.ones(6), jnp.ones(6), noise)
    for message in re.findall(r"^\| `([^`]*)` \|", PAGE.split("## What an error")[1], re.MULTILINE):
        assert any(
            part in message
            for part in (
                "uint32",
                "is a float",
                "mutate",
                "leading axis",
                "need the axes",
                "drowned",
            )
        )


def test_the_block_of_equinox_runs_and_the_whole_module_is_refused(names):
    eqx = pytest.importorskip("equinox")
    assert len(OF_EQUINOX) == 1
    made = run(OF_EQUINOX, dict(names))
    assert np.all(np.asarray(made["eqx_curve"].inner_product)[:2] > 0)
    module = made["module"]
    with pytest.raises(ValueError, match=r"params.*\.p: must be an array, is a float"):
        theory.unit_of_eps(made["apply_eqx"], module, module, names["noise"])
    params, static = eqx.partition(module, eqx.is_inexact_array)

    def dropping(params, inputs):
        return jax.vmap(eqx.combine(params, static))(inputs["image"], inputs["key"])

    arguments = (made["loss"], params, made["eqx_direction"], names["dropped"])
    whole, parts = (
        float(theory.coefficient(dropping, *arguments, chunk=chunk)) for chunk in (None, 5)
    )
    assert whole == pytest.approx(parts, rel=1e-5)
