"""How the embedded model's references are made: pretraining, also with parts of another model.

Steps are chosen by a rule that sees no trait: doubled, at one learning rate, until at least 90 % of
the lists that a reference writes pass the filter.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from llm_harness.decoder.model import DecoderModel
from llm_harness.decoder.network import DecoderConfig, draw
from llm_harness.decoder.population import TrainingJob, TrainingPlan, split, train
from llm_harness.decoder.training import VOCABULARY, Objective, Sequences, Trained
from llm_harness.errors import HarnessError
from llm_harness.lineage import Lineage, sha256_of
from llm_harness.model import Progress, at_least
from llm_harness.tiny.corpus import WORDS, Corpus, Language
from sublab.randomness import seed_key

# To be raised when `llm_harness.tiny.corpus` writes other documents from the same seed.
_CORPUS_VERSION = 2
# Streams of the corpus: what references read, and what behaviour is matched on.
_READ, _MATCHED = 1, 2

# Parts of a model that another one may be given, and what is then trained.
Shared = Literal["vocabulary", "output", "blocks"]
SHARED: tuple[Shared, ...] = get_args(Shared)
# Of each, the parts that are taken, and what is trained around them.
_PARTS: dict[Shared, tuple[tuple[str, ...], Trained]] = {
    "vocabulary": (VOCABULARY, "blocks"),
    "output": (("lm_head",), "all but output"),
    "blocks": (("layers", "norm"), "vocabulary"),
}


@dataclass(frozen=True)
class Pretraining:
    """How the embedded model is made.

    Attributes:
        steps: of Adam, with a linear rise over the first `warm_up` and cosine decay.
        batch: rows a step.
        length: tokens a row, which holds whole documents that do not see each other.
        learning_rate: the largest.
        warm_up: steps.
        width: of the model.
        layers: blocks.
        heads: of attention.
        hidden: units of a perceptron.
        corpus_seed: of the documents, which all models read, each in its own order.
        language: what the corpus is written in.

    Raises:
        HarnessError: a number is out of its range.
    """

    steps: int = 2048
    batch: int = 64
    length: int = 32
    learning_rate: float | int = 3e-3
    warm_up: int = 64
    width: int = 32
    layers: int = 2
    heads: int = 2
    hidden: int = 96
    corpus_seed: int = 0
    language: Language = field(default_factory=Language)

    def __post_init__(self):
        for name in ("steps", "batch", "length", "width", "layers", "heads", "hidden"):
            at_least(f"pretraining's {name}", getattr(self, name), 1)
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise HarnessError(f"a learning rate is above 0, got {self.learning_rate}")
        if self.width % self.heads:
            raise HarnessError(f"a width of {self.width} cannot be cut among {self.heads} heads")

    @property
    def config(self) -> DecoderConfig:
        """The model's sizes."""
        return DecoderConfig(
            self.language.tokenizer.size,
            self.width,
            self.layers,
            self.heads,
            self.heads,
            self.hidden,
        )


def pretrain(
    seeds: Sequence[int], setting: Pretraining = Pretraining(), progress: Progress | None = None
) -> list[DecoderModel]:
    """References: models that differ in initialisation and in the order of the same corpus.

    Args:
        seeds: one a model.
        setting: how.
        progress: told how far it is.
    """
    drawn = [
        _model(setting, params, reference_lineage(seed, setting))
        for seed, params in zip(seeds, _drawn(seeds, setting), strict=True)
    ]
    return _trained(drawn, seeds, setting, "all", Objective(), _READ, progress)


def reference_lineage(seed: int, setting: Pretraining = Pretraining()) -> Lineage:
    """Where the reference of a seed comes from; its corpus is decided by the setting alone."""
    size = f"{setting.layers} layers of width {setting.width}, {setting.heads} heads"
    return Lineage(f"embedded model, {size}, seed {seed}").trained(
        "pretraining", _corpus_sha256(setting), asdict(setting)
    )


