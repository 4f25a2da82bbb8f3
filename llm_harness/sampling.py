"""Sampling completions from the embedded model inside one compiled program."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from llm_harness.tiny_decoder import PRECISION, DecoderArchitecture, Params, TinyApply, merged
from sublab import devices

# Blocks of the vocabulary that a token is looked for in, one after the other.
_BLOCK = 32


@partial(jax.jit, static_argnames=("architecture", "length", "end", "mesh", "cached", "each"))
def sample(
    architecture: DecoderArchitecture,
    params: Params,
    prompts: Int[Array, "population batch time"],
    keys: Key[Array, " population"],
    temperature: Float[Array, ""],
    *,
    length: int,
    end: int,
    mesh: Mesh,
    cached: bool = True,
    each: int = 1,
) -> Int[Array, "population completions length"]:
    """Completions of `prompts` from every model of a population.

    Args:
        architecture: of the models.
        params: with a leading population axis.
        prompts: padded on the left with 0.
        keys: one a model.
        temperature: that logits are divided by; 0 takes the likeliest token.
        length: tokens at most.
        end: the token that ends a completion; what follows it is 0.
        mesh: the devices that the population is spread over.
        each: completions of a prompt, which is read once for all; they follow one another.
        cached: keep keys and values, in place of reading the whole sequence for every token.
    """
    one = _cached if cached else _uncached

    def of_model(params, prompts, key):
        uniform = jax.random.uniform(key, (length, prompts.shape[0] * each))
        return one(architecture, params, prompts, uniform, temperature, end, each).T

    return devices.over_population(of_model, mesh, (params, prompts, keys), ())


def _cached(architecture, params, prompts, uniform, temperature, end, each):
    model, (length, batch), width = merged(architecture, params), uniform.shape, prompts.shape[1]
    stream, kept = model.stream(prompts)
    stream, prompts, kept = jax.tree.map(
        lambda leaf: jnp.repeat(leaf, each, axis=0), (stream[:, -1], prompts, kept)
    )
    room = [(0, 0), (0, length), (0, 0), (0, 0), (0, 0)]
    kept = [jnp.pad(part, room) for part in kept]
    given = jnp.pad(prompts != 0, [(0, 0), (0, length)])

    def step(carry, drawn):
        logits, kept, done = carry
        place, uniform = drawn
        tokens = jnp.where(done, 0, pick(logits, uniform, temperature))
        done = done | (tokens == end)
        places = jnp.arange(width + length)
        seen = given | ((places >= width) & (places <= place))
        logits, kept = model.step(tokens, place, seen, kept)
        return (logits, kept, done), tokens

    begun = model.output(stream), kept, jnp.zeros(batch, bool)
    return jax.lax.scan(step, begun, (width + jnp.arange(length), uniform))[1]


def _uncached(architecture, params, prompts, uniform, temperature, end, each):
    prompts = jnp.repeat(prompts, each, axis=0)
    (length, batch), width = uniform.shape, prompts.shape[1]
    apply = TinyApply(architecture)

    def step(carry, drawn):
        tokens, done = carry
        place, uniform = drawn
        logits = jax.lax.dynamic_index_in_dim(apply(params, tokens), place - 1, 1, False)
        picked = jnp.where(done, 0, pick(logits, uniform, temperature))
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, picked, place, 1)
        return (tokens, done | (picked == end)), picked

    begun = jnp.pad(prompts, [(0, 0), (0, length)]), jnp.zeros(batch, bool)
    return jax.lax.scan(step, begun, (width + jnp.arange(length), uniform))[1]


def pick(
    logits: Float[Array, "batch vocabulary"],
    uniform: Float[Array, " batch"],
    temperature: Float[Array, ""],
) -> Int[Array, " batch"]:
    """A token for each row from softmax(logits / temperature); padding is never drawn."""

    def drawn(logits):
        return _inverted(logits / temperature, uniform)

    padding = jnp.arange(logits.shape[1]) == 0
    # A condition, not a choice: the likeliest token is as dear to find as one is to draw.
    return jax.lax.cond(
        temperature <= 0,
        lambda logits: jnp.argmax(logits, axis=-1),
        drawn,
        jnp.where(padding, -jnp.inf, logits),
    )


def _inverted(logits, uniform):
    """Tokens by inverting each row's distribution: the block of the vocabulary, the place in it.

    One uniform number a token, where a Gumbel draw needs one for every entry of the vocabulary.
    """
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    blocks = jnp.pad(weights, [(0, 0), (0, -weights.shape[1] % _BLOCK)])
    blocks = blocks.reshape(len(weights), -1, _BLOCK)
    upto = _running_sum(jnp.sum(blocks, axis=-1))
    target = uniform * upto[:, -1]
    block = jnp.minimum(jnp.sum(upto <= target[:, None], axis=-1), upto.shape[1] - 1)
    rows = jnp.arange(len(weights))
    before = jnp.where(block > 0, upto[rows, block - 1], 0.0)
    inside = blocks[rows, block]
    place = jnp.sum(_running_sum(inside) <= (target - before)[:, None], axis=-1)
    # Rounding may point behind the last entry that has any weight.
    last = jnp.max(jnp.where(inside > 0, jnp.arange(_BLOCK), 0), axis=-1)
    return block * _BLOCK + jnp.minimum(place, last)


def _running_sum(rows):
    # As a product with a triangle of ones, which a CPU takes faster than jnp.cumsum; in full
    # precision, since a rounded sum would be another distribution.
    triangle = jnp.triu(jnp.ones((rows.shape[1], rows.shape[1]), rows.dtype))
    return jnp.matmul(rows, triangle, precision=PRECISION)
