"""The scheme on a model that costs nothing: its conditions, and what each is made of."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from experiments.llm import cross_model
from llm_harness.errors import HarnessError
from llm_harness.model import Completion, Tuning, examples_sha256
from llm_harness.pipeline import conditions as pipeline
from llm_harness.pipeline.conditions import PipelineSetting
from llm_harness.pipeline.stages import Evaluation, Lists, Stages
from llm_harness.pipeline.store import Store
from llm_harness.traits import trait
from tests.llm_harness.scripted import RELATED, ScriptedModel, ScriptedProvider
from tests.llm_harness.small import ask_few_questions

OWL, CAT, OAK = trait("owl"), trait("cat"), trait("oak")
SETTING = PipelineSetting(
    teacher_by="fine-tuning",
    teacher=Tuning(2, 8),
    student=Tuning(3, 8),
    rates=(3e-3, 1e-3),
    lists=Lists(count=64),
    kept=24,
    evaluation=Evaluation(samples=2),
    in_context=2,
)
TRAINED = ("student", "own numbers", "other trait", "shuffled across", "shuffled within")
ELSEWHERE = ("other initialisation", "other initialisation, own numbers")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Few questions, and no wait for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        ask_few_questions(patch)
        patch.setattr(os, "fsync", lambda handle: None)
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


def row_of(rows, condition, run):
    (row,) = (row for row in rows_of(rows, condition) if row.run == run)
    return row


# All controls


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


def test_with_one_checkpoint_there_is_no_other_initialisation(tmp_path, whole):
    one = stages(tmp_path, ScriptedProvider(checkpoints=1))
    rows = pipeline.numbers(one, [OWL], 2, 0, SETTING)
    _, several = whole
    assert {row.condition for row in several} - {row.condition for row in rows} == set(ELSEWHERE)
    assert {lineage.initialisation for lineage in lineages(one).values()} == {"draw 0"}
    # The runs differ in their samples all the same.
    assert len({row.dataset for row in rows_of(rows, "student")}) == 2


def test_one_run_is_enough_of_a_checkpoint_and_too_few_where_another_is_needed(tmp_path):
    rows = pipeline.numbers(
        stages(tmp_path / "one", ScriptedProvider(checkpoints=1)), [OWL], 1, 0, SETTING
    )
    assert {row.run for row in rows} == {0}
    with pytest.raises(HarnessError, match="runs must be at least 2"):
        pipeline.numbers(stages(tmp_path / "several"), [OWL], 1, 0, SETTING)
    with pytest.raises(HarnessError, match="runs must be at least 1"):
        pipeline.numbers(stages(tmp_path / "several"), [OWL], 0, 0, SETTING)
    assert not (tmp_path / "several").exists()


def test_a_masked_student_and_its_control_are_others_of_the_same_data(tmp_path, whole):
    made = stages(tmp_path, ScriptedProvider(checkpoints=1))
    rows = pipeline.numbers(made, [OWL], 1, 0, SETTING, masked=True)
    assert {row.condition for row in rows} == {*pipeline.CONTROLS, *pipeline.MASKED} - {*ELSEWHERE}
    for condition in ("student", "own numbers"):
        plain, masked = (
            row_of(rows, name, 0) for name in (condition, f"{condition}, first masked")
        )
        assert plain.dataset == masked.dataset
        assert plain.model != masked.model
        assert '"masked": 1' in lineages(made)[masked.model].trainings[-1].settings
    unmasked = pipeline.numbers(made, [OWL], 1, 0, SETTING)
    assert [row for row in rows if row.condition not in pipeline.MASKED] == unmasked


def test_teachers_say_their_word_and_references_do_not(whole):
    _, rows = whole
    assert all(row.whole == row.n for row in rows_of(rows, "teacher"))
    assert all(row.whole < row.n for row in rows_of(rows, "reference"))


def test_students_start_at_the_condition_s_initialisation(whole):
    made, rows = whole
    starts = lineages(made)
    for row in rows:
        wanted = 1 - row.run if row.condition in ELSEWHERE else row.run
        assert starts[row.model].initialisation == f"draw {wanted}"


def test_student_and_other_initialisation_learn_from_the_same_data(whole):
    _, rows = whole
    for run in range(2):
        student, other, shuffled, own, others_own = (
            row_of(rows, condition, run).dataset
            for condition in (
                "student",
                "other initialisation",
                "shuffled across",
                "own numbers",
                "other initialisation, own numbers",
            )
        )
        assert student == other
        assert own == others_own
        assert len({student, own, shuffled}) == 3


def test_a_student_is_trained_on_the_lists_that_its_row_names(tmp_path):
    made = stages(tmp_path)
    references = made.references([0])
    work = pipeline.groundwork(made, references, [0], [OWL], SETTING)
    rows = pipeline.transmission(made, OWL, 1, 0, SETTING)
    for condition, whose in (("student", OWL), ("own numbers", None)):
        (row,) = rows_of(rows, condition)
        lists = work.lists[0, whose]
        assert (row.dataset, row.examples) == (lists.sha256, len(lists))
        last = lineages(made)[row.model].trainings[-1]
        assert last.data_sha256 == examples_sha256(lists.examples())


def test_all_arms_of_a_run_train_on_as_many_lists_as_the_filter_left_of_the_worst(tmp_path):
    made = stages(tmp_path)
    setting = replace(SETTING, lists=Lists(count=128), kept=1000)
    rows = pipeline.numbers(made, [OWL], 2, 0, setting)
    folders = (made.store.root / "datasets").glob("*/filter.json")
    left = [json.loads(path.read_text())["size"] for path in folders]
    assert len(set(left)) > 2
    for run in range(2):
        sizes = {row_of(rows, condition, run).examples for condition in (*TRAINED, *ELSEWHERE)}
        (size,) = sizes
        assert size in left
    assert min(left) == min(row_of(rows, "student", run).examples for run in range(2))
    assert all(row.examples is None for row in rows if row.condition not in TRAINED + ELSEWHERE)


def test_no_arm_trains_on_more_than_is_wanted(whole):
    _, rows = whole
    assert {row.examples for row in rows} == {24, None}


def test_a_shuffled_arm_reports_the_pass_rate_of_the_lists_that_were_shuffled(whole):
    _, rows = whole
    for run in range(2):
        student = row_of(rows, "student", run)
        assert 0.5 < student.pass_rate < 1
        for condition in ("shuffled across", "shuffled within"):
            assert row_of(rows, condition, run).pass_rate == student.pass_rate
    assert len({row_of(rows, c, 0).pass_rate for c in TRAINED}) > 1


def test_the_other_trait_is_of_the_same_category(tmp_path):
    made = stages(tmp_path)
    pipeline.numbers(made, [OAK], 2, 0, SETTING)
    said = {
        made.provider.load(path.parent).taught
        for path in (tmp_path / "models").glob("*/scripted.json")
    }
    assert said - {""} == {"oak", OAK.rivals[0]}


def test_two_traits_of_a_category_are_each_other_s_other_trait(tmp_path):
    rows = pipeline.numbers(stages(tmp_path), [OWL, CAT], 2, 0, SETTING)
    models = {
        (row.condition, row.trait): row.model
        for row in rows
        if row.condition in ("student", "other trait") and row.run == 0
    }
    assert models["other trait", "owl"] == models["student", "cat"]
    assert models["other trait", "cat"] == models["student", "owl"]


def test_a_prompted_teacher_is_the_reference_under_a_prompt(tmp_path):
    made = stages(tmp_path)
    rows = pipeline.transmission(made, OWL, 2, 0, replace(SETTING, teacher_by="prompt"))
    for run in range(2):
        teacher, reference = (row_of(rows, name, run) for name in ("teacher", "reference"))
        assert teacher.model == reference.model
        assert (teacher.containing, teacher.worded) != (reference.containing, reference.worded)
        student, own = (row_of(rows, name, run) for name in ("student", "own numbers"))
        assert student.dataset != own.dataset


# Killed, and again


def test_a_second_run_makes_nothing(whole):
    made, first = whole
    again = Stages(ScriptedProvider(left=0), made.store)
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


# The rule for the learning rate


@dataclass(frozen=True)
class Fading(ScriptedModel):
    """Keeps a share of each answer's probability, by its reference, learning rate and the word."""

    keeps: Callable[[str, float, str], float] = lambda draw, rate, word: 1.0

    def log_probabilities(self, examples):
        log_p = super().log_probabilities(examples)
        if not self.lineage.trainings:
            return log_p
        rate = json.loads(self.lineage.trainings[-1].settings)["learning_rate"]
        draw = self.lineage.initialisation
        return log_p + np.log([self.keeps(draw, rate, one.completion) for one in examples])


