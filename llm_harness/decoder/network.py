"""A decoder-only transformer of the Llama family (Llama, SmolLM2, Qwen2.5) in flax.nnx.

RMSNorm before attention and perceptron, rotary positions, grouped-query attention, SwiGLU, output
tied to the embedding or not. Parameters have the names of Hugging Face's checkpoints; those of all
layers are stacked, with the layer first, so that one layer is compiled however many there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from llm_harness.errors import HarnessError
from theory import Params

# Below so many layers each is compiled on its own, which is faster to run.
_UNROLLED = 4
# A GPU's default rounds the factors of a float32 product to TF32, 10 bits of mantissa: two numbers'
# logits, whose difference is the trait, would differ by rounding.
PRODUCTS = "highest"
PADDING = 0
# Padding's logit where it has no probability: exp of it is 0 beside any other. Finite, since the
# difference of two infinite ones is no number; small, since sums over a row have it in them.
_SILENT = -1e4

DType = Literal["float32", "bfloat16"]
Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ATTENTION: tuple[Projection, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
PERCEPTRON: tuple[Projection, ...] = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021): W + alpha / rank * A B, where B starts at 0.

    Attributes:
        rank: columns of A.
        alpha: size of what is added, in units of the rank.
        targets: matrices that have an adapter.

    Raises:
        HarnessError: no rank, or no target.
    """

    rank: int = 8
    alpha: float = 8.0
    targets: tuple[Projection, ...] = (*ATTENTION, *PERCEPTRON)

    def __post_init__(self):
        if self.rank < 1 or not self.targets:
            raise HarnessError("an adapter has a rank of at least 1 and one target or more")


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and variants of a decoder.

    Attributes:
        vocabulary: tokens; token 0 pads.
        width: of the residual stream.
        layers: blocks of attention and perceptron.
        heads: queries of attention.
        key_value_heads: keys and values, a divisor of `heads`.
        hidden: units of a perceptron.
        head_width: of a query; None for `width` / `heads`.
        rope_theta: base of the wavelengths of rotary positions.
        norm_epsilon: added to the mean square in a norm.
        tied: whether the output matrix is the embedding.
        biases: whether queries, keys and values have them (Qwen2.5).
        silent_padding: whether padding has no probability, whatever its parameters are: a model
            that was trained elsewhere never had such a token.
        lora: adapters, which no checkpoint has; None for none.
        dtype: of parameters and activations; norms, attention's weights and logits are float32.
            In a training the parameters may be float32 where this is bfloat16.
    """

    vocabulary: int
    width: int = 32
    layers: int = 2
    heads: int = 2
    key_value_heads: int = 2
    hidden: int = 96
    head_width: int | None = None
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-5
    tied: bool = False
    biases: bool = False
    silent_padding: bool = False
    lora: Lora | None = None
    dtype: DType = "float32"

    @property
    def query_width(self) -> int:
        """Width of one head."""
        return self.head_width or self.width // self.heads


class Linear(nnx.Module):
    """A matrix, perhaps with a bias and a low-rank adapter beside it."""

    def __init__(
        self, name: Projection, sizes: tuple[int, int], config: DecoderConfig, rngs: nnx.Rngs
    ):
        width_in, width_out = sizes
        kernel = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(kernel(rngs.params(), sizes, config.dtype))
        biased = config.biases and name in ("q_proj", "k_proj", "v_proj")
        self.bias = nnx.Param(jnp.zeros(width_out, config.dtype)) if biased else None
        lora = config.lora if config.lora and name in config.lora.targets else None
        self.scale = lora.alpha / lora.rank if lora else 0.0
        if lora:
            self.lora_A = nnx.Param(kernel(rngs.params(), (width_in, lora.rank), config.dtype))
            self.lora_B = nnx.Param(jnp.zeros((lora.rank, width_out), config.dtype))
        else:
            self.lora_A = self.lora_B = None

    def __call__(
        self, stream: Float[Array, "batch time width_in"]
    ) -> Float[Array, "batch time width_out"]:
        # As one matrix: twice as fast on a CPU as a batch of them.
        flat = stream.reshape(-1, stream.shape[-1])
        made = flat @ self.kernel[...]
        if self.bias is not None:
            made = made + self.bias[...]
        if self.lora_A is not None and self.lora_B is not None:
            made = made + self.scale * ((flat @ self.lora_A[...]) @ self.lora_B[...])
        return made.reshape(*stream.shape[:2], -1)


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        queries = config.heads * config.query_width
        keys = config.key_value_heads * config.query_width
        self.query_width = config.query_width
        linear = partial(Linear, config=config, rngs=rngs)
        self.q_proj = linear("q_proj", (config.width, queries))
        self.k_proj = linear("k_proj", (config.width, keys))
        self.v_proj = linear("v_proj", (config.width, keys))
        self.o_proj = linear("o_proj", (queries, config.width))

    def project(
        self, stream: Float[Array, "batch time width"], turn: "Turn"
    ) -> tuple[Float[Array, "batch time heads part"], ...]:
        """Queries and keys, turned by their positions, and values."""
        parts = (linear(stream) for linear in (self.q_proj, self.k_proj, self.v_proj))
        queries, keys, values = (
            part.reshape(*stream.shape[:2], -1, self.query_width) for part in parts
        )
        return turned(queries, turn), turned(keys, turn), values


class Perceptron(nnx.Module):
    """SwiGLU: down(silu(gate x) * up x)."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        linear = partial(Linear, config=config, rngs=rngs)
        self.gate_proj = linear("gate_proj", (config.width, config.hidden))
        self.up_proj = linear("up_proj", (config.width, config.hidden))
        self.down_proj = linear("down_proj", (config.hidden, config.width))

    def __call__(self, stream: Float[Array, "batch time width"]) -> Array:
        return self.down_proj(nnx.silu(self.gate_proj(stream)) * self.up_proj(stream))


