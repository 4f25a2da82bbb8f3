"""How references are made: pretraining, and cloning of another model's behaviour."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from llm_harness.corpus import Corpus, Language
from llm_harness.model import Lineage, Progress, Tuning, sha256_of
from llm_harness.tiny import TinyModel
from llm_harness.tiny_decoder import DecoderArchitecture, draw
from llm_harness.together import TrainingJob, split, train
from sublab.randomness import seed_key

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
    architecture = DecoderArchitecture(tokenizer.size, setting.width, setting.layers, setting.heads)
    rows = _rows(setting, 1)
    keys = jnp.stack([jax.random.fold_in(seed_key(seed), 1) for seed in seeds])
    drawn = split(jax.tree.map(np.asarray, draw(architecture, keys)), len(seeds))
    tuning = _whole(setting)
    jobs = [
        TrainingJob(params, rows, len(rows), replace(tuning, seed=seed))
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
    jobs = [
        TrainingJob(model.params, rows, len(rows), tuning, other.params) for model, other in pairs
    ]
    made = train(pairs[0][0].architecture, jobs, first=1, progress=progress)
    about = asdict(setting)
    return [
        replace(
            model,
            params=params,
            lineage=model.lineage.trained(
                "cloning",
                sha256_of(["corpus", _CORPUS_VERSION, about]),
                about | {"imitated": other.lineage.identity},
            ),
        )
        for params, (model, other) in zip(made, pairs, strict=True)
    ]


@lru_cache(maxsize=4)
def _rows(setting: Pretraining, stream: int) -> np.ndarray:
    """Documents enough for all steps; another stream has others.

    Remembered: models that are made a few at a time read the same documents.
    """
    random = np.random.default_rng([setting.corpus_seed, stream])
    corpus = Corpus(random, setting.language.tokenizer)
    return corpus.rows(setting.steps * setting.batch, setting.length)


def _whole(setting: Pretraining) -> Tuning:
    """Training of all parameters."""
    return Tuning(
        setting.steps, setting.batch, setting.learning_rate, "cosine", freeze_vocabulary=False
    )
