"""The theory's claims, evaluated on random instances.

`evaluate` draws one instance and returns one number for each claim; `experiments.verify.claims`
says what that number is and which side of its bound it must be on.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from experiments.verify import instances
from experiments.verify.claims import CLAIMS, WRONG_LOSSES
from experiments.verify.families import ACTIVATIONS, OUTPUTS, Family
from experiments.verify.instances import Instance, Kinds, one_by_one
from theory import score
from theory.alignment import (
    inner_product,
    linearise,
    student_direction,
    teacher_direction,
    unit_of_eps,
)
from theory.certificate import Curve, curve
from theory.conditions import conditions, within_reach
from theory.guarantee import curvature_along, safe_step
from theory.losses import Loss
from theory.passes import (
    Apply,
    Params,
    TraitLoss,
    cosine,
    inner,
    norm,
    rows,
    step,
    unit_quadrature,
)
from theory.trajectory import follow

# In units of 1 / rms(J d), in which eps = 1 moves a logit by about 1: where the remainder is
# fitted, where the curve is looked at, and the one at which directions are compared.
SMALL = 0.004 * 2.0 ** -np.arange(7, -1, -1)
WIDE = np.geomspace(0.01, 30.0, 26)
_MODERATE = 9
_FAR = np.geomspace(1e-3, 1e3, 13)
_ALPHAS = 32
_STEPS, _LEARNING_RATE = 4, 0.03
_ADAM_RATE = 0.003
# Clipped, since a Poisson loss far from its minimum throws plain descent out of the world.
_OPTIMISERS = {
    "mlp": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(_LEARNING_RATE, momentum=0.9)),
    "cnn": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(_LEARNING_RATE)),
    # A key's bias changes no attention: its gradient is rounding, which Adam's usual epsilon of
    # 1e-8 would blow up to a step of full size, another one in each program.
    "attention": optax.adam(_ADAM_RATE, eps=1e-4),
}


def evaluate(
    family: Family, key: Key[Array, ""], kinds: Kinds
) -> dict[str, Float[Array, "*numbers"]]:
    """Draws one instance, and returns its numbers.

    Args:
        family: the instance's architecture.
        key: the source of everything random about it.
        kinds: the instance's activation, loss, trait and data.

    Returns:
        A scalar for every claim, NaN where the claim is not about such an instance; for every
        control, under its name, the inner product; `inner_products` (g / a) and `rhos` at WIDE;
        `remainders` at SMALL, as shares of the last, with `slope` and `r2` of their log-log fit;
        `cosine`, `cosine_independent`; `horizon`, `certified` (in units of 1 / rms(J d); infinity
        where no end was reached).

    Raises:
        ValueError: float64 is off (`jax.enable_x64`).
    """
    if not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError("evaluate: works in float64; use it inside `jax.enable_x64(True)`")
    instance = instances.draw(family, key, kinds)
    apply = instances.model(family, instance)
    loss = instances.loss(instance)
    trait = instances.trait_loss(apply, instance)
    relu = kinds.activation == list(ACTIVATIONS).index("relu")
    direction = teacher_direction(trait, instance.params)

    # One program for both directions: each is an instance of what holds for any.
    directions = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), direction, instance.random_direction
    )
    pairs, curves = jax.lax.map(lambda way: _along(apply, loss, instance, way), directions)
    numbers = {name: values[0] for name, values in pairs.items()}
    along_trait = _part(curves, 0)
    numbers["identity"] = jnp.fmax(*pairs["identity"])
    numbers["lemma_1"] = pairs["lemma_1"][1]
    numbers["linear"] = _linear(apply, loss, instance) if family.linear else jnp.full((), jnp.nan)
    numbers |= _trait(apply, loss, trait, instance, direction, along_trait)
    numbers |= _account(
        _OPTIMISERS[family.kind], apply, loss, trait, instance, direction, along_trait
    )
    numbers |= _score(apply, instance)
    numbers |= _controls(apply, loss, instance, directions, curves)
    for name, claim in CLAIMS.items():
        if claim.smooth:
            numbers[name] = jnp.where(relu & (not family.linear), jnp.nan, numbers[name])
    return numbers


def _along(
    apply: Apply, loss: Loss, instance: Instance, direction: Params
) -> tuple[dict[str, Float[Array, "*numbers"]], Curve]:
    """Claims about g(eps) along one direction, and the curve, whose eps are SMALL, then WIDE."""
    start, inputs = instance.params, instance.inputs
    unit = unit_of_eps(apply, start, direction, inputs)
    alignment = curve(apply, loss, start, direction, unit * np.concatenate([SMALL, WIDE]), inputs)
    coefficient = jnp.where(alignment.blind, jnp.nan, alignment.coefficient)
    g, eps, small = alignment.inner_product, alignment.eps, len(SMALL)

    def reverse(size: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        way = student_direction(apply, loss, start, step(start, direction, size), inputs)
        return inner(way, direction), norm(way)

    def by_identity(size: Float[Array, ""]) -> Float[Array, ""]:
        return inner_product(apply, loss, start, direction, step(start, direction, size), inputs)

    sure = jnp.max(jnp.where(alignment.certified, eps, eps[0]))
    looked_at = jnp.stack([eps[0], eps[small - 1], eps[small + _MODERATE], sure])
    by_reverse, lengths = jax.lax.map(reverse, looked_at)
    # Not at the smallest: there rounding of the logits' difference alone may be 1e-10 of g.
    gap = jnp.abs(by_reverse - jax.lax.map(by_identity, looked_at))[1:]
    # Where g is about to cross 0, a difference relative to it means nothing.
    size = jnp.maximum(jnp.abs(by_reverse), 1e-3 * lengths * norm(direction))[1:]
    ratio = jnp.abs(alignment.remainder[:small]) / eps[:small] ** 2
    slope, r2 = _fit(eps[:small], alignment.remainder[:small], 1e2 * alignment.rounding)
    extrapolated = 2 * g[0] / eps[0] - g[1] / eps[1]
    positive = g > 0
    return {
        "identity": jnp.where(alignment.blind, jnp.nan, jnp.max(gap / size)),
        "lemma_1": by_reverse[0] / (eps[0] * coefficient),
        "coefficient": jnp.abs(extrapolated - alignment.coefficient) / coefficient,
        "remainder": jnp.where(jnp.isnan(slope), jnp.nan, ratio[0] / jnp.max(ratio[-3:])),
        "certificate": jnp.where(
            alignment.certified[0], by_reverse[3] / (sure * coefficient), jnp.nan
        ),
        "blind": jnp.where(
            alignment.blind,
            jnp.max(jnp.abs(jnp.concatenate([g, by_reverse])))
            / jnp.where(alignment.rounding > 0, alignment.rounding, jnp.finfo(g.dtype).tiny),
            jnp.nan,
        ),
        "inner_products": g[small:] / (unit * alignment.coefficient),
        "rhos": alignment.rho[small:],
        "remainders": jnp.abs(alignment.remainder[:small] / alignment.remainder[small - 1]),
        "slope": slope,
        "r2": r2,
        "cosine": jnp.where(
            alignment.blind, jnp.nan, by_reverse[2] / (lengths[2] * norm(direction))
        ),
        "horizon": jnp.where(alignment.blind, jnp.nan, _reach(positive, eps) / unit),
        "certified": jnp.where(alignment.blind, jnp.nan, _reach(alignment.certified, eps) / unit),
    }, alignment


def _part(stacked: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], stacked)


def _reach(good: Bool[Array, " eps"], eps: Float[Array, " eps"]) -> Float[Array, ""]:
    """The last eps before the first that is not good; infinity where all are."""
    first = jnp.argmin(good)
    return jnp.where(good.all(), jnp.inf, jnp.where(first == 0, 0.0, eps[first - 1]))


def _fit(
    eps: Float[Array, " eps"], remainder: Float[Array, " eps"], floor: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Slope and R^2 of log |remainder| over log eps; NaN where rounding reaches the remainder."""
    x, y = jnp.log(eps), jnp.log(jnp.maximum(jnp.abs(remainder), jnp.finfo(eps.dtype).tiny))
    x, y = x - jnp.mean(x), y - jnp.mean(y)
    slope = jnp.sum(x * y) / jnp.sum(x * x)
    r2 = 1 - jnp.sum((y - slope * x) ** 2) / jnp.sum(y * y)
    fit = jnp.all(jnp.abs(remainder) > floor)
    return jnp.where(fit, slope, jnp.nan), jnp.where(fit, r2, jnp.nan)


