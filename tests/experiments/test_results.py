"""Claims about `sublab results export`: what it writes of records, and what it leaves out."""

import json
from dataclasses import replace

import polars as pl
import pytest

from experiments import cli
from experiments.docs import read_table
from experiments.results import ExportOptions, export
from experiments.sweep import run as sweep_run
from sublab import records
from sublab.errors import InputError
from tests.experiments.made_up_results import MADE, means, of_preset, record


def exported(out, to, **options):
    return export(ExportOptions(out=out, to=to, **options))


def test_a_table_has_a_row_a_point_and_metric_with_what_the_summary_says(tmp_path):
    summary = record(tmp_path, of_preset("ed2b"))
    (path,) = exported(tmp_path, tmp_path / "data")
    assert path == tmp_path / "data" / "ed2b.csv"
    table = read_table(tmp_path / "data", "ed2b")
    assert table is not None
    assert list(table.rows[0]) == [
        *("label", "model.aux", "metric", "index", "n", "mean", "low", "high"),
        *("difference", "difference_low", "difference_high"),
    ]
    rows = [row for row in table.rows if row["metric"] == "accuracy"]
    ours = means(summary, "accuracy").to_dicts()
    assert len(rows) == len(ours) == 30
    for row, original in zip(rows, ours, strict=True):
        point = summary.config["points"][original["point"]]["coordinates"]
        assert (row["label"], row["model.aux"]) == (point["label"], str(point["model.aux"]))
        for name in ("mean", "low", "high", "difference"):
            if original[name] is None:
                assert row[name] == ""
            else:
                assert float(row[name]) == pytest.approx(original[name], rel=1e-5)


def test_what_lies_beside_a_table_says_what_it_is_of_and_no_folder(tmp_path):
    summary = record(tmp_path, of_preset("ed2b"))
    exported(tmp_path, tmp_path / "data")
    text = (tmp_path / "data" / "ed2b.json").read_text()
    about = json.loads(text)
    assert about["title"] == "Number of auxiliary logits"
    assert (about["size"], about["runs"], about["seed"]) == ("cpu", 8, 0)
    assert about["versions"] == MADE["versions"]
    assert (about["date"], about["revision"]) == ("2026-01-01", MADE["git"])
    assert about["record"] == summary.folder.name
    assert "folder" not in text
    assert "host" not in text
    assert str(tmp_path) not in text
    (preprint,) = [
        row
        for row in about["published"]
        if row["metric"] == "accuracy" and row["at"] == {"label": "student", "model.aux": 3}
    ]
    assert (preprint["mean"], preprint["equal"], preprint["agrees"]) == (0.5284, True, None)


def test_equal_records_give_equal_bytes(tmp_path):
    contents = []
    for name in ("one", "other"):
        for preset in ("fig10b", "ed2d"):
            record(tmp_path / name, of_preset(preset))
        exported(tmp_path / name, tmp_path / name / "data")
        contents.append({p.name: p.read_bytes() for p in (tmp_path / name / "data").iterdir()})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 4


def test_of_one_name_most_runs_are_taken_then_the_latest_and_it_is_said(tmp_path, capsys):
    sweep = of_preset("init-scale")
    record(tmp_path, sweep, 3, date="2026-03-01")
    many = record(tmp_path, sweep, 5, date="2026-02-01")
    record(tmp_path, replace(sweep, title="Another"), 5, date="2026-01-01")
    exported(tmp_path, tmp_path / "data")
    table = read_table(tmp_path / "data", "init-scale")
    assert table is not None
    assert table.about["record"] == many.folder.name
    said = capsys.readouterr().err
    assert f"of 3 summaries, the one of 5 runs, 2026-02-01T00:00:00+00:00 ({many.folder.name})" in (
        said
    )


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({}, "llm_numbers"),
        ({"size": "smoke"}, "llm_numbers"),
        ({"model": "smollm2"}, "llm_numbers-smollm2"),
        ({"model": "smollm2", "size": "paper"}, "llm_numbers-smollm2-paper"),
        (
            {"model": "smollm2", "setting": {"teacher_by": "fine-tuning"}},
            "llm_numbers-smollm2-fine-tuning",
        ),
        ({"traits": ["owl", "cat"]}, "llm_numbers-2-traits"),
    ],
)
def test_another_model_size_teacher_or_number_of_traits_is_another_table(tmp_path, config, name):
    kind = "llm_numbers_summary"
    config = {"experiment": kind, "size": "cpu", "runs": 1, "rows": "none"} | config
    table = pl.DataFrame({"metric": ["p_word"], "mean": [0.1]})
    made = MADE | {"finished": "2026-01-01T00:00:00+00:00"}
    records.write(tmp_path, kind, config, table, made)
    assert [path.stem for path in exported(tmp_path, tmp_path / "data", smoke=True)] == [name]


def test_smoke_size_is_exported_where_it_is_asked_for_alone(tmp_path):
    record(tmp_path, of_preset("ed2b", "smoke"))
    with pytest.raises(InputError, match="no results to export"):
        exported(tmp_path, tmp_path / "data")
    assert exported(tmp_path, tmp_path / "data", smoke=True)


