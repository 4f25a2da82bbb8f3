"""How long the theory takes on the paper's MLP, in float32 and float64, beside one gradient.

Run by `make bench`. Times are medians after compilation; the ratio is to one gradient of the
distillation loss over the same inputs, which is what a training step would cost.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sublab.devices import use_every_core
from theory.alignment import inner_product_reverse, teacher_direction
from theory.certificate import curve
from theory.losses import class_cross_entropy, matching, softmax_potential
from theory.passes import step
from toymlp.networks import Forward, architectures, draw
from toymlp.settings import Setting

INPUTS, STEPS = 1024, 8
_REPEATS = 7


def seconds(function: Callable[[], object]) -> float:
    """The median time of a call, once it is compiled."""
    jax.block_until_ready(function())
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure() -> list[str]:
    """Lines that say what the curve of the paper's MLP takes."""
    return [line for double in (False, True) for line in _measure(double)]


def _measure(double: bool) -> list[str]:
    with jax.enable_x64(double):
        architecture = architectures(Setting())[1]
        keys = jax.random.split(jax.random.key(0), 3)
        apply, drawn = Forward(architecture), draw(architecture, keys[0], 1.0)
        dtype = jnp.float64 if double else jnp.float32
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), drawn)
        noise, images = jax.random.uniform(keys[1], (2, INPUTS, 784), dtype, minval=-1.0)
        labels = jax.random.randint(keys[2], (INPUTS,), 0, 10)
        classes = architecture.subset("class", 0)

        def trait(params):
            each = jax.vmap(class_cross_entropy, (0, 0, None))
            return jnp.mean(each(apply(params, images), labels, classes))

        loss = matching(softmax_potential(architecture.subset("aux", architecture.aux)))
        way = teacher_direction(trait, params)
        eps = np.geomspace(0.3, 30, STEPS)
        teacher = step(params, way, 1.0)
        whole = seconds(partial(curve, apply, loss, params, way, eps, noise))
        one = seconds(partial(inner_product_reverse, apply, loss, params, way, teacher, noise))
        return [
            f"theory, {jnp.dtype(dtype).name}: g at {STEPS} eps, a and rho of the paper's MLP on "
            f"{INPUTS} inputs: {whole:.3f} s, {whole / one:.1f} times one g by reverse mode "
            f"({one:.3f} s)"
        ]


if __name__ == "__main__":
    use_every_core()
    for line in measure():
        print(line)
