"""Random instances of what lies beyond the paper's setting: sampled labels, maps, other starts.

A small network with a softmax of random temperature on random data, and a squared error on other
data as its trait; everything comes from a key. The statements are `CLAIMS`; the signs of LoRA with
independent inner factors, which no theorem fixes, are the cosines `lora_RANK`. Float64 throughout.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from experiments.verify.claims import Claim
from theory.alignment import coefficient, inner_product, student_direction, unit_of_eps
from theory.bilinear import (
    BilinearCoefficient,
    bilinear_coefficient,
    diagonal,
    lora,
    mask,
    other_start,
)
from theory.interval import coordinate_drift, interval_certificate, softmax_drift
from theory.losses import Loss, bernoulli_potential, matching, softmax_potential
from theory.passes import Params, step
from theory.score import scores

CLAIMS = {
    "sampled_labels": Claim("sampled labels: |E[score] - g| / size of its terms, any eps", 1e-12),
    "same_map": Claim("same map: fall of L_T / (alpha eps a(C, C)) > 0", 0.0, above=True),
    "two_maps": Claim("two maps: |fall of L_T / (alpha eps) - a(C_S, C_T)| / size", 0.01),
    "two_maps_ensured": Claim(
        "two maps, condition met: fall of L_T / size > 0", 0.0, above=True, about="some"
    ),
    "other_start": Claim("other start: |g - constant - eps slope| / (eps size)", 0.01),
    "matched_start": Claim(
        "matched start, condition met: g / (eps size) > 0", 0.0, above=True, about="some"
    ),
    "interval": Claim("interval certificate: least g / (eps a) at 16 eps in it", 0.0, above=True),
}
RANKS = (1, 2, 4, 8, 16)

_FEATURES, _WIDTH, _OUTPUTS, _EXAMPLES = 16, 24, 5, 10
_SHAPES = {"in": (_FEATURES, _WIDTH), "down": (_WIDTH, _OUTPUTS), "up": (_OUTPUTS, _OUTPUTS)}
# Pairs of maps, the student's and the teacher's, as numbers of `_map_kinds`: first the same on both
# sides, then two, of which those of LoRA come first and the last are often near enough.
_SHARED = range(4, 4 + len(RANKS))
_SAME = [(kind, kind) for kind in (1, 2, *_SHARED)]
_TWO = [*((kind + len(RANKS), kind) for kind in _SHARED), (1, 0), (2, 0), (3, 0), (3, 1)]
# Small steps: the teacher's in units of the eps that moves a logit by 1, and the student's.
_EPS, _ALPHA = 1e-4, 1e-2
# The eps of sampled labels, and the largest of the interval certificate, in the same units.
_SAMPLED, _LARGEST = (1e-3, 0.3, 3.0, 30.0), 1.0


def network(params: Params, inputs: Float[Array, "examples features"]) -> Float[Array, "..."]:
    """A tanh layer, and two linear ones: what lies between those can be turned unseen."""
    return jnp.tanh(inputs @ params["in"]) @ params["down"] @ params["up"]


def evaluate(key: Key[Array, ""]) -> dict[str, Float[Array, ""]]:
    """The numbers of one instance: those of `CLAIMS`, and a cosine for each of RANKS.

    A number is NaN where its claim is not about the instance.

    Args:
        key: everything in the instance comes from it.
    """
    first, second = jax.random.split(key)
    temperature, distance = jnp.exp2(jax.random.uniform(second, (2,)) * jnp.array([3.0, -7.0]))
    drawn = _normals(
        first,
        {
            "start": _SHAPES,
            "way": _SHAPES,
            "away": _SHAPES,
            "scale": _SHAPES,
            "turn": (_OUTPUTS, _OUTPUTS),
            "inputs": (_EXAMPLES, _FEATURES),
            "trait_inputs": (_EXAMPLES, _FEATURES),
            "targets": (_EXAMPLES, _OUTPUTS),
            "factors": {
                name: (2 * len(RANKS), rows, max(RANKS)) for name, (rows, _) in _SHAPES.items()
            },
        },
    )
    start, way, away = (
        jax.tree.map(lambda leaf: leaf / leaf.shape[0] ** 0.5, drawn[name])
        for name in ("start", "way", "away")
    )
    # From 1/2 to 4.
    loss = matching(softmax_potential(jnp.ones(_OUTPUTS, bool), temperature / 2))
    return {
        **_sampled_labels(start, way, drawn["inputs"]),
        **_maps(loss, start, drawn),
        **_other_start(loss, start, way, away, jnp.eye(_OUTPUTS) + distance * drawn["turn"], drawn),
        **_interval(temperature / 2, loss, start, way, drawn["inputs"]),
    }


def _normals(key: Key[Array, ""], shapes: Any) -> Any:
    """Standard normal arrays of a pytree of shapes, from one call of the generator.

    XLA takes long to compile each call.
    """
    leaves, structure = jax.tree.flatten(shapes, is_leaf=lambda node: isinstance(node, tuple))
    ends = np.cumsum([math.prod(shape) for shape in leaves])
    parts = jnp.split(jax.random.normal(key, (int(ends[-1]),)), ends[:-1])
    return jax.tree.unflatten(
        structure, [part.reshape(shape) for part, shape in zip(parts, leaves, strict=True)]
    )


def _sampled_labels(
    start: Params, way: Params, inputs: Float[Array, "examples features"]
) -> dict[str, Float[Array, ""]]:
    """The mean score over every outcome of a teacher, against g: no sampling."""
    loss = matching(softmax_potential(jnp.ones(_OUTPUTS, bool)))
    outcomes = jnp.tile(jnp.arange(_OUTPUTS), _EXAMPLES)
    every = scores(network, start, way, jnp.repeat(inputs, _OUTPUTS, axis=0), outcomes)
    every = every.reshape(_EXAMPLES, _OUTPUTS)

    def gap(eps: Float[Array, ""]) -> Float[Array, ""]:
        teacher = step(start, way, eps)
        mean = jnp.mean(jnp.sum(jax.nn.softmax(network(teacher, inputs)) * every, axis=1))
        return jnp.abs(mean - inner_product(network, loss, start, way, teacher, inputs))

    eps = unit_of_eps(network, start, way, inputs) * jnp.array(_SAMPLED)
    return {"sampled_labels": jnp.max(jax.lax.map(gap, eps)) / jnp.mean(jnp.abs(every))}


def _maps(loss: Loss, start: Params, drawn: dict[str, Any]) -> dict[str, Float[Array, ""]]:
    """What real small steps of both do to the trait, against the bilinear coefficient."""
    inputs = drawn["inputs"]

    def trait(params: Params) -> Float[Array, ""]:
        return jnp.mean(jnp.square(network(params, drawn["trait_inputs"]) - drawn["targets"]))

    gradient = jax.grad(trait)(start)
    kinds = _map_kinds(drawn["scale"], drawn["factors"])

    def mapped(kind: dict[str, Params], vector: Params) -> Params:
        part = mask(kind["trained"])(diagonal(kind["scale"])(vector))
        return jax.tree.map(jnp.add, part, lora(kind["factors"])(vector))

    def taught(teacher: Params) -> tuple[Params, Float[Array, ""]]:
        eps = _EPS * unit_of_eps(network, start, teacher, inputs)
        return student_direction(network, loss, start, step(start, teacher, -eps), inputs), eps

    def coefficient_of(student: Params, teacher: Params) -> BilinearCoefficient:
        return bilinear_coefficient(
            network,
            loss,
            start,
            gradient,
            inputs,
            student_map=lambda _: student,
            teacher_map=lambda _: teacher,
        )

    def pick(tree: Params, numbers: np.ndarray) -> Params:
        return jax.tree.map(lambda leaf: leaf[numbers], tree)

    student_kinds, teacher_kinds = np.array([*_SAME, *_TWO]).T
    images = jax.vmap(mapped, (0, None))(kinds, gradient)
    found = jax.vmap(coefficient_of)(pick(images, student_kinds), pick(images, teacher_kinds))
    directions, eps = pick(jax.vmap(taught)(images), teacher_kinds)
    steps = jax.vmap(mapped)(pick(kinds, student_kinds), directions)
    value = trait(start)
    fall = jax.vmap(lambda way: value - trait(step(start, way, _ALPHA)))(steps) / (_ALPHA * eps)
    size = found.student * found.teacher
    same = len(_SAME)
    ensured = jnp.where(found.ensured, fall / size, jnp.nan)[same:]
    return {
        "same_map": jnp.min((fall / found.coefficient)[:same]),
        "two_maps": jnp.max(jnp.abs(fall - found.coefficient) / size),
        "two_maps_ensured": jnp.nanmin(ensured),
        **{f"lora_{rank}": found.cosine[same + i] for i, rank in enumerate(RANKS)},
    }


def _map_kinds(scale: Params, factors: Params) -> dict[str, Params]:
    """The maps of an instance on a leading axis, as mask times diagonal plus LoRA.

    The identity, a mask, two diagonals (wild and mild), and LoRA of every rank from shared and
    from independent inner factors. A rank is that of the columns that are not 0.
    """
    ranks = np.arange(max(RANKS)) < np.array(RANKS)[:, None]
    columns = np.concatenate([np.zeros((4, max(RANKS))), ranks, ranks])

    def scales(leaf: Array) -> Array:
        ones, zeros = jnp.ones_like(leaf), jnp.zeros((2 * len(RANKS), *leaf.shape))
        each = jnp.stack([ones, ones, jnp.exp(leaf), 1 + 0.5 * jnp.tanh(leaf)])
        return jnp.concatenate([each, zeros])

    masks = np.arange(4 + 2 * len(RANKS)) == 1
    return {
        "trained": jax.tree.map(
            lambda leaf: (leaf > 0) | ~masks.reshape(-1, *(1,) * leaf.ndim), scale
        ),
        "scale": jax.tree.map(scales, scale),
        "factors": jax.tree.map(
            lambda leaf: columns[:, None] * jnp.concatenate([leaf[:1]] * 4 + [leaf]), factors
        ),
    }


def _other_start(
    loss: Loss,
    teacher: Params,
    way: Params,
    away: Params,
    turn: Float[Array, "outputs outputs"],
    drawn: dict[str, Any],
) -> dict[str, Float[Array, ""]]:
    """g from a start of the same behaviour, and from one of another, against its expansion."""
    inputs = drawn["inputs"]
    matched = teacher | {
        "down": teacher["down"] @ turn,
        "up": jnp.linalg.solve(turn, teacher["up"]),
    }
    eps = _EPS * unit_of_eps(network, teacher, way, inputs)
    taught = step(teacher, way, eps)

    def of(start: Params) -> dict[str, Float[Array, ""]]:
        found = other_start(network, loss, start, teacher, way, inputs)
        g = inner_product(network, loss, start, way, taught, inputs)
        size = eps * found.teacher * (found.teacher + found.difference)
        expected = found.constant + eps * found.slope
        return {
            "miss": jnp.abs(g - expected) / size,
            "sign": jnp.where(found.ensured, g / size, jnp.nan),
        }

    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), matched, step(teacher, away, 0.3))
    numbers = jax.vmap(of)(both)
    return {"other_start": jnp.max(numbers["miss"]), "matched_start": numbers["sign"][0]}


def _interval(
    temperature: Float[Array, ""],
    loss: Loss,
    start: Params,
    way: Params,
    inputs: Float[Array, "examples features"],
) -> dict[str, Float[Array, ""]]:
    """g within what is certified, for the softmax and for independent yes/no outputs."""
    everything: Bool[Array, " outputs"] = jnp.ones(_OUTPUTS, bool)
    largest = _LARGEST * unit_of_eps(network, start, way, inputs)

    def least(loss: Loss, drift: Any) -> dict[str, Float[Array, ""]]:
        args = (network, loss, start, way)
        found = interval_certificate(*args, inputs, largest=largest, points=24, drift=drift)
        eps = found.reach * (1 - 1e-6) * jnp.arange(1, 17) / 16
        g = jax.vmap(lambda eps: inner_product(*args, step(start, way, eps), inputs))(eps)
        return {
            "g": jnp.min(g / (eps * coefficient(*args, inputs))),
            "reach": found.reach / largest,
        }

    softmax = least(loss, softmax_drift(everything, temperature))
    bernoulli = least(matching(bernoulli_potential), coordinate_drift)
    return {
        "interval": jnp.minimum(softmax["g"], bernoulli["g"]),
        "reach": jnp.minimum(softmax["reach"], bernoulli["reach"]),
    }