def _linear(apply: Apply, loss: Loss, instance: Instance) -> Float[Array, ""]:
    """The least g / (eps a) of a linear model over a wide range of eps."""
    _, change = linearise(apply, instance.params, instance.random_direction, instance.inputs)
    # At eps = 1000 the logits reach 500: exp of it is still a number.
    shrink = 0.5 / jnp.max(jnp.abs(change))
    direction = jax.tree.map(lambda leaf: shrink * leaf, instance.random_direction)
    alignment = curve(apply, loss, instance.params, direction, _FAR, instance.inputs)
    return jnp.min(alignment.inner_product / (alignment.eps * alignment.coefficient))


def _trait(
    apply: Apply,
    loss: Loss,
    trait: TraitLoss,
    instance: Instance,
    direction: Params,
    alignment: Curve,
) -> dict[str, Float[Array, ""]]:
    """Theorem 1's fall of the trait loss, and the safe step."""
    start, inputs = instance.params, instance.inputs
    value = trait(start)

    def student(eps: Float[Array, ""]) -> Params:
        return student_direction(apply, loss, start, step(start, direction, eps), inputs)

    def change(way: Params, alpha: Float[Array, ""]) -> Float[Array, ""]:
        return trait(step(start, way, alpha)) - value

    # Theorem 1, at a fixed alpha: the student's whole step is in proportion to eps. The smallest
    # eps at which rounding of L_T does not hide what L_T does; and smaller, if the curvature of
    # L_T along the first step says that it was not small enough.
    rounding = 1e-9 * jnp.abs(value)
    sizes = jnp.stack([alignment.eps[i] for i in (0, 3, 7)])
    expected = instance.alpha * jnp.stack([alignment.inner_product[i] for i in (0, 3, 7)])
    small = sizes[jnp.argmax((expected > rounding).at[-1].set(True))]
    moderate = len(SMALL) + _MODERATE

    def look(
        shrink: Float[Array, ""], size: tuple[Float[Array, ""], Bool[Array, ""]]
    ) -> tuple[Float[Array, ""], tuple[Params, Float[Array, ""]]]:
        eps, again = size
        way = student(jnp.where(again, shrink, 1.0) * eps)
        slope = inner(way, direction)
        curvature = curvature_along(trait, start, way, jnp.zeros(1))[0]
        enough = jnp.abs(slope) / (instance.alpha * jnp.maximum(jnp.abs(curvature), 1e-300))
        return jnp.minimum(1.0, enough), (way, slope)

    steps = jnp.stack([small, small, alignment.eps[moderate]]), jnp.array([False, True, False])
    _, (ways, slopes) = jax.lax.scan(look, jnp.ones(()), steps)
    first, way = _part(ways, 1), _part(ways, 2)
    falls_by = -change(first, instance.alpha)
    g = alignment.inner_product[moderate]
    # As far as moves a logit of the trait's inputs by 2: that far, the steps resolve curvature.
    _, moves = linearise(apply, start, way, instance.trait_inputs)
    far = 2 / (jnp.sqrt(jnp.mean(moves**2)) + 1e-3 * norm(way))
    alphas = far * jnp.geomspace(1e-3, 1.0, _ALPHAS)
    safe = safe_step(trait, start, way, alphas)
    changes = jax.lax.map(lambda alpha: change(way, alpha), alphas)
    bounds = -alphas * g + 0.5 * safe.curvature * alphas**2
    falls = jnp.where(alphas < safe.alpha, -changes / (alphas * g), jnp.inf)
    usable = ~alignment.blind & (alphas[0] * g > rounding)
    return {
        "theorem_1": jnp.where(
            alignment.blind | (instance.alpha * jnp.abs(slopes[1]) < rounding),
            jnp.nan,
            falls_by / (instance.alpha * jnp.abs(slopes[1])),
        ),
        "safe_step": jnp.where(usable & (safe.alpha > alphas[0]), jnp.min(falls), jnp.nan),
        "step_bound": jnp.where(
            usable, jnp.max((changes - bounds) / (alphas * g + rounding)), jnp.nan
        ),
    }


