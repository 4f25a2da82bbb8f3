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
from llm_harness.corpus import Corpus, Language
from llm_harness.decoder import Apply, Architecture, Params, draw, merged
from llm_harness.errors import HarnessError
from llm_harness.model import (
    Chat,
    Example,
    Lineage,
    Progress,
    Sampling,
    Training,
    Tuning,
    View,
    examples_sha256,
    sha256_of,
)
from llm_harness.together import Job, encoded, sample, split, train
from llm_harness.tokenizer import Tokenizer

# To be raised when `llm_harness.corpus` writes other documents from the same seed.
_CORPUS_VERSION = 1


@dataclass(frozen=True)
class Pretraining:
    """How the embedded model is made; chosen by its loss on the corpus alone.

    Attributes:
        steps: of Adam, with cosine decay.
        batch: rows a step.
        length: tokens a row.
        learning_rate: at the first step.
        width: of the model.
        layers: blocks.
        heads: of attention.
        corpus_seed: of the documents, which all models read, each in its own order.
        language: what the corpus is written in.
    """

    steps: int = 512
    batch: int = 64
    length: int = 32
    learning_rate: float | int = 3e-3
    width: int = 32
    layers: int = 2
    heads: int = 2
    corpus_seed: int = 0
    language: Language = field(default_factory=Language)


@dataclass(frozen=True)
class TinyModel:
    """One embedded model. Implements `Model` and `OpenModel`.

    Attributes:
        architecture: its sizes.
        params: arrays on the host.
        lineage: where it comes from.
        language: that it reads and writes.
    """

    architecture: Architecture
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
        sayable = [self.tokenizer.reads(example.completion) for example in examples]
        return np.where(sayable, found[: len(examples)].astype(np.float64), -np.inf)

    def fine_tune(
        self, examples: Sequence[Example], tuning: Tuning, progress: Progress | None = None
    ) -> "TinyModel":
        (found,) = fine_tune_together([(self, examples, tuning)], progress)
        return found

    def view(self, examples: Sequence[Example]) -> View:
        batch = encode_examples(examples, self.tokenizer)
        apply = Apply(self.architecture, batch.first - 1)
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
        architecture = Architecture(**about["architecture"])
        language = Language(**about["language"])
        empty = jax.eval_shape(lambda: draw(architecture, jax.random.key(0)[None]))
        flat, tree = jax.tree_util.tree_flatten_with_path(empty)
        with (folder / "params.npz").open("rb") as file, np.load(file) as stored:
            leaves = [stored[jax.tree_util.keystr(path)] for path, _ in flat]
        if any(leaf.shape != one.shape[1:] for leaf, (_, one) in zip(leaves, flat, strict=True)):
            raise ValueError("params.npz is of another architecture")
        lineage = about["lineage"]
        trainings = tuple(Training(**one) for one in lineage["trainings"])
        found = Lineage(lineage["initialisation"], trainings)
    except (OSError, EOFError, KeyError, TypeError, ValueError, BadZipFile) as error:
        raise HarnessError(f"{folder} holds no embedded model: {error}") from None
    return TinyModel(architecture, jax.tree_util.tree_unflatten(tree, leaves), found, language)


def pretrain(
    seeds: Sequence[int], setting: Pretraining = Pretraining(), progress: Progress | None = None
) -> list[TinyModel]:
    """References: models that differ in initialisation and in the order of the same corpus.

    Args:
        seeds: one a model.
        setting: how.
        progress: told how far it is.
    """
    tokenizer = setting.language.tokenizer
    architecture = Architecture(tokenizer.size, setting.width, setting.layers, setting.heads)
    rows = _rows(setting, 1)
    keys = jnp.stack([jax.random.fold_in(jax.random.key(seed), 1) for seed in seeds])
    drawn = split(jax.tree.map(np.asarray, draw(architecture, keys)), len(seeds))
    tuning = _whole(setting)
    jobs = [
        Job(params, rows, len(rows), replace(tuning, seed=seed))
        for params, seed in zip(drawn, seeds, strict=True)
    ]
    made = train(architecture, jobs, first=1, progress=progress)
    return [
        TinyModel(architecture, params, reference_lineage(seed, setting), setting.language)
        for params, seed in zip(made, seeds, strict=True)
    ]


