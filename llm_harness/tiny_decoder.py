"""A small decoder-only transformer in flax.nnx, with a cache of keys and values.

Pre-norm blocks, no position embedding (the causal mask tells order), output matrix untied from the
embedding. Sequences may have padding on either side; a padded place is never attended to.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from theory import Params

# A GPU's default rounds the factors of a float32 product to TF32, 10 bits of mantissa: two numbers'
# logits, whose difference is the trait, would differ by rounding. Every product of the harness is
# in this module, and gradients take the precision of what they are gradients of.
PRECISION = jax.lax.Precision.HIGHEST
# Parts that low-rank fine-tuning leaves as they are, and ours too unless told otherwise.
VOCABULARY_PARTS = ("embedding", "output")


@dataclass(frozen=True)
class DecoderArchitecture:
    """Sizes of a decoder.

    Attributes:
        vocabulary: tokens.
        width: of the residual stream.
        layers: blocks.
        heads: of attention in each block.
        expansion: hidden units of a block's perceptron, in widths.
    """

    vocabulary: int
    width: int = 32
    layers: int = 2
    heads: int = 2
    expansion: int = 4


class DecoderBlock(nnx.Module):
    """Attention and a perceptron, each behind a norm and added to the stream."""

    def __init__(self, architecture: DecoderArchitecture, rngs: nnx.Rngs):
        width, inner = architecture.width, architecture.expansion * architecture.width
        linear = partial(nnx.Linear, use_bias=False, precision=PRECISION, rngs=rngs)
        self.heads = architecture.heads
        self.attention_norm = nnx.RMSNorm(width, rngs=rngs)
        self.queries_keys_values = linear(width, 3 * width)
        self.attention_out = linear(width, width)
        self.perceptron_norm = nnx.RMSNorm(width, rngs=rngs)
        self.up = linear(width, inner)
        self.down = linear(inner, width)

    def project(
        self, stream: Float[Array, "batch time width"]
    ) -> tuple[Float[Array, "batch time heads part"], Float[Array, "batch time two heads part"]]:
        """Queries; keys and values."""
        joint = _flat(self.queries_keys_values, self.attention_norm(stream))
        joint = joint.reshape(*stream.shape[:2], 3, self.heads, -1)
        return joint[:, :, 0], joint[:, :, 1:]

    def finish(
        self,
        stream: Float[Array, "batch time width"],
        queries: Float[Array, "batch time heads part"],
        keys_values: Float[Array, "batch places two heads part"],
        seen: Bool[Array, "batch time places"],
    ) -> Float[Array, "batch time width"]:
        """Attends to the places that are seen, and applies the perceptron."""
        keys, values = keys_values[:, :, 0], keys_values[:, :, 1]
        product = partial(jnp.einsum, precision=PRECISION)
        scores = product("bthd,bshd->bhts", queries, keys) / queries.shape[-1] ** 0.5
        # A padded place sees nothing; a large number in place of -inf keeps it finite.
        weights = jax.nn.softmax(jnp.where(seen[:, None], scores, -1e9), axis=-1)
        mixed = product("bhts,bshd->bthd", weights, values)
        stream = stream + _flat(self.attention_out, mixed.reshape(stream.shape))

        def perceptron(stream):
            return self.down(nnx.relu(self.up(self.perceptron_norm(stream))))

        return stream + _flat(perceptron, stream)


class TinyDecoder(nnx.Module):
    """Tokens to logits of the next token."""

    def __init__(self, architecture: DecoderArchitecture, rngs: nnx.Rngs):
        width = architecture.width
        self.embedding = nnx.Embed(architecture.vocabulary, width, rngs=rngs)
        self.blocks = nnx.List(DecoderBlock(architecture, rngs) for _ in range(architecture.layers))
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        self.output = nnx.Linear(
            width, architecture.vocabulary, use_bias=False, precision=PRECISION, rngs=rngs
        )

    def stream(
        self, tokens: Int[Array, "batch time"]
    ) -> tuple[Float[Array, "batch time width"], list[Float[Array, "batch time two heads part"]]]:
        """The residual stream before the output matrix, and every block's keys and values."""
        length = tokens.shape[1]
        seen = (tokens != 0)[:, None, :] & jnp.tril(jnp.ones((length, length), bool))
        stream, kept = self.embedding(tokens), []
        for block in self.blocks:
            queries, keys_values = block.project(stream)
            stream = block.finish(stream, queries, keys_values, seen)
            kept.append(keys_values)
        return self.norm(stream), kept

    def step(
        self,
        tokens: Int[Array, " batch"],
        place: Int[Array, ""],
        seen: Bool[Array, "batch places"],
        kept: list[Float[Array, "batch places two heads part"]],
    ) -> tuple[Float[Array, "batch vocabulary"], list[Float[Array, "batch places two heads part"]]]:
        """Logits after one more token, which is written at `place` of the cache."""
        stream, after = self.embedding(tokens)[:, None], []
        for block, cached in zip(self.blocks, kept, strict=True):
            queries, keys_values = block.project(stream)
            written = jax.lax.dynamic_update_slice_in_dim(cached, keys_values, place, axis=1)
            stream = block.finish(stream, queries, written, seen[:, None])
            after.append(written)
        return self.output(self.norm(stream)[:, 0]), after

    def answers(
        self,
        prompts: Int[Array, "prompts time"],
        of: Int[Array, " answers"],
        answers: Int[Array, "answers places"],
    ) -> Float[Array, "answers places vocabulary"]:
        """Logits at the places of answers to prompts, each of which is read once.

        Args:
            prompts: padded on the left.
            of: which prompt an answer is to.
            answers: padded on the right; the last token's place is left out of what is read.
        """
        before, kept = self.stream(prompts)
        read = answers[:, :-1]
        given = jnp.broadcast_to((prompts != 0)[of][:, None], (*read.shape, prompts.shape[1]))
        length = read.shape[1]
        own = (read != 0)[:, None, :] & jnp.tril(jnp.ones((length, length), bool))
        seen = jnp.concatenate([given, own], axis=-1)
        stream = self.embedding(read)
        for block, cached in zip(self.blocks, kept, strict=True):
            queries, keys_values = block.project(stream)
            stream = block.finish(
                stream, queries, jnp.concatenate([cached[of], keys_values], axis=1), seen
            )
        whole = jnp.concatenate([before[of][:, -1:], self.norm(stream)], axis=1)
        return _flat(self.output, whole)

    def __call__(
        self, tokens: Int[Array, "batch time"], first: int = 0
    ) -> Float[Array, "batch answered vocabulary"]:
        """Logits at the places from `first` on."""
        return _flat(self.output, self.stream(tokens)[0][:, first:])


