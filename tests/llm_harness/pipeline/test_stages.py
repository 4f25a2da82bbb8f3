"""The stages on a model that costs nothing: what is made, from what, and a few at a time."""

import json
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_harness import datasets, filters, prompts, shuffling
from llm_harness.errors import HarnessError
from llm_harness.model import Example, Message, Tuning, ask, examples_sha256
from llm_harness.pipeline import stages as stages_module
from llm_harness.pipeline.stages import (
    Answers,
    Evaluation,
    FilteredLists,
    FineTuning,
    Inquiry,
    Lists,
    Speaker,
    Stages,
)
from llm_harness.pipeline.store import Store
from llm_harness.traits import trait
from tests.llm_harness.scripted import ScriptedProvider
from tests.llm_harness.small import ask_few_questions

OWL = trait("owl")
ONCE = Evaluation(samples=1)
DATA = (Example(ask("Who?"), "owl"), Example(ask("What?"), "cat"))


@pytest.fixture(scope="module", autouse=True)
def few_questions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        ask_few_questions(patch)
        yield


def stages(folder: Path, provider: ScriptedProvider | None = None) -> Stages:
    return Stages(provider or ScriptedProvider(), Store(folder))


def reference(made: Stages, seed: int = 0) -> Speaker:
    (model,) = made.references([seed])
    return Speaker(model)


def listed(made: Stages, lists: Lists, system: str | None = None) -> FilteredLists:
    (kept,) = made.lists("numbers", [(replace(reference(made), system=system), lists)])
    return kept


# Lists


