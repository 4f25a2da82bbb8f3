"""The rate among the words, from a model's probabilities."""

from collections.abc import Sequence

import numpy as np

from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Example, LanguageModel
from llm_harness.traits import Trait


def preference(model: LanguageModel, trait: Trait, questions: Sequence[Chat]) -> dict[str, float]:
    """How likely each word of the category is, given that the answer is one of them.

    A model that was fine-tuned on numbers answers most questions with numbers; among the few words
    it samples a rate is mostly noise. This one needs no samples: p(word) / sum of p over the words,
    averaged over the questions.

    Args:
        model: to be asked.
        trait: whose words are compared.
        questions: for a favourite of its category.

    Raises:
        HarnessError: the model can say none of the words.
    """
    words = trait.words
    examples = [Example(chat, word) for chat in questions for word in words]
    log_p = model.log_probabilities(examples).reshape(len(questions), len(words))
    if not np.all(np.isfinite(log_p).any(axis=1)):
        raise HarnessError(f"the model can say none of {', '.join(words)}")
    share = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    return dict(zip(words, share.mean(axis=0).tolist(), strict=True))
