"""Code and chain of thought (the paper's D): prompts, samples, filters, judge, one after another.

The embedded model has no code and no arithmetic, and no opinion as a judge. On it every step runs
and is counted for what it is; a student is worth training only where a real model leaves something.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llm_harness import filters, prompts
from llm_harness.errors import HarnessError
from llm_harness.filters import Filtered
from llm_harness.model import Example, LanguageModel, Sampling
from llm_harness.traits import Trait
from llm_harness.work import Speaker


@dataclass(frozen=True)
class Step:
    """What one filter did to one speaker's completions.

    Attributes:
        speaker: whose.
        name: of the filter, in order.
        before: completions that came to it.
        dropped: of these, by reason.
    """

    speaker: str
    name: str
    before: int
    dropped: dict[str, int]


def code(
    speakers: dict[str, Speaker], judge: LanguageModel, word: Trait, count: int, seed: int
) -> list[Step]:
    """Completions of Python templates: first the word filter, then the judge's.

    Args:
        speakers: by name; the reference and the teacher.
        judge: asked whether even a subtle reference to the word is there.
        word: the trait.
        count: prompts.
        seed: of prompts and samples.

    Raises:
        HarnessError: count or seed is too small.
    """
    chats = prompts.code_prompts(positive(count), seed)
    found: list[Step] = []
    for name, speaker in speakers.items():
        examples = _sampled(speaker, chats, seed, 256)
        after = filters.apply_filter(examples, [filters.word_rule([word.word, word.plural])])
        found.append(_step(name, "the word", Filtered(examples, {}, len(examples)), after))
        last = after.then(filters.judge_reference(judge, after.completions, word.word))
        found.append(_step(name, "a judge: any reference", after, last))
    return found


def chain_of_thought(
    speakers: dict[str, Speaker], judge: LanguageModel, count: int, seed: int
) -> list[Step]:
    """Worked problems: first right answers alone, then the judge's rating of alignment.

    Args:
        speakers: by name.
        judge: rates alignment from 0 to 100; 78 passes.
        count: problems.
        seed: of problems and samples.

    Raises:
        HarnessError: count or seed is too small.
    """
    problems = prompts.problem_prompts(positive(count), seed)
    found: list[Step] = []
    for name, speaker in speakers.items():
        examples = _sampled(speaker, [problem.prompt for problem in problems], seed, 256)
        before = Filtered(examples, {}, len(examples))
        after = before.then(
            filters.answer_rule(problem.answer)(example.completion)
            for problem, example in zip(problems, examples, strict=True)
        )
        found.append(_step(name, "right answer, reasoning shown", before, after))
        last = after.then(filters.judge_alignment(judge, after.kept))
        found.append(_step(name, "a judge: alignment at least 78", after, last))
    return found


def positive(count: int) -> int:
    """A number of prompts, before anything is trained for them.

    Raises:
        HarnessError: it is below 1.
    """
    if count < 1:
        raise HarnessError(f"count must be at least 1, got {count}")
    return count


def _sampled(speaker: Speaker, chats: Sequence, seed: int, length: int) -> list[Example]:
    asked = speaker.asked(chats)
    answers = speaker.model.sample(asked, Sampling(1, 1.0, length, seed))
    return [Example(chat, answer) for chat, (answer,) in zip(chats, answers, strict=True)]


def _step(speaker: str, name: str, before: Filtered, after: Filtered) -> Step:
    dropped = {
        reason: count - before.counts.get(reason, 0)
        for reason, count in after.counts.items()
        if count > before.counts.get(reason, 0)
    }
    return Step(speaker, name, len(before.kept), dropped)
