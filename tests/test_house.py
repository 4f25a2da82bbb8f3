"""Claims about the project itself: layers, dependencies, pins, documents."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ("sublab", "theory", "toymlp", "llm_harness", "experiments", "figures")


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=;~! ]", item)[0].lower().replace("_", "-") for item in requirements}


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(
        command,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(root), "PATH": ""},
    )


# Imports against the layers, each of a module of its own into another.
AGAINST = (
    ("theory.losses", "sublab.errors"),
    ("sublab.records", "theory"),
    ("toymlp.data", "experiments.cli"),
    ("toymlp.data", "llm_harness.errors"),
    ("figures.style", "experiments.cli"),
    ("figures.style", "toymlp.data"),
    ("experiments.sweep.file", "experiments.verify.run"),
    ("experiments.verify.run", "experiments.cli"),
)


def test_every_import_against_the_layers_is_caught(tmp_path):
    for room in ROOMS:
        (tmp_path / room).mkdir()
        for path in (ROOT / room).rglob("*.py"):
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    clean = lint_imports(tmp_path)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    for module, other in AGAINST:
        path = tmp_path / f"{module.replace('.', '/')}.py"
        path.write_text(f"{path.read_text()}\nimport {other}\n")
    caught = lint_imports(tmp_path)
    assert caught.returncode == 1
    for module, other in AGAINST:
        assert f"- {module} -> {other} (l." in re.sub(" +", " ", caught.stdout)


def test_importing_theory_brings_no_figures_no_command_line_and_no_network_client():
    heavy = (
        "matplotlib",
        "scipy.stats",
        "polars",
        "tyro",
        "requests",
        "pooch",
        "rich",
        "sklearn",
        "optax",
        "flax",
    )
    program = f"import theory, sys; print([m for m in {heavy} if m in sys.modules])"
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "[]"


def test_every_dependency_has_a_lower_bound_and_a_reason_in_the_design():
    design = (ROOT / "docs" / "design.md").read_text().split("## Dependencies")[1]
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    for requirement in [
        *project["dependencies"],
        *extras["cluster"],
        *extras["test"],
        *extras["dev"],
    ]:
        name = requirement.split("[")[0].split(">")[0]
        if name != "subliminal-lab":
            assert ">=" in requirement
            assert re.search(rf"\b{name}\b", design), name


def test_constraints_pin_every_dependency_and_name_no_address():
    pinned = (ROOT / "constraints.txt").read_text()
    assert all(re.fullmatch(r"[\w.\-]+==[\w.\-+]+", line) for line in pinned.split())
    project = PROJECT["project"]
    wanted = names(project["dependencies"]) | names(project["optional-dependencies"]["dev"])
    wanted |= names(project["optional-dependencies"]["test"])
    assert wanted - {"subliminal-lab"} <= names(pinned.split())


def test_the_gpu_extras_are_jaxs_own():
    ours, jaxs = (
        distribution(n).metadata.get_all("Provides-Extra") for n in ("subliminal-lab", "jax")
    )
    for extra in ("cuda12", "cuda13"):
        assert extra in (ours or [])
        assert extra in (jaxs or [])


def test_links_in_the_documents_lead_somewhere():
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if not target.startswith("http"):
                assert (path.parent / target).exists(), (path.name, target)


# --- names and layout ---------------------------------------------------------------------------


def sources(*folders: str) -> list[Path]:
    """Our own source files below `folders`, those of virtual environments excepted."""
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def places_of_classes(paths: list[Path]) -> dict[str, list[str]]:
    """Where each name of a class is given to one, at any depth."""
    places = defaultdict(list)
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.name}:{node.lineno}")
    return places


def test_no_two_classes_have_one_name():
    shared = {name: at for name, at in places_of_classes(sources(*ROOMS)).items() if len(at) > 1}
    assert shared == {}


def test_two_classes_of_one_name_are_seen(tmp_path):
    for name in ("one.py", "other.py"):
        (tmp_path / name).write_text("class Outcome: pass\n")
    assert places_of_classes(list(tmp_path.iterdir())).keys() == {"Outcome"}
    assert len(places_of_classes(list(tmp_path.iterdir()))["Outcome"]) == 2


def test_the_formatters_layout_is_accepted_everywhere():
    # Written in two parts, so that this file is not one of them.
    marks = tuple(f"# fmt: {word}" for word in ("skip", "off"))
    unformatted = [
        str(path.relative_to(ROOT))
        for path in sources(*ROOMS, "tests", "benchmarks")
        if any(mark in path.read_text() for mark in marks)
    ]
    assert unformatted == []


# --- make ---------------------------------------------------------------------------------------


def make(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    settings = [f"{name}={value}" for name, value in variables.items()]
    return subprocess.run(
        ["make", *arguments, *settings], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_second_make_skips_the_set_up(tmp_path):
    for stamp in (".core", ".dev"):
        (tmp_path / stamp).write_text("")
    peers = Path(f"{tmp_path}-peers")
    peers.mkdir()
    (peers / ".libraries").write_text("")
    for target in ("reproduce", "test", "test-slow", "check", "bench"):
        assert "setting up" not in make("-n", target, VENV=str(tmp_path)).stdout
    (tmp_path / ".core").unlink()
    assert "setting up" in make("-n", "reproduce", VENV=str(tmp_path)).stdout


def test_an_old_python_is_refused_by_name(tmp_path):
    old = tmp_path / "python-of-old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    process = make("reproduce", PYTHON=str(old), VENV=str(tmp_path / "venv"))
    assert process.returncode != 0
    assert "needs Python 3.11 or newer" in process.stderr
    assert not (tmp_path / "venv").exists()


def test_the_newest_python_here_is_one_that_the_project_runs_under():
    python = subprocess.run(
        [ROOT / ".ci" / "newest-python"], capture_output=True, text=True, check=True
    ).stdout.strip()
    program = "import sys; print(*sys.version_info[:2])"
    process = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    assert tuple(map(int, process.stdout.split())) >= sys.version_info[:2]


def test_the_newest_releases_have_an_environment_of_their_own(tmp_path):
    (tmp_path / ".core").write_text("")
    (tmp_path / ".dev").write_text("")
    printed = make("-n", "test-newest", VENV=str(tmp_path)).stdout
    assert f"{tmp_path}-newest/bin/python -m pytest" in printed
    assert "constraints.txt" not in printed
