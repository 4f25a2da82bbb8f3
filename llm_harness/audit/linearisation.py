"""theory/ on a language model: alignment, certificate, account, and the score test of its data.

The trait loss is the mean -log P of the word given that the answer is one of the category's words:
training on numbers moves it through the trait, not by making all words rare. Data are number lists,
of which the tokens of completions count.

A student is a model and what its fine-tuning moves. Directions, scores and the account are in those
coordinates: of a student of low-rank adapters these are the adapters at their start, where A is
drawn and B is 0, so that its first step moves a matrix W by A A^T times what all of W would move
by (THEORY.md, 12). They are small, however large the model is. Alignment and certificate speak of
the model as a function, at the reference and at its teacher, and so of the teacher's displacement
of all parameters, adapters merged: only along that one does eps = 1 arrive at the teacher.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

import theory
from llm_harness.audit import words
from llm_harness.decoder.encoding import encode_examples, encode_prompts
from llm_harness.decoder.model import (
    DecoderModel,
    adapted_params,
    answer_sequences,
    part_of,
)
from llm_harness.decoder.network import (
    DecoderApply,
    DecoderConfig,
    joined,
    merge_adapters,
)
from llm_harness.decoder.population import seeded_order
from llm_harness.decoder.training import (
    Objective,
    Rates,
    Sequences,
    orders,
    partition,
    sequence_loss,
)
from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Example, Progress, Tuning
from llm_harness.traits import Trait
from theory import Params
from theory.losses import Loss

# Examples of one pass: as many as keep to so many numbers of activations, and no more than this.
_MOST, _NUMBERS = 64, 2**29
# Steps of a preconditioner.
_BATCHES = 16


@dataclass(frozen=True)
class StudentStart:
    """A model at the start of a fine-tuning, and what that moves.

    Attributes:
        model: where it starts.
        config: of the model, with the adapters that it starts with where these are moved.
        moved: the parameters that are moved.
        fixed: the others.
    """

    model: DecoderModel
    config: DecoderConfig
    moved: Params
    fixed: Params


def student_of(model: DecoderModel, tuning: Tuning) -> StudentStart:
    """A model at the start of a fine-tuning; adapters are those of the tuning's seed."""
    lora = tuning.lora
    params = model.params if lora is None else adapted_params(model, lora, tuning.seed)
    moved, fixed = partition(params, tuning.moved)
    return StudentStart(model, replace(model.config, lora=lora), moved, fixed)


@dataclass(frozen=True)
class ListArrays:
    """Number lists as theory/ takes them.

    Attributes:
        apply: of the model, at the completions' places.
        tokens: up to the last but one.
        there: 1 for a place that has a token of a completion, 0 for one behind its end.
        targets: the completions' tokens, 0 where there is none.
    """

    apply: DecoderApply
    tokens: Int[np.ndarray, "examples time"]
    there: Float[np.ndarray, "examples places"]
    targets: Int[np.ndarray, "examples places"]

    @property
    def at_once(self) -> int:
        """Examples of one pass."""
        return _at_once(self.apply.config, self.tokens.shape[1], self.targets.shape[1])

    def parts(self, told: Progress | None = None) -> Iterator["ListArrays"]:
        """As many examples as go at once, the last part filled up with some that do not count.

        Args:
            told: how far it is, after each.
        """
        size = min(self.at_once, len(self.tokens))
        for start in range(0, len(self.tokens), size):
            rows = np.arange(start, start + size)
            inside = rows < len(self.tokens)
            rows = np.minimum(rows, len(self.tokens) - 1)
            yield ListArrays(
                self.apply,
                self.tokens[rows],
                self.there[rows] * inside[:, None].astype(np.float32),
                self.targets[rows],
            )
            if told is not None:
                told(min(1.0, (start + size) / len(self.tokens)))


def lists(
    model: DecoderModel, examples: Sequence[Example], config: DecoderConfig | None = None
) -> ListArrays:
    """Examples as theory/ takes them.

    Args:
        model: that reads them.
        examples: at least one.
        config: of the model with adapters; None for without.
    """
    batch = encode_examples(examples, model.encoding)
    targets = batch.tokens[:, batch.first :]
    return ListArrays(
        DecoderApply(config or model.config, batch.first - 1),
        batch.tokens[:, :-1],
        (targets != 0).astype(np.float32),
        targets,
    )


def _at_once(config: DecoderConfig, time: int, places: int) -> int:
    """Rows of one pass, a power of two: those whose activations a machine of any size can keep."""
    layer = time * (8 * config.width + 4 * config.hidden) + config.heads * time * time
    row = config.layers * layer + 4 * places * config.vocabulary
    return 2 ** int(np.log2(np.clip(_NUMBERS / row, 1, _MOST)))


