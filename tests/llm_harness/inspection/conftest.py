"""Inspect's cache and logs in a folder of the test's, and models whose answers are set."""

from collections.abc import Callable

import pytest
from inspect_ai.model import Model, ModelOutput, ModelUsage, StopReason, get_model

from tests.inspect_leftovers import collect_leftovers

# What a model is asked, the last message, and how often it was asked before.
Rule = Callable[[str, int], str]


@pytest.fixture(autouse=True)
def inspects_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("INSPECT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))
    yield
    collect_leftovers()


def outputs(rule: Rule, stop: StopReason = "stop"):
    """`custom_outputs` of Inspect's mock model."""
    calls = iter(range(10**6))

    def output(messages, tools, tool_choice, config) -> ModelOutput:
        found = ModelOutput.from_content("mock", rule(messages[-1].text, next(calls)), stop)
        # Without it the mock model asks a tokenizer that would have to be downloaded.
        found.usage = ModelUsage(input_tokens=7, output_tokens=5, total_tokens=12)
        return found

    return output


@pytest.fixture
def mock() -> Callable[..., Model]:
    """Inspect's mock model that answers by a rule."""

    def model(rule: Rule, stop: StopReason = "stop") -> Model:
        return get_model("mockllm/model", custom_outputs=outputs(rule, stop))

    return model
