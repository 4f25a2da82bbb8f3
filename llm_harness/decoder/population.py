"""Many decoders at once: a population in one compiled program, each as it would be alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from llm_harness.decoder import generation, training
from llm_harness.decoder.encoding import Encoding, encode_prompts, split_beginning
from llm_harness.decoder.network import DecoderConfig
from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Completion, Progress, Sampling, Schedule
from sublab import devices
from sublab.randomness import seed_key
from theory import Params

# Steps and sequences of one call of a compiled program; progress is told after each.
_STEPS = 64
_SEQUENCES = (64, 1024)
# Bytes of keys and values of the sequences of a call, at most: of a large model fewer are drawn.
_CACHED = 2**31
# Parts that are sampled at a time.
_PARTS = 8
# Parameters of all models on an accelerator at a time; a model that has more is there alone.
_HELD = 2**26


@dataclass(frozen=True)
class TrainingPlan:
    """What the trainings of a population have in common: one compiled program.

    Attributes:
        objective: what is minimised.
        trained: which parameters move.
        steps: of the optimiser.
        batch: rows a step.
        schedule: of the learning rates.
        warm_up: steps of a linear rise to the largest rate.
    """

    objective: training.Objective
    trained: training.Trained
    steps: int
    batch: int
    schedule: Schedule
    warm_up: int = 0


@dataclass(frozen=True)
class TrainingJob:
    """One model to train.

    Attributes:
        params: where it starts.
        sequences: what it is trained on; where all jobs have the same object, one copy serves all.
        rows: how many there are; rows behind them are padding.
        learning_rate: the largest.
        seed: of the order of the rows.
        imitated: a model whose probabilities or logits it imitates.
    """

    params: Params
    sequences: training.Sequences
    rows: int
    learning_rate: float
    seed: int
    imitated: Params | None = None


def train(
    config: DecoderConfig,
    plan: TrainingPlan,
    jobs: Sequence[TrainingJob],
    progress: Progress | None = None,
) -> list[Params]:
    """The parameters of each job's model after its training.

    Args:
        config: of all.
        plan: of all.
        jobs: one a model.
        progress: told how far it is.

    Raises:
        HarnessError: one diverged.
    """
    mesh = devices.population_mesh()
    shared = all(job.sequences is jobs[0].sequences for job in jobs)
    common = _on_every_device(_same_length([jobs[0].sequences])[0], mesh) if shared else None
    blocks = list(_blocks(jobs, _at_a_time(jobs[0].params, mesh, len(jobs))))
    trained: list[Params] = []
    for number, block in enumerate(blocks):
        state = devices.spread(
            training.begin(_stack([job.params for job in block]), plan.trained), mesh
        )
        order = np.stack(
            [seeded_order(job.rows, plan.steps, plan.batch, job.seed) for job in block]
        )
        size = np.ones(len(block), np.float32)
        rates = devices.spread(
            training.Rates(
                np.array([job.learning_rate for job in block], np.float32),
                size * plan.warm_up,
                size * (np.inf if plan.schedule == "constant" else plan.steps),
            ),
            mesh,
        )
        sequences = common or devices.spread(
            _stack(_same_length([job.sequences for job in block])), mesh
        )
        imitated = [job.imitated for job in block]
        targets = None if imitated[0] is None else devices.spread(_stack(imitated), mesh)
        for start in range(0, plan.steps, _STEPS):
            part = order[:, start : start + _STEPS]
            room = [(0, 0), (0, _STEPS - part.shape[1]), (0, 0)]
            state, losses = training.advance(
                config,
                state,
                sequences,
                devices.spread(np.pad(part, room), mesh),
                rates,
                targets,
                np.asarray(part.shape[1], np.int32),
                objective=plan.objective,
                schedule=plan.schedule,
                mesh=mesh,
                shared=shared,
            )
            if not np.all(np.isfinite(losses)):
                raise HarnessError("training diverged; a lower learning rate is needed")
            if progress is not None:
                progress((number + min(1.0, (start + _STEPS) / plan.steps)) / len(blocks))
        trained += split(devices.gather(state.params, len(block)), len(block))
    return trained


def seeded_order(rows: int, steps: int, batch: int, seed: int) -> Int[np.ndarray, "steps batch"]:
    """The rows of every step of a training with this seed."""
    return training.orders(rows, steps, batch, np.random.default_rng([seed, 3]))


def sample(
    config: DecoderConfig,
    encoding: Encoding,
    jobs: Sequence[tuple[Params, Sequence[Chat], int]],
    sampling: Sampling,
    progress: Progress | None = None,
) -> list[list[list[Completion]]]:
    """The completions of each model for its prompts.

    Args:
        config: of all.
        encoding: of all.
        jobs: parameters, prompts (as many for each, of one width of tokens, with a beginning of one
            length or none), and a seed.
        sampling: how; its seed is not used.
        progress: told how far it is.
    """
    mesh = devices.population_mesh()
    count, each = len(jobs[0][1]), sampling.n
    whole = [encode_prompts(tuple(prompts), encoding) for _, prompts, _ in jobs]
    beginnings, given = zip(*map(split_beginning, whole), strict=True)
    # Of whole prompts, so that what they have in common decides no part, and so no draw.
    places = whole[0].shape[1] + sampling.max_tokens
    few, many = (min(some, most_sequences(config, places)) for some in _SEQUENCES)
    # Prompts of a part; each is read once for all of its completions. Of few prompts a part has not
    # twice as many rows.
    size = max(1, (few if count * each <= few else many) // each)
    size = min(size, max(_SEQUENCES[0], 2 ** (count - 1).bit_length()))
    given = [np.pad(prompts, [(0, -count % size), (0, 0)], mode="edge") for prompts in given]
    # Every part of a model's prompts is a row of the population, so that one model keeps all
    # devices busy too.
    parts = [(model, start) for model in range(len(jobs)) for start in range(0, count, size)]
    drawn: list[generation.Completions] = []
    held: tuple[list[int], Any] = ([], None)
    for block in _blocks(parts, _at_a_time(jobs[0][0], mesh, _PARTS)):
        models = [model for model, _ in block]
        if models != held[0]:
            # Parts of one large model follow each other: it is brought to the device once.
            held = models, devices.spread(_stack([jobs[model][0] for model in models]), mesh)
        keys = [
            jax.random.fold_in(jax.random.fold_in(seed_key(jobs[model][2]), 2), start // size)
            for model, start in block
        ]
        completions = generation.generate(
            config,
            held[1],
            devices.spread(np.stack([given[m][start : start + size] for m, start in block]), mesh),
            devices.spread(jnp.stack(keys), mesh),
            jnp.float32(sampling.temperature),
            None if sampling.top_p is None else jnp.float32(sampling.top_p),
            None
            if beginnings[0] is None
            else devices.spread(np.stack([beginnings[m] for m in models]), mesh),
            max_tokens=sampling.max_tokens,
            stops=encoding.stops,
            mesh=mesh,
            banned=encoding.banned,
            each=each,
        )
        drawn += split(devices.gather(completions, len(block)), len(block))
        if progress is not None:
            progress(len(drawn) / len(parts))
    share = len(parts) // len(jobs)
    found = []
    for model in range(len(jobs)):
        of_model = drawn[model * share : (model + 1) * share]
        flat = _completions(of_model, count * each, encoding)
        found.append([flat[i : i + each] for i in range(0, count * each, each)])
    return found


def _completions(
    parts: Sequence[generation.Completions], count: int, encoding: Encoding
) -> list[Completion]:
    tokens, scores, stopped = (
        np.concatenate([np.asarray(getattr(part, name)) for part in parts])[:count]
        for name in ("tokens", "log_probabilities", "stopped")
    )
    return [
        Completion(encoding.decode(row), "end" if ended else "length", length, score)
        for row, ended, length, score in zip(
            tokens.tolist(),
            stopped.tolist(),
            np.sum(tokens != 0, axis=1).tolist(),
            np.asarray(scores.sum(axis=1, dtype=np.float64)).tolist(),
            strict=True,
        )
    ]


def split(tree: Any, size: int) -> list[Any]:
    """The `size` members of a tree with a leading population axis, on the host."""
    return [jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], tree) for i in range(size)]


def _on_every_device(sequences: training.Sequences, mesh) -> training.Sequences:
    return jax.tree.map(lambda leaf: devices.replicate(leaf, mesh), sequences)


def _same_length(sequences: Sequence[training.Sequences]) -> list[training.Sequences]:
    # One length for many calls, so that few programs are compiled; no step takes a row behind.
    longest = -(-max(len(part.tokens) for part in sequences) // 2048) * 2048

    def padded(leaf: np.ndarray) -> np.ndarray:
        return np.pad(leaf, [(0, longest - len(leaf)), (0, 0)])

    return [part.each_row(padded) for part in sequences]


def most_sequences(config: DecoderConfig, places: int) -> int:
    """How many sequences of so many tokens are drawn at a time, at most; a power of two."""
    width = config.key_value_heads * config.query_width
    # Keys and values.
    bytes_each = 2 * config.layers * places * width * np.dtype(config.dtype).itemsize
    return 2 ** int(np.log2(max(1, _CACHED // bytes_each)))


def _at_a_time(params: Params, mesh: Mesh, most: int) -> int:
    """How many models of a population are on the devices at a time."""
    if devices.lanes(mesh):
        return mesh.size
    return min(most, max(1, _HELD // sum(leaf.size for leaf in jax.tree.leaves(params))))


def _blocks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
