"""Claims about where data come from, and about every way in which that fails."""

import gzip
import hashlib
import os
import re
import subprocess
import sys
import textwrap
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from sublab.errors import InputError
from toymlp import data, sources
from toymlp.sources import DatasetUnavailableError, IdxFile, Source

RNG = np.random.default_rng(0)
ARRAYS = [
    RNG.integers(0, 256, (30, 28, 28), np.uint8),
    RNG.integers(0, 10, 30, np.uint8),
    RNG.integers(0, 256, (10, 28, 28), np.uint8),
    RNG.integers(0, 10, 10, np.uint8),
]
NAMES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


def idx(array: np.ndarray) -> bytes:
    header = (0x0800 + array.ndim).to_bytes(4, "big")
    return header + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


RAW = [idx(array) for array in ARRAYS]
FILES = tuple(
    IdxFile(name, array.shape, sha256=hashlib.sha256(raw).hexdigest())
    for name, array, raw in zip(NAMES, ARRAYS, RAW, strict=True)
)


def damaged(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


class Handler(BaseHTTPRequestHandler):
    """/good/ serves the files, /damaged/ with one bit flipped, /cut/ half of each; else 404."""

    def do_GET(self) -> None:
        self.server.requests[self.path] += 1  # pyright: ignore[reportAttributeAccessIssue]
        kind, _, name = self.path.strip("/").partition("/")
        contents = dict(zip((f"{name}.gz" for name in NAMES), RAW, strict=True))
        if name not in contents or kind not in ("good", "damaged", "cut", "together"):
            self.send_error(404)
            return
        if kind == "together" and name.startswith("train-images"):
            self.server.barrier.wait(60)  # pyright: ignore[reportAttributeAccessIssue]
        raw = damaged(contents[name]) if kind == "damaged" else contents[name]
        body = gzip.compress(raw)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if kind == "cut" else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests = Counter()  # pyright: ignore[reportAttributeAccessIssue]
    server.barrier = threading.Barrier(2)  # pyright: ignore[reportAttributeAccessIssue]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def address(server: ThreadingHTTPServer, kind: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{kind}/"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and no other source: `mnist` is the tiny set above, with no mirror."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SUBLIMINAL_DATA", raising=False)
    use(monkeypatch)
    return tmp_path / "cache" / "subliminal-lab" / "mnist"


def tiny(files: tuple[IdxFile, ...] = FILES, **fields) -> Source:
    return Source("Tiny", 10, files, torchvision="MNIST", **fields)


def use(monkeypatch: pytest.MonkeyPatch, *mirrors: str, **fields) -> None:
    monkeypatch.setitem(sources.DATASETS, "mnist", tiny(mirrors=mirrors, **fields))


def put(folder: Path, contents: list[bytes], suffix: str = ".gz") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(NAMES, contents, strict=True):
        (folder / f"{name}{suffix}").write_bytes(content)
    return folder


def assert_is_the_tiny_set(dataset: data.Dataset) -> None:
    np.testing.assert_allclose(
        dataset.train_images, ARRAYS[0].reshape(30, 784) / 255 * 2 - 1, atol=1e-6
    )
    np.testing.assert_array_equal(dataset.test_labels, ARRAYS[3])


# --- sources, in their order -------------------------------------------------------------------


def test_data_dir_wins_over_the_environment_and_that_over_the_cache(cache, tmp_path, monkeypatch):
    folders = [tmp_path / "given" / "mnist", tmp_path / "environment" / "mnist", cache]
    monkeypatch.setenv("SUBLIMINAL_DATA", str(folders[1].parent))
    for folder in folders:
        put(folder, RAW, suffix="")
    given = folders[0].parent
    assert data.load("mnist", data_dir=given).origin == str(folders[0])
    assert data.load("mnist").origin == str(folders[1])
    monkeypatch.delenv("SUBLIMINAL_DATA")
    assert data.load("mnist").origin == str(folders[2])


def test_a_folder_without_the_dataset_is_passed_over(cache, tmp_path):
    (tmp_path / "given").mkdir()
    put(cache, RAW, suffix="")
    assert data.load("mnist", data_dir=tmp_path / "given").origin == str(cache)


def test_the_systems_folder_is_used_after_the_cache(cache, tmp_path, monkeypatch):
    system = put(tmp_path / "system", RAW, suffix="")
    use(monkeypatch, system=system)
    assert data.load("mnist").origin == str(system)
    put(cache, RAW, suffix="")
    assert data.load("mnist").origin == str(cache)


@pytest.mark.parametrize("level", [None, 1, 9])
def test_raw_files_and_any_recompression_pass(cache, level):
    put(
        cache,
        RAW if level is None else [gzip.compress(raw, level) for raw in RAW],
        suffix="" if level is None else ".gz",
    )
    assert_is_the_tiny_set(data.load("mnist"))


def test_a_download_is_verified_and_kept(cache, server, monkeypatch):
    use(monkeypatch, address(server, "good"))
    said: list[str] = []
    assert_is_the_tiny_set(data.load("mnist", say=said.append))
    assert len(said) == 4
    assert_is_the_tiny_set(data.load("mnist", say=said.append))
    assert len(said) == 4
    assert sorted(path.name for path in cache.iterdir()) == sorted(f"{n}.gz" for n in NAMES)


@pytest.mark.parametrize("bad", ["damaged", "cut", "nowhere"])
def test_a_bad_mirror_is_followed_by_the_next(cache, server, monkeypatch, bad):
    use(monkeypatch, address(server, bad), address(server, "good"))
    assert_is_the_tiny_set(data.load("mnist"))
    assert server.requests[f"/{bad}/{NAMES[0]}.gz"] == 1


def test_an_archive_is_downloaded_and_its_members_kept(cache, tmp_path, server, monkeypatch):
    archive = tmp_path / "gzip.zip"
    with zipfile.ZipFile(archive, "w") as members:
        for name, raw in zip(NAMES, RAW, strict=True):
            members.writestr(f"gzip/{name}.gz", gzip.compress(raw))
    monkeypatch.setattr(Handler, "do_GET", lambda self: serve(self, archive.read_bytes()))
    use(monkeypatch, archives=(address(server, "archive"),))
    assert_is_the_tiny_set(data.load("mnist"))
    assert len(list(cache.iterdir())) == 4
    monkeypatch.setattr(Handler, "do_GET", lambda self: serve(self, b"no archive"))
    for path in cache.iterdir():
        path.unlink()
    with pytest.raises(DatasetUnavailableError, match="not a zip file"):
        data.load("mnist")


def serve(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(RAW[0])[:-20], "truncated gzip"),
        (b"\x1f\x8b" + b"\x00" * 40, "damaged gzip"),
        (gzip.compress(RAW[1]), "wrong magic number 0x00000801, expected 0x00000803"),
        (gzip.compress(RAW[0][:-1]), "bytes uncompressed, expected"),
        (gzip.compress(RAW[2]), "bytes uncompressed, expected"),
        (gzip.compress(damaged(RAW[0])), "not the published content"),
        (b"", "wrong magic number"),
    ],
    ids=["cut", "garbled", "labels", "short", "fewer images", "one bit flipped", "empty"],
)
def test_a_bad_file_is_an_error_that_names_file_and_fault(cache, tmp_path, content, message):
    folder = put(tmp_path / "given" / "mnist", [content, *map(gzip.compress, RAW[1:])])
    with pytest.raises(InputError, match=message) as caught:
        data.load("mnist", data_dir=folder.parent)
    assert str(folder / f"{NAMES[0]}.gz") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(cache, tmp_path):
    folder = put(tmp_path / "given" / "mnist", RAW)
    (folder / f"{NAMES[2]}.gz").unlink()
    with pytest.raises(InputError, match=f"missing {NAMES[2]}"):
        data.load("mnist", data_dir=folder.parent)


