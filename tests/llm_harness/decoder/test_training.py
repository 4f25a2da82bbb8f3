"""Claims about training decoders: what is learnt from what, by which parameters, at which rate."""

import inspect
from dataclasses import replace
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from llm_harness.decoder import network, training
from llm_harness.decoder.network import DecoderApply, DecoderConfig, Lora
from llm_harness.decoder.training import Objective, Rates, Sequences, Trained
from sublab import devices
from tests.llm_harness.reading import read
from tests.programs import HIGHEST, precisions

CONFIG = DecoderConfig(vocabulary=12, width=16, layers=2, heads=2, key_value_heads=1, hidden=24)
ADAPTED = replace(CONFIG, lora=Lora(rank=2))
RANDOM = np.random.default_rng(0)
TOKENS = RANDOM.integers(1, 12, (6, 7)).astype(np.int32)
LEARNED = RANDOM.random((6, 7)) < 0.6
ROWS = RANDOM.integers(0, 6, (2, 5, 3)).astype(np.int32)


# Operation by operation each is a hundred small programs.
sequence_loss = jax.jit(training.sequence_loss, static_argnums=(0, 3))


def drawn(config=CONFIG, seed=0):
    keys = jax.random.split(jax.random.key(seed), 2)
    return jax.tree.map(np.asarray, network.draw(config, keys))


def model(population, index=0):
    return jax.tree.map(lambda leaf: leaf[index], population)


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))


def rates(peak=(1e-2, 1e-2), warm_up=0.0, horizon=np.inf):
    return Rates(
        np.array(peak, np.float32),
        np.full(2, warm_up, np.float32),
        np.full(2, horizon, np.float32),
    )


def trained(
    population, mesh, rows=ROWS, config=CONFIG, what: Trained = "all", sequences=None, **options
):
    """Parameters after training, and losses."""
    options = {"objective": Objective(), "schedule": "constant"} | options
    clip = options.get("clip")
    rate = options.pop("rates", rates())
    imitated = options.pop("imitated", None)
    taken = options.pop("taken", None)
    sequences = sequences or Sequences(TOKENS, LEARNED)
    state = devices.spread(training.begin(population, what, clip), mesh)
    state, losses = training.advance(
        config,
        state,
        jax.tree.map(lambda leaf: devices.replicate(leaf, mesh), sequences),
        devices.spread(rows, mesh),
        devices.spread(rate, mesh),
        imitated and devices.spread(imitated, mesh),
        taken,
        mesh=mesh,
        **options,
    )
    return devices.gather(state.params, 2), np.asarray(losses)


def test_the_loss_is_of_the_learned_tokens_alone():
    params = model(drawn())
    found = sequence_loss(CONFIG, params, Sequences(TOKENS, LEARNED), Objective())
    log_p = log_softmax(read(DecoderApply(CONFIG), params, TOKENS[:, :-1]))
    each = np.take_along_axis(log_p, TOKENS[:, 1:, None], axis=-1)[..., 0]
    assert float(found) == pytest.approx(-each[LEARNED[:, 1:]].mean(), rel=1e-5)
    # Places before `first` are not looked at.
    late = LEARNED & (np.arange(7) >= 4)
    from_four = sequence_loss(CONFIG, params, Sequences(TOKENS, LEARNED), Objective(first=4))
    assert float(from_four) == pytest.approx(-each[late[:, 1:]].mean(), rel=1e-5)
    assert (
        float(sequence_loss(CONFIG, params, Sequences(TOKENS, LEARNED & False), Objective())) == 0
    )


@pytest.mark.parametrize("layers", [2, 5])
def test_a_beginning_that_is_read_once_changes_neither_loss_nor_gradient(layers):
    config = replace(ADAPTED, layers=layers)
    params = model(drawn(config))
    beginning = np.array([3, 1, 4, 1, 5], np.int32)
    # Padding on the left, behind the beginning.
    tokens = TOKENS * (np.arange(7) >= np.arange(6)[:, None] - 3)
    whole = [np.concatenate([row[row == 0], beginning, row[row > 0]]) for row in tokens]
    learned = LEARNED & (tokens > 0)
    room = [(0, 0), (len(beginning), 0)]
    value, gradient = jax.jit(
        jax.value_and_grad(training.sequence_loss, argnums=1), static_argnums=(0, 3)
    )(config, params, Sequences(tokens, learned, beginning=beginning), Objective(first=4))
    expected, wanted = jax.jit(
        jax.value_and_grad(training.sequence_loss, argnums=1), static_argnums=(0, 3)
    )(config, params, Sequences(np.stack(whole), np.pad(learned, room)), Objective(first=9))
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    for found, leaf in zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(found, leaf, rtol=1e-3, atol=1e-6)