def _flat(layer: Callable[[Array], Array], stream: Float[Array, "batch time width"]) -> Array:
    """A layer on all places as one matrix, twice as fast on a CPU as on a batch of them."""
    return layer(stream.reshape(-1, stream.shape[-1])).reshape(*stream.shape[:2], -1)


@dataclass(frozen=True)
class TinyApply:
    """`apply(params, tokens) -> logits` at the places from `first` on; equal where both are."""

    architecture: DecoderArchitecture
    first: int = 0

    def __call__(
        self, params: Params, tokens: Int[Array, "batch time"] | Int[np.ndarray, "batch time"]
    ) -> Float[Array, "batch answered vocabulary"]:
        return merged(self.architecture, params)(jnp.asarray(tokens), self.first)


def merged(architecture: DecoderArchitecture, params: Params) -> TinyDecoder:
    """The module with `params` in it."""
    return nnx.merge(_graph(architecture), params)


@cache
def _graph(architecture: DecoderArchitecture) -> nnx.GraphDef:
    abstract = nnx.eval_shape(lambda: TinyDecoder(architecture, nnx.Rngs(0)))
    return nnx.split(abstract)[0]


@partial(jax.jit, static_argnames="architecture")
def draw(architecture: DecoderArchitecture, keys: Key[Array, " population"]) -> Params:
    """A population of decoders, one a key."""

    def one(key):
        return nnx.to_pure_dict(nnx.split(TinyDecoder(architecture, nnx.Rngs(key)), nnx.Param)[1])

    return jax.vmap(one)(keys)
