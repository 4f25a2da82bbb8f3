"""theory/ on a language model: alignment, certificate, account, and the score test of its data.

The trait loss is the mean -log p of the word given that the answer is one of the category's words:
training on numbers moves it through the trait, not by making all words rare. Directions are 0 in
embedding and output matrix, which fine-tuning leaves as they are. Data are number lists.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

import theory
from llm_harness.decoder.encoding import encode_examples
from llm_harness.decoder.model import DecoderModel, answer_sequences
from llm_harness.decoder.network import DecoderConfig, joined
from llm_harness.decoder.population import seeded_order
from llm_harness.decoder.training import (
    VOCABULARY,
    Objective,
    Rates,
    Sequences,
    orders,
    partition,
    sequence_loss,
)
from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Example, Tuning
from llm_harness.traits import Trait
from theory import Params
from theory.losses import Loss

# Examples of one pass, each with a gradient of its own; places of a list, so that all data are of
# one size and programs are compiled once.
_CHUNK, _PLACES = 64, 12


@dataclass(frozen=True)
class MaskedApply:
    """`apply(params, {"tokens", "there"}) -> logits` at the completions' places.

    Logits of a place without a token are 0 whatever the parameters, so that no loss and no score
    sees them. Equal where the model's function is, so that programs are compiled once.
    """

    apply: Callable[[Any, Any], Any]

    def __call__(
        self, params: Params, inputs: dict[str, Array]
    ) -> Float[Array, "batch places vocabulary"]:
        return self.apply(params, inputs["tokens"]) * inputs["there"][..., None]


@dataclass(frozen=True)
class ListArrays:
    """Number lists as theory/ takes them.

    Attributes:
        apply: of the model.
        inputs: tokens up to the last but one, and which places have a token.
        targets: the completions' tokens, 0 where there is none.
    """

    apply: MaskedApply
    inputs: dict[str, np.ndarray]
    targets: Int[np.ndarray, "examples places"]


def lists(model: DecoderModel, examples: Sequence[Example]) -> ListArrays:
    """Examples as theory/ takes them."""
    view = model.view(examples)
    room = [(0, 0), (0, max(0, _PLACES - view.targets.shape[1]))]
    targets = np.pad(view.targets, room)
    inputs = {"tokens": np.pad(view.inputs, room), "there": (targets != 0).astype(np.float32)}
    return ListArrays(MaskedApply(view.apply), inputs, targets)


def first_tokens(model: DecoderModel, words: Sequence[str]) -> Int[np.ndarray, " words"]:
    """The token that each answer begins with.

    Raises:
        HarnessError: two begin with the same.
    """
    tokens = np.array([model.encoding.answer(word)[0] for word in words])
    if len(set(tokens.tolist())) < len(tokens):
        raise HarnessError(f"two of {', '.join(words)} begin with the same token")
    return tokens


def trait_loss(
    model: DecoderModel, word: str, trait: Trait, questions: Sequence[Chat]
) -> Callable[[Params], Float[Array, ""]]:
    """L_T(params) of `word`: mean -log p(word | one of the category's words) over the questions.

    By the first token of the answer.

    Args:
        model: whose function it is.
        word: one of the category's.
        trait: has the words.
        questions: for a favourite of the category.
    """
    view = model.view([Example(chat, word) for chat in questions])
    words = first_tokens(model, trait.words)
    # What stands behind the question is not read at the first place.
    tokens = view.inputs * (np.arange(view.inputs.shape[1]) < _first(view))
    return partial(
        _trait_loss, view.apply, tokens=tokens, words=words, place=trait.words.index(word)
    )


def _first(view) -> int:
    return view.inputs.shape[1] + 1 - view.targets.shape[1]


@partial(jax.jit, static_argnums=0)
def _trait_loss(apply, params, *, tokens, words, place):
    # One program for all words, of which there are many.
    logits = apply(params, tokens)[:, 0]
    return -jnp.mean(jax.nn.log_softmax(logits[:, words])[:, place])


def moving(tree: Params) -> Params:
    """`tree` with 0 in the parts that fine-tuning leaves as they are."""
    return {
        name: jax.tree.map(jnp.zeros_like, part) if name in VOCABULARY else part
        for name, part in tree.items()
    }


def directions(
    model: DecoderModel, trait: Trait, questions: Sequence[Chat], scale: Params | None = None
) -> Params:
    """-grad L_T of every word of the category, in `trait.words`' order, on a leading axis.

    Args:
        model: at whose parameters.
        trait: has the words.
        questions: for a favourite of the category.
        scale: a preconditioner that each direction is multiplied by.
    """
    found = [
        theory.teacher_direction(trait_loss(model, word, trait, questions), model.params)
        for word in trait.words
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[moving(one) for one in found])
    if scale is None:
        return stacked
    return jax.tree.map(lambda leaf, by: leaf * by, stacked, scale)


def preconditioner(model: DecoderModel, examples: Sequence[Example], tuning: Tuning) -> Params:
    """What Adam divides a gradient by on these data: 1 / sqrt of the mean squared gradient.

    Over minibatches of `tuning.batch` at the model's parameters, as Adam sees them at its start.

    Args:
        model: at whose parameters.
        examples: the reference's own data; fewer than a batch are one batch.
        tuning: the student's.
    """
    sequences, first = _sequences(model, examples)
    size = min(tuning.batch, len(examples))
    count = min(16, len(examples) // size)
    rows = orders(len(examples), count, size, np.random.default_rng(0))
    total = None
    for row in rows:
        batch = jax.tree.map(lambda leaf, row=row: leaf[row], sequences)
        squares = jax.tree.map(jnp.square, _gradient(model.config, first, model.params, batch))
        total = squares if total is None else jax.tree.map(jnp.add, total, squares)
    return jax.tree.map(lambda leaf: 1 / (jnp.sqrt(leaf / count) + 1e-8), total)


def _sequences(model: DecoderModel, examples: Sequence[Example]) -> tuple[Sequences, int]:
    batch = encode_examples(examples, model.encoding)
    return answer_sequences(batch.tokens, batch.first), batch.first


def _loss(config: DecoderConfig, first: int, params: Params, batch: Sequences):
    return sequence_loss(config, params, batch, Objective(first=first))


_gradient = jax.jit(jax.grad(_loss, argnums=2), static_argnums=(0, 1))


@cache
def _scores(apply: MaskedApply) -> Callable[..., Array]:
    def of_all(params, directions, inputs, targets):
        # Directions are 0 in the other parts.
        moved, fixed = partition(params, "blocks")
        ways, _ = partition(directions, "blocks")
        return theory.scores_along(
            lambda some, inputs: apply(joined(some, fixed), inputs),
            moved,
            ways,
            inputs,
            targets,
            chunk=_CHUNK,
        )

    return jax.jit(of_all)


def word_scores(
    model: DecoderModel, ways: Params, examples: Sequence[Example]
) -> Float[np.ndarray, "words examples"]:
    """The score of every example in every direction (THEORY.md, 8).

    Args:
        model: the reference theta_0.
        ways: directions on a leading axis, as `directions` gives.
        examples: of one length and shape of prompts, since each is a compiled program.
    """
    data = lists(model, examples)
    return np.asarray(_scores(data.apply)(model.params, ways, data.inputs, data.targets))


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
        coefficient: a, along the teacher's displacement.
        inner_product: g at the teacher: the student's first step along that displacement.
        rho: the certificate there; g > 0 is certified below 1.
        trait_cosine: of the student's first step and -grad L_T; the theorem's claim is its sign.
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


def aligned(
    model: DecoderModel,
    teacher: DecoderModel,
    trait: Trait,
    questions: Sequence[Chat],
    examples: Sequence[Example],
) -> Aligned:
    """What the theorem says of a student that starts at `model` and imitates `teacher`.

    Args:
        model: the reference.
        teacher: trained from it.
        trait: what the teacher was taught.
        questions: for a favourite of the category.
        examples: number lists that the student imitates it on.
    """
    data = lists(model, examples)
    away = moving(jax.tree.map(jnp.subtract, teacher.params, model.params))
    found = theory.curve(
        data.apply,
        _matching(model.config.vocabulary),
        model.params,
        away,
        np.array([1.0]),
        data.inputs,
        chunk=512,
    )
    student = moving(
        theory.student_direction(
            data.apply,
            _matching(model.config.vocabulary),
            model.params,
            teacher.params,
            data.inputs,
            chunk=512,
        )
    )
    wanted = moving(
        theory.teacher_direction(trait_loss(model, trait.word, trait, questions), model.params)
    )
    return Aligned(
        float(found.coefficient),
        float(found.inner_product[0]),
        float(found.rho[0]),
        float(theory.coverage(student, wanted)),
        float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(away)))),
    )


def account(
    model: DecoderModel,
    trait: Trait,
    questions: Sequence[Chat],
    examples: Sequence[Example],
    tuning: Tuning,
    teacher: DecoderModel | None = None,
) -> theory.Account:
    """The first-order account of the trait along a student's fine-tuning (THEORY.md, 7).

    The same steps as `LanguageModel.fine_tune` takes with this tuning.

    Args:
        model: the student's start.
        trait: in question.
        questions: for a favourite of the category.
        examples: what it is trained on.
        tuning: how.
        teacher: for the coverage.
    """
    sequences, first = _sequences(model, examples)
    rows = seeded_order(len(examples), tuning.steps, tuning.batch, tuning.seed)
    moved, fixed = partition(model.params, tuning.moved)
    horizon = np.inf if tuning.schedule == "constant" else tuning.steps
    rates = Rates(*(jnp.float32(number) for number in (tuning.learning_rate, 0, horizon)))
    value = trait_loss(model, trait.word, trait, questions)

    @jax.jit
    def follow(start, target, batches):
        return theory.follow(
            lambda params: value(joined(params, fixed)),
            lambda params, batch: _loss(model.config, first, joined(params, fixed), batch),
            optax.adam(lambda step: rates.at(jnp.asarray(step), tuning.schedule)),
            start,
            batches,
            teacher=target,
        )[1]

    target: Any = None
    if teacher is not None:
        target, _ = partition(teacher.params, tuning.moved)
    return follow(moved, target, jax.tree.map(lambda leaf: leaf[rows], sequences))
