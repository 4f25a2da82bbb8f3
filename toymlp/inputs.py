"""What models are trained on: noise of several kinds, images, and things between the two.

A kind of inputs is a setting that draws itself; a new kind is a class here, beside the others in
`Inputs`. Drawn on the host by NumPy from (seed, purpose, epoch) alone, in blocks side by side on
all cores: 60,000 images take about a tenth of the time in which one model is trained on them.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32

from sublab.devices import cores
from sublab.randomness import purpose_of
from sublab.settings import setting, static
from toymlp.data import Dataset

_BLOCK = 2048
# The standard deviation of a pixel that is uniform in [-1, 1].
_UNIFORM_STD = 3**-0.5
_HELD_OUT = 4096

_Source = Float32[np.ndarray, "source pixels"]
_Images = Float32[np.ndarray, "inputs pixels"]
# fill(random, out, rows): draws `out`, which is the slice `rows` of all inputs.
_Fill = Callable[[np.random.Generator, np.ndarray, slice], None]


def _count(default: int = 60_000) -> Any:
    return static(
        "inputs an epoch; 0 is as many as there are training images (of the classes kept), and of "
        "those made from training images there are no more",
        default=default,
        title="inputs an epoch",
        phrase="{} inputs an epoch",
        low=0,
        high=2**24,
    )


@setting
class _Drawn:
    """What is drawn, and not there as images are."""

    from_images: ClassVar[bool] = False

    count: int = _count()
    fresh: bool = static(
        "inputs drawn anew each epoch, in place of one fixed set",
        default=False,
        title="fresh inputs",
    )
    per_run: bool = static(
        "inputs of each run drawn for it alone, in place of one set for all runs (a random "
        "subspace is the same for all)",
        default=False,
        title="inputs of each run's own",
    )


@setting
class _Scaled(_Drawn):
    scale: float = static(
        "factor on the noise",
        default=1.0,
        title="factor on the noise",
        phrase="noise times {}",
        above=0.0,
        high=1e3,
    )


@setting
class Uniform(_Scaled):
    """Noise: pixels uniform in [-1, 1], times `scale`."""

    kind: ClassVar[str] = "uniform"

    def filling(self, images: _Source, seed: int) -> _Fill:
        """How a block is drawn; arguments as those of `draw_inputs`."""
        del images, seed
        return _scaled(_uniform, self.scale)


@setting
class Normal(_Scaled):
    """Noise: pixels standard normal, times `scale`."""

    kind: ClassVar[str] = "normal"

    def filling(self, images: _Source, seed: int) -> _Fill:
        """How a block is drawn; arguments as those of `draw_inputs`."""
        del images, seed
        return _scaled(_normal, self.scale)


@setting
class Bernoulli(_Scaled):
    """Noise: every pixel is one of the two ends, `scale` or -`scale`."""

    kind: ClassVar[str] = "bernoulli"

    probability: float = static(
        "probability that a pixel is at the upper end",
        default=0.5,
        title="probability of a bright pixel",
        low=0.0,
        high=1.0,
    )

    def filling(self, images: _Source, seed: int) -> _Fill:
        """How a block is drawn; arguments as those of `draw_inputs`."""
        del images, seed

        def fill(random: np.random.Generator, out: np.ndarray, rows: slice) -> None:
            random.random(out=out, dtype=np.float32)
            out[:] = np.where(out < self.probability, np.float32(1), np.float32(-1))

        return _scaled(fill, self.scale)


@setting
class Images:
    """The first `count` training images, which are there and not drawn."""

    kind: ClassVar[str] = "images"
    from_images: ClassVar[bool] = True
    fresh: ClassVar[bool] = False
    per_run: ClassVar[bool] = False

    count: int = _count()

    def filling(self, images: _Source, seed: int) -> _Fill:
        """How a block is copied; arguments as those of `draw_inputs`."""
        del seed

        def fill(random: np.random.Generator, out: np.ndarray, rows: slice) -> None:
            out[:] = images[rows]

        return fill


@setting
class Mixture(_Drawn):
    """A training image plus alpha times uniform noise."""

    kind: ClassVar[str] = "mixture"
    from_images: ClassVar[bool] = True

    alpha: float = static(
        "weight of the uniform noise in a mixture with training images",
        default=1.0,
        title="weight alpha of the noise",
        low=0.0,
        high=1e3,
    )

    def filling(self, images: _Source, seed: int) -> _Fill:
        """How a block is drawn; arguments as those of `draw_inputs`."""
        del seed

        def fill(random: np.random.Generator, out: np.ndarray, rows: slice) -> None:
            _uniform(random, out, rows)
            out *= np.float32(self.alpha)
            out += images[rows]

        return fill


@setting
class Blurred(_Drawn):
    """Uniform noise, blurred by a Gaussian and scaled to the variance it had."""

    kind: ClassVar[str] = "blurred"

    width: float = static(
        "standard deviation of the Gaussian blur in pixels; the noise keeps its variance",
        default=2.0,
        title="blur, standard deviation in pixels",
        above=0.0,
        high=100.0,
    )

    def filling(self, images: _Source, seed: int) -> _Fill:
        """How a block is drawn; arguments as those of `draw_inputs`."""
        del images, seed

        def fill(random: np.random.Generator, out: np.ndarray, rows: slice) -> None:
            _uniform(random, out, rows)
            out[:] = _blurred(out, self.width)

        return fill


@setting
class Subspace(_Drawn):
    """Normal noise in a random subspace, with the variance of uniform noise in each pixel."""

    kind: ClassVar[str] = "subspace"

    dimension: int = static(
        "dimension of the random subspace that the noise lies in",
        default=64,
        title="dimensions of the subspace",
        low=1,
        high=4096,
    )

    def filling(self, images: _Source, seed: int) -> _Fill:
        """How a block is drawn; arguments as those of `draw_inputs`."""
        basis = _basis(self.dimension, images.shape[1], seed)

        def fill(random: np.random.Generator, out: np.ndarray, rows: slice) -> None:
            weights = random.standard_normal((len(out), self.dimension), dtype=np.float32)
            np.matmul(weights, basis, out=out)

        return fill


@setting
class Shuffled(_Drawn):
    """Training images, the pixels of each in an order of its own."""

    kind: ClassVar[str] = "shuffled"
    from_images: ClassVar[bool] = True

    def filling(self, images: _Source, seed: int) -> _Fill:
        """How a block is drawn; arguments as those of `draw_inputs`."""
        del seed

        def fill(random: np.random.Generator, out: np.ndarray, rows: slice) -> None:
            out[:] = random.permuted(images[rows], axis=1)

        return fill


Inputs = Uniform | Normal | Bernoulli | Images | Mixture | Blurred | Subspace | Shuffled


def input_count(inputs: Inputs, images: int) -> int:
    """How many inputs there are an epoch where there are so many `images` to make them from."""
    count = inputs.count or images
    return min(count, images) if inputs.from_images else count


def draw_inputs(
    inputs: Inputs, dataset: Dataset, seed: int, purpose: str, epoch: int = 0
) -> _Images:
    """One set of inputs.

    Args:
        inputs: kind and number.
        dataset: data set whose training images those made from images come from, the first ones.
        seed: base seed.
        purpose: name of what they are for; two purposes have different draws.
        epoch: number of the epoch, where each has a draw of its own.

    Returns:
        (inputs, pixels), float32.
    """
    return _drawn(inputs, dataset.train_images, seed, purpose, epoch)


def held_out_inputs(inputs: Inputs, dataset: Dataset, seed: int, purpose: str) -> _Images:
    """Inputs of the same kind that no model was trained on, 4,096 at most.

    Those made from images are made from the test images.
    """
    few = replace(inputs, count=min(inputs.count or _HELD_OUT, _HELD_OUT))
    return _drawn(few, dataset.test_images, seed, f"{purpose}, held out", 0)


def _drawn(inputs: Inputs, images: _Source, seed: int, purpose: str, epoch: int) -> _Images:
    count = input_count(inputs, len(images))
    if isinstance(inputs, Images):
        return images[:count]
    fill = inputs.filling(images, seed)
    drawn = np.empty((count, images.shape[1]), np.float32)

    def block(start: int) -> None:
        rows = slice(start, min(start + _BLOCK, count))
        entropy = [seed, purpose_of(purpose), epoch, start // _BLOCK]
        random = np.random.Generator(np.random.SFC64(np.random.SeedSequence(entropy)))
        fill(random, drawn[rows], rows)

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(block, range(0, count, _BLOCK)))
    return drawn


def _uniform(random: np.random.Generator, out: np.ndarray, rows: slice) -> None:
    random.random(out=out, dtype=np.float32)
    out *= 2
    out -= 1


def _normal(random: np.random.Generator, out: np.ndarray, rows: slice) -> None:
    random.standard_normal(out=out, dtype=np.float32)


def _scaled(fill: _Fill, scale: float) -> _Fill:
    if scale == 1:
        return fill

    def scaled(random: np.random.Generator, out: np.ndarray, rows: slice) -> None:
        fill(random, out, rows)
        out *= np.float32(scale)

    return scaled


def _basis(dimension: int, pixels: int, seed: int) -> Float32[np.ndarray, "dimension pixels"]:
    """Orthonormal rows, scaled so that a pixel's variance is on average that of uniform noise."""
    random = np.random.default_rng([seed, purpose_of("subspace")])
    rows = np.linalg.qr(random.standard_normal((pixels, dimension)))[0].T
    return (rows * (pixels / dimension) ** 0.5 * _UNIFORM_STD).astype(np.float32)


def _blurred(noise: _Images, width: float) -> _Images:
    from scipy import ndimage

    side = round(noise.shape[1] ** 0.5)
    square = noise.reshape(-1, side, side)
    smooth = ndimage.gaussian_filter(square, (0, width, width), mode="wrap")
    # What the filter does to one bright pixel says what it does to the variance.
    spot = np.zeros((side, side))
    spot[0, 0] = 1
    response = ndimage.gaussian_filter(spot, width, mode="wrap")
    return (smooth / np.sqrt(np.sum(response**2))).reshape(noise.shape).astype(np.float32)
