"""Our models as Inspect's: `sublab/embedded`, `sublab/smollm2`, `sublab/FOLDER` or a GGUF file.

A folder may be a checkpoint, or a model that a stage stored (`<out>/llm_stages/models/...`), a
student for instance. Arguments (`-M`): `seed` and `steps` of the embedded model's pretraining,
`out`, the folder of its results; `checkpoint`, which a stored student's adapters belong to.
"""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from llm_harness.checkpoints.load import load_checkpoint
from llm_harness.checkpoints.provider import Checkpoint
from llm_harness.checkpoints.smollm2 import smollm2_path
from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Completion, LanguageModel, Message, Sampling
from llm_harness.pipeline.stages import Stages
from llm_harness.pipeline.store import Store
from llm_harness.tiny.embedded import Embedded
from llm_harness.tiny.pretraining import Pretraining
from sublab.machine import exact

# Requests are gathered for so long, in seconds, to be answered together.
_GATHERED = 0.05
_MOST = 256
_MAX_TOKENS = 512


@lru_cache(maxsize=4)
def local_model(
    name: str, out: str = "results", seed: int = 0, steps: int = 2048, checkpoint: str = ""
) -> LanguageModel:
    """One of our models.

    Args:
        name: `embedded`, `smollm2`, a folder or a GGUF file.
        out: folder of results, which has or gets the embedded model's reference.
        seed: of the embedded model's reference.
        steps: of its pretraining.
        checkpoint: smollm2 or a path, where the folder has adapters alone.

    Raises:
        HarnessError: there is none, or one that cannot be read.
    """
    embedded = Embedded(Pretraining(steps=steps))
    if name == "embedded":
        stages = Stages(embedded, Store(Path(out) / "llm_stages"))
        return stages.load(stages.references([seed])[0])
    path = smollm2_path() if name == "smollm2" else Path(name)
    if (path / "lineage.json").exists():
        if checkpoint:
            at = smollm2_path() if checkpoint == "smollm2" else Path(checkpoint)
            return Checkpoint(load_checkpoint(at), checkpoint).load(path)
        if (path / "checkpoint.json").exists():
            raise HarnessError(f"{name} has adapters alone; say of what (-M checkpoint=smollm2)")
        return embedded.load(path)
    return load_checkpoint(path)


@dataclass
class _Request:
    chat: Chat
    sampling: Sampling
    alone: bool
    answer: list[Completion] | None = None


class LocalAPI(ModelAPI):
    """A model of ours as Inspect's: requests that come at about the same time are one batch."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  (Inspect's own signature)
        **model_args: Any,
    ):
        super().__init__(model_name, base_url, api_key, [], config)
        self.model = local_model(model_name, **model_args)
        self.waiting: list[_Request] = []
        self.lock = asyncio.Lock()
        self.seeds = itertools.count()

    def max_connections(self) -> int:
        return _MOST

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answers a chat.

        Answers of one seed are the same whatever is asked beside them, and so asked alone.

        Raises:
            HarnessError: tools are given, or the model cannot read the chat.
        """
        if tools:
            raise HarnessError(f"{self.model_name} uses no tools")
        request = _Request(
            tuple(Message(one.role, one.text) for one in input),
            Sampling(
                1 if config.num_choices is None else config.num_choices,
                1.0 if config.temperature is None else config.temperature,
                _MAX_TOKENS if config.max_tokens is None else config.max_tokens,
                0 if config.seed is None else config.seed,
                config.top_p,
            ),
            config.seed is not None,
        )
        self.waiting.append(request)
        await asyncio.sleep(_GATHERED)
        async with self.lock:
            if request.answer is None:
                await self._answer(request)
        assert request.answer is not None
        return self._output(request.answer)

    async def _answer(self, first: _Request) -> None:
        """Answers a request, and those that wait for the same."""
        batch = [first]
        if not first.alone:
            same = [r for r in self.waiting if not r.alone and r.sampling == first.sampling]
            batch = [first, *(r for r in same if r is not first)][:_MOST]
        self.waiting = [one for one in self.waiting if all(one is not r for r in batch)]
        sampling = first.sampling
        if not first.alone:
            sampling = Sampling(**vars(sampling) | {"seed": next(self.seeds)})
        found = await asyncio.to_thread(self._sample, [one.chat for one in batch], sampling)
        for one, answer in zip(batch, found, strict=True):
            one.answer = answer

    def _sample(self, chats: Sequence[Chat], sampling: Sampling) -> list[list[Completion]]:
        with exact():
            return self.model.sample(chats, sampling)

    def _output(self, answers: Sequence[Completion]) -> ModelOutput:
        choices = [
            ChatCompletionChoice(
                message=ChatMessageAssistant(content=one.text, model=self.model_name),
                stop_reason="max_tokens" if one.stop == "length" else "stop",
            )
            for one in answers
        ]
        tokens = sum(one.tokens for one in answers)
        usage = ModelUsage(output_tokens=tokens, total_tokens=tokens)
        return ModelOutput(model=self.model_name, choices=choices, usage=usage)


@modelapi(name="sublab")
def sublab() -> type[ModelAPI]:
    """Our models, as Inspect looks for them."""
    return LocalAPI
