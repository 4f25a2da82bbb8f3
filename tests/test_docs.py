"""Claims about the documents: their numbers and tables are those that the command writes."""

import contextlib
import io
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import cli, docs
from experiments.results import ExportOptions, export
from experiments.sweep import run as sweep_run
from experiments.sweep.file import presets, read_file
from sublab import settings
from sublab.errors import InputError
from tests.experiments.made_up_results import of_preset, record
from toymlp.settings import Setting

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "data"
PIECES = ROOT / "docs" / "measured"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FILLED = ("README.md", "measured.md", "sweeps.md", "settings.md", "design.md", "experiment.md")
# Numbers with a point that are no results: versions, and what the reader is to type or to choose.
CONSTANTS = {
    "README.md": {"3.11", "2.0", "3.12", "0.01", "0.1", "1.0", "0.5"},
    "settings.md": {"0.1061", "0.5", "0.1", "0.0003", "0.0001"},
}
DECIMAL = re.compile(r"(?<![\w.])[-+]?\d*\.\d+\b")


@pytest.fixture(scope="module")
def made_up(tmp_path_factory) -> Path:
    """Tables of every preset at cpu size, with made-up numbers, beside the real pieces of prose."""
    folder = tmp_path_factory.mktemp("docs")
    for name in presets():
        record(folder / "results", of_preset(name), steps=20 if name == "alignment" else 2)
    export(ExportOptions(out=folder / "results", to=folder / "data"))
    (folder / "measured").symlink_to(PIECES)
    for benchmarks in ("gpu", "bench"):
        (folder / "data" / benchmarks).symlink_to(DATA / benchmarks)
    return folder / "data"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_what_make_docs_writes(page):
    text = page.read_text("utf-8")
    assert docs.filled(text, DATA) == text, "run make docs"


def test_a_changed_number_or_table_is_seen():
    text = (ROOT / "docs" / "settings.md").read_text("utf-8")
    assert "| `model.aux` | 3 |" in text
    assert docs.filled(text.replace("| `model.aux` | 3 |", "| `model.aux` | 4 |"), DATA) == text


def prose(text: str) -> str:
    """What a person has typed of a page: no marks, no code, no addresses."""
    text = re.sub(r"<!-- (data|generated): .*?<!-- end -->", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--=.*?<!---->", "", text, flags=re.DOTALL)
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"\{\{.*?\}\}", "", text, flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)", "]", text)


@pytest.mark.parametrize("name", FILLED)
def test_no_number_of_a_page_is_typed_by_hand(name):
    path = next(page for page in PAGES if page.name == name)
    typed = set(DECIMAL.findall(prose(path.read_text("utf-8"))))
    assert typed <= CONSTANTS.get(name, set())


def test_a_number_typed_by_hand_is_seen():
    assert DECIMAL.findall(
        prose("It is .917 or <!--= ed2b -->.5<!----> at 0.94 {{ed2b : mean}}")
    ) == [
        ".917",
        "0.94",
    ]


@pytest.mark.parametrize("name", presets())
def test_what_is_said_of_a_preset_has_no_number_of_its_own_and_every_value_is_there(name, made_up):
    piece = (PIECES / f"{name}.md").read_text("utf-8")
    assert DECIMAL.findall(prose(piece)) == []
    assert re.findall(r"\{\{.*?\}\}", piece, flags=re.DOTALL)
    section = docs.filled(f"<!-- generated: measured {name} -->\n<!-- end -->", made_up)
    assert "{{" not in section
    assert docs.NONE not in section.split("<details>")[0]
    assert f"`{name}`, n = " in section
    lines = section.split("All points</summary>")[1].split("\n\n")[1].splitlines()
    assert len(lines) == 2 + len(of_preset(name).points)


def test_every_preset_has_its_place_on_the_page_of_results():
    page = (ROOT / "docs" / "measured.md").read_text("utf-8")
    named = re.findall(r"<!-- generated: measured (\S+) -->", page)
    assert sorted(named) == sorted(presets())
    assert sorted(path.stem for path in PIECES.iterdir()) == sorted(presets())


def test_a_preset_without_a_table_is_one_line(tmp_path):
    text = "<!-- generated: measured ed2b -->\nIt was .5.\n<!-- end -->"
    assert docs.filled(text, tmp_path) == (
        "<!-- generated: measured ed2b -->\n`ed2b`: not measured on this engine yet.\n<!-- end -->"
    )
    assert docs.filled("<!--= ed2b : runs -->8<!---->", tmp_path) == (
        f"<!--= ed2b : runs -->{docs.NONE}<!---->"
    )