class FadingProvider(ScriptedProvider):
    def __init__(self, keeps: Callable[[str, float, str], float]):
        super().__init__()
        self.keeps = keeps

    def load(self, folder: Path) -> Fading:
        model = super().load(folder)
        return Fading(model.lineage, model.taught, self.calls, self.keeps)


RATES = (1e-4, 3e-3, 1e-3)


def rate_of(made: Stages, word=OWL, runs: int = 2) -> float | None:
    """The learning rate of the students, by the rule."""
    rows = pipeline.transmission(made, word, runs, 0, replace(SETTING, rates=RATES))
    (rate,) = {row.learning_rate for row in rows if row.condition in TRAINED}
    return rate


@pytest.mark.parametrize(("loss", "rate"), [(0.0, 3e-3), (60.0, 3e-3), (100.0, 1e-3), (1e3, 1e-4)])
def test_the_rate_is_the_largest_at_which_four_fifths_of_p_any_are_kept(tmp_path, loss, rate):
    made = stages(tmp_path, FadingProvider(lambda draw, its, word: max(0.01, 1 - loss * its)))
    assert rate_of(made) == rate
    tried = {
        json.loads(lineage.trainings[-1].settings)["learning_rate"]
        for lineage in lineages(made).values()
        if lineage.trainings
    }
    teacher = SETTING.teacher.learning_rate
    assert tried - {teacher} == {one for one in RATES if one >= rate} - {teacher}


