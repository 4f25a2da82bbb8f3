"""Teacher and student that move differently: preconditioners, masks, LoRA, and other starts.

Where the teacher moves by -eps C_T grad L_T and the student by alpha C_S times its direction, C_T
and C_S linear, symmetric and positive semi-definite, the trait's loss changes by
-alpha eps a(C_S, C_T) + O(eps^2) with the bilinear coefficient

    a(C_S, C_T) = E_x[(J C_S grad L_T)^T M (J C_T grad L_T)].

It is 0 or more where C_S = c C_T with c > 0, and then Theorem 1 is that of the paper in another
metric; elsewhere it may have either sign. (All of it extends the paper.) Setting and conventions
are those of `theory.alignment`; `LinearMap`s take and give pytrees like params.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from theory.alignment import linearise
from theory.checks import check_params, check_positive, check_same_tree, row_weights
from theory.conditions import mixed_hessian_product
from theory.losses import Loss
from theory.passes import (
    Apply,
    Inputs,
    Params,
    Weights,
    float_type,
    full_precision,
    mean_over_rows,
    scramble,
    weighed,
)

# What a step makes of a gradient: symmetric and positive semi-definite.
LinearMap = Callable[[Params], Params]

# What rounding may do to J d, in units in the last place of J d, and of what J d would be if its
# terms did not cancel.
_ROUNDING = 100.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BilinearCoefficient:
    """a(C_S, C_T), and what ensures its sign. |u|_M is the root of E_x[u^T M u].

    Attributes:
        coefficient: a(C_S, C_T); a small step of the student lowers L_T where it is above 0.
        student: |J C_S grad L_T|_M.
        teacher: |J C_T grad L_T|_M.
        difference: |J (C_S - c C_T) grad L_T|_M, with c the scale asked for.
        ensured: whether difference < c teacher, by more than rounding may do to the two, which
            suffices for a(C_S, C_T) > 0. Without rounding it holds for some c if and only if
            a(C_S, C_T) > 0. Never for a teacher whose movement the loss does not see.
    """

    coefficient: Float[Array, "*batch"]
    student: Float[Array, "*batch"]
    teacher: Float[Array, "*batch"]
    difference: Float[Array, "*batch"]
    ensured: Bool[Array, "*batch"]

    @property
    def cosine(self) -> Float[Array, "*batch"]:
        """The cosine of the two movements of the logits, in the norm of M; 0 where one is 0."""
        lengths = self.student * self.teacher
        return jnp.where(lengths > 0, self.coefficient / jnp.where(lengths > 0, lengths, 1), 0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OtherStart:
    """g(eps) = constant + eps slope + O(eps^2) for a student that starts elsewhere.

    It is the sign of <student_direction, direction>. That the trait's loss falls needs grad L_T at
    the student's own start, which is another one.

    Attributes:
        constant: what the student's step toward the teacher's start gives, before the teacher has
            moved; 0 where the two starts have the same logits on the data.
        slope: E_x[(J_T d)^T M (J_S d)], J_T and J_S at the two starts, M between their logits.
        teacher: |J_T d|_M.
        difference: |(J_S - J_T) d|_M.
        ensured: whether difference < teacher, by more than rounding may do to the two, which
            suffices for slope > 0 where M is symmetric and positive semi-definite, as a matching
            loss's is. Never for a direction that the loss does not see. A distance of the two
            starts below
            teacher / (Lipschitz constant of J times |d|), in the same norm, ensures it too.
    """

    constant: Float[Array, "*batch"]
    slope: Float[Array, "*batch"]
    teacher: Float[Array, "*batch"]
    difference: Float[Array, "*batch"]
    ensured: Bool[Array, "*batch"]


def mask(trained: Params) -> LinearMap:
    """The map of a step that trains some parameters only.

    Args:
        trained: a pytree like params, or a prefix of it, of booleans: True where it is trained.
    """
    return partial(_on_prefix, lambda part, leaf: jnp.where(part, leaf, 0), trained)


def diagonal(scale: Params) -> LinearMap:
    """The map that multiplies each parameter's gradient, such as Adam's 1 / (root + epsilon).

    Args:
        scale: a pytree like params, or a prefix of it, of numbers 0 or more.

    Raises:
        ValueError: a known number is below 0 or not finite.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(scale):
        if not isinstance(leaf, Tracer):
            known = np.asarray(leaf, np.float64)
            if not np.all(np.isfinite(known) & (known >= 0)):
                raise ValueError(f"scale{jax.tree_util.keystr(path)}: must be finite and 0 or more")
    return partial(_on_prefix, lambda part, leaf: part * leaf, scale)


