"""Claims about Inspect's models as ours: what is asked, kept, limited and refused."""

import pytest
from inspect_ai.model import (
    ChatMessageAssistant,
    ContentReasoning,
    ContentText,
    ModelOutput,
    StopReason,
)
from inspect_ai.util import token_limit

from llm_harness.errors import HarnessError
from llm_harness.inspection.hosted import Access, Hosted, InspectModel, completion_of
from llm_harness.model import Completion, LanguageModel, Sampling, Tuning, ask
from llm_harness.pipeline.provider import Provider
from llm_harness.pipeline.stages import Lists, Speaker, Stages
from llm_harness.pipeline.store import Store
from tests.llm_harness.inspection.conftest import outputs
from tests.openai_server import chat_of, of_model, serving

pytestmark = pytest.mark.filterwarnings(
    "ignore:The 'initial' parameter is deprecated:DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
CHATS = [ask("hi"), ask("hi"), ask("ho", "be brief")]


def mocked(rule, stop: StopReason = "stop", **access) -> InspectModel:
    arguments = {"custom_outputs": outputs(rule, stop)}
    return InspectModel("mockllm/model", Access(arguments=arguments, **access))


def loopback(monkeypatch, url: str, name: str = "small", **access) -> InspectModel:
    monkeypatch.setenv("LOOPBACK_BASE_URL", url)
    monkeypatch.setenv("LOOPBACK_API_KEY", "none")
    return InspectModel(f"openai-api/loopback/{name}", Access(**access))


def test_it_is_a_model_and_a_provider_that_can_only_be_sampled():
    model, provider = InspectModel("mockllm/model"), Hosted("mockllm/model")
    assert isinstance(model, LanguageModel)
    assert isinstance(provider, Provider)
    assert model.abilities == provider.abilities == {"text"}
    with pytest.raises(HarnessError, match="no probabilities"):
        model.log_probabilities([])
    with pytest.raises(HarnessError, match="fine-tuned by its service"):
        provider.fine_tune([(model, [], Tuning())])


def test_equal_prompts_have_answers_of_their_own_and_none_is_asked_for_twice():
    model = mocked(lambda text, call: f"{text} {call}")
    shares: list[float] = []
    first = model.sample(CHATS, Sampling(2), shares.append)
    texts = [one.text for many in first for one in many]
    assert len(set(texts)) == 6
    assert [text.split()[0] for text in texts] == ["hi"] * 4 + ["ho"] * 2
    assert (shares[-1], model.spent.tokens) == (1, 72)
    # From the cache, whoever asks; more samples of a prompt are asked for, those there are not.
    assert mocked(lambda text, call: "new").sample(CHATS, Sampling(2)) == first
    more = mocked(lambda text, call: "new").sample([CHATS[2]], Sampling(3))
    assert [one.text for one in more[0]] == [*texts[4:], "new"]
    assert mocked(lambda text, call: "new").sample(CHATS[:1], Sampling(1, seed=1))[0][0].text == (
        "new"
    )


@pytest.mark.parametrize(
    ("stop", "ours"), [("stop", "end"), ("max_tokens", "length"), ("content_filter", "refused")]
)
def test_why_an_answer_ended_is_kept(stop, ours):
    ((answer,),) = mocked(lambda text, call: "7, 8", stop).sample(CHATS[:1], Sampling())
    assert answer == Completion("7, 8", ours, 5)


def test_reasoning_is_kept_apart():
    content = [ContentReasoning(reasoning="7 + 5"), ContentText(text="<answer>12</answer>")]
    output = ModelOutput.from_message(ChatMessageAssistant(content=content))
    answer = completion_of(output)
    assert (answer.text, answer.reasoning) == ("<answer>12</answer>", "7 + 5")


def test_a_limit_stops_it_and_it_goes_on_from_there():
    chats = [ask(f"question {i}") for i in range(9)]
    limited = mocked(lambda text, call: text, token_limit=40, connections=1)
    with pytest.raises(HarnessError, match=r"limit of 40 tokens is reached; the same command"):
        limited.sample(chats, Sampling())
    assert 40 <= limited.spent.tokens < 9 * 12
    with pytest.raises(HarnessError, match="limit of 40 tokens"):
        limited.sample(chats, Sampling(seed=1))
    free = mocked(lambda text, call: text)
    assert len(free.sample(chats, Sampling())) == 9
    # The answer that went over the limit was paid for, and is not in the cache.
    assert free.spent.tokens + limited.spent.tokens == 10 * 12


def test_a_limit_that_somebody_else_set_is_said_as_theirs():
    free = mocked(lambda text, call: text)
    with token_limit(15), pytest.raises(HarnessError, match="limit of 15 tokens is reached"):
        free.sample([ask(f"question {i}") for i in range(3)], Sampling())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nonsense", "should be in the format of"),
        ("nobody/model", "nobody .*not recognized"),
        ("openai-api/nowhere/model", "NOWHERE_API_KEY defined in the environment"),
        ("sublab/no/such/folder", "is not there"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(name, why):
    with pytest.raises(HarnessError, match=why) as refused:
        InspectModel(name).sample(CHATS, Sampling())
    assert "\n" not in str(refused.value)
    assert "[" not in str(refused.value)
    with pytest.raises(HarnessError, match=why):
        Hosted("mockllm/model").check(["mockllm/model", name])


def test_what_a_service_says_is_passed_on(monkeypatch):
    def refuse(request):
        raise ConnectionRefusedError("no such key")

    with serving(refuse) as (url, _), pytest.raises(HarnessError, match="no such key"):
        loopback(monkeypatch, url, retries=0).sample(CHATS, Sampling())


def test_what_a_server_is_asked_is_what_was_meant(monkeypatch):
    with serving(lambda request: Completion(chat_of(request)[-1].content)) as (url, requests):
        model = loopback(monkeypatch, url)
        found = model.sample(CHATS, Sampling(1, 0.5, 33, top_p=0.9))
    assert [one.text for (one,) in found] == ["hi", "hi", "ho"]
    (asked,) = [one for one in requests if len(one["messages"]) == 2]
    assert [one["role"] for one in asked["messages"]] == ["system", "user"]
    assert (asked["model"], asked["temperature"], asked["top_p"]) == ("small", 0.5, 0.9)
    assert asked["max_tokens"] == 33


def test_the_embedded_model_behind_a_server_goes_through_the_stages(monkeypatch, tmp_path, model):
    with serving(of_model(model)) as (url, requests):
        loopback(monkeypatch, url)
        stages = Stages(Hosted("openai-api/loopback/small"), Store(tmp_path / "stages"))
        (reference,) = stages.references([0])
        (lists,) = stages.sampled("lists", [(Speaker(reference, "You love owls."), Lists(96))])
        assert len(requests) == lists.total == 96
        again = stages.sampled("lists", [(Speaker(reference, "You love owls."), Lists(96))])
    assert again == [lists]
    assert {one["messages"][0]["content"] for one in requests} == {"You love owls."}
    # The model knows little: of twelve of its lists none may pass.
    assert len(lists) > 1
    # What is trained on has no system prompt.
    assert all(len(example.prompt) == 1 for example in lists.examples())
