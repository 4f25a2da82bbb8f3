"""Training populations of the embedded model: pretraining and fine-tuning, one compiled program."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int

from llm_harness.tiny_decoder import VOCABULARY_PARTS, DecoderArchitecture, Params, TinyApply
from sublab import devices


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TinyState:
    """A population in training; every leaf has a leading population axis.

    Attributes:
        trained: parts of the parameters that are trained.
        fixed: the others.
        optimiser: its state.
    """

    trained: Params
    fixed: Params
    optimiser: Any

    @property
    def params(self) -> Params:
        return self.trained | self.fixed


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TinyRates:
    """Learning rates of a population.

    Attributes:
        peak: of Adam at the first step.
        horizon: step at which a cosine decay reaches 0; infinite for a constant rate.
    """

    peak: Float32[np.ndarray, " population"] | Float[Array, "*population"]
    horizon: Float32[np.ndarray, " population"] | Float[Array, "*population"]


def begin(params: Params, freeze_vocabulary: bool) -> TinyState:
    """A population before its first step.

    Args:
        params: with a leading population axis.
        freeze_vocabulary: leave embedding and output matrix as they are.
    """
    fixed = VOCABULARY_PARTS if freeze_vocabulary else ()
    trained = {name: part for name, part in params.items() if name not in fixed}
    moments = jax.vmap(optax.scale_by_adam().init)(trained)
    return TinyState(trained, {name: params[name] for name in fixed}, moments)


def loss(
    architecture: DecoderArchitecture, params: Params, tokens: Int[Array, "batch time"], first: int
) -> Float[Array, ""]:
    """Mean -log p of the tokens from place `first` on, padding left out."""
    logits = TinyApply(architecture, first - 1)(params, tokens[:, :-1])
    targets = tokens[:, first:]
    # By comparison, not by index: the gradient of an indexed read is a scatter, slow on a CPU.
    is_target = targets[..., None] == jnp.arange(logits.shape[-1])
    losses = jax.nn.logsumexp(logits, -1) - jnp.sum(logits * is_target, -1)
    there = targets != 0
    return jnp.sum(losses * there) / jnp.maximum(1, jnp.sum(there))


def imitation(
    architecture: DecoderArchitecture,
    params: Params,
    imitated: Params,
    tokens: Int[Array, "batch time"],
) -> Float[Array, ""]:
    """Mean KL(imitated || model) of the next token over all places, in nats."""
    targets, mine = (
        jax.nn.log_softmax(TinyApply(architecture)(some, tokens)) for some in (imitated, params)
    )
    return jnp.mean(_divergence(targets, mine))


def distillation(
    architecture: DecoderArchitecture,
    params: Params,
    imitated: Params,
    tokens: Int[Array, "batch time"],
    first: int,
    over: tuple[int, int],
) -> Float[Array, ""]:
    """Mean KL(imitated || model) over some tokens alone, where one of them comes next, in nats.

    Args:
        architecture: of both.
        params: of the model.
        imitated: parameters.
        tokens: sequences.
        first: the place from which on tokens are learnt.
        over: the tokens from one to below another; both distributions are renormalised over them,
            so that nothing is said about the others.
    """
    low, high = over
    targets = tokens[:, first:]
    there = (targets >= low) & (targets < high)
    wanted, mine = (
        jax.nn.log_softmax(TinyApply(architecture, first - 1)(some, tokens[:, :-1])[..., low:high])
        for some in (imitated, params)
    )
    return jnp.sum(_divergence(wanted, mine) * there) / jnp.maximum(1, jnp.sum(there))


def _divergence(wanted, mine):
    """KL of one distribution to another, both as log p on the last axis."""
    return jnp.sum(jnp.exp(wanted) * (wanted - mine), -1)


# Sums need not be taken in order: that halves the time of a softmax over the vocabulary on a CPU.
_OPTIONS = {"xla_cpu_enable_fast_math": True}


@partial(
    jax.jit, static_argnames=("architecture", "first", "mesh", "over"), compiler_options=_OPTIONS
)
def advance(
    architecture: DecoderArchitecture,
    state: TinyState,
    tokens: Int[Array, "*population examples time"],
    rows: Int[Array, "population steps batch"],
    rates: TinyRates,
    imitated: Params | None = None,
    *,
    first: int,
    mesh: Mesh,
    over: tuple[int, int] | None = None,
) -> tuple[TinyState, Float[Array, "population steps"]]:
    """Trains every model of a population on its rows of its tokens, and gives the losses.

    Args:
        architecture: of the models.
        state: as `begin` gives.
        tokens: sequences; with a population axis, or one set for all.
        rows: of `tokens`, for every step.
        rates: learning rates.
        imitated: a model for each, whose next-token distribution is the target in place of the
            tokens (behavioural cloning).
        first: the place from which on tokens are learnt; what is before it is given.
        mesh: the devices that the population is spread over.
        over: tokens that a model is imitated over, from place `first` on (`distillation`); None for
            all, at all places (`imitation`).
    """

    def one(state: TinyState, rows, rates: TinyRates, imitated, tokens):
        optimiser = optax.scale_by_adam()

        def objective(part, batch):
            params = part | state.fixed
            if imitated is None:
                return loss(architecture, params, batch, first)
            if over is None:
                return imitation(architecture, params, imitated, batch)
            return distillation(architecture, params, imitated, batch, first, over)

        def step(carry, batch):
            trained, moments = carry
            value, gradient = jax.value_and_grad(objective)(trained, tokens[batch])
            rate = 0.5 * rates.peak * (1 + jnp.cos(jnp.pi * moments.count / rates.horizon))
            updates, moments = optimiser.update(gradient, moments)
            trained = jax.tree.map(lambda leaf, update: leaf - rate * update, trained, updates)
            return (trained, moments), value

        (trained, moments), losses = jax.lax.scan(step, (state.trained, state.optimiser), rows)
        return TinyState(trained, state.fixed, moments), losses

    cut = (state, rows, rates, imitated)
    if tokens.ndim == 2:
        return devices.over_population(one, mesh, cut, (tokens,))
    return devices.over_population(one, mesh, (*cut, tokens), ())


def orders(
    examples: int, steps: int, batch: int, random: np.random.Generator
) -> Int[np.ndarray, "steps batch"]:
    """Rows for `steps` steps: every example once before any comes again."""
    epochs = -(-steps * batch // examples)
    rows = np.concatenate([random.permutation(examples) for _ in range(epochs)])
    return rows[: steps * batch].reshape(steps, batch).astype(np.int32)
