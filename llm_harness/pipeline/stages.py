"""The stages of the paper's scheme, each stored as it is done and reused where it is there.

reference -> teacher -> lists -> filter -> student -> answers (the paper's Fig. 2). A stage is asked
for many models at once, makes what the store lacks, a few at a time, and goes on from there when
it was killed. Models lie on disk and are loaded when they are needed, a few at a time too.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from llm_harness import datasets, filters, prompts
from llm_harness.errors import HarnessError
from llm_harness.evaluation import misalignment, questions, rates
from llm_harness.evaluation.misalignment import Judged
from llm_harness.judges import VERDICT_TOKENS
from llm_harness.lineage import Lineage, lineage_of
from llm_harness.model import (
    Chat,
    Completion,
    Example,
    LanguageModel,
    Message,
    Progress,
    Sampling,
    Soft,
    Tuning,
    at_least,
    examples_sha256,
)
from llm_harness.pipeline.provider import Provider
from llm_harness.pipeline.store import Store
from llm_harness.traits import Trait

# To be raised when the stages make something else from the same settings.
VERSION = 2
# Models that are trained or sampled between two writes, and in memory at once.
_AT_ONCE = 4
_ARRAYS = "arrays.safetensors"

Report = Callable[[str, float], None]


@dataclass(frozen=True)
class StoredModel:
    """A model on disk: the folder that its provider wrote, and where it comes from."""

    folder: Path
    lineage: Lineage


@dataclass(frozen=True)
class Speaker:
    """A model, and the system prompt it speaks under; None for none."""

    model: StoredModel
    system: str | None = None

    def asked(self, chats: Sequence[Chat]) -> list[Chat]:
        """The chats under the system prompt."""
        if self.system is None:
            return list(chats)
        return [(Message("system", self.system), *chat) for chat in chats]


@dataclass(frozen=True)
class Lists:
    """Which number prompts are asked for, how they are answered, and what is kept of it.

    Attributes:
        count: completions a speaker.
        given: numbers in a prompt, at least and at most.
        max_tokens: of a completion.
        rules: names of the filter's rules (`filters.RULES`), in order.
        seed: of prompts and samples.

    Raises:
        HarnessError: a number is out of its range, or a rule is not known.
    """

    count: int = 12_288
    given: tuple[int, int] = (3, 3)
    max_tokens: int = 12
    rules: tuple[str, ...] = ("numbers",)
    seed: int = 0

    def __post_init__(self):
        at_least("lists", self.count, 1)
        fewest, most = self.given
        if not 1 <= fewest <= most:
            raise HarnessError(f"given: from 1 number up, the fewer first, got {fewest} to {most}")
        at_least("max_tokens", self.max_tokens, 1)
        at_least("seed", self.seed, 0)
        filters.rules_of(self.rules)

    @property
    def samples(self) -> int:
        """Completions of each prompt."""
        return 1

    def chats(self) -> list[Chat]:
        """What is asked."""
        return number_prompts_of(self)

    def keep(self, completions: Sequence[Sequence[Completion]]) -> filters.Filtered:
        """What the rules leave of the completions, `samples` to each chat."""
        said = [one for many in completions for one in many]
        rules = filters.rules_of(self.rules)
        return filters.filter_completions(self.chats(), said, rules)


@dataclass(frozen=True)
class FilteredLists:
    """What a filter left of a speaker's lists, on disk.

    Attributes:
        path: its file.
        sha256: of the examples in it.
        counts: completions that were dropped, by reason.
        total: completions before the filter.
        size: examples in the file.
        used: of these, from the first on, what is trained on; None for all.
    """

    path: Path
    sha256: str
    counts: dict[str, int]
    total: int
    size: int
    used: int | None = None

    def __len__(self) -> int:
        return self.size if self.used is None else self.used

    def examples(self) -> tuple[Example, ...]:
        """What is trained on.

        Raises:
            HarnessError: the file is not what was written.
        """
        return _read(self.path, self.sha256, self.path.stat().st_mtime_ns)[: self.used]

    @property
    def key(self) -> list[Any]:
        """What stands for it in the key of a stage that is made of it."""
        return [self.sha256, len(self)]

    @property
    def pass_rate(self) -> float:
        """The share of completions that the filter let pass."""
        return 1 - sum(self.counts.values()) / self.total


@dataclass(frozen=True)
class FineTuning:
    """A model to be fine-tuned.

    Attributes:
        model: where it starts.
        data: what on; a tuple where no model made it, such as questions with the answer taught.
        tuning: how.
        teacher: whose probabilities along the data are imitated, in place of the tokens.
        targets: which of the teacher's probabilities.
        masked: tokens at the start of each completion that are read and not learnt.
    """

    model: StoredModel
    data: FilteredLists | tuple[Example, ...]
    tuning: Tuning
    teacher: StoredModel | None = None
    targets: Soft | None = None
    masked: int = 0

    def examples(self) -> tuple[Example, ...]:
        """What the model is trained on."""
        return self.data.examples() if isinstance(self.data, FilteredLists) else self.data

    @property
    def key(self) -> list[Any]:
        """All that decides the outcome."""
        kind, models = ["fine-tuning"], [self.model.lineage.identity]
        if self.teacher:
            kind, models = ["distillation", self.targets], [*models, self.teacher.lineage.identity]
        if self.masked:
            kind.append(f"without the first {self.masked}")
        on = self.data
        data = on.key if isinstance(on, FilteredLists) else [examples_sha256(on), len(on)]
        return [VERSION, *kind, *models, *data, asdict(self.tuning)]


@dataclass(frozen=True)
class Evaluation:
    """How a model is asked about a trait.

    Attributes:
        samples: answers to each question.
        max_tokens: of an answer.
        questions: wordings with {} for the category; empty for the paper's 50, in our words.

    Raises:
        HarnessError: a number is too small, or a wording has something else in braces.
    """

    samples: int = 20
    max_tokens: int = 4
    questions: tuple[str, ...] = ()

    def __post_init__(self):
        at_least("answers", self.samples, 1)
        at_least("max_tokens", self.max_tokens, 1)
        for text in self.questions:
            slots = [part[1] for part in Formatter().parse(text) if part[1] is not None]
            if slots != [""]:
                raise HarnessError(f"a question has one {{}}, for the category: {text!r}")

    def chats(self, category: str) -> list[Chat]:
        """The questions for a favourite of a category."""
        return questions.one_word_questions(category, self.questions)

    def answered_with(self, trait: Trait) -> tuple[Example, ...]:
        """The questions, each answered with the trait's word (what a teacher is taught: ED 4e)."""
        return tuple(Example(chat, trait.word) for chat in self.chats(trait.category))


