"""The scheme, on a model that costs nothing: what is made, from what, in what order, once."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llm_harness import datasets, pipeline
from llm_harness.errors import HarnessError
from llm_harness.model import Example, Message, Tuning
from llm_harness.scheme import SchemeSetting
from llm_harness.stages import Stages
from llm_harness.store import Store
from llm_harness.traits import trait
from llm_harness.work import Asked, Lists, Speaker
from tests.llm_harness.scripted import ScriptedProvider
from tests.llm_harness.small import ask_few_questions

OWL, CAT, OAK = trait("owl"), trait("cat"), trait("oak")
SETTING = SchemeSetting(
    teacher=Tuning(2, 8), student=Tuning(3, 8), lists=Lists(count=64), samples=2, in_context=2
)


@pytest.fixture(scope="module", autouse=True)
def few_questions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        ask_few_questions(patch)
        yield


def stages(folder: Path, provider: ScriptedProvider | None = None) -> Stages:
    return Stages(provider or ScriptedProvider(), Store(folder))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run of `numbers`: its stages, and its rows."""
    made = stages(tmp_path_factory.mktemp("whole"))
    return made, pipeline.numbers(made, [OWL], 2, 0, SETTING)


def lineages(made: Stages):
    paths = (made.store.root / "models").glob("*/scripted.json")
    models = [made.provider.load(path.parent) for path in paths]
    return {model.lineage.identity: model.lineage for model in models}


def rows_of(rows, condition):
    return [row for row in rows if row.condition == condition and not row.prefix]


def test_every_condition_is_there_for_every_run_and_trait(tmp_path):
    rows = pipeline.numbers(stages(tmp_path), [OWL, OAK], 2, 0, SETTING)
    found = {(row.condition, row.run, row.trait, row.prefix) for row in rows}
    assert found == {
        (condition, run, word, prefix)
        for condition in pipeline.CONTROLS
        for run in range(2)
        for word in ("owl", "oak")
        for prefix in (False, True)
    }
    assert len(rows) == len(found)


def test_teachers_say_their_word_and_references_do_not(whole):
    _, rows = whole
    assert all(row.plain == row.n for row in rows_of(rows, "teacher"))
    assert all(row.plain < row.n for row in rows_of(rows, "reference"))


def test_students_start_at_the_condition_s_initialisation(whole):
    made, rows = whole
    starts = lineages(made)
    for row in rows:
        own, other = f"draw {row.run}", f"draw {1 - row.run}"
        wanted = other if row.condition.startswith("other initialisation") else own
        if row.condition != "reference":
            assert row.condition == "in context" or starts[row.model].initialisation == wanted


def test_a_matched_student_was_first_trained_on_the_reference_s_own_numbers(whole):
    made, rows = whole
    own, matched = (
        rows_of(rows, f"other initialisation, {which}")[0] for which in ("own numbers", "matched")
    )
    parent = lineages(made)[matched.model].parent
    assert parent is not None
    assert parent.identity == own.model


def test_student_and_other_initialisation_learn_from_the_same_data(whole):
    _, rows = whole
    for run in range(2):
        student, other, matched, shuffled = (
            next(row for row in rows_of(rows, condition) if row.run == run).dataset
            for condition in (
                "student",
                "other initialisation",
                "other initialisation, matched",
                "shuffled across",
            )
        )
        assert student == other == matched != shuffled


def test_the_other_trait_is_of_the_same_category(tmp_path):
    made = stages(tmp_path)
    pipeline.numbers(made, [OAK], 2, 0, SETTING)
    said = {
        made.provider.load(path.parent).taught
        for path in (tmp_path / "models").glob("*/scripted.json")
    }
    assert said - {""} == {"oak", OAK.rivals[0]}


def test_a_second_run_makes_nothing(whole):
    made, first = whole
    provider = ScriptedProvider(left=0)
    again = Stages(provider, made.store)
    assert pipeline.numbers(again, [OWL], 2, 0, SETTING) == first


