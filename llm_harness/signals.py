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
from llm_harness import training
from llm_harness.chats import encode_batch, encode_examples
from llm_harness.model import Chat, Example, Tuning
from llm_harness.tiny import TinyModel
from llm_harness.tiny_decoder import VOCABULARY_PARTS, DecoderArchitecture, Params, TinyApply
from llm_harness.traits import Trait
from theory.losses import Loss

# Examples of one pass, each with a gradient of its own.
_CHUNK = 64


@dataclass(frozen=True)
class Answers:
    """`apply(params, {"tokens", "there"}) -> logits` at the completions' places.

    Logits of a place without a token are 0 whatever the parameters, so that no loss and no score
    sees them. Equal where architecture and place are, so that programs are compiled once.
    """

    architecture: DecoderArchitecture
    first: int

    def __call__(
        self, params: Params, inputs: dict[str, Array]
    ) -> Float[Array, "batch places vocabulary"]:
        logits = TinyApply(self.architecture, self.first - 1)(params, inputs["tokens"])
        return logits * inputs["there"][..., None]


@dataclass(frozen=True)
class ListArrays:
    """Number lists as theory/ takes them.

    Attributes:
        apply: of the model.
        inputs: tokens up to the last but one, and which places have a token.
        targets: the completions' tokens, 0 where there is none.
    """

    apply: Answers
    inputs: dict[str, np.ndarray]
    targets: Int[np.ndarray, "examples places"]


def lists(model: TinyModel, examples: Sequence[Example]) -> ListArrays:
    """Examples as theory/ takes them."""
    batch = encode_examples(examples, model.tokenizer)
    # One size for all data, so that programs are compiled once.
    tokens = batch.padded(batch.first, max(batch.places, 12))
    targets = tokens[:, batch.first :]
    inputs = {"tokens": tokens[:, :-1], "there": (targets != 0).astype(np.float32)}
    return ListArrays(Answers(model.architecture, batch.first), inputs, targets)


def trait_loss(
    model: TinyModel, word: str, trait: Trait, questions: Sequence[Chat]
) -> Callable[[Params], Float[Array, ""]]:
    """L_T(params) of `word`: mean -log p(word | one of the category's words) over the questions.

    Args:
        model: whose architecture it is for.
        word: one of the category's.
        trait: has the words.
        questions: for a favourite of the category.
    """
    tokens = encode_batch(questions, model.tokenizer)
    words = np.array([model.tokenizer.token(other) for other in trait.words])
    return partial(
        _trait_loss, model.architecture, tokens=tokens, words=words, place=trait.words.index(word)
    )


@partial(jax.jit, static_argnums=0)
def _trait_loss(architecture, params, *, tokens, words, place):
    # One program for all words, of which there are many.
    logits = TinyApply(architecture, tokens.shape[1] - 1)(params, tokens)[:, 0]
    return -jnp.mean(jax.nn.log_softmax(logits[:, words])[:, place])


def moving(tree: Params) -> Params:
    """`tree` with 0 in the parts that fine-tuning leaves as they are."""
    return {
        name: jax.tree.map(jnp.zeros_like, part) if name in VOCABULARY_PARTS else part
        for name, part in tree.items()
    }


def directions(
    model: TinyModel, trait: Trait, questions: Sequence[Chat], scale: Params | None = None
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


def preconditioner(model: TinyModel, examples: Sequence[Example], tuning: Tuning) -> Params:
    """What Adam divides a gradient by on these data: 1 / sqrt of the mean squared gradient.

    Over minibatches of `tuning.batch` at the model's parameters, as Adam sees them at its start.

    Args:
        model: at whose parameters.
        examples: the reference's own data; fewer than a batch are one batch.
        tuning: the student's.
    """
    batch = encode_examples(examples, model.tokenizer)
    size = min(tuning.batch, len(examples))
    count = min(16, len(examples) // size)
    rows = training.orders(len(examples), count, size, np.random.default_rng(0))
    gradient = jax.jit(jax.grad(partial(training.loss, model.architecture)), static_argnums=2)
    total = None
    for row in rows:
        squares = jax.tree.map(jnp.square, gradient(model.params, batch.tokens[row], batch.first))
        total = squares if total is None else jax.tree.map(jnp.add, total, squares)
    return jax.tree.map(lambda leaf: 1 / (jnp.sqrt(leaf / count) + 1e-8), total)


@cache
def _scores(apply: Answers) -> Callable[..., Array]:
    def of_all(params, directions, inputs, targets):
        # Directions are 0 in the other parts.
        moved = {name: part for name, part in params.items() if name not in VOCABULARY_PARTS}
        ways = {name: directions[name] for name in moved}
        return theory.scores_along(
            lambda some, inputs: apply(params | some, inputs),
            moved,
            ways,
            inputs,
            targets,
            chunk=_CHUNK,
        )

    return jax.jit(of_all)


def word_scores(
    model: TinyModel, ways: Params, examples: Sequence[Example]
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
    model: TinyModel,
    teacher: TinyModel,
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
        _matching(model.architecture.vocabulary),
        model.params,
        away,
        np.array([1.0]),
        data.inputs,
        chunk=512,
    )
    student = moving(
        theory.student_direction(
            data.apply,
            _matching(model.architecture.vocabulary),
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
    model: TinyModel,
    trait: Trait,
    questions: Sequence[Chat],
    examples: Sequence[Example],
    tuning: Tuning,
    teacher: TinyModel | None = None,
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
    batch = encode_examples(examples, model.tokenizer)
    rows = training.orders(
        len(examples), tuning.steps, tuning.batch, np.random.default_rng([tuning.seed, 3])
    )
    horizon = tuning.steps if tuning.schedule == "cosine" else np.inf
    fixed = (
        {name: model.params[name] for name in VOCABULARY_PARTS} if tuning.freeze_vocabulary else {}
    )

    def trained(params: Params) -> Params:
        return {name: part for name, part in params.items() if name not in fixed}

    value = trait_loss(model, trait.word, trait, questions)

    def rate(step):
        return 0.5 * tuning.learning_rate * (1 + jnp.cos(jnp.pi * step / horizon))

    @jax.jit
    def follow(start, target, tokens):
        return theory.follow(
            lambda params: value(params | fixed),
            lambda params, batch_: training.loss(
                model.architecture, params | fixed, batch_, batch.first
            ),
            optax.adam(rate),
            start,
            tokens,
            teacher=target,
        )[1]

    target: Any = None if teacher is None else trained(teacher.params)
    return follow(trained(model.params), target, batch.tokens[rows])