def test_a_file_that_cannot_be_read_is_named(cache, tmp_path):
    folder = put(tmp_path / "given" / "mnist", RAW)
    (folder / f"{NAMES[0]}.gz").unlink()
    (folder / f"{NAMES[0]}.gz").mkdir()
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        data.load("mnist", data_dir=folder.parent)


def test_a_data_dir_that_is_no_folder_is_an_error(cache, tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        data.load("mnist", data_dir=tmp_path / "absent")


def test_an_unknown_dataset_is_an_error_that_lists_the_known():
    with pytest.raises(InputError, match="known are mnist, fashion_mnist, kmnist"):
        data.load("cifar")


def test_a_damaged_cache_is_downloaded_again(cache, server, monkeypatch):
    put(cache, [gzip.compress(raw) for raw in [damaged(RAW[0]), *RAW[1:]]])
    use(monkeypatch, address(server, "good"))
    said: list[str] = []
    assert_is_the_tiny_set(data.load("mnist", say=said.append))
    assert "downloading again" in said[0]
    assert_is_the_tiny_set(data.load("mnist"))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("damaged", "not the published content"),
        ("cut", "connection cut"),
        ("nowhere", "HTTP status 404"),
    ],
)
def test_when_every_mirror_fails_the_error_says_why_and_what_to_do(
    cache, server, monkeypatch, kind, reason
):
    use(monkeypatch, address(server, kind))
    with pytest.raises(DatasetUnavailableError, match=reason) as caught:
        data.load("mnist")
    message = str(caught.value)
    assert str(cache) in message
    assert "SUBLIMINAL_DATA=DIR" in message
    assert "\n" not in message
    assert not cache.exists()