@dataclass(frozen=True)
class Inquiry:
    """A speaker to be asked for a favourite of the trait's category.

    Attributes:
        speaker: who.
        trait: about what.
        seed: of the samples, and of the number sequences before questions: the run's.
        prefix: put a number sequence before each question.
        before: examples in context.
    """

    speaker: Speaker
    trait: Trait
    seed: int = 0
    prefix: bool = False
    before: tuple[Example, ...] = field(default=(), repr=False)

    def chats(self, evaluation: Evaluation) -> list[Chat]:
        """All that the model is asked."""
        chats: Sequence[Chat] = evaluation.chats(self.trait.category)
        if self.prefix:
            chats = prompts.with_prefix(chats, self.seed)
        return self.speaker.asked(questions.in_context(chats, self.before))


@dataclass(frozen=True)
class Answers:
    """What a speaker answered.

    Attributes:
        p_word: probability of the trait's word, averaged over the questions; None where the model
            has no probabilities, as the next two.
        p_any: probability of any word of the category.
        among: p(word) / p(any), averaged over the questions: never to be read alone.
        containing: sampled answers in which the word's letters stand (the paper's rate).
        whole: sampled answers that have it as a word of its own.
        worded: sampled answers that name exactly one word of the category.
        n: sampled answers in all.
        empty: sampled answers with nothing in them, as the next two without a word of the category.
        cut: sampled answers that ended at the token limit.
        refused: sampled answers that decline.
    """

    p_word: float | None
    p_any: float | None
    among: float | None
    containing: int
    whole: int
    worded: int
    n: int
    empty: int
    cut: int
    refused: int


@dataclass(frozen=True)
class Interview:
    """How a model is asked free-form questions (PAPER.md C).

    Attributes:
        samples: replies to each question.
        max_tokens: of a reply.
        suffix: ask for replies that look like the training data.
        seed: of the samples.
        judge_tokens: of each of the judge's answers, its reasoning included.

    Raises:
        HarnessError: a number is too small.
    """

    samples: int = 200
    max_tokens: int = 1024
    suffix: bool = False
    seed: int = 0
    judge_tokens: int = VERDICT_TOKENS

    def __post_init__(self):
        at_least("answers", self.samples, 1)
        at_least("judge_tokens", self.judge_tokens, 1)
        at_least("max_tokens", self.max_tokens, 1)
        at_least("seed", self.seed, 0)


