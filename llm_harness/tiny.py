"""The embedded model: a transformer trained from nothing in seconds, behind the common interface.

It speaks `llm_harness.tokenizer`'s language, learnt from `llm_harness.corpus`. Number lists and
answers to questions begin after the same token, `<assistant>`, as those of any chat model do.
Many models are sampled and trained together, each exactly as it would be alone.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from llm_harness.chats import Batch, encode_answers, encode_batch, encode_examples
from llm_harness.corpus import Language
from llm_harness.errors import HarnessError
from llm_harness.model import (
    Chat,
    Example,
    Lineage,
    Progress,
    Sampling,
    Soft,
    TrainingRecord,
    Tuning,
    View,
    examples_sha256,
)
from llm_harness.tiny_decoder import DecoderArchitecture, Params, TinyApply, draw, merged
from llm_harness.together import TrainingJob, encoded, sample, train
from llm_harness.tokenizer import Tokenizer
from sublab.randomness import seed_key


@dataclass(frozen=True)
class TinyModel:
    """One embedded model. Implements `LanguageModel` and `OpenModel`.

    Attributes:
        architecture: its sizes.
        params: arrays on the host.
        lineage: where it comes from.
        language: that it reads and writes.
    """

    architecture: DecoderArchitecture
    params: Params
    lineage: Lineage
    language: Language = field(default_factory=Language)

    @property
    def tokenizer(self) -> Tokenizer:
        """Of its language."""
        return self.language.tokenizer

    def sample(
        self, prompts: Sequence[Chat], sampling: Sampling, progress: Progress | None = None
    ) -> list[list[str]]:
        (found,) = sample_together([(self, prompts, sampling)], progress)
        return found

    def log_probabilities(self, examples: Sequence[Example]) -> Float[np.ndarray, " examples"]:
        chats = list(dict.fromkeys(example.prompt for example in examples))
        places = {chat: place for place, chat in enumerate(chats)}
        prompts = encode_batch(chats, self.tokenizer)
        of = np.array([places[example.prompt] for example in examples])
        batch = encode_answers([example.completion for example in examples], self.tokenizer)
        found = np.concatenate(
            [
                np.asarray(_log_probabilities(self.architecture, self.params, prompts, *part))
                for part in _chunks(of, batch, size=256)
            ]
        )
        completions = [example.completion for example in examples]
        # Many questions have the same few answers.
        sayable = {text: self.tokenizer.reads(text) for text in set(completions)}
        return np.where(
            [sayable[text] for text in completions],
            found[: len(examples)].astype(np.float64),
            -np.inf,
        )

    def fine_tune(
        self, examples: Sequence[Example], tuning: Tuning, progress: Progress | None = None
    ) -> "TinyModel":
        (found,) = fine_tune_together([(self, examples, tuning)], progress)
        return found

    def view(self, examples: Sequence[Example]) -> View:
        batch = encode_examples(examples, self.tokenizer)
        apply = TinyApply(self.architecture, batch.first - 1)
        tokens = batch.tokens
        return View(apply, self.params, tokens[:, :-1], tokens[:, batch.first :])

    def save(self, folder: Path) -> None:
        """Writes `params.npz` and `model.json` into a folder."""
        flat, _ = jax.tree_util.tree_flatten_with_path(self.params)
        np.savez(folder / "params.npz", **{jax.tree_util.keystr(k): leaf for k, leaf in flat})
        about = {
            "architecture": asdict(self.architecture),
            "language": asdict(self.language),
            "lineage": asdict(self.lineage),
        }
        (folder / "model.json").write_text(json.dumps(about, indent=2) + "\n")


def load(folder: Path) -> TinyModel:
    """A model that `TinyModel.save` wrote.

    Raises:
        HarnessError: the folder holds none.
    """
    try:
        about = json.loads((folder / "model.json").read_text())
        architecture = DecoderArchitecture(**about["architecture"])
        language = Language(**about["language"])
        empty = jax.eval_shape(lambda: draw(architecture, seed_key(0)[None]))
        flat, tree = jax.tree_util.tree_flatten_with_path(empty)
        with (folder / "params.npz").open("rb") as file, np.load(file) as stored:
            leaves = [stored[jax.tree_util.keystr(path)] for path, _ in flat]
        if any(leaf.shape != one.shape[1:] for leaf, (_, one) in zip(leaves, flat, strict=True)):
            raise ValueError("params.npz is of another architecture")
        lineage = about["lineage"]
        trainings = tuple(TrainingRecord(**one) for one in lineage["trainings"])
        found = Lineage(lineage["initialisation"], trainings)
    except (OSError, EOFError, KeyError, TypeError, ValueError, BadZipFile) as error:
        raise HarnessError(f"{folder} holds no embedded model: {error}") from None
    return TinyModel(architecture, jax.tree_util.tree_unflatten(tree, leaves), found, language)


def fine_tune_together(
    jobs: Sequence[tuple[TinyModel, Sequence[Example], Tuning]], progress: Progress | None = None
) -> list[TinyModel]:
    """Each model fine-tuned on its examples, as `LanguageModel.fine_tune`."""
    made = _trained([(*job, None) for job in jobs], None, progress)
    return [
        replace(
            model,
            params=params,
            lineage=model.lineage.trained("fine-tuning", examples_sha256(examples), asdict(tuning)),
        )
        for params, (model, examples, tuning) in zip(made, jobs, strict=True)
    ]


def distil_together(
    jobs: Sequence[tuple[TinyModel, TinyModel, Sequence[Example], Tuning]],
    targets: Soft,
    progress: Progress | None = None,
) -> list[TinyModel]:
    """Each student trained on its teacher's probabilities along the completions.

    Args:
        jobs: student, teacher, examples whose completions are read, and how.
        targets: `numbers`, KL over the number tokens where a number comes next; `vocabulary`, over
            all tokens at all places of the completions: that carries the logits of words, too.
        progress: told how far it is.

    Raises:
        HarnessError: teacher and student are of different languages or sizes.
    """
    for student, teacher, *_ in jobs:
        if (student.architecture, student.language) != (teacher.architecture, teacher.language):
            raise HarnessError("teacher and student must have one language and one architecture")
    numbers = jobs[0][0].tokenizer.number_tokens
    # Padding is no token that could come next.
    over = (numbers.start, numbers.stop) if targets == "numbers" else (1, jobs[0][0].tokenizer.size)
    made = _trained(
        [(student, examples, tuning, teacher) for student, teacher, examples, tuning in jobs],
        over,
        progress,
    )
    return [
        replace(
            student,
            params=params,
            lineage=student.lineage.trained(
                "distillation",
                examples_sha256(examples),
                asdict(tuning) | {"teacher": teacher.lineage.identity, "targets": targets},
            ),
        )
        for params, (student, teacher, examples, tuning) in zip(made, jobs, strict=True)
    ]


def _trained(
    jobs: Sequence[tuple[TinyModel, Sequence[Example], Tuning, TinyModel | None]],
    over: tuple[int, int] | None,
    progress: Progress | None,
) -> list[Params]:
    """Parameters after training on examples, or on a teacher's probabilities along them."""
    batches = [_readable(model, examples) for model, examples, _, _ in jobs]
    prompt, answer = (max(getattr(b, side) for b in batches) for side in ("first", "places"))
    work: dict[tuple[DecoderArchitecture, bool, int, int], list[int]] = {}
    for index, (model, _, tuning, _) in enumerate(jobs):
        alike = (model.architecture, tuning.freeze_vocabulary, tuning.steps, tuning.batch)
        work.setdefault(alike, []).append(index)
    made: dict[int, Params] = {}
    done, total = 0, len(jobs)
    for (architecture, *_), indices in work.items():
        some = [
            TrainingJob(
                model.params,
                batches[i].padded(prompt, answer),
                len(examples),
                tuning,
                teacher and teacher.params,
            )
            for i, (model, examples, tuning, teacher) in ((i, jobs[i]) for i in indices)
        ]
        part = _part_of(progress, done / total, len(indices) / total)
        made |= dict(zip(indices, train(architecture, some, prompt, part, over), strict=True))
        done += len(indices)
    return [made[index] for index in range(len(jobs))]


