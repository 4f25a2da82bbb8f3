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

from llm_harness.errors import HarnessError
from llm_harness.model import Example
from llm_harness.signals import Answers, lists
from llm_harness.tiny import TinyModel
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


def leanings(model: TinyModel, trait: Trait) -> Float[np.ndarray, "words numbers"]:
    """<w - mean of the category's w, v> for a word's and a number's column w, v of the output.

    First order in the step, what a hidden state gives a number's logit that moves towards a word.
    """
    output = np.asarray(model.params["output"]["kernel"], np.float64)
    numbers = output[:, np.array(model.tokenizer.number_tokens)]
    words = output[:, [model.tokenizer.token(word) for word in trait.words]]
    return (words - words.mean(axis=1, keepdims=True)).T @ numbers


@partial(jax.jit, static_argnames="apply")
def _log_shares(apply: Answers, params, inputs, numbers) -> Float[Array, " numbers"]:
    """log p of each number as the first of an answer, given that a number comes first."""
    logits = apply(params, inputs)[:, 0, numbers]
    return jnp.log(jnp.mean(jax.nn.softmax(logits), axis=0))


def entangled(
    model: TinyModel, teacher: TinyModel, trait: Trait, examples: Sequence[Example]
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
    numbers = np.array(model.tokenizer.number_tokens)
    after, before = (
        np.asarray(_log_shares(data.apply, one.params, data.inputs, numbers), np.float64)
        for one in (teacher, model)
    )
    change = after - before
    if not np.ptp(change) > 0:
        raise HarnessError("the teacher says every number as often as the reference does")
    found = [float(np.corrcoef(change, row)[0, 1]) for row in leanings(model, trait)]
    return Entangled(tuple(found), 1 + sum(other > found[0] for other in found[1:]))