def _account(
    optimiser: optax.GradientTransformation,
    apply: Apply,
    loss: Loss,
    trait: TraitLoss,
    instance: Instance,
    direction: Params,
    alignment: Curve,
) -> dict[str, Float[Array, ""]]:
    """The account of a short run, against forward mode and an integral along each step."""
    start = instance.params
    teacher = step(start, direction, alignment.eps[len(SMALL) + _MODERATE])
    batches = instance.inputs.reshape(_STEPS, -1, *instance.inputs.shape[1:])

    def distillation(params: Params, batch: Float[Array, "batch *features"]) -> Float[Array, ""]:
        labels = jax.lax.stop_gradient(apply(teacher, batch))
        return jnp.mean(jax.vmap(loss)(apply(params, batch), labels))

    trained, account = follow(trait, distillation, optimiser, start, batches, teacher=teacher)
    nodes, weights = unit_quadrature(10)

    def advance(
        carry: tuple[Params, Any], batch: Float[Array, "batch *features"]
    ) -> tuple[tuple[Params, Any], tuple[Float[Array, ""], Float[Array, ""]]]:
        current, state = carry
        updates, state = optimiser.update(jax.grad(distillation)(current, batch), state, current)
        first_order = jax.jvp(trait, (current,), (updates,))[1]
        second = curvature_along(trait, current, updates, jnp.asarray(nodes))
        remainder = jnp.sum(weights * (1 - nodes) * second)
        return (optax.apply_updates(current, updates), state), (first_order, remainder)

    (after, _), (first_order, remainder) = jax.lax.scan(
        advance, (start, optimiser.init(start)), batches
    )
    size = jnp.max(jnp.abs(first_order)) + jnp.max(jnp.abs(remainder))
    size += 1e-9 * jnp.abs(trait(start))
    gaps = jnp.stack(
        [
            jnp.max(jnp.abs(account.first_order - first_order)),
            jnp.max(jnp.abs(account.remainder - remainder)),
            jnp.abs(trait(after) - trait(start) - jnp.sum(first_order + remainder)),
            norm(jax.tree.map(jnp.subtract, after, trained)),
        ]
    )
    return {"account": jnp.max(gaps) / size}


