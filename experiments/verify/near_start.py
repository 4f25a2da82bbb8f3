"""Many steps near the start, on random linearised problems: what holds there, and what must not.

`every_step` and `to_rest` draw one problem each and return one number for each claim of EVERY_STEP
and TO_REST, and for each control of `CONTROLS`. Their model is logits = f_0 + J theta, with J given
for each example; float64 throughout. They are for two programs, which can be compiled side by
side: in one, 500 instances hung on two cores (JAX 0.10.2).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from experiments.verify.claims import Claim, Control
from experiments.verify.instances import one_by_one
from theory.losses import (
    MatchingLoss,
    Potential,
    bernoulli_potential,
    matching,
    poisson_potential,
    softmax_potential,
    squared_potential,
)
from theory.many_steps import many_steps
from theory.passes import Params
from theory.projection import project
from theory.trajectory import Account, UpdateRule, follow

EVERY_STEP = {
    "approach": Claim("many steps: growth of |theta_k - theta_T| / |delta|", 1e-12),
    "along": Claim("many steps: 1/2 |u_k|^2 - <u_k, delta>, over |delta|^2", 1e-12),
    "trait_bound": Claim("many steps, teacher of one: excess of L_T / its first-order fall", 1e-12),
    "identity_of_steps": Claim("<u_K, delta> adds up: gap / sum of its terms", 1e-12),
}
TO_REST = {
    "rest": Claim("trained to rest: |theta_S - theta_0 - P delta| / |delta|", 1e-6),
    "rest_gain": Claim("trained to rest: <grad L_T, u> + eps |P grad L_T|^2, relative", 1e-6),
    "projection": Claim("P delta by conjugate gradients, by a pseudo-inverse: gap / |delta|", 1e-9),
    "in_time": Claim(
        "squared error: growth of <grad L_T, u_k> in a step, relative", 1e-12, about="some"
    ),
    "in_inputs": Claim("more inputs: loss of the share |P delta|^2 / |delta|^2", 1e-9),
    "in_outputs": Claim("more outputs: loss of the share |P delta|^2 / |delta|^2", 1e-9),
}

# The largest L_T(theta_k) - L_T(theta_0) of a run, relative: above 0 in some instances of each.
CONTROLS = {
    "long_teacher": Control("L_T below its start at every step: teacher of many steps", 1e-12),
    "adam_student": Control("L_T below its start at every step: student with Adam", 1e-12),
    "sign_teacher": Control(
        "L_T below its start at every step: teacher of one step of signs", 1e-12
    ),
}

POTENTIALS = ("squared", "softmax", "softmax_temperature", "bernoulli", "poisson", "log_cosh")
EXAMPLES, OUTPUTS, PARAMS = 6, 4, 30
STEPS, STEPS_TO_REST = 48, 1500
_TEACHER_STEPS = 40
# Of the singular values of C J in a problem that is trained to rest.
_SPREAD = 1.5
_ADAM_RATE = 0.05
# How many uniform numbers make a Kind.
_PLAIN = 2 + 2 * OUTPUTS + EXAMPLES


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Kind:
    """One loss: which potential, over which outputs, on which examples.

    Attributes:
        potential: an index into POTENTIALS.
        outputs: the weights of a squared error; a softmax takes part where they are above 0.
        temperature: of a softmax that has one.
        examples: the weight of each example.
    """

    potential: Int[Array, "*batch"]
    outputs: Float[Array, "*batch outputs"]
    temperature: Float[Array, "*batch"]
    examples: Float[Array, "*batch examples"]


def potential_of(kind: Kind) -> Potential:
    """The potential, and its declared null space."""
    tempered = kind.potential == POTENTIALS.index("softmax_temperature")
    softmax = softmax_potential(kind.outputs > 0, jnp.where(tempered, kind.temperature, 1.0))
    squared = squared_potential(kind.outputs)
    # A user's own, whose matching loss is Huber-like.
    log_cosh = Potential(
        lambda z: jnp.sum(jnp.logaddexp(z, -z) + 0.05 * z**2), lambda vector: vector
    )
    branches = [squared, softmax, softmax, bernoulli_potential, poisson_potential, log_cosh]

    def value(logits: Float[Array, " outputs"]) -> Float[Array, ""]:
        return jax.lax.switch(kind.potential, [branch.value for branch in branches], logits)

    def off_null_space(vector: Float[Array, " outputs"]) -> Float[Array, " outputs"]:
        off = [branch.off_null_space for branch in branches]
        return jnp.stack([centre(vector) for centre in off if centre])[kind.potential]

    return Potential(value, off_null_space)


def curvature_bound(
    kind: Kind, highest: Float[Array, "examples outputs"]
) -> Float[Array, "examples outputs"]:
    """A diagonal that hess A is at most, as long as no logit is above `highest`."""
    one = jnp.ones_like(highest)
    bounds = [kind.outputs * one, 0.5 * one, 0.5 * one, 0.25 * one, jnp.exp(highest), 1.1 * one]
    return jnp.stack(bounds)[kind.potential]


def largest_eigenvalue(
    jacobian: Float[Array, "examples outputs params"],
    bound: Float[Array, "examples outputs"],
    examples: Float[Array, " examples"],
) -> Float[Array, ""]:
    """Of E_x[J^T diag(bound) J], exactly."""
    scale = jnp.sqrt(bound * (examples / jnp.sum(examples))[:, None])
    tall = (scale[..., None] * jacobian).reshape(-1, PARAMS)
    return one_by_one(lambda square: jnp.linalg.eigvalsh(square)[-1])(tall @ tall.T)


def orthonormal(tall: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
    """An orthonormal basis of the columns."""
    return one_by_one(lambda tall: jnp.linalg.qr(tall)[0])(tall)


def _draw(
    key: Key[Array, ""], kinds: int, shapes: Sequence[tuple[int, ...]]
) -> tuple[Kind, Float[Array, " kinds"], list[Float[Array, "..."]]]:
    """Random losses, a uniform number beside each, and normal arrays of these shapes."""
    if not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError("near_start: works in float64; use it inside `jax.enable_x64(True)`")
    # Two calls of the generator, cut up: XLA takes long to compile each.
    first, second = jax.random.split(key)
    uniforms = jax.random.uniform(second, (kinds * (_PLAIN + 1),)).reshape(kinds, _PLAIN + 1)
    sizes = [math.prod(shape) for shape in shapes]
    parts = jnp.split(jax.random.normal(first, (sum(sizes),)), np.cumsum(sizes)[:-1])
    arrays = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    return _kinds(uniforms[:, :_PLAIN]), uniforms[:, _PLAIN], arrays


def _kinds(uniforms: Float[Array, "kinds plain"]) -> Kind:
    """Losses over random outputs, at least two, and random examples, at least one."""
    choice, heat, place, weight, examples = jnp.split(
        uniforms, np.cumsum([1, 1, OUTPUTS, OUTPUTS]), axis=1
    )
    # The two highest always take part.
    above = jnp.sum(place[:, None, :] > place[:, :, None], axis=2)
    best = jnp.max(examples, axis=1, keepdims=True)
    return Kind(
        jnp.floor(len(POTENTIALS) * choice[:, 0]).astype(jnp.int32),
        jnp.where((place > 0.4) | (above < 2), 0.2 + 1.8 * weight, 0.0),
        jnp.exp2(3 * heat[:, 0] - 1),
        jnp.where((examples > 0.5) | (examples == best), 1.0, 0.0),
    )


def every_step(key: Key[Array, ""]) -> dict[str, Float[Array, ""]]:
    """Claims at every step of a student, whose losses and batches change from step to step.

    Args:
        key: the source of everything random about the problem.

    Returns:
        A number for each claim of EVERY_STEP; for each control, how far L_T rose above its start,
        over the size of its first-order change; and `<control>_approach`, the claim `approach` of
        it.

    Raises:
        ValueError: float64 is off (`jax.enable_x64`).
    """
    kinds, uniforms, arrays = _draw(
        key,
        STEPS,
        [(EXAMPLES, OUTPUTS), (EXAMPLES, OUTPUTS, PARAMS), (PARAMS, PARAMS), (PARAMS,), (PARAMS,)],
    )
    offsets, jacobian, basis, slope, tilt = arrays
    # Slopes of very unequal sizes, of which signs know nothing; directions of very unequal
    # curvature, in J and in L_T.
    slope = slope**3
    jacobian = jacobian * jnp.logspace(0.0, -1.5, PARAMS)
    basis = orthonormal(basis)
    bends = jnp.logspace(0.0, -3.0, PARAMS)
    signs = jnp.where(tilt > 0, 1.0, -1.0)

    start = jnp.zeros(PARAMS)
    eps = 0.05 + 0.9 * uniforms[0]
    # A long teacher descends a convex L_T: along a saddle it would leave the world.
    far = basis @ ((1 - (1 - 0.9 * bends) ** _TEACHER_STEPS) / bends * (basis.T @ slope))
    ways = jnp.stack([-eps * slope, -far, -eps * slope, -jnp.sign(slope)])
    # In these units the teacher's step moves logits by 1, root mean square.
    sizes = jax.vmap(lambda way: 1 / jnp.sqrt(jnp.mean((jacobian @ way) ** 2)))(ways)
    curvatures = jnp.stack([signs * bends, bends, signs * bends, signs * bends])
    teachers = sizes[:, None] * ways

    # Where a student that never goes away from its teacher can come to, whichever teacher it has.
    reach = jnp.linalg.norm(jacobian, axis=-1) * jnp.linalg.norm(teachers, axis=1)[:, None, None]
    highest = jnp.max(offsets + jnp.einsum("xop,tp->txo", jacobian, teachers) + reach, axis=0)
    # Up to 2 / L, and that itself in a quarter of the steps.
    shares = jnp.minimum(0.02 + 1.3 * uniforms, 1.0)
    rates = shares * jax.vmap(
        lambda kind: 2 / largest_eigenvalue(jacobian, curvature_bound(kind, highest), kind.examples)
    )(kinds)

    def train(teacher, bends, size, adam) -> Account:
        def trait(u):
            # The size scales L_T's slope alone, so that its curvature stays at most 1.
            turned = basis.T @ u
            return size * (slope @ u) + 0.5 * jnp.sum(bends * turned**2)

        def distillation(u, kind):
            loss = matching(potential_of(kind))
            losses = jax.vmap(loss)(offsets + jacobian @ u, offsets + jacobian @ teacher)
            return jnp.sum(kind.examples * losses) / jnp.sum(kind.examples)

        _, account = follow(
            trait,
            distillation,
            _descent_or_adam(rates, adam),
            start,
            kinds,
            teacher=teacher,
        )
        return account

    adam = jnp.array([False, False, True, False])
    accounts = jax.vmap(train)(teachers, curvatures, sizes, adam)
    right = jax.tree.map(lambda leaf: leaf[0], accounts)
    found = many_steps(right, rates=rates, eps=eps, smoothness=1.0)
    rises = jnp.max(accounts.trait_loss - accounts.trait_loss[:, :1], axis=1) / jnp.abs(
        sizes * (teachers @ slope)
    )
    receding = many_steps(accounts).receding
    numbers = {
        "approach": found.receding,
        "along": -found.margin,
        "trait_bound": found.excess,
        "identity_of_steps": found.gap,
    }
    for place, name in enumerate(CONTROLS, 1):
        numbers[name], numbers[f"{name}_approach"] = rises[place], receding[place]
    return numbers


def _descent_or_adam(rates: Float[Array, " steps"], adam: Bool[Array, ""]) -> UpdateRule:
    """Gradient descent at a rate of its own for each step; or Adam, where `adam` is set."""
    other = optax.adam(_ADAM_RATE)

    def init(params: Params) -> tuple[Array, Any]:
        return jnp.int32(0), other.init(params)

    def update(
        gradient: Array, state: tuple[Array, Any], params: Params
    ) -> tuple[Array, tuple[Array, Any]]:
        count, inside = state
        way, inside = other.update(gradient, inside, params)
        return jnp.where(adam, jnp.asarray(way), -rates[count] * gradient), (count + 1, inside)

    return _Pair(init, update)


class _Pair(NamedTuple):
    init: Callable[..., Any]
    update: Callable[..., Any]


def to_rest(key: Key[Array, ""]) -> dict[str, Float[Array, ""]]:
    """Claims about where training ends, on a problem that gets there soon.

    Args:
        key: the source of everything random about the problem.

    Returns:
        A number for each claim of TO_REST, NaN where the claim is not about such an instance.

    Raises:
        ValueError: float64 is off (`jax.enable_x64`).
    """
    kinds, uniforms, (offsets, tall, slope) = _draw(
        key, 1, [(EXAMPLES, OUTPUTS), (PARAMS, EXAMPLES * OUTPUTS), (PARAMS,)]
    )
    kind, uniform = jax.tree.map(lambda leaf: leaf[0], kinds), uniforms[0]
    size = EXAMPLES * OUTPUTS
    columns = _SPREAD ** jnp.linspace(-1, 1, size) * orthonormal(tall)
    jacobian = columns.T.reshape(EXAMPLES, OUTPUTS, PARAMS)
    offsets = 0.3 * offsets
    eps = 0.1 + uniform
    # The teacher's step moves logits by 0.3, root mean square.
    gradient = slope * 0.3 / (eps * jnp.sqrt(jnp.mean((jacobian @ slope) ** 2)))
    delta = -eps * gradient
    whole = jnp.ones(EXAMPLES)
    loss = matching(potential_of(kind))
    ends = jnp.stack([offsets, offsets + jacobian @ delta])
    bound = curvature_bound(kind, jnp.max(ends, axis=0) + 0.5)
    rate = 1 / largest_eigenvalue(jacobian, bound, whole)

    def objective(u):
        return jnp.mean(jax.vmap(loss)(offsets + jacobian @ u, ends[1]))

    def advance(_, carry):
        u, growth = carry
        after = u - rate * jax.grad(objective)(u)
        return after, jnp.maximum(growth, gradient @ (after - u))

    trained, growth = jax.lax.fori_loop(
        0, STEPS_TO_REST, advance, (jnp.zeros(PARAMS), jnp.array(-jnp.inf))
    )

    # The loss itself; squared error on all inputs and outputs; on fewer inputs; on fewer outputs.
    ones, squared = jnp.ones(OUTPUTS), jnp.int32(0)
    some = jnp.where(kind.outputs > 0, 1.0, 0.0)
    losses = [
        Kind(kind.potential, kind.outputs, kind.temperature, whole),
        Kind(squared, ones, kind.temperature, whole),
        Kind(squared, ones, kind.temperature, kind.examples),
        Kind(squared, some, kind.temperature, whole),
    ]

    def pass_over(kind: Kind) -> tuple[Params, Float[Array, ""]]:
        found = project(
            lambda u, inputs: inputs @ u,
            matching(potential_of(kind)),
            jnp.zeros(PARAMS),
            delta,
            jacobian,
            iterations=size,
            weights=kind.examples,
        )
        return found.displacement, found.share[-1]

    by_gradients, shares = jax.vmap(pass_over)(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *losses)
    )
    projected = _pseudo_inverse(loss, jacobian) @ delta
    length, first = jnp.linalg.norm(delta), eps * gradient @ gradient
    square = jnp.sum(projected**2) / eps
    return {
        "rest": jnp.linalg.norm(trained - projected) / length,
        "rest_gain": jnp.abs(gradient @ trained + square) / first,
        "projection": jnp.linalg.norm(by_gradients[0] - projected) / length,
        "in_time": jnp.where(kind.potential == 0, growth / first, jnp.nan),
        "in_inputs": shares[2] - shares[1],
        "in_outputs": shares[3] - shares[1],
    }


def _pseudo_inverse(
    loss: MatchingLoss, jacobian: Float[Array, "examples outputs params"]
) -> Float[Array, "params params"]:
    """P_R, by a dense pseudo-inverse: the independent way."""
    centre = loss.potential.off_null_space
    assert centre is not None
    tall = jax.vmap(jax.vmap(centre, 1, 1))(jacobian).reshape(-1, PARAMS)
    return one_by_one(lambda tall: jnp.linalg.pinv(tall, rtol=1e-9) @ tall)(tall)
