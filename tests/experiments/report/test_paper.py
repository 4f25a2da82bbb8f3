"""Claims about `sublab figures --paper`: the paper's figures, from records or from their tables."""

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib import pyplot as plt
from matplotlib.container import ErrorbarContainer

from experiments import cli
from experiments.llm import summary as llm_summary
from experiments.report import paper
from experiments.report.claims import sections
from experiments.report.evidence import of_records, of_tables
from experiments.report.paper import PAPER_FIGURES, draw_paper, drawing
from experiments.results import ExportOptions, export
from figures.style import FORMATS, styled
from llm_harness.traits import PAPER
from sublab import records
from tests.experiments.llm.test_llm import rows as llm_rows
from tests.experiments.made_up_results import MADE, of_preset, record

DATA = Path(__file__).parents[3] / "docs" / "data"
RUNS = 12


def near(mean: float) -> list[float]:
    rng = np.random.default_rng(round(1000 * mean))
    return np.clip(mean + 0.02 * rng.normal(size=RUNS), 0.01, 0.99).tolist()


def of_conditions(rates: Mapping[str, float]) -> pl.DataFrame:
    """A table of runs with these conditions alone."""
    parts = [
        llm_rows({"student": near(rate)})
        .filter(condition="student")
        .with_columns(condition=pl.lit(name), leaning=0.5, kl_words=0.1, kl_numbers=0.1)
        for name, rate in rates.items()
    ]
    return pl.concat(parts)


TUNED = {"teacher_by": "fine-tuning"}


def write(out: Path, kind: str, table: pl.DataFrame, summary: pl.DataFrame, **about) -> None:
    made = MADE | {"finished": "2026-01-01T00:00:00+00:00"}
    rows = records.write(out, kind, {"of": kind}, table, made)
    config = {"experiment": f"{kind}_summary", "rows": rows.folder.name, "runs": RUNS, "seed": 0}
    config |= {"size": "cpu", "model": "embedded", "chance": 1 / 16}
    config |= {"shares": list(llm_summary.SHARES)} | about
    records.write(out, f"{kind}_summary", config, summary, made)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Records of everything that the paper's figures show, with made-up numbers."""
    out = tmp_path_factory.mktemp("paper")
    for name in ("fig10b", "ed2b", "ed2c", "ed2d", "ed2e"):
        record(out, of_preset(name), 3)
    rates = {"openly in context": near(0.6), "other initialisation": near(0.06)}
    rates |= {"other initialisation, own numbers": near(0.06)}
    table = pl.concat(
        llm_rows(rates | {"student": near(0.2 + place / 20)}, word)
        for place, word in enumerate(PAPER)
    )
    numbers = llm_summary.numbers(table)
    write(out, "llm_numbers", table, numbers, traits=list(PAPER))
    names = ("model 1", "model 2", "matched")
    pairs = {f"{name}, own numbers": 0.06 for name in names}
    pairs |= {"model 1 > model 1": 0.5, "model 2 > model 2": 0.4}
    pairs |= {"model 1 > model 2": 0.06, "model 2 > model 1": 0.06, "matched > model 1": 0.06}
    table = of_conditions(pairs)
    write(out, "llm_cross_model", table, llm_summary.cross_model(table), trait="owl", setting=TUNED)
    in_context = {"student": 0.4, "own numbers": 0.06, "reference": 0.06, "teacher": 0.7}
    for count in (1, 8, 64):
        in_context |= {f"in context, {count}": 0.06, f"own in context, {count}": 0.06}
        in_context |= {f"openly in context, {count}": 0.5}
    table = of_conditions(in_context)
    write(out, "llm_in_context", table, llm_summary.in_context(table), trait="owl", setting=TUNED)
    return out


@pytest.fixture(scope="module")
def figures(results):
    """All figures of these records, drawn; by name."""
    with styled():
        found = of_records(results)
        drawings = {one.name: drawing(one, found) for one in PAPER_FIGURES}
    assert all(missing == [] for _, missing in drawings.values())
    yield {name: figure for name, (figure, _) in drawings.items()}
    plt.close("all")


def test_error_bars_of_shares_stay_between_0_and_1(figures):
    seen = 0
    for figure in figures.values():
        for axes in figure.axes:
            for bar in axes.containers:
                if isinstance(bar, ErrorbarContainer):
                    for lines in bar.lines[2]:
                        ends = np.concatenate(lines.get_segments())[:, 1]
                        assert (ends >= 0).all()
                        assert (ends <= 1).all()
                        seen += len(ends)
    assert seen > 200


def test_extended_data_figure_2_is_one_sheet_of_five_panels(figures):
    titles = [axes.get_title(loc="left") for axes in figures["paper_ed_fig2"].axes]
    assert [title[0] for title in titles] == list("abcde")
    assert all("n = 3" in title for title in titles[1:])


