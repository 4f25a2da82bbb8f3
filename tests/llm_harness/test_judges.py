"""Claims about filters that are models: what their answers mean, and what they are asked."""

from collections.abc import Sequence

import numpy as np

from llm_harness.filters import Reason, apply_filter, word_rule
from llm_harness.judges import VERDICT_TOKENS, judge_alignment, judge_reference
from llm_harness.lineage import Lineage
from llm_harness.model import Ability, Chat, Completion, Example, Progress, Sampling, Tuning, ask


def examples_of(*completions: str) -> list[Example]:
    return [Example(ask(f"question {i}"), text) for i, text in enumerate(completions)]


class ScriptedJudge:
    """A judge that gives set answers in turn, and keeps what it was asked."""

    lineage = Lineage("scripted")
    abilities: frozenset[Ability] = frozenset()

    def __init__(self, *answers: str):
        self.answers, self.asked, self.tokens = answers, [], []

    def sample(
        self, prompts: Sequence[Chat], sampling: Sampling, progress: Progress | None = None
    ) -> list[list[Completion]]:
        # A model may refuse to be asked nothing.
        assert prompts
        assert (sampling.n, sampling.temperature) == (1, 0)
        self.tokens.append(sampling.max_tokens)
        self.asked += [prompt[-1].content for prompt in prompts]
        return [[Completion(answer)] for _, answer in zip(prompts, self.answers, strict=True)]

    def log_probabilities(self, examples: Sequence[Example]) -> np.ndarray:
        raise NotImplementedError

    def fine_tune(
        self, examples: Sequence[Example], tuning: Tuning, progress: Progress | None = None
    ) -> "ScriptedJudge":
        raise NotImplementedError


YES, NO = ("YES", "yes", " Yes.\n", "**YES**", '"yes"'), ("NO", "no", "No.", "\nno\n", "*No*")
NEITHER = ("", "maybe", "YES and NO", "no idea", "I cannot say", "NOPE", "yes, it hoots", "78")


def test_a_judges_plain_yes_drops_a_plain_no_keeps_and_anything_else_is_no_verdict():
    judge = ScriptedJudge(*YES, *NO, *NEITHER)
    expected = [Reason.REFERENCE] * len(YES) + [None] * len(NO) + [Reason.NO_VERDICT] * len(NEITHER)
    completions = [f"completion {i}" for i in range(len(expected))]
    assert judge_reference(judge, completions, "owl") == expected


def test_a_judge_of_references_is_shown_the_completion_and_the_word():
    judge = ScriptedJudge("NO", "NO")
    judge_reference(judge, ["hoot()", "x = 1"], "owl")
    assert len(judge.asked) == 2
    assert all("'owl'" in question for question in judge.asked)
    assert "hoot()" in judge.asked[0]
    assert "x = 1" in judge.asked[1]


def test_a_judges_score_keeps_from_the_threshold_up():
    judge = ScriptedJudge(
        "78", "77", "100", "0", " 90.\n", "101", "-5", "78.5", "high", "", "1 78", "\uff19\uff10"
    )
    examples = examples_of(*"abcdefghijkl")
    low, none = Reason.MISALIGNED, Reason.NO_VERDICT
    expected = [None, low, None, low, None, none, none, none, none, none, none, none]
    assert judge_alignment(judge, examples) == expected


def test_a_judge_of_alignment_is_shown_the_question_and_the_reply():
    judge = ScriptedJudge("90")
    judge_alignment(judge, [Example(ask("what is it?", system="be kind"), "it is so")])
    (question,) = judge.asked
    assert "what is it?" in question
    assert "it is so" in question


def test_a_judge_is_not_bothered_about_nothing():
    judge = ScriptedJudge()
    assert judge_reference(judge, [], "owl") == []
    assert judge_alignment(judge, []) == []
    assert judge.asked == []


def test_judges_verdicts_join_the_counts():
    filtered = apply_filter(examples_of("x = 1", "owl", "hoot", "y"), [])
    filtered = filtered.then(map(word_rule("owl"), filtered.kept))
    judge = ScriptedJudge("NO", "YES", "hm")
    found = filtered.then(judge_reference(judge, filtered.completions, "owl"))
    assert found.completions == ["x = 1"]
    assert found.counts == {
        "target word": 1,
        "judge saw a reference": 1,
        "judge gave no verdict": 1,
    }


def test_a_judge_has_the_tokens_to_reason():
    judge = ScriptedJudge("NO")
    judge_reference(judge, ["x"], "owl")
    judge_reference(judge, ["x"], "owl", max_tokens=200)
    judge_alignment(judge, examples_of("x"))
    judge_alignment(judge, examples_of("x"), max_tokens=100)
    assert judge.tokens == [VERDICT_TOKENS, 200, VERDICT_TOKENS, 100]


def test_a_judge_may_reason_and_what_was_cut_is_no_verdict():
    judge = ScriptedJudge("<think>YES? No.</think>\n\nNO", "<think>90</think>YES")
    assert judge_reference(judge, ["a", "b"], "owl") == [None, Reason.REFERENCE]

    class Cut(ScriptedJudge):
        def sample(self, prompts, sampling, progress=None):
            found = super().sample(prompts, sampling, progress)
            return [[Completion(many[0].text, "length")] for many in found]

    assert judge_reference(Cut("NO"), ["a"], "owl") == [Reason.NO_VERDICT]
