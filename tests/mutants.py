"""Mutation of the theory: deliberate errors in theory/, each of which a test must catch.

    python -m tests.mutants [ID ...] [--jobs N]

The list is tests/theory/mutants.toml: one table a mutant, with the exact text that it replaces, and
the tests that catch it. Each is tried in a copy of the package, in a process of its own. The
command fails where a mutant survives, where one that is listed as equivalent is caught, where the
named tests fail without any mutant, and where an edit no longer fits the source.
"""

import argparse
import difflib
import json
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tests" / "theory" / "mutants.toml"
# What tests import and what takes seconds to import: done once, before each process is forked.
# None of it starts a JAX backend, whose threads no fork would carry along.
_PRELOADED = ("beartype", "flax.nnx", "hypothesis", "jax", "optax", "pytest", "scipy.stats")
# Examples a property gets: what only the hundredth draw catches is no test of a mutant.
_EXAMPLES = 20
# Seconds after which a mutant counts as one that never ends.
_LONGEST = 600.0

_FORKSERVER = multiprocessing.get_context("forkserver")


class RottenListError(ValueError):
    """The list of mutants does not fit the source, or says nothing that could be tried."""


@dataclass(frozen=True)
class Mutant:
    """One deliberate error.

    Attributes:
        id: a name for it, the module's first.
        file: the file that it is in, from the root; its first folder is what is copied.
        find: the text that it replaces, which occurs there exactly once.
        replace: what stands in its place.
        tests: the tests that catch it, as pytest names them, from the root; of an equivalent, the
            tests that would be the first to.
        equivalent: why no test can tell it from the original; empty for an error that counts.
    """

    id: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]
    equivalent: str = ""


@dataclass(frozen=True)
class Trial:
    """What the tests said.

    Attributes:
        passed: the number of tests that passed.
        failed: the tests that failed.
        broken: why the tests say nothing; empty where they do.
        seconds: how long they took.
    """

    passed: int
    failed: list[str]
    broken: str
    seconds: float


def load(root: Path, path: Path) -> list[Mutant]:
    """The mutants of a list, each fitting the source as it is.

    Raises:
        RottenListError: names the mutant, and what is wrong with it.
    """
    table = tomllib.loads(path.read_text())
    # The files of tests have short names, given at the top of the list.
    files = table["tests"]
    mutants = []
    for entry in table["mutant"]:
        name = entry.get("id", "without an id")
        if unknown := entry.keys() - {"id", "file", "find", "replace", "tests", "equivalent"}:
            raise RottenListError(f"{name}: knows no {min(unknown)}")
        if missing := {"id", "file", "find", "replace", "tests"} - entry.keys():
            raise RottenListError(f"{name}: needs {min(missing)}")
        try:
            tests = tuple(
                f"{files[short]}::{test}"
                for short, test in (name.split("::", 1) for name in entry["tests"])
            )
        except (KeyError, ValueError) as error:
            raise RottenListError(
                f"{name}: a test is file::test, with a file of [tests]"
            ) from error
        mutant = Mutant(**entry | {"tests": tests})
        _check(root, mutant)
        mutants.append(mutant)
    repeated = [name for name, count in Counter(each.id for each in mutants).items() if count > 1]
    if repeated:
        raise RottenListError(f"{repeated[0]}: is the id of more than one mutant")
    return mutants


def _check(root: Path, mutant: Mutant) -> None:
    if not mutant.tests:
        raise RottenListError(f"{mutant.id}: names no test")
    count = (root / mutant.file).read_text().count(mutant.find)
    if count != 1:
        raise RottenListError(
            f"{mutant.id}: its text must occur once in {mutant.file}, and occurs {count} times"
        )
    if mutant.find == mutant.replace:
        raise RottenListError(f"{mutant.id}: changes nothing")
    try:
        compile(mutated(root, mutant), mutant.file, "exec")
    except SyntaxError as error:
        raise RottenListError(f"{mutant.id}: is no Python: {error}") from error