def test_without_a_network_the_error_says_so(cache, server, monkeypatch):
    closed = address(server, "good")
    server.shutdown()
    server.server_close()
    use(monkeypatch, closed, closed)
    with pytest.raises(DatasetUnavailableError, match="no connection"):
        data.load("mnist")


def test_a_mirror_that_does_not_answer_is_given_up(cache, server, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(sources, "_TIMEOUT", 0.2)
    monkeypatch.setattr(Handler, "do_GET", lambda self: release.wait(30))
    use(monkeypatch, address(server, "good"))
    try:
        with pytest.raises(DatasetUnavailableError, match=r"no answer within 0\.2 s"):
            data.load("mnist")
    finally:
        release.set()


def test_a_cache_below_a_file_is_an_error_that_says_what_to_set(cache, server, monkeypatch):
    cache.parents[1].parent.mkdir(exist_ok=True)
    cache.parents[1].write_text("a file where the cache should be")
    use(monkeypatch, address(server, "good"))
    with pytest.raises(InputError, match="XDG_CACHE_HOME") as caught:
        data.load("mnist")
    assert not isinstance(caught.value, DatasetUnavailableError)


def test_a_cache_without_write_permission_is_an_error_that_says_what_to_set(
    cache, server, monkeypatch, readable_tmp, unprivileged
):
    use(monkeypatch, address(server, "good"))
    with pytest.raises(InputError, match=r"cannot be written \(Permission denied\)"):
        data.load("mnist")
    assert not cache.exists()


def test_two_processes_may_download_at_once(cache, server, tmp_path):
    program = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from toymlp import data, sources
        files = tuple(sources.IdxFile(*f) for f in {[(f.name, f.shape, f.sha256) for f in FILES]})
        mirror = {address(server, "together")!r}
        sources.DATASETS["mnist"] = sources.Source("Tiny", 10, files, mirrors=(mirror,))
        print(data.load("mnist").sha256)
        """
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        for _ in range(2)
    ]
    digests = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert digests[0] == digests[1] != ""
    # The server held both back until both had asked: they did download at once.
    assert server.requests[f"/together/{NAMES[0]}.gz"] == 2
    assert sorted(path.name for path in cache.iterdir()) == sorted(f"{n}.gz" for n in NAMES)


# --- where the files lie in a folder, and whose they are ----------------------------------------


OTHER = [idx(np.bitwise_xor(array, 1)) for array in ARRAYS]


@pytest.fixture
def fashion(cache, monkeypatch) -> None:
    """`fashion_mnist` is a second tiny set, whose files have the names of the first one's."""
    files = tuple(
        IdxFile(file.name, file.shape, sha256=hashlib.sha256(raw).hexdigest())
        for file, raw in zip(FILES, OTHER, strict=True)
    )
    monkeypatch.setitem(sources.DATASETS, "fashion_mnist", Source("Other tiny set", 10, files))


def dotted(name: str) -> str:
    return name.replace("-idx", ".idx")


@pytest.mark.parametrize("place", ["mnist", "MNIST/raw", "MNIST", "mnist/raw", "raw", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("variable", [True, False])
def test_every_usual_layout_is_found(cache, tmp_path, monkeypatch, place, suffix, variable):
    folder = tmp_path / "given" / place
    put(folder, [gzip.compress(raw) for raw in RAW] if suffix else RAW, suffix)
    for path in folder.iterdir():
        path.rename(folder / dotted(path.name))
    if variable:
        monkeypatch.setenv("SUBLIMINAL_DATA", str(tmp_path / "given"))
    dataset = data.load("mnist", data_dir=None if variable else tmp_path / "given")
    assert_is_the_tiny_set(dataset)
    assert Path(dataset.origin) == folder


def test_files_of_another_set_under_the_same_names_are_passed_over(fashion, tmp_path, cache):
    put(tmp_path / "given" / "mnist", OTHER, suffix="")
    put(cache, RAW)
    assert data.load("mnist", data_dir=tmp_path / "given").origin == str(cache)


def test_sets_in_one_folder_are_told_apart_by_content(fashion, tmp_path):
    put(tmp_path, RAW, suffix="")
    for name, raw in zip(NAMES, OTHER, strict=True):
        (tmp_path / f"{dotted(name)}.gz").write_bytes(gzip.compress(raw))
    assert_is_the_tiny_set(data.load("mnist", data_dir=tmp_path))
    labels = data.load("fashion_mnist", data_dir=tmp_path).test_labels
    np.testing.assert_array_equal(labels, ARRAYS[3] ^ 1)


def test_a_set_found_nowhere_says_whose_files_were_passed_over(fashion, tmp_path):
    put(tmp_path, OTHER, suffix="")
    with pytest.raises(DatasetUnavailableError, match="holds files of Other tiny set"):
        data.load("mnist", data_dir=tmp_path)


def test_a_damaged_file_among_genuine_ones_is_an_error_in_any_folder(cache, tmp_path):
    put(tmp_path, [damaged(RAW[0]), *RAW[1:]], suffix="")
    with pytest.raises(InputError, match="not the published content"):
        data.load("mnist", data_dir=tmp_path)


def test_a_named_folder_that_is_not_there_is_an_error(cache, tmp_path, monkeypatch):
    put(cache, RAW)
    monkeypatch.setenv("SUBLIMINAL_DATA", str(tmp_path / "absent"))
    with pytest.raises(InputError, match=r"^SUBLIMINAL_DATA: .*absent is not a folder$"):
        data.load("mnist")


def test_a_tilde_is_the_home_folder(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = put(tmp_path / "home" / "sets" / "mnist", RAW, suffix="")
    assert data.load("mnist", data_dir="~/sets").origin == str(folder)
    monkeypatch.setenv("SUBLIMINAL_DATA", "~/sets")
    assert data.load("mnist").origin == str(folder)


# --- where only the compressed files' digests are published -------------------------------------

# As KMNIST and EMNIST Balanced are published: equally many images of each class.
EVEN = [
    ARRAYS[0] ^ 2,
    np.arange(30, dtype=np.uint8) % 10,
    ARRAYS[2] ^ 2,
    np.arange(10, dtype=np.uint8),
]
EVEN_RAW = [idx(array) for array in EVEN]
PACKED = [gzip.compress(raw, mtime=0) for raw in EVEN_RAW]


@pytest.fixture(params=["sha256", "md5"])
def kmnist(request, cache, monkeypatch) -> str:
    files = tuple(
        IdxFile(name, array.shape, None, f"{request.param}:{digest.hexdigest()}")
        for name, array, digest in zip(
            NAMES, EVEN, (hashlib.new(request.param, content) for content in PACKED), strict=True
        )
    )
    source = Source("Tiny KMNIST", 10, files, torchvision="KMNIST")
    monkeypatch.setitem(sources.DATASETS, "kmnist", source)
    return "kmnist"


def test_the_published_gzip_passes_and_no_recompression(kmnist, tmp_path):
    folder = put(tmp_path / kmnist, PACKED)
    said: list[str] = []
    labels = data.load(kmnist, data_dir=tmp_path, say=said.append).train_labels
    np.testing.assert_array_equal(labels, EVEN[1])
    assert said == []
    put(folder, [gzip.compress(raw, 1, mtime=0) for raw in EVEN_RAW])
    with pytest.raises(InputError, match="supply those files"):
        data.load(kmnist, data_dir=tmp_path)


def test_raw_files_beside_their_genuine_gzip_are_no_obstacle(kmnist, tmp_path):
    """torchvision keeps both."""
    put(tmp_path / "KMNIST" / "raw", PACKED)
    put(tmp_path / "KMNIST" / "raw", EVEN_RAW, suffix="")
    said: list[str] = []
    data.load(kmnist, data_dir=tmp_path, say=said.append)
    assert said == []


def test_raw_files_alone_are_taken_and_said_to_be_unproved(kmnist, tmp_path):
    put(tmp_path / "KMNIST" / "raw", EVEN_RAW, suffix="")
    said: list[str] = []
    dataset = data.load(kmnist, data_dir=tmp_path, say=said.append)
    np.testing.assert_array_equal(dataset.train_labels, EVEN[1])
    assert len(said) == 1
    assert "cannot be proved" in said[0]


def test_a_proved_copy_elsewhere_comes_before_unproved_raw_files(kmnist, tmp_path, cache):
    put(tmp_path / kmnist, [damaged(EVEN_RAW[0]), *EVEN_RAW[1:]], suffix="")
    genuine = put(cache.parent / kmnist, PACKED)
    said: list[str] = []
    assert data.load(kmnist, data_dir=tmp_path, say=said.append).origin == str(genuine)
    assert said == []


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ([EVEN_RAW[0], idx(EVEN[1] // 2), *EVEN_RAW[2:]], "equally many images each"),
        ([EVEN_RAW[0], idx(EVEN[1] + 9), *EVEN_RAW[2:]], "equally many images each"),
        ([EVEN_RAW[0][:-1], *EVEN_RAW[1:]], "bytes uncompressed, expected"),
    ],
    ids=["counts", "labels", "size"],
)
def test_raw_files_that_cannot_be_the_set_are_refused(kmnist, tmp_path, contents, message):
    put(tmp_path / kmnist, contents, suffix="")
    with pytest.raises(InputError, match=message):
        data.load(kmnist, data_dir=tmp_path)


def test_raw_files_of_a_set_with_digests_are_not_taken_for_one_without(kmnist, tmp_path):
    """In a folder that is named for the set, too."""
    put(tmp_path / kmnist, RAW, suffix="")
    with pytest.raises(DatasetUnavailableError, match="holds files of Tiny, by their content"):
        data.load(kmnist, data_dir=tmp_path)


def test_raw_files_in_a_folder_of_no_name_are_taken_only_under_names_of_their_own(
    kmnist, tmp_path, monkeypatch
):
    put(tmp_path, EVEN_RAW, suffix="")
    with pytest.raises(DatasetUnavailableError, match="holds files of another data set"):
        data.load(kmnist, data_dir=tmp_path)
    source = sources.DATASETS[kmnist]
    own = tuple(replace(file, name=f"kmnist-{file.name}") for file in source.files)
    monkeypatch.setitem(sources.DATASETS, kmnist, replace(source, files=own))
    for name in NAMES:
        (tmp_path / name).rename(tmp_path / f"kmnist-{name}")
    assert data.load(kmnist, data_dir=tmp_path).origin == str(tmp_path)


# --- the real sets -----------------------------------------------------------------------------


def test_real_mnist_is_60000_and_10000_images_in_minus_one_to_one(mnist):
    assert mnist.train_images.shape == (60_000, 784)
    assert mnist.test_images.shape == (10_000, 784)
    assert (mnist.train_images.min(), mnist.train_images.max()) == (-1, 1)
    # Counts of each digit, published with the set.
    assert np.bincount(mnist.train_labels).tolist() == [
        5923,
        6742,
        5958,
        6131,
        5842,
        5421,
        5918,
        6265,
        5851,
        5949,
    ]
    assert mnist.train_labels[:5].tolist() == [5, 0, 4, 1, 9]


def test_digits_need_no_file_and_no_network(cache, digits):
    assert digits.train_images.shape == (1437, 64)
    assert digits.test_images.shape == (360, 64)
    assert (digits.train_images.min(), digits.train_images.max()) == (-1, 1)
    assert digits.sha256 == data.load("digits").sha256


def test_every_source_is_complete():
    for name, source in sources.DATASETS.items():
        assert source.title
        assert len(source.files) == 4
        if source.bundled:
            continue
        assert source.mirrors or source.archives, name
        for file in source.files:
            digest = file.sha256 or (file.gzip_digest or "").split(":")[-1]
            assert re.fullmatch(r"[0-9a-f]{32}|[0-9a-f]{64}", digest), (name, file.name)


def test_emnist_is_turned_upright(monkeypatch, tmp_path):
    files = tuple(
        IdxFile(f"emnist-balanced-{file.name}", file.shape, sha256=file.sha256) for file in FILES
    )
    emnist = replace(sources.DATASETS["emnist_balanced"], files=files)
    monkeypatch.setitem(sources.DATASETS, "emnist_balanced", emnist)
    folder = tmp_path / "emnist_balanced"
    folder.mkdir()
    for file, raw in zip(files, RAW, strict=True):
        (folder / file.name).write_bytes(raw)
    dataset = data.load("emnist_balanced", data_dir=tmp_path)
    upright = np.swapaxes(ARRAYS[0], 1, 2).reshape(30, 784)
    np.testing.assert_allclose(dataset.train_images, upright / 255 * 2 - 1, atol=1e-6)
    assert dataset.classes == 47


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_the_size_that_is_told_without_loading_is_the_size_that_is_loaded(name, request):
    dataset = request.getfixturevalue(name)
    (train, pixels), test = dataset.train_images.shape, len(dataset.test_images)
    assert data.size_of(name) == data.Size(train, test, pixels, dataset.classes)


def test_a_new_data_set_is_an_edit_of_the_table_alone(monkeypatch, tmp_path, cache):
    files = tuple(replace(file, name=f"qmnist-{file.name}") for file in FILES)
    monkeypatch.setitem(sources.DATASETS, "qmnist", Source("QMNIST", 10, files))
    for file, raw in zip(files, RAW, strict=True):
        (tmp_path / file.name).write_bytes(raw)
    assert data.load("qmnist", data_dir=tmp_path).classes == 10
    assert data.size_of("qmnist") == data.Size(30, 10, 784, 10)


def test_the_names_on_the_command_line_are_the_tables():
    assert get_args(sources.DatasetName) == tuple(sources.DATASETS)


@pytest.mark.parametrize("module", ["toymlp.data", "toymlp.sources", "theory"])
def test_importing_brings_no_network_client_no_tables_and_no_command_line(module):
    heavy = ("pooch", "requests", "polars", "tyro", "rich", "matplotlib", "scipy.stats", "sklearn")
    program = f"import {module}, sys; print([m for m in {heavy} if m in sys.modules])"
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "[]"
