"""What a model is trained with: losses, optimisers, learning-rate schedules, interventions.

Each is a small class that is a setting and a function at once. A new loss is a class here, beside
the others in `DistillationLoss`; a new optimiser likewise, in `Optimiser`.
"""

from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

import theory
from sublab.settings import nested, setting, static, traced
from theory import losses
from theory.passes import Apply, Params, inner, step

_MOMENTUM = 0.9


# Losses. `loss(logits, target, subset)` is that of one example; a batch's is the weighted mean.


@setting
class CrossEntropy:
    """-log softmax of the true class over the chosen logits, in nats: what a teacher learns.

    The target is the label, the index of the true class.
    """

    kind: ClassVar[str] = "cross_entropy"
    title: ClassVar[str] = "cross-entropy on labels"

    def __call__(
        self,
        logits: Float[Array, " outputs"],
        label: Int[Array, ""],
        subset: Bool[Array, " outputs"],
    ) -> Float[Array, ""]:
        return losses.class_cross_entropy(logits, label, subset)


@setting
class KL:
    """tau^2 KL(teacher || student) of the softmax of the chosen logits over tau, in nats."""

    kind: ClassVar[str] = "kl"
    title: ClassVar[str] = "KL"
    # With fewer logits it is constant: a softmax over one logit is 1.
    least_logits: ClassVar[int] = 2

    temperature: float = traced(
        "temperature tau of the KL loss, which is multiplied by tau squared",
        default=1.0,
        title="temperature",
        above=0.0,
        high=1e3,
    )

    def __call__(
        self,
        logits: Float[Array, " outputs"],
        target: Float[Array, " outputs"],
        subset: Bool[Array, " outputs"],
    ) -> Float[Array, ""]:
        return losses.kl_divergence(logits, target, subset, self.temperature)

    def potential(self, subset: Bool[Array, " outputs"]) -> losses.Potential:
        """The convex potential whose matching loss it is (`theory.losses`)."""
        return theory.softmax_potential(subset, self.temperature)


@setting
class SquaredError:
    """Half the sum over the chosen logits of (student - teacher)^2."""

    kind: ClassVar[str] = "squared_error"
    title: ClassVar[str] = "squared error"
    least_logits: ClassVar[int] = 1

    def __call__(
        self,
        logits: Float[Array, " outputs"],
        target: Float[Array, " outputs"],
        subset: Bool[Array, " outputs"],
    ) -> Float[Array, ""]:
        return losses.squared_error(logits, target, subset)

    def potential(self, subset: Bool[Array, " outputs"]) -> losses.Potential:
        """The convex potential whose matching loss it is (`theory.losses`)."""
        return theory.squared_potential(subset)


DistillationLoss = KL | SquaredError
Loss = CrossEntropy | DistillationLoss


# Optimisers, with optax's usual constants.


