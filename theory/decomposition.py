"""Where alignment comes from: a and g by layer, by example, and by logit.

Each sums to the whole. g and a by example or logit are what each adds to the mean over rows, its
weight included; by layer, a is the Gram matrix of the layers' directions, since a is quadratic in
the direction, and g is a row of numbers, since g at a given teacher is linear in it. Setting and
conventions are those of `theory.alignment`. (An extension of the paper.)
"""

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from theory.alignment import linearise, student_direction
from theory.bilinear import gram
from theory.checks import check_params, check_same_tree, row_weights
from theory.conditions import mixed_hessian_product
from theory.losses import Loss
from theory.passes import (
    Apply,
    Inputs,
    Params,
    Weights,
    full_precision,
    gathered,
    inner,
    mean_over_rows,
    rows,
    weighed,
)
from theory.trajectory import layers


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LayerGram:
    """a by pairs of layers.

    Attributes:
        layers: the layers' names (`theory.trajectory.layers`).
        matrix: E_x[(J d_l)^T M (J d_m)], with d_l the direction in layer l and 0 elsewhere;
            symmetric, and the sum of all entries is a. Off the diagonal it may be negative.
    """

    layers: tuple[str, ...] = field(metadata={"static": True})
    matrix: Float[Array, "*batch layers layers"]


@full_precision
def coefficient_by_layer(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> LayerGram:
    """a as the Gram matrix of the layers' parts of the direction.

    One forward-mode derivative a layer, all at once: memory for as many activations.

    Args and errors: as for `theory.coefficient`.
    """
    check_params(params)
    check_same_tree(params, direction, "direction")
    leaves, structure = jax.tree.flatten(direction)
    # The layers of numbered leaves tell which leaves are a layer's.
    with jax.ensure_compile_time_eval():
        numbered = layers(jax.tree.unflatten(structure, [*jnp.arange(len(leaves))]))
        numbers = {name: [int(number) for number in owned] for name, owned in numbered.items()}
    parts = [
        jnp.stack([leaf if number in owned else jnp.zeros_like(leaf) for owned in numbers.values()])
        for number, leaf in enumerate(leaves)
    ]
    directions = jax.tree.unflatten(structure, parts)
    matrix = gram(apply, loss, params, directions, inputs, weights=weights, chunk=chunk)
    return LayerGram(tuple(numbers), matrix)


@full_precision
def inner_product_by_layer(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    teacher: Params,
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> dict[str, Float[Array, ""]]:
    """g by layer: <student_direction, direction> of each layer's parameters.

    Args and errors: as for `theory.inner_product_reverse`.
    """
    check_params(params)
    check_same_tree(params, direction, "direction")
    student = student_direction(apply, loss, params, teacher, inputs, weights=weights, chunk=chunk)
    theirs = layers(direction)
    return {name: inner(arrays, theirs[name]) for name, arrays in layers(student).items()}


@full_precision
def coefficient_by_example(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Float[Array, "examples *positions"]:
    """What each example, or position of one, adds to a: 0 or more for a matching loss.

    Args and errors: as for `theory.coefficient`.
    """
    weights = row_weights(apply, params, inputs, chunk, weights, loss=loss, direction=direction)
    return _by_example(apply, loss, params, direction, None, inputs, weights, chunk)


@full_precision
def coefficient_by_logit(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Float[Array, " outputs"]:
    """What each logit adds to a, as E_x[(J d)_i (M J d)_i].

    It may be negative where M couples the logits, as a softmax's does.

    Args and errors: as for `theory.coefficient`.
    """
    weights = row_weights(apply, params, inputs, chunk, weights, loss=loss, direction=direction)
    return _by_logit(apply, loss, params, direction, None, inputs, weights, chunk)


@full_precision
def inner_product_by_example(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    teacher: Params,
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Float[Array, "examples *positions"]:
    """What each example, or position of one, adds to g: which inputs carry the trait.

    Args and errors: as for `theory.inner_product`.
    """
    weights = row_weights(
        apply, params, inputs, chunk, weights, loss=loss, direction=direction, teacher=teacher
    )
    return _by_example(apply, loss, params, direction, teacher, inputs, weights, chunk)


@full_precision
def inner_product_by_logit(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    teacher: Params,
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Float[Array, " outputs"]:
    """What each logit adds to g, as -E_x[dL/dz_i (J d)_i].

    Args and errors: as for `theory.inner_product`.
    """
    weights = row_weights(
        apply, params, inputs, chunk, weights, loss=loss, direction=direction, teacher=teacher
    )
    return _by_logit(apply, loss, params, direction, teacher, inputs, weights, chunk)


@partial(jax.jit, static_argnames=("apply", "loss", "chunk"))
def _by_logit(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    teacher: Params | None,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
) -> Float[Array, " outputs"]:
    def total(part, weights):
        return weighed(weights, _terms(apply, loss, params, direction, teacher, part))

    return mean_over_rows(total, inputs, weights, chunk)


@partial(jax.jit, static_argnames=("apply", "loss", "chunk"))
def _by_example(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    teacher: Params | None,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
) -> Float[Array, "examples *positions"]:
    def of_example(x):
        alone = jax.tree.map(lambda leaf: leaf[None], x)
        terms = _terms(apply, loss, params, direction, teacher, alone)
        return jnp.sum(terms, axis=1).reshape(weights.shape[1:])

    inputs, weights = jax.tree.map(gathered, (inputs, weights))
    by_example = jax.lax.map(of_example, inputs, batch_size=chunk or weights.shape[0])
    # A row that does not count may be no number.
    return jnp.where(weights > 0, by_example * weights, 0) / jnp.sum(weights)


def _terms(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    teacher: Params | None,
    part: Inputs,
) -> Float[Array, "rows outputs"]:
    """What each row and logit gives: of g at the teacher, or of a where there is none."""
    logits, change = linearise(apply, params, direction, part)
    if teacher is None:
        return change * jax.vmap(partial(mixed_hessian_product, loss))(logits, logits, change)
    return -change * jax.vmap(jax.grad(loss))(logits, rows(apply(teacher, part)))