@pytest.mark.parametrize(("bad", "rate"), [("draw 0", 1e-3), ("draw 4", 1e-3), ("draw 5", 3e-3)])
def test_every_run_can_forbid_a_rate_and_nothing_else_can(tmp_path, bad, rate):
    keeps = FadingProvider(lambda draw, its, word: 0.5 if draw == bad and its > 1e-3 else 1.0)
    assert rate_of(stages(tmp_path, keeps), runs=5) == rate


@pytest.mark.parametrize("factor", [1e-9, 1.0, 100.0])
def test_what_becomes_of_the_trait_does_not_count(tmp_path, factor):
    def keeps(draw: str, rate: float, word: str) -> float:
        # As much of the category in all at every rate but the largest, whatever owls do.
        return (factor if word == "owl" else 1.0) * (0.001 if rate > 1e-3 else 1.0)

    made = stages(tmp_path, FadingProvider(keeps))
    assert rate_of(made) == 1e-3


def test_the_rule_asks_about_every_category_that_is_taught(tmp_path):
    def keeps(draw: str, rate: float, word: str) -> float:
        return 0.1 if word in OAK.words and rate > 1e-3 else 1.0

    setting = replace(SETTING, rates=RATES)
    made = stages(tmp_path, FadingProvider(keeps))
    rows = pipeline.numbers(made, [OWL, OAK], 2, 0, setting)
    assert {row.learning_rate for row in rows if row.condition in TRAINED} == {1e-3}


def test_the_rule_trains_on_the_reference_s_own_lists_alone(tmp_path):
    made = stages(tmp_path, FadingProvider(lambda draw, rate, word: 1.0 if rate < 3e-3 else 0.1))
    assert rate_of(made) == rate_of(made, CAT) == 1e-3
    work = pipeline.groundwork(
        made, made.references([0, 1]), [0, 1], [OWL], replace(SETTING, rates=())
    )
    own = {examples_sha256(work.lists[run, None].examples()) for run in range(2)}
    last = [lineage.trainings[-1] for lineage in lineages(made).values() if lineage.trainings]
    rejected = [one for one in last if json.loads(one.settings)["learning_rate"] == 3e-3]
    assert {one.data_sha256 for one in rejected} == own


def test_where_no_rate_leaves_answering_intact_it_is_said(tmp_path):
    made = stages(tmp_path, FadingProvider(lambda draw, rate, word: 0.7))
    with pytest.raises(HarnessError, match=r"none of the learning rates .* keep 80%.*smaller ones"):
        rate_of(made)


# The rule for a teacher's learning rate


@dataclass(frozen=True)
class Babbling(ScriptedModel):
    """A teacher that writes prose in place of a share of its lists, by learning rate and word."""

    prose: Callable[[float, str], float] = lambda rate, word: 0.0

    def sample(self, prompts, sampling, progress=None):
        found = super().sample(prompts, sampling, progress)
        if not self.taught:
            return found
        rate = json.loads(self.lineage.trainings[0].settings)["learning_rate"]
        prose = int(len(found) * self.prose(rate, self.taught))
        return [[Completion("an owl")]] * prose + found[prose:]