TABLE = """label,model.aux,metric,index,n,mean,low,high,difference,difference_low,difference_high
student,3,accuracy,,8,0.5371,0.48,0.594,0.45,0.4,0.5
student,50,accuracy,,8,0.9174,0.908,0.927,-0.01,-0.02,-0.005
cross-model,50,accuracy,,8,0.0996,0.08,0.12,,,
student,50,aux_kl,,8,0.00243,0.002,0.003,,,
student,50,alignment,mean,8,0.0189,0.012,0.026,,,
"""
ABOUT = """{"shares": ["accuracy"], "runs": 8, "versions": {"jax": "0.10.2"}, "published": [
{"metric": "accuracy", "mean": 0.5284, "half_width": 0.0221, "n": 100, "name": "student",
 "agrees": true, "equal": true, "level": false, "at": {"label": "student", "model.aux": 3}},
{"metric": "accuracy", "mean": 0.37, "half_width": null, "n": null, "name": null,
 "agrees": null, "equal": false, "level": true, "at": null}]}"""


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("ed2b label=student model.aux=50", ".917 [.908, .927]"),
        ("ed2b label=student model.aux=50.0 : mean", ".917"),
        ("ed2b label=student model.aux=3 : paired", "+.450 [+.400, +.500]"),
        ("ed2b label=student model.aux=3 : sign", "above"),
        ("ed2b label=student model.aux=50 : sign", "below"),
        ("ed2b label=cross-model : sign", "not told from"),
        ("ed2b label=student : means", ".537, .917"),
        ("ed2b : least to most", ".100 to .917"),
        ("ed2b label=student model.aux=50 accuracy less aux_kl : means", "+.915"),
        ("ed2b aux_kl : mean nats", ".00243 nats"),
        ("ed2b alignment index=mean : mean (n)", ".0189 (8)"),
        ("ed2b label=student model.aux=3 : published ± half_width", ".528 ± .022"),
        ("ed2b label=student model.aux=3 : verdict", "agrees"),
        ("ed2b : published", ".370"),
        ("ed2b : agreeing", "all 1 agree"),
        ("ed2b : runs, JAX jax", "8, JAX 0.10.2"),
    ],
)
def test_a_value_is_written_as_its_mark_says(tmp_path, what, text):
    (tmp_path / "ed2b.csv").write_text(TABLE)
    (tmp_path / "ed2b.json").write_text(ABOUT)
    assert docs.value(what, tmp_path) == text
    assert docs.filled(f"a <!--= {what} -->?<!----> b", tmp_path) == (
        f"a <!--= {what} -->{text}<!----> b"
    )


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("ed2b label=student", "2 rows are so, and not one"),
        ("ed2b : least and most", "'and' stands for nothing"),
        ("ed2b label=teacher : means", "no row is so"),
        ("ed2b aux_kl : published", "no published value is so"),
    ],
)
def test_a_value_that_is_not_there_is_refused(tmp_path, what, said):
    (tmp_path / "ed2b.csv").write_text(TABLE)
    (tmp_path / "ed2b.json").write_text(ABOUT)
    with pytest.raises(InputError, match=said):
        docs.value(what, tmp_path)
    with pytest.raises(InputError, match="views are"):
        docs.filled("<!-- data: ed2b pie -->\n<!-- end -->", tmp_path)
    with pytest.raises(InputError, match="there is no such preset"):
        docs.filled("<!-- generated: measured ed9 -->\n<!-- end -->", tmp_path)
    with pytest.raises(InputError, match="generated: knobs: there are settings, "):
        docs.filled("<!-- generated: knobs -->\n<!-- end -->", tmp_path)


