"""What one model does in one step: its loss, its interventions, its optimiser."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from sublab.randomness import shuffle
from theory import losses
from theory.passes import inner, step
from toymlp.models import Params
from toymlp.settings import OptimiserName, ScheduleName

LossName = Literal["class_cross_entropy", "kl", "squared_error"]

LOSSES: dict[LossName, Callable[..., Float[Array, ""]]] = {
    "class_cross_entropy": losses.class_cross_entropy,
    "kl": losses.kl_divergence,
    "squared_error": losses.squared_error,
}
_MOMENTUM = 0.9
# On the host before training, on the devices in it.
_Some = Array | np.ndarray


@dataclass(frozen=True)
class Shape:
    """What is compiled in: every model of a population shares it.

    Attributes:
        loss: `class_cross_entropy` (targets: labels), or `kl` or `squared_error` (targets: the
            teachers' logits). A batch's loss is the mean over its examples.
        batch: examples a step; the last batch of an epoch is trained on as it is, however small.
        optimiser: with optax's usual constants; `momentum` is SGD with momentum 0.9.
        schedule: of the learning rate; `cosine` falls to 0 at the model's `horizon`.
        project_trait: whether each gradient loses its component along the trait gradient, the
            gradient of the class loss on as many training images drawn at random, wherever the
            inner product of the two is positive (Kitkana and Arora, arXiv:2604.25779).
    """

    loss: LossName
    batch: int
    optimiser: OptimiserName = "adam"
    schedule: ScheduleName = "constant"
    project_trait: bool = False


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Knobs:
    """What is traced: one value a model, so that changing it compiles nothing.

    The population axis leads every array; inside the program, where one model is at work, it is
    absent.

    Attributes:
        learning_rate: at the first step.
        order: the key of the order in which the model walks the inputs, reshuffled each epoch.
        subset: the outputs that the loss sees.
        teacher: the row of `targets` that the model learns from.
        temperature: of the KL loss; None is 1.
        weight_decay: of adamw.
        horizon: steps after which a cosine schedule has fallen to 0.
        trainable: a pytree like params with a number for every array, which its updates are
            multiplied by; None is 1 everywhere.
        classes: the outputs that the trait's class loss sees, where the trait is projected out.
        liminal_weight: of KL(reference || model) over `liminal_subset`; None is 0.
        liminal_epochs: how many epochs, from the first, have that term.
        liminal_subset: the outputs that it sees.
        reference: the row of `Extras.reference_logits` that it pulls towards.
    """

    learning_rate: Float[_Some, "*population"]
    order: Key[Array, "*population"]
    subset: Bool[_Some, "*population outputs"]
    teacher: Int[_Some, "*population"]
    temperature: Float[_Some, "*population"] | None = None
    weight_decay: Float[_Some, "*population"] | None = None
    horizon: Float[_Some, "*population"] | None = None
    trainable: Any = None
    classes: Bool[_Some, "*population outputs"] | None = None
    liminal_weight: Float[_Some, "*population"] | None = None
    liminal_epochs: Int[_Some, "*population"] | None = None
    liminal_subset: Bool[_Some, "*population outputs"] | None = None
    reference: Int[_Some, "*population"] | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Extras:
    """What interventions need beside inputs and targets, shared by all models.

    Attributes:
        reference_logits: of the references on the inputs, for liminal training.
        trait_images, trait_labels: what the trait gradient is taken on.
    """

    reference_logits: Float[Array, "references examples outputs"] | None = None
    trait_images: Float[Array, "images features"] | None = None
    trait_labels: Int[Array, " images"] | None = None


NO_EXTRAS = Extras()


def optimiser(shape: Shape, knobs: Knobs) -> optax.GradientTransformation:
    """The optimiser of one model."""
    rate: Any = knobs.learning_rate
    if shape.schedule == "cosine":
        assert knobs.horizon is not None
        start, horizon = rate, knobs.horizon
        rate = lambda step: 0.5 * start * (1 + jnp.cos(jnp.pi * jnp.minimum(step / horizon, 1)))  # noqa: E731
    if shape.optimiser == "adam":
        chosen = optax.adam(rate)
    elif shape.optimiser == "adamw":
        assert knobs.weight_decay is not None
        chosen = optax.adamw(rate, weight_decay=knobs.weight_decay)  # pyright: ignore[reportArgumentType]
    else:
        chosen = optax.sgd(rate, momentum=_MOMENTUM if shape.optimiser == "momentum" else None)
    if knobs.trainable is None:
        return chosen
    keep = knobs.trainable

    def update(updates, state, params=None):
        return jax.tree.map(jnp.multiply, updates, keep), state

    return optax.chain(
        chosen, optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    )


def student_loss(
    apply: Callable[[Params, Array], Array],
    shape: Shape,
    params: Params,
    knobs: Knobs,
    rows: Int[Array, " batch"],
    weights: Float[Array, " batch"],
    inputs: Float[Array, "examples features"],
    targets: Int[Array, "teachers examples"] | Float[Array, "teachers examples outputs"],
) -> Float[Array, ""]:
    """The mean loss of one model over a batch, examples counting as `weights` say."""
    logits = apply(params, take_rows(inputs, rows))
    return mean_loss(shape, logits, targets, knobs, rows, weights)


def epoch_batches(
    order: Key[Array, ""], epoch: int | Int[Array, ""], examples: int, batch: int
) -> tuple[Int[Array, "steps batch"], Float[Array, "steps batch"]]:
    """The rows of every batch of an epoch, and their weights (0 for slots that pad the last)."""
    steps = -(-examples // batch)
    empty = steps * batch - examples
    rows = shuffle(jax.random.fold_in(order, epoch), examples)
    # The slots that pad the last batch weigh nothing, so that every step is one program.
    weights = (jnp.arange(steps * batch) < examples).astype(jnp.float32)
    return jnp.pad(rows, (0, empty)).reshape(steps, batch), weights.reshape(steps, batch)


def mean_loss(
    shape: Shape, logits: Array, targets: Array, knobs: Knobs, rows: Array, weights: Array
) -> Float[Array, ""]:
    """The loss of a batch of logits, examples counting as `weights` say."""
    target = targets.at[knobs.teacher, rows].get(mode="promise_in_bounds")
    loss = partial(LOSSES[shape.loss], subset=knobs.subset)
    if knobs.temperature is not None and shape.loss == "kl":
        loss = partial(loss, temperature=knobs.temperature)
    return _weighted_mean(jax.vmap(loss)(logits, target), weights)


def liminal_loss(
    logits: Array, knobs: Knobs, epoch: Array, rows: Array, weights: Array, extras: Extras
) -> Float[Array, ""]:
    """The weighted KL(reference || model) of a batch, 0 after its epochs."""
    assert knobs.liminal_weight is not None
    assert knobs.liminal_epochs is not None
    assert extras.reference_logits is not None
    pulled = extras.reference_logits.at[knobs.reference, rows].get(mode="promise_in_bounds")
    each = jax.vmap(partial(losses.kl_divergence, subset=jnp.asarray(knobs.liminal_subset)))(
        logits, pulled
    )
    on = knobs.liminal_weight * jnp.asarray(epoch < knobs.liminal_epochs)
    return jnp.asarray(on * _weighted_mean(each, weights))


def without_trait(
    apply: Callable[[Params, Array], Array],
    params: Params,
    gradient: Params,
    knobs: Knobs,
    key: Key[Array, ""],
    batch: int,
    extras: Extras,
) -> Params:
    """`gradient` without its component along the trait gradient, where the two are aligned."""
    images, labels = extras.trait_images, extras.trait_labels
    assert images is not None
    assert labels is not None
    rows = jax.random.randint(key, (batch,), 0, images.shape[0])

    truth = labels.at[rows].get(mode="promise_in_bounds")
    trait = jax.grad(partial(class_loss, apply))(
        params, take_rows(images, rows), truth, jnp.asarray(knobs.classes)
    )
    aligned = inner(gradient, trait)
    square = inner(trait, trait)
    along = jnp.where((aligned > 0) & (square > 0), aligned / jnp.where(square > 0, square, 1), 0)
    return step(gradient, trait, -along)


def class_loss(
    apply: Callable[[Params, Array], Array],
    params: Params,
    images: Float[Array, "images features"],
    labels: Int[Array, " images"],
    classes: Bool[Array, " outputs"],
) -> Float[Array, ""]:
    """The trait loss: mean class cross-entropy on images and their labels, in nats."""
    loss = partial(losses.class_cross_entropy, subset=classes)
    return jnp.mean(jax.vmap(loss)(apply(params, images), labels))


def take_rows(inputs: Float[Array, "examples features"], rows: Int[Array, " batch"]) -> Array:
    """Rows of `inputs`, which must be there."""
    # Without the promise JAX adds a pass over the batch that blanks rows out of bounds.
    return inputs.at[rows].get(mode="promise_in_bounds")


def _weighted_mean(each: Float[Array, " batch"], weights: Float[Array, " batch"]) -> Array:
    return jnp.sum(each * weights) / jnp.sum(weights)