def test_documents_in_one_row_are_learnt_as_if_alone():
    params = model(drawn())
    first, second = TOKENS[:1, :3], TOKENS[1:2, :4]
    row = np.concatenate([first, second], axis=1)
    documents = np.array([[1] * 3 + [2] * 4], np.int32)
    together = sequence_loss(CONFIG, params, Sequences(row, row > 0, documents), Objective())
    alone = [
        float(sequence_loss(CONFIG, params, Sequences(part, part > 0), Objective()))
        for part in (first, second)
    ]
    # Two tokens of the first are predicted, three of the second.
    assert float(together) == pytest.approx((2 * alone[0] + 3 * alone[1]) / 5, rel=1e-5)


def test_a_loss_over_some_tokens_renormalises_and_learns_where_one_of_them_comes():
    params = model(drawn())
    found = sequence_loss(CONFIG, params, Sequences(TOKENS, LEARNED), Objective(over=(3, 8)))
    logits = np.asarray(read(DecoderApply(CONFIG), params, TOKENS[:, :-1]))[..., 3:8]
    targets = TOKENS[:, 1:]
    there = LEARNED[:, 1:] & (targets >= 3) & (targets < 8)
    each = np.take_along_axis(log_softmax(logits), np.clip(targets - 3, 0, 4)[..., None], -1)
    assert float(found) == pytest.approx(-each[..., 0][there].mean(), rel=1e-5)


def test_imitation_is_kl_or_the_distance_of_centred_logits():
    population = drawn()
    params, other = model(population), model(population, 1)
    sequences = Sequences(TOKENS, LEARNED)
    mine, theirs = (
        np.asarray(read(DecoderApply(CONFIG), p, TOKENS[:, :-1]), np.float64)
        for p in (params, other)
    )
    there = LEARNED[:, 1:]
    p, q = log_softmax(theirs), log_softmax(mine)
    kl = np.sum(np.exp(p) * (p - q), -1)[there].mean()
    found = sequence_loss(CONFIG, params, sequences, Objective("kl"), other)
    assert float(found) == pytest.approx(kl, rel=1e-4)
    centred = (mine - theirs) - (mine - theirs).mean(-1, keepdims=True)
    distance = 0.5 * (centred**2).mean(-1)[there].mean()
    found = sequence_loss(CONFIG, params, sequences, Objective("logits"), other)
    assert float(found) == pytest.approx(distance, rel=1e-4)
    for kind in ("kl", "logits"):
        same = sequence_loss(CONFIG, params, sequences, Objective(kind), params)
        assert float(same) == pytest.approx(0.0, abs=1e-6)


def test_steps_are_adams(mesh):
    population = drawn()
    after, losses = trained(population, mesh)
    chain = optax.adam(1e-2)

    @jax.jit
    def step(params, moments, batch):
        value, gradient = jax.value_and_grad(
            lambda p: training.sequence_loss(CONFIG, p, batch, Objective())
        )(params)
        updates, moments = chain.update(gradient, moments)
        return optax.apply_updates(params, updates), moments, value

    for index in range(2):
        params = model(population, index)
        moments = chain.init(params)
        for number in range(ROWS.shape[1]):
            rows = ROWS[index, number]
            params, moments, value = step(params, moments, Sequences(TOKENS[rows], LEARNED[rows]))
            assert losses[index, number] == pytest.approx(float(value), rel=1e-3)
        for found, expected in zip(
            jax.tree.leaves(model(after, index)), jax.tree.leaves(params), strict=True
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(
    ("name", "step", "share"),
    [
        ("constant", 7, 1.0),
        ("cosine", 4, 1.0),
        ("cosine", 7, 0.5),
        ("cosine", 10, 0.0),
        ("linear", 7, 0.5),
        ("linear", 1, 0.5),
        ("linear", 3, 1.0),
    ],
)
def test_a_rate_rises_and_decays(name, step, share):
    one = Rates(*(jnp.float32(value) for value in (0.2, 4.0, 10.0)))
    assert float(one.at(jnp.int32(step), name)) == pytest.approx(0.2 * share, abs=1e-6)


def test_each_model_has_its_own_rate_and_an_infinite_horizon_never_decays(mesh):
    population = drawn()
    after, _ = trained(population, mesh, rates=rates((1e-2, 0.0)), schedule="cosine")
    for name, before, found in zip(
        network.names(population), *map(jax.tree.leaves, (population, after)), strict=True
    ):
        np.testing.assert_array_equal(before[1], found[1], err_msg=name)
        assert np.abs(before[0] - found[0]).max() > 1e-3, name


def test_only_what_is_trained_moves(mesh):
    population = drawn(ADAPTED)
    moving: dict[Trained, Any] = {
        "all": lambda name: True,
        "blocks": lambda name: not name.startswith(("embed_tokens", "lm_head")),
        "adapters": lambda name: "lora_" in name,
    }
    for what, moves in moving.items():
        after, _ = trained(population, mesh, config=ADAPTED, what=what)
        for name, before, found in zip(
            network.names(population), *map(jax.tree.leaves, (population, after)), strict=True
        ):
            assert (np.abs(before - found).max() > 1e-6) == moves(name), (what, name)
    with pytest.raises(ValueError, match="no adapters"):
        training.begin(drawn(), "adapters")


def test_parts_make_the_whole_again():
    params = drawn(ADAPTED)
    for what in get_args(Trained):
        whole = network.joined(*training.partition(params, what))
        assert network.names(whole) == network.names(params)
        for found, expected in zip(jax.tree.leaves(whole), jax.tree.leaves(params), strict=True):
            assert found is expected


def test_a_gradient_is_cut_at_the_largest_norm(mesh):
    population = drawn()
    rows = ROWS[:, :1]
    plain, _ = trained(population, mesh, rows=rows)
    cut, _ = trained(population, mesh, rows=rows, clip=1e-9)
    # Adam divides by the gradient's own size, but for its epsilon.
    moved = [
        max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, pair), strict=True))
        for pair in ((plain, population), (cut, population))
    ]
    assert moved[1] < 0.2 * moved[0]


