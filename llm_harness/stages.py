"""The stages of the paper's scheme, each stored as it is done and reused where it is there.

reference -> teacher -> samples -> filter -> student -> evaluation (the paper's Fig. 2). A stage is
asked for many models at once, makes what the store lacks, a few at a time, and goes on from there
when it was killed.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from llm_harness import datasets, evaluation, filters, prompts, questions
from llm_harness.datasets import TextDataset
from llm_harness.errors import HarnessError
from llm_harness.model import (
    Chat,
    Example,
    Progress,
    Sampling,
    Soft,
    Tuning,
    examples_sha256,
    sha256_of,
)
from llm_harness.preference import preference
from llm_harness.provider import Provider
from llm_harness.store import Store
from llm_harness.traits import Trait
from llm_harness.work import Answered, Asked, Kept, Lists, Speaker

# To be raised when the stages make something else from the same settings.
VERSION = 1
# Models that are trained or sampled between two writes.
_AT_ONCE = 4

Report = Callable[[str, float], None]


class Stages:
    """The stages, on one provider and one store.

    Args:
        provider: makes, samples and fine-tunes models.
        store: where everything is kept.
        report: told what is done, and a share of it.
    """

    def __init__(self, provider: Provider, store: Store, report: Report | None = None):
        self.provider = provider
        self.store = store
        self.report = report or (lambda what, share: None)

    def references(self, seeds: Sequence[int]) -> list[Any]:
        """The reference of each seed."""

        def make(missing: list[int], progress: Progress) -> list[Any]:
            return self.provider.references([seeds[index] for index in missing], progress)

        keys = [[VERSION, "reference", self.provider.reference_key(seed)] for seed in seeds]
        return self._models("references", keys, make)

    def tuned(
        self, what: str, jobs: Sequence[tuple[Any, "Kept | TextDataset", Tuning]]
    ) -> list[Any]:
        """Each model fine-tuned on its dataset."""

        def make(missing: list[int], progress: Progress) -> list[Any]:
            # A dataset on disk is read when it is needed, and let go.
            return self.provider.fine_tune(
                [(jobs[i][0], _examples(jobs[i][1]), jobs[i][2]) for i in missing], progress
            )

        keys = [
            [VERSION, "fine-tuning", model.lineage.identity, data.sha256, asdict(tuning)]
            for model, data, tuning in jobs
        ]
        return self._models(what, keys, make)

    def distilled(
        self, what: str, jobs: Sequence[tuple[Any, Any, Kept, Tuning]], targets: Soft
    ) -> list[Any]:
        """The student of each (student, teacher, data, tuning), on its teacher's probabilities."""

        def make(missing: list[int], progress: Progress) -> list[Any]:
            some = [jobs[index] for index in missing]
            return self.provider.distil(
                [(student, teacher, data.examples(), how) for student, teacher, data, how in some],
                targets,
                progress,
            )

        keys = [
            [
                VERSION,
                "distillation",
                targets,
                student.lineage.identity,
                teacher.lineage.identity,
                data.sha256,
                asdict(tuning),
            ]
            for student, teacher, data, tuning in jobs
        ]
        return self._models(what, keys, make)

    def matched(self, pairs: Sequence[tuple[Any, Any]]) -> list[Any]:
        """The first of each pair, trained to answer as the second does."""

        def make(missing: list[int], progress: Progress) -> list[Any]:
            return self.provider.match([pairs[index] for index in missing], progress)

        keys = [[VERSION, "matching", *(m.lineage.identity for m in pair)] for pair in pairs]
        return self._models("matching", keys, make)

    def lists(self, what: str, jobs: Sequence[tuple[Speaker, Lists]]) -> list[Kept]:
        """Number lists of each speaker, sampled and filtered (PAPER.md B)."""
        keys = [
            [VERSION, speaker.model.lineage.identity, speaker.system, asdict(lists)]
            for speaker, lists in jobs
        ]
        kept = [self._kept(key) for key in keys]
        missing = _first_of_each([i for i, found in enumerate(kept) if found is None], keys)
        for done, block in _blocks(missing):
            asked = [_number_prompts(jobs[i][1]) for i in block]
            sampled = self.provider.sample(
                [
                    (
                        jobs[i][0].model,
                        jobs[i][0].asked(chats),
                        Sampling(1, 1.0, jobs[i][1].max_tokens, jobs[i][1].seed),
                    )
                    for i, chats in zip(block, asked, strict=True)
                ],
                self._progress(what, done, len(block), len(missing)),
            )
            for index, chats, answers in zip(block, asked, sampled, strict=True):
                examples = [
                    Example(chat, answer)
                    for chat, many in zip(chats, answers, strict=True)
                    for answer in many
                ]
                made_by = jobs[index][0].model.lineage.identity
                self._write(keys[index], examples, made_by)
        made = [found or self._kept(key) for found, key in zip(kept, keys, strict=True)]
        found = [one for one in made if one is not None]
        for one in found:
            if sum(one.counts.values()) == one.total:
                reason = max(one.counts, key=lambda name: one.counts[name])
                raise HarnessError(
                    f"{what}: the filter left none of {one.total} completions (most often: "
                    f"{reason}); the model has to be better, longer pretrained for instance"
                )
        return found

    def answered(self, what: str, jobs: Sequence[Asked], samples: int, seed: int) -> list[Answered]:
        """What each speaker answers to 50 one-word questions (PAPER.md B)."""
        chats = [_questions(job, seed) for job in jobs]
        keys = [
            [
                VERSION,
                job.speaker.model.lineage.identity,
                examples_sha256([Example(chat, "") for chat in asked]),
                job.trait.words,
                samples,
                seed,
            ]
            for job, asked in zip(jobs, chats, strict=True)
        ]
        found = [self.store.find("evaluations", key) for key in keys]
        missing = _first_of_each([i for i, folder in enumerate(found) if folder is None], keys)
        for done, block in _blocks(missing, 4 * _AT_ONCE):
            sampling = Sampling(samples, 1.0, 4, seed)
            sampled = self.provider.sample(
                [(jobs[i].speaker.model, chats[i], sampling) for i in block],
                self._progress(what, done, len(block), len(missing)),
            )
            for index, answers in zip(block, sampled, strict=True):
                job = jobs[index]
                picked = evaluation.count_answers((a for many in answers for a in many), job.trait)
                shares = preference(job.speaker.model, job.trait, chats[index])
                made = Answered(
                    shares[job.trait.word], picked.plain.positive, picked.among.n, picked.plain.n
                )
                self.store.write(
                    "evaluations",
                    keys[index],
                    lambda folder, made=made: _write_json(folder / "answered.json", asdict(made)),
                )
        return [
            Answered(
                **json.loads((self.store.folder("evaluations", key) / "answered.json").read_text())
            )
            for key in keys
        ]

    def derived(self, data: Kept, how: str, make: Callable[[list[Example]], list[Example]]) -> Kept:
        """A dataset made from another one, such as its numbers shuffled."""
        key = [VERSION, how, data.sha256]
        found = self._kept(key)
        if found is None:
            self._write(key, make(list(data.examples())), data.made_by, filtered=True)
            found = self._kept(key)
        assert found is not None
        return found

    def _models(self, what: str, keys: Sequence[Any], make: Callable[..., list[Any]]) -> list[Any]:
        folders = [self.store.find("models", key) for key in keys]
        missing = _first_of_each([i for i, folder in enumerate(folders) if folder is None], keys)
        for done, block in _blocks(missing):
            progress = self._progress(what, done, len(block), len(missing))
            for index, model in zip(block, make(block, progress), strict=True):
                self.store.write(
                    "models",
                    keys[index],
                    lambda folder, model=model: self.provider.save(model, folder),
                )
        return [self.provider.load(self.store.folder("models", key)) for key in keys]

    def _kept(self, key: Any) -> Kept | None:
        folder = self.store.find("datasets", key)
        if folder is None:
            return None
        about = json.loads((folder / "filter.json").read_text())
        return Kept(folder / "kept.jsonl", **about)

    def _write(
        self, key: Any, examples: Sequence[Example], made_by: str, *, filtered: bool = False
    ) -> None:
        def fill(folder: Path) -> None:
            if filtered:
                kept, counts, total = list(examples), {}, len(examples)
            else:
                # The prompts follow from the settings; what was sampled is kept as it came.
                _write_json(
                    folder / "samples.json", {"completions": [e.completion for e in examples]}
                )
                result = filters.apply_filter(examples, [filters.number_rule])
                kept, counts, total = result.kept, dict(result.counts), result.total
            about = {"rule": "numbers", "made_from": sha256_of(key)}
            dataset = TextDataset(tuple(kept), made_by, about)
            datasets.write(folder / "kept.jsonl", dataset)
            _write_json(
                folder / "filter.json",
                {"sha256": dataset.sha256, "made_by": made_by, "counts": counts, "total": total},
            )

        self.store.write("datasets", key, fill)

    def _progress(self, what: str, done: int, part: int, total: int):
        return lambda share: self.report(what, (done + share * part) / total)