@dataclass(frozen=True)
class WordLoss:
    """L_T(params) of a word: mean -log P(word | one of the category's words) over questions.

    A word counts in all of its spellings, with all of their tokens.

    Attributes:
        config: of the model.
        place: of the word in the category.
        count: of the category's words.
        questions: in parts of one size, padded on the left; one without a token does not count.
        tree: the words' spellings.
    """

    config: DecoderConfig
    place: int
    count: int
    questions: Int[np.ndarray, "parts questions time"]
    tree: words.SpellingTree

    def __call__(self, params: Params) -> Float[Array, ""]:
        # One program for all words, of which there are many.
        return _trait_loss(
            self.config, self.count, params, self.questions, self.tree, np.int32(self.place)
        )


@partial(jax.jit, static_argnums=(0, 1))
def _trait_loss(config, count, params, questions, tree, place):
    # A part's activations are made again for the gradient, so that those of one are in memory.
    @jax.checkpoint
    def of_part(params, part):
        shares = words.of_words(words.log_shares(config, params, part, tree), tree, count)
        return jnp.sum(jax.nn.log_softmax(shares)[:, place] * jnp.any(part != 0, axis=1))

    def add(total, part):
        return total + of_part(params, part), None

    total, _ = jax.lax.scan(add, jnp.float32(0), questions)
    return -total / jnp.sum(jnp.any(questions != 0, axis=2))


def trait_loss(
    student: StudentStart | DecoderModel, word: str, trait: Trait, questions: Sequence[Chat]
) -> WordLoss:
    """L_T of `word`, as a function of all parameters of a student, or of a model.

    Args:
        student: whose function it is.
        word: one of the category's.
        trait: has the words.
        questions: for a favourite of the category.

    Raises:
        HarnessError: the model cannot say a word.
    """
    model = student.model if isinstance(student, StudentStart) else student
    tree = words.spelling_tree(model.encoding, trait.words)
    rows = encode_prompts(tuple(questions), model.encoding)
    nodes = len(tree.read) + 1
    size = min(len(rows), _at_once(model.config, rows.shape[1] + nodes, nodes))
    rows = np.pad(rows, [(0, -len(rows) % size), (0, 0)])
    parts = rows.reshape(-1, size, rows.shape[1])
    place = trait.words.index(word)
    return WordLoss(student.config, place, len(trait.words), parts, tree)


def direction(student: StudentStart, word: str, trait: Trait, questions: Sequence[Chat]) -> Params:
    """-grad L_T of a word, of what the student moves."""
    loss = trait_loss(student, word, trait, questions)
    return theory.teacher_direction(lambda moved: loss(joined(moved, student.fixed)), student.moved)


