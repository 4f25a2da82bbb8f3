"""Random instances of a readout that no loss sees: what training makes of it, however it trains.

A small network with answers and auxiliary outputs, a teacher and a student that starts anywhere;
the student is trained on auxiliary outputs, from its start and from the same start with its answers
permuted. Its loss, inputs, batches, optimiser and number of steps are drawn. The two trainings must
end in the same parameters, bit for bit, but for the order of the answers; where a loss sees the
answers, or other outputs are read off the same rows, they must not. Float64 throughout.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from experiments.verify.claims import Claim, Control
from theory.losses import (
    MatchingLoss,
    Potential,
    bernoulli_potential,
    matching,
    softmax_potential,
    squared_potential,
)
from theory.passes import Params
from theory.symmetry import Readout, compare_trainings, permute_readout

CLAIMS = {
    "blind_readout": Claim("training commutes with permuting an unseen readout: residual", 0.0),
}
# Where the residual must not be 0.
CONTROLS = {
    "answers_in_the_loss": Control(
        "training commutes: a loss that sees the answers", 0.0, most=0.05
    ),
    "tied_readout": Control("training commutes: outputs read off the same rows", 0.0, most=0.05),
}

_FEATURES, _WIDTH, _ANSWERS, _AUX, _EXAMPLES, _STEPS = 6, 10, 4, 3, 12, 20
_READOUT = Readout({"in": None, "out": 1, "bias": 0}, tuple(range(_ANSWERS)))
_SEEN = np.arange(_ANSWERS + _AUX) >= _ANSWERS
_TIED = tuple(CONTROLS).index("tied_readout") + 1


def evaluate(key: Key[Array, ""]) -> dict[str, Float[Array, ""]]:
    """The numbers of one instance: the residuals of `CLAIMS` and of `CONTROLS`.

    Args:
        key: everything in the instance comes from it.
    """
    of_normals, of_uniforms = jax.random.split(key)
    outputs = _ANSWERS + _AUX
    shapes = {"in": (_FEATURES, _WIDTH), "out": (_WIDTH, outputs), "bias": (outputs,)}
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    normals = jax.random.normal(of_normals, (2 * sum(sizes) + _EXAMPLES * _FEATURES,))
    parts = jnp.split(normals, np.cumsum([*sizes, *sizes]))
    plain = jax.random.uniform(of_uniforms, (9,))
    orders = jax.random.uniform(jax.random.fold_in(of_uniforms, 1), (_STEPS, _EXAMPLES))

    def drawn(first: int) -> Params:
        leaves = zip(shapes.items(), parts[first : first + 3], strict=True)
        return {name: 0.5 * part.reshape(shape) for (name, shape), part in leaves}

    teacher, start = drawn(0), drawn(3)
    inputs = parts[-1].reshape(_EXAMPLES, _FEATURES)
    loss = _loss(plain)
    # Adam with its epsilon far above the gradient is descent, with momentum or without.
    descends = plain[3] < 0.5
    optimiser = optax.adamw(
        jnp.where(descends, 1e3, 0.3) * 10 ** (-2 * plain[4]),
        b1=0.95 * plain[5] * (plain[6] < 0.7),
        b2=0.9 + 0.0999 * plain[7],
        eps=jnp.where(descends, 1e3, 1e-8),
        weight_decay=0.1 * jnp.maximum(plain[8] - 0.5, 0),
    )

    def network(params: Params, control: Array) -> Float[Array, "examples outputs"]:
        hidden = jnp.tanh(inputs @ params["in"])
        logits = hidden @ params["out"] + params["bias"]
        first = logits[:, :_AUX]
        tied = jnp.concatenate([logits[:, :_ANSWERS], first], axis=1)
        return jnp.where(control == _TIED, tied, logits)

    def train(start: Params, control: Array) -> Params:
        labels = network(teacher, control)
        # Which outputs the loss sees: in the first control, the answers as well.
        seen = jnp.asarray(_SEEN) | (control == 1)

        def total(params: Params, batch: Float[Array, " examples"]) -> Float[Array, ""]:
            logits = network(params, control)
            each = jax.vmap(lambda z, y: loss(jnp.where(seen, z, 0), jnp.where(seen, y, 0)))
            return jnp.mean(jnp.where(batch < 0.5, each(logits, labels), 0))

        def advance(
            carry: tuple[Params, optax.OptState], batch: Float[Array, " examples"]
        ) -> tuple[tuple[Params, optax.OptState], None]:
            params, state = carry
            updates, state = optimiser.update(jax.grad(total)(params, batch), state, params)
            return (optax.apply_updates(params, updates), state), None

        (trained, _), _ = jax.lax.scan(advance, (start, optimiser.init(start)), orders)
        return trained

    permutation = [*range(1, _ANSWERS), 0]
    pair = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), start, permute_readout(start, _READOUT, permutation)
    )

    def residual(control: Array) -> Float[Array, ""]:
        # One after the other by one program: two copies could be compiled to other roundings.
        ends = jax.lax.map(lambda start: train(start, control), pair)
        one, other = (jax.tree.map(lambda leaf, i=i: leaf[i], ends) for i in range(2))
        return compare_trainings(start, one, other, _READOUT, permutation).residual

    names = ("blind_readout", *CONTROLS)
    return dict(zip(names, jax.lax.map(residual, jnp.arange(len(names))), strict=True))


def _loss(plain: Float[Array, " plain"]) -> MatchingLoss:
    """One of four losses over all outputs; those that a training does not see are all 0."""
    everything = jnp.ones(_ANSWERS + _AUX, bool)
    choices = [
        squared_potential(0.5 + 1.0 * everything),
        softmax_potential(everything, 0.5 + 2 * plain[1]),
        bernoulli_potential,
        softmax_potential(everything),
    ]
    kind = jnp.floor(len(choices) * plain[0]).astype(jnp.int32)
    values = [choice.value for choice in choices]
    return matching(Potential(lambda logits: jax.lax.switch(kind, values, logits)))