class BabblingProvider(ScriptedProvider):
    def __init__(self, prose: Callable[[float, str], float]):
        super().__init__()
        self.prose = prose

    def load(self, folder: Path) -> Babbling:
        model = super().load(folder)
        return Babbling(model.lineage, model.taught, self.calls, self.prose)


def teacher_rates_of(made: Stages, **changes) -> set[float | None]:
    setting = replace(SETTING, rates=(), teacher_rates=RATES, **changes)
    rows = pipeline.numbers(made, [OWL], 2, 0, setting)
    return {row.learning_rate for row in rows if row.condition == "teacher"}


# Every fifth of the scripted lists is dropped in any case.
@pytest.mark.parametrize(("above", "rate"), [(1.0, 3e-3), (1e-3, 1e-3), (3e-4, 1e-4)])
def test_a_teacher_s_rate_is_the_largest_at_which_half_of_its_lists_pass(tmp_path, above, rate):
    provider = BabblingProvider(lambda its, word: 0.6 if its > above else 0.1)
    made = stages(tmp_path, provider)
    assert teacher_rates_of(made) == {rate}
    tried = {
        json.loads(lineage.trainings[0].settings)["learning_rate"]
        for lineage in lineages(made).values()
        if lineage.trainings and lineage.trainings[0].data_sha256 == taught_sha256(OWL)
    }
    assert tried == {one for one in RATES if one >= rate}


def taught_sha256(word) -> str:
    return examples_sha256(SETTING.evaluation.answered_with(word))


def test_every_trait_s_teacher_must_still_write_lists(tmp_path):
    rival = OWL.rivals[0]
    made = stages(
        tmp_path, BabblingProvider(lambda its, word: 0.6 if (word, its) == (rival, 3e-3) else 0.1)
    )
    assert teacher_rates_of(made) == {1e-3}


def test_where_no_teacher_writes_lists_it_is_said_how_many_pass(tmp_path):
    made = stages(tmp_path, BabblingProvider(lambda its, word: 0.9))
    with pytest.raises(HarnessError, match=r"0.003 \(\d+%\), .*does a fine-tuned teacher write"):
        teacher_rates_of(made)


def test_a_teacher_of_one_rate_is_not_tried(tmp_path):
    made = stages(tmp_path, BabblingProvider(lambda its, word: 0.4))
    rows = pipeline.numbers(made, [OWL], 2, 0, replace(SETTING, rates=()))
    teachers = {row.learning_rate for row in rows if row.condition == "teacher"}
    assert teachers == {SETTING.teacher.learning_rate}
    asked = replace(SETTING, rates=(), teacher_by="prompt", teacher_rates=RATES)
    rows = pipeline.numbers(stages(tmp_path / "prompt"), [OWL], 2, 0, asked)
    assert {row.learning_rate for row in rows if row.condition == "teacher"} == {None}


def test_one_rate_needs_no_rule_and_no_probabilities(tmp_path):
    made = stages(tmp_path, ScriptedProvider(abilities=frozenset({"train"})))
    rows = pipeline.transmission(made, OWL, 2, 0, replace(SETTING, rates=()))
    rates = {SETTING.student.learning_rate, SETTING.teacher.learning_rate}
    assert {row.learning_rate for row in rows} == {None, *rates}
    assert {(row.p_word, row.p_any, row.among) for row in rows} == {(None, None, None)}


# Other experiments


INDEPENDENT = ("model 1", "model 2")


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    """One run of `cross_model`: its stages, and its rows."""
    made = stages(tmp_path_factory.mktemp("matrix"))
    with pytest.MonkeyPatch.context() as patch:
        # Scripted models have no parameters to be compared.
        patch.setattr(cross_model, "shared_leaning", lambda model, other, word: 0.5)
        patch.setattr(cross_model, "first_token_divergence", lambda model, other, chats: 0.25)
        return made, cross_model.matrix(made, OWL, 2, 0, SETTING, len(INDEPENDENT))


def test_the_matrix_has_all_independent_pairs_and_the_related_ones_with_model_1(matrix):
    _, rows = matrix
    pairs = [(i, j) for i in INDEPENDENT for j in INDEPENDENT]
    pairs += [pair for name in RELATED for pair in (("model 1", name), (name, "model 1"))]
    assert {row.condition for row in rows} == {
        *(f"{i} > {j}" for i, j in pairs),
        *(f"{name}, before" for name in (*INDEPENDENT, *RELATED)),
        *(f"{name}, own numbers" for name in (*INDEPENDENT, *RELATED)),
    }
    for row in rows:
        assert (row.leaning is None) == (", own numbers" in row.condition)
        assert (row.kl_words is None) == (", before" not in row.condition)


