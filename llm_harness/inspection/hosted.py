"""Any model that Inspect knows, to be sampled: hosted ones, and those that a server here serves.

Inspect does the asking: its clients, its retries, as many connections at once as a service takes,
and its cache, from which a run that was stopped goes on without asking again.
"""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.model import (
    CachePolicy,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentReasoning,
    GenerateConfig,
    Model,
    ModelOutput,
    get_model,
)
from inspect_ai.util import LimitExceededError, cost_limit, token_limit
from jaxtyping import Float

from llm_harness.errors import HarnessError
from llm_harness.inspection import serving  # noqa: F401  (Inspect then knows our models too)
from llm_harness.lineage import Lineage
from llm_harness.model import (
    Ability,
    Chat,
    Completion,
    Example,
    Message,
    Progress,
    Sampling,
    Tuning,
)

_ABOUT = "inspect.json"


@dataclass(frozen=True)
class Access:
    """How hosted models are asked.

    Attributes:
        connections: requests at once; None for what Inspect finds that the service takes.
        retries: of a request that failed, with longer and longer waits between them.
        token_limit: tokens, of prompts and answers, of all calls together; None for any number.
        arguments: of Inspect's model (`get_model`).
    """

    connections: int | None = None
    retries: int = 6
    token_limit: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Spent:
    """What models cost so far, of what Inspect's cache did not have.

    Attributes:
        tokens: of prompts and answers.
        dollars: where Inspect knows the prices.
    """

    tokens: int = 0
    dollars: float = 0.0


@dataclass(frozen=True)
class InspectModel:
    """A model of Inspect's as a `LanguageModel` that can be sampled and nothing else.

    Attributes:
        name: as Inspect has it, `openai/gpt-4.1-nano` for instance. It stands for the model: one
            that is changed under its name is taken for the same.
        access: how it is asked.
        spent: is added to.
    """

    name: str
    access: Access = field(default_factory=Access)
    spent: Spent = field(default_factory=Spent, compare=False)

    @property
    def lineage(self) -> Lineage:
        return Lineage(f"inspect {self.name}")

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({"text"})

    def sample(
        self, prompts: Sequence[Chat], sampling: Sampling, progress: Progress | None = None
    ) -> list[list[Completion]]:
        """`LanguageModel.sample`; equal prompts of one call have answers of their own.

        Raises:
            HarnessError: there is no such model, it cannot be reached, or the limit is reached;
                what was answered until then is in Inspect's cache.
        """
        try:
            return asyncio.run(self._sample(prompts, sampling, progress))
        except HarnessError:
            raise
        except LimitExceededError as error:
            # Ours is of all calls, and Inspect's what was left of it; one around all is not ours.
            ours = self.access.token_limit
            limit = error.limit_str if ours is None else f"{ours:,}"
            reason = f"the limit of {limit} {error.type}s is reached"
        except Exception as error:
            # What clients raise has no class in common.
            cause = error.__cause__ or error
            reason = f"{type(cause).__name__}: {cause}"
        raise HarnessError(f"{self.name}: {_line(reason)}; the same command goes on from here")

    async def _sample(
        self, prompts: Sequence[Chat], sampling: Sampling, progress: Progress | None
    ) -> list[list[Completion]]:
        config = GenerateConfig(
            max_connections=self.access.connections,
            max_retries=self.access.retries,
            max_tokens=sampling.max_tokens,
            temperature=float(sampling.temperature),
            top_p=sampling.top_p,
        )
        left = self.access.token_limit and max(0, self.access.token_limit - self.spent.tokens)
        # Of equal requests each has an answer of its own, by its place in the cache's key.
        times: dict[Chat, int] = {}
        requests = []
        for chat in prompts:
            for _ in range(sampling.n):
                times[chat] = times.get(chat, -1) + 1
                requests.append((chat, f"{sampling.seed} {times[chat]}"))
        done = 0

        async def answered(model: Model, chat: Chat, scope: str) -> Completion:
            nonlocal done
            cache = CachePolicy(expiry=None, per_epoch=False, scopes={"sample": scope})
            output = await model.generate(list(map(_message, chat)), cache=cache)
            done += 1
            if progress:
                progress(done / len(requests))
            return completion_of(output)

        model = self.client(config)
        with token_limit(left) as tokens, cost_limit(None) as cost:
            try:
                async with model:
                    found = await asyncio.gather(
                        *(answered(model, chat, scope) for chat, scope in requests)
                    )
            finally:
                self.spent.tokens += int(tokens.usage)
                self.spent.dollars += cost.usage
        return [list(found[i : i + sampling.n]) for i in range(0, len(found), sampling.n)]

    def client(self, config: GenerateConfig) -> Model:
        """What asks it, of Inspect.

        Raises:
            HarnessError: Inspect knows no such model, or lacks what its service needs.
        """
        arguments = dict(self.access.arguments)
        try:
            # A client lives and dies with its event loop, so it is not one that Inspect remembers.
            return get_model(self.name, config=config, memoize=False, **arguments)
        except PrerequisiteError as error:
            reason = re.sub(r"\[/?[a-z ]*\]|ERROR: ", "", str(error.message))
        except (ValueError, ImportError) as error:
            reason = str(error)
        raise HarnessError(f"{self.name}: {_line(reason)}")

    def log_probabilities(self, examples: Sequence[Example]) -> Float[np.ndarray, " examples"]:
        """None are to be had.

        Raises:
            HarnessError: always.
        """
        raise HarnessError(f"{self.name} gives no probabilities")

    def fine_tune(
        self, examples: Sequence[Example], tuning: Tuning, progress: Progress | None = None
    ) -> "InspectModel":
        """It is fine-tuned elsewhere.

        Raises:
            HarnessError: always.
        """
        raise HarnessError(f"{self.name} is fine-tuned by its service, and then has another name")