def mutated(root: Path, mutant: Mutant) -> str:
    """The source of the mutant's file, with the error in it."""
    return (root / mutant.file).read_text().replace(mutant.find, mutant.replace)


def difference(root: Path, mutant: Mutant) -> str:
    """The mutant as a patch of its file."""
    sides = (root / mutant.file).read_text(), mutated(root, mutant)
    before, after = (side.splitlines(keepends=True) for side in sides)
    return "".join(difflib.unified_diff(before, after, mutant.file, mutant.file, n=1))


def attempt(
    root: Path, package: str, tests: Sequence[str], mutant: Mutant | None, running: set[BaseProcess]
) -> Trial:
    """Runs tests on a copy of `package`, with the mutant's error in it, in a new process.

    Without a mutant all tests are run; with one, up to the first that fails. The process is one of
    `running` while it runs, so that whoever waits can end it.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        shutil.copytree(
            root / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
        if mutant is not None:
            (folder / mutant.file).write_text(mutated(root, mutant))
        process = _FORKSERVER.Process(
            target=_run_pytest, args=(root, package, tests, folder, mutant is not None), daemon=True
        )
        process.start()
        running.add(process)
        try:
            process.join(_LONGEST)
            if process.is_alive():
                return Trial(0, [], f"no end after {_LONGEST:g} s", _LONGEST)
        finally:
            process.kill()
            process.join()
            running.discard(process)
        answer = folder / "answer.json"
        if not answer.exists():
            output = (folder / "output").read_text(errors="replace")[-2000:]
            return Trial(0, [], f"the process died\n{output}", time.monotonic() - began)
        return Trial(**json.loads(answer.read_text()), seconds=time.monotonic() - began)


class _Notes:
    """A plugin of pytest that notes what each test came to."""

    def __init__(self, package: str, folder: Path):
        self.package, self.folder = package, folder
        self.passed, self.failed, self.broken = 0, [], ""

    def pytest_configure(self) -> None:
        import hypothesis

        # After the tests' own profile. Nothing is shrunk: that it fails is enough.
        hypothesis.settings.register_profile(
            "mutants",
            derandomize=True,
            database=None,
            deadline=None,
            max_examples=_EXAMPLES,
            phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
        )
        hypothesis.settings.load_profile("mutants")

    def pytest_collection_finish(self) -> None:
        places = [
            str(module.__file__)
            for name, module in sys.modules.items()
            if name.split(".")[0] == self.package and getattr(module, "__file__", None)
        ]
        if not places or not all(Path(place).is_relative_to(self.folder) for place in places):
            self.broken = f"the tests do not use the copy of {self.package}"

    def pytest_collectreport(self, report) -> None:
        if report.failed:
            self.broken = f"{report.nodeid} cannot be read: {report.longreprtext[-1000:]}"

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.when == "call" and report.passed:
            self.passed += 1


def _run_pytest(
    root: Path, package: str, tests: Sequence[str], folder: Path, to_first: bool
) -> None:
    import pytest

    output = os.open(folder / "output", os.O_CREAT | os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.chdir(root)
    notes = _Notes(package, folder)
    # Plain assertions: nobody reads the values of one that fails.
    arguments = [*tests, "-q", "--tb=no", "--assert=plain", "-p", "no:cacheprovider"]
    # Tests put no folder before that of the copy, and it comes before the root.
    arguments += ["--import-mode=importlib"]
    sys.path.insert(0, str(root))
    arguments += ["-o", f"pythonpath={shlex.quote(str(folder))}"]
    status = pytest.main([*arguments, *(["-x"] if to_first else [])], plugins=[notes])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not notes.broken:
        notes.broken = (folder / "output").read_text(errors="replace")[-1000:]
    answer = {"passed": notes.passed, "failed": notes.failed, "broken": notes.broken}
    (folder / "partial").write_text(json.dumps(answer))
    (folder / "partial").replace(folder / "answer.json")


def verdict(mutant: Mutant, trial: Trial) -> str:
    """What is wrong, in words; empty where the trial came out as the list says."""
    if trial.broken:
        return f"its tests say nothing: {trial.broken}"
    if trial.failed and mutant.equivalent:
        return f"is listed as equivalent, and {trial.failed[0]} catches it"
    if not trial.failed and not mutant.equivalent:
        return f"survives {trial.passed} tests"
    return ""


def run(
    root: Path,
    mutants: Sequence[Mutant],
    *,
    jobs: int,
    say: Callable[[str], None] = print,
    preload: Sequence[str] = _PRELOADED,
) -> list[str]:
    """Tries all mutants; what is wrong, one text a fault.

    First the named tests are run without a mutant, file by file: on what fails by itself, or is
    skipped, no mutant can be tried. What `preload` names is imported once for all.
    """
    _FORKSERVER.set_forkserver_preload([*preload])
    package = {mutant.id: Path(mutant.file).parts[0] for mutant in mutants}
    by_file = defaultdict(dict)
    for mutant in mutants:
        for test in mutant.tests:
            by_file[package[mutant.id], test.split("::")[0]][test] = None
    faults: list[str] = []
    began = time.monotonic()
    running: set[BaseProcess] = set()
    pool = ThreadPoolExecutor(jobs)
    try:
        plain = {
            pool.submit(attempt, root, name, list(tests), None, running): file
            for (name, file), tests in by_file.items()
        }
        for future in as_completed(plain):
            trial = future.result()
            if trial.broken or trial.failed or not trial.passed:
                cause = trial.broken or ", ".join(trial.failed) or "no test is run"
                faults.append(f"{plain[future]} fails without a mutant: {cause}")
            say(f"{plain[future]}: {trial.passed} pass without a mutant, {trial.seconds:.0f} s")
        if faults:
            return faults
        trials = {
            pool.submit(attempt, root, package[mutant.id], mutant.tests, mutant, running): mutant
            for mutant in mutants
        }
        for number, future in enumerate(as_completed(trials), 1):
            mutant, trial = trials[future], future.result()
            fault = verdict(mutant, trial)
            if fault:
                faults.append(f"{mutant.id}: {fault}\n{difference(root, mutant)}")
            outcome = fault.split("\n")[0] or (
                f"caught by {trial.failed[0].split('::')[-1]}" if trial.failed else "equivalent"
            )
            say(f"{number:3d}/{len(mutants)} {trial.seconds:4.0f} s  {mutant.id}: {outcome}")
        say(f"{len(mutants)} mutants in {time.monotonic() - began:.0f} s")
    finally:
        # Also where it is interrupted: nothing goes on, and no folder is left behind.
        pool.shutdown(wait=False, cancel_futures=True)
        for process in [*running]:
            process.kill()
        pool.shutdown()
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("ids", nargs="*", help="the mutants to try, or the start of their ids")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    parser.add_argument("--root", type=Path, default=ROOT, help="the folder that paths start from")
    parser.add_argument("--list", type=Path, default=LIST, help="the list of mutants")
    options = parser.parse_args(arguments)
    try:
        mutants = load(options.root, options.list)
    except RottenListError as error:
        print(f"{options.list}: {error}", file=sys.stderr)
        return 2
    for name in options.ids:
        if not any(mutant.id.startswith(name) for mutant in mutants):
            print(f"{name}: no mutant's id starts so", file=sys.stderr)
            return 2
    if options.ids:
        mutants = [each for each in mutants if each.id.startswith(tuple(options.ids))]
    try:
        faults = run(options.root, mutants, jobs=options.jobs)
    except KeyboardInterrupt:
        return 130
    for fault in faults:
        print(f"\n{fault}", file=sys.stderr)
    counted = sum(not mutant.equivalent for mutant in mutants)
    print(f"{counted} mutants, {len(mutants) - counted} equivalents, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    # Whoever ends this ends what it started, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