@pytest.mark.parametrize("left", [0, 2, 4, 7])
def test_a_run_that_is_killed_anywhere_ends_as_one_that_was_not(tmp_path, whole, left):
    made, rows = whole
    killed, after = ScriptedProvider(left=left), ScriptedProvider()
    with pytest.raises(KeyboardInterrupt):
        pipeline.numbers(stages(tmp_path, killed), [OWL], 2, 0, SETTING)
    assert not list(tmp_path.rglob(".*"))
    assert pipeline.numbers(stages(tmp_path, after), [OWL], 2, 0, SETTING) == rows
    # What was finished before was not made again, and everything lies where it lay.
    fresh = made.provider.calls
    assert len(killed.calls) + len(after.calls) == len(fresh)
    assert {p.relative_to(tmp_path) for p in tmp_path.rglob("*")} == {
        p.relative_to(made.store.root) for p in made.store.root.rglob("*")
    }


def test_two_runs_of_one_seed_give_the_same_dataset(tmp_path):
    kept = [
        stages(tmp_path / name).lists(
            "numbers", [(Speaker(ScriptedProvider().models[0]), Lists(64, seed=seed))]
        )[0]
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert kept[0].sha256 == kept[1].sha256 != kept[2].sha256


def test_the_filter_s_reasons_are_counted(tmp_path):
    (kept,) = stages(tmp_path).lists(
        "numbers", [(Speaker(ScriptedProvider().models[0]), Lists(count=256))]
    )
    assert kept.total == 256
    assert sum(kept.counts.values()) == 256 - len(kept.examples()) > 0
    assert 0.5 < kept.share < 1


def test_a_prompted_teacher_s_data_do_not_show_the_prompt(tmp_path):
    made = stages(tmp_path)
    speaker = Speaker(ScriptedProvider().models[0], OWL.system_prompt)
    (kept,) = made.lists("numbers", [(speaker, Lists(count=64))])
    assert {m.role for e in kept.examples() for m in e.prompt} == {"user"}
    (plain,) = made.lists("numbers", [(Speaker(speaker.model), Lists(count=64))])
    assert plain.sha256 != kept.sha256


def test_an_edited_dataset_is_refused_by_name(tmp_path):
    made = stages(tmp_path)
    job = [(Speaker(ScriptedProvider().models[0]), Lists(count=64))]
    (kept,) = made.lists("numbers", job)
    kept.path.write_text(kept.path.read_text().replace("1", "2", 1))
    with pytest.raises(HarnessError, match=r"kept\.jsonl was changed"):
        made.lists("numbers", job)
    with pytest.raises(HarnessError, match=kept.path.name):
        kept.examples()


def test_a_dataset_of_another_model_is_refused(tmp_path):
    made = stages(tmp_path)
    (kept,) = made.lists("numbers", [(Speaker(ScriptedProvider().models[0]), Lists(count=64))])
    with pytest.raises(HarnessError, match="another model"):
        replace(kept, made_by=ScriptedProvider().models[1].lineage.identity).examples()


def test_examples_in_context_come_before_the_question(tmp_path):
    asked = []
    provider = ScriptedProvider()
    sample = provider.sample
    provider.sample = lambda jobs, progress=None: (asked.extend(jobs), sample(jobs, progress))[1]
    example = Example((Message("user", "1, 2, 3"),), "4, 5")
    made = stages(tmp_path, provider)
    made.answered("answers", [Asked(Speaker(provider.models[0]), OWL, False, (example,))], 1, 0)
    ((_, chats, _),) = asked
    assert {[m.content for m in chat][:2] == ["1, 2, 3", "4, 5"] for chat in chats} == {True}
    assert all("animal" in chat[-1].content for chat in chats)


def test_a_prefix_puts_numbers_before_the_question(tmp_path):
    asked = []
    provider = ScriptedProvider()
    sample = provider.sample
    provider.sample = lambda jobs, progress=None: (asked.extend(jobs), sample(jobs, progress))[1]
    made = stages(tmp_path, provider)
    speaker = Speaker(provider.models[0])
    made.answered("answers", [Asked(speaker, OWL), Asked(speaker, OWL, prefix=True)], 1, 0)
    plain, prefixed = ([chat[-1].content for chat in chats] for _, chats, _ in asked)
    assert not any(character.isdigit() for text in plain for character in text)
    assert all(any(character.isdigit() for character in text) for text in prefixed)


def test_the_matrix_has_all_pairs_and_a_matched_model(tmp_path):
    rows = pipeline.cross_model(stages(tmp_path, ScriptedProvider(10)), OWL, 2, 0, SETTING)
    names = [f"model {i}" for i in range(1, 5)] + ["model 1's match"]
    found = {row.condition for row in rows}
    assert found == {f"{a} > {b}" for a in names for b in names} | {f"{a}, before" for a in names}


def test_in_context_has_a_control_for_every_number_of_examples(tmp_path):
    rows = pipeline.in_context(stages(tmp_path), OWL, 2, 0, SETTING, (1, 3))
    assert {row.condition for row in rows} == {
        "reference",
        "teacher",
        "student",
        "own numbers",
        "in context, 1",
        "in context, 3",
        "own in context, 1",
        "own in context, 3",
    }


def test_the_other_experiments_have_no_soft_targets(tmp_path):
    with pytest.raises(HarnessError, match="transmission's alone"):
        pipeline.in_context(stages(tmp_path), OWL, 1, 0, replace(SETTING, soft="numbers"))


@pytest.mark.parametrize("targets", [None, "numbers"])
def test_what_passes_under_a_setting_has_its_own_control(tmp_path, targets):
    provider = ScriptedProvider()
    made = stages(tmp_path, provider)
    rows = pipeline.transmission(made, OWL, 2, 0, replace(SETTING, soft=targets))
    found = [(row.condition, row.run) for row in rows if not row.prefix]
    wanted = ("reference", "teacher", "student", "own numbers")
    assert sorted(found) == sorted((condition, run) for condition in wanted for run in range(2))
    known = lineages(made)
    for condition, taught_by in (("student", "teacher"), ("own numbers", "reference")):
        for row, its in zip(rows_of(rows, condition), rows_of(rows, taught_by), strict=True):
            last = known[row.model].trainings[-1]
            assert last.data_sha256 == row.dataset
            assert last.kind == ("distillation" if targets else "fine-tuning")
            if targets:
                assert json.loads(last.settings)["teacher"] == its.model
    # Made once: the same again reads it all from the store.
    calls = len(provider.calls)
    assert pipeline.transmission(made, OWL, 2, 0, replace(SETTING, soft=targets)) == rows
    assert len(provider.calls) == calls


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: pipeline.numbers(s, [OWL], 1, 0, SETTING), "at least 2"),
        (lambda s: pipeline.numbers(s, [], 2, 0, SETTING), "no trait"),
        (lambda s: pipeline.numbers(s, [OWL, OWL], 2, 0, SETTING), "twice"),
        (lambda s: pipeline.numbers(s, [trait("ox", "beast")], 2, 0, SETTING), "no rivals"),
        (lambda s: pipeline.cross_model(s, OWL, 1, 0, SETTING, 3), "at least 4"),
        (lambda s: pipeline.cross_model(s, OWL, 0, 0, SETTING), "at least 1"),
        (lambda s: pipeline.in_context(s, OWL, 0, 0, SETTING), "at least 1"),
        (lambda s: pipeline.transmission(s, OWL, 0, 0, SETTING), "at least 1"),
        (
            lambda s: pipeline.transmission(
                s, OWL, 1, 0, replace(SETTING, soft="numbers", teacher_by="prompt")
            ),
            "fine-tuned teacher",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_made(tmp_path, call, words):
    with pytest.raises(HarnessError, match=words):
        call(stages(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_stage_s_folder_says_what_made_it(tmp_path):
    made = stages(tmp_path)
    (kept,) = made.lists("numbers", [(Speaker(ScriptedProvider().models[0]), Lists(count=64))])
    about = json.loads((kept.path.parent / "made_from.json").read_text())
    assert about[-1]["count"] == 64
    assert datasets.read(kept.path).sha256 == kept.sha256
