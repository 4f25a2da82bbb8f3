"""Our programs beside plain PyTorch programs that do the same: `python -m benchmarks.peers`.

Two comparisons are of whole processes, from the start of Python to the last line printed:

* the paper's six conditions: `sublab mnist` beside `benchmarks/pytorch_population.py`, for some
  numbers of runs and of cores;
* a sweep over m and steps, fresh noise at each step, squared error: `sublab sweep` beside
  `benchmarks/pytorch_run.py`, which is one process a run, one process a core at a time.

A third is of tokens a second, each program in a process of its own, after what each does once:

* a decoder of SmolLM2's sizes read, trained by adapters and sampled: `benchmarks.decoder` beside
  `benchmarks/transformers_decoder.py`, which has the transformers and peft libraries do it.

And one is of our own program with itself: the paper's six conditions with the factors of products
rounded to bfloat16 beside float32, and whether the accuracies are the same within the margins of
`benchmarks.equivalence`. Only on cores with products of bfloat16 (AMX) can that be faster.

The two take turns, and which is first alternates, so that what else a machine does meets both. Of
the six conditions both programs' mean accuracies are compared too: they must have done the same.
Given are times or rates, and the ratio of each pair: its median, least and most. On a machine that
is not idle the processor times tell more. No program of ours is compiled beforehand; PyTorch's
programs are given the images as one array, which costs them no decoding.

PyTorch, transformers and peft are no dependencies of the project: they lie in an environment of
their own, which `make bench` makes and which --python names.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import tyro

from benchmarks.decoder import AMOUNTS, amounts_and_sizes
from benchmarks.equivalence import equivalence
from sublab import records
from sublab.console import say
from sublab.devices import cores
from sublab.errors import InputError
from sublab.machine import provenance
from toymlp import data

_HERE = Path(__file__).resolve().parent
LIBRARIES = ("torch", "transformers", "peft")
# The grid of the sweep: auxiliary logits, and steps of the student.
AUX = (1, 2, 3, 5, 10, 20, 50, 100)
STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
# Every number of steps once, as in the whole grid, so that their mean is the grid's.
POINTS = tuple(zip((*AUX, AUX[0]), STEPS, strict=True))
# The programs draw other starts and inputs: two means of four students on auxiliary logits, which
# scatter by some hundredths each, can be a tenth apart.
FARTHEST = 0.2


@dataclass(frozen=True)
class PeersBenchmark:
    """Wall and processor time of whole commands, beside plain PyTorch programs."""

    python: Path = _HERE.parent / ".venv-peers" / "bin" / "python"
    """A Python that has PyTorch, NumPy, transformers and peft."""
    runs: tuple[int, ...] = (4, 20)
    """Numbers of runs of the paper's experiment."""
    cores: tuple[int, ...] = (1, cores())
    """Numbers of cores to work on."""
    pairs: int = 3
    """Times that each comparison is made."""
    sweep_runs: int = 4
    """Runs of every point of the sweep over m and steps; 0 leaves it out."""
    decoder: bool = True
    """Whether the decoder's tokens a second are compared too."""
    rounded_runs: int = 20
    """Runs in bfloat16 and in float32; 0 leaves them out."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write the figures to this file; comparisons that are there already are kept."""


@dataclass(frozen=True)
class Seconds:
    """What a command took.

    Attributes:
        wall: from start to end.
        processor: of all its threads.
    """

    wall: float
    processor: float


