"""Many steps: how the trait is acquired along a real training run, step by step.

For any optimiser with updates u_k along the student's path theta_0 ... theta_K,

    L_T(theta_K) - L_T(theta_0) = sum_k <grad L_T(theta_k), u_k> + sum_k R_k:

the first sum is the first-order account, and R_k what the curvature of L_T adds. (An extension of
the paper, for whose one small step the first sum has one term.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from theory.checks import check_params, check_same_tree
from theory.passes import Params, TraitLoss, cosine, full_precision, inner

DistillationLoss = Callable[[Params, Any], Float[Array, ""]]


@runtime_checkable
class UpdateRule(Protocol):
    """An optimiser: any `optax.GradientTransformation`, or another pair of such functions."""

    @property
    def init(self) -> Callable[..., Any]:
        """init(params) -> state."""
        ...

    @property
    def update(self) -> Callable[..., Any]:
        """update(gradient, state, params) -> (updates, state); updates are added to params."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Account:
    """One row a step; step k goes from theta_k to theta_{k+1}.

    Attributes:
        trait_loss: L_T(theta_k) for k = 0 ... K, one more than there are steps.
        inner_product: <grad L_T, grad L_S> at theta_k; positive where a small step of gradient
            descent on the distillation loss L_S lowers L_T.
        cosine: the cosine of the same two gradients; 0 where one of them is 0.
        layer_inner_product: `inner_product` of the arrays of each layer; together they are
            `inner_product`.
        layer_cosine: `cosine` of the arrays of each layer.
        first_order: <grad L_T(theta_k), u_k>.
        remainder: R_k = L_T(theta_{k+1}) - L_T(theta_k) - first_order.
        second_order: 1/2 u_k^T hess L_T(theta_k) u_k, the leading part of R_k.
        coverage: the cosine of theta_{k+1} - theta_0 with the teacher's displacement; its first
            entry is Madl's coverage (arXiv:2606.22019). None where no teacher was given.
    """

    trait_loss: Float[Array, "*batch steps_and_one"]
    inner_product: Float[Array, "*batch steps"]
    cosine: Float[Array, "*batch steps"]
    layer_inner_product: dict[str, Float[Array, "*batch steps"]]
    layer_cosine: dict[str, Float[Array, "*batch steps"]]
    first_order: Float[Array, "*batch steps"]
    remainder: Float[Array, "*batch steps"]
    second_order: Float[Array, "*batch steps"]
    coverage: Float[Array, "*batch steps"] | None


def layers(params: Params) -> dict[str, list[Array]]:
    """The arrays of each layer: those whose path differs in the array's own name alone.

    >>> sorted(layers({"first": {"kernel": jnp.ones(2), "bias": jnp.ones(1)}, "scale": 1.0}))
    ["['first']", "['scale']"]
    """
    arrays_by_layer: dict[str, list[Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        # A flax variable's array is an attribute of it, below the name that it has in its layer.
        steps = [key for key in path if not isinstance(key, jax.tree_util.GetAttrKey)] or [*path]
        owner = steps[:-1] or steps
        arrays_by_layer.setdefault(jax.tree_util.keystr(tuple(owner)), []).append(leaf)
    return arrays_by_layer


@full_precision
def follow(
    trait_loss: TraitLoss,
    distillation_loss: DistillationLoss,
    optimiser: UpdateRule,
    params: Params,
    batches: Any,
    *,
    teacher: Params | None = None,
) -> tuple[Params, Account]:
    """Trains a student and keeps the account of its trait.

    A step takes the two gradients, one evaluation of L_T, and one forward-over-reverse product.

    Args:
        trait_loss: L_T, from params to a scalar.
        distillation_loss: L_S, from params and a batch to the mean over the batch; for instance,
            of a loss of `theory.losses` with the teacher's logits as part of the batch.
        optimiser: any optimiser of optax, for instance `optax.adam(1e-3)`.
        params: the student's start theta_0.
        batches: a pytree whose leaves have a leading axis of steps.
        teacher: theta_T, which coverage is measured against; None for no coverage.

    Returns:
        theta_K, and the Account.

    Raises:
        ValueError: names the argument that is not usable.
    """
    check_params(params)
    if teacher is not None:
        check_same_tree(params, teacher, "teacher")
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batches)}
    if len(lengths) != 1 or lengths == {()}:
        raise ValueError("batches: every array needs one leading axis, of the same number of steps")
    displacement = None if teacher is None else jax.tree.map(jnp.subtract, teacher, params)

    def advance(
        carry: tuple[Params, Any, Array], batch: Any
    ) -> tuple[tuple[Params, Any, Array], dict[str, Any]]:
        current, state, value = carry
        trait = jax.grad(trait_loss)(current)
        distillation = jax.grad(distillation_loss)(current, batch)
        updates, state = optimiser.update(distillation, state, current)
        after = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), current, updates)
        value_after = trait_loss(after)
        first = inner(trait, updates)
        curvature_product = jax.jvp(jax.grad(trait_loss), (current,), (updates,))[1]
        trait_layers, distillation_layers = layers(trait), layers(distillation)
        row = {
            "trait_loss": value_after,
            "inner_product": inner(trait, distillation),
            "cosine": cosine(trait, distillation),
            "layer_inner_product": {
                name: inner(arrays, distillation_layers[name])
                for name, arrays in trait_layers.items()
            },
            "layer_cosine": {
                name: cosine(arrays, distillation_layers[name])
                for name, arrays in trait_layers.items()
            },
            "first_order": first,
            "remainder": value_after - value - first,
            "second_order": 0.5 * inner(updates, curvature_product),
            "coverage": (
                None
                if displacement is None
                else cosine(jax.tree.map(jnp.subtract, after, params), displacement)
            ),
        }
        return (after, state, value_after), row

    start = trait_loss(params)
    carry = (params, optimiser.init(params), start)
    (trained, _, _), table = jax.lax.scan(advance, carry, batches)
    values = jnp.concatenate([start[None], table.pop("trait_loss")])
    return trained, Account(trait_loss=values, **table)


def coverage(update: Params, displacement: Params) -> Float[Array, ""]:
    """The cosine of a student's update with the teacher's displacement theta_T - theta_0.

    Of a student's first update, it predicts how much of the trait is transmitted (Madl,
    arXiv:2606.22019).

    Args:
        update: the change of the student's parameters.
        displacement: theta_T - theta_0, a pytree like `update`.

    Raises:
        ValueError: the two trees differ.
    """
    check_params(update, "update")
    check_same_tree(update, displacement, "displacement")
    return cosine(update, displacement)