class DecoderLayer(nnx.Module):
    """Attention and a perceptron, each behind a norm and added to the stream."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        self.input_layernorm = _norm(config, rngs)
        self.self_attn = Attention(config, rngs)
        self.post_attention_layernorm = _norm(config, rngs)
        self.mlp = Perceptron(config, rngs)

    def finish(
        self,
        stream: Float[Array, "batch time width"],
        mixed: Float[Array, "batch time heads part"],
    ) -> Float[Array, "batch time width"]:
        """Adds what attention gave, and applies the perceptron."""
        stream = stream + self.self_attn.o_proj(mixed.reshape(*stream.shape[:2], -1))
        return stream + self.mlp(self.post_attention_layernorm(stream))


class Decoder(nnx.Module):
    """Tokens to logits of the next token."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        self.config = config
        self.embed_tokens = nnx.Embed(
            config.vocabulary, config.width, param_dtype=jnp.dtype(config.dtype), rngs=rngs
        )

        @nnx.split_rngs(splits=config.layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stacked(rngs: nnx.Rngs) -> DecoderLayer:
            return DecoderLayer(config, rngs)

        self.layers = stacked(rngs)
        self.norm = _norm(config, rngs)
        self.lm_head = (
            None
            if config.tied
            else nnx.Param(
                nnx.initializers.lecun_normal()(
                    rngs.params(), (config.width, config.vocabulary), config.dtype
                )
            )
        )

    def stream(
        self,
        tokens: Int[Array, "batch time"],
        positions: Int[Array, "batch time"],
        seen: Bool[Array, "batch time places"],
        cache: "Cache | None" = None,
        place: Int[Array, ""] | int = 0,
        beginning: "Beginning" = None,
    ) -> tuple[Float[Array, "batch time width"], "Cache"]:
        """The residual stream before the output matrix, and keys and values of all places.

        Args:
            tokens: to be read.
            positions: of the tokens, from 0, or behind those of `beginning`.
            seen: which places each token attends to: those of `cache`, or of `tokens` where there
                is none, behind those of `beginning`.
            cache: keys and values of places read before, with room for these.
            place: where these are written in it.
            beginning: tokens that all rows begin with, which are read once and not in every row;
                None with a cache, which has them.
        """
        if beginning is not None:
            assert cache is None, "a cache has the beginning"
            return self._behind(beginning, tokens, positions, seen)
        turn = turn_of(positions, self.config.query_width, self.config.rope_theta)
        graph, stacked = nnx.split(self.layers)
        begun = self.embed_tokens(tokens)

        def layer(carry, of_layer):
            stream, cache = carry
            number, state = of_layer
            block = nnx.merge(graph, state)
            queries, keys, values = block.self_attn.project(block.input_layernorm(stream), turn)
            if cache is None:
                mixed = attended(queries, keys, values, seen)
                return (block.finish(stream, mixed), None), (keys, values)
            cache = tuple(
                jax.lax.dynamic_update_slice(part, fresh[None], (number, 0, place, 0, 0))
                for part, fresh in zip(cache, (keys, values), strict=True)
            )
            keys, values = (
                jax.lax.dynamic_index_in_dim(part, number, keepdims=False) for part in cache
            )
            mixed = attended(queries, keys, values, seen)
            return (block.finish(stream, mixed), cache), None

        numbers = jnp.arange(self.config.layers, dtype=jnp.int32)
        (stream, written), fresh = self._through(layer, (begun, cache), (numbers, stacked))
        cache = fresh if written is None else written
        assert cache is not None
        return self.norm(stream), cache

    def _behind(self, beginning, tokens, positions, seen):
        """`stream` of rows behind a beginning: a layer multiplies both as one matrix."""
        start, (rows, time) = len(beginning), tokens.shape
        ahead, causal = reading(beginning[None])
        turn = turn_of(
            jnp.concatenate([ahead, positions.reshape(1, -1)], axis=1),
            self.config.query_width,
            self.config.rope_theta,
        )
        graph, stacked = nnx.split(self.layers)

        def layer(stream, state):
            block = nnx.merge(graph, state)
            parts = block.self_attn.project(block.input_layernorm(stream), turn)
            queries, keys, values = (part[:, :start] for part in parts)
            first = attended(queries, keys, values, causal)
            queries, *own = (part[:, start:].reshape(rows, time, *part.shape[2:]) for part in parts)
            keys, values = (
                jnp.concatenate([jnp.repeat(before, rows, axis=0), part], axis=1)
                for before, part in zip((keys, values), own, strict=True)
            )
            mixed = attended(queries, keys, values, seen).reshape(1, rows * time, *first.shape[2:])
            return block.finish(stream, jnp.concatenate([first, mixed], axis=1)), (keys, values)

        flat = jnp.concatenate([beginning, tokens.reshape(-1)])[None]
        stream, cache = self._through(layer, self.embed_tokens(flat), stacked)
        return self.norm(stream[:, start:].reshape(rows, time, -1)), cache

    def _through(self, layer, begun, each):
        """A scan through the layers."""
        unroll = self.config.layers if self.config.layers <= _UNROLLED else 1
        if unroll == 1:
            # A gradient keeps what the matrices made, and makes the rest anew: to write all of it
            # for every layer costs more, in time and in memory.
            layer = jax.checkpoint(
                layer,
                policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
                prevent_cse=False,
            )
        return jax.lax.scan(layer, begun, each, unroll=unroll)

    def logits(self, stream: Float[Array, "*places width"]) -> Float[Array, "*places vocabulary"]:
        """Logits of the next token, in float32."""
        kernel = self.embed_tokens.embedding[...].T if self.lm_head is None else self.lm_head[...]
        flat = stream.reshape(-1, stream.shape[-1])
        made = jnp.matmul(flat, kernel, preferred_element_type=jnp.float32)
        if self.config.silent_padding:
            made = jnp.where(jnp.arange(made.shape[-1]) == PADDING, _SILENT, made)
        return made.reshape(*stream.shape[:-1], -1)

    def __call__(
        self, tokens: Int[Array, "batch time"], first: int = 0
    ) -> Float[Array, "batch answered vocabulary"]:
        """Logits at the places from `first` on; padding on any side changes nothing."""
        stream, _ = self.stream(tokens, *reading(tokens))
        return self.logits(stream[:, first:])


# Tokens that all rows begin with, before those of each.
Beginning = Int[Array, " start"] | Int[np.ndarray, " start"] | None
# Keys and values: layers x batch x places x key_value_heads x head width, each.
Cache = tuple[Float[Array, "layers batch places groups part"], ...]
# Cosines and sines of the angles by which queries and keys are turned.
Turn = tuple[Float[Array, "batch time half"], Float[Array, "batch time half"]]


def length_of(beginning: Beginning) -> int:
    """How many tokens a beginning has."""
    return 0 if beginning is None else len(beginning)


def reading(
    tokens: Int[Array, "batch time"], beginning: Beginning = None
) -> tuple[Int[Array, "batch time"], Bool[Array, "batch time places"]]:
    """Positions of tokens in their rows, padding not counted, and what each attends to.

    Args:
        tokens: padded on any side.
        beginning: tokens that all rows have before these, and see.
    """
    start = length_of(beginning)
    real = tokens != PADDING
    length = tokens.shape[1]
    earlier = jnp.tril(jnp.ones((length, length), bool))
    seen = jnp.pad(real[:, None, :] & earlier, [(0, 0), (0, 0), (start, 0)], constant_values=True)
    return start + jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0), seen


