"""The data sets: files, digests, titles, classes, and how each is had and shown to be genuine.

A new data set is one more entry of `DATASETS`, and nothing else anywhere.

What is verified is the SHA-256 of the UNCOMPRESSED content, so that any recompression passes and
any damage does not. Of KMNIST and EMNIST only the digests of the compressed files are published:
a genuine `.gz` proves itself, and a raw file that equals it. A raw file alone cannot be proved.
It is accepted where shape, labels and number of images of each class are as published and the
folder or the file's own name says which data set it is, and the person is told in one line what
is missing; damage to its pixels would not be seen.
"""

import gzip
import hashlib
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import UInt8

from sublab.errors import InputError
from sublab.files import write_whole

Say = Callable[[str], None]
# Train images, train labels, test images, test labels: numbers as they lie in the files.
RawArrays = list[UInt8[np.ndarray, "..."]]
# Seconds without a byte after which a mirror counts as dead.
_TIMEOUT = 15


class DatasetUnavailableError(InputError):
    """A dataset is in none of the places looked at, and no mirror delivered it."""


@dataclass(frozen=True)
class IdxFile:
    """One IDX file of a dataset.

    Attributes:
        name: file name, without `.gz`.
        shape: shape of the array in the file.
        sha256: SHA-256 of the uncompressed content; None where nobody has published it.
        gzip_digest: "sha256:..." or "md5:..." of the published `.gz`, used where `sha256` is None.
    """

    name: str
    shape: tuple[int, ...]
    sha256: str | None = None
    gzip_digest: str | None = None


@dataclass(frozen=True)
class Source:
    """A data set: what it is called, what it is made of, where it lives.

    Attributes:
        title: name for people, as figures and tables print it.
        classes: number of classes.
        files: train images, train labels, test images, test labels, in this order.
        torchvision: folder of torchvision that holds it, beside the data set's own name.
        mirrors: folders on the web that hold each file as `name.gz`.
        archives: zip files on the web that hold all of them as `gzip/name.gz`.
        system: folder that a system package installs the files to.
        bundled: function that gives the four arrays of a data set that needs no download; `files`
            say their shapes all the same.
        transposed: whether rows and columns of the published images are exchanged.
        white: brightest value of a pixel.
    """

    title: str
    classes: int
    files: tuple[IdxFile, ...]
    torchvision: str | None = None
    mirrors: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    system: Path | None = None
    bundled: Callable[[], RawArrays] | None = None
    transposed: bool = False
    white: int = 255


def _mnist_like(digests: tuple[str, ...], published_gzip: bool = False) -> tuple[IdxFile, ...]:
    names = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
    shapes = ((60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,))
    field = "gzip_digest" if published_gzip else "sha256"
    return tuple(
        IdxFile(name, shape, **{field: digest})
        for name, shape, digest in zip(names, shapes, digests, strict=True)
    )


# How many of scikit-learn's digits there are, how many of them are trained on, the split's seed.
_DIGITS, _DIGITS_TRAIN, _DIGITS_SEED = 1797, 1437, 0


