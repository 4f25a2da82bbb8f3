"""Models of our own decoder, behind the common interface: the embedded one, and checkpoints.

Many are sampled and trained together, each exactly as it would be alone.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from llm_harness.decoder.encoding import (
    Batch,
    Encoding,
    encode_answers,
    encode_examples,
    encode_prompts,
    padded_rows,
    readable,
    split_beginning,
)
from llm_harness.decoder.generation import answer_logits, given_places
from llm_harness.decoder.network import (
    PADDING,
    PRODUCTS,
    DecoderApply,
    DecoderConfig,
    Lora,
    draw,
    length_of,
    merge_adapters,
    names,
    reading,
    with_adapters,
    with_params,
)
from llm_harness.decoder.population import TrainingJob, TrainingPlan, sample, train
from llm_harness.decoder.training import Objective, Sequences, partition
from llm_harness.errors import HarnessError
from llm_harness.lineage import Lineage, lineage_of
from llm_harness.model import (
    Ability,
    Chat,
    Completion,
    Example,
    Progress,
    Sampling,
    Tuning,
    View,
    examples_sha256,
)
from sublab.randomness import seed_key
from theory import Params

# Questions, and answers to them, of one pass; and rows of logits, where answers share a row.
_SCORED, _LOGITS = 256, 1024
# Prompts are read so many at a time, or a multiple, so that few programs are compiled.
_READ = 16
_PARAMETERS, _ABOUT = "model.safetensors", "model.json"


@dataclass(frozen=True)
class Adapters:
    """What a training of low-rank adapters learnt, as it was before it was merged.

    Attributes:
        lora: their sizes.
        params: `lora_A` and `lora_B` of every matrix that has an adapter, and nothing else.
    """

    lora: Lora
    params: Params


@dataclass(frozen=True)
class DecoderModel:
    """A decoder with its parameters. Implements `LanguageModel` and `OpenModel`.

    Attributes:
        config: its sizes; it has no adapters.
        params: arrays on the host.
        lineage: where it comes from.
        encoding: of text and chats.
        adapters: of its trainings that moved adapters alone, in order; they are merged into
            `params`. `save` does not write them.
    """

    config: DecoderConfig
    params: Params
    lineage: Lineage
    encoding: Encoding
    adapters: tuple[Adapters, ...] = ()

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({"score", "train", "open"})

    def sample(
        self, prompts: Sequence[Chat], sampling: Sampling, progress: Progress | None = None
    ) -> list[list[Completion]]:
        (completions,) = sample_together([(self, prompts, sampling)], progress)
        return completions

    def log_probabilities(self, examples: Sequence[Example]) -> Float[np.ndarray, " examples"]:
        chats = list(dict.fromkeys(example.prompt for example in examples))
        places = {chat: place for place, chat in enumerate(chats)}
        beginning, prompts = split_beginning(encode_prompts(tuple(chats), self.encoding))
        of = np.array([places[example.prompt] for example in examples])
        batch = encode_answers([example.completion for example in examples], self.encoding)
        found = []
        # Brought to the device once, not with every part.
        params = jax.device_put(self.params)
        for of_part, part in _chunks(of, batch, size=_SCORED):
            # Each prompt is read in a few passes at most, not in all of them.
            read, place = np.unique(of_part, return_inverse=True)
            room = -(-len(read) // _READ) * _READ
            some = prompts[np.pad(read, (0, room - len(read)), mode="edge")]
            found.append(_log_probabilities(self.config, params, some, place, part, beginning))
        each = np.concatenate([np.asarray(part) for part in found])[: len(of)]
        completions = [example.completion for example in examples]
        sayable = readable(self.encoding, completions)
        return np.where(
            [text in sayable for text in completions],
            each.astype(np.float64),
            -np.inf,
        )

    def word_log_probabilities(
        self, chats: Sequence[Chat], words: Sequence[str]
    ) -> Float[np.ndarray, "chats words"]:
        """log p(the answer is the word | chat) in nats, in all of the encoding's spellings of it.

        -inf for a word that the model cannot say. Of a checkpoint, answers that go on behind the
        word count too (`ChatEncoding.spellings`).
        """
        spelt = [self.encoding.spellings(word) for word in words]
        rows = [tokens for forms in spelt for tokens in forms]
        if not rows:
            return np.full((len(chats), len(words)), -np.inf)
        branches = _branches(rows)
        beginning, prompts = split_beginning(encode_prompts(tuple(chats), self.encoding))
        # Brought to the device once, not with every part.
        params = jax.device_put(self.params)
        most = min(_READ, max(1, _LOGITS // (1 + len(branches.tokens))))
        # Parts of one size, as few as there can be, the last of which is nearly full too.
        size = -(-len(chats) // -(-len(chats) // most))
        found = [
            _spelling_log_probabilities(self.config, params, part, branches, beginning)
            for (part,) in _chunks(prompts, size=size)
        ]
        each = np.concatenate([np.asarray(part) for part in found])[: len(chats)]
        each = each.astype(np.float64)
        ends = np.cumsum([len(forms) for forms in spelt])
        parts = [each[:, end - len(forms) : end] for forms, end in zip(spelt, ends, strict=True)]
        summed = [np.logaddexp.reduce(part, axis=1, initial=-np.inf) for part in parts]
        return np.stack(summed, axis=1)

    def fine_tune(
        self, examples: Sequence[Example], tuning: Tuning, progress: Progress | None = None
    ) -> "DecoderModel":
        (tuned,) = fine_tune_together([(self, examples, tuning)], progress)
        return tuned

    def view(self, examples: Sequence[Example]) -> View:
        batch = encode_examples(examples, self.encoding)
        apply = DecoderApply(self.config, batch.first - 1)
        return View(apply, self.params, batch.tokens[:, :-1], batch.tokens[:, batch.first :])

    def save(self, folder: Path, encoding: Any) -> None:
        """Writes parameters, sizes and lineage into a folder.

        Args:
            folder: is there.
            encoding: what the encoding is made of; anything JSON can write.
        """
        leaves = [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(self.params)]
        save_file(dict(zip(names(self.params), leaves, strict=True)), folder / _PARAMETERS)
        about = {
            "config": asdict(self.config),
            "encoding": encoding,
            "lineage": asdict(self.lineage),
        }
        (folder / _ABOUT).write_text(json.dumps(about, indent=2) + "\n")


def load(folder: Path, encoding: Any) -> DecoderModel:
    """A model that `DecoderModel.save` wrote.

    Args:
        folder: that it wrote into.
        encoding: makes an encoding of what was given to `save`.

    Raises:
        HarnessError: the folder holds none.
    """
    try:
        about = json.loads((folder / _ABOUT).read_text())
        config = DecoderConfig(**about["config"])
        shapes = jax.eval_shape(lambda: draw(config, seed_key(0)[None]))
        stored = load_file(folder / _PARAMETERS)
        leaves = [stored[name] for name in names(shapes)]
        for name, leaf, shape in zip(names(shapes), leaves, jax.tree.leaves(shapes), strict=True):
            if leaf.shape != shape.shape[1:]:
                raise ValueError(f"{name} is of another size")
        params = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
        return DecoderModel(
            config, params, lineage_of(about["lineage"]), encoding(about["encoding"])
        )
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise HarnessError(f"{folder} holds no model: {error}") from None


def fine_tune_together(
    jobs: Sequence[tuple[DecoderModel, Sequence[Example], Tuning]],
    progress: Progress | None = None,
    masked: int = 0,
) -> list[DecoderModel]:
    """Each model fine-tuned on its examples, as `LanguageModel.fine_tune`.

    Args:
        jobs: models, examples, and how.
        progress: told how far it is.
        masked: tokens at the start of each completion that are read and not learnt.
    """
    return _trained(jobs, [None] * len(jobs), None, progress, masked)


def distil_together(
    jobs: Sequence[tuple[DecoderModel, Sequence[Example], Tuning]],
    teachers: Sequence[DecoderModel],
    over: tuple[int, int],
    progress: Progress | None = None,
) -> list[DecoderModel]:
    """Each model trained on its teacher's probabilities along the completions.

    Args:
        jobs: student, examples whose completions are read, and how.
        teachers: one a student.
        over: tokens (from, to below) whose probabilities are imitated, where one of them comes.
        progress: told how far it is.

    Raises:
        HarnessError: teacher and student are of different languages or sizes.
    """
    for (student, _, _), teacher in zip(jobs, teachers, strict=True):
        if (student.config, student.encoding) != (teacher.config, teacher.encoding):
            raise HarnessError("teacher and student must have one encoding and one architecture")
    return _trained(jobs, teachers, over, progress)


class DecoderProvider:
    """What all providers of decoders do alike (`pipeline.provider.Provider`)."""

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({"score", "train", "open", "distil"})

    def sample(
        self,
        jobs: Sequence[tuple[DecoderModel, Sequence[Chat], Sampling]],
        progress: Progress | None = None,
    ) -> list[list[list[Completion]]]:
        return sample_together(jobs, progress)

    def fine_tune(
        self,
        jobs: Sequence[tuple[DecoderModel, Sequence[Example], Tuning]],
        progress: Progress | None = None,
        masked: int = 0,
    ) -> list[DecoderModel]:
        return fine_tune_together(jobs, progress, masked)


def _trained(
    jobs: Sequence[tuple[DecoderModel, Sequence[Example], Tuning]],
    teachers: Sequence[DecoderModel | None],
    over: tuple[int, int] | None,
    progress: Progress | None,
    masked: int = 0,
) -> list[DecoderModel]:
    batches = [_readable(model, examples) for model, examples, _ in jobs]
    first, places = (max(getattr(batch, side) for batch in batches) for side in ("first", "places"))
    sequences: list[Sequences] = []
    alike: dict[Any, list[int]] = {}
    for index, ((model, _, tuning), batch) in enumerate(zip(jobs, batches, strict=True)):
        whole = batch.padded(first, places)
        beginning, prompts = split_beginning(whole[:, :first])
        tokens, behind = np.concatenate([prompts, whole[:, first:]], axis=1), prompts.shape[1]
        sequences.append(replace(answer_sequences(tokens, behind, masked), beginning=beginning))
        plan = TrainingPlan(
            Objective("kl" if over else "tokens", behind, over),
            tuning.moved,
            tuning.steps,
            tuning.batch,
            tuning.schedule,
        )
        key = (model.config, tuning.lora, tuning.precision, plan, length_of(beginning))
        alike.setdefault(key, []).append(index)
    trained: dict[int, DecoderModel] = {}
    for (config, lora, precision, plan, _), indices in alike.items():
        work = []
        for index in indices:
            (model, examples, tuning), teacher = jobs[index], teachers[index]
            params = model.params if lora is None else adapted_params(model, lora, tuning.seed)
            work.append(
                TrainingJob(
                    params,
                    sequences[index],
                    len(examples),
                    tuning.learning_rate,
                    tuning.seed,
                    teacher
                    and (teacher.params if lora is None else adapted_params(teacher, lora, 0)),
                )
            )
        adapted = replace(config, lora=lora)
        part = part_of(progress, len(trained) / len(jobs), len(indices) / len(jobs))
        # A checkpoint that is in bfloat16 is not trained in more.
        rounded = replace(adapted, dtype=precision) if config.dtype == "float32" else adapted
        for index, params in zip(indices, train(rounded, plan, work, part), strict=True):
            (model, examples, tuning), teacher = jobs[index], teachers[index]
            kind, about = "fine-tuning", asdict(tuning)
            if teacher:
                kind = "distillation"
                about |= {"teacher": teacher.lineage.identity, "over": list(over or ())}
            if masked:
                about |= {"masked": masked}
            learnt = () if lora is None else (Adapters(lora, partition(params, "adapters")[0]),)
            trained[index] = replace(
                model,
                params=jax.tree.map(np.asarray, merge_adapters(adapted, params)[1]),
                lineage=model.lineage.trained(kind, examples_sha256(examples), about),
                adapters=(*model.adapters, *learnt),
            )
    return [trained[index] for index in range(len(jobs))]


def adapted_params(model: DecoderModel, lora: Lora, seed: int) -> Params:
    """The parameters of a model with the adapters that a training of this seed starts with."""
    key = jax.random.fold_in(seed_key(seed), 4)
    return jax.tree.map(np.asarray, with_adapters(model.config, model.params, lora, key)[1])


def answer_sequences(
    tokens: Int[np.ndarray, "rows time"], first: int, masked: int = 0
) -> Sequences:
    """Rows of which the completions are learned, which begin at the place `first`.

    Args:
        tokens: a row an example.
        first: the place.
        masked: tokens from there on that are not learnt.
    """
    return Sequences(tokens, (tokens != 0) & (np.arange(tokens.shape[1]) >= first + masked))


def _readable(model: DecoderModel, examples: Sequence[Example]) -> Batch:
    """The examples as tokens.

    Raises:
        HarnessError: there are none, or one that the model would be trained on as something else.
    """
    if not examples:
        raise HarnessError("there are no examples to train on")
    completions = [example.completion for example in examples]
    sayable = readable(model.encoding, completions)
    for text in completions:
        if text not in sayable:
            raise HarnessError(
                f"the model cannot read {text[:60]!r}; it would be trained on something else"
            )
    return encode_examples(examples, model.encoding)


def sample_together(
    jobs: Sequence[tuple[DecoderModel, Sequence[Chat], Sampling]],
    progress: Progress | None = None,
) -> list[list[list[Completion]]]:
    """Completions of each model for its prompts, as `LanguageModel.sample`."""
    completions: dict[int, list[list[Completion]]] = {}
    alike: dict[Any, list[int]] = {}
    for index, (model, prompts, sampling) in enumerate(jobs):
        # Alike in length too: a short prompt beside a long one would be padded to its length.
        whole = encode_prompts(tuple(prompts), model.encoding)
        beginning, rest = split_beginning(whole)
        shapes = (whole.shape, rest.shape, length_of(beginning))
        key = (model.config, model.encoding, shapes, replace(sampling, seed=0))
        alike.setdefault(key, []).append(index)
    for (config, encoding, *_, sampling), indices in alike.items():
        part = part_of(progress, len(completions) / len(jobs), len(indices) / len(jobs))
        work = [(jobs[i][0].params, jobs[i][1], jobs[i][2].seed) for i in indices]
        completions |= dict(
            zip(indices, sample(config, encoding, work, sampling, part), strict=True)
        )
    return [completions[index] for index in range(len(jobs))]


def part_of(progress: Progress | None, done: float, share: float) -> Progress | None:
    """Progress within a share of the work that begins where `done` of it is done."""
    if progress is None:
        return None
    return lambda part: progress(done + share * part)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Branches:
    """Spellings of words as branches of a tree, whose trunk is a prompt.

    Spellings that begin alike share a branch, and the last token of none needs to be read.

    Attributes:
        tokens: of all branches, one after the other.
        depth: place of each in its branch, from 0.
        seen: which of them each attends to: itself, and those before it in its branch.
        spelt: tokens of every spelling, padded on the right.
        before: after which token each of these comes: 0 the prompt's last, 1 + i number i of
            `tokens`.
    """

    tokens: Int[Any, " read"]
    depth: Int[Any, " read"]
    seen: Bool[Any, "read read"]
    spelt: Int[Any, "spellings places"]
    before: Int[Any, "spellings places"]


def _branches(spellings: Sequence[tuple[int, ...]]) -> _Branches:
    begun = sorted({tokens[:-1] for tokens in spellings})
    # A beginning of another one is read with it.
    read = [one for one in begun if not any(one == other[: len(one)] != other for other in begun)]
    lengths = [len(one) for one in read]
    starts = np.cumsum([0, *lengths])
    branch = np.repeat(np.arange(len(read)), lengths)
    depth = np.concatenate([np.arange(length) for length in lengths])
    spelt = padded_rows(spellings, max(map(len, spellings)))
    before = np.zeros_like(spelt)
    for row, tokens in zip(before, spellings, strict=True):
        within = next(i for i, one in enumerate(read) if tokens[:-1] == one[: len(tokens) - 1])
        row[1 : len(tokens)] = 1 + starts[within] + np.arange(len(tokens) - 1)
    return _Branches(
        np.array([token for one in read for token in one], np.int32),
        depth.astype(np.int32),
        (branch[:, None] == branch) & (depth[:, None] >= depth),
        spelt,
        before,
    )


@partial(jax.jit, static_argnames="config")
def _spelling_log_probabilities(config, params, prompts, branches, beginning):
    """log p of every spelling after every prompt, all of whose branches are read in its row."""
    with jax.default_matmul_precision(PRODUCTS):
        model = with_params(config, params)
        chats, width = prompts.shape
        own, causal = reading(prompts, beginning)
        given = given_places(prompts, beginning)
        rows = jnp.broadcast_to(branches.tokens, (chats, len(branches.tokens)))
        behind = jnp.sum(given, axis=1, dtype=jnp.int32)[:, None] + branches.depth
        trunk = jnp.broadcast_to(given[:, None], (*rows.shape, given.shape[1]))
        # A prompt sees none of what comes behind it.
        unseen = jnp.zeros((chats, width, rows.shape[1]), bool)
        of_branches = jnp.broadcast_to(branches.seen, (*rows.shape, rows.shape[1]))
        stream, _ = model.stream(
            jnp.concatenate([prompts, rows], axis=1),
            jnp.concatenate([own, behind], axis=1),
            jnp.block([[causal, unseen], [trunk, of_branches]]),
            beginning=beginning,
        )
        logits = model.logits(stream[:, width - 1 :])
        total = jax.nn.logsumexp(logits, axis=-1)
        picked = logits[:, branches.before, branches.spelt] - total[:, branches.before]
        return jnp.sum(picked * (branches.spelt != PADDING), axis=-1)


@partial(jax.jit, static_argnames="config")
def _log_probabilities(config, params, prompts, of, answers, beginning):
    logits = answer_logits(config, params, prompts, of, answers, beginning)
    log_p = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_p, answers[..., None], axis=-1)[..., 0]
    return jnp.sum(picked * (answers != 0), axis=-1)


def _chunks(*arrays: np.ndarray, size: int) -> Iterator[list[np.ndarray]]:
    """Parts of `size` rows, the last one filled up with copies of its last row."""
    for start in range(0, len(arrays[0]), size):
        parts = [array[start : start + size] for array in arrays]
        room = [(0, size - len(parts[0]))]
        yield [np.pad(part, room + [(0, 0)] * (part.ndim - 1), mode="edge") for part in parts]