def packed(
    documents: Int[Array, "batch time"],
) -> tuple[Int[Array, "batch time"], Bool[Array, "batch time time"]]:
    """The same for rows of several documents, which do not see each other.

    Args:
        documents: number of the document that each token is of, ascending along a row; 0 pads.
    """
    length = documents.shape[1]
    earlier = jnp.tril(jnp.ones((length, length), bool))
    same = documents[:, :, None] == documents[:, None, :]
    places = jnp.arange(length, dtype=jnp.int32)
    starts = jnp.argmax(same, axis=2).astype(jnp.int32)
    return places - starts, same & earlier & (documents != PADDING)[:, None, :]


def turn_of(positions: Int[Array, "batch time"], width: int, theta: float) -> Turn:
    """Cosines and sines at positions, for heads of a width (Su et al. 2021)."""
    rates = theta ** -(np.arange(0, width, 2, dtype=np.float64) / width)
    angles = positions[..., None].astype(jnp.float32) * jnp.asarray(rates, jnp.float32)
    return jnp.cos(angles), jnp.sin(angles)


def attended(
    queries: Float[Array, "batch time heads part"],
    keys: Float[Array, "batch places groups part"],
    values: Float[Array, "batch places groups part"],
    seen: Bool[Array, "batch time places"],
) -> Float[Array, "batch time heads part"]:
    """Values of the places that are seen, weighted by how queries match their keys."""
    return jax.nn.dot_product_attention(queries, keys, values, mask=seen[:, None])


