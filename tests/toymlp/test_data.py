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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from sublab.errors import InputError
from toymlp import data, sources
from toymlp.sources import DatasetUnavailableError, IdxFile, Source

RNG = np.random.default_rng(0)
ARRAYS = [
    RNG.integers(0, 256, (30, 28, 28), np.uint8), RNG.integers(0, 10, 30, np.uint8),
    RNG.integers(0, 256, (10, 28, 28), np.uint8), RNG.integers(0, 10, 10, np.uint8),
]  # fmt: skip
NAMES = [
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
]  # fmt: skip


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


def use(monkeypatch: pytest.MonkeyPatch, *mirrors: str, **fields) -> None:
    monkeypatch.setitem(sources.SOURCES, "mnist", Source(FILES, mirrors=mirrors, **fields))


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
        sources.SOURCES["mnist"] = sources.Source(files, mirrors=(mirror,))
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


# --- where only the compressed files' digests are published -------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_published_gzip_digest_passes_the_published_file_and_no_other(
    cache, tmp_path, monkeypatch, algorithm
):
    packed = [gzip.compress(raw, mtime=0) for raw in RAW]
    files = tuple(
        IdxFile(file.name, file.shape,
                gzip_digest=f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")
        for file, content in zip(FILES, packed, strict=True)
    )  # fmt: skip
    monkeypatch.setitem(sources.SOURCES, "mnist", Source(files))
    folder = put(tmp_path / "given" / "mnist", packed)
    assert_is_the_tiny_set(data.load("mnist", data_dir=folder.parent))
    put(folder, [gzip.compress(raw, 1, mtime=0) for raw in RAW])
    with pytest.raises(InputError, match="supply those files"):
        data.load("mnist", data_dir=folder.parent)


# --- the real sets -----------------------------------------------------------------------------


def test_real_mnist_is_60000_and_10000_images_in_minus_one_to_one(mnist):
    assert mnist.train_images.shape == (60_000, 784)
    assert mnist.test_images.shape == (10_000, 784)
    assert (mnist.train_images.min(), mnist.train_images.max()) == (-1, 1)
    # Counts of each digit, published with the set.
    assert np.bincount(mnist.train_labels).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert mnist.train_labels[:5].tolist() == [5, 0, 4, 1, 9]


def test_digits_need_no_file_and_no_network(cache, digits):
    assert digits.train_images.shape == (1437, 64)
    assert digits.test_images.shape == (360, 64)
    assert (digits.train_images.min(), digits.train_images.max()) == (-1, 1)
    assert digits.sha256 == data.load("digits").sha256


def test_every_source_is_complete():
    for name, source in sources.SOURCES.items():
        assert source.mirrors or source.archives, name
        assert len(source.files) == 4
        for file in source.files:
            digest = file.sha256 or (file.gzip_digest or "").split(":")[-1]
            assert re.fullmatch(r"[0-9a-f]{32}|[0-9a-f]{64}", digest), (name, file.name)


def test_emnist_is_turned_upright(monkeypatch, tmp_path):
    files = tuple(
        IdxFile(f"emnist-balanced-{file.name}", file.shape, sha256=file.sha256) for file in FILES
    )
    monkeypatch.setitem(sources.SOURCES, "emnist_balanced", Source(files))
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
