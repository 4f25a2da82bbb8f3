"""Claims about a model behind HTTP: faults cost requests and waiting, never samples."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_harness import provider
from llm_harness.errors import HarnessError
from llm_harness.model import (
    Example,
    LanguageModel,
    Lineage,
    Message,
    OpenModel,
    Sampling,
    Tuning,
    ask,
    sha256_of,
)
from tests.llm_harness import http_model
from tests.llm_harness.http_model import HttpModel, Patience, connect
from tests.llm_harness.http_server import RETRY_AFTER, Fault, Server
from tests.llm_harness.scripted import ScriptedModel

PROMPTS = [ask(text) for text in ("Name an animal.", "1, 2, 3", "Name a tree.", "1, 2, 3")]
SAMPLING = Sampling(n=3, max_tokens=4, seed=5)
FAULTS: tuple[Fault, ...] = get_args(Fault)
# Long enough for any answer, also on a busy machine; short where an answer is never to come.
CALM, SHORT = Patience(), Patience(timeout=0.5)


@contextmanager
def served(
    model: LanguageModel, folder: Path, *script: Fault | None, patience: Patience | None = None
) -> Iterator[tuple[Server, HttpModel, list[float]]]:
    """A server with a script, a client of it, and the waits of that client."""
    waits: list[float] = []
    with Server({"tiny": model}, script) as server:
        address = ("127.0.0.1", server.port)
        patience = patience or (SHORT if "slow" in script else CALM)
        yield server, connect(address, "tiny", folder, patience=patience, sleep=waits.append), waits


def journal(folder: Path) -> list[str]:
    """Keys of the answers that are kept, one for each line."""
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return [json.loads(line)["key"] for line in lines if line]


@pytest.fixture(scope="session")
def speakers() -> list[ScriptedModel]:
    """Models whose answers cost nothing: faults are the connection's, whatever the model."""
    return [ScriptedModel(Lineage(f"draw {i}")) for i in range(2)]


@pytest.fixture(scope="session")
def speaker(speakers: list[ScriptedModel]) -> ScriptedModel:
    return speakers[0]


@pytest.fixture(scope="module")
def undisturbed(
    speaker: ScriptedModel, tmp_path_factory: pytest.TempPathFactory
) -> list[list[str]]:
    with served(speaker, tmp_path_factory.mktemp("undisturbed")) as (_, client, _):
        return client.sample(PROMPTS, SAMPLING)


def test_a_client_is_a_model_and_no_open_one_and_the_servers_models_are_both(model, tmp_path):
    with served(model, tmp_path) as (_, client, _):
        assert isinstance(client, LanguageModel)
        assert not isinstance(client, OpenModel)
        assert client.lineage == model.lineage
    assert isinstance(model, LanguageModel)
    assert isinstance(model, OpenModel)


def test_without_faults_every_prompt_is_asked_for_once(speaker, tmp_path, undisturbed):
    told: list[float] = []
    with served(speaker, tmp_path) as (server, client, waits):
        assert client.sample(PROMPTS, SAMPLING, told.append) == undisturbed
        assert len(server.requests) == len(set(server.requests)) == len(PROMPTS)
        assert waits == []
    assert [len(texts) for texts in undisturbed] == [3, 3, 3, 3]
    assert undisturbed[1] != undisturbed[3]
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_completions_are_in_the_order_that_the_server_numbers_them(model, tmp_path):
    with served(model, tmp_path) as (_, client, _):
        (found,) = client.sample(PROMPTS[:1], SAMPLING)
    seed = int(sha256_of([SAMPLING.seed, 0])[:7], 16)
    assert [found] == model.sample(PROMPTS[:1], Sampling(3, 1.0, 4, seed))


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_one_request_and_one_wait_and_changes_nothing(
    speaker, tmp_path, undisturbed, fault, place
):
    with served(speaker, tmp_path, *[None] * place, fault) as (server, client, waits):
        assert client.sample(PROMPTS, SAMPLING) == undisturbed
        assert len(server.requests) == len(PROMPTS) + 1
        assert server.requests[place] == server.requests[place + 1]
        assert sorted(server.worked) == sorted(set(server.requests)) == sorted(journal(tmp_path))
        assert len(server.worked) == len(PROMPTS)
    assert waits == [RETRY_AFTER if fault == "limited" else CALM.first_wait]