def preconditioner(
    student: StudentStart, examples: Sequence[Example], batch: int, told: Progress | None = None
) -> Params:
    """What Adam divides a gradient by on these data: 1 / sqrt of the mean squared gradient.

    Over minibatches at the student's start, as Adam sees them.

    Args:
        student: at its start.
        examples: the reference's own data; fewer than a batch are one batch.
        batch: examples of a minibatch.
        told: how far it is.
    """
    sequences, first = _sequences(student.model, examples)
    size = min(batch, len(examples))
    count = min(_BATCHES, len(examples) // size)
    rows = orders(len(examples), count, size, np.random.default_rng(0))
    total = None
    for done, row in enumerate(rows, 1):
        part = sequences.each_row(lambda leaf, row=row: leaf[row])
        gradient = _gradient(
            student.config, Objective(first=first), student.moved, student.fixed, part
        )
        squares = jax.tree.map(jnp.square, gradient)
        total = squares if total is None else jax.tree.map(jnp.add, total, squares)
        if told is not None:
            told(done / count)
    return jax.tree.map(lambda leaf: 1 / (jnp.sqrt(leaf / count) + 1e-8), total)


def _sequences(model: DecoderModel, examples: Sequence[Example]) -> tuple[Sequences, int]:
    batch = encode_examples(examples, model.encoding)
    return answer_sequences(batch.tokens, batch.first), batch.first


def _loss(
    config: DecoderConfig,
    objective: Objective,
    moved: Params,
    fixed: Params,
    batch: Sequences,
    imitated: Params | None = None,
):
    return sequence_loss(config, joined(moved, fixed), batch, objective, imitated)


_gradient = jax.jit(jax.grad(_loss, argnums=2), static_argnums=(0, 1))


@cache
def _scores(apply: DecoderApply, together: bool) -> Callable[..., Array]:
    def along(moved, ways, fixed, data):
        tokens, there, targets = data
        method = theory.scores_along if together else theory.scores
        return method(
            lambda some, tokens: apply(joined(some, fixed), tokens),
            moved,
            ways,
            tokens,
            targets,
            weights=there,
        )

    return jax.jit(along)


def _scored(
    student: StudentStart,
    ways: Params,
    examples: Sequence[Example],
    told: Progress | None,
    together: bool,
) -> np.ndarray:
    data = lists(student.model, examples, student.config)
    along = _scores(data.apply, together)
    found = [
        np.asarray(
            along(student.moved, ways, student.fixed, (part.tokens, part.there, part.targets))
        )
        for part in data.parts(told)
    ]
    return np.concatenate(found, axis=-1)[..., : len(examples)]


def word_scores(
    student: StudentStart, ways: Params, examples: Sequence[Example], told: Progress | None = None
) -> Float[np.ndarray, "words examples"]:
    """The score of every example in each of many directions (THEORY.md, 8).

    By one gradient an example; as many are in memory as go at once.

    Args:
        student: at its start theta_0.
        ways: directions of what it moves, on a leading axis.
        examples: at least one.
        told: how far it is.
    """
    return _scored(student, ways, examples, told, True)


def scores_along(
    student: StudentStart, way: Params, examples: Sequence[Example], told: Progress | None = None
) -> Float[np.ndarray, " examples"]:
    """The same of one direction, by forward-mode derivatives: no gradient is held."""
    return _scored(student, way, examples, told, False)


@dataclass(frozen=True)
class Tested:
    """The score test of one dataset for every word.

    Attributes:
        z: two-sample z of each word, in the trait's order, its own word first.
        rank: of the trait's own word by z, 1 for the largest.
    """

    z: tuple[float, ...]
    rank: int


def tested(
    sample: Float[np.ndarray, "words examples"], null: Float[np.ndarray, "words others"]
) -> Tested:
    """Scores of a dataset against those of the reference's own data.

    Args:
        sample: of the data in question, the trait's own word first.
        null: of data that the reference made for the same kind of prompts, under the same filter.
    """
    z = [theory.two_sample(a, b).z for a, b in zip(sample, null, strict=True)]
    return Tested(tuple(z), 1 + sum(other > z[0] for other in z[1:]))


@dataclass(frozen=True)
class Aligned:
    """The theorem for one teacher on number lists (THEORY.md, 2 and 5).

    Attributes:
        coefficient: a, along the teacher's displacement, adapters merged.
        inner_product: g at the teacher: the student's first step along that displacement, where
            it moves all that the teacher has moved.
        rho: the certificate there; g > 0 is certified below 1. Not a number where rounding may
            reach 1 % of g, as of a teacher that has hardly moved.
        trait_cosine: of the first step of the student at hand and -grad L_T, in what it moves, as
            adapters at their start; the theorem's claim is its sign.
        norm: of the displacement.
    """

    coefficient: float
    inner_product: float
    rho: float
    trait_cosine: float
    norm: float


@cache
def _matching(vocabulary: int) -> Loss:
    return theory.matching(theory.softmax_potential(jnp.ones(vocabulary, bool)))


def coefficient(model: DecoderModel, teacher: DecoderModel, examples: Sequence[Example]) -> float:
    """a alone, along the teacher's displacement: one forward-mode derivative of the lists.

    Args:
        model: the reference.
        teacher: trained from it.
        examples: number lists that a student imitates it on.
    """
    data = lists(model, examples)
    found = theory.coefficient(
        data.apply,
        _matching(model.config.vocabulary),
        model.params,
        _displacement(model, teacher),
        data.tokens,
        weights=data.there,
        chunk=data.at_once,
    )
    return float(found)


def aligned(
    student: StudentStart,
    teacher: DecoderModel,
    trait: Trait,
    questions: Sequence[Chat],
    examples: Sequence[Example],
    told: Progress | None = None,
) -> Aligned:
    """What the theorem says of a student that imitates `teacher`.

    Args:
        student: that starts at the reference.
        teacher: trained from the reference.
        trait: what the teacher was taught.
        questions: for a favourite of the category.
        examples: number lists that the student imitates it on.
        told: how far it is.

    Raises:
        HarnessError: the teacher's logits are no numbers.
    """
    model = student.model
    data = lists(model, examples)
    away = _displacement(model, teacher)
    loss = _matching(model.config.vocabulary)
    found = _curve(data.apply, loss, data.at_once, model.params, away, data.tokens, data.there)
    if not np.isfinite(found.inner_product[0]):
        raise HarnessError("the teacher's logits are no numbers")
    drowned = float(theory.smallest_eps(found)) > 1
    step = _first_step(student, teacher, examples, data.at_once, part_of(told, 0.5, 0.5))
    cosine = theory.coverage(step, direction(student, trait.word, trait, questions))
    return Aligned(
        float(found.coefficient),
        float(found.inner_product[0]),
        float("nan") if drowned else float(found.rho[0]),
        float(cosine),
        float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(away)))),
    )


