"""Datasets in the MNIST format: found, verified, scaled to [-1, 1], flattened.

Where the files come from, the first hit wins: `data_dir`, the folder that SUBLIMINAL_DATA names,
the user's cache, the system's folder, a download over several mirrors. The first two hold one
folder per dataset (`mnist`), or torchvision's (`MNIST/raw`), or the files themselves. Files are raw
or gzipped, with dashes or a dot in their names (`train-images-idx3-ubyte`,
`train-images.idx3-ubyte.gz`). The content decides, never the name: files of another data set under
the same names are passed over, so that several data sets may share a folder.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from sublab.errors import InputError
from toymlp import sources
from toymlp.sources import DATASETS, DatasetUnavailableError, IdxFile, RawArrays, Source, source_of


@dataclass(frozen=True)
class Size:
    """How large a data set is: images, pixels of an image, classes."""

    train: int
    test: int
    pixels: int
    classes: int


def size_of(name: str) -> Size:
    """The size of the dataset `name`, one of `DATASETS`, which need not be there.

    Raises:
        InputError: unknown name.
    """
    source = source_of(name)
    (train, *square), _, (test, *_), _ = (file.shape for file in source.files)
    return Size(train, test, square[0] * square[1], source.classes)


@dataclass(frozen=True)
class Dataset:
    """Images and labels, ready to train on.

    Attributes:
        name: one of `DATASETS`.
        train_images: pixels in [-1, 1], that is (x - 0.5) / 0.5 of x in [0, 1], row by row.
        train_labels: class of each training image, from 0.
        test_images, test_labels: the same for the test set.
        classes: number of classes.
        sha256: SHA-256 of the pixels and labels as bytes, in the order of the fields above.
        origin: folder that it was read from.
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
        name: one of `DATASETS`; `digits` is scikit-learn's 1,797 images of 8 x 8 and needs no file.
        data_dir: folder that is looked at first; `~` stands for the home folder.
        say: function that is told of downloads, of folders that were passed over and of files that
            could not be proved genuine, one line each.

    Raises:
        DatasetUnavailableError: it is nowhere, and no mirror delivered it.
        InputError: unknown name; `data_dir` or SUBLIMINAL_DATA that is no folder; missing or
            damaged files; cache that cannot be written.
    """
    source = source_of(name)
    given = _folder("the data folder", data_dir)
    if source.bundled is not None:
        return _dataset(name, source.bundled(), "scikit-learn")
    supplied = [given, _folder("SUBLIMINAL_DATA", os.environ.get("SUBLIMINAL_DATA"))]
    roots = [root for root in supplied if root is not None]
    passed: list[str] = []
    unproven: _Copy | None = None
    for copy in _copies(name, source, roots, passed, say):
        if copy.proven:
            return _dataset(name, copy.arrays, copy.folder)
        unproven = unproven or copy
    if unproven is not None:
        say(
            f"{unproven.folder}: raw files of {source.title} whose shapes and labels are right; "
            f"that their content is the published cannot be proved, since only the digests of the "
            f".gz files are published; put those beside them"
        )
        return _dataset(name, unproven.arrays, unproven.folder)
    for line in passed:
        say(f"{line}; passed over")
    cache = cache_folder(name)
    try:
        sources.download(name, source, cache, say)
    except DatasetUnavailableError as error:
        looked = [*roots, cache, *([source.system] if source.system else [])]
        aside = f" ({'; '.join(passed)})" if passed else ""
        raise DatasetUnavailableError(
            f"{error}; it is not in {', '.join(map(str, looked))} either{aside}; put "
            f"{', '.join(file.name for file in source.files)} (raw or .gz) into DIR/{name} and "
            f"give --data-dir DIR or set SUBLIMINAL_DATA=DIR"
        ) from None
    copy = _read_folder(name, cache, True, passed)
    assert copy is not None
    return _dataset(name, copy.arrays, cache)


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
    import pooch

    return Path(pooch.os_cache("subliminal-lab")) / name


def _folder(what: str, path: str | Path | None) -> Path | None:
    """The folder that was named, if one was; `what` named it.

    Raises:
        InputError: it is not there, or no folder.
    """
    if path is None or path == "":
        return None
    folder = Path(os.path.expanduser(path))
    if not folder.is_dir():
        raise InputError(f"{what}: {folder} is not a folder")
    return folder


def _candidates(name: str, source: Source, root: Path) -> list[tuple[Path, bool]]:
    """Where below `root` the files may lie, and whether that folder is named for the data set."""
    own = [root / name, root / name / "raw"]
    if source.torchvision:
        own += [root / source.torchvision / "raw", root / source.torchvision]
    return [*((folder, True) for folder in own), (root, False), (root / "raw", False)]


@dataclass(frozen=True)
class _Reading:
    """What a folder has of one file.

    Attributes:
        array: the array, if the file has the right form.
        proven: whether its content is the published one; None where that cannot be told.
        fault: what is wrong, if anything is.
        owner: data set whose file it is, if it is another's.
    """

    array: UInt8[np.ndarray, "..."] | None = None
    proven: bool | None = False
    fault: str | None = None
    owner: str | None = None


@dataclass(frozen=True)
class _Copy:
    """The four arrays of a data set in a folder, and whether they are proved to be genuine."""

    folder: Path
    arrays: RawArrays
    proven: bool


def _copies(
    name: str, source: Source, roots: list[Path], passed: list[str], say: Callable[[str], None]
) -> Iterator[_Copy]:
    """Every copy on this machine, those in `roots` first, then the cache and the system's.

    Raises:
        InputError: as `_read_folder`, when that folder is reached.
    """
    for root in roots:
        for folder, named in _candidates(name, source, root):
            if copy := _read_folder(name, folder, named, passed):
                yield copy
    try:
        if copy := _read_folder(name, cache_folder(name), True, passed):
            yield copy
    except InputError as error:
        say(f"{error}; downloading again")
    if source.system and (copy := _read_folder(name, source.system, True, passed)):
        yield copy


def _read_folder(name: str, folder: Path, named: bool, passed: list[str]) -> _Copy | None:
    """The copy of the dataset `name` in `folder`; None if it is not there.

    Args:
        name: one of `DATASETS`.
        folder: folder that may hold the files.
        named: whether the folder is named for the data set; in any other, files that have nothing
            of it are somebody else's.
        passed: lines on folders that hold another data set's files, added to.

    Raises:
        InputError: files are missing, damaged or cannot be read.
    """
    source = DATASETS[name]
    try:
        present = {path.name for path in folder.iterdir()} if folder.is_dir() else set[str]()
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
    paths = [
        [folder / spelling for spelling in sources.spellings(file) if spelling in present]
        for file in source.files
    ]
    if not any(paths):
        return None
    readings = [_read(file, path) for file, path in zip(source.files, paths, strict=True)]
    arrays = [reading.array for reading in readings if reading.array is not None]
    if all(reading.proven for reading in readings):
        return _Copy(folder, arrays, True)
    faults = [reading.fault for reading in readings if reading.fault]
    owners = {reading.owner for reading in readings if reading.owner} - {name}
    named = named or all(_is_unique(file) for file in source.files)
    if not any(reading.proven for reading in readings) and (owners or not named):
        whose = " and ".join(sorted(DATASETS[owner].title for owner in owners))
        passed.append(f"{folder} holds files of {whose or 'another data set'}, by their content")
        return None
    if missing := [file.name for file, path in zip(source.files, paths, strict=True) if not path]:
        raise InputError(f"{folder}: missing {', '.join(missing)} (raw or .gz)")
    if faults:
        raise InputError(faults[0])
    for labels in arrays[1::2]:
        counts = np.bincount(labels, minlength=source.classes)
        if len(counts) > source.classes or len(set(counts.tolist())) > 1:
            raise InputError(
                f"{folder}: not {source.title} (its classes have equally many images each)"
            )
    return _Copy(folder, arrays, False)


def _read(file: IdxFile, paths: list[Path]) -> _Reading:
    """The best that `paths`, spellings of one file's name, hold of `file`."""
    readings = []
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            readings.append(_Reading(fault=f"{path}: cannot be read ({error.strerror})"))
            continue
        owner = None
        try:
            raw = sources.uncompressed(content, str(path))
            if sources.is_published(file, content, raw):
                return _Reading(sources.parsed(file, raw, str(path)), True)
            owner = sources.owner_of(content, raw)
            array = sources.parsed(file, raw, str(path))
        except InputError as error:
            readings.append(_Reading(fault=str(error), owner=owner))
            continue
        proven = sources.is_published(file, content, raw)
        fault = sources.not_published(file, str(path)) if proven is False else None
        readings.append(_Reading(None if fault else array, proven, fault, owner))
    # Without one that is proved: one with nothing against it, or else the first one's fault.
    plausible = [reading for reading in readings if reading.fault is None and not reading.owner]
    return next(iter([*plausible, *readings]), _Reading())


def _is_unique(file: IdxFile) -> bool:
    """Whether only one data set has a file of this name."""
    return sum(other.name == file.name for s in DATASETS.values() for other in s.files) == 1


def _dataset(name: str, arrays: RawArrays, origin: str | Path) -> Dataset:
    source = DATASETS[name]
    train_images, train_labels, test_images, test_labels = arrays
    if source.transposed:
        train_images, test_images = (np.swapaxes(a, 1, 2) for a in (train_images, test_images))
    return Dataset(
        name=name,
        train_images=_pixels(train_images, source.white),
        train_labels=train_labels.astype(np.int32),
        test_images=_pixels(test_images, source.white),
        test_labels=test_labels.astype(np.int32),
        classes=source.classes,
        sha256=_sha256(arrays),
        origin=str(origin),
    )


def _pixels(
    images: UInt8[np.ndarray, "images rows columns"], white: int
) -> Float32[np.ndarray, "images pixels"]:
    flat = images.reshape(len(images), -1).astype(np.float32)
    return (flat / np.float32(white) - np.float32(0.5)) / np.float32(0.5)


def _sha256(arrays: RawArrays) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()