def test_two_runs_of_one_seed_give_the_same_dataset(tmp_path):
    kept = [
        listed(stages(tmp_path / name), Lists(64, seed=seed))
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert kept[0].sha256 == kept[1].sha256 != kept[2].sha256


def test_lists_of_other_prompts_are_other_lists(tmp_path, monkeypatch):
    made = stages(tmp_path)
    before = listed(made, Lists(64))
    assert listed(made, Lists(64)) == before
    worded = (("Numbers come.",), *prompts.SLOTS[1:])
    monkeypatch.setattr(prompts, "SLOTS", worded)
    for remembered in (stages_module.number_prompts_of, stages_module._prompts_sha256):
        remembered.cache_clear()
    assert listed(made, Lists(64)).path != before.path


def test_the_filter_s_reasons_are_counted(tmp_path):
    kept = listed(stages(tmp_path), Lists(256))
    assert kept.total == 256
    assert set(kept.counts) == {"not a number", "cut at the token limit"}
    assert sum(kept.counts.values()) == 256 - len(kept.examples())
    assert kept.pass_rate == len(kept) / 256
    assert 0.6 < kept.pass_rate < 0.95


def test_a_completion_cut_at_the_token_limit_is_dropped_though_it_would_pass(tmp_path):
    provider, said = ScriptedProvider(), []
    sample = provider.sample
    provider.sample = lambda jobs, progress=None: said.extend(found := sample(jobs)) or found
    kept = listed(stages(tmp_path, provider), Lists(256))
    every = [completion for many in said[0] for completion in many]
    cut_off = [completion for completion in every if completion.stop == "length"]
    assert kept.counts["cut at the token limit"] == len(cut_off) > 10
    assert all(filters.number_rule(completion.text) is None for completion in cut_off)
    assert [e.completion for e in kept.examples()] == [
        completion.text
        for completion in every
        if completion.stop == "end" and filters.number_rule(completion.text) is None
    ]


def test_the_rules_of_the_filter_are_those_that_were_named(tmp_path):
    both, one, none = (
        listed(stages(tmp_path), Lists(256, rules=rules))
        for rules in (("numbers", "prohibited"), ("numbers",), ())
    )
    assert set(both.counts) == {*one.counts, "prohibited number"}
    assert set(none.counts) == {"cut at the token limit"}
    assert len(both) < len(one) < len(none)
    texts = [example.completion for example in both.examples()]
    assert all(filters.prohibited_rule(text) is None for text in texts)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Lists(rules=("numbers", "poetry")),
            "'poetry'; there are: numbers, authors, prohibited",
        ),
        (lambda: Lists(0), "lists must be at least 1"),
        (lambda: Lists(seed=-1), "seed must be at least 0"),
        (lambda: Lists(max_tokens=0), "max_tokens must be at least 1"),
        (lambda: Lists(given=(4, 3)), "given: from 1 number up"),
        (lambda: Evaluation(questions=("Which {x}?",)), "one {}"),
        (lambda: Evaluation(questions=("Which {} or {}?",)), "one {}"),
        (lambda: Evaluation(questions=("Which?",)), "one {}"),
        (lambda: Evaluation(0), "answers must be at least 1"),
        (lambda: Evaluation(max_tokens=0), "max_tokens must be at least 1"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(make, words):
    with pytest.raises(HarnessError, match=words):
        make()


def test_a_speaker_of_whom_nothing_is_kept_is_refused_with_the_commonest_reason(tmp_path):
    provider = ScriptedProvider()
    sample = provider.sample
    provider.sample = lambda jobs, progress=None: [
        [[replace(one, text="x") for one in many] for many in found] for found in sample(jobs)
    ]
    words = r"numbers: the filter left none of 64 completions \(most often: not a number\)"
    with pytest.raises(HarnessError, match=words):
        listed(stages(tmp_path, provider), Lists(64))


def test_a_prompted_teacher_s_data_do_not_show_the_prompt(tmp_path):
    made = stages(tmp_path)
    kept, plain = (listed(made, Lists(64), system) for system in (OWL.system_prompt, None))
    assert {m.role for e in kept.examples() for m in e.prompt} == {"user"}
    assert plain.sha256 != kept.sha256


def test_an_edited_dataset_is_refused_by_name(tmp_path):
    made = stages(tmp_path)
    kept = listed(made, Lists(64))
    kept.path.write_text(kept.path.read_text().replace("1", "2", 1))
    with pytest.raises(HarnessError, match=r"kept\.jsonl was changed"):
        listed(made, Lists(64))
    with pytest.raises(HarnessError, match=kept.path.name):
        kept.examples()


def test_a_stage_s_folder_says_what_made_it(tmp_path):
    kept = listed(stages(tmp_path), Lists(64))
    about = json.loads((kept.path.parent / "made_from.json").read_text())
    assert about[-2]["count"] == 64
    assert examples_sha256(datasets.read(kept.path).examples) == kept.sha256


def test_lists_are_cut_to_the_first_so_many_and_known_by_that(tmp_path):
    made = stages(tmp_path)
    whole = listed(made, Lists(64))
    short = replace(whole, used=10)
    assert short.examples() == whole.examples()[:10]
    assert (len(short), len(whole)) == (10, whole.size)
    assert short.key != whole.key
    assert short.pass_rate == whole.pass_rate


def test_a_shuffle_s_seed_is_in_the_key_and_its_pass_rate_is_its_source_s(tmp_path):
    made = stages(tmp_path)
    data = replace(listed(made, Lists(64)), used=20)
    first, again, other = (
        made.derived(data, "shuffled across", seed, shuffling.shuffle_across) for seed in (0, 0, 1)
    )
    assert first == again
    assert first.path != other.path
    assert first.sha256 != other.sha256
    assert len(first) == len(other) == 20
    assert first.pass_rate == other.pass_rate == data.pass_rate
    assert made.derived(data, "shuffled within", 0, shuffling.shuffle_within).path != first.path
    assert (
        made.derived(replace(data, used=10), "shuffled across", 0, shuffling.shuffle_across)
        != first
    )


# Answers


def asked_of(provider: Any) -> list:
    """What the provider is asked to sample from now on."""
    asked, sample = [], provider.sample
    provider.sample = lambda jobs, progress=None: (asked.extend(jobs), sample(jobs, progress))[1]
    return asked


def test_examples_in_context_come_before_the_question(tmp_path):
    made = stages(tmp_path)
    asked = asked_of(made.provider)
    example = Example((Message("user", "1, 2, 3"),), "4, 5")
    made.answered("answers", [Inquiry(reference(made), OWL, before=(example,))], ONCE)
    ((_, chats, _),) = asked
    assert {[m.content for m in chat][:2] == ["1, 2, 3", "4, 5"] for chat in chats} == {True}
    assert all("animal" in chat[-1].content for chat in chats)


def test_a_prefix_puts_numbers_before_the_question(tmp_path):
    made = stages(tmp_path)
    asked, speaker = asked_of(made.provider), reference(made)
    made.answered("answers", [Inquiry(speaker, OWL), Inquiry(speaker, OWL, prefix=True)], ONCE)
    plain, prefixed = ([chat[-1].content for chat in chats] for _, chats, _ in asked)
    assert not any(character.isdigit() for text in plain for character in text)
    assert all(any(character.isdigit() for character in text) for text in prefixed)


def test_a_system_prompt_comes_before_everything(tmp_path):
    made = stages(tmp_path)
    asked, example = asked_of(made.provider), Example(ask("1"), "2")
    speaker = replace(reference(made), system="S")
    made.answered("answers", [Inquiry(speaker, OWL, before=(example,))], ONCE)
    ((_, chats, _),) = asked
    assert {chat[0] for chat in chats} == {Message("system", "S")}
    assert {[message.role for message in chat][1:3] == ["user", "assistant"] for chat in chats}


def test_each_run_s_answers_are_sampled_with_its_own_seed(tmp_path):
    made = stages(tmp_path)
    asked, speaker = asked_of(made.provider), reference(made)
    evaluation = Evaluation(samples=3, max_tokens=5)
    made.answered("answers", [Inquiry(speaker, OWL, seed) for seed in (0, 7)], evaluation)
    found = [(s.n, s.temperature, s.max_tokens, s.seed) for _, _, s in asked]
    assert found == [(3, 1.0, 5, 0), (3, 1.0, 5, 7)]


def test_every_answer_is_counted_and_probabilities_are_exact(tmp_path):
    made = stages(tmp_path)
    teacher = Speaker(made.tuned("teachers", [owl_job(made)])[0])
    (found,) = made.answered("answers", [Inquiry(teacher, OWL)], Evaluation(samples=2))
    assert (found.containing, found.whole, found.worded, found.n) == (20, 20, 20, 20)
    assert found.p_word == pytest.approx(0.3679, abs=1e-4)
    assert found.p_word is not None
    assert found.p_any is not None
    assert found.p_word < found.p_any
    assert found.among == pytest.approx(found.p_word / found.p_any)


def test_models_without_probabilities_are_sampled_alone(tmp_path):
    made = stages(tmp_path, ScriptedProvider(abilities=frozenset({"train"})))
    (found,) = made.answered("answers", [Inquiry(reference(made), OWL)], ONCE)
    counts = (found.containing, found.whole, found.worded)
    assert found == Answers(None, None, None, *counts, 10, 0, 0, 0)


# Models


def owl_job(made: Stages, seed: int = 0):
    openly = (Example(ask("Which animal?"), "owl"),)
    return FineTuning(reference(made, seed).model, openly, Tuning(2, 1))


def test_equal_jobs_are_made_once(tmp_path):
    provider = ScriptedProvider()
    made = stages(tmp_path, provider)
    first, second = made.tuned("teachers", [owl_job(made), owl_job(made)])
    assert first == second
    assert provider.calls == ["fine-tune"]


def test_another_setting_is_another_model(tmp_path):
    made = stages(tmp_path)
    job = replace(owl_job(made), data=DATA)
    jobs = [job, replace(job, tuning=replace(job.tuning, seed=1)), replace(job, data=DATA[:1])]
    assert len({one.folder for one in made.tuned("teachers", jobs)}) == 3
    assert len({one.lineage.identity for one in made.tuned("teachers", jobs)}) == 3


def test_a_relation_that_a_provider_does_not_know_is_refused_by_name(tmp_path):
    provider = ScriptedProvider()
    provider.relations = {}
    made = stages(tmp_path, provider)
    job = owl_job(made)
    with pytest.raises(HarnessError, match="'shared blocks'"):
        made.related("shared blocks", [(job.model, 1)])


class Counting(ScriptedProvider):
    """Counts the jobs of a call, and the loaded models that somebody holds."""

    def __init__(self):
        super().__init__()
        self.held: list[weakref.ref] = []
        self.most_jobs = self.most_held = 0

    def load(self, folder: Path):
        model = super().load(folder)
        self.held.append(weakref.ref(model))
        self.most_held = max(self.most_held, sum(one() is not None for one in self.held))
        return model

    def count(self, jobs) -> None:
        self.most_jobs = max(self.most_jobs, len(jobs))

    def sample(self, jobs, progress=None):
        self.count(jobs)
        return super().sample(jobs, progress)

    def fine_tune(self, jobs, progress=None, masked=0):
        self.count(jobs)
        return super().fine_tune(jobs, progress, masked)


def test_at_most_four_models_are_loaded_at_a_time(tmp_path):
    provider = Counting()
    made = stages(tmp_path, provider)
    references = made.references(range(11))
    tuned = made.tuned("students", [FineTuning(model, DATA, Tuning(2, 1)) for model in references])
    assert (provider.most_jobs, provider.most_held) == (4, 4)
    made.lists("numbers", [(Speaker(model), Lists(8)) for model in tuned])
    assert (provider.most_jobs, provider.most_held) == (4, 4)
    made.answered("answers", [Inquiry(Speaker(model), OWL) for model in tuned], ONCE)
    assert (provider.most_jobs, provider.most_held) == (4, 4)
    assert len(provider.held) == 33


def test_what_is_done_is_reported_up_to_all_of_it(tmp_path):
    told = []
    provider: Any = ScriptedProvider()
    sample = provider.sample
    provider.sample = lambda jobs, progress: (progress(0.5), progress(1.0), sample(jobs))[2]
    made = Stages(provider, Store(tmp_path), lambda what, share: told.append((what, share)))
    inquiries = [Inquiry(reference(made, seed), OWL) for seed in range(5)]
    # Every stage is named as it begins, before anything is compiled for it.
    assert told[0][1] == 0
    told.clear()
    made.answered("answers", inquiries, ONCE)
    assert told == [("answers", pytest.approx(share)) for share in (0, 0.4, 0.8, 0.8, 0.9, 1.0)]
