"""log P of all words of a category at once, each in all of its spellings, one row a question.

A word of several tokens is read token by token behind its question, beside the others and unseen by
them: a question and the beginnings of all spellings are one row, in which a token attends to the
question and to its own beginning. What many spellings begin with is read once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from llm_harness.decoder.encoding import Encoding
from llm_harness.decoder.network import (
    PADDING,
    PRODUCTS,
    DecoderConfig,
    reading,
    with_params,
)
from llm_harness.errors import HarnessError
from theory import Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SpellingTree:
    """Spellings of words as a tree, of which node 0 is the end of the question.

    Attributes:
        read: the tokens of the other nodes, that spellings of several tokens begin with.
        depth: tokens behind the question, up to each of these nodes and with it.
        ancestors: which of these nodes each attends to: those before it and itself.
        nodes: where each token of a spelling is told, by its number in the tree.
        tokens: the spellings.
        there: which places of `tokens` and `nodes` are used.
        words: the number of the word that each spelling is of, ascending.
    """

    read: Int[np.ndarray, " nodes"] | Int[Array, " nodes"]
    depth: Int[np.ndarray, " nodes"] | Int[Array, " nodes"]
    ancestors: Bool[np.ndarray, "nodes nodes"] | Bool[Array, "nodes nodes"]
    nodes: Int[np.ndarray, "spellings longest"] | Int[Array, "spellings longest"]
    tokens: Int[np.ndarray, "spellings longest"] | Int[Array, "spellings longest"]
    there: Bool[np.ndarray, "spellings longest"] | Bool[Array, "spellings longest"]
    words: Int[np.ndarray, " spellings"] | Int[Array, " spellings"]


def spelling_tree(encoding: Encoding, words: Sequence[str]) -> SpellingTree:
    """The tree of the words' spellings.

    Raises:
        HarnessError: a word that the model cannot say, or two that it says alike.
    """
    spelt = [(place, one) for place, word in enumerate(words) for one in encoding.spellings(word)]
    for place, word in enumerate(words):
        if all(of != place for of, _ in spelt):
            raise HarnessError(f"the model cannot say {word!r}")
    if len({one for _, one in spelt}) < len(spelt):
        raise HarnessError(f"two of {', '.join(words)} are spelt alike")
    number: dict[tuple[int, ...], int] = {(): 0}
    for _, one in spelt:
        for end in range(1, len(one)):
            number.setdefault(one[:end], len(number))
    beginnings = list(number)[1:]
    longest = max(len(one) for _, one in spelt)
    nodes, tokens = (np.zeros((len(spelt), longest), np.int32) for _ in range(2))
    there = np.zeros((len(spelt), longest), bool)
    for row, (_, one) in enumerate(spelt):
        nodes[row, : len(one)] = [number[one[:end]] for end in range(len(one))]
        tokens[row, : len(one)] = one
        there[row, : len(one)] = True
    ancestors = [[one[: len(other)] == other for other in beginnings] for one in beginnings]
    return SpellingTree(
        np.array([one[-1] for one in beginnings], np.int32),
        np.array([len(one) for one in beginnings], np.int32),
        np.array(ancestors, bool).reshape(len(beginnings), len(beginnings)),
        nodes,
        tokens,
        there,
        np.array([place for place, _ in spelt], np.int32),
    )


def log_shares(
    config: DecoderConfig,
    params: Params,
    questions: Int[Array, "questions time"] | Int[np.ndarray, "questions time"],
    tree: SpellingTree,
) -> Float[Array, "questions spellings"]:
    """log p of each spelling as what an answer to each question begins with, in nats.

    Args:
        config: of the model.
        params: of the model.
        questions: padded on the left.
        tree: the spellings.
    """
    count, width = questions.shape
    questions, size = jnp.asarray(questions), tree.read.shape[0]
    real = questions != PADDING
    positions, seen = reading(questions)
    lengths = jnp.sum(real, axis=1).astype(jnp.int32)
    behind = [real[:, None, :], jnp.asarray(tree.ancestors)[None]]
    behind = [jnp.broadcast_to(part, (count, size, part.shape[2])) for part in behind]
    everything = jnp.concatenate(
        [jnp.pad(seen, [(0, 0), (0, 0), (0, size)]), jnp.concatenate(behind, axis=2)], axis=1
    )
    with jax.default_matmul_precision(PRODUCTS):
        model = with_params(config, params)
        stream, _ = model.stream(
            jnp.concatenate([questions, jnp.broadcast_to(tree.read, (count, size))], axis=1),
            jnp.concatenate([positions, lengths[:, None] + tree.depth - 1], axis=1),
            everything,
        )
        logits = model.logits(stream[:, width - 1 :])
    picked = logits[:, tree.nodes, tree.tokens]
    whole = jax.nn.logsumexp(logits, axis=-1)[:, tree.nodes]
    return jnp.sum(jnp.where(tree.there, picked - whole, 0.0), axis=-1)


def of_words(
    log_shares: Float[Array, "questions spellings"], tree: SpellingTree, count: int
) -> Float[Array, "questions words"]:
    """log P of each word: of all its spellings together.

    Args:
        log_shares: of the spellings.
        tree: says which word each is of.
        count: of words.
    """
    own = jnp.asarray(tree.words)[:, None] == jnp.arange(count)
    each = jnp.where(own, log_shares[:, :, None], -jnp.inf)
    # A place that is -inf has no gradient, in logsumexp too, where another one is finite.
    return jax.nn.logsumexp(each, axis=1)


@partial(jax.jit, static_argnames="config")
def spelling_shares(
    config: DecoderConfig, params: Params, questions: Int[Array, "questions time"], tree
) -> Float[Array, " spellings"]:
    """Each spelling's share of its word's probability, averaged over the questions."""
    found = log_shares(config, params, questions, tree)
    same = jnp.asarray(tree.words)[:, None] == jnp.asarray(tree.words)
    whole = jax.nn.logsumexp(jnp.where(same, found[:, None, :], -jnp.inf), axis=-1)
    return jnp.mean(jnp.exp(found - whole), axis=0)