def test_a_preset_with_other_settings_is_left_out(tmp_path, capsys):
    summary = record(tmp_path, of_preset("ed2b"))
    config = summary.config | {"changes": ["dataset=digits"], "runs": 50}
    records.write(tmp_path, sweep_run.SUMMARY, config, summary.table, summary.provenance)
    exported(tmp_path, tmp_path / "data")
    table = read_table(tmp_path / "data", "ed2b")
    assert table is not None
    assert table.about["runs"] == 8
    assert "ed2b with dataset=digits: left out" in capsys.readouterr().err


def test_a_sweep_says_in_its_summary_what_the_command_line_changed(tmp_path):
    options = sweep_run.SweepOptions(
        preset="init-scale",
        size="smoke",
        runs=1,
        set=("model.init_scale=1.0", "student.epochs=0"),
        out=tmp_path,
    )
    outcome = sweep_run.run(options)
    assert outcome.failures == ()
    assert outcome.summary is not None
    assert outcome.summary.config["changes"] == ["model.init_scale=1.0", "student.epochs=0"]


def test_a_list_along_training_is_its_mean_and_the_share_above_0(tmp_path):
    record(tmp_path, of_preset("alignment"), steps=40)
    exported(tmp_path, tmp_path / "data")
    table = read_table(tmp_path / "data", "alignment")
    assert table is not None
    rows = [row for row in table.rows if row["metric"] == "alignment"]
    assert [row["index"] for row in rows] == ["mean"] * 3 + ["share above 0"] * 3
    # The made-up values are uniform from .1 to .9.
    assert float(rows[0]["mean"]) == pytest.approx(0.5, abs=0.1)
    assert float(rows[3]["mean"]) == 1
    assert rows[0]["difference"] != ""
    assert rows[2]["difference"] == ""
    # A list of few places, one a layer, is there place by place.
    record(tmp_path, of_preset("init-distance"), steps=2)
    exported(tmp_path, tmp_path / "data")
    layers = read_table(tmp_path / "data", "init-distance")
    assert layers is not None
    cosines = [row["index"] for row in layers.rows if row["metric"] == "start_feature_cosine"]
    assert cosines == ["0", "1"] * 14


def test_a_list_is_one_text_and_none_is_said(tmp_path):
    record(tmp_path, of_preset("depth"))
    exported(tmp_path, tmp_path / "data")
    table = read_table(tmp_path / "data", "depth")
    assert table is not None
    hidden = list(dict.fromkeys(row["model.hidden"] for row in table.rows))
    assert hidden[:3] == ["none", "256", "256-256"]


def test_figures_are_copied_under_names_that_stay(tmp_path, capsys):
    summary = record(tmp_path, of_preset("ed2b"))
    drawn = tmp_path / "figures"
    drawn.mkdir()
    name = f"sweep_ed2b_cpu_n8_{summary.folder.name[:6]}"
    (drawn / f"{name}.png").write_bytes(b"picture")
    (drawn / "sweep_ed2b_cpu_n8_000000.png").write_bytes(b"of another record")
    exported(tmp_path, tmp_path / "data", figures=tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["sweep_ed2b.png"]
    assert (tmp_path / "kept" / "sweep_ed2b.png").read_bytes() == b"picture"
    (drawn / f"{name}.png").unlink()
    exported(tmp_path, tmp_path / "data", figures=tmp_path / "none")
    assert "ed2b: no figure" in capsys.readouterr().err


def test_the_command_exports_and_fills_a_page(tmp_path, capsys):
    record(tmp_path, of_preset("fig10b"))
    # Beside the records, unless it is said: the project's own tables are nobody's to write over.
    data = tmp_path / "tables"
    assert cli.main(["results", "export", "--out", str(tmp_path)]) == 0
    assert f"table: {data / 'fig10b.csv'}" in capsys.readouterr().out
    page = tmp_path / "page.md"
    page.write_text("<!--= fig10b : runs -->99<!----> runs\n")
    assert cli.main(["results", "fill", str(page), "--data", str(data)]) == 0
    assert page.read_text() == "<!--= fig10b : runs -->20<!----> runs\n"
    assert capsys.readouterr().out == f"page: {page}\n"
    assert cli.main(["results", "fill", str(page), "--data", str(data)]) == 0
    assert capsys.readouterr().out == ""


def test_bad_input_is_one_line(tmp_path, capsys):
    page = tmp_path / "page.md"
    for text in ("<!--= ed2b model.aux=7 -->.5<!---->", "<!-- data: ed2b pie -->\n<!-- end -->"):
        page.write_text(text)
        record(tmp_path, of_preset("ed2b"))
        exported(tmp_path, tmp_path / "data")
        words = ["results", "fill", str(page), "--data", str(tmp_path / "data")]
        assert cli.main(words) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith(f"sublab: {page}: ")
    (tmp_path / "data" / "ed2b.json").unlink()
    with pytest.raises(InputError, match="export it again"):
        read_table(tmp_path / "data", "ed2b")
