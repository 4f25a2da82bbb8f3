"""Claims about readouts that nobody touched: what commutes with permuting them, and what does not.

One network has both kinds of outputs in one array: four answers, then three others.
"""

from functools import partial
from itertools import permutations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import theory
from theory import losses
from theory.symmetry import (
    Readout,
    commutation,
    compare_trainings,
    ignores_readout,
    in_readout,
    permute_readout,
    permuted_accuracy,
    untouched,
)
from toymlp.objective import SGD, Adam, AdamW, Momentum

K, OTHERS, WIDTH, PIXELS, INPUTS = 4, 3, 6, 5, 12
READOUT = Readout({"hidden": None, "out": {"kernel": 1, "bias": 0}}, answers=tuple(range(K)))
ANSWERS = jnp.arange(K + OTHERS) < K
SHIFTS = [[(k + shift) % K for k in range(K)] for shift in range(K)]


def poisson(subset):
    return lambda logits: jnp.sum(jnp.where(subset, jnp.exp(logits), 0))


LOSSES = (theory.softmax_potential, theory.squared_potential, poisson)


def on_outputs(function) -> optax.GradientTransformation:
    """A transformation of the gradient by the outputs' weights, (width, outputs)."""

    def update(updates, state, params=None):
        del params
        out = updates["out"] | {"kernel": function(updates["out"]["kernel"])}
        return updates | {"out": out}, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def whitened(gradient):
    """Mixes rows as Muon and Shampoo do: G (G^T G)^(-1/2)."""
    values, vectors = jnp.linalg.eigh(gradient.T @ gradient + 1e-6 * jnp.eye(K + OTHERS))
    return gradient @ (vectors / jnp.sqrt(values)) @ vectors.T


def by_mean_sign(gradient):
    """All rows get one step, by the sign of the rows' mean gradient."""
    return jnp.broadcast_to(jnp.sign(gradient.mean(1, keepdims=True)), gradient.shape)


def smoothed(gradient):
    """Each row's gradient is averaged with its neighbour's: the place of a row matters."""
    return (gradient + jnp.roll(gradient, -1, 1)) / 2


TOYS = {
    kind.kind: kind.transformation for kind in (SGD(), Momentum(), Adam(), AdamW(weight_decay=0.3))
}
MIXING = {
    "clipped": lambda rate: optax.chain(optax.clip_by_global_norm(0.05), optax.sgd(rate)),
    "whitened": lambda rate: optax.chain(on_outputs(whitened), optax.sgd(rate)),
    "by mean sign": lambda rate: optax.chain(on_outputs(by_mean_sign), optax.sgd(rate)),
}
# Their norms take in the answers' own parameters.
SUMMING = {"lamb": optax.lamb, "adafactor": optax.adafactor}
BY_PLACE = {"smoothed": lambda rate: optax.chain(on_outputs(smoothed), optax.sgd(rate))}
OPTIMISERS: dict[str, Any] = TOYS | MIXING | SUMMING | BY_PLACE


def apply(params, x, relu=False):
    before = x @ params["hidden"]["kernel"] + params["hidden"]["bias"]
    hidden = jnp.where(relu, jax.nn.relu(before), jnp.tanh(before))
    return hidden @ params["out"]["kernel"] + params["out"]["bias"]


def tied_apply(params, x, relu=False):
    """The other outputs are read off the answers' own rows."""
    logits = apply(params, x, relu)
    return jnp.concatenate([logits[:, :K], logits[:, :OTHERS] ** 2], 1)


def network(key):
    first, second = jax.random.split(key)
    return {
        "hidden": {
            "kernel": jax.random.normal(first, (PIXELS, WIDTH)) / PIXELS**0.5,
            "bias": jnp.zeros(WIDTH),
        },
        "out": {
            "kernel": jax.random.normal(second, (WIDTH, K + OTHERS)) / WIDTH**0.5,
            "bias": jnp.zeros(K + OTHERS),
        },
    }