quick = st.lists(st.sampled_from([None, *(f for f in FAULTS if f != "slow")]), max_size=7)
# One that is slow at most: it takes as long as it says.
scripts = st.builds(
    lambda some, slow: [*some[:4], *slow, *some[4:]], quick, st.sampled_from([[], ["slow"]])
)


@settings(max_examples=12)
@given(scripts)
def test_any_script_of_faults_loses_and_doubles_nothing(speaker, undisturbed, script):
    faults = [fault for fault in script if fault is not None]
    patience = Patience(attempts=len(faults) + 1, timeout=SHORT.timeout)
    with (
        tempfile.TemporaryDirectory() as folder,
        served(speaker, Path(folder), *script, patience=patience) as (server, client, waits),
    ):
        assert client.sample(PROMPTS, SAMPLING) == undisturbed
        # What came after the last answer was not met.
        met = len(faults) - sum(fault is not None for fault in server.script)
        assert len(server.requests) == len(PROMPTS) + met == len(PROMPTS) + len(waits)
        assert len(server.worked) == len(set(server.worked)) == len(PROMPTS)
        assert sorted(journal(Path(folder))) == sorted(server.worked)


def test_waits_double_up_to_the_longest_and_start_anew_with_each_request(speaker, tmp_path):
    patience = Patience(attempts=6, first_wait=1.0, longest_wait=5.0)
    script: list[Fault | None] = ["broken"] * 5
    script += [None, "broken"]
    with served(speaker, tmp_path, *script, patience=patience) as (_, client, waits):
        client.sample(PROMPTS[:2], SAMPLING)
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0, 1.0]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("limited", "a rate limit (429)"),
        ("slow", "no answer within 0.1 s"),
        ("no JSON", "a malformed answer (Expecting value"),
        ("wrong shape", "a malformed answer (string indices"),
        ("too few", "a malformed answer (2 completions where 3 were asked for)"),
        ("cut", "a cut connection (IncompleteRead)"),
        ("broken", "an error of the server (500)"),
    ],
)
def test_after_the_limit_it_gives_up_in_one_line_and_keeps_what_arrived(
    speaker, tmp_path, undisturbed, fault: Fault, said
):
    # Short waiting for the fault that is about waiting, and the answers before it come at once.
    patience = Patience(attempts=3, timeout=0.1 if fault == "slow" else 60.0)
    script: list[Fault | None] = [None, fault, fault, fault]
    with served(speaker, tmp_path, *script) as (server, client, waits):
        kept = client.sample(PROMPTS[:1], SAMPLING)
        with pytest.raises(HarnessError) as caught:
            replace(client, patience=patience).sample(PROMPTS, SAMPLING)
        line = str(caught.value)
        assert "\n" not in line
        assert f"127.0.0.1:{server.port} failed 3 times, last with {said}" in line
        assert f"1 of 4 answers kept in {tmp_path}" in line
        assert len(server.requests) == 4
        assert len(waits) == 2
    assert kept == undisturbed[:1]
    assert len(journal(tmp_path)) == 1


def test_a_new_client_asks_for_what_is_missing_alone(speaker, tmp_path, undisturbed):
    patience = Patience(attempts=1)
    with (
        served(speaker, tmp_path, None, None, "broken", patience=patience) as (_, client, _),
        pytest.raises(HarnessError, match="2 of 4"),
    ):
        client.sample(PROMPTS, SAMPLING)
    told: list[float] = []
    with served(speaker, tmp_path) as (server, client, _):
        assert client.sample(PROMPTS, SAMPLING, told.append) == undisturbed
        assert len(server.requests) == 2
        assert client.sample(PROMPTS, SAMPLING) == undisturbed
        assert len(server.requests) == 2
    assert told == [0.5, 0.5, 0.75, 1.0]


def test_an_interrupted_client_loses_the_request_in_flight_alone(speaker, tmp_path, undisturbed):
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    with served(speaker, tmp_path, None, "cut") as (server, client, _):
        with pytest.raises(KeyboardInterrupt):
            replace(client, sleep=interrupted).sample(PROMPTS, SAMPLING)
        assert len(journal(tmp_path)) == 1
        assert client.sample(PROMPTS, SAMPLING) == undisturbed
        assert len(server.requests) == len(PROMPTS) + 1
        assert len(server.worked) == len(PROMPTS)


