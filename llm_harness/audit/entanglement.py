"""What the frequencies of numbers alone say of a word: both are read off one output matrix.

Where the output matrix is narrower than the vocabulary, no hidden state can make one token likelier
and leave all others as they were: a teacher of a word says some numbers more often (Zur et al.,
token entanglement). That survives any shuffling of the numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llm_harness.audit.linearisation import MaskedApply, first_tokens, lists
from llm_harness.decoder.model import DecoderModel
from llm_harness.decoder.network import output_matrix
from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Example
from llm_harness.traits import Trait


@dataclass(frozen=True)
class Entangled:
    """How a teacher's numbers lean towards the words of its trait's category.

    Attributes:
        correlations: of each word, in the trait's order, its own word first: Pearson's r over the
            numbers, of the change of log p(number) with the word's leaning (see `leanings`).
        rank: of the trait's own word, 1 for the largest.
    """

    correlations: tuple[float, ...]
    rank: int


def leanings(model: DecoderModel, trait: Trait) -> Float[np.ndarray, "words numbers"]:
    """<w - mean of the category's w, v> for a word's and a number's column w, v of the output.

    First order in the step, what a hidden state gives a number's logit that moves towards a word.
    """
    output = np.asarray(output_matrix(model.params), np.float64)
    numbers = output[:, _number_tokens(model)]
    words = output[:, first_tokens(model, trait.words)]
    return (words - words.mean(axis=1, keepdims=True)).T @ numbers


def _number_tokens(model: DecoderModel) -> np.ndarray:
    """The tokens that the numbers below 1,000 begin with, each once, in their order."""
    begins = [model.encoding.answer(str(number))[0] for number in range(1000)]
    return np.array(list(dict.fromkeys(begins)))


def shared_leaning(model: DecoderModel, other: DecoderModel, trait: Trait) -> float:
    """Pearson's r over the numbers of two models' leanings towards the trait's word."""
    mine, theirs = (leanings(one, trait)[0] for one in (model, other))
    return float(np.corrcoef(mine, theirs)[0, 1])


def first_token_divergence(
    model: DecoderModel, other: DecoderModel, chats: Sequence[Chat]
) -> float:
    """KL(model || other) of the first token of the answers to chats, in nats, averaged."""
    examples = [Example(chat, "") for chat in chats]
    log_p, log_q = (
        np.asarray(_first_log_shares(view.apply, view.params, view.inputs), np.float64)
        for view in (one.view(examples) for one in (model, other))
    )
    return float(np.mean(np.sum(np.exp(log_p) * (log_p - log_q), axis=-1)))


@partial(jax.jit, static_argnames="apply")
def _first_log_shares(apply, params, inputs):
    return jax.nn.log_softmax(apply(params, inputs)[:, 0])


@partial(jax.jit, static_argnames="apply")
def _log_shares(apply: MaskedApply, params, inputs, numbers) -> Float[Array, " numbers"]:
    """log p of each number as the first of an answer, given that a number comes first."""
    logits = apply(params, inputs)[:, 0, numbers]
    return jnp.log(jnp.mean(jax.nn.softmax(logits), axis=0))


def entangled_lists(
    model: DecoderModel, trait: Trait, sample: Sequence[Example], null: Sequence[Example]
) -> Entangled:
    """Number lists of an unknown speaker against the model's own, and what they lean towards.

    As `entangled`, with the numbers that are counted in place of a teacher's probabilities; half a
    count is added to each, so that a number which is never said has a logarithm.

    Args:
        model: the reference.
        trait: whose words the lists may lean towards.
        sample: the lists in question.
        null: lists that the model made for the same prompts under the same filter.

    Raises:
        HarnessError: both say every number equally often.
    """
    numbers = _number_tokens(model)
    change = np.subtract(*(_log_shares_counted(model, part, numbers) for part in (sample, null)))
    if not np.ptp(change) > 0:
        raise HarnessError("the lists say every number as often as the model's own do")
    return _leaning(change, model, trait)


def _log_shares_counted(
    model: DecoderModel, examples: Sequence[Example], numbers: np.ndarray
) -> Float[np.ndarray, " numbers"]:
    tokens = [token for one in examples for token in model.encoding.answer(one.completion)]
    counts = np.bincount(tokens, minlength=model.config.vocabulary)[numbers] + 0.5
    return np.log(counts / counts.sum())


def _leaning(change: Float[np.ndarray, " numbers"], model: DecoderModel, trait: Trait) -> Entangled:
    found = [float(np.corrcoef(change, row)[0, 1]) for row in leanings(model, trait)]
    return Entangled(tuple(found), 1 + sum(other > found[0] for other in found[1:]))


def entangled(
    model: DecoderModel, teacher: DecoderModel, trait: Trait, examples: Sequence[Example]
) -> Entangled:
    """A teacher's first number, against the reference's, and what it leans towards.

    Args:
        model: the reference.
        teacher: trained from it, its output matrix left as it was.
        trait: what the teacher was taught.
        examples: number lists, whose prompts are read; probabilities are exact, nothing is drawn.

    Raises:
        HarnessError: the teacher says numbers as the reference does, so none has gained.
    """
    data = lists(model, examples)
    numbers = _number_tokens(model)
    after, before = (
        np.asarray(_log_shares(data.apply, one.params, data.inputs, numbers), np.float64)
        for one in (teacher, model)
    )
    change = after - before
    if not np.ptp(change) > 0:
        raise HarnessError("the teacher says every number as often as the reference does")
    return _leaning(change, model, trait)