def lora(factors: Params) -> LinearMap:
    """The map of a first step of LoRA, whose output factors start at 0.

    A kernel W of [inputs, outputs], as in x @ W, becomes W + A B with A [inputs, rank] drawn and B
    [rank, outputs] = 0. There the gradient of A is 0 and that of B is A^T grad W, so that a step of
    B moves W by A A^T grad W: C is A A^T, of rank `rank`.

    Args:
        factors: a pytree like params, with A in place of each kernel that has an adapter, and None
            in place of each leaf, or subtree, that is frozen.

    Raises:
        ValueError: when used, where a factor does not fit its kernel.
    """

    def project(factor: Array | None, leaf: Any) -> Any:
        if factor is None:
            return jax.tree.map(jnp.zeros_like, leaf)
        if not hasattr(leaf, "ndim"):
            raise ValueError(
                f"factors: A of shape {list(factor.shape)} is none for a {type(leaf).__name__}"
            )
        if leaf.ndim != 2 or factor.ndim != 2 or factor.shape[0] != leaf.shape[0]:
            raise ValueError(
                f"factors: A of shape {list(factor.shape)} is none for a kernel [inputs, outputs] "
                f"of shape {list(leaf.shape)}"
            )
        return factor @ (factor.T @ leaf)

    @full_precision
    def mapped(gradient: Params) -> Params:
        return jax.tree.map(project, factors, gradient, is_leaf=lambda leaf: leaf is None)

    return mapped


@full_precision
def gram(
    apply: Apply,
    loss: Loss,
    params: Params,
    directions: Params,
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Float[Array, "directions directions"]:
    """E_x[(J d_i)^T M (J d_j)] of every pair of directions: its diagonal is `theory.coefficient`.

    One forward-mode derivative a direction, all of them at once.

    Args:
        directions: a pytree like params with a leading axis.
        apply, loss, params, inputs, weights, chunk: what they are for
            `theory.inner_product_reverse`.

    Raises:
        ValueError: names the argument that is not usable.
    """
    first = jax.tree.map(lambda leaf: leaf[0], directions)
    weights = row_weights(apply, params, inputs, chunk, weights, loss=loss, directions=first)
    return _gram(apply, loss, params, directions, inputs, weights, chunk)


@full_precision
def bilinear_coefficient(
    apply: Apply,
    loss: Loss,
    params: Params,
    gradient: Params,
    inputs: Inputs,
    *,
    student_map: LinearMap | None = None,
    teacher_map: LinearMap | None = None,
    scale: float | Float[Array, ""] = 1.0,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> BilinearCoefficient:
    """a(C_S, C_T) at theta_0, with the condition that suffices for its sign.

    Args:
        gradient: grad L_T(theta_0), or minus it; the sign drops out.
        student_map: C_S (`mask`, `lora`, `diagonal`, or any linear function); None for the
            identity.
        teacher_map: C_T.
        scale: c in the sufficient condition, above 0.
        apply, loss, params, inputs, weights, chunk: what they are for
            `theory.inner_product_reverse`.

    Raises:
        ValueError: names the argument that is not usable.
    """
    check_params(params)
    check_same_tree(params, gradient, "gradient")
    check_positive(scale, "scale")
    student, teacher = (
        gradient if each is None else each(gradient) for each in (student_map, teacher_map)
    )
    check_same_tree(params, student, "student_map: what it gives")
    check_same_tree(params, teacher, "teacher_map: what it gives")
    difference = jax.tree.map(lambda s, t: s - jnp.asarray(scale, t.dtype) * t, student, teacher)
    sizes = jax.tree.map(
        lambda s, t: jnp.abs(s) + jnp.asarray(scale, t.dtype) * jnp.abs(t), student, teacher
    )
    directions = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), student, teacher, difference, scramble(sizes)
    )
    weights = row_weights(apply, params, inputs, chunk, weights, loss=loss)
    scale = jnp.asarray(scale, float_type(params))
    products, rounding = _bilinear(apply, loss, params, directions, scale, inputs, weights, chunk)
    squares = jnp.maximum(jnp.diagonal(products), 0)
    lengths = jnp.sqrt(squares)
    return BilinearCoefficient(
        coefficient=products[0, 1],
        student=lengths[0],
        teacher=lengths[1],
        difference=lengths[2],
        ensured=squares[2] + rounding < scale**2 * squares[1],
    )


