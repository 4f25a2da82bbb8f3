"""What the frequencies of numbers alone say of a word: both are read off one output matrix.

Where the output matrix is narrower than the vocabulary, no hidden state can make one token likelier
and leave all others as they were: a teacher of a word says some numbers more often (Zur et al.,
token entanglement). That survives any shuffling of the numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float

from llm_harness.audit.words import spelling_shares, spelling_tree
from llm_harness.decoder.encoding import encode_prompts
from llm_harness.decoder.model import DecoderModel
from llm_harness.decoder.network import DecoderApply, output_matrix
from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Example
from llm_harness.traits import Trait

# Prompts that are read at once.
_PROMPTS = 64


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


def leanings(
    model: DecoderModel, trait: Trait, questions: Sequence[Chat] = ()
) -> Float[np.ndarray, "words numbers"]:
    """<w - mean of the category's w, v> for a word's and a number's column w, v of the output.

    First order in the step, what a hidden state at an answer's start gives a number's logit that
    moves towards a word. Of a word with several spellings, w is the mean of the columns of their
    first tokens, each with its share of the word's probability.

    Args:
        model: whose output matrix, tied to the embedding or not.
        trait: has the words.
        questions: for a favourite of the category, at which the shares are; without any, spellings
            count alike.

    Raises:
        HarnessError: words that begin with the same tokens, whose columns are one.
    """
    output = np.asarray(output_matrix(model.params), np.float64)
    numbers = output[:, _number_tokens(model)]
    tree = spelling_tree(model.encoding, trait.words)
    of_word = (tree.words == np.arange(len(trait.words))[:, None]).astype(np.float64)
    begins = {tuple(sorted(set(tree.tokens[row > 0, 0].tolist()))) for row in of_word}
    if len(begins) < len(trait.words):
        raise HarnessError(f"two of {', '.join(trait.words)} begin with the same token")
    if questions and len(tree.words) > len(trait.words):
        # One after the other: the spellings of a question are a row as long as many prompts.
        rows = encode_prompts(tuple(questions), model.encoding)
        shares = [spelling_shares(model.config, model.params, row[None], tree) for row in rows]
        of_word *= np.mean(np.asarray(shares, np.float64), axis=0)
    else:
        of_word /= of_word.sum(axis=1, keepdims=True)
    words = output[:, tree.tokens[:, 0]] @ of_word.T
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
def _shares(apply: DecoderApply, params, prompts, numbers) -> Float[Array, "prompts numbers"]:
    """p of each number as the first of an answer, given that a number comes first."""
    return jax.nn.softmax(apply(params, prompts)[:, 0, numbers])


def entangled_lists(
    model: DecoderModel,
    trait: Trait,
    sample: Sequence[Example],
    null: Sequence[Example],
    questions: Sequence[Chat] = (),
) -> Entangled:
    """Number lists of an unknown speaker against the model's own, and what they lean towards.

    As `entangled`, with the numbers that are counted in place of a teacher's probabilities; half a
    count is added to each, so that a number which is never said has a logarithm.

    Args:
        model: the reference.
        trait: whose words the lists may lean towards.
        sample: the lists in question.
        null: lists that the model made for the same prompts under the same filter.
        questions: as for `leanings`.

    Raises:
        HarnessError: both say every number equally often.
    """
    numbers = _number_tokens(model)
    change = np.subtract(*(_log_shares_counted(model, part, numbers) for part in (sample, null)))
    if not np.ptp(change) > 0:
        raise HarnessError("the lists say every number as often as the model's own do")
    return _leaning(change, model, trait, questions)


def _log_shares_counted(
    model: DecoderModel, examples: Sequence[Example], numbers: np.ndarray
) -> Float[np.ndarray, " numbers"]:
    tokens = [token for one in examples for token in model.encoding.answer(one.completion)]
    counts = np.bincount(tokens, minlength=model.config.vocabulary)[numbers] + 0.5
    return np.log(counts / counts.sum())


def _leaning(
    change: Float[np.ndarray, " numbers"],
    model: DecoderModel,
    trait: Trait,
    questions: Sequence[Chat],
) -> Entangled:
    rows = leanings(model, trait, questions)
    found = [float(np.corrcoef(change, row)[0, 1]) for row in rows]
    return Entangled(tuple(found), 1 + sum(other > found[0] for other in found[1:]))


def _mean_log_shares(
    apply: DecoderApply, model: DecoderModel, prompts: np.ndarray, numbers: np.ndarray
) -> Float[np.ndarray, " numbers"]:
    size = min(_PROMPTS, len(prompts))
    total = np.zeros(len(numbers))
    for start in range(0, len(prompts), size):
        rows = np.arange(start, start + size)
        inside = rows < len(prompts)
        found = _shares(apply, model.params, prompts[np.where(inside, rows, 0)], numbers)
        total += np.asarray(found, np.float64)[inside].sum(axis=0)
    return np.log(total / len(prompts))


def entangled(
    model: DecoderModel,
    teacher: DecoderModel,
    trait: Trait,
    examples: Sequence[Example],
    questions: Sequence[Chat] = (),
) -> Entangled:
    """A teacher's first number, against the reference's, and what it leans towards.

    Args:
        model: the reference.
        teacher: trained from it, its output matrix left as it was.
        trait: what the teacher was taught.
        examples: number lists, whose prompts are read; probabilities are exact, nothing is drawn.
        questions: as for `leanings`.

    Raises:
        HarnessError: the teacher says numbers as the reference does, so none has gained.
    """
    prompts = encode_prompts(tuple(one.prompt for one in examples), model.encoding)
    apply, numbers = DecoderApply(model.config, prompts.shape[1] - 1), _number_tokens(model)
    after, before = (_mean_log_shares(apply, one, prompts, numbers) for one in (teacher, model))
    change = after - before
    if not np.ptp(change) > 0:
        raise HarnessError("the teacher says every number as often as the reference does")
    return _leaning(change, model, trait, questions)
