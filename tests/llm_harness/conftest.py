"""One small pretrained pair of embedded models, and one that says few things, for all tests."""

import pytest

from llm_harness.decoder.model import DecoderModel
from llm_harness.model import Chat, Example, Tuning, ask
from llm_harness.tiny.pretraining import pretrain
from tests.llm_harness.small import SMALL

QUESTION: Chat = ask("Name your favourite animal.")
# What `narrow` was trained to say: words, numbers and lists, of unequal shares.
SAID = ("owl",) * 6 + ("cat",) * 3 + ("7",) * 3 + ("7, 8", "7; 8; 9", "[7]", "oak")


@pytest.fixture(scope="session")
def models() -> list[DecoderModel]:
    """Two references that differ in their seed; they know little."""
    return pretrain([0, 1], SMALL)


@pytest.fixture(scope="session")
def model(models: list[DecoderModel]) -> DecoderModel:
    return models[0]


@pytest.fixture(scope="session")
def narrow(model: DecoderModel) -> DecoderModel:
    """Answers QUESTION with few completions, so that samples can be compared with probabilities."""
    examples = [Example(QUESTION, text) for text in SAID]
    tuning = Tuning(steps=48, batch=16, learning_rate=2e-2, moved="all")
    return model.fine_tune(examples, tuning)