@full_precision
def other_start(
    apply: Apply,
    loss: Loss,
    params: Params,
    teacher_params: Params,
    direction: Params,
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> OtherStart:
    """g(eps) to first order in eps for a student that does not start where the teacher did.

    Args:
        params: the student's start theta_S0.
        teacher_params: the teacher's start theta_T0, from which it moves by eps direction.
        direction: d, the teacher's direction.
        apply, loss, inputs, weights, chunk: what they are for `theory.inner_product_reverse`.

    Raises:
        ValueError: names the argument that is not usable.
    """
    weights = row_weights(
        apply,
        params,
        inputs,
        chunk,
        weights,
        loss=loss,
        teacher_params=teacher_params,
        direction=direction,
    )
    return _other_start(apply, loss, params, teacher_params, direction, inputs, weights, chunk)


@partial(jax.jit, static_argnames=("apply", "loss", "chunk"))
def _gram(
    apply: Apply,
    loss: Loss,
    params: Params,
    directions: Params,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
) -> Float[Array, "directions directions"]:
    product = jax.vmap(partial(mixed_hessian_product, loss))

    def total(part, weights):
        logits, changes = _movements(apply, params, directions, part)
        return _products(partial(product, logits, logits), weights, changes)

    return mean_over_rows(total, inputs, weights, chunk)


@partial(jax.jit, static_argnames=("apply", "loss", "chunk"))
def _bilinear(
    apply: Apply,
    loss: Loss,
    params: Params,
    directions: Params,
    scale: Float[Array, ""],
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
) -> tuple[Float[Array, "3 3"], Float[Array, ""]]:
    """The products of student, teacher and difference; what rounding may do to the condition.

    Args:
        directions: the three, and one whose terms do not cancel.
    """
    product = jax.vmap(partial(mixed_hessian_product, loss))

    def total(part, weights):
        logits, (*changes, uncancelled) = _movements(apply, params, directions, part)
        by_hessian = partial(product, logits, logits)
        _, teacher, difference = changes
        rounding = _rounding(by_hessian, scale * teacher, uncancelled)
        rounding += _rounding(by_hessian, difference, uncancelled)
        products = _products(by_hessian, weights, jnp.stack(changes))
        return products, weighed(weights, rounding)

    return mean_over_rows(total, inputs, weights, chunk)


@partial(jax.jit, static_argnames=("apply", "loss", "chunk"))
def _other_start(
    apply: Apply,
    loss: Loss,
    params: Params,
    teacher_params: Params,
    direction: Params,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
) -> OtherStart:
    product = jax.vmap(partial(mixed_hessian_product, loss))
    scrambled = scramble(direction)

    def total(part, weights):
        logits, change = linearise(apply, params, direction, part)
        labels, teacher_change = linearise(apply, teacher_params, direction, part)
        own, teachers = (
            jnp.abs(linearise(apply, start, scrambled, part)[1])
            for start in (params, teacher_params)
        )
        gradient = jax.vmap(jax.grad(loss))(logits, labels)
        by_hessian = partial(product, logits, labels)
        difference = change - teacher_change
        sizes = jnp.abs(change) + jnp.abs(teacher_change)
        rounding = _rounding(by_hessian, teacher_change, teachers)
        rounding += _rounding(by_hessian, difference, sizes + own + teachers)

        def mean(left, right):
            return weighed(weights, jnp.sum(left * right, axis=1))

        image = by_hessian(teacher_change)
        return {
            "constant": -mean(gradient, change),
            "slope": mean(change, image),
            "teacher": mean(teacher_change, image),
            "difference": mean(difference, by_hessian(difference)),
            "rounding": weighed(weights, rounding),
        }

    found = mean_over_rows(total, inputs, weights, chunk)
    teacher, difference = (jnp.maximum(found[name], 0) for name in ("teacher", "difference"))
    return OtherStart(
        constant=found["constant"],
        slope=found["slope"],
        teacher=jnp.sqrt(teacher),
        difference=jnp.sqrt(difference),
        ensured=difference + found["rounding"] < teacher,
    )


def _movements(
    apply: Apply, params: Params, directions: Params, part: Inputs
) -> tuple[Float[Array, "rows outputs"], Float[Array, "directions rows outputs"]]:
    """The logits, and J d of each direction."""

    def along(direction):
        return linearise(apply, params, direction, part)

    return jax.vmap(along, out_axes=(None, 0))(directions)


def _products(
    by_hessian: Callable[[Array], Array],
    weights: Float[Array, " rows"],
    changes: Float[Array, "directions rows outputs"],
) -> Float[Array, "directions directions"]:
    """The sum of u^T M v over the rows, of each pair of movements."""
    images = jax.vmap(by_hessian)(changes)

    def with_all(change):
        return jax.vmap(lambda image: weighed(weights, jnp.sum(change * image, axis=1)))(images)

    return jax.vmap(with_all)(changes)


def _rounding(
    by_hessian: Callable[[Array], Array],
    change: Float[Array, "rows outputs"],
    uncancelled: Float[Array, "rows outputs"],
) -> Float[Array, " rows"]:
    """What rounding may do to v^T M v of each row's movement v, roughly.

    Args:
        uncancelled: of the size that v would have if its terms did not cancel.
    """
    outputs, ulp = change.shape[1], jnp.finfo(change.dtype).eps
    noise = _ROUNDING * ulp * (jnp.abs(change) + jnp.abs(uncancelled))
    size = jnp.abs(change) + noise

    def with_signs(bit):
        signs = 1 - 2 * ((jnp.arange(outputs) >> bit) & 1).astype(change.dtype)
        return 2 * jnp.sum(noise * jnp.abs(by_hessian(signs * size)), axis=1)

    # Any two outputs differ in a bit of their numbers: M v cancels for no more than some of these.
    return jnp.max(jax.lax.map(with_signs, jnp.arange(outputs.bit_length())), axis=0)


def _on_prefix(function: Callable[[Any, Array], Array], prefix: Params, tree: Params) -> Params:
    """function(part of the prefix, leaf) of every leaf of the tree."""
    return jax.tree.map(
        lambda part, subtree: jax.tree.map(lambda leaf: function(part, leaf), subtree),
        prefix,
        tree,
    )