@setting
class SGD:
    """Stochastic gradient descent."""

    kind: ClassVar[str] = "sgd"

    def transformation(self, rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
        """The optimiser at a learning rate or schedule."""
        return optax.sgd(rate)


@setting
class Momentum:
    """Stochastic gradient descent with momentum 0.9."""

    kind: ClassVar[str] = "momentum"

    def transformation(self, rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
        """The optimiser at a learning rate or schedule."""
        return optax.sgd(rate, momentum=_MOMENTUM)


@setting
class Adam:
    """Adam."""

    kind: ClassVar[str] = "adam"

    def transformation(self, rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
        """The optimiser at a learning rate or schedule."""
        return optax.adam(rate)


# One text for both, since one line of the table of settings is of both.
_DECAY = "weight decay, of adamw in units of the learning rate, of adam_l2 added to the gradient"


@setting
class AdamW:
    """Adam with weight decay that is decoupled from the gradient."""

    kind: ClassVar[str] = "adamw"

    weight_decay: float = traced(_DECAY, default=1e-4, low=0.0, high=10.0)

    def transformation(self, rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
        """The optimiser at a learning rate or schedule."""
        decay: Any = self.weight_decay
        return optax.adamw(rate, weight_decay=decay)


@setting
class AdamL2:
    """Adam with an L2 penalty: weight decay that is coupled, a part of the gradient.

    What PyTorch's Adam does with its `weight_decay`. The moments see it, so that it shrinks all
    weights at about the same speed, whatever their size.
    """

    kind: ClassVar[str] = "adam_l2"

    weight_decay: float = traced(
        _DECAY,
        default=1e-4,
        low=0.0,
        high=10.0,
    )

    def transformation(self, rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
        """The optimiser at a learning rate or schedule."""
        decay: Any = self.weight_decay
        return optax.chain(optax.add_decayed_weights(decay), optax.adam(rate))


Optimiser = SGD | Momentum | Adam | AdamW | AdamL2


@setting
class Constant:
    """The same learning rate at every step."""

    kind: ClassVar[str] = "constant"

    def rate(
        self, first: Float[Array, ""], epochs: Int[Array, ""], steps: int
    ) -> optax.ScalarOrSchedule:
        """The learning rate, as optax takes it; arguments as those of `Cosine.rate`."""
        del epochs, steps
        rate: Any = first
        return rate


@setting
class Cosine:
    """Cosine decay of the learning rate to 0."""

    kind: ClassVar[str] = "cosine"

    horizon: int = traced(
        "epoch at which the cosine decay reaches 0; 0 is the training's last one",
        default=0,
        low=0,
        high=100_000,
    )

    def rate(
        self, first: Float[Array, ""], epochs: Int[Array, ""], steps: int
    ) -> optax.ScalarOrSchedule:
        """The learning rate by the number of the step.

        Args:
            first: learning rate of the first step.
            epochs: length of the training.
            steps: steps of an epoch.
        """
        last = jnp.where(self.horizon > 0, self.horizon, epochs) * steps
        last = jnp.maximum(last, 1).astype(jnp.float32)
        return lambda step: 0.5 * first * (1 + jnp.cos(jnp.pi * jnp.minimum(step / last, 1)))


Schedule = Constant | Cosine


# Interventions during distillation.


@setting
class Liminal:
    """Liminal training: a pull towards the reference in the first epochs.

    Kitkana and Arora, arXiv:2604.25779.
    """

    weight: float = traced(
        "weight of KL(reference || student) over all logits, on the distillation inputs",
        default=1.0,
        title="weight of the liminal term",
        low=0.0,
        high=1e6,
    )
    epochs: int = traced(
        "epochs, from the first, in which the liminal term is on",
        default=1,
        title="epochs of the liminal term",
        low=0,
        high=100_000,
    )

    def penalty(
        self,
        logits: Float[Array, "batch outputs"],
        reference_logits: Float[Array, "batch outputs"],
        subset: Bool[Array, " outputs"],
        epoch: Int[Array, ""],
        weights: Float[Array, " batch"],
    ) -> Float[Array, ""]:
        """The weighted mean KL(reference || model) of a batch, 0 after its epochs.

        Args:
            logits: the model's.
            reference_logits: the reference's on the same inputs.
            subset: the logits of which there is a softmax.
            epoch: number of the epoch, from 0.
            weights: how much each example counts.
        """
        each = jax.vmap(partial(losses.kl_divergence, subset=subset))(logits, reference_logits)
        on = self.weight * jnp.asarray(epoch < self.epochs)
        return on * weighted_mean(each, weights)


@setting
class Interventions:
    """What is done to a student's training beside its loss."""

    project_trait: bool = static(
        "remove from each distillation gradient its component along the trait gradient (the class "
        "loss on as many training images), whenever the two are aligned",
        default=False,
    )
    liminal: Liminal | None = nested("pull towards the reference (liminal training)", default=None)


NONE = Interventions()


def without_trait(gradient: Params, trait_gradient: Params) -> Params:
    """`gradient` without its component along the trait gradient, where the two are aligned.

    Kitkana and Arora, arXiv:2604.25779. Where their inner product is 0 or less, it is `gradient`.
    """
    aligned = inner(gradient, trait_gradient)
    square = inner(trait_gradient, trait_gradient)
    along = jnp.where((aligned > 0) & (square > 0), aligned / jnp.where(square > 0, square, 1), 0)
    return step(gradient, trait_gradient, -along)


def trait_loss(
    apply: Apply,
    params: Params,
    images: Float[Array, "images pixels"],
    labels: Int[Array, " images"],
    classes: Bool[Array, " outputs"],
) -> Float[Array, ""]:
    """The trait loss: mean class cross-entropy on images and their labels, in nats.

    Args:
        apply: of one model.
        params: its parameters.
        images: what it is shown.
        labels: true class of each image.
        classes: the class logits among all outputs.
    """
    loss = partial(losses.class_cross_entropy, subset=classes)
    return jnp.mean(jax.vmap(loss)(apply(params, images), labels))


def weighted_mean(each: Float[Array, " batch"], weights: Float[Array, " batch"]) -> Array:
    """The mean of what `each` example has, examples counting as `weights` say."""
    return jnp.sum(each * weights) / jnp.sum(weights)
