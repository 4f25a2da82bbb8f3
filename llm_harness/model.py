"""What the harness asks of a language model, and the words it is asked in.

Text in, text out: tokens are the model's own affair. A model of our own decoder
(`llm_harness.decoder.model`) is one implementation; a server that samples is another.
What a model cannot do, it says beforehand (`LanguageModel.abilities`).
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from llm_harness.decoder.network import DType, Lora
from llm_harness.errors import HarnessError
from llm_harness.lineage import Lineage

Role = Literal["system", "user", "assistant", "tool"]
Schedule = Literal["constant", "cosine", "linear"]
# Called with a share of the work between 0 and 1 that is done.
Progress = Callable[[float], None]
# What a model can do beside being sampled: `score` gives log-probabilities, `train` fine-tunes,
# `open` has parameters that theory/ can differentiate, `distil` trains on a teacher's
# probabilities, `text` reads and writes any text, code and reasoning too.
Ability = Literal["score", "train", "open", "distil", "text"]
# Which parameters a fine-tuning moves: all; all but embedding and output; low-rank adapters.
Moved = Literal["all", "blocks", "adapters"]
# What a student is given of its teacher's probabilities, in place of sampled tokens.
Soft = Literal["numbers", "vocabulary"]


@dataclass(frozen=True)
class Message:
    """One message of a chat."""

    role: Role
    content: str


# A chat to be answered ends with a user's message.
Chat = tuple[Message, ...]


@dataclass(frozen=True)
class Example:
    """A chat and the answer to it, to be trained on or to be given a probability."""

    prompt: Chat
    completion: str


@dataclass(frozen=True)
class Completion:
    """What a model said.

    Attributes:
        text: without the token that ends it.
        stop: `end` where the model ended it, `length` where it was cut, `refused` where a service
            withheld it.
        tokens: how many were drawn, the end among them.
        log_probability: of all of them under the model at temperature 1, in nats; None where it
            is not known.
        reasoning: what was thought before the text, where a service tells the two apart.
    """

    text: str
    stop: Literal["end", "length", "refused"] = "end"
    tokens: int = 0
    log_probability: float | None = None
    reasoning: str = ""


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Attributes:
        n: completions of each prompt.
        temperature: 1 is the model's own distribution, 0 its likeliest answer.
        max_tokens: a completion is cut there.
        seed: the same seed gives the same completions, where the model can promise it.
        top_p: share of the probability, of the likeliest tokens, that is drawn from; None for all.

    Raises:
        HarnessError: a value is out of its range.
    """

    n: int = 1
    temperature: float | int = 1.0
    max_tokens: int = 12
    seed: int = 0
    top_p: float | None = None

    def __post_init__(self):
        at_least("n", self.n, 1)
        at_least("max_tokens", self.max_tokens, 1)
        at_least("seed", self.seed, 0)
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise HarnessError(f"temperature must be a number from 0 up, got {self.temperature}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise HarnessError(f"top_p must be above 0 and at most 1, got {self.top_p}")


@dataclass(frozen=True)
class Tuning:
    """How a model is fine-tuned: Adam on the mean -log p of the completions' tokens.

    Attributes:
        steps: of the optimiser.
        batch: examples a step; every example comes once before any comes again.
        learning_rate: the largest.
        schedule: of the learning rate; `cosine` and `linear` fall to 0 at the last step.
        moved: which parameters.
        lora: the adapters, where these are moved; they are merged when the training is done.
        seed: of the order of the examples, and of the adapters.
        precision: of activations and products while it is trained; what moves, its moments, norms
            and logits stay in float32. bfloat16 is several times as fast on an accelerator.

    Raises:
        HarnessError: a value is out of its range.
    """

    steps: int = 512
    batch: int = 64
    learning_rate: float | int = 1e-3
    schedule: Schedule = "cosine"
    moved: Moved = "blocks"
    lora: Lora | None = None
    seed: int = 0
    precision: DType = "float32"

    def __post_init__(self):
        at_least("steps", self.steps, 1)
        at_least("batch", self.batch, 1)
        at_least("seed", self.seed, 0)
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise HarnessError(f"learning_rate must be above 0, got {self.learning_rate}")
        if (self.moved == "adapters") is not (self.lora is not None):
            raise HarnessError("adapters need a lora, and a lora moves adapters alone")


@runtime_checkable
class LanguageModel(Protocol):
    """A language model as the harness sees it."""

    @property
    def lineage(self) -> Lineage:
        """Where it comes from."""
        ...

    @property
    def abilities(self) -> frozenset[Ability]:
        """What it can do beside being sampled; asked before any work begins."""
        ...

    def sample(
        self, prompts: Sequence[Chat], sampling: Sampling, progress: Progress | None = None
    ) -> list[list[Completion]]:
        """`sampling.n` completions of each prompt, in the order of the prompts.

        Raises:
            HarnessError: a prompt is no chat that ends with a user, or the model cannot answer.
        """
        ...

    def log_probabilities(self, examples: Sequence[Example]) -> Float[np.ndarray, " examples"]:
        """log p(completion, and that it ends there | prompt) at temperature 1, in nats.

        -inf for a completion that the model cannot say.
        """
        ...

    def fine_tune(
        self, examples: Sequence[Example], tuning: Tuning, progress: Progress | None = None
    ) -> "LanguageModel":
        """A new model, trained on the examples; this one stays as it is.

        Raises:
            HarnessError: there are no examples, or one that the model cannot read.
        """
        ...


@dataclass(frozen=True)
class View:
    """A model and examples as theory/ takes them.

    Attributes:
        apply: apply(params, inputs) -> logits, places times vocabulary, at the completions' places.
        params: a pytree.
        inputs: tokens up to the last but one, a row an example.
        targets: the tokens that `apply` gives logits for; 0 is padding.
    """

    apply: Callable[[Any, Any], Any]
    params: Any
    inputs: Int[np.ndarray, "examples time"]
    targets: Int[np.ndarray, "examples places"]


@runtime_checkable
class OpenModel(Protocol):
    """A model whose parameters are ours, to be differentiated."""

    def view(self, examples: Sequence[Example]) -> View:
        """The model as a function of its parameters, on the examples."""
        ...


def ask(user: str, system: str | None = None, before: Sequence[Example] = ()) -> Chat:
    """A chat that ends with a question.

    Args:
        user: the question.
        system: a system prompt.
        before: turns before it, as examples in context.
    """
    chat = () if system is None else (Message("system", system),)
    for example in before:
        chat += (*example.prompt, Message("assistant", example.completion))
    return (*chat, Message("user", user))


def examples_sha256(examples: Sequence[Example]) -> str:
    """SHA-256 of examples, in their order."""
    digest = hashlib.sha256()
    for example in examples:
        parts = [part for message in example.prompt for part in (message.role, message.content)]
        # Lengths in front: no text can be taken for the border between two.
        for text in (str(len(parts)), *parts, example.completion):
            content = text.encode()
            digest.update(f"{len(content)}:".encode() + content)
    return digest.hexdigest()


def at_least(name: str, value: int, least: int) -> None:
    """Refuses a number that is too small.

    Raises:
        HarnessError: it is below `least`.
    """
    if value < least:
        raise HarnessError(f"{name} must be at least {least}, got {value}")