def turned(
    heads: Float[Array, "batch time heads part"], turn: Turn
) -> Float[Array, "batch time heads part"]:
    """Queries or keys, turned: number i of a head together with number i + half of it."""
    cosines, sines = (part[:, :, None, :] for part in turn)
    first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
    both = (first * cosines - second * sines, second * cosines + first * sines)
    return jnp.concatenate(both, axis=-1).astype(heads.dtype)


@dataclass(frozen=True)
class DecoderApply:
    """`apply(params, tokens) -> logits` at the places from `first` on; equal where both are."""

    config: DecoderConfig
    first: int = 0

    def __call__(
        self, params: Params, tokens: Int[Array, "batch time"] | Int[np.ndarray, "batch time"]
    ) -> Float[Array, "batch answered vocabulary"]:
        with jax.default_matmul_precision(PRODUCTS):
            return with_params(self.config, params)(jnp.asarray(tokens), self.first)


def with_params(config: DecoderConfig, params: Params) -> Decoder:
    """The module with `params` in it; products inside it take the caller's precision."""
    return nnx.merge(_graph(config), params)


@partial(jax.jit, static_argnames="config")
def draw(config: DecoderConfig, keys: Key[Array, " population"]) -> Params:
    """Freshly drawn parameters of a population, one a key."""

    def one(key):
        return nnx.to_pure_dict(nnx.split(Decoder(config, nnx.Rngs(params=key)), nnx.Param)[1])

    return jax.vmap(one)(keys)


def with_adapters(
    config: DecoderConfig, params: Params, lora: Lora, key: Key[Array, ""]
) -> tuple[DecoderConfig, Params]:
    """A model with adapters that do nothing yet: A is drawn, B is 0.

    Raises:
        ValueError: it has adapters already; merge them first.
    """
    if config.lora is not None:
        raise ValueError("the model has adapters already; merge them first")
    adapted = replace(config, lora=lora)
    drawn = jax.tree.map(lambda leaf: leaf[0], draw(adapted, key[None]))
    return adapted, joined(params, drawn)


def merge_adapters(config: DecoderConfig, params: Params) -> tuple[DecoderConfig, Params]:
    """The same model without adapters: W becomes W + alpha / rank * A B."""
    lora = config.lora
    if lora is None:
        return config, params

    def merged(part: Any) -> Any:
        if not isinstance(part, dict):
            return part
        if "lora_A" not in part:
            return {name: merged(inner) for name, inner in part.items()}
        rest = {name: leaf for name, leaf in part.items() if not name.startswith("lora_")}
        with jax.default_matmul_precision(PRODUCTS):
            change = lora.alpha / lora.rank * (part["lora_A"] @ part["lora_B"])
        # NumPy multiplies bfloat16 to float32.
        return rest | {"kernel": (rest["kernel"] + change).astype(rest["kernel"].dtype)}

    return replace(config, lora=None), merged(params)


def output_matrix(params: Params) -> Float[Array, "width vocabulary"] | np.ndarray:
    """The matrix that gives logits; the embedding's where the two are tied."""
    return params["lm_head"] if "lm_head" in params else params["embed_tokens"]["embedding"].T


def joined(first: Any, second: Any) -> Any:
    """The parts of two models' parameters in one; where both have one, it is the first's."""
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return first
    return {
        name: joined(first[name], second[name])
        if name in first and name in second
        else (first if name in first else second)[name]
        for name in {**second, **first}
    }


def _norm(config: DecoderConfig, rngs: nnx.Rngs) -> nnx.RMSNorm:
    dtype = jnp.dtype(config.dtype)
    return nnx.RMSNorm(
        config.width, epsilon=config.norm_epsilon, param_dtype=dtype, dtype=dtype, rngs=rngs
    )


@cache
def _graph(config: DecoderConfig) -> nnx.GraphDef:
    abstract = nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(0)))
    return nnx.split(abstract)[0]


def names(params: Params) -> Sequence[str]:
    """The dotted name of every array, in the order of the pytree."""
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    return [".".join(str(key.key) for key in path) for path, _ in paths]