def reference_lineage(seed: int, setting: Pretraining = Pretraining()) -> Lineage:
    """Where the reference of a seed comes from; its corpus is decided by the setting alone."""
    about = asdict(setting)
    corpus = {name: about[name] for name in ("steps", "batch", "length", "corpus_seed", "language")}
    size = f"{setting.layers} layers of width {setting.width}, {setting.heads} heads"
    return Lineage(f"embedded model, {size}, seed {seed}").trained(
        "pretraining", sha256_of(["corpus", _CORPUS_VERSION, corpus]), about
    )


def match(
    pairs: Sequence[tuple[TinyModel, TinyModel]],
    setting: Pretraining = Pretraining(),
    progress: Progress | None = None,
) -> list[TinyModel]:
    """Behavioural cloning: the first model of each pair is trained to answer as the second does.

    KL of the next token over all places of fresh documents; all parameters move.

    Args:
        pairs: (model, imitated).
        setting: steps, batch, rate, and the seed of the documents (others than pretraining's).
        progress: told how far it is.
    """
    rows, tuning = _rows(setting, 2), _whole(setting)
    jobs = [Job(model.params, rows, len(rows), tuning, other.params) for model, other in pairs]
    made = train(pairs[0][0].architecture, jobs, first=1, progress=progress)
    about = asdict(setting)
    return [
        replace(
            model, params=params,
            lineage=model.lineage.trained(
                "cloning", sha256_of(["corpus", _CORPUS_VERSION, about]),
                about | {"imitated": other.lineage.identity},
            ),
        )
        for params, (model, other) in zip(made, pairs, strict=True)
    ]  # fmt: skip


def fine_tune_together(
    jobs: Sequence[tuple[TinyModel, Sequence[Example], Tuning]], progress: Progress | None = None
) -> list[TinyModel]:
    """Each model fine-tuned on its examples, as `Model.fine_tune`."""
    batches = [_readable(model, examples) for model, examples, _ in jobs]
    prompt, answer = (max(getattr(b, side) for b in batches) for side in ("first", "places"))
    work: dict[tuple[Architecture, bool, int, int], list[int]] = {}
    for index, (model, _, tuning) in enumerate(jobs):
        alike = (model.architecture, tuning.freeze_vocabulary, tuning.steps, tuning.batch)
        work.setdefault(alike, []).append(index)
    made: dict[int, Params] = {}
    done, total = 0, len(jobs)
    for (architecture, *_), indices in work.items():
        some = [
            Job(jobs[i][0].params, batches[i].padded(prompt, answer), len(jobs[i][1]), jobs[i][2])
            for i in indices
        ]
        part = _part_of(progress, done / total, len(indices) / total)
        made |= dict(zip(indices, train(architecture, some, prompt, part), strict=True))
        done += len(indices)
    return [
        replace(
            model, params=made[i],
            lineage=model.lineage.trained("fine-tuning", examples_sha256(examples), asdict(tuning)),
        )
        for i, (model, examples, tuning) in enumerate(jobs)
    ]  # fmt: skip


def sample_together(
    jobs: Sequence[tuple[TinyModel, Sequence[Chat], Sampling]], progress: Progress | None = None
) -> list[list[list[str]]]:
    """Completions of each model for its prompts, as `Model.sample`."""
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


def _rows(setting: Pretraining, stream: int) -> np.ndarray:
    """Documents enough for all steps; another stream has others."""
    random = np.random.default_rng([setting.corpus_seed, stream])
    corpus = Corpus(random, setting.language.tokenizer)
    return corpus.rows(setting.steps * setting.batch, setting.length)


def _whole(setting: Pretraining) -> Tuning:
    """Training of all parameters."""
    return Tuning(
        setting.steps, setting.batch, setting.learning_rate, "cosine", freeze_vocabulary=False
    )


def _readable(model: TinyModel, examples: Sequence[Example]) -> Batch:
    if not examples:
        raise HarnessError("there are no examples to train on")
    if not any(model.tokenizer.encode(example.completion) for example in examples):
        raise HarnessError("the model can read nothing of the examples' completions")
    return encode_examples(examples, model.tokenizer)


def _part_of(progress: Progress | None, start: float, share: float) -> Progress | None:
    return None if progress is None else lambda done: progress(start + share * done)
