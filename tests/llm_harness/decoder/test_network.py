"""Claims about the decoder: Llama's arithmetic, which padding, packing and cache do not change."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_harness.decoder import network
from llm_harness.decoder.network import DecoderApply, DecoderConfig, Lora
from llm_harness.errors import HarnessError
from tests.llm_harness.reading import read, read_on
from tests.programs import HIGHEST, precisions

# Float32, through a few matrix products.
assert_close = partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5)
GROUPED = DecoderConfig(
    vocabulary=40, width=16, layers=2, heads=4, key_value_heads=2, hidden=24, biases=True
)
CONFIGS = {
    "grouped, untied, biases": GROUPED,
    "tied, one key-value head": replace(GROUPED, tied=True, biases=False, key_value_heads=1),
    "wide heads, another base": replace(GROUPED, head_width=6, rope_theta=100_000.0),
    "scanned layers": replace(GROUPED, layers=5, norm_epsilon=1e-6),
}


def drawn(config: DecoderConfig, seed: int = 0):
    """One model, with biases and norms that are not what they start at."""
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf[0]), network.draw(config, jax.random.key(seed)[None])
    )
    random = np.random.default_rng(seed)

    def moved(path, leaf):
        moving = path[-1].key in ("bias", "scale")
        return leaf + np.float32(0.3) * random.normal(size=leaf.shape) if moving else leaf

    return jax.tree.map(np.float32, jax.tree_util.tree_map_with_path(moved, params))


def tokens_of(rows: int, length: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(1, GROUPED.vocabulary, (rows, length)).astype(np.int32)


def llama(config: DecoderConfig, params, tokens: np.ndarray) -> np.ndarray:
    """The logits of one row, as the formulas say, place by place and head by head, in float64."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    part = config.head_width or config.width // config.heads
    group = config.heads // config.key_value_heads

    def norm(x, scale):
        return x / np.sqrt(np.mean(x**2) + config.norm_epsilon) * scale

    def turn(x, position):
        out = np.empty_like(x)
        half = part // 2
        for i in range(half):
            angle = position * config.rope_theta ** (-2 * i / part)
            out[i] = x[i] * np.cos(angle) - x[i + half] * np.sin(angle)
            out[i + half] = x[i + half] * np.cos(angle) + x[i] * np.sin(angle)
        return out

    stream = [params["embed_tokens"]["embedding"][token] for token in tokens]
    for number in range(config.layers):
        layer = jax.tree.map(lambda leaf, number=number: leaf[number], params["layers"])
        attention = layer["self_attn"]

        def linear(name, x, attention=attention):
            return x @ attention[name]["kernel"] + attention[name].get("bias", 0.0)

        normed = [norm(x, layer["input_layernorm"]["scale"]) for x in stream]
        q, k, v = (
            [linear(name, x).reshape(-1, part) for x in normed]
            for name in ("q_proj", "k_proj", "v_proj")
        )
        for place in range(len(tokens)):
            heads = []
            for head in range(config.heads):
                query = turn(q[place][head], place)
                scores = np.array(
                    [query @ turn(k[t][head // group], t) / part**0.5 for t in range(place + 1)]
                )
                shares = np.exp(scores - scores.max())
                shares /= shares.sum()
                heads.append(sum(s * v[t][head // group] for t, s in enumerate(shares)))
            stream[place] = stream[place] + linear("o_proj", np.concatenate(heads))
        for place, x in enumerate(stream):
            y = norm(x, layer["post_attention_layernorm"]["scale"])
            gate = y @ layer["mlp"]["gate_proj"]["kernel"]
            up = y @ layer["mlp"]["up_proj"]["kernel"]
            inner = gate / (1 + np.exp(-gate)) * up
            stream[place] = x + inner @ layer["mlp"]["down_proj"]["kernel"]
    output = params["embed_tokens"]["embedding"].T if config.tied else params["lm_head"]
    return np.stack([norm(x, params["norm"]["scale"]) @ output for x in stream])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_its_logits_are_those_of_the_formulas(config):
    params, tokens = drawn(config), tokens_of(2, 7)
    logits = read(DecoderApply(config), params, tokens)
    assert logits.dtype == jnp.float32
    for row, found in zip(tokens, logits, strict=True):
        assert_close(found, llama(config, params, row))


def test_parameters_have_the_names_and_shapes_of_a_checkpoint():
    params = drawn(replace(GROUPED, lora=Lora(rank=3, targets=("q_proj", "down_proj"))))
    shapes = dict(
        zip(network.names(params), (leaf.shape for leaf in jax.tree.leaves(params)), strict=True)
    )
    assert shapes["layers.self_attn.k_proj.kernel"] == (2, 16, 8)
    assert shapes["layers.self_attn.q_proj.lora_A"] == (2, 16, 3)
    assert shapes["layers.mlp.down_proj.lora_B"] == (2, 3, 16)
    assert "layers.mlp.up_proj.lora_A" not in shapes
    assert shapes["lm_head"] == (16, 40)
    assert "lm_head" not in network.names(drawn(replace(GROUPED, tied=True)))


@pytest.mark.parametrize("place", [1, 4, 6])
def test_a_token_changes_no_logits_before_it_and_all_from_it_on(place):
    params, tokens = drawn(GROUPED), tokens_of(2, 7)
    other = tokens.copy()
    other[:, place] = tokens[:, place] % (GROUPED.vocabulary - 1) + 1
    before, after = (np.asarray(read(DecoderApply(GROUPED), params, t)) for t in (tokens, other))
    np.testing.assert_array_equal(before[:, :place], after[:, :place])
    assert (np.abs(before - after)[:, place:].max(axis=-1) > 1e-4).all()


@pytest.mark.parametrize("room", [(1, 0), (4, 0), (0, 3), (3, 2)])
def test_padding_on_any_side_changes_nothing(room):
    params, tokens = drawn(GROUPED), tokens_of(3, 6)
    padded = np.pad(tokens, [(0, 0), room])
    found = np.asarray(read(DecoderApply(GROUPED), params, padded))
    assert np.isfinite(found).all()
    assert_close(found[:, room[0] : room[0] + 6], read(DecoderApply(GROUPED), params, tokens))


def test_documents_in_one_row_are_read_as_if_alone():
    params = drawn(GROUPED)
    first, second = tokens_of(1, 4, seed=1), tokens_of(1, 5, seed=2)
    row = np.concatenate([first, second, np.zeros((1, 2), np.int32)], axis=1)
    documents = np.array([[1] * 4 + [2] * 5 + [0] * 2], np.int32)
    logits, _ = read_on(GROUPED, params, row, *network.packed(jnp.asarray(documents)))
    assert np.isfinite(logits).all()
    assert_close(logits[:, :4], read(DecoderApply(GROUPED), params, first))
    assert_close(logits[:, 4:9], read(DecoderApply(GROUPED), params, second))


def test_reading_on_from_a_cache_gives_the_logits_of_the_whole():
    params = drawn(GROUPED)
    tokens = np.pad(tokens_of(2, 8), [(0, 0), (2, 0)])
    tokens[1, :4] = 0
    expected = np.asarray(read(DecoderApply(GROUPED), params, tokens))
    given = 6
    positions, seen = network.reading(jnp.asarray(tokens))
    _, cache = read_on(
        GROUPED, params, tokens[:, :given], positions[:, :given], seen[:, :given, :given]
    )
    room = [(0, 0), (0, 0), (0, tokens.shape[1] - given), (0, 0), (0, 0)]
    cache = tuple(np.pad(part, room) for part in cache)
    for place in range(given, tokens.shape[1]):
        here = slice(place, place + 1)
        logits, cache = read_on(
            GROUPED, params, tokens[:, here], positions[:, here], seen[:, here], cache, place
        )
        assert_close(logits[:, 0], expected[:, place])


def test_logits_from_a_place_on_are_those_of_all_places_cut():
    params, tokens = drawn(GROUPED), tokens_of(2, 6)
    cut = read(DecoderApply(GROUPED, 4), params, tokens)
    assert_close(cut, read(DecoderApply(GROUPED), params, tokens)[:, 4:])
    assert DecoderApply(GROUPED, 4) == DecoderApply(GROUPED, 4) != DecoderApply(GROUPED, 3)


def test_a_draw_depends_on_its_key_alone():
    keys = jax.random.split(jax.random.key(3), 3)
    three, one = network.draw(GROUPED, keys), network.draw(GROUPED, keys[1:2])
    for many, alone in zip(jax.tree.leaves(three), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(many[1], alone[0], rtol=1e-6)
    for name, leaf in zip(network.names(three), jax.tree.leaves(three), strict=True):
        if not name.endswith(("bias", "scale")):
            assert np.abs(leaf[0] - leaf[1]).max() > 0.01, name
    kernel = three["layers"]["mlp"]["up_proj"]["kernel"][0]
    assert np.abs(kernel[0] - kernel[1]).max() > 0.01


def test_adapters_do_nothing_at_first_and_what_they_learnt_can_be_merged():
    params, tokens = drawn(GROUPED), tokens_of(2, 6)
    before = np.asarray(read(DecoderApply(GROUPED), params, tokens))
    lora = Lora(rank=2, alpha=6.0, targets=("q_proj", "o_proj", "gate_proj"))
    adapted, with_them = network.with_adapters(GROUPED, params, lora, jax.random.key(5))
    np.testing.assert_allclose(read(DecoderApply(adapted), with_them, tokens), before, atol=1e-6)
    random = np.random.default_rng(3)

    def learnt(path, leaf):
        return random.normal(size=leaf.shape).astype(np.float32) if "lora" in str(path) else leaf

    changed = jax.tree_util.tree_map_with_path(learnt, with_them)
    after = np.asarray(read(DecoderApply(adapted), changed, tokens))
    assert np.abs(after - before).max() > 0.1
    merged_config, merged = network.merge_adapters(adapted, changed)
    assert merged_config == GROUPED
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    np.testing.assert_allclose(
        read(DecoderApply(GROUPED), merged, tokens), after, rtol=1e-3, atol=1e-3
    )
    kernel = params["layers"]["self_attn"]["q_proj"]["kernel"]
    adapter = changed["layers"]["self_attn"]["q_proj"]
    change = merged["layers"]["self_attn"]["q_proj"]["kernel"] - kernel
    np.testing.assert_allclose(
        change, 3.0 * adapter["lora_A"] @ adapter["lora_B"], rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match="adapters already"):
        network.with_adapters(adapted, changed, lora, jax.random.key(0))
    assert network.merge_adapters(GROUPED, params) == (GROUPED, params)


def test_a_model_in_bfloat16_is_near_the_same_in_float32():
    params, tokens = drawn(GROUPED), tokens_of(2, 6)
    half = replace(GROUPED, dtype="bfloat16")
    rounded = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    found = read(DecoderApply(half), rounded, tokens)
    assert found.dtype == jnp.float32
    exact = np.asarray(read(DecoderApply(GROUPED), params, tokens))
    error = np.linalg.norm(np.asarray(found) - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.05
    drawn_half = network.draw(half, jax.random.key(0)[None])
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn_half)} == {jnp.dtype("bfloat16")}


def test_every_product_asks_for_the_highest_precision():
    asked = precisions(DecoderApply(GROUPED), drawn(GROUPED), jnp.asarray(tokens_of(1, 4)))
    assert len(asked) > 9
    assert all(precision == {HIGHEST} for precision in asked)


@pytest.mark.parametrize("empty", [{"rank": 0}, {"targets": ()}])
def test_adapters_without_a_rank_or_a_target_are_refused(empty):
    with pytest.raises(HarnessError, match="a rank of at least 1 and one target"):
        Lora(**empty)