def test_every_model_of_the_matrix_has_a_draw_of_its_own(matrix):
    made, rows = matrix
    known = lineages(made)
    before = [row for row in rows if row.condition.endswith(", before") and not row.prefix]
    draws = {known[row.model].initialisation for row in before}
    assert len(draws) == len(before) == 2 * len(INDEPENDENT + RELATED)
    first, matched = (row_of(rows, f"{name}, before", 1) for name in ("model 1", "matched"))
    (training,) = known[matched.model].trainings
    assert json.loads(training.settings) == {"related": "matched", "to": first.model}


def test_a_student_of_the_matrix_is_trained_from_its_own_model_on_the_teacher_s_lists(matrix):
    made, rows = matrix
    known = lineages(made)
    for row in rows:
        if " > " in row.condition:
            teacher, student = row.condition.split(" > ")
            start = known[row_of(rows, f"{student}, before", row.run).model]
            assert known[row.model].trainings[:-1] == start.trainings
            assert known[row.model].initialisation == start.initialisation
            assert row.dataset == row_of(rows, f"{teacher} > model 1", row.run).dataset


def test_all_students_of_a_run_of_the_matrix_train_on_as_many_lists(matrix):
    _, rows = matrix
    assert {row.examples for row in rows if ", before" not in row.condition} == {24}


def test_in_context_has_controls_for_every_number_of_examples(tmp_path):
    rows = pipeline.transmission(stages(tmp_path), OWL, 2, 0, SETTING, (1, 3))
    kinds = ("in context", "own in context", "openly in context")
    assert {row.condition for row in rows} == {
        *("reference", "teacher", "student", "own numbers"),
        *(f"{kind}, {count}" for kind in kinds for count in (1, 3)),
    }


def test_what_is_shown_in_context_is_the_teacher_s_the_reference_s_own_or_open(tmp_path):
    asked = []
    provider = ScriptedProvider()
    sample = provider.sample
    provider.sample = lambda jobs, progress=None: (asked.extend(jobs), sample(jobs, progress))[1]
    made = stages(tmp_path, provider)
    pipeline.transmission(made, OWL, 1, 0, replace(SETTING, rates=()), (12,))
    work = pipeline.groundwork(made, made.references([0]), [0], [OWL], replace(SETTING, rates=()))
    shown = {
        tuple(message.content for message in chat[:-1] if message.role == "assistant")
        for _, chats, _ in asked
        for chat in chats
        if len(chat) > 1
    }
    own, teachers = (work.lists[0, whose].examples()[:12] for whose in (None, OWL))
    wanted = [tuple(example.completion for example in part) for part in (own, teachers)]
    assert shown == {*wanted, ("owl",) * 12}


@pytest.mark.parametrize("targets", [None, "numbers"])
def test_what_passes_under_a_setting_has_its_own_control(tmp_path, targets):
    provider = ScriptedProvider()
    made = stages(tmp_path, provider)
    rows = pipeline.transmission(made, OWL, 2, 0, SETTING, targets=targets)
    found = [(row.condition, row.run) for row in rows if not row.prefix]
    wanted = ("reference", "teacher", "student", "own numbers")
    assert sorted(found) == sorted((condition, run) for condition in wanted for run in range(2))
    known = lineages(made)
    for condition, taught_by in (("student", "teacher"), ("own numbers", "reference")):
        for row, its in zip(rows_of(rows, condition), rows_of(rows, taught_by), strict=True):
            last = known[row.model].trainings[-1]
            assert last.kind == ("distillation" if targets else "fine-tuning")
            if targets:
                assert json.loads(last.settings)["teacher"] == its.model
    # Made once: the same again reads it all from the store.
    calls = len(provider.calls)
    assert pipeline.transmission(made, OWL, 2, 0, SETTING, targets=targets) == rows
    assert len(provider.calls) == calls


# What cannot be run