def test_numbers_of_a_benchmark_are_found_by_part_and_precision(tmp_path):
    sample = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 100, "runs": [0.4, 0.6]}
    figures = {
        "size": "full",
        "fig10b": {
            "tf32": {"seconds": 9.5, "rates": {"students": {"teraflops": 87.0}}},
            "float32": {"seconds": 25.0, "accuracy": {"teacher": sample}},
        },
        "ed2b": {"precision": "tf32", "seconds": 34_321.0, "within": True},
        "made_by": {
            "device": {"kind": "a GPU", "processor": "a processor"},
            "git": "abc",
            "finished": "2026-11-27T02:15:01+00:00",
            "versions": {"jax": "0.11.2"},
        },
    }
    for folder in ("gpu", "bench"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.json").write_text(json.dumps(figures))
    for what, text in {
        "gpu/one seconds part=fig10b precision=tf32 : mean": "9.5",
        "gpu/one seconds part=ed2b precision=tf32 : mean": "34,300",
        "gpu/one rates/students/teraflops part=fig10b precision=tf32 : mean": "87",
        "gpu/one part=fig10b precision=float32 label=teacher : mean [low, high], n": (
            ".500 [.400, .600], 100"
        ),
        "gpu/one : title, date, jax": "a GPU, 2026-11-27, 0.11.2",
        "bench/one seconds part=ed2b : mean": "34,300",
        "gpu/none seconds part=fig10b : mean": None,
    }.items():
        assert docs.value(what, tmp_path) == text
    (tmp_path / "gpu" / "one.json").write_text("{}")
    with pytest.raises(InputError, match="measure it again"):
        docs.value("gpu/one seconds part=ed2b : mean", tmp_path)


def test_large_numbers_have_no_exponent_and_infinite_ones_stay_so():
    written = {
        "999.5": "1,000",
        "1234.5": "1,230",
        "-98765": "-98,800",
        "inf": "inf",
        "-inf": "-inf",
    }
    assert {text: docs.number(text, share=False) for text in written} == written
    assert docs.number("1234.5", share=False, signed=True) == "+1,230"


def test_a_share_is_rounded_as_the_decimal_that_a_table_has():
    # As a binary number .9065 lies a little below, and a mean of records a little to either side.
    for mean in (0.9065, np.nextafter(0.9065, 0), np.nextafter(0.9065, 1)):
        assert docs.number(repr(float(mean)), share=True) == ".907"
        assert docs.number(repr(float(-mean)), share=True, signed=True) == "-.907"
    assert docs.number("0.9064", share=True) == ".906"
    assert docs.number("0.9065", share=True, digits=4) == ".9065"
    assert docs.number("nan", share=True) == "nan"


def test_no_line_begins_with_a_value():
    # A line that begins with a comment is no part of a paragraph to Markdown.
    for page in PAGES:
        assert not re.search(r"^\s*<!--=", page.read_text("utf-8"), flags=re.MULTILINE), page.name


def test_every_key_of_a_setting_is_in_the_tables():
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    for name in settings.known(Setting):
        shown = re.sub(r"^(teacher|start\.clone)\.", "student.", name)
        if shown != "interventions.liminal":
            assert f"| `{shown}`" in page, name


SMALL = {
    "dataset": "digits",
    "model.hidden": [16, 16],
    "teacher.epochs": 2,
    "student.epochs": 2,
    "student.inputs.count": 256,
    "student.batch": 64,
}


def test_the_experiment_on_one_page_gives_the_numbers_of_the_preset(tmp_path):
    page = (ROOT / "docs" / "experiment.md").read_text("utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
    own = [line for line in code.splitlines() if line and not line.startswith(("from", "import"))]
    assert len(own) <= 45
    first = "setting, seed, run = Setting(), 0, 0"
    assert first in code
    code = code.replace(first, "setting, seed, run = small, 0, 1")
    names: dict[str, Any] = {"small": settings.build(Setting, SMALL)}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "docs/experiment.md", "exec"), names)
    shares = dict(zip(names["models"], names["shares"], strict=True))
    outcome = sweep_run.run(
        sweep_run.SweepOptions(
            preset="fig10b",
            size="smoke",
            runs=2,
            set=tuple(f"{name}={value}" for name, value in SMALL.items()),
            out=tmp_path,
        )
    )
    rows = outcome.table.filter(run=1).sort("point").to_dicts()
    assert [
        shares[start, logits] for start in ("reference", "independent") for logits in ("aux", "all")
    ] == [row["accuracy"] for row in rows]
    assert shares["teacher"] == rows[0]["teacher_accuracy"]
    assert shares["reference"] == rows[0]["start_accuracy"]
    losses = [by_epoch[2].loss for by_epoch in names["trained"]]
    assert losses == pytest.approx([row["final_loss"] for row in rows], rel=1e-3)
    assert len(printed.getvalue().splitlines()) == 6


def test_the_worked_example_is_the_file_beside_the_page_and_runs(tmp_path, capsys, monkeypatch):
    page = (ROOT / "docs" / "sweeps.md").read_text("utf-8")
    shown = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)[0]
    path = ROOT / "docs" / "activation.toml"
    assert tomllib.loads(shown) == tomllib.loads(path.read_text("utf-8"))
    assert len(read_file(path, "cpu").points) == 8
    words = ["sweep", str(path), "--size", "smoke", "--out", str(tmp_path / "results")]
    assert cli.main(words) == 0
    assert list((tmp_path / "results" / "figures").glob("sweep_activation_smoke_n2_*.png"))
    assert "differences are paired, to label = cross-model" in (
        " ".join(capsys.readouterr().out.split())
    )
    # From Python the same, which is there already.
    (program,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    names: dict[str, Any] = {}
    exec(compile(program, "docs/sweeps.md", "exec"), names)
    assert len(names["outcome"].table) == 16


def test_the_commands_of_the_page_on_sweeps_are_commands_and_it_is_short():
    page = (ROOT / "docs" / "sweeps.md").read_text("utf-8")
    assert len(page.splitlines()) <= 150
    lines = [
        line
        for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
        for line in block.strip().splitlines()
    ]
    assert len(lines) >= 6
    for line in lines:
        _, name, *arguments = line.split("#")[0].split()
        cli.parse(name, arguments)
