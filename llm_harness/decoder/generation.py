"""Sampling from a decoder inside one compiled program, and the logits of given answers."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key

from llm_harness.decoder.network import (
    PADDING,
    PRODUCTS,
    Beginning,
    Cache,
    Decoder,
    DecoderConfig,
    length_of,
    reading,
    with_params,
)
from sublab import devices
from theory import Params

# Entries of the vocabulary that are searched together for a drawn token.
_SEARCHED = 32


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Completions:
    """What was drawn: a row a completion, those of one prompt one after the other.

    Attributes:
        tokens: up to and with the stop token; 0 behind it.
        log_probabilities: of each token under the model itself, at temperature 1, in nats.
        stopped: whether a stop token came; else the completion was cut.
    """

    tokens: (
        Int[Array, "*population completions places"]
        | Int[np.ndarray, "*population completions places"]
    )
    log_probabilities: (
        Float[Array, "*population completions places"]
        | Float[np.ndarray, "*population completions places"]
    )
    stopped: Bool[Array, "*population completions"] | Bool[np.ndarray, "*population completions"]


@partial(
    jax.jit,
    static_argnames=("config", "max_tokens", "stops", "banned", "each", "mesh"),
)
def generate(
    config: DecoderConfig,
    params: Params,
    prompts: Int[Array, "population prompts time"],
    keys: Key[Array, " population"],
    temperature: Float[Array, ""],
    top_p: Float[Array, ""] | None = None,
    beginnings: Int[Array, "population start"] | None = None,
    *,
    max_tokens: int,
    stops: tuple[int, ...],
    mesh: Mesh,
    banned: tuple[int, ...] = (),
    each: int = 1,
) -> Completions:
    """Completions of prompts from every model of a population.

    Args:
        config: of the models.
        params: with a leading population axis.
        prompts: padded on the left with 0.
        keys: one a model.
        temperature: that logits are divided by; 0 takes the likeliest token.
        top_p: share of the probability, of the likeliest tokens, that is drawn from; None for all,
            where no program sorts the vocabulary.
        beginnings: tokens that all prompts of a model begin with, before those of its row.
        max_tokens: a completion is cut there.
        stops: tokens that end a completion.
        mesh: the devices that the population is spread over.
        banned: tokens that are never drawn; padding never is.
        each: completions of a prompt, which is read once for all.
    """

    def of_model(params, prompts, key, beginning):
        with jax.default_matmul_precision(PRODUCTS):
            model = with_params(config, params)
            uniform = jax.random.uniform(key, (max_tokens, prompts.shape[0] * each))

            def draw(logits, uniform):
                return pick(logits, uniform, temperature, top_p, banned)

            return _generated(model, prompts, beginning, uniform, draw, stops, each)

    cut = (params, prompts, keys, beginnings)
    return devices.over_population(of_model, mesh, cut, (), large=True)


def _generated(model: Decoder, prompts, beginning, uniform, draw, stops, each) -> Completions:
    max_tokens, completions = uniform.shape
    stream, cache = model.stream(prompts, *reading(prompts, beginning), beginning=beginning)
    logits = model.logits(stream[:, -1])
    given = given_places(prompts, beginning)
    width = given.shape[1]
    logits, given = (jnp.repeat(part, each, axis=0) for part in (logits, given))
    cache = with_room(cache, np.repeat(np.arange(prompts.shape[0]), each), max_tokens)
    lengths = jnp.sum(given, axis=1).astype(jnp.int32)
    given = jnp.pad(given, [(0, 0), (0, max_tokens)])
    places = jnp.arange(width + max_tokens)

    def unfinished(carry):
        step, *_, stopped = carry
        return (step < max_tokens) & ~jnp.all(stopped)

    def one_token(carry):
        step, logits, cache, tokens, scores, stopped = carry
        drawn = jnp.where(stopped, PADDING, draw(logits, uniform[step])).astype(jnp.int32)
        score = jax.nn.log_softmax(logits)[jnp.arange(completions), drawn]
        tokens = tokens.at[:, step].set(drawn)
        scores = scores.at[:, step].set(jnp.where(stopped, 0.0, score))
        stopped = stopped | jnp.isin(drawn, jnp.asarray(stops, jnp.int32))
        seen = given | ((places >= width) & (places <= width + step))
        stream, cache = model.stream(
            drawn[:, None], (lengths + step)[:, None], seen[:, None], cache, width + step
        )
        return step + 1, model.logits(stream[:, 0]), cache, tokens, scores, stopped

    begun = (
        jnp.int32(0),
        logits,
        cache,
        jnp.zeros((completions, max_tokens), jnp.int32),
        jnp.zeros((completions, max_tokens), jnp.float32),
        jnp.zeros(completions, bool),
    )
    *_, tokens, scores, stopped = jax.lax.while_loop(unfinished, one_token, begun)
    return Completions(tokens, scores, stopped)


def given_places(
    prompts: Int[Array, "prompts time"], beginning: Beginning
) -> Bool[Array, "prompts places"]:
    """Which places of prompts with their beginning have a token."""
    room = [(0, 0), (length_of(beginning), 0)]
    return jnp.pad(prompts != PADDING, room, constant_values=True)


def with_room(
    cache: Cache, rows: Int[Array, " rows"] | Int[np.ndarray, " rows"], room: int
) -> tuple[Float[Array, "layers rows longer groups part"], ...]:
    """Keys and values of some rows, with places behind them for more."""
    sides = [(0, 0), (0, 0), (0, room), (0, 0), (0, 0)]
    return tuple(jnp.pad(part[:, rows], sides) for part in cache)


@partial(jax.jit, static_argnames="config")
def answer_logits(
    config: DecoderConfig,
    params: Params,
    prompts: Int[Array, "prompts time"],
    of: Int[Array, " answers"],
    answers: Int[Array, "answers places"],
    beginning: Beginning = None,
) -> Float[Array, "answers places vocabulary"]:
    """Logits at the places of answers to prompts, each of which is read once.

    Args:
        config: of the model.
        params: of one model.
        prompts: padded on the left.
        of: which prompt an answer is to.
        answers: padded on the right.
        beginning: tokens that all prompts begin with, before those of their rows.
    """
    with jax.default_matmul_precision(PRODUCTS):
        model = with_params(config, params)
        before, cache = model.stream(prompts, *reading(prompts, beginning), beginning=beginning)
        given = given_places(prompts, beginning)
        read = answers[:, :-1]
        width, places = given.shape[1], read.shape[1]
        own, causal = reading(read)
        lengths = jnp.sum(given, axis=1).astype(jnp.int32)
        given = jnp.broadcast_to(given[of][:, None], (*read.shape, width))
        stream, _ = model.stream(
            read,
            lengths[of][:, None] + own,
            jnp.concatenate([given, causal], axis=-1),
            with_room(cache, of, places),
            width,
        )
        return model.logits(jnp.concatenate([before[of][:, -1:], stream], axis=1))


def pick(
    logits: Float[Array, "batch vocabulary"],
    uniform: Float[Array, " batch"],
    temperature: Float[Array, ""],
    top_p: Float[Array, ""] | None = None,
    banned: tuple[int, ...] = (),
) -> Int[Array, " batch"]:
    """A token for each row from softmax(logits / temperature).

    Args:
        logits: in float32.
        uniform: a number from 0 to 1 for each row, which decides.
        temperature: 0 takes the likeliest token.
        top_p: the fewest likeliest tokens with at least this probability are drawn from (nucleus
            sampling, Holtzman et al. 2020).
        banned: tokens that are never drawn, beside padding.
    """
    never = np.zeros(logits.shape[1], bool)
    never[[PADDING, *banned]] = True
    allowed = jnp.where(never, -jnp.inf, logits)

    def drawn(logits):
        scaled = logits / temperature
        return _inverted(scaled if top_p is None else _nucleus(scaled, top_p), uniform)

    # A condition, not a choice: the likeliest token is as dear to find as one is to draw.
    return jax.lax.cond(
        temperature <= 0, lambda logits: jnp.argmax(logits, axis=-1), drawn, allowed
    )


def _nucleus(logits, top_p):
    ordered = -jnp.sort(-logits, axis=-1)
    shares = jax.nn.softmax(ordered)
    # A token is in where those before it have less than top_p; the first always is.
    inside = jnp.cumsum(shares, axis=-1) - shares < top_p
    least = jnp.min(jnp.where(inside.at[:, 0].set(True), ordered, jnp.inf), axis=-1)
    return jnp.where(logits >= least[:, None], logits, -jnp.inf)


def _inverted(logits, uniform):
    """Tokens by inverting each row's distribution: the part of the vocabulary, the place in it.

    One uniform number a token, where a Gumbel draw needs one for every entry of the vocabulary;
    and sums of few numbers, which float32 holds for any vocabulary.
    """
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    parts = jnp.pad(weights, [(0, 0), (0, -weights.shape[1] % _SEARCHED)])
    parts = parts.reshape(len(weights), -1, _SEARCHED)
    sums = jnp.sum(parts, axis=-1)
    upto = jnp.cumsum(sums, axis=-1)
    target = uniform * upto[:, -1]
    part = jnp.minimum(jnp.sum(upto <= target[:, None], axis=-1), _last(sums))
    rows = jnp.arange(len(weights))
    before = jnp.where(part > 0, upto[rows, part - 1], 0.0)
    inside = parts[rows, part]
    place = jnp.sum(jnp.cumsum(inside, axis=-1) <= (target - before)[:, None], axis=-1)
    return part * _SEARCHED + jnp.minimum(place, _last(inside))


def _last(weights):
    # Rounding may point behind the last entry that has any weight.
    return jnp.max(jnp.where(weights > 0, jnp.arange(weights.shape[1]), 0), axis=-1)
