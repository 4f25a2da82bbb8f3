"""Numbers that another machine must reproduce, made on a CPU: `python -m benchmarks.golden`.

Of the theory a table of quantities on a small network, in float64; of the engine the class logits
of a trained population. `benchmarks/gpu.py` computes both anew where it runs.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import theory
from sublab import devices
from sublab.machine import exact, prepare_jax
from sublab.settings import build
from theory.passes import step
from toymlp import data
from toymlp.checks import canonical
from toymlp.networks import Forward, architectures
from toymlp.settings import Setting, teacher_of
from toymlp.stages import students, teachers
from toymlp.train import Context, logits_of

STORED = Path(__file__).with_name("golden.npz")
RUNS = 8
_EXAMPLES, _PIXELS, _WIDTH, _OUTPUTS = 64, 20, 16, 4
_EPS = np.array([0.01, 0.1])


def network(params: Any, inputs: Any) -> Any:
    """A perceptron of two layers."""
    return jnp.tanh(inputs @ params["first"]) @ params["second"]


def theory_numbers(dtype: Any) -> dict[str, np.ndarray]:
    """Quantities of the theory for a fixed network, teacher's direction and inputs, by name.

    Args:
        dtype: float32 or float64, of everything that is handed in.
    """
    random = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return jnp.asarray(random.normal(size=shape), dtype)

    def parameters() -> dict[str, Any]:
        return {"first": draw(_PIXELS, _WIDTH) / 4, "second": draw(_WIDTH, _OUTPUTS) / 4}

    params, other = parameters(), parameters()
    inputs, labels = draw(_EXAMPLES, _PIXELS), random.integers(0, _OUTPUTS, _EXAMPLES)

    def trait(params: Any) -> Any:
        log = jax.nn.log_softmax(network(params, inputs))
        return -jnp.mean(log[jnp.arange(_EXAMPLES), labels])

    direction = theory.teacher_direction(trait, params)
    noise, teacher = draw(_EXAMPLES, _PIXELS), step(params, direction, 0.1)
    numbers: dict[str, Any] = {}
    everything = np.ones(_OUTPUTS, bool)
    potentials = {
        "softmax": theory.softmax_potential(everything),
        "squared": theory.squared_potential(everything),
    }
    for name, potential in potentials.items():
        loss = theory.matching(potential)
        quantities: dict[str, Callable[[], Any]] = {
            "coefficient": partial(theory.coefficient, network, loss, params, direction, noise),
            "coefficient_by_layer": partial(
                theory.coefficient_by_layer, network, loss, params, direction, noise
            ),
            "inner_product": partial(
                theory.inner_product,
                network,
                loss,
                params,
                direction,
                teacher,
                noise,
            ),
            "inner_product_other_start": partial(
                theory.inner_product, network, loss, params, direction, other, noise
            ),
            "curve": lambda loss=loss: (
                theory.curve(
                    network, loss, params, direction, jnp.asarray(_EPS, dtype), noise
                ).inner_product
            ),
            "descent": lambda loss=loss: (
                theory.descend(
                    network, loss, params, direction, noise, rate=0.1, steps=20
                ).displacement
            ),
            "projection": lambda loss=loss: (
                theory.project(network, loss, params, direction, noise, iterations=10).displacement
            ),
            "nonlinearity": partial(theory.nonlinearity, network, loss, params, teacher, noise),
        }
        for quantity, compute in quantities.items():
            leaves = [np.ravel(np.asarray(leaf)) for leaf in jax.tree.leaves(compute())]
            numbers[f"{name} {quantity}"] = np.concatenate(leaves).astype(np.float64)
    return numbers


def population_logits() -> np.ndarray:
    """Class logits of 8 students on test images, runs x images x classes, all logits imitated.

    They learn from teachers of the bundled digits in all that the paper's setting says.
    """
    dataset = data.load("digits")
    mesh = devices.population_mesh()
    context = Context(dataset, 0, mesh)
    asked = {"dataset": "digits", "student.logits": "all", "student.inputs.count": 6_000}
    setting = canonical(build(Setting, asked), len(dataset.train_images))
    taught = teachers([(teacher_of(setting), run) for run in range(RUNS)], context)
    learnt = students([(setting, run) for run in range(RUNS)], taught, {}, context)
    images = devices.replicate(dataset.test_images[:128], mesh)
    models = [learnt[setting, run].params for run in range(RUNS)]
    logits = logits_of(Forward(architectures(setting)[1]), models, images, mesh)
    return logits[..., : dataset.classes]


def main() -> None:
    """Writes the file."""
    prepare_jax()
    with exact(x64=True):
        numbers = theory_numbers(np.float64)
    with exact():
        logits = population_logits()
    arrays: dict[str, Any] = {"population": logits.astype(np.float32), **numbers}
    np.savez_compressed(STORED, **arrays)
    print(f"{STORED.name}: {len(numbers)} quantities, logits {logits.shape}")


if __name__ == "__main__":
    main()
