"""Many steps: how the trait is acquired along a real training run, step by step.

For any optimiser with updates u_k along the student's path theta_0 ... theta_K,

    L_T(theta_K) - L_T(theta_0) = sum_k <grad L_T(theta_k), u_k> + sum_k R_k:

the first sum is the first-order account, and R_k what the curvature of L_T adds. (An extension of
the paper, for whose one small step the first sum has one term.)
"""

import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from theory.checks import check_params, check_same_tree
from theory.passes import Params, TraitLoss, cosine, full_precision, inner, norm

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
        """update(gradient, state, params) -> (updates, state); updates are added to params.

        One that takes `value`, `grad` or `value_fn` by name (optax's
        `GradientTransformationExtraArgs`), as line searches do, is given the distillation loss, its
        gradient, and the loss as a function of params on the step's batch.
        """
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Approach:
    """Where a student is between its start and its teacher, delta = theta_T - theta_0 apart.

    Attributes:
        inner_product: g_k = <-grad L_S(theta_k), theta_T - theta_k> for k = 0 ... K - 1: what
            `theory.inner_product` is at theta_0, of the student as it is now; positive where a
            small step brings it nearer to the teacher.
        distance: |theta_k - theta_T| for k = 0 ... K.
        moved_square: |theta_k - theta_0|^2 for k = 0 ... K.
        moved_along: <theta_k - theta_0, delta> for k = 0 ... K.
    """

    inner_product: Float[Array, "*batch steps"]
    distance: Float[Array, "*batch steps_and_one"]
    moved_square: Float[Array, "*batch steps_and_one"]
    moved_along: Float[Array, "*batch steps_and_one"]


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
        gradient_square: |grad L_S|^2 at theta_k.
        coverage: the cosine of theta_{k+1} - theta_0 with the teacher's displacement; its first
            entry is Madl's coverage (arXiv:2606.22019). None where no teacher was given.
        approach: where the student is between theta_0 and the teacher. None where none was given,
            or one in other coordinates.
    """

    trait_loss: Float[Array, "*batch steps_and_one"]
    inner_product: Float[Array, "*batch steps"]
    cosine: Float[Array, "*batch steps"]
    layer_inner_product: dict[str, Float[Array, "*batch steps"]]
    layer_cosine: dict[str, Float[Array, "*batch steps"]]
    first_order: Float[Array, "*batch steps"]
    remainder: Float[Array, "*batch steps"]
    second_order: Float[Array, "*batch steps"]
    gradient_square: Float[Array, "*batch steps"]
    coverage: Float[Array, "*batch steps"] | None
    approach: Approach | None

    @property
    def always_toward_teacher(self) -> Bool[Array, "*batch"] | None:
        """Whether g_k (`Approach.inner_product`) was positive at every step: Lemma 1, all along.

        With gradient descent at rates eta_k it says that <theta_K - theta_0, delta> is above
        1/2 |theta_K - theta_0|^2 - 1/2 sum of eta_k^2 |grad L_S|^2 (`theory.many_steps`). None
        where no teacher was given.
        """
        return None if self.approach is None else jnp.all(self.approach.inner_product > 0, axis=-1)


def layers(params: Params) -> dict[str, list[Array]]:
    """The arrays of each layer: those whose path differs in the array's own name alone.

    >>> sorted(layers({"first": {"kernel": jnp.ones(2), "bias": jnp.ones(1)}, "scale": 1.0}))
    ["['first']", "['scale']"]
    """
    arrays_by_layer: dict[str, list[Array]] = {}
    leaves = jax.tree_util.tree_leaves_with_path(params)
    holders = Counter(path[:-1] for path, _ in leaves)
    for path, leaf in leaves:
        # A flax variable keeps its array, and nothing else, as its `value`, below its own name.
        held = path[-1:] == (jax.tree_util.GetAttrKey("value"),) and holders[path[:-1]] == 1
        own = path[:-1] if held else path
        owner = own[:-1] or own
        arrays_by_layer.setdefault(jax.tree_util.keystr(owner), []).append(leaf)
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
    coordinates: Callable[[Params], Params] | None = None,
) -> tuple[Params, Account]:
    """Trains a student and keeps the account of its trait.

    A step takes the two gradients, one evaluation of L_T, and one forward-over-reverse product;
    `theory.many_steps` says of the account what a theorem says of such runs.

    Args:
        trait_loss: L_T, from params to a scalar.
        distillation_loss: L_S, from params and a batch to the mean over the batch; for instance,
            of a loss of `theory.losses` with the teacher's logits as part of the batch.
        optimiser: any optimiser of optax, for instance `optax.adam(1e-3)`; also those that need
            the value of the loss, as `optax.lbfgs()` does.
        params: the student's start theta_0.
        batches: a pytree whose leaves have a leading axis of steps, 1 or more.
        teacher: theta_T, which the student's way is measured against; None for no such measures.
        coordinates: what student and teacher have in common, as a function of the student's
            params, where those are others than the teacher's: of low-rank adapters, the matrices
            that they are merged into. `teacher` is given in these, and coverage is measured in
            them. None for the params themselves.

    Returns:
        theta_K, and the Account.

    Raises:
        ValueError: names the argument that is not usable.
    """
    check_params(params)
    place = coordinates or (lambda params: params)
    if teacher is not None:
        check_same_tree(place(params), teacher, "teacher")
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batches)}
    if len(lengths) != 1 or lengths in ({()}, {(0,)}):
        raise ValueError(
            "batches: every array needs one leading axis, of the same number of steps, 1 or more"
        )

    def of_first(params: Params, batches: Any) -> Any:
        return distillation_loss(params, jax.tree.map(lambda leaf: leaf[0], batches))

    _check_one_number(trait_loss, "trait_loss", params)
    _check_one_number(of_first, "distillation_loss", params, batches)
    displacement = None if teacher is None else jax.tree.map(jnp.subtract, teacher, place(params))
    wanted = _extra_arguments(optimiser.update)

    def toward(current: Params) -> dict[str, Array]:
        moved = jax.tree.map(jnp.subtract, current, params)
        return {
            "distance": norm(jax.tree.map(jnp.subtract, current, teacher)),
            "moved_square": inner(moved, moved),
            "moved_along": inner(moved, displacement),
        }

    def advance(
        carry: tuple[Params, Any, Array], batch: Any
    ) -> tuple[tuple[Params, Any, Array], dict[str, Any]]:
        current, state, value = carry
        trait = jax.grad(trait_loss)(current)
        loss, distillation = jax.value_and_grad(distillation_loss)(current, batch)
        extra = {
            "value": loss,
            "grad": distillation,
            "value_fn": lambda changed: distillation_loss(changed, batch),
        }
        updates, state = optimiser.update(
            distillation, state, current, **{name: extra[name] for name in wanted}
        )
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
            "gradient_square": inner(distillation, distillation),
        }
        if teacher is not None:
            moved = jax.tree.map(jnp.subtract, place(after), place(params))
            row["coverage"] = cosine(moved, displacement)
        if teacher is not None and coordinates is None:
            left = jax.tree.map(jnp.subtract, teacher, current)
            row["approach"] = {"inner_product": -inner(distillation, left), **toward(after)}
        return (after, state, value_after), row

    start = trait_loss(params)
    carry = (params, optimiser.init(params), start)
    (trained, _, _), table = jax.lax.scan(advance, carry, batches)
    values = jnp.concatenate([start[None], table.pop("trait_loss")])
    if teacher is None or coordinates is not None:
        table.setdefault("coverage", None)
        return trained, Account(trait_loss=values, approach=None, **table)
    approach = table.pop("approach")
    for name, value in toward(params).items():
        approach[name] = jnp.concatenate([value[None], approach[name]])
    return trained, Account(trait_loss=values, approach=Approach(**approach), **table)


def _check_one_number(loss: Callable[..., Any], name: str, *arguments: Any) -> None:
    found = jax.eval_shape(loss, *arguments)
    if getattr(found, "shape", None) != ():
        shape = getattr(found, "shape", type(found).__name__)
        raise ValueError(f"{name}: must give one number, gives {shape}")


def _extra_arguments(update: Callable[..., Any]) -> list[str]:
    """Which of optax's extra arguments an update takes."""
    known = ["value", "grad", "value_fn"]
    try:
        taken = inspect.signature(update).parameters.values()
    except ValueError:
        return []
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
        return known
    return [name for name in known if name in {parameter.name for parameter in taken}]


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
