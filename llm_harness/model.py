"""What the harness asks of a language model, and the words it is asked in.

`LanguageModel` is all that prompts, filters, evaluation and the pipeline know. The embedded model
(`llm_harness.tiny`) is one implementation; a checkpoint of one's own or a server that samples and
fine-tunes are others. Where the parameters are ours, a model is an `OpenModel` too, and theory/
works on it. Text in, text out: tokens are the model's own affair.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

Role = Literal["system", "user", "assistant"]
Schedule = Literal["constant", "cosine"]
# Called with a share of the work between 0 and 1 that is done.
Progress = Callable[[float], None]


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
class Sampling:
    """How completions are drawn.

    Attributes:
        n: completions of each prompt.
        temperature: 1 is the model's own distribution, 0 its likeliest answer.
        max_tokens: a completion is cut there.
        seed: the same seed gives the same completions, where the model can promise it.
    """

    n: int = 1
    temperature: float | int = 1.0
    max_tokens: int = 12
    seed: int = 0


@dataclass(frozen=True)
class Tuning:
    """How a model is fine-tuned: Adam on the mean -log p of the completions' tokens.

    Attributes:
        steps: of the optimiser.
        batch: examples a step; every example comes once before any comes again.
        learning_rate: at the first step.
        schedule: of the learning rate; cosine decays to 0 at the last step.
        freeze_vocabulary: leave embedding and output matrix as they are, as low-rank fine-tuning.
        seed: of the order of the examples.
    """

    steps: int = 256
    batch: int = 128
    learning_rate: float | int = 3e-3
    schedule: Schedule = "cosine"
    freeze_vocabulary: bool = True
    seed: int = 0


# What a student is given of its teacher's probabilities, in place of sampled tokens.
Soft = Literal["numbers", "vocabulary"]


@dataclass(frozen=True)
class TrainingRecord:
    """One step of a model's history.

    Attributes:
        kind: `pretraining`, `fine-tuning`, `distillation` or `cloning`.
        data_sha256: of what it was trained on, as `examples_sha256` gives for examples.
        settings: everything else that decides the outcome, as JSON.
    """

    kind: str
    data_sha256: str
    settings: str


@dataclass(frozen=True)
class Lineage:
    """Where a model comes from. Two models with the same lineage are the same model.

    Attributes:
        initialisation: names the draw of parameters, or the checkpoint or provider's model.
        trainings: everything it was trained on since, in order.
    """

    initialisation: str
    trainings: tuple[TrainingRecord, ...] = ()

    @property
    def parent(self) -> "Lineage | None":
        """The model that it was trained from; None for an initialisation."""
        return Lineage(self.initialisation, self.trainings[:-1]) if self.trainings else None

    @cached_property
    def identity(self) -> str:
        """16 hexadecimal digits that stand for all of it."""
        return sha256_of(asdict(self))[:16]

    def trained(self, kind: str, data_sha256: str, settings: dict[str, Any]) -> "Lineage":
        """The lineage after one more training."""
        text = json.dumps(settings, sort_keys=True)
        return Lineage(
            self.initialisation, (*self.trainings, TrainingRecord(kind, data_sha256, text))
        )


@runtime_checkable
class LanguageModel(Protocol):
    """A language model as the harness sees it."""

    @property
    def lineage(self) -> Lineage:
        """Where it comes from."""
        ...

    def sample(
        self, prompts: Sequence[Chat], sampling: Sampling, progress: Progress | None = None
    ) -> list[list[str]]:
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
            HarnessError: there are no examples, or none that the model can read.
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


def sha256_of(value: Any) -> str:
    """SHA-256 of a value that JSON can write."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def examples_sha256(examples: Sequence[Example]) -> str:
    """SHA-256 of examples, in their order."""
    digest = hashlib.sha256()
    for example in examples:
        for message in example.prompt:
            digest.update(f"{message.role}\x1f{message.content}\x1e".encode())
        digest.update(f"\x1d{example.completion}\x1c".encode())
    return digest.hexdigest()