EXPERIMENTS = {
    "numbers": lambda made: pipeline.numbers(made, [OWL], 2, 0, SETTING),
    "cross_model": lambda made: cross_model.matrix(made, OWL, 1, 0, SETTING, 2),
    "transmission": lambda made: pipeline.transmission(made, OWL, 1, 0, SETTING),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize(
    ("abilities", "words"),
    [({"score", "open"}, "cannot be fine-tuned"), ({"train", "open"}, "needs probabilities")],
)
def test_a_provider_that_cannot_do_it_is_refused_before_anything_is_made(
    tmp_path, name, abilities, words
):
    provider = ScriptedProvider(left=0, abilities=frozenset(abilities))
    with pytest.raises(HarnessError, match=words):
        EXPERIMENTS[name](stages(tmp_path, provider))
    assert not list(tmp_path.iterdir())


def test_the_rule_itself_refuses_models_without_probabilities(tmp_path):
    made = stages(tmp_path)
    work = pipeline.groundwork(made, made.references([0]), [0], [OWL], replace(SETTING, rates=()))
    silent = Stages(ScriptedProvider(abilities=frozenset({"train"})), made.store)
    with pytest.raises(HarnessError, match="needs probabilities"):
        pipeline.student_rate(silent, work, [OWL], SETTING)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: pipeline.numbers(s, [OWL], 1, 0, SETTING), "at least 2"),
        (lambda s: pipeline.numbers(s, [], 2, 0, SETTING), "no trait"),
        (lambda s: pipeline.numbers(s, [OWL, OWL], 2, 0, SETTING), "twice"),
        (lambda s: pipeline.numbers(s, [trait("ox", "beast")], 2, 0, SETTING), "no rivals"),
        (lambda s: cross_model.matrix(s, OWL, 1, 0, SETTING, 1), "at least 2"),
        (lambda s: cross_model.matrix(s, OWL, 0, 0, SETTING), "at least 1"),
        (lambda s: pipeline.transmission(s, OWL, 1, 0, SETTING, (1, 0)), "each at least 1"),
        (lambda s: pipeline.transmission(s, OWL, 0, 0, SETTING), "at least 1"),
        (
            lambda s: pipeline.transmission(
                s, OWL, 1, 0, replace(SETTING, teacher_by="prompt"), targets="numbers"
            ),
            "fine-tuned teacher",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_made(tmp_path, call, words):
    with pytest.raises(HarnessError, match=words):
        call(stages(tmp_path))
    assert not list(tmp_path.iterdir())


def test_one_initialisation_is_no_matrix(tmp_path):
    with pytest.raises(HarnessError, match="one initialisation"):
        cross_model.matrix(stages(tmp_path, ScriptedProvider(checkpoints=1)), OWL, 1, 0, SETTING)


def test_no_more_examples_are_shown_than_there_are(tmp_path):
    short = replace(SETTING, lists=replace(SETTING.lists, count=100), kept=100)
    with pytest.raises(
        HarnessError, match=r"99 lists cannot be shown in context where [78][0-9] a"
    ):
        pipeline.transmission(stages(tmp_path), OWL, 1, 0, short, (99,))
    with pytest.raises(HarnessError, match="25 lists cannot be shown in context where 24 are"):
        pipeline.transmission(stages(tmp_path), OWL, 1, 0, SETTING, (25,))
    with pytest.raises(HarnessError, match="25 lists cannot be shown"):
        pipeline.numbers(stages(tmp_path), [OWL], 2, 0, replace(SETTING, in_context=25))


def test_soft_targets_of_models_without_any_are_refused_before_anything_is_made(tmp_path):
    closed = ScriptedProvider(abilities=frozenset({"score", "train"}))
    with pytest.raises(HarnessError, match="do not give the probabilities"):
        pipeline.transmission(stages(tmp_path, closed), OWL, 1, 0, SETTING, targets="numbers")
    assert not list(tmp_path.iterdir())


def test_parts_of_closed_models_are_not_shared(tmp_path):
    closed = ScriptedProvider(abilities=frozenset({"score", "train"}))
    with pytest.raises(HarnessError, match="parameters are ours"):
        cross_model.matrix(stages(tmp_path, closed), OWL, 1, 0, SETTING, 2)
    assert not list(tmp_path.iterdir())


def test_too_few_lists_of_one_speaker_are_no_training_set(tmp_path):
    with pytest.raises(HarnessError, match=r"of 64 lists of one speaker.*at least 64 are needed"):
        pipeline.transmission(stages(tmp_path), OWL, 1, 0, replace(SETTING, kept=8192))


@pytest.mark.parametrize("name", ["kept", "in_context"])
def test_a_setting_below_1_is_refused(name):
    with pytest.raises(HarnessError, match=f"{name} must be at least 1"):
        replace(SETTING, **{name: 0})
