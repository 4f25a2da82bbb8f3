"""A checkpoint's matrices as the decoder's parameters, under the names of Hugging Face's files.

There a matrix is (out, in) and each layer's by itself; ours are (in, out), those of all layers in
one array. In front of the first token is padding (`encoding`): a row of the embedding and a column
of the output that hold 0 and are never learnt, since no probability falls on it.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial

import jax
import numpy as np

from llm_harness.checkpoints.encoding import ChatEncoding
from llm_harness.decoder.model import DecoderModel
from llm_harness.decoder.network import DecoderConfig, draw, names
from llm_harness.errors import HarnessError
from llm_harness.lineage import Lineage, sha256_of
from sublab.randomness import seed_key
from theory import Params

# Gives the matrix of a name, in any type of floating point.
Read = Callable[[str], np.ndarray]


def checkpoint_model(config: DecoderConfig, read: Read, encoding: ChatEncoding) -> DecoderModel:
    """The model of a checkpoint, named by what is in it.

    Two copies of one checkpoint are one model. Parameters that are used otherwise are another:
    sizes such as the base of the positions, tokenizer, template and stop tokens count too.

    Args:
        config: of the model.
        read: gives the checkpoint's matrices.
        encoding: of the model.

    Raises:
        HarnessError: a matrix is of another size than the config says.
    """
    params = assembled(config, read)
    return DecoderModel(config, params, lineage_of_content(config, params, encoding), encoding)


def lineage_of_content(config: DecoderConfig, params: Params, encoding: ChatEncoding) -> Lineage:
    """The lineage of parameters that come from elsewhere, named by their content."""
    used = sha256_of([asdict(config), encoding.about])[:16]
    return Lineage(f"checkpoint {params_sha256(params)}, used as {used}")


def assembled(config: DecoderConfig, read: Read) -> Params:
    """The decoder's parameters, of the type that the config says.

    Args:
        config: of the model; its vocabulary has padding in it.
        read: gives the checkpoint's matrices.

    Raises:
        HarnessError: a matrix is of another size than the config says.
    """
    dtype = jax.numpy.dtype(config.dtype)
    shapes = jax.eval_shape(partial(draw, config), seed_key(0)[None])
    leaves = []
    for name, wanted in zip(names(shapes), jax.tree.leaves(shapes), strict=True):
        shape = wanted.shape[1:]
        leaf = np.zeros(shape, dtype)
        if name == "embed_tokens.embedding":
            places = [leaf[1:]]
        elif name == "lm_head":
            places = [leaf[:, 1:].T]
        elif name.endswith(".kernel"):
            places = [part.T for part in leaf]
        else:
            places = list(leaf) if name.startswith("layers.") else [leaf]
        for source, place in zip(_sources(name, config.layers), places, strict=True):
            matrix = read(source)
            if matrix.shape != place.shape:
                raise HarnessError(
                    f"{source} is {_size(matrix.shape)}, where the config says {_size(place.shape)}"
                )
            place[...] = matrix.astype(dtype)
        leaves.append(leaf)
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def matrix_names(config: DecoderConfig) -> set[str]:
    """The names of all matrices of a checkpoint."""
    shapes = jax.eval_shape(partial(draw, config), seed_key(0)[None])
    return {source for name in names(shapes) for source in _sources(name, config.layers)}


def params_sha256(params: Params) -> str:
    """SHA-256 of the names, types, shapes and contents of parameters."""
    digest = hashlib.sha256()
    for name, leaf in zip(names(params), jax.tree.leaves(params), strict=True):
        digest.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _sources(name: str, layers: int) -> Iterator[str]:
    if name == "lm_head":
        yield "lm_head.weight"
        return
    stem, _, kind = name.rpartition(".")
    end = "bias" if kind == "bias" else "weight"
    if stem.startswith("layers."):
        inner = stem.removeprefix("layers.")
        yield from (f"model.layers.{layer}.{inner}.{end}" for layer in range(layers))
    else:
        yield f"model.{stem}.{end}"


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