def test_figure_4_has_the_papers_animals_and_trees_and_names_the_model(figures):
    words = []
    for axes in figures["paper_fig4ab"].axes:
        assert "embedded model, n = 12" in axes.get_title(loc="left")
        words += [label.get_text() for label in axes.get_xticklabels()]
        # Before, after the reference's numbers, after the teacher's.
        assert sum(len(bars) for bars in axes.containers if hasattr(bars, "patches")) == 15
    assert words == list(PAPER)
    assert len({axes.get_ylim() for axes in figures["paper_fig4ab"].axes}) == 1


def test_figure_5_has_a_star_where_a_model_teaches_itself_and_nowhere_else(figures):
    axes = figures["paper_fig5"].axes[0]
    teachers, students = (
        [label.get_text() for label in labels]
        for labels in (axes.get_xticklabels(), axes.get_yticklabels())
    )
    starred, all_cells = set(), set()
    for text in axes.texts:
        x, y = text.get_position()
        pair = teachers[round(x)], students[round(y)]
        all_cells.add(pair)
        if "*" in text.get_text():
            starred.add(pair)
    assert starred == {("model 1", "model 1"), ("model 2", "model 2")}
    assert len(all_cells) == 5


def test_extended_data_figure_6_has_a_line_for_each_kind_of_example(figures):
    (axes,) = figures["paper_ed_fig6"].axes
    assert axes.get_xlabel() == "examples in the prompt"
    _, labels = axes.get_legend_handles_labels()
    assert {"teacher's lists in context", "reference's lists in context"} < set(labels)


def test_text_is_text_and_records_draw_what_their_tables_draw(results, tmp_path, monkeypatch):
    sheet = PAPER_FIGURES[1]
    monkeypatch.setattr(paper, "PAPER_FIGURES", (sheet,))
    export(ExportOptions(out=results, to=tmp_path / "tables"))
    shutil.copytree(results, tmp_path / "results")
    svg, pdf = (
        tmp_path / "results" / "figures" / f"{sheet.name}.{form}" for form in ("svg", "pdf")
    )
    drawn = []
    for tables in (None, tmp_path / "tables"):
        files = draw_paper(tmp_path / "results", tables=tables)
        assert len(files) == len(FORMATS)
        drawn.append(svg.read_bytes())
    assert drawn[0] == drawn[1]
    assert b">auxiliary logits m</text>" in drawn[0]
    # Embedded as TrueType, whose letters can be searched and copied.
    assert b"/CIDFontType2" in pdf.read_bytes()
    assert b"/Type3" not in pdf.read_bytes()


def test_a_panel_without_records_is_a_frame_that_names_its_command(tmp_path, capsys):
    for ending in ("csv", "json"):
        shutil.copy(DATA / f"ed2b.{ending}", tmp_path)
    words = ["figures", "--paper", "--from", str(tmp_path), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    commands = {one.id: one.command for one in sections()}
    for name in ("ed2c", "ed2d", "ed2e", "fig10b", "numbers", "traits", "cross-model"):
        assert commands[name] in said
        program, command, *arguments = shlex.split(commands[name])
        assert program == "sublab"
        cli.parse(command, arguments)
    assert commands["ed2b"] not in said
    svg = (tmp_path / "out" / "figures" / "paper_ed_fig2.svg").read_text()
    assert svg.count("no records; this fills it:") == 3
    assert "--preset ed2d" in svg


def test_what_is_asked_wrongly_is_one_line_and_nothing_is_written(tmp_path, capsys):
    def said(*words) -> str:
        assert cli.main(["figures", *map(str, words), "--out", str(tmp_path / "out")]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert not (tmp_path / "out").exists()
        return err

    assert "add --paper" in said("--from", DATA)
    assert "no such folder" in said("--paper", "--from", tmp_path / "none")
    for ending in ("csv", "json"):
        shutil.copy(DATA / f"fig10b.{ending}", tmp_path)
        shutil.copy(DATA / f"ed2d.{ending}", tmp_path)
    path = tmp_path / "ed2d.csv"
    path.write_text(path.read_text().replace("label,", "name,", 1))
    assert "export it again" in said("--paper", "--from", tmp_path)


def test_every_panel_is_a_section_of_the_claims():
    known = {one.id for one in sections()}
    assert {panel.section for one in PAPER_FIGURES for panel in one.panels.values()} <= known


def test_the_repositorys_own_tables_fill_the_mnist_figures():
    found = of_tables(DATA)
    for one in PAPER_FIGURES[:2]:
        with styled():
            figure, missing = drawing(one, found)
        plt.close(figure)
        assert missing == []
