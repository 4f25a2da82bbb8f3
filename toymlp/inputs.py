"""What students are distilled on: noise of several kinds, images, and things between the two.

Drawn on the host by NumPy from (seed, purpose, epoch) alone, in blocks side by side on all cores:
a fresh set of 60,000 images takes about a tenth of the time in which one model is trained on it.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from sublab.devices import cores
from sublab.randomness import purpose_of
from toymlp.data import Dataset
from toymlp.settings import InputsName, Shape

_BLOCK = 2048
# The standard deviation of a pixel that is uniform in [-1, 1].
_UNIFORM_STD = 3**-0.5
HELD_OUT = 4096
_FROM_IMAGES = ("images", "mixture", "shuffled")

_Source = Float32[np.ndarray, "source pixels"]
_Images = Float32[np.ndarray, "inputs pixels"]
_Draw = Callable[[np.random.Generator, np.ndarray, slice], None]


@dataclass(frozen=True)
class Kind:
    """A kind of inputs.

    Attributes:
        name: what they are made of.
        count: how many there are.
        alpha, blur, subspace: as in `toymlp.settings.Shape`.
    """

    name: InputsName
    count: int
    alpha: float = 1.0
    blur: float = 2.0
    subspace: int = 64


def distillation_kind(shape: Shape) -> Kind:
    """The distillation inputs of a setting."""
    return Kind(shape.inputs, shape.images, shape.alpha, shape.blur, shape.subspace)


def cloning_kind(shape: Shape) -> Kind:
    """The inputs of its behavioural cloning."""
    return Kind(shape.clone_inputs, shape.clone_images)


def draw_inputs(kind: Kind, dataset: Dataset, seed: int, purpose: str, epoch: int = 0) -> _Images:
    """One set of inputs.

    Args:
        kind: what kind, and how many.
        dataset: whose training images those made from images come from: the first `count` of
            them, or all where there are fewer.
        seed, purpose, epoch: decide the draw.
    """
    return _draw(kind, dataset.train_images, seed, purpose, epoch)


def input_count(kind: Kind, dataset: Dataset) -> int:
    """How many inputs `draw_inputs` gives."""
    there = len(dataset.train_images)
    return min(kind.count, there) if kind.name in _FROM_IMAGES else kind.count


def held_out_inputs(kind: Kind, dataset: Dataset, seed: int, purpose: str) -> _Images:
    """Inputs of the same kind that no model was trained on; of images, the test images."""
    small = replace(kind, count=min(kind.count, HELD_OUT))
    return _draw(small, dataset.test_images, seed, f"{purpose}, held out", 0)


def _draw(kind: Kind, images: _Source, seed: int, purpose: str, epoch: int) -> _Images:
    pixels = images.shape[1]
    count = min(kind.count, len(images)) if kind.name in _FROM_IMAGES else kind.count
    if kind.name == "images":
        return images[:count]
    basis = _basis(kind.subspace, pixels, seed) if kind.name == "subspace" else None

    def fill(random: np.random.Generator, out: np.ndarray, rows: slice) -> None:
        if kind.name == "normal":
            random.standard_normal(out=out, dtype=np.float32)
        elif kind.name == "subspace":
            assert basis is not None
            weights = random.standard_normal((len(out), kind.subspace), dtype=np.float32)
            np.matmul(weights, basis, out=out)
        elif kind.name == "shuffled":
            out[:] = random.permuted(images[rows], axis=1)
        else:
            random.random(out=out, dtype=np.float32)
            out *= 2
            out -= 1
            if kind.name == "mixture":
                out *= np.float32(kind.alpha)
                out += images[rows]
            elif kind.name == "blurred":
                out[:] = _blurred(out, kind.blur)

    drawn = np.empty((count, pixels), np.float32)

    def block(start: int) -> None:
        rows = slice(start, min(start + _BLOCK, count))
        entropy = [seed, purpose_of(purpose), epoch, start // _BLOCK]
        random = np.random.Generator(np.random.SFC64(np.random.SeedSequence(entropy)))
        fill(random, drawn[rows], rows)

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(block, range(0, count, _BLOCK)))
    return drawn


def _basis(dimension: int, pixels: int, seed: int) -> Float32[np.ndarray, "dimension pixels"]:
    """Orthonormal rows, scaled so that a pixel's variance is on average that of uniform noise."""
    random = np.random.default_rng([seed, purpose_of("subspace")])
    rows = np.linalg.qr(random.standard_normal((pixels, dimension)))[0].T
    return (rows * (pixels / dimension) ** 0.5 * _UNIFORM_STD).astype(np.float32)


def _blurred(noise: _Images, width: float) -> _Images:
    side = round(noise.shape[1] ** 0.5)
    square = noise.reshape(-1, side, side)
    smooth = ndimage.gaussian_filter(square, (0, width, width), mode="wrap")
    # What the filter does to one bright pixel says what it does to the variance.
    spot = np.zeros((side, side))
    spot[0, 0] = 1
    response = ndimage.gaussian_filter(spot, width, mode="wrap")
    return (smooth / np.sqrt(np.sum(response**2))).reshape(noise.shape).astype(np.float32)