def pretrain_sharing(
    jobs: Sequence[tuple[DecoderModel, int]],
    shared: Shared,
    setting: Pretraining = Pretraining(),
    progress: Progress | None = None,
) -> list[DecoderModel]:
    """Models drawn anew that are given a part of another one, and pretrained around it.

    Args:
        jobs: (model whose part is taken and stays as it is, seed of the others' draw).
        shared: which part: `vocabulary` (embedding and output), `output`, or `blocks`.
        setting: how.
        progress: told how far it is.
    """
    seeds = [seed for _, seed in jobs]
    taken, trained = _PARTS[shared]
    starts = []
    for (other, seed), params in zip(jobs, _drawn(seeds, setting), strict=True):
        lineage = reference_lineage(seed, setting)
        about = asdict(setting) | {"shared": shared, "of": other.lineage.identity}
        lineage = Lineage(lineage.initialisation).trained(
            "pretraining", _corpus_sha256(setting), about
        )
        starts.append(
            _model(setting, params | {name: other.params[name] for name in taken}, lineage)
        )
    return _trained(starts, seeds, setting, trained, Objective(), _READ, progress)


def match(
    pairs: Sequence[tuple[DecoderModel, DecoderModel]],
    setting: Pretraining = Pretraining(),
    progress: Progress | None = None,
) -> list[DecoderModel]:
    """Behavioural cloning: the first model of each pair is trained to answer as the second does.

    By the logits of all tokens, words included, at every place of fresh documents: matching on
    numbers alone cannot carry a word (THEORY.md, 9). All parameters move.

    Args:
        pairs: (model, imitated).
        setting: steps, batch, rate, and the seed of the documents (others than pretraining's).
        progress: told how far it is.
    """
    about = asdict(setting)
    starts = [
        replace(
            model,
            lineage=model.lineage.trained(
                "cloning",
                sha256_of([_corpus_sha256(setting), _MATCHED]),
                about | {"imitated": other.lineage.identity},
            ),
        )
        for model, other in pairs
    ]
    imitated = [other for _, other in pairs]
    objective = Objective("logits")
    return _trained(
        starts, [0] * len(pairs), setting, "all", objective, _MATCHED, progress, imitated
    )


def _trained(
    starts: Sequence[DecoderModel],
    seeds: Sequence[int],
    setting: Pretraining,
    trained: Trained,
    objective: Objective,
    stream: int,
    progress: Progress | None,
    imitated: Sequence[DecoderModel] | None = None,
) -> list[DecoderModel]:
    documents = corpus_rows(setting, stream)
    warm_up = min(setting.warm_up, setting.steps // 2)
    plan = TrainingPlan(objective, trained, setting.steps, setting.batch, "cosine", warm_up)
    jobs = [
        TrainingJob(
            model.params,
            documents,
            len(documents.tokens),
            setting.learning_rate,
            seed,
            imitated[number].params if imitated else None,
        )
        for number, (model, seed) in enumerate(zip(starts, seeds, strict=True))
    ]
    params = train(setting.config, plan, jobs, progress)
    return [replace(model, params=each) for model, each in zip(starts, params, strict=True)]


def _drawn(seeds: Sequence[int], setting: Pretraining):
    keys = jnp.stack([jax.random.fold_in(seed_key(seed), 1) for seed in seeds])
    return split(draw(setting.config, keys), len(seeds))


def _model(setting: Pretraining, params, lineage: Lineage) -> DecoderModel:
    return DecoderModel(setting.config, params, lineage, setting.language.tokenizer)


def _corpus_sha256(setting: Pretraining) -> str:
    about = asdict(setting)
    corpus = {name: about[name] for name in ("steps", "batch", "length", "corpus_seed", "language")}
    return sha256_of(["corpus", _CORPUS_VERSION, corpus, list(WORDS)])


@lru_cache(maxsize=4)
def corpus_rows(setting: Pretraining, stream: int = _READ) -> Sequences:
    """Documents for all steps, each row twice; another stream has others.

    Remembered: models that are made a few at a time read the same documents.
    """
    random = np.random.default_rng([setting.corpus_seed, stream])
    corpus = Corpus(random, setting.language.tokenizer)
    rows = max(setting.batch, setting.steps * setting.batch // 2)
    return corpus.rows(rows, setting.length)