def main(options: PeersBenchmark) -> None:
    """Measures, prints a line for each comparison, and writes the figures where asked.

    Raises:
        InputError: there is no Python with PyTorch where `options.python` says; the file's figures
            are of another machine or other versions; or one run alone is to be compared with
            itself in bfloat16.
    """
    if options.rounded_runs == 1:
        raise InputError("--rounded-runs: an interval needs two runs; 0 leaves them out")
    libraries = check_libraries(options.python)
    figures = kept_figures(options.json, libraries)
    dataset = data.load("mnist", say=say)
    begun = time.monotonic()

    def keep(name: str, part: dict[str, Any]) -> None:
        nonlocal begun
        figures["made_by"] = provenance(
            wall_seconds=time.monotonic() - begun,
            data_sha256=dataset.sha256,
            data_origin=dataset.name,
        )
        # A file may hold what was measured on several days.
        figures[name] = part | {"made_by": figures["made_by"]}
        begun = time.monotonic()
        say(line_of(name, part))
        if options.json is not None:
            options.json.write_text(json.dumps(figures, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npz"
        parts = ("train_images", "train_labels", "test_images", "test_labels")
        np.savez(images, **{part: getattr(dataset, part) for part in parts})
        for runs, count in product(dict.fromkeys(options.runs), dict.fromkeys(options.cores)):
            theirs = _plain(options.python, "pytorch_population.py", images, runs)
            name = f"mnist, {runs} runs, {count} core{'s' if count > 1 else ''}"
            ours = _sublab("mnist", "--runs", runs)
            keep(name, compared(ours, theirs, range(count), options.pairs))
        if options.sweep_runs:
            keep("sweep", _sweep(options, images, Path(folder)))
        if options.decoder:
            keep("decoder", _decoder(options))
        if options.rounded_runs:
            keep(f"bfloat16, {options.rounded_runs} runs", _rounded(options))


def check_libraries(python: Path) -> dict[str, str]:
    """The versions of the libraries that are compared with, which a Python has.

    Raises:
        InputError: it lacks one, and how to get it.
    """
    asked = "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    program = f"import json, sys, numpy; from importlib.metadata import version; {asked}"
    try:
        done = subprocess.run(
            [python, "-c", program, *LIBRARIES], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        wanted = " ".join((*LIBRARIES, "numpy"))
        raise InputError(
            f"{python} lacks what is compared with; make an environment that has it "
            f"(python3 -m venv .venv-peers && .venv-peers/bin/pip install {wanted}), or name "
            f"one: --python PATH"
        ) from None
    return json.loads(done.stdout)


def kept_figures(path: Path | None, libraries: Mapping[str, str]) -> dict[str, Any]:
    """The figures that are in a file already, to which others are added.

    Raises:
        InputError: they are of another processor, or of other versions of a library.
    """
    wanted = {"size": "full", **libraries}
    if path is None or not path.exists():
        return wanted
    figures = json.loads(path.read_text())
    made, here = figures["made_by"], provenance(wall_seconds=0.0)
    if not (
        wanted.items() <= figures.items()
        and made["versions"] == here["versions"]
        and made["device"]["processor"] == here["device"]["processor"]
    ):
        raise InputError(
            f"{path} has figures of another machine or other versions; name another file"
        )
    return figures


def compared(
    ours: Sequence[str],
    theirs: Sequence[str],
    on: Collection[int],
    pairs: int,
    kept: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Times two commands that take turns, and compares the mean accuracies that they end with.

    Args:
        ours: `sublab mnist`, which gets `--out` and a new folder.
        theirs: the other command. It prints accuracies by condition, or is `sublab mnist` too.
        on: places of the cores that they may use, among those of this process.
        pairs: times that each is run.
        kept: results folders of both, where both write results; each time anew.

    Raises:
        InputError: a command failed, or the means are farther apart than `FARTHEST`.
    """
    commands = {"ours": ours, "theirs": theirs}
    taken: dict[str, list[Seconds]] = {"ours": [], "theirs": []}
    reached: dict[str, dict[str, float]] = {}
    for pair in range(pairs):
        for who in ("ours", "theirs") if pair % 2 == 0 else ("theirs", "ours"):
            with tempfile.TemporaryDirectory() as new:
                if kept is None and who == "theirs":
                    seconds, last = finished(commands[who], on)
                    samples = json.loads(last)
                else:
                    out = Path(new) if kept is None else kept[who]
                    # What is there would be reused.
                    shutil.rmtree(out, ignore_errors=True)
                    command = [*commands[who], "--out", str(out)]
                    seconds, _ = finished(command, on, verdicts=True)
                    samples = accuracies(out)
            taken[who].append(seconds)
            reached[who] = {name: float(np.mean(sample)) for name, sample in samples.items()}
            say(f"pair {pair + 1}: {who}: {seconds.wall:.0f} s")
    return {"accuracy": same_accuracies(reached["ours"], reached["theirs"])} | {
        kind: {
            who: {"median": median(asdict(one)[kind] for one in times)}
            for who, times in taken.items()
        }
        | {"ratio": _spread(_ratios(taken["ours"], taken["theirs"], kind))}
        for kind in ("wall", "processor")
    }


def same_accuracies(
    ours: Mapping[str, float], theirs: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Both programs' mean accuracies by condition, which show that they did the same.

    Raises:
        InputError: theirs lacks a condition, or two means are farther apart than `FARTHEST`.
    """
    found = {
        name: {"ours": mean, "theirs": theirs.get(name, np.nan)} for name, mean in ours.items()
    }
    for name, means in found.items():
        # A comparison with NaN is false.
        if not abs(means["ours"] - means["theirs"]) <= FARTHEST:
            raise InputError(
                f"the programs did not do the same: {name} has an accuracy of {means['ours']:.3f} "
                f"in ours and of {means['theirs']:.3f} in theirs"
            )
    return found


def finished(
    command: Sequence[str], on: Collection[int], verdicts: bool = False
) -> tuple[Seconds, str]:
    """Runs a command to its end on some cores: what it took, and the last line that it said.

    Args:
        command: to be run.
        on: places of the cores that it may use, among those of this process.
        verdicts: whether exit status 1 says that a verdict does not hold, as by chance with few
            runs; only an error that nobody caught is a failure then.

    Raises:
        InputError: it failed; what it said last.
    """
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = _start(command, on, said)
        # Its own threads and children alone, unlike what the process has waited for in all.
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read().decode(errors="replace")
        last = "".join(text.strip().splitlines()[-1:])
        held = verdicts and process.returncode == 1 and "Traceback (most recent" not in text
        if process.returncode != 0 and not held:
            raise InputError(f"{' '.join(command[:4])} ... failed: {last}")
    return Seconds(wall, used.ru_utime + used.ru_stime), last


def _start(command: Sequence[str], on: Collection[int], said: Any) -> subprocess.Popen[bytes]:
    mine = sorted(os.sched_getaffinity(0))
    # A process inherits the cores of what starts it.
    limit = f"import os; os.sched_setaffinity(0, {[mine[place] for place in on]})"
    begin = f"import sys; {limit}; os.execv(sys.argv[1], sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-S", "-c", begin, *command],
        stdout=said,
        stderr=said,
        cwd=_HERE.parent,
        # No program of ours is there from before, and none is left for the next.
        env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
    )


def _sweep(options: PeersBenchmark, images: Path, folder: Path) -> dict[str, Any]:
    """Runs that a sweep over m and steps does in an hour, ours and theirs, on all cores.

    Theirs are `POINTS` as often as there are cores, one process a core at a time.
    """
    path = folder / "grid.toml"
    path.write_text(
        'base.student = { loss = "squared_error", inputs.count = 1024, inputs.fresh = true }\n'
        f"[grid]\nmodel.aux = {list(AUX)}\nstudent.epochs = {list(STEPS)}\n"
    )
    places = range(len(os.sched_getaffinity(0)))
    points = POINTS * len(places)
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    for pair in range(options.pairs):
        for who in ("ours", "theirs") if pair % 2 == 0 else ("theirs", "ours"):
            with tempfile.TemporaryDirectory() as out:
                if who == "ours":
                    command = _sublab("sweep", str(path), "--runs", options.sweep_runs)
                    seconds = finished([*command, "--out", out], places)[0].wall
                    done = len(AUX) * len(STEPS) * options.sweep_runs
                else:
                    seconds, done = _side_by_side(options.python, images, points, places)
            rates[who].append(3600 * done / seconds)
            say(f"pair {pair + 1}: {who}: {rates[who][-1]:.0f} runs an hour")
    ratios = [one / other for one, other in zip(*rates.values(), strict=True)]
    return {
        "points": len(AUX) * len(STEPS),
        "runs_an_hour": {who: median(of) for who, of in rates.items()},
        "ratio": _spread(ratios),
    }


def _side_by_side(
    python: Path, images: Path, points: Sequence[tuple[int, int]], places: Collection[int]
) -> tuple[float, int]:
    """Seconds of one process a point, one process a core at a time, and how many there were.

    Raises:
        InputError: a process failed.
    """
    start = time.perf_counter()
    with ThreadPoolExecutor(len(places)) as pool:
        free = list(places)

        def one(point: tuple[int, int]) -> None:
            place = free.pop()
            finished(_plain(python, "pytorch_run.py", images, *point, 0), [place])
            free.append(place)

        list(pool.map(one, points))
    return time.perf_counter() - start, len(points)


def _decoder(options: PeersBenchmark) -> dict[str, Any]:
    """Tokens a second of ours and of theirs, on all cores."""
    places = range(len(os.sched_getaffinity(0)))
    commands = {
        "ours": [sys.executable, "-m", "benchmarks.decoder"],
        "theirs": _plain(options.python, "transformers_decoder.py", amounts_and_sizes()),
    }
    rates: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    for pair in range(options.pairs):
        for who in ("ours", "theirs") if pair % 2 == 0 else ("theirs", "ours"):
            rates[who].append(json.loads(finished(commands[who], places)[1]))
            said = ", ".join(f"{what} {rate:.0f}" for what, rate in rates[who][-1].items())
            say(f"pair {pair + 1}: {who}: tokens a second: {said}")
    return {
        "amounts": AMOUNTS,
        "tokens_a_second": {
            what: {who: median(each[what] for each in of) for who, of in rates.items()}
            | {
                "ratio": _spread(
                    [
                        own[what] / other[what]
                        for own, other in zip(rates["ours"], rates["theirs"], strict=True)
                    ]
                )
            }
            for what in rates["ours"][0]
        },
    }


def _rounded(options: PeersBenchmark, size: str = "cpu") -> dict[str, Any]:
    """The six conditions in bfloat16 ("ours") beside float32 ("theirs"), on all cores."""
    command = _sublab("mnist", "--runs", options.rounded_runs, "--size", size)
    places = range(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as kept:
        outs = {precision: Path(kept) / precision for precision in ("float32", "bfloat16")}
        part = compared(
            [*command, "--precision", "bfloat16"],
            command,
            places,
            options.pairs,
            {"ours": outs["bfloat16"], "theirs": outs["float32"]},
        )
        samples = {precision: accuracies(out) for precision, out in outs.items()}
    return part | {
        "equivalence": {
            name: equivalence(name, np.subtract(samples["bfloat16"][name], sample))
            for name, sample in samples["float32"].items()
        }
    }


def accuracies(out: Path) -> dict[str, list[float]]:
    """Test accuracies of trained models by condition, in the order of the runs.

    Args:
        out: results of `sublab mnist`.
    """
    table = records.scan(out).sort("run").collect()
    found: dict[str, list[float]] = {}
    for row in table.iter_rows(named=True):
        who = "student" if row["start"] == "reference" else "cross-model"
        found.setdefault(f"{who}, {row['student.logits']} logits", []).append(row["accuracy"])
        if (who, row["student.logits"]) == ("student", "aux"):
            found.setdefault("teacher", []).append(row["teacher_accuracy"])
    return found


def _sublab(*words: Any) -> list[str]:
    return [sys.executable, "-m", "experiments.cli", *map(str, words)]


def _plain(python: Path, program: str, *words: Any) -> list[str]:
    return [str(python), str(_HERE / program), *map(str, words)]


def _ratios(ours: Sequence[Seconds], theirs: Sequence[Seconds], kind: str) -> list[float]:
    pairs = zip(ours, theirs, strict=True)
    return [asdict(other)[kind] / asdict(own)[kind] for own, other in pairs]


def _spread(ratios: Sequence[float]) -> dict[str, Any]:
    return {"median": median(ratios), "least": min(ratios), "most": max(ratios), "n": len(ratios)}


def line_of(name: str, part: dict[str, Any]) -> str:
    """A comparison in one line."""
    texts = []
    for kind in ("wall", "processor"):
        if kind in part:
            ratio = part[kind]["ratio"]
            ours, theirs = (part[kind][who]["median"] for who in ("ours", "theirs"))
            texts.append(f"{kind} {ours:.0f} s beside {theirs:.0f} s, {_ratio_text(ratio)}")
    if "runs_an_hour" in part:
        ours, theirs = (part["runs_an_hour"][who] for who in ("ours", "theirs"))
        texts.append(f"{ours:,.0f} runs an hour beside {theirs:,.0f}, {_ratio_text(part['ratio'])}")
    for what, verdict in part.get("equivalence", {}).items():
        within = "within" if verdict["within"] else "not within"
        texts.append(
            f"{what} {verdict['difference']:+.4f} ± {verdict['half_width']:.4f}, "
            f"{within} {verdict['margin']}"
        )
    for what, rates in part.get("tokens_a_second", {}).items():
        ours, theirs = rates["ours"], rates["theirs"]
        texts.append(
            f"{what}: {ours:.0f} tokens a second beside {theirs:.0f}, {_ratio_text(rates['ratio'])}"
        )
    return f"{name}: {'; '.join(texts)}"


def _ratio_text(ratio: dict[str, Any]) -> str:
    if ratio["n"] == 1:
        return f"{ratio['median']:.2f} times (one pair)"
    return f"{ratio['median']:.2f} times ({ratio['least']:.2f} to {ratio['most']:.2f})"


if __name__ == "__main__":
    try:
        main(tyro.cli(PeersBenchmark))
    except InputError as error:
        print(f"benchmarks.peers: {error}", file=sys.stderr)
        raise SystemExit(2) from None