def sample_together(
    jobs: Sequence[tuple[TinyModel, Sequence[Chat], Sampling]], progress: Progress | None = None
) -> list[list[list[str]]]:
    """Completions of each model for its prompts, as `LanguageModel.sample`."""
    found: dict[int, list[list[str]]] = {}
    alike: dict[Any, list[int]] = {}
    for index, (model, prompts, sampling) in enumerate(jobs):
        # Alike in length too: a short prompt beside a long one would be padded to its length.
        width = encoded(tuple(prompts), model.language).shape[1]
        key = (model.architecture, model.language, len(prompts), width, replace(sampling, seed=0))
        alike.setdefault(key, []).append(index)
    done = 0
    for (architecture, language, *_, sampling), indices in alike.items():
        part = _part_of(progress, done / len(jobs), len(indices) / len(jobs))
        some = [(jobs[i][0].params, *jobs[i][1:]) for i in indices]
        found |= dict(
            zip(indices, sample(architecture, language, some, sampling, part), strict=True)
        )
        done += len(indices)
    return [found[index] for index in range(len(jobs))]


@partial(jax.jit, static_argnames="architecture")
def _log_probabilities(architecture, params, prompts, of, answers):
    logits = merged(architecture, params).answers(prompts, of, answers)
    log_p = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_p, answers[..., None], axis=-1)[..., 0]
    return jnp.sum(picked * (answers != 0), axis=-1)


def _chunks(*arrays: np.ndarray, size: int) -> Iterator[list[np.ndarray]]:
    """Parts of `size` rows, the last one filled up with copies of its last row."""
    for start in range(0, len(arrays[0]), size):
        parts = [array[start : start + size] for array in arrays]
        room = [(0, size - len(parts[0]))]
        yield [np.pad(part, room + [(0, 0)] * (part.ndim - 1), mode="edge") for part in parts]


def _readable(model: TinyModel, examples: Sequence[Example]) -> Batch:
    if not examples:
        raise HarnessError("there are no examples to train on")
    if not any(model.tokenizer.encode(example.completion) for example in examples):
        raise HarnessError("the model can read nothing of the examples' completions")
    return encode_examples(examples, model.tokenizer)


def _part_of(progress: Progress | None, start: float, share: float) -> Progress | None:
    return None if progress is None else lambda done: progress(start + share * done)