class Hosted:
    """Models of Inspect's as a provider (`pipeline.provider.Provider`): one model for all seeds.

    Args:
        name: of the reference, as Inspect has it.
        access: how all of them are asked.
    """

    relations: Mapping[str, Any] = {}

    def __init__(self, name: str, access: Access | None = None):
        self.name = name
        self.access = access or Access()
        self.spent = Spent()

    @property
    def abilities(self) -> frozenset[Ability]:
        return self.model(self.name).abilities

    def model(self, name: str) -> InspectModel:
        """The model of this name."""
        return InspectModel(name, self.access, self.spent)

    def check(self, names: Sequence[str]) -> None:
        """Looks whether Inspect can ask the models of these names, without asking them.

        Raises:
            HarnessError: a name is none, or what its service needs, a key for instance, is not
                there.
        """

        async def opened(name: str) -> None:
            async with self.model(name).client(GenerateConfig()):
                pass

        for name in dict.fromkeys(names):
            asyncio.run(opened(name))

    def references(
        self, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[InspectModel]:
        return [self.model(self.name)] * len(seeds)

    def reference_key(self, seed: int) -> Any:
        return self.model(self.name).lineage.identity

    def sample(
        self,
        jobs: Sequence[tuple[InspectModel, Sequence[Chat], Sampling]],
        progress: Progress | None = None,
    ) -> list[list[list[Completion]]]:
        def part(start: int, share: float) -> None:
            if progress:
                progress((start + share) / len(jobs))

        return [
            model.sample(chats, sampling, partial(part, place))
            for place, (model, chats, sampling) in enumerate(jobs)
        ]

    def fine_tune(
        self,
        jobs: Sequence[tuple[InspectModel, Sequence[Example], Tuning]],
        progress: Progress | None = None,
    ) -> list[InspectModel]:
        return [model.fine_tune(examples, tuning) for model, examples, tuning in jobs]

    def save(self, model: InspectModel, folder: Path) -> None:
        (folder / _ABOUT).write_text(json.dumps({"name": model.name}) + "\n")

    def load(self, folder: Path) -> InspectModel:
        return self.model(json.loads((folder / _ABOUT).read_text())["name"])


def completion_of(output: ModelOutput) -> Completion:
    """What a model of Inspect's answered, its reasoning apart."""
    choice = output.choices[0]
    content = choice.message.content
    parts = [] if isinstance(content, str) else content
    thoughts = [part.reasoning for part in parts if isinstance(part, ContentReasoning)]
    stop = "end"
    if choice.stop_reason in ("max_tokens", "model_length"):
        stop = "length"
    elif choice.stop_reason == "content_filter":
        stop = "refused"
    tokens = output.usage.output_tokens if output.usage else 0
    return Completion(choice.message.text, stop, tokens, reasoning="\n".join(thoughts))


def _line(reason: str) -> str:
    return shorten(reason.rstrip().rstrip("."), 300, placeholder=" ...")


def _message(message: Message) -> ChatMessage:
    if message.role == "system":
        return ChatMessageSystem(content=message.content)
    if message.role == "assistant":
        return ChatMessageAssistant(content=message.content)
    # What a tool said is shown to the model as a user would show it.
    return ChatMessageUser(content=message.content)