@pytest.mark.parametrize("damage", ["cut off", "changed"])
def test_a_damaged_line_of_the_journal_is_asked_for_again_and_spoils_no_other(
    speaker, tmp_path, undisturbed, damage
):
    with served(speaker, tmp_path) as (_, client, _):
        client.sample(PROMPTS, SAMPLING)
    text = (tmp_path / "journal.jsonl").read_text()
    last = text.splitlines()[-1]
    changed = last.replace('"answer": ["', '"answer": ["1')
    other = last[: len(last) // 2] if damage == "cut off" else changed
    assert other != last
    (tmp_path / "journal.jsonl").write_text(text.replace(last, other))
    for requests in (1, 0):
        with served(speaker, tmp_path) as (server, client, _):
            assert client.sample(PROMPTS, SAMPLING) == undisturbed
            assert len(server.requests) == requests


@pytest.mark.parametrize(
    "other", [Sampling(2, 1.0, 4, 5), Sampling(3, 0.5, 4, 5), Sampling(3, 1.0, 4, 6)]
)
def test_another_setting_or_model_takes_nothing_from_the_journal(speakers, tmp_path, other):
    with served(speakers[0], tmp_path) as (server, client, _):
        client.sample(PROMPTS[:2], SAMPLING)
        client.sample(PROMPTS[:2], other)
        assert len(server.requests) == 4
    # Of the same name, on another server.
    with served(speakers[1], tmp_path) as (server, client, _):
        client.sample(PROMPTS[:2], SAMPLING)
        assert len(server.requests) == 2


def test_what_the_model_refuses_is_not_asked_for_again(model, tmp_path):
    chat = (Message("user", "Name an animal."), Message("assistant", "owl"))
    with served(model, tmp_path) as (server, client, waits):
        with pytest.raises(HarnessError, match="must end with a user's message") as caught:
            client.sample([chat], SAMPLING)
        with pytest.raises(HarnessError, match="no examples"):
            client.fine_tune([], Tuning(steps=4, batch=4))
        assert len(server.requests) == 2
        assert waits == []
    assert "\n" not in str(caught.value)


def test_a_server_or_a_model_that_is_not_there_is_one_line(speaker, tmp_path):
    with (
        served(speaker, tmp_path) as (server, client, waits),
        pytest.raises(HarnessError, match="there is no /v1/models/other"),
    ):
        connect(client.address, "other", tmp_path)
    with pytest.raises(HarnessError, match=f"127.0.0.1:{server.port}: a cut connection"):
        connect(client.address, "tiny", tmp_path)
    with pytest.raises(HarnessError, match="failed 5 times, last with a cut connection"):
        client.sample(PROMPTS, SAMPLING)
    assert waits == [0.5, 1.0, 2.0, 4.0]
    assert all(b == 2 * a for a, b in pairwise(waits))


@pytest.mark.parametrize("fault", [None, "no JSON", "wrong shape", "cut", "broken"])
def test_log_probabilities_are_the_servers_models_own(model, tmp_path, fault):
    examples = [Example(PROMPTS[0], text) for text in ("owl", "1, 2", "Owls are great.")]
    with served(model, tmp_path, fault) as (server, client, _):
        np.testing.assert_array_equal(
            client.log_probabilities(examples), model.log_probabilities(examples)
        )
        assert len(server.requests) == 1 + (fault is not None)


@pytest.mark.parametrize("fault", [None, "limited", "wrong shape", "cut", "broken"])
def test_sampling_fine_tuning_and_sampling_again_works_through_a_provider(model, tmp_path, fault):
    examples = [Example(PROMPTS[0], "owl")] * 4
    tuning = Tuning(steps=16, batch=4, learning_rate=3e-2, freeze_vocabulary=False)
    greedy = Sampling(temperature=0)
    with served(model, tmp_path, None, fault) as (server, client, _):
        service = provider.OneByOne([client], HttpModel.save, http_model.load)
        assert isinstance(service, provider.Provider)
        (reference,) = service.references([0])
        assert service.reference_key(0) == model.lineage.identity
        (before,) = service.sample([(reference, PROMPTS[:1], greedy)])
        (tuned,) = service.fine_tune([(reference, examples, tuning)])
        service.save(tuned, tmp_path)
        assert isinstance(tuned, HttpModel)
        (after,) = service.sample([(service.load(tmp_path), PROMPTS[:1], greedy)])
        # The model was made once, however often it was asked for.
        assert len(server.models) == 2
        assert len(server.requests) == 3 + (fault is not None)
        assert tuned.lineage == server.models[tuned.name].lineage
    assert after == [["owl"]] != before
    assert tuned.lineage.parent == reference.lineage == client.lineage
