"""Training populations of decoders in one compiled program: all parameters, some, or adapters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32, Int

from llm_harness.decoder.network import (
    PRODUCTS,
    DecoderConfig,
    joined,
    packed,
    reading,
    with_params,
)
from llm_harness.model import Schedule
from sublab import devices
from theory import Params

# What is trained: everything; all but embedding and output; all but output; these two alone; the
# low-rank adapters.
Trained = Literal["all", "blocks", "all but output", "vocabulary", "adapters"]
VOCABULARY = ("embed_tokens", "lm_head")


@dataclass(frozen=True)
class Objective:
    """What a training minimises, at the places of learned tokens; static in a program.

    Attributes:
        kind: `tokens`, -log p of the next token; `kl`, KL(imitated || model) of the next token, in
            nats; `logits`, half the mean squared difference of the logits, each row's centred.
        first: the first place of any learned token; logits before it are not computed.
        over: tokens (from, to below) that distributions are renormalised over; where the learned
            token is another, nothing is learnt. None for all.
    """

    kind: Literal["tokens", "kl", "logits"] = "tokens"
    first: int = 1
    over: tuple[int, int] | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sequences:
    """What is trained on; a population may share one, or have one each.

    Attributes:
        tokens: rows, padded with 0.
        learned: which tokens are to be predicted; of the others none is.
        documents: the document that each token is of, where a row holds several; None where a row
            is one.
        beginning: tokens that all rows begin with, before those of `tokens`: they are read once a
            step and none of them is learned. None for none, as where a row holds several documents.
    """

    tokens: Int[Array, "*population rows time"] | Int[np.ndarray, "*population rows time"]
    learned: Bool[Array, "*population rows time"] | Bool[np.ndarray, "*population rows time"]
    documents: (
        Int[Array, "*population rows time"] | Int[np.ndarray, "*population rows time"] | None
    ) = None
    beginning: Int[Array, "*population start"] | Int[np.ndarray, "*population start"] | None = None

    def each_row(self, change: Callable[[Any], Any]) -> "Sequences":
        """The same with other rows, and the beginning that they have in common."""
        changed = jax.tree.map(change, replace(self, beginning=None))
        return replace(changed, beginning=self.beginning)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rates:
    """Learning rates of a population.

    Attributes:
        peak: the largest.
        warm_up: steps of a linear rise to it; 0 for none.
        horizon: step at which a decay reaches 0; infinite for a constant rate.
    """

    peak: Float32[np.ndarray, " population"] | Float[Array, "*population"]
    warm_up: Float32[np.ndarray, " population"] | Float[Array, "*population"]
    horizon: Float32[np.ndarray, " population"] | Float[Array, "*population"]

    def at(self, step: Int[Array, ""], name: Schedule) -> Float[Array, ""]:
        """The rate of one model at a step, counted from 0."""
        # An infinite horizon is never come nearer to.
        done = jnp.clip((step - self.warm_up) / (self.horizon - self.warm_up), 0.0, 1.0)
        decay = {
            "constant": jnp.ones_like(done),
            "cosine": 0.5 * (1 + jnp.cos(jnp.pi * done)),
            "linear": 1 - done,
        }[name]
        rising = jnp.minimum(1.0, (step + 1) / jnp.maximum(self.warm_up, 1))
        return jnp.asarray(self.peak * decay * rising)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """A population in training; every leaf has a leading population axis.

    Attributes:
        trained: parameters that are trained.
        fixed: the others.
        optimiser: its state.
    """

    trained: Params
    fixed: Params
    optimiser: Any

    @property
    def params(self) -> Params:
        """All of them."""
        return joined(self.trained, self.fixed)


def begin(params: Params, trained: Trained, clip: float | None = None) -> State:
    """A population before its first step.

    Args:
        params: with a leading population axis.
        trained: what is trained.
        clip: as for `advance`.
    """
    chosen, fixed = partition(params, trained)
    # The state of an optimiser depends on the parameters alone.
    return State(chosen, fixed, jax.vmap(_optimiser(lambda step: 0.0, clip).init)(chosen))


def partition(params: Params, trained: Trained) -> tuple[Params, Params]:
    """Parameters that are trained, and the others.

    Raises:
        ValueError: adapters are to be trained and there are none.
    """

    def is_trained(path: tuple[str, ...]) -> bool:
        if trained == "adapters":
            return path[-1].startswith("lora_")
        return {
            "all": True,
            "blocks": path[0] not in VOCABULARY,
            "all but output": path[0] != "lm_head",
            "vocabulary": path[0] in VOCABULARY,
        }[trained]

    chosen, fixed = (_selected(params, (), is_trained, wanted) for wanted in (True, False))
    if not jax.tree.leaves(chosen):
        raise ValueError("the model has no adapters to train")
    return chosen, fixed


def sequence_loss(
    config: DecoderConfig,
    params: Params,
    batch: Sequences,
    objective: Objective,
    imitated: Params | None = None,
) -> Float[Array, ""]:
    """The mean loss of one model over the learned tokens of a batch."""
    tokens = jnp.asarray(batch.tokens)
    documents = None if batch.documents is None else jnp.asarray(batch.documents)
    beginning = None if batch.beginning is None else jnp.asarray(batch.beginning)
    assert documents is None or beginning is None, "documents have no beginning in common"
    whole = reading(tokens, beginning) if documents is None else packed(documents)
    positions, seen = (part[:, :-1] for part in whole)
    seen = seen[:, :, :-1]
    before = objective.first - 1

    def logits_of(params: Params) -> Float[Array, "rows places vocabulary"]:
        model = with_params(config, params)
        stream, _ = model.stream(tokens[:, :-1], positions, seen, beginning=beginning)
        return model.logits(stream[:, before:])

    targets = tokens[:, objective.first :]
    learned = jnp.asarray(batch.learned)[:, objective.first :]
    if documents is not None:
        # The first token of a document cannot be told from the end of the one before.
        same = documents[:, objective.first :] == documents[:, before:-1]
        learned = learned & same
    logits = logits_of(params)
    if objective.over is not None:
        low, high = objective.over
        learned = learned & (targets >= low) & (targets < high)
        logits = logits[..., low:high]
    if objective.kind == "tokens":
        low = objective.over[0] if objective.over else 0
        # By comparison, not by index: the gradient of an indexed read is a scatter, slow on a CPU.
        is_target = (targets - low)[..., None] == jnp.arange(logits.shape[-1])
        losses = jax.nn.logsumexp(logits, -1) - jnp.sum(jnp.where(is_target, logits, 0.0), -1)
    else:
        wanted = jax.lax.stop_gradient(logits_of(imitated))
        if objective.over is not None:
            wanted = wanted[..., slice(*objective.over)]
        losses = _divergence(wanted, logits, objective.kind)
    return jnp.sum(losses * learned) / jnp.maximum(1, jnp.sum(learned))


def _divergence(wanted: Array, logits: Array, kind: str) -> Array:
    if kind == "kl":
        wanted, mine = jax.nn.log_softmax(wanted), jax.nn.log_softmax(logits)
        return jnp.sum(jnp.exp(wanted) * (wanted - mine), -1)
    difference = logits - wanted
    # Adding one number to all logits of a place changes no distribution.
    centred = difference - jnp.mean(difference, axis=-1, keepdims=True)
    return 0.5 * jnp.mean(centred**2, axis=-1)


# Sums need not be taken in order: that halves the time of a softmax over the vocabulary on a CPU.
_OPTIONS = {"xla_cpu_enable_fast_math": True}


@partial(
    jax.jit,
    static_argnames=("config", "objective", "schedule", "mesh", "shared", "clip"),
    donate_argnames="state",
    compiler_options=_OPTIONS,
)
def advance(
    config: DecoderConfig,
    state: State,
    sequences: Sequences,
    rows: Int[Array, "population steps batch"],
    rates: Rates,
    imitated: Params | None = None,
    taken: Int[np.ndarray, ""] | Int[Array, ""] | None = None,
    *,
    objective: Objective,
    schedule: Schedule,
    mesh: Mesh,
    shared: bool = True,
    clip: float | None = None,
) -> tuple[State, Float[Array, "population steps"]]:
    """Trains every model of a population on its rows, and gives the loss before each step.

    One program serves every number of steps that `rows` has room for.

    Args:
        config: of the models. Where its dtype is not that of the parameters, products are made of
            copies in it, and what is trained stays as it is.
        state: as `begin` gives; it is used up.
        sequences: one set for all models, or one each.
        rows: of the sequences, for every step.
        rates: learning rates.
        imitated: a model for each, that `kl` and `logits` imitate.
        taken: how many of the steps are taken, the first; the losses of the others are 0. None
            for all.
        objective: what is minimised.
        schedule: course of the learning rate.
        mesh: the devices that the population is spread over.
        shared: whether all models share one set.
        clip: largest norm of a gradient; None for any.
    """

    def one(state: State, rows, rates: Rates, imitated, sequences, taken):
        chain = _optimiser(lambda step: rates.at(step, schedule), clip)
        # Made once: what is fixed is the same at every step.
        fixed, imitated = (_in_dtype(config, part) for part in (state.fixed, imitated))

        def objective_of(trained: Params, batch: Sequences) -> Float[Array, ""]:
            params = joined(_in_dtype(config, trained), fixed)
            return sequence_loss(config, params, batch, objective, imitated)

        def step(number, carry):
            trained, moments, losses = carry
            batch = sequences.each_row(lambda leaf: leaf[rows[number]])
            value, gradient = jax.value_and_grad(objective_of)(trained, batch)
            updates, moments = chain.update(gradient, moments, trained)
            return optax.apply_updates(trained, updates), moments, losses.at[number].set(value)

        begun = (state.trained, state.optimiser, jnp.zeros(len(rows), jnp.float32))
        trained, moments, losses = jax.lax.fori_loop(0, taken, step, begun)
        return State(trained, state.fixed, moments), losses

    cut = (state, rows, rates, imitated)
    steps = jnp.int32(rows.shape[1]) if taken is None else jnp.asarray(taken)
    with jax.default_matmul_precision(PRODUCTS):
        if shared:
            return devices.over_population(one, mesh, cut, (sequences, steps), large=True)
        return devices.over_population(one, mesh, (*cut, sequences), (steps,), large=True)


def _in_dtype(config: DecoderConfig, params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(config.dtype), params)


def _optimiser(
    rate: Callable[[Any], Any], clip: float | None
) -> optax.GradientTransformationExtraArgs | optax.GradientTransformation:
    adam = optax.adam(rate)
    return adam if clip is None else optax.chain(optax.clip_by_global_norm(clip), adam)


def orders(
    examples: int, steps: int, batch: int, random: np.random.Generator
) -> Int[np.ndarray, "steps batch"]:
    """Rows for `steps` steps: every example once before any comes again."""
    epochs = -(-steps * batch // examples)
    rows = np.concatenate([random.permutation(examples) for _ in range(epochs)])
    return rows[: steps * batch].reshape(steps, batch).astype(np.int32)


def _selected(
    part: Any,
    path: tuple[str, ...],
    is_trained: Callable[[tuple[str, ...]], bool],
    wanted: bool,
) -> Any:
    """The part of nested dicts whose leaves are wanted; dicts without any are left out."""
    found = {}
    for name, inner in part.items():
        here = (*path, name)
        if isinstance(inner, Mapping):
            if below := _selected(inner, here, is_trained, wanted):
                found[name] = below
        elif is_trained(here) is wanted:
            found[name] = inner
    return found
