"""Many embedded models at once: a population in one compiled program, each as it would be alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from llm_harness import sampling as sampler
from llm_harness import training
from llm_harness.chats import encode_batch
from llm_harness.corpus import Language
from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Progress, Sampling, Tuning
from llm_harness.tiny_decoder import DecoderArchitecture, Params
from sublab import devices
from sublab.randomness import seed_key

# Steps and sequences of one call of a compiled program; progress is told after each.
_STEPS = 64
_SEQUENCES = (64, 1024)
# Parts that an accelerator samples at a time.
_PARTS = 16


@dataclass(frozen=True)
class TrainingJob:
    """One model to train: rows of `tokens` below `examples`, in an order from `tuning.seed`."""

    params: Params
    tokens: Int[np.ndarray, "rows time"]
    examples: int
    tuning: Tuning
    imitated: Params | None = None


def train(
    architecture: DecoderArchitecture,
    jobs: Sequence[TrainingJob],
    first: int,
    progress: Progress | None = None,
    over: tuple[int, int] | None = None,
) -> list[Params]:
    """The parameters of each job's model after its training.

    Args:
        architecture: of all.
        jobs: with equal steps and batch, and the same parts frozen.
        first: the place from which on tokens are learnt.
        progress: told how far it is.
        over: tokens that models are imitated over; None for all, at all places.

    Raises:
        HarnessError: the jobs do not go together, or one diverged.
    """
    mesh = devices.population_mesh()
    blocks = list(_blocks(jobs, mesh.size if devices.lanes(mesh) else len(jobs)))
    made: list[Params] = []
    for number, block in enumerate(blocks):
        freeze = block[0].tuning.freeze_vocabulary
        state = devices.spread(training.begin(_stack([j.params for j in block]), freeze), mesh)
        steps = [job.tuning.steps for job in block]
        longest = max(steps)
        if min(steps) != longest or len({job.tuning.batch for job in block}) > 1:
            raise HarnessError("models that are trained together need equal steps and batch")
        rows = np.stack(
            [
                training.orders(
                    job.examples,
                    longest,
                    job.tuning.batch,
                    np.random.default_rng([job.tuning.seed, 3]),
                )
                for job in block
            ]
        )
        horizons = [j.tuning.steps if j.tuning.schedule == "cosine" else np.inf for j in block]
        rates = training.TinyRates(
            np.array([job.tuning.learning_rate for job in block], np.float32),
            np.array(horizons, np.float32),
        )
        shared = all(job.tokens is block[0].tokens for job in block)
        tokens = (
            devices.replicate(block[0].tokens, mesh)
            if shared
            else devices.spread(_same_length([job.tokens for job in block]), mesh)
        )
        imitated = [job.imitated for job in block]
        targets = None if imitated[0] is None else devices.spread(_stack(imitated), mesh)
        spread = devices.spread(rates, mesh)
        for start in range(0, longest, _STEPS):
            part = devices.spread(rows[:, start : start + _STEPS], mesh)
            state, losses = training.advance(
                architecture,
                state,
                tokens,
                part,
                spread,
                targets,
                first=first,
                mesh=mesh,
                over=over,
            )
            if not np.all(np.isfinite(losses)):
                raise HarnessError("training diverged; a lower learning rate is needed")
            if progress is not None:
                progress((number + min(1.0, (start + _STEPS) / longest)) / len(blocks))
        made += split(devices.gather(state.params, len(block)), len(block))
    return made


def sample(
    architecture: DecoderArchitecture,
    language: Language,
    jobs: Sequence[tuple[Params, Sequence[Chat], Sampling]],
    sampling: Sampling,
    progress: Progress | None,
) -> list[list[list[str]]]:
    """The completions of each model for its prompts.

    Args:
        architecture: of all.
        language: of all.
        jobs: parameters, prompts (as many for each), and a sampling that differs in its seed alone.
        sampling: what the samplings have in common.
        progress: told how far it is.
    """
    mesh, tokenizer = devices.population_mesh(), language.tokenizer
    count, each = len(jobs[0][1]), sampling.n
    # Prompts of a part; each is read once for all of its completions.
    size = _SEQUENCES[0] if count * each <= _SEQUENCES[0] else max(1, _SEQUENCES[1] // each)
    given = [
        np.pad(encoded(tuple(prompts), language), [(0, -count % size), (0, 0)], mode="edge")
        for _, prompts, _ in jobs
    ]
    # Every part of a model's prompts is a row of the population, so that one model keeps all
    # devices busy too.
    parts = [(model, start) for model in range(len(jobs)) for start in range(0, count, size)]
    drawn: list[np.ndarray] = []
    for block in _blocks(parts, mesh.size if devices.lanes(mesh) else _PARTS):
        keys = [
            jax.random.fold_in(jax.random.fold_in(seed_key(jobs[model][2].seed), 2), start // size)
            for model, start in block
        ]
        tokens = sampler.sample(
            architecture,
            devices.spread(_stack([jobs[model][0] for model, _ in block]), mesh),
            devices.spread(np.stack([given[m][start : start + size] for m, start in block]), mesh),
            devices.spread(jnp.stack(keys), mesh),
            jnp.float32(sampling.temperature),
            length=sampling.max_tokens,
            end=tokenizer.end,
            mesh=mesh,
            each=each,
        )
        drawn += list(devices.gather(tokens, len(block)))
        if progress is not None:
            progress(len(drawn) / len(parts))
    found: list[list[list[str]]] = []
    share = len(parts) // len(jobs)
    for model in range(len(jobs)):
        rows = np.concatenate(drawn[model * share : (model + 1) * share])[: count * each]
        texts = [tokenizer.decode(row) for row in rows.tolist()]
        found.append([texts[i : i + each] for i in range(0, count * each, each)])
    return found


@lru_cache(maxsize=32)
def encoded(prompts: tuple[Chat, ...], language: Language) -> Int[np.ndarray, "prompts time"]:
    """`encode_batch`, remembered: the same prompts are given to many models."""
    return encode_batch(prompts, language.tokenizer)


def _same_length(tokens: Sequence[np.ndarray]) -> np.ndarray:
    # One length for many calls, so that few programs are compiled.
    longest = -(-max(len(part) for part in tokens) // 2048) * 2048
    return np.stack([np.pad(part, [(0, longest - len(part)), (0, 0)]) for part in tokens])


def _blocks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def split(tree: Any, size: int) -> list[Any]:
    """The `size` members of a tree with a leading population axis, on the host."""
    return [jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], tree) for i in range(size)]