def _score(apply: Apply, instance: Instance) -> dict[str, Float[Array, ""]]:
    """Means of the score over every outcome, weighted by its probability: no sampling."""
    start, direction, inputs = instance.params, instance.random_direction, instance.inputs
    outcomes = jnp.tile(jnp.arange(OUTPUTS), inputs.shape[0])
    scores = score.scores(apply, start, direction, jnp.repeat(inputs, OUTPUTS, axis=0), outcomes)
    scores = scores.reshape(inputs.shape[0], OUTPUTS)

    def mean(params: Params, values: Float[Array, "examples outputs"]) -> Float[Array, ""]:
        return jnp.mean(jnp.sum(jax.nn.softmax(apply(params, inputs)) * values, axis=1))

    fisher = mean(start, scores**2)
    eps = 1e-3 * unit_of_eps(apply, instance.params, direction, instance.inputs)
    taught = mean(step(start, direction, eps), scores)
    return {
        "score_mean": jnp.abs(mean(start, scores)) / jnp.sqrt(fisher),
        "score_teacher": taught / (eps * fisher),
    }


def _controls(
    apply: Apply, loss: Loss, instance: Instance, directions: Params, curves: Curve
) -> dict[str, Float[Array, ""]]:
    """The conditions of the loss, and where the theorem must fail: g at a small eps.

    Along a random direction, d and -d are equally likely, so that to leading order g and -g are.
    """
    start, inputs, other = instance.params, instance.inputs, instance.other
    here, there = (rows(apply(params, inputs)) for params in (start, other))

    def shrink(
        parts: list[Float[Array, "rows outputs"]],
    ) -> Float[Array, "all_rows outputs"]:
        return within_reach(jnp.concatenate(parts))

    direction, random_direction = _part(directions, 0), _part(directions, 1)
    teachers = jax.vmap(partial(step, start))(directions, curves.eps[:, 0])

    def from_other(pair: tuple[Params, Params]) -> Float[Array, ""]:
        return inner_product(apply, loss, other, pair[0], pair[1], inputs)

    along_trait, along_random = jax.lax.map(from_other, (directions, teachers))
    taught = step(start, direction, curves.eps[0, len(SMALL) + _MODERATE])
    labels = rows(apply(taught, inputs))
    way = student_direction(apply, loss, other, taught, inputs)

    def by_wrong_loss(kind: Int[Array, ""]) -> Float[Array, ""]:
        def chosen(z: Float[Array, " outputs"], y: Float[Array, " outputs"]) -> Float[Array, ""]:
            return jax.lax.switch(kind, list(WRONG_LOSSES.values()), z, y)

        return inner_product(apply, chosen, start, random_direction, _part(teachers, 1), inputs)

    g = jax.lax.map(by_wrong_loss, jnp.arange(len(WRONG_LOSSES)))
    # As leaves: vmap's own bookkeeping puts things in a pytree that are no arrays.
    leaves, structure = jax.tree.flatten(instance)
    met = one_by_one(
        lambda leaves, z, y: jax.tree.leaves(
            conditions(instances.loss(jax.tree.unflatten(structure, leaves)), z, y)
        )
    )(leaves, shrink([here, here]), shrink([labels, there]))
    if_seen = jnp.where(curves.blind[0], jnp.nan, 1.0)
    return {
        "conditions": jnp.max(jnp.stack(met)),
        "independent": along_random,
        "independent_trait": if_seen * along_trait,
        **{name: g[i] for i, name in enumerate(WRONG_LOSSES)},
        "cosine_independent": if_seen * cosine(way, direction),
    }