def keys_of(seed):
    return jax.random.split(jax.random.key(jnp.uint32(seed)), 4)


@partial(jax.jit, static_argnames="model")
def matching_loss(params, batch, subset, number, *, model=apply, relu=False, ridge=0.0):
    """The mean of one of `LOSSES` over the outputs in `subset`, and a ridge on all parameters."""

    def mean_of(potential):
        def each(z, y):
            return losses.matching_loss(potential(subset), z, y)

        return lambda: jnp.mean(jax.vmap(each)(model(params, batch["x"], relu), batch["y"]))

    mean = jax.lax.switch(number, [mean_of(potential) for potential in LOSSES])
    return mean + ridge * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


def descend(start, batch, steps, gradient, optimiser, rate):
    chosen = OPTIMISERS[optimiser](rate)

    def step(number, carry):
        params, state = carry
        rows = (jnp.arange(INPUTS // 2) + number * 5) % INPUTS
        part = jax.tree.map(lambda leaf: leaf[rows], batch)
        updates, state = chosen.update(gradient(params, part), state, params)
        return optax.apply_updates(params, updates), state

    return jax.lax.fori_loop(0, steps, step, (start, chosen.init(start)))[0]


@partial(jax.jit, static_argnames=("optimiser", "model", "shared"))
def trained(start, case, *, optimiser, model=apply, shared=False):
    """A teacher, cloning of its start into the student's, and distillation.

    With `shared`, the teacher starts with the student's readout.
    """
    reference = case["reference"]
    if shared:
        rows = in_readout(start, READOUT)
        reference = jax.tree.map(jnp.where, rows, start, reference)

    def labelled(params, batch):
        logits = apply(params, batch["x"])[:, :K]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()

    teacher = descend(
        reference,
        {"x": case["images"], "y": case["labels"]},
        20,
        jax.grad(labelled),
        "adam",
        0.1,
    )
    student = start
    for stage, imitated in (("clone", reference), ("student", teacher)):
        batch = {"x": case["inputs"], "y": apply(imitated, case["inputs"], case["relu"])}
        gradient = jax.grad(
            partial(
                matching_loss,
                subset=case[f"{stage} sees"],
                number=case["loss"],
                model=model,
                relu=case["relu"],
                ridge=case["ridge"],
            )
        )
        student = descend(student, batch, case[f"{stage} steps"], gradient, optimiser, 0.05)
    return student


def case_of(seed, **changes):
    """A student's start, and all that its training uses."""
    start, reference, inputs, images = keys_of(seed)
    x = jax.random.normal(images, (INPUTS, PIXELS))
    case = {
        "reference": network(reference),
        "inputs": jax.random.uniform(inputs, (INPUTS, PIXELS), minval=-1.0),
        "images": x,
        "labels": jnp.argmax(x[:, :K], 1),
        "clone sees": ~ANSWERS,
        "student sees": ~ANSWERS,
        "clone steps": 0,
        "student steps": 4,
        "loss": 0,
        "relu": False,
        "ridge": 0.0,
    }
    return network(start), case | changes


seeds = st.integers(0, 2**31 - 1)
orders = st.permutations(range(K))


@settings(max_examples=40)
@given(
    seeds,
    st.sampled_from([*TOYS, *MIXING]),
    st.integers(0, len(LOSSES) - 1),
    st.integers(0, 5),
    st.integers(0, 6),
    st.booleans(),
    orders,
)
def test_a_training_that_sees_no_answer_commutes_bit_for_bit(
    seed, optimiser, loss, cloning, steps, relu, order
):
    start, case = case_of(
        seed, **{"clone steps": cloning, "student steps": steps, "loss": loss, "relu": relu}
    )
    found = commutation(lambda p: trained(p, case, optimiser=optimiser), start, READOUT, order)
    assert found.others == 0
    assert found.rows == 0
    assert found.residual == 0
    assert (found.change > 0) == (cloning + steps > 0)


CONTROLS = {
    "the student's loss sees answers": ({"student sees": ~ANSWERS | True}, {}),
    "the student's loss sees one answer": ({"student sees": jnp.arange(K + OTHERS) >= K - 1}, {}),
    "cloning sees answers": ({"clone sees": ANSWERS, "clone steps": 3}, {}),
    "the teacher's own readout": ({}, {"shared": True}),
    "readouts that are tied": ({}, {"model": tied_apply}),
    "an optimiser that knows a row's place": ({}, {"optimiser": "smoothed"}),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_commutation_is_broken_by(name):
    changes, keywords = CONTROLS[name]
    options = {"optimiser": "sgd"} | keywords
    for seed in range(3):
        start, case = case_of(seed, **changes)
        found = commutation(lambda p: trained(p, case, **options), start, READOUT, SHIFTS[1])  # noqa: B023
        assert found.residual > 1e-2
        # A row's neighbour changes that row, and nothing that the loss sees.
        assert (found.others > 0) == ("place" not in name)


@pytest.mark.parametrize("optimiser", ["sgd", "clipped"])
def test_a_loss_that_treats_all_answers_alike_commutes_to_rounding(optimiser):
    """A ridge touches every row alike; the norm that a clip takes is a sum in another order."""
    for seed in range(3):
        start, case = case_of(seed, ridge=0.1)
        found = commutation(
            lambda p: trained(p, case, optimiser=optimiser),  # noqa: B023
            start,
            READOUT,
            [2, 3, 1, 0],
        )
        assert found.residual < 1e-12


@pytest.mark.parametrize("optimiser", SUMMING)
def test_an_optimiser_that_sums_over_an_array_commutes_to_rounding_and_not_bit_for_bit(optimiser):
    """Answers share their arrays with other outputs, which get another norm's last bit."""
    residuals = []
    for seed in range(4):
        start, case = case_of(seed, **{"student steps": 20})
        found = commutation(
            lambda p: trained(p, case, optimiser=optimiser),  # noqa: B023
            start,
            READOUT,
            [2, 3, 1, 0],
        )
        residuals.append(found.residual)
    assert 0 < max(residuals) < 1e-11


def accuracies_of_shifts(case, start, **options):
    """Test accuracy of the student of each cyclic shift of a start's answers."""
    labels = case["labels"]
    shares = []
    for shift in SHIFTS:
        student = trained(permute_readout(start, READOUT, shift), case, **options)
        logits = np.asarray(apply(student, case["images"], case["relu"]))
        shares.append(np.mean(np.argmax(logits[:, :K], 1) == np.asarray(labels)))
    return np.array(shares)


@settings(max_examples=8)
@given(seeds, st.sampled_from([*TOYS]), st.integers(0, 5))
def test_students_of_all_shifts_of_one_start_have_a_mean_accuracy_of_1_in_k(
    seed, optimiser, cloning
):
    """Each is trained anew: each image is right under exactly one of the shifts."""
    start, case = case_of(seed, **{"clone steps": cloning})
    shares = accuracies_of_shifts(case, start, optimiser=optimiser)
    assert np.mean(shares) == pytest.approx(1 / K, abs=1e-12)


def test_differences_are_the_largest_of_their_kind():
    """By hand: a training of the start, and one of the start with rows 0, 1, 2 as 1, 2, 0."""
    readout = Readout({"body": None, "head": 0}, answers=(0, 1, 2))
    start = {"body": jnp.zeros(2), "head": jnp.zeros(4)}
    # The last place of the head is no answer's.
    trained = {"body": jnp.array([1.0, 2.0]), "head": jnp.array([10.0, 20.0, 30.0, -80.0])}
    of_permuted = {"body": jnp.array([1.5, 5.0]), "head": jnp.array([20.0, 37.0, 10.0, -80.0])}
    found = compare_trainings(start, trained, of_permuted, readout, [1, 2, 0])
    assert (found.others, found.rows, found.change) == (3, 7, 80)
    assert found.residual == 7 / 80


def test_students_whose_loss_sees_the_answers_have_another_mean_accuracy():
    apart = []
    for seed in range(5):
        changes = {"student sees": ~ANSWERS | True, "student steps": 40}
        shares = accuracies_of_shifts(*reversed(case_of(seed, **changes)), optimiser="adam")
        apart.append(np.mean(shares) - 1 / K)
    assert np.mean(apart) > 0.2


def test_a_training_that_diverges_does_not_pass_for_one_that_commutes():
    start, case = case_of(0, inputs=1e200 * jnp.ones((INPUTS, PIXELS)), loss=1, relu=True)
    found = commutation(lambda p: trained(p, case, optimiser="sgd"), start, READOUT, SHIFTS[1])
    assert np.isnan(found.residual)


def test_where_training_does_nothing_a_difference_has_no_scale():
    start, _ = case_of(0)
    fixed = commutation(lambda p: p, start, READOUT, SHIFTS[1])
    assert (fixed.residual, fixed.change) == (0, 0)
    reset = commutation(lambda p: start, start, READOUT, SHIFTS[1])
    assert np.isinf(reset.residual)


# What a loss can see.


def batch_of(seed):
    _, _, first, second = keys_of(seed)
    return {
        "x": jax.random.normal(first, (INPUTS, PIXELS)),
        "y": jax.random.normal(second, (INPUTS, K + OTHERS)),
    }


@pytest.mark.parametrize(
    ("model", "number"),
    [
        *((apply, number) for number in range(len(LOSSES))),
        (tied_apply, 0),
        *(
            pytest.param(tied_apply, number, marks=pytest.mark.slow)
            for number in range(1, len(LOSSES))
        ),
    ],
)
def test_a_probe_tells_losses_that_see_answers_from_those_that_do_not(number, model):
    for subset in (~ANSWERS, ANSWERS, ANSWERS | True, jnp.arange(K + OTHERS) < 2):
        loss = partial(matching_loss, subset=subset, number=number, model=model)
        params, key = network(keys_of(number)[0]), jax.random.key(number)
        ignored = ignores_readout(loss, params, READOUT, batch_of(0), key, probes=2)
        assert ignored == (model is apply and not bool(jnp.any(subset & ANSWERS)))


def rows_of(params):
    return sum(jnp.sum(leaf[..., :K]) for leaf in params["out"].values())


def nothing(value):
    """0, with the gradient of `value`."""
    return value - jax.lax.stop_gradient(value)


@pytest.mark.parametrize(
    "loss",
    [
        lambda params, batch: jax.lax.stop_gradient(rows_of(params)),
        lambda params, batch: nothing(rows_of(params)),
        lambda params, batch: (
            nothing(jnp.sum(params["hidden"]["kernel"])) * jax.lax.stop_gradient(rows_of(params))
        ),
    ],
    ids=["by its value", "by its gradient there", "by its gradient elsewhere"],
)
def test_a_probe_tells_a_loss_that_shows_the_readout(loss):
    params, key = network(keys_of(0)[0]), jax.random.key(0)
    assert not ignores_readout(loss, params, READOUT, batch_of(0), key, probes=1)


def scaled(params, batch, sees):
    """A loss with the logarithm of a scale, which about half of the draws make negative."""
    logits = apply(params, batch["x"])[:, :K] if sees else 0.0
    return jnp.log(params["scale"]) + jnp.sum(logits) + jnp.sum(params["hidden"]["kernel"])


def test_probes_at_which_a_loss_is_not_finite_prove_nothing():
    params, key = network(keys_of(0)[0]) | {"scale": jnp.ones(())}, jax.random.key(0)
    readout = Readout(READOUT.axes | {"scale": None}, READOUT.answers)
    ask = partial(ignores_readout, params=params, readout=readout, inputs=batch_of(0), key=key)
    assert ask(partial(scaled, sees=False))
    assert not ask(partial(scaled, sees=True))
    with pytest.raises(ValueError, match="loss: it or its gradient is not finite at any of 20 "):
        ask(lambda params, batch: jnp.log(-(params["scale"] ** 2)), probes=1)


def test_parameters_that_are_0_are_probed_elsewhere():
    """Where all are 0, a loss that sees answers by way of hidden units shows none."""
    params = jax.tree.map(jnp.zeros_like, network(keys_of(0)[0]))

    def loss(params, batch):
        del batch
        return jnp.sum(params["hidden"]["kernel"]) ** 2 * rows_of(params) ** 2

    assert not ignores_readout(loss, params, READOUT, batch_of(0), jax.random.key(0), probes=1)


def test_a_probe_is_no_proof_for_a_loss_with_branches():
    """The answers count only beyond where any draw comes to."""

    def far(params, batch):
        logits = apply(params, batch["x"])[:, :K]
        return jnp.sum(jax.nn.relu(logits - 1e6))

    params = network(keys_of(1)[0])
    assert ignores_readout(far, params, READOUT, batch_of(0), jax.random.key(0))
    moved = params | {"out": params["out"] | {"bias": jnp.full(K + OTHERS, 2e6)}}
    assert not jnp.all(untouched(lambda p: far(p, batch_of(0)), moved)["out"]["bias"])


@settings(max_examples=10)
@given(seeds, st.integers(0, len(LOSSES) - 1))
def test_on_given_data_the_gradient_by_answers_that_are_not_seen_is_exactly_0(seed, number):
    params, batch = network(keys_of(seed)[0]), batch_of(seed)
    rows = in_readout(params, READOUT)

    def left_alone(subset):
        return untouched(lambda p: matching_loss(p, batch, subset=subset, number=number), params)

    apart = left_alone(~ANSWERS)
    jax.tree.map(np.testing.assert_array_equal, apart, rows)
    assert not any(bool(jnp.any(leaf)) for leaf in jax.tree.leaves(left_alone(ANSWERS | True)))


def test_a_unit_that_is_off_is_left_alone_on_these_data_only():
    params = network(keys_of(0)[0])
    params["hidden"]["bias"] = params["hidden"]["bias"].at[0].set(-100.0)
    loss = partial(matching_loss, subset=ANSWERS, number=1, relu=True)
    alone = untouched(lambda p: loss(p, batch_of(0)), params)
    assert bool(alone["hidden"]["bias"][0])
    readout = Readout({"hidden": {"kernel": 1, "bias": 0}, "out": None}, answers=(0, 1))
    assert not ignores_readout(loss, params, readout, batch_of(0), jax.random.key(0))


# Permuting.


@settings(max_examples=15)
@given(seeds, orders, orders)
def test_permutations_of_a_readout_are_a_group_and_leave_all_else(seed, first, second):
    params = network(keys_of(seed)[0])
    both = permute_readout(permute_readout(params, READOUT, first), READOUT, second)
    once = permute_readout(params, READOUT, [first[k] for k in second])
    jax.tree.map(np.testing.assert_array_equal, both, once)
    back = permute_readout(
        permute_readout(params, READOUT, first), READOUT, np.argsort(first).tolist()
    )
    jax.tree.map(np.testing.assert_array_equal, back, params)
    x = batch_of(seed)["x"]
    before, after = apply(params, x), apply(permute_readout(params, READOUT, first), x)
    np.testing.assert_allclose(after[:, :K], before[:, list(first)], rtol=1e-12)
    np.testing.assert_array_equal(after[:, K:], before[:, K:])


def test_answers_may_stand_anywhere_and_in_any_order():
    readout = Readout({"head": 1, "body": None}, answers=(3, 0, 2))
    params = {"head": jnp.arange(10.0).reshape(2, 5), "body": jnp.arange(5.0)}
    permuted = permute_readout(params, readout, [1, 2, 0])
    # The first answer, at place 3, gets what the second at place 0 had, and so on.
    np.testing.assert_array_equal(permuted["head"], [[2.0, 1, 3, 0, 4], [7, 6, 8, 5, 9]])
    np.testing.assert_array_equal(permuted["body"], params["body"])
    rows = in_readout(params, readout)
    np.testing.assert_array_equal(rows["head"], [[True, False, True, True, False]] * 2)
    assert not rows["body"].any()


REFUSED = {
    "permutation: must be the numbers from 0 to 3": (READOUT, [0, 1, 2, 2]),
    "permutation: must be the numbers": (READOUT, [0, 1, 2]),
    "readout.answers: must be 2 or more": (Readout(READOUT.axes, (0, 0)), [0, 1]),
    "readout.answers: axis 1 has 7 places": (
        Readout({"hidden": None, "out": {"kernel": 1, "bias": None}}, (6, 7)),
        [1, 0],
    ),
    "readout.axes: there is no axis 2": (
        Readout({"hidden": None, "out": {"kernel": 2, "bias": 0}}, (0, 1)),
        [1, 0],
    ),
    "readout.axes: there is no axis 0": (Readout({"hidden": None, "out": 0}, (0, 1)), [1, 0]),
    "readout.axes: must be like params": (
        Readout({"body": None, "out": None, "x": 1}, (0, 1)),
        [1, 0],
    ),
    "readout.axes: names no axis": (Readout(None, (0, 1)), [1, 0]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_readout_that_is_not_there_is_refused(message):
    readout, order = REFUSED[message]
    with pytest.raises(ValueError, match=message):
        permute_readout(network(keys_of(0)[0]), readout, order)


def test_what_cannot_be_probed_is_refused():
    params, batch = network(keys_of(0)[0]), batch_of(0)
    loss = partial(matching_loss, subset=ANSWERS, number=1)
    with pytest.raises(ValueError, match="probes: must be at least 1"):
        ignores_readout(loss, params, READOUT, batch, jax.random.key(0), probes=0)
    with pytest.raises(ValueError, match="inputs: "):
        ignores_readout(loss, params, READOUT, {}, jax.random.key(0))
    with pytest.raises(ValueError, match="params: has no arrays"):
        untouched(lambda p: jnp.zeros(()), {})
    with pytest.raises(ValueError, match="trained: must have the arrays of params"):
        commutation(lambda p: p | {"out": {}}, params, READOUT, SHIFTS[1])


# The law of a readout that nobody touched.


@settings(max_examples=25)
@given(seeds, st.booleans())
def test_the_accuracy_over_all_orders_of_answers_is_as_enumerated(seed, ties):
    key, other = keys_of(seed)[:2]
    logits = jax.random.normal(key, (30, K))
    if ties:
        logits = jnp.round(logits)
    labels = jax.random.randint(other, (30,), 0, K)
    shares = []
    for order in permutations(range(K)):
        row = logits[:, list(order)]
        tied = row == row.max(1, keepdims=True)
        shares.append(np.mean(tied[np.arange(30), labels] / tied.sum(1)))
    law = permuted_accuracy(logits, labels)
    assert law.mean == pytest.approx(1 / K, abs=1e-12) == np.mean(shares)
    assert law.std == pytest.approx(np.std(shares), abs=1e-12)


def test_a_perfect_model_and_one_that_says_one_thing_scatter_over_orders_as_they_must():
    labels = jnp.arange(100) % K
    perfect = permuted_accuracy(jax.nn.one_hot(labels, K), labels)
    # The number of fixed points of a random order has variance 1.
    assert perfect.std == pytest.approx(1 / K)
    constant = permuted_accuracy(jnp.zeros((100, K)).at[:, 0].set(1.0), labels)
    assert constant.std == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="logits: needs examples and 2 answers"):
        permuted_accuracy(jnp.zeros((3, 1)), jnp.zeros(3, int))
    logits = jnp.zeros((3, K))
    for wrong in (-1, K):
        with pytest.raises(ValueError, match=f"labels: must be from 0 to {K - 1}"):
            permuted_accuracy(logits, jnp.array([0, 1, wrong]))
    with pytest.raises(ValueError, match="logits: holds NaN"):
        permuted_accuracy(logits.at[1, 2].set(jnp.nan), jnp.zeros(3, int))