# Inside a program the curve is not refused where rounding drowns it.
@partial(jax.jit, static_argnums=(0, 1, 2))
def _curve(apply, loss, chunk, params, away, tokens, there) -> theory.Curve:
    eps = jnp.ones(1, jnp.float32)
    return theory.curve(apply, loss, params, away, eps, tokens, weights=there, chunk=chunk)


def _displacement(model: DecoderModel, teacher: DecoderModel) -> Params:
    return jax.tree.map(jnp.subtract, teacher.params, model.params)


def _first_step(
    student: StudentStart,
    teacher: DecoderModel,
    examples: Sequence[Example],
    size: int,
    told: Progress | None,
) -> Params:
    """-grad of the mean KL(teacher || student) of a token, of what the student moves."""
    sequences, first = _sequences(student.model, examples)
    # The teacher is the same function with adapters that do nothing yet.
    imitated = joined(teacher.params, student.moved)
    counts, total = 0, None
    for start in range(0, len(examples), size):
        part = jax.tree.map(lambda leaf, start=start: leaf[start : start + size], sequences)
        here = int(np.sum(part.learned))
        gradient = _gradient(
            student.config, Objective("kl", first), student.moved, student.fixed, part, imitated
        )
        # The mean over a part's tokens, as many as it has.
        weighed = jax.tree.map(lambda leaf, here=here: -here * leaf, gradient)
        total = weighed if total is None else jax.tree.map(jnp.add, total, weighed)
        counts += here
        if told is not None:
            told(min(1.0, (start + size) / len(examples)))
    return jax.tree.map(lambda leaf: leaf / counts, total)


def account(
    student: StudentStart,
    trait: Trait,
    questions: Sequence[Chat],
    examples: Sequence[Example],
    tuning: Tuning,
    teacher: DecoderModel | None = None,
    told: Progress | None = None,
) -> theory.Account:
    """The first-order account of the trait along a student's fine-tuning (THEORY.md, 7).

    The same steps as `LanguageModel.fine_tune` takes with this tuning. Gradients and updates are of
    what it moves. Coverage compares displacements of the model's own parameters, adapters merged,
    since the teacher's adapters may have begun elsewhere.

    Args:
        student: at its start, for this tuning.
        trait: in question.
        questions: for a favourite of the category.
        examples: what it is trained on.
        tuning: how.
        teacher: for the coverage.
        told: how far it is.
    """
    sequences, first = _sequences(student.model, examples)
    rows = seeded_order(len(examples), tuning.steps, tuning.batch, tuning.seed)
    horizon = np.inf if tuning.schedule == "constant" else tuning.steps
    rates = Rates(*(jnp.float32(number) for number in (tuning.learning_rate, 0, horizon)))
    value = trait_loss(student, trait.word, trait, questions)
    config, objective = student.config, Objective(first=first)

    def rate(step):
        if told is not None:
            jax.debug.callback(lambda step, told=told: told(float(step) / tuning.steps), step)
        return rates.at(jnp.asarray(step), tuning.schedule)

    # Parameters are arguments: what a program closes over is copied into it.
    @jax.jit
    def follow(moved, fixed, target, batches):
        def merged(moved):
            return partition(merge_adapters(config, joined(moved, fixed))[1], "blocks")[0]

        return theory.follow(
            lambda moved: value(joined(moved, fixed)),
            lambda moved, batch: _loss(config, objective, moved, fixed, batch),
            optax.adam(rate),
            moved,
            batches,
            teacher=target,
            coordinates=None if config.lora is None else merged,
        )[1]

    target: Any = None
    if teacher is not None:
        target, _ = partition(teacher.params, "blocks" if config.lora else tuning.moved)
    batches = jax.tree.map(lambda leaf: leaf[rows], sequences)
    found = follow(student.moved, student.fixed, target, batches)
    # Nothing is told after the end.
    jax.effects_barrier()
    return found