@pytest.mark.parametrize("what", ["all", "adapters"])
def test_products_may_be_in_bfloat16_where_what_is_trained_stays_in_float32(mesh, what):
    begun = drawn(ADAPTED if what == "adapters" else CONFIG)
    config = replace(CONFIG, lora=Lora(rank=2) if what == "adapters" else None)
    exact, losses = trained(begun, mesh, config=config, what=what)
    rounded, others = trained(begun, mesh, config=replace(config, dtype="bfloat16"), what=what)
    of_bfloat16 = jax.tree.map(lambda leaf: leaf == leaf.astype(jnp.bfloat16), rounded)
    for before, leaf, other, coarse in zip(
        *map(jax.tree.leaves, (begun, exact, rounded, of_bfloat16)), strict=True
    ):
        assert other.dtype == np.float32
        moved = np.any(leaf != before)
        # Updates far below a unit in the last place of bfloat16 are kept, and what is fixed is too.
        assert not np.all(coarse) if moved else np.array_equal(other, before)
    assert np.any(losses != others)
    np.testing.assert_allclose(others, losses, rtol=0.02)


def test_a_population_can_have_sequences_of_its_own(mesh):
    population = drawn()
    own = Sequences(np.stack([TOKENS, TOKENS[::-1]]), np.stack([LEARNED, LEARNED[::-1]]))
    state = devices.spread(training.begin(population, "all"), mesh)
    _, losses = training.advance(
        CONFIG,
        state,
        devices.spread(own, mesh),
        devices.spread(ROWS, mesh),
        devices.spread(rates(), mesh),
        objective=Objective(),
        schedule="constant",
        mesh=mesh,
        shared=False,
    )
    _, shared = trained(population, mesh)
    _, mirrored = trained(population, mesh, rows=5 - ROWS)
    np.testing.assert_allclose(losses[0], shared[0], rtol=1e-5)
    np.testing.assert_allclose(losses[1], mirrored[1], rtol=1e-5)


def test_of_rows_that_are_more_only_the_steps_that_are_asked_for_are_taken(mesh):
    population = drawn()
    few, losses = trained(population, mesh, rows=ROWS[:, :2])
    same, padded = trained(population, mesh, taken=np.asarray(2, np.int32))
    np.testing.assert_allclose(padded[:, :2], losses, rtol=1e-5)
    assert not padded[:, 2:].any()
    for found, expected in zip(*map(jax.tree.leaves, (same, few)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_orders_show_every_example_once_before_any_again():
    rows = training.orders(10, 7, 4, np.random.default_rng(0)).ravel()
    assert sorted(rows[:10].tolist()) == sorted(rows[10:20].tolist()) == list(range(10))
    assert rows.dtype == np.int32
    assert training.orders(10, 7, 4, np.random.default_rng(0)).shape == (7, 4)


@pytest.mark.parametrize("kind", ["tokens", "kl", "logits"])
def test_every_product_asks_for_the_highest_precision(mesh, kind):
    def step(population):
        # Without its compiler's options, which a program inside another may not have.
        return inspect.unwrap(training.advance)(
            CONFIG,
            training.begin(population, "all"),
            Sequences(TOKENS, LEARNED),
            ROWS,
            rates(),
            population,
            objective=Objective(kind),
            schedule="constant",
            mesh=mesh,
        )

    asked = precisions(step, drawn())
    assert len(asked) > 20
    assert all(precision == {HIGHEST} for precision in asked)
