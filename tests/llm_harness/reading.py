"""Decoders read in one program: operation by operation, each reading is a hundred small ones."""

from functools import partial

import jax

from llm_harness.decoder import network
from llm_harness.decoder.network import DecoderApply, DecoderConfig


@partial(jax.jit, static_argnums=0)
def read(apply: DecoderApply, params, tokens):
    """The logits that `apply` gives."""
    return apply(params, tokens)


@partial(jax.jit, static_argnums=0)
def read_on(config: DecoderConfig, params, tokens, positions, seen, cache=None, place=0):
    """Logits of tokens behind those of a cache, and the cache with them."""
    decoder = network.with_params(config, params)
    stream, cache = decoder.stream(tokens, positions, seen, cache, place)
    return decoder.logits(stream), cache
