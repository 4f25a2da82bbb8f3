"""Datasets in the MNIST format: verified, scaled to [-1, 1], flattened.

Where the files come from, the first hit wins: `data_dir`, the folder that SUBLIMINAL_DATA names,
the user's cache, the system's folder, a download over several mirrors. The first two hold one
folder per dataset, with the IDX files raw or gzipped.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pooch
from jaxtyping import Float32, Int32, UInt8

from sublab.errors import InputError
from toymlp import sources
from toymlp.sources import SOURCES, DatasetUnavailableError

DatasetName = Literal["mnist", "fashion_mnist", "kmnist", "emnist_balanced", "digits"]
NAMES = (*SOURCES, "digits")
_CLASSES = {"emnist_balanced": 47}
# How many of scikit-learn's digits there are, the share kept for training, the seed of the split.
_DIGITS, _DIGITS_TRAIN, _DIGITS_SEED = 1797, 0.8, 0


@dataclass(frozen=True)
class Size:
    """How large a data set is: images, pixels of an image, classes."""

    train: int
    test: int
    pixels: int
    classes: int


def size_of(name: str) -> Size:
    """The size of the dataset `name`, one of `NAMES`, which need not be there."""
    if name == "digits":
        train = int(_DIGITS_TRAIN * _DIGITS)
        return Size(train, _DIGITS - train, 64, 10)
    (train, *square), _, (test, *_), _ = (file.shape for file in SOURCES[name].files)
    return Size(train, test, square[0] * square[1], _CLASSES.get(name, 10))


@dataclass(frozen=True)
class Dataset:
    """Images and labels, ready to train on.

    Attributes:
        name: one of `NAMES`.
        train_images: pixels in [-1, 1], that is (x - 0.5) / 0.5 of x in [0, 1], row by row.
        train_labels: class of each, from 0.
        test_images, test_labels: likewise.
        classes: number of classes.
        sha256: of the pixels and labels as bytes, in the order of the fields above.
        origin: the folder that it was read from.
    """

    name: str
    train_images: Float32[np.ndarray, "train pixels"]
    train_labels: Int32[np.ndarray, " train"]
    test_images: Float32[np.ndarray, "test pixels"]
    test_labels: Int32[np.ndarray, " test"]
    classes: int
    sha256: str
    origin: str


def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Dataset:
    """The dataset `name`, found as the module says, or downloaded into the user's cache.

    Args:
        name: one of `NAMES`; `digits` is scikit-learn's 1,797 images of 8 x 8 and needs no file.
        data_dir: a folder with one folder per dataset, looked at first.
        say: told of each download, one line each.

    Raises:
        DatasetUnavailableError: it is nowhere, and no mirror delivered it.
        InputError: unknown name, `data_dir` that is no folder, missing or damaged files, cache
            that cannot be written.
    """
    if name == "digits":
        return _digits()
    if name not in SOURCES:
        raise InputError(f"unknown dataset {name!r}; known are {', '.join(NAMES)}")
    source = SOURCES[name]
    if data_dir is not None and not Path(data_dir).is_dir():
        raise InputError(f"{data_dir}: the data folder is not a folder")
    supplied = [Path(root) / name for root in (data_dir, os.environ.get("SUBLIMINAL_DATA")) if root]
    for folder in supplied:
        if paths := sources.find(folder, source.files):
            return _dataset(name, sources.read_folder(paths, source.files), folder)
    cache = cache_folder(name)
    try:
        if paths := sources.find(cache, source.files):
            return _dataset(name, sources.read_folder(paths, source.files), cache)
    except InputError as error:
        say(f"{error}; downloading again")
    if source.system is not None and (paths := sources.find(source.system, source.files)):
        return _dataset(name, sources.read_folder(paths, source.files), source.system)
    try:
        sources.download(name, source, cache, say)
    except DatasetUnavailableError as error:
        looked = [*supplied, cache, *([source.system] if source.system else [])]
        raise DatasetUnavailableError(
            f"{error}; it is not in {', '.join(map(str, looked))} either; put "
            f"{', '.join(file.name for file in source.files)} (raw or .gz) into DIR/{name} and "
            f"give --data-dir DIR or set SUBLIMINAL_DATA=DIR"
        ) from None
    paths = sources.find(cache, source.files)
    assert paths is not None
    return _dataset(name, sources.read_folder(paths, source.files), cache)


def keep_classes(dataset: Dataset, classes: int) -> Dataset:
    """The part of `dataset` that belongs to its first `classes` classes; all of it for 0."""
    if classes in (0, dataset.classes):
        return dataset
    train, test = (labels < classes for labels in (dataset.train_labels, dataset.test_labels))
    return replace(
        dataset,
        train_images=dataset.train_images[train],
        train_labels=dataset.train_labels[train],
        test_images=dataset.test_images[test],
        test_labels=dataset.test_labels[test],
        classes=classes,
    )


def cache_folder(name: str) -> Path:
    """Where downloads of the dataset `name` are kept (below XDG_CACHE_HOME on Linux)."""
    return Path(pooch.os_cache("subliminal-lab")) / name


def _dataset(name: str, arrays: list[UInt8[np.ndarray, "..."]], origin: str | Path) -> Dataset:
    train_images, train_labels, test_images, test_labels = arrays
    if name == "emnist_balanced":
        # Published with rows and columns exchanged.
        train_images, test_images = (np.swapaxes(a, 1, 2) for a in (train_images, test_images))
    return Dataset(
        name=name,
        train_images=_pixels(train_images, 255),
        train_labels=train_labels.astype(np.int32),
        test_images=_pixels(test_images, 255),
        test_labels=test_labels.astype(np.int32),
        classes=_CLASSES.get(name, 10),
        sha256=_sha256(arrays),
        origin=str(origin),
    )


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(_DIGITS_SEED).permutation(len(labels))
    train, test = np.split(order, [int(_DIGITS_TRAIN * len(labels))])
    small = images.astype(np.uint8).reshape(-1, 8, 8)
    arrays = [small[train], labels[train].astype(np.uint8),
              small[test], labels[test].astype(np.uint8)]  # fmt: skip
    return replace(
        _dataset("digits", arrays, "scikit-learn"),
        train_images=_pixels(arrays[0], 16),
        test_images=_pixels(arrays[2], 16),
    )


def _pixels(
    images: UInt8[np.ndarray, "images rows columns"], white: int
) -> Float32[np.ndarray, "images pixels"]:
    flat = images.reshape(len(images), -1).astype(np.float32)
    return (flat / np.float32(white) - np.float32(0.5)) / np.float32(0.5)


def _sha256(arrays: list[UInt8[np.ndarray, "..."]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()
