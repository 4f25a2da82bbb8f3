"""Claims about the runner of mutants, on a package made up here; and the theory's own list."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from tests import mutants

MODULE = """
def double(x):
    return x + x


def triple(x):
    return 3 * x
"""
TESTS = """
import time

from arithmetic.sums import double, triple


def test_double():
    assert double(2) == 4


def test_double_of_three():
    assert double(3) == 6


def test_nothing_of_triple():
    assert triple(0) == 0


def test_that_fails_by_itself():
    assert double(2) == 5


def test_that_takes_its_time():
    time.sleep(600)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project of its own, with a package and its tests."""
    (tmp_path / "arithmetic").mkdir()
    (tmp_path / "arithmetic" / "__init__.py").write_text("")
    (tmp_path / "arithmetic" / "sums.py").write_text(MODULE)
    (tmp_path / "test_sums.py").write_text(TESTS)
    return tmp_path


def entry(name: str, find: str, replace: str, *tests: str, equivalent: str = "") -> str:
    lines = [
        "[[mutant]]",
        f'id = "{name}"',
        'file = "arithmetic/sums.py"',
        f'find = "{find}"',
        f'replace = "{replace}"',
        f"tests = {[f'sums::{test}' for test in tests]}",
    ]
    return "\n".join([*lines, f'equivalent = "{equivalent}"'] if equivalent else lines)


def write(root: Path, *entries: str) -> Path:
    path = root / "mutants.toml"
    path.write_text("\n".join(['[tests]\nsums = "test_sums.py"', *entries]))
    return path


CAUGHT = entry("caught", "x + x", "x * x", "test_double", "test_double_of_three")
UNSEEN = entry("unseen", "3 * x", "4 * x", "test_nothing_of_triple")
SAME = entry("same", "x + x", "2 * x", "test_double", equivalent="the same number")
NOT_THE_SAME = entry("not-the-same", "x + x", "x - x", "test_double", equivalent="so it is said")
FAILING = entry("failing", "x + x", "x * x", "test_that_fails_by_itself")
# These tests need no JAX.
LIGHT = ("hypothesis", "pytest")


def faults(root: Path, *entries: str) -> tuple[list[str], list[str]]:
    """What is wrong, and what is said on the way."""
    said: list[str] = []
    listed = mutants.load(root, write(root, *entries))
    return mutants.run(root, listed, jobs=2, say=said.append, preload=LIGHT), said


def test_a_survivor_is_reported_with_its_edit_and_what_is_caught_is_not(root):
    found, said = faults(root, CAUGHT, UNSEEN, SAME)
    assert len(found) == 1
    assert found[0].startswith("unseen: survives 1 tests")
    assert "-    return 3 * x\n+    return 4 * x\n" in found[0]
    assert any("caught: caught by test_double_of_three" in line for line in said)
    # The package itself is as it was.
    assert (root / "arithmetic" / "sums.py").read_text() == MODULE


def test_an_equivalent_that_a_test_catches_is_reported(root):
    found, _ = faults(root, NOT_THE_SAME)
    assert len(found) == 1
    assert "not-the-same: is listed as equivalent, and test_sums.py::test_double" in found[0]


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("test_that_fails_by_itself", "fails without a mutant: test_sums.py::test_that_fails"),
        ("test_that_is_not_there", "fails without a mutant: "),
    ],
)
def test_tests_that_say_nothing_without_a_mutant_are_reported(root, test, message):
    found, said = faults(root, CAUGHT, entry("idle", "3 * x", "4 * x", test))
    assert len(found) == 1
    assert message in found[0]
    # No mutant is tried on them.
    assert not any("caught" in line for line in said)


def test_tests_that_use_another_copy_of_the_package_are_reported(root):
    path = root / "test_sums.py"
    path.write_text(f"import sys\nsys.path.insert(0, {str(root)!r})\n{TESTS}")
    found, _ = faults(root, CAUGHT)
    assert "the tests do not use the copy of arithmetic" in found[0]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry("gone", "x - x", "x", "t")], "gone: its text must occur once .* occurs 0 times"),
        ([entry("twice", "return", "yield", "t")], "twice: .* once .* occurs 2 times"),
        ([entry("idle", "x + x", "x + x", "t")], "idle: changes nothing"),
        ([entry("words", "x + x", "x plus x", "t")], "words: is no Python"),
        ([entry("untested", "x + x", "x * x")], "untested: names no test"),
        ([CAUGHT, CAUGHT], "caught: is the id of more than one mutant"),
        ([CAUGHT.replace("sums::", "products::")], "caught: a test is file::test"),
        ([CAUGHT.replace("sums::", "")], "caught: a test is file::test"),
        (["[[mutant]]\nid = 'short'"], "short: needs file"),
        ([CAUGHT + "\nreason = 'none'"], "caught: knows no reason"),
    ],
)
def test_a_list_that_does_not_fit_the_source_is_refused(root, entries, message):
    with pytest.raises(mutants.RottenListError, match=message):
        mutants.load(root, write(root, *entries))


def test_the_commands_status_says_whether_all_is_well(root, monkeypatch, capsys):
    folders = root / "tmp"
    folders.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folders))
    outcomes = {}
    for name in ("caught", "unseen", "nameless"):
        arguments = ["--root", str(root), "--list", str(write(root, CAUGHT, UNSEEN)), name]
        outcomes[name] = mutants.main(arguments), *capsys.readouterr()
    assert [status for status, _, _ in outcomes.values()] == [0, 1, 2]
    assert outcomes["caught"][1].endswith("1 mutants, 0 equivalents, 0 faults\n")
    assert "unseen: survives" in outcomes["unseen"][2]
    assert outcomes["nameless"][2] == "nameless: no mutant's id starts so\n"
    rotten = write(root, entry("gone", "x - x", "x", "test_double"))
    assert mutants.main(["--root", str(root), "--list", str(rotten)]) == 2
    assert "gone: its text must occur once" in capsys.readouterr().err
    assert list(folders.iterdir()) == []


def test_an_interrupted_run_ends_at_once_and_leaves_nothing(root):
    path = write(root, entry("slow", "x + x", "x * x", "test_that_takes_its_time"))
    # Not below the test's own folder: the name of a socket may have about 100 characters.
    with tempfile.TemporaryDirectory() as temporary:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants", "--root", str(root), "--list", str(path)],
            cwd=mutants.ROOT,
            env=os.environ | {"TMPDIR": temporary},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        end = time.monotonic() + 200
        while not list(Path(temporary).glob("mutant-*/output")) and time.monotonic() < end:
            assert process.poll() is None
            time.sleep(0.1)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate()
        assert process.returncode == 130
        assert time.monotonic() - began < 30
        assert list(Path(temporary).glob("mutant-*")) == []


def test_the_theorys_list_fits_the_source_and_covers_every_module():
    listed = mutants.load(mutants.ROOT, mutants.LIST)
    counted = Counter(mutant.file for mutant in listed if not mutant.equivalent)
    assert sum(counted.values()) >= 80
    modules = {f"theory/{path.name}" for path in (mutants.ROOT / "theory").glob("[!_]*.py")}
    assert {name for name in modules if counted[name] < 5} == set()


@pytest.mark.slow
def test_no_mutant_of_the_theory_survives():
    process = subprocess.run(
        [sys.executable, "-m", "tests.mutants"],
        cwd=mutants.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
