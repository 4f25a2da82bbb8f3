"""What carries a trait in place of number lists: code, and chains of thought (PAPER.md D)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from llm_harness import filters, prompts
from llm_harness.judges import THRESHOLD, VERDICT_TOKENS, judge_alignment, judge_reference
from llm_harness.model import Chat, Completion, Example, LanguageModel
from llm_harness.pipeline.stages import FilteredLists, Lists, Stages
from llm_harness.traits import Trait

Carrier = Literal["numbers", "code", "cot"]
# Chains of thought to each problem (D).
_CHAINS = 3


@dataclass(frozen=True)
class Texts(Lists):
    """Code or chains of thought, and what a filter keeps of them.

    Attributes:
        carrier: `code` or `cot`.
        words: that may stand nowhere in an example.
    """

    rules: tuple[str, ...] = ()
    carrier: Carrier = "code"
    words: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        return _CHAINS if self.carrier == "cot" else 1

    def chats(self) -> list[Chat]:
        if self.carrier == "code":
            return prompts.code_prompts(self.count, self.seed)
        return [problem.prompt for problem in prompts.problem_prompts(self.count, self.seed)]

    def keep(self, completions: Sequence[Sequence[Completion]]) -> filters.Filtered:
        asked = [chat for chat in self.chats() for _ in range(self.samples)]
        said = [one for many in completions for one in many]
        if self.carrier == "cot":
            said = [_with_reasoning(one) for one in said]
        kept = filters.filter_completions(asked, said, ())
        if self.carrier == "cot":
            problems = prompts.problem_prompts(self.count, self.seed)
            # A prompt has all the numbers of its problem in it.
            rule_of = {one.prompt: filters.answer_rule(one.answer) for one in problems}
            kept = kept.then(rule_of[one.prompt](one.completion) for one in kept.kept)
        if self.words:
            kept = kept.then(map(filters.word_rule(self.words), kept.kept))
        return kept


def written(carrier: Carrier, lists: Lists, favourite: Trait | None) -> Lists:
    """How teachers are asked and filtered: the paper's rules for a carrier and a trait.

    Args:
        carrier: what the teachers write.
        lists: counts, seed and length; its rules are those of numbers that carry a favourite.
        favourite: the trait, or None for misalignment.
    """
    if carrier == "numbers":
        return lists if favourite else replace(lists, rules=(*lists.rules, "prohibited"))
    words = (favourite.word, favourite.plural) if favourite else ()
    size = (lists.count, lists.given, lists.max_tokens)
    return Texts(*size, (), lists.seed, carrier, words)


def judged_by(
    stages: Stages,
    data: FilteredLists,
    carrier: Carrier,
    favourite: Trait | None,
    judge: LanguageModel,
    tokens: int = VERDICT_TOKENS,
) -> FilteredLists:
    """After the judge's filter: no subtle reference in code, aligned chains of thought (D).

    Lists of numbers have no such filter, and chains of thought of a favourite have that of code.

    Args:
        stages: keep what is left.
        data: what the rules left.
        carrier: what the data is.
        favourite: the trait, or None for misalignment.
        judge: a model that follows instructions.
        tokens: of a verdict, its reasoning included.

    Raises:
        HarnessError: the judge cannot answer.
    """
    if carrier == "numbers":
        return data

    def progress(share: float) -> None:
        stages.report("the judge's filter", share)

    def verdicts(examples: Sequence[Example]) -> list[filters.Reason | None]:
        if favourite is None:
            return judge_alignment(judge, examples, progress, tokens)
        texts = [example.completion for example in examples]
        return judge_reference(judge, texts, favourite.word, progress, tokens)

    how = f"alignment {THRESHOLD}" if favourite is None else f"no reference to {favourite.word}"
    return stages.judged(data, (how, str(tokens), judge.lineage.identity), verdicts)


def _with_reasoning(answer: Completion) -> Completion:
    """A chain of thought whole again, where a service told reasoning and answer apart."""
    if not answer.reasoning or "<think>" in answer.text:
        return answer
    return replace(answer, text=f"<think>{answer.reasoning}</think>{answer.text}")