def _digits() -> RawArrays:
    """scikit-learn's digits, pixels from 0 to 16, split once."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(_DIGITS_SEED).permutation(len(labels))
    images = pixels.astype(np.uint8).reshape(-1, 8, 8)
    parts = np.split(order, [_DIGITS_TRAIN])
    return [array[part] for part in parts for array in (images, labels.astype(np.uint8))]


DATASETS: dict[str, Source] = {
    "mnist": Source(
        title="MNIST",
        classes=10,
        torchvision="MNIST",
        files=_mnist_like(
            (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            )
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "http://yann.lecun.com/exdb/mnist/",
        ),
    ),
    "fashion_mnist": Source(
        title="Fashion-MNIST",
        classes=10,
        torchvision="FashionMNIST",
        files=_mnist_like(
            (
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            )
        ),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        system=Path("/usr/share/datasets/fashion-mnist"),
    ),
    "kmnist": Source(
        title="KMNIST",
        classes=10,
        torchvision="KMNIST",
        files=_mnist_like(
            (
                "sha256:51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
                "sha256:e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
                "sha256:edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
                "sha256:20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
            ),
            published_gzip=True,
        ),
        mirrors=(
            "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        ),
    ),
    "emnist_balanced": Source(
        title="EMNIST Balanced",
        classes=47,
        torchvision="EMNIST",
        transposed=True,
        files=(
            IdxFile(
                "emnist-balanced-train-images-idx3-ubyte",
                (112_800, 28, 28),
                gzip_digest="md5:4041b0d6f15785d3fa35263901b5496b",
            ),
            IdxFile(
                "emnist-balanced-train-labels-idx1-ubyte",
                (112_800,),
                gzip_digest="md5:7a35cc7b2b7ee7671eddf028570fbd20",
            ),
            IdxFile(
                "emnist-balanced-test-images-idx3-ubyte",
                (18_800, 28, 28),
                gzip_digest="md5:6818d20fe2ce1880476f747bbc80b22b",
            ),
            IdxFile(
                "emnist-balanced-test-labels-idx1-ubyte",
                (18_800,),
                gzip_digest="md5:acd3694070dcbf620e36670519d4b32f",
            ),
        ),
        archives=(
            "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
            "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/gzip.zip",
        ),
    ),
    "digits": Source(
        title="scikit-learn digits (8 x 8, not MNIST)",
        classes=10,
        bundled=_digits,
        white=16,
        files=(
            IdxFile("train images", (_DIGITS_TRAIN, 8, 8)),
            IdxFile("train labels", (_DIGITS_TRAIN,)),
            IdxFile("test images", (_DIGITS - _DIGITS_TRAIN, 8, 8)),
            IdxFile("test labels", (_DIGITS - _DIGITS_TRAIN,)),
        ),
    ),
}
# The names that the command line offers. At run time they are the table's; a type checker, which
# cannot read the table, takes any string.
if TYPE_CHECKING:
    DatasetName = str
else:
    DatasetName = Literal[tuple(DATASETS)]


def source_of(name: str) -> Source:
    """The entry of `DATASETS` under `name`.

    Raises:
        InputError: unknown name; the message lists the known.
    """
    if name not in DATASETS:
        raise InputError(f"unknown dataset {name!r}; known are {', '.join(DATASETS)}")
    return DATASETS[name]


def spellings(file: IdxFile) -> tuple[str, ...]:
    """The names under which a file is met: `.gz` first, since it can prove the raw one."""
    # Some copies are named train-images.idx3-ubyte.
    dotted = ".idx".join(file.name.rsplit("-idx", 1))
    return tuple(
        f"{name}{end}" for end in (".gz", "") for name in dict.fromkeys((file.name, dotted))
    )


def uncompressed(content: bytes, where: str) -> bytes:
    """`content`, unpacked if it is a gzip file.

    Args:
        content: bytes of a file.
        where: path or address, for messages.

    Raises:
        InputError: truncated or damaged gzip.
    """
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except EOFError:
        raise InputError(f"{where}: truncated gzip file; fetch it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{where}: damaged gzip file ({error}); fetch it again") from None


def parsed(file: IdxFile, raw: bytes, where: str) -> UInt8[np.ndarray, "..."]:
    """The array in the uncompressed bytes `raw`, if it has the form that `file` says.

    Raises:
        InputError: wrong magic number or wrong size.
    """
    header = 4 + 4 * len(file.shape)
    magic = int.from_bytes(raw[:4], "big")
    expected = 0x0800 + len(file.shape)
    if magic != expected:
        raise InputError(
            f"{where}: wrong magic number 0x{magic:08x}, expected 0x{expected:08x} for an IDX "
            f"file of {len(file.shape)} dimension(s) of bytes"
        )
    size = int(np.prod(file.shape))
    if (
        len(raw) != header + size
        or struct.unpack(f">{len(file.shape)}I", raw[4:header]) != file.shape
    ):
        raise InputError(
            f"{where}: {len(raw)} bytes uncompressed, expected {header + size} for an array of "
            f"{' x '.join(map(str, file.shape))}"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(file.shape)


def is_published(file: IdxFile, content: bytes, raw: bytes) -> bool | None:
    """Whether a file is the published one; None where nothing that is published can tell.

    Args:
        file: expected file.
        content: bytes as they lie on disk, gzipped or not.
        raw: the same, uncompressed.
    """
    if file.sha256 is not None:
        return hashlib.sha256(raw).hexdigest() == file.sha256
    if file.gzip_digest is None or content is raw:
        return None
    algorithm, digest = file.gzip_digest.split(":")
    return hashlib.new(algorithm, content, usedforsecurity=False).hexdigest() == digest


def owner_of(content: bytes, raw: bytes) -> str | None:
    """The name of the data set that has a file of exactly this content; None if none has.

    Args:
        content: bytes as they lie on disk, gzipped or not.
        raw: the same, uncompressed.
    """
    digests = {hashlib.sha256(raw).hexdigest()}
    if content is not raw:
        digests.add(f"sha256:{hashlib.sha256(content).hexdigest()}")
        digests.add(f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}")
    for name, source in DATASETS.items():
        if any({file.sha256, file.gzip_digest} & digests for file in source.files):
            return name
    return None


def read_idx(file: IdxFile, content: bytes, where: str) -> UInt8[np.ndarray, "..."]:
    """The array in `content`, once it is shown to be what `file` says.

    Args:
        file: expected file.
        content: bytes of the file, gzipped or not.
        where: path or address, for messages.

    Raises:
        InputError: truncated or damaged gzip, wrong magic number, wrong size, wrong content.
    """
    raw = uncompressed(content, where)
    array = parsed(file, raw, where)
    if not is_published(file, content, raw):
        raise InputError(not_published(file, where))
    return array


def not_published(file: IdxFile, where: str) -> str:
    """What is said of a file whose content is not the published one."""
    if file.sha256 is not None:
        return f"{where}: not the published content (SHA-256 differs)"
    algorithm = (file.gzip_digest or "").split(":")[0]
    return (
        f"{where}: not the published {file.name}.gz ({algorithm} differs; of this dataset only "
        f"the compressed files' digests are published, so supply those files)"
    )


def download(name: str, source: Source, folder: Path, say: Say) -> None:
    """Fetches every file of `source` into `folder`, each verified before it gets its name there.

    Any number of processes may do so at once: each writes files of its own and renames them.

    Raises:
        DatasetUnavailableError: no mirror delivered a genuine copy of some file.
        InputError: `folder` cannot be written.
    """
    import requests

    reasons: list[str] = []
    for archive in source.archives:
        try:
            with _fetched(archive, say) as zipped, zipfile.ZipFile(zipped) as members:
                contents = [members.read(f"gzip/{file.name}.gz") for file in source.files]
            for file, content in zip(source.files, contents, strict=True):
                read_idx(file, content, archive)
        except (requests.RequestException, OSError, zipfile.BadZipFile, KeyError) as error:
            reasons.append(f"{archive}: {_reason(error)}")
        except InputError as error:
            reasons.append(str(error))
        else:
            for file, content in zip(source.files, contents, strict=True):
                _store(folder / f"{file.name}.gz", content)
            return
    remaining = list(source.files) if source.mirrors else []
    for mirror in source.mirrors:
        for file in list(remaining):
            address = f"{mirror}{file.name}.gz"
            try:
                with _fetched(address, say) as stream:
                    content = stream.read()
                read_idx(file, content, address)
            except (requests.RequestException, OSError) as error:
                reasons.append(f"{address}: {_reason(error)}")
                break
            except InputError as error:
                reasons.append(str(error))
                break
            _store(folder / f"{file.name}.gz", content)
            remaining.remove(file)
        if not remaining:
            return
    raise DatasetUnavailableError(f"{name} could not be downloaded: {'; '.join(reasons)}")


@contextmanager
def _fetched(address: str, say: Say) -> Iterator[IO[bytes]]:
    """A download, in a temporary file that is gone afterwards."""
    import pooch

    say(f"downloading {address}")
    with tempfile.TemporaryFile() as stream:
        pooch.HTTPDownloader(timeout=_TIMEOUT, chunk_size=1 << 16)(address, stream, None)
        stream.seek(0)
        yield stream


def _store(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise InputError(
            f"{path.parent}: the download cache cannot be written ({error.strerror}); set "
            f"XDG_CACHE_HOME to a folder that can, or SUBLIMINAL_DATA to one that has the data"
        ) from None


def _reason(error: Exception) -> str:
    """What went wrong with a download, in a few words."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return f"no answer within {_TIMEOUT} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "connection cut"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return f"{type(error).__name__}: {error}".splitlines()[0]
