"""The architectures of the random instances, as flax modules in float64."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

Activation = Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]]

ACTIVATIONS: dict[str, Activation] = {
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "softplus": jax.nn.softplus,
    "relu": jax.nn.relu,
}
CLASSES, OUTPUTS = 3, 5


@dataclass(frozen=True)
class Family:
    """An architecture.

    Attributes:
        name: its name in records and figures.
        kind: `mlp` (without a hidden layer a model linear in its parameters), `cnn` or `attention`.
        hidden: the largest widths of an MLP's two hidden layers; an instance uses a part.
    """

    name: str
    kind: str
    hidden: tuple[int, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example, features last; the first of them D_S never shows."""
        return {"mlp": (7,), "cnn": (4, 4, 2), "attention": (3, 5)}[self.kind]

    @property
    def linear(self) -> bool:
        """Whether the model is linear in its parameters."""
        return self.kind == "mlp" and not self.hidden


FAMILIES = (
    Family("linear", "mlp"),
    # One program for all of them: from 4 to 24 units, and up to 16 in a second layer, or none.
    Family("mlp", "mlp", (24, 16)),
    Family("cnn", "cnn"),
    Family("attention", "attention"),
)


class FamilyModel(nnx.Module):
    """`read_in`, a body of the family's kind, `read_out`; a linear model is `read_out` alone."""

    def __init__(self, family: Family, rngs: nnx.Rngs):
        normal = nnx.initializers.variance_scaling(1.0, "fan_in", "normal")
        settings = {
            "kernel_init": normal,
            "bias_init": nnx.initializers.normal(0.1),
            "param_dtype": jnp.float64,
            "rngs": rngs,
        }
        features = family.input_shape[-1]
        widths = {"mlp": family.hidden, "cnn": (4,), "attention": (6,)}[family.kind]
        if family.kind == "cnn":
            self.read_in = nnx.Conv(features, widths[0], (3, 3), padding="VALID", **settings)
        elif widths:
            self.read_in = nnx.Linear(features, widths[0], **settings)
        if family.kind == "attention":
            # Not flax's own attention: with it the identity showed a gap like that of float32.
            self.attend = nnx.List(nnx.Linear(widths[0], widths[0], **settings) for _ in range(4))
        if len(widths) > 1:
            self.body = nnx.Linear(*widths, **settings)
        # The convolution leaves 2 x 2 places.
        last = 4 * widths[-1] if family.kind == "cnn" else [features, *widths][-1]
        self.read_out = nnx.Linear(last, OUTPUTS, **settings)
        self.kind, self.linear = family.kind, family.linear

    def __call__(
        self,
        inputs: Float[Array, "batch *features"],
        activation: Activation,
        units: list[Bool[Array, " _"]],
        shallow: Bool[Array, ""],
    ) -> Float[Array, "batch outputs"]:
        if self.linear:
            return self.read_out(inputs)
        hidden = self.read_in(inputs)
        if self.kind == "attention":
            return self.read_out(activation(hidden + self._attention(hidden)).mean(axis=-2))
        hidden = activation(hidden)
        if self.kind == "cnn":
            return self.read_out(hidden.reshape(*hidden.shape[:-3], -1))
        first = jnp.where(units[0], hidden, 0.0)
        second = jnp.where(units[1], activation(self.body(first)), 0.0)
        return self.read_out(jnp.where(shallow, first[..., : second.shape[-1]], second))

    def _attention(
        self, hidden: Float[Array, "batch positions width"]
    ) -> Float[Array, "batch positions width"]:
        """Two heads, unmasked."""
        *projections, output = self.attend
        query, key, value = (
            layer(hidden).reshape(*hidden.shape[:-1], 2, hidden.shape[-1] // 2)
            for layer in projections
        )
        weights = jnp.einsum("bqhd,bkhd->bhqk", query, key) / query.shape[-1] ** 0.5
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(weights), value)
        return output(mixed.reshape(hidden.shape))