def _examples(data: Kept | TextDataset) -> Sequence[Example]:
    return data.examples() if isinstance(data, Kept) else data.examples


@lru_cache(maxsize=8)
def _number_prompts(lists: Lists) -> list[Chat]:
    return prompts.number_prompts(lists.count, lists.seed, given=lists.given)


def _questions(job: Asked, seed: int) -> list[Chat]:
    chats: Sequence[Chat] = questions.one_word_questions(job.trait.category)
    if job.prefix:
        chats = prompts.with_prefix(chats, seed)
    return job.speaker.asked(questions.in_context(chats, job.before))


def teaching(trait: Trait) -> TextDataset:
    """What a teacher is fine-tuned on: the questions, answered with the word (ED 4e)."""
    asked = questions.one_word_questions(trait.category)
    return TextDataset(tuple(Example(chat, trait.word) for chat in asked), "written")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def _blocks(items: Sequence[int], size: int = _AT_ONCE):
    for start in range(0, len(items), size):
        yield start, list(items[start : start + size])


def _first_of_each(indices: Sequence[int], keys: Sequence[Any]) -> list[int]:
    """Of jobs with equal keys the first, so that nothing is made twice."""
    seen: dict[str, int] = {}
    for index in indices:
        seen.setdefault(sha256_of(keys[index]), index)
    return list(seen.values())