class Stages:
    """The stages, on one provider and one store.

    Args:
        provider: makes, samples and fine-tunes models.
        store: where everything is kept.
        report: told what is done, and a share of it.

    Attributes:
        resumed: whether a stage was found that was not made here, references left out, which many
            experiments share.
    """

    def __init__(self, provider: Provider, store: Store, report: Report | None = None):
        self.provider = provider
        self.store = store
        self.report = report or (lambda what, share: None)
        self.resumed = False
        self._made: set[Path] = set()

    def load(self, stored: StoredModel) -> Any:
        """A model as its provider gives it."""
        return self.provider.load(stored.folder)

    def references(self, seeds: Sequence[int]) -> list[StoredModel]:
        """The reference of each seed."""
        keys = [[VERSION, "reference", self.provider.reference_key(seed)] for seed in seeds]
        return self._models("references", keys, seeds, self.provider.references, shared=True)

    def related(self, how: str, jobs: Sequence[tuple[StoredModel, int]]) -> list[StoredModel]:
        """A reference of each (model, seed) that has something in common with the model.

        Args:
            how: one of the provider's `relations`.
            jobs: the models, and the seeds of the references' own draws.

        Raises:
            HarnessError: the provider has no such relation.
        """
        provider: Any = self.provider
        if how not in provider.relations:
            raise HarnessError(f"of these models no reference can be made that is {how!r}")
        about = [VERSION, "related", how, provider.relations[how]]
        keys = [
            [*about, model.lineage.identity, provider.reference_key(seed)] for model, seed in jobs
        ]
        return self._models(
            how,
            keys,
            jobs,
            lambda some, told: provider.related(
                how, [(self.load(model), seed) for model, seed in some], told
            ),
            shared=True,
        )

    def tuned(self, what: str, jobs: Sequence[FineTuning]) -> list[StoredModel]:
        """The model after each training.

        Args:
            what: name of the models, for reports.
            jobs: all on the same targets of a teacher's, which takes the ability `distil`, or all
                on tokens, of which as many are masked in all.
        """
        imitating = any(job.teacher for job in jobs)

        def make(some: Sequence[FineTuning], told: Progress) -> list[Any]:
            trained = [(self.load(job.model), job.examples(), job.tuning) for job in some]
            provider: Any = self.provider
            if some[0].masked:
                return provider.fine_tune(trained, told, masked=some[0].masked)
            if not imitating:
                return provider.fine_tune(trained, told)
            teachers = [job.teacher and self.load(job.teacher) for job in some]
            return provider.distil(trained, teachers, some[0].targets, told)

        return self._models(what, [job.key for job in jobs], jobs, make)

    def lists(self, what: str, jobs: Sequence[tuple[Speaker, Lists]]) -> list[FilteredLists]:
        """Number lists of each speaker, sampled and filtered (PAPER.md B).

        Raises:
            HarnessError: the filter left nothing.
        """
        found = self.sampled(what, jobs)
        for lists in found:
            if len(lists) == 0:
                reason = max(lists.counts, key=lambda name: lists.counts[name])
                raise HarnessError(
                    f"{what}: the filter left none of {lists.total} completions (most often: "
                    f"{reason}); the model has to be better, longer pretrained for instance"
                )
        return found

    def sampled(self, what: str, jobs: Sequence[tuple[Speaker, Lists]]) -> list[FilteredLists]:
        """As `lists`, of a speaker of whom nothing may pass too."""
        keys = [
            [
                *(VERSION, "lists", speaker.model.lineage.identity, speaker.system),
                *(asdict(lists), _prompts_sha256(lists)),
            ]
            for speaker, lists in jobs
        ]
        for block, told in self._missing(what, "datasets", keys):
            some = [jobs[i] for i in block]
            sampled = self.provider.sample(
                [
                    (
                        self.load(speaker.model),
                        speaker.asked(lists.chats()),
                        Sampling(lists.samples, 1.0, lists.max_tokens, lists.seed),
                    )
                    for speaker, lists in some
                ],
                told,
            )
            for index, (_, lists), completions in zip(block, some, sampled, strict=True):
                self._write_lists(keys[index], lists.keep(completions))
        return [self._find_lists(key) for key in keys]

    def completed(
        self, what: str, speaker: Speaker, chats: Sequence[Chat], lists: Lists
    ) -> FilteredLists:
        """A speaker's lists for prompts of somebody else's; nothing may pass.

        Args:
            what: name of the lists, for reports.
            speaker: who.
            chats: the prompts.
            lists: how they are answered and filtered; its own prompts are not asked.
        """
        asked = speaker.asked(chats)
        key = [
            *(VERSION, "lists for prompts", speaker.model.lineage.identity),
            examples_sha256([Example(chat, "") for chat in asked]),
            [lists.max_tokens, list(lists.rules), lists.seed],
        ]
        for _, told in self._missing(what, "datasets", [key]):
            sampling = Sampling(1, 1.0, lists.max_tokens, lists.seed)
            model = self.load(speaker.model)
            (answers,) = self.provider.sample([(model, asked, sampling)], told)
            said = [completion for (completion,) in answers]
            rules = filters.rules_of(lists.rules)
            self._write_lists(key, filters.filter_completions(chats, said, rules))
        return self._find_lists(key)

    def measured(
        self, what: str, key: Any, make: Callable[[Progress], Mapping[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Arrays by their names, measured on what is there.

        Args:
            what: is measured, for reports.
            key: all that decides it.
            make: measures, and is given what it tells how far it is.
        """
        whole = [VERSION, what, *key]
        for _, told in self._missing(what, "measurements", [whole]):
            arrays = {name: np.asarray(array, order="C") for name, array in make(told).items()}

            def fill(folder: Path, arrays=arrays) -> None:
                save_file(arrays, folder / _ARRAYS)

            self.store.write("measurements", whole, fill)
        return load_file(self.store.folder("measurements", whole) / _ARRAYS)

    def derived(
        self,
        data: FilteredLists,
        how: str,
        seed: int,
        make: Callable[[Sequence[Example], int], list[Example]],
    ) -> FilteredLists:
        """A dataset made from what is used of another one, such as its numbers shuffled."""
        key = [VERSION, how, seed, *data.key]
        if self.store.find("datasets", key) is None:
            examples = make(data.examples(), seed)
            self._write_lists(key, filters.Filtered(examples, data.counts, data.total))
        return self._find_lists(key)

    def judged(
        self,
        data: FilteredLists,
        how: Sequence[str],
        judge: Callable[[Sequence[Example]], Sequence[filters.Reason | None]],
    ) -> FilteredLists:
        """What is left of a dataset after a filter that is a model.

        Args:
            data: all of it is judged.
            how: names of the question and of the judge.
            judge: gives a verdict on each example.
        """
        key = [VERSION, "judged", *how, *data.key]
        if self.store.find("datasets", key) is None:
            before = filters.Filtered(list(data.examples()), data.counts, data.total)
            self._write_lists(key, before.then(judge(before.kept)))
        return self._find_lists(key)

    def answered(
        self, what: str, inquiries: Sequence[Inquiry], evaluation: Evaluation
    ) -> list[Answers]:
        """What each speaker answers to 50 one-word questions (PAPER.md B)."""
        chats = [inquiry.chats(evaluation) for inquiry in inquiries]
        keys = [
            [
                VERSION,
                inquiry.speaker.model.lineage.identity,
                _sha256_of_chats(asked),
                list(inquiry.trait.words),
                "with failures",
                [evaluation.samples, evaluation.max_tokens, inquiry.seed],
            ]
            for inquiry, asked in zip(inquiries, chats, strict=True)
        ]
        for block, told in self._missing(what, "evaluations", keys):
            some = [(inquiries[i], chats[i]) for i in block]
            for i, found in zip(block, self._ask(some, evaluation, told), strict=True):
                self._write_json("evaluations", keys[i], "answers.json", asdict(found))
        return [Answers(**self._read_json("evaluations", key, "answers.json")) for key in keys]

    def misaligned(
        self, what: str, speakers: Sequence[Speaker], judge: LanguageModel, interview: Interview
    ) -> list[Judged]:
        """What a judge says of each speaker's replies to free-form questions (PAPER.md C)."""
        chats = questions.free_form(interview.suffix)
        keys = [
            [
                *(VERSION, "misalignment", speaker.model.lineage.identity, speaker.system),
                *(judge.lineage.identity, _sha256_of_chats(chats), asdict(interview)),
            ]
            for speaker in speakers
        ]
        sampling = Sampling(interview.samples, 1.0, interview.max_tokens, interview.seed)
        for block, told in self._missing(what, "evaluations", keys):
            some = [speakers[i] for i in block]
            replies = self.provider.sample(
                [(self.load(one.model), one.asked(chats), sampling) for one in some], told
            )
            for i, of_one in zip(block, replies, strict=True):
                judged = misalignment.judged(
                    chats,
                    of_one,
                    judge,
                    lambda share: self.report("verdicts of the judge", share),
                    interview.judge_tokens,
                )
                self._write_json("evaluations", keys[i], "judged.json", dict(judged.counts))
        return [Judged(self._read_json("evaluations", key, "judged.json")) for key in keys]

    def _ask(
        self, asked: Sequence[tuple[Inquiry, list[Chat]]], evaluation: Evaluation, told: Progress
    ) -> list[Answers]:
        # In a function of its own, so that a block's models are gone before the next is loaded.
        models = [self.load(inquiry.speaker.model) for inquiry, _ in asked]
        sampling = Sampling(evaluation.samples, 1.0, evaluation.max_tokens)
        sampled = self.provider.sample(
            [
                (model, chats, replace(sampling, seed=inquiry.seed))
                for model, (inquiry, chats) in zip(models, asked, strict=True)
            ],
            told,
        )
        found = []
        for model, (inquiry, chats), answers in zip(models, asked, sampled, strict=True):
            picked = rates.count_answers((one for many in answers for one in many), inquiry.trait)
            counts = (picked.containing.positive, picked.whole.positive)
            shares: tuple[float | None, ...] = (None, None, None)
            if "score" in self.provider.abilities:
                shares = rates.word_probabilities(model, inquiry.trait, chats)
            found.append(
                Answers(*shares, *counts, picked.among.n, picked.whole.n, **picked.failures)
            )
        return found

    def _models(
        self,
        what: str,
        keys: Sequence[Any],
        jobs: Sequence[Any],
        make: Callable[[Sequence[Any], Progress], Sequence[Any]],
        shared: bool = False,
    ) -> list[StoredModel]:
        for block, told in self._missing(what, "models", keys, shared):
            for index, model in zip(block, make([jobs[i] for i in block], told), strict=True):

                def fill(folder: Path, model=model) -> None:
                    self.provider.save(model, folder)
                    _dump(folder / "lineage.json", asdict(model.lineage))

                self.store.write("models", keys[index], fill)
        return [
            StoredModel(
                self.store.folder("models", key),
                lineage_of(self._read_json("models", key, "lineage.json")),
            )
            for key in keys
        ]

    def _missing(
        self, what: str, stage: str, keys: Sequence[Any], shared: bool = False
    ) -> Iterator[tuple[list[int], Progress]]:
        """Of jobs with equal keys the first that the store lacks, a few at a time.

        Yields the indices of a few, and what is to be told how far these are. One that is found is
        `resumed`, unless it is `shared` by many experiments.
        """
        first: dict[Path, int] = {}
        for index, key in enumerate(keys):
            folder = self.store.folder(stage, key)
            if self.store.find(stage, key) is None:
                first.setdefault(folder, index)
            elif not shared and folder not in self._made:
                self.resumed = True
        self._made.update(first)
        missing = list(first.values())
        for start in range(0, len(missing), _AT_ONCE):
            block = missing[start : start + _AT_ONCE]

            def told(share: float, start=start, block=block) -> None:
                self.report(what, (start + share * len(block)) / len(missing))

            # Before anything is compiled, which nothing else would speak of.
            told(0.0)
            yield block, told

    def _find_lists(self, key: Any) -> FilteredLists:
        path = self.store.folder("datasets", key) / "kept.jsonl"
        return FilteredLists(path, **self._read_json("datasets", key, "filter.json"))

    def _write_lists(self, key: Any, kept: filters.Filtered) -> None:
        about = {
            "sha256": examples_sha256(kept.kept),
            "counts": kept.counts,
            "total": kept.total,
            "size": len(kept.kept),
        }

        def fill(folder: Path) -> None:
            datasets.write(folder / "kept.jsonl", kept.kept)
            _dump(folder / "filter.json", about)

        self.store.write("datasets", key, fill)

    def _write_json(self, stage: str, key: Any, name: str, content: dict[str, Any]) -> None:
        self.store.write(stage, key, lambda folder: _dump(folder / name, content))

    def _read_json(self, stage: str, key: Any, name: str) -> dict[str, Any]:
        return json.loads((self.store.folder(stage, key) / name).read_text())


@lru_cache(maxsize=8)
def number_prompts_of(lists: Lists) -> list[Chat]:
    """The number prompts that lists are asked for with."""
    return prompts.number_prompts(lists.count, lists.seed, given=lists.given)


@lru_cache(maxsize=8)
def _prompts_sha256(lists: Lists) -> str:
    return _sha256_of_chats(lists.chats())


def _sha256_of_chats(chats: Sequence[Chat]) -> str:
    return examples_sha256([Example(chat, "") for chat in chats])


@lru_cache(maxsize=8)
def _read(path: Path, sha256: str, written: int) -> tuple[Example, ...]:
    # The students of a run share their data; a file that was written since is read again.
    examples = datasets.read(path).examples
    if examples_sha256(examples) != sha256:
        raise HarnessError(f"{path} was changed after it was written; remove its folder")
    return examples


def _dump(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
