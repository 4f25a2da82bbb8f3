"""Claims about `sublab report`: verdicts, every claim's row, one file that needs nothing else."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from experiments import cli, results
from experiments.docs import ResultTable, read_table
from experiments.llm import summary as llm_summary
from experiments.report import claims, evidence, page, report, verdicts
from experiments.report.claims import sections
from experiments.report.evidence import Evidence
from experiments.results import ExportOptions, export
from sublab import records
from sublab.errors import InputError
from sublab.statistics import Published, above_p, compare, equivalent, mean_interval
from tests.experiments.llm.test_llm import rows as llm_rows
from tests.experiments.made_up_results import of_preset, record

DATA = Path(__file__).parents[3] / "docs" / "data"
VOID = {"meta", "link", "br", "input", "img", "hr"}
LOADED = ("src", "href", "data", "poster", "srcset", "action", "xlink:href")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """The page of the repository's own tables."""
    return report(tables=DATA, to=tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def html(outcome):
    return outcome.path.read_text()


class Reader(HTMLParser):
    """What a page has: tags that were left open, links, names, tables."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.links: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.captions = self.headings_without_scope = 0
        self.alts: dict[str, str] = {}
        self._table = self._alt = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self._look(tag, attributes)

    def handle_startendtag(self, tag, attrs):
        self._look(tag, dict(attrs))

    def _look(self, tag, attributes):
        self.links += [(tag, attributes[name]) for name in LOADED if name in attributes]
        if "id" in attributes:
            self.ids.append(attributes["id"])
            self._alt = attributes["id"] if attributes["id"].endswith("-alt") else ""
        if tag == "table":
            self._table = attributes["id"]
            self.tables[self._table] = []
        self.captions += tag == "caption"
        self.headings_without_scope += tag == "th" and "scope" not in attributes
        if tag == "tr" and self._table:
            self.tables[self._table].append([])
        if tag in ("td", "th") and self._table:
            value = attributes.get("data-value", attributes.get("data-key"))
            if value is not None:
                self.tables[self._table][-1].append(value)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)
        if tag == "table":
            self._table = ""
        if tag == "span":
            self._alt = ""

    def handle_data(self, data):
        if self._alt:
            self.alts[self._alt] = self.alts.get(self._alt, "") + data


@pytest.fixture(scope="module")
def read(html):
    return Reader(html)


# --- the page -----------------------------------------------------------------------------------


def test_every_claim_has_a_row_with_its_verdict(outcome, html):
    wanted = [row.text for one in sections() for row in one.rows]
    wanted += [one.title for one in sections() if one.untestable]
    assert sorted(outcome.table["statement"]) == sorted(wanted)
    assert html.count('<tr class="claim"') == len(wanted)
    assert set(outcome.table["verdict"]) <= set(verdicts.WORDS)
    for name in ("fig10b", "ed2a", "ed2b", "ed2c", "ed2d", "ed2e", "theorem", "numbers"):
        assert name in set(outcome.table["section"])
    for name in ("cross-model", "in-context", "misalignment", "code", "reasoning"):
        assert name in set(outcome.table["section"])


def test_what_cannot_be_tested_says_why_and_no_other_row_lacks_a_command(outcome):
    for row in outcome.table.iter_rows(named=True):
        assert row["command"] or (row["verdict"] == verdicts.UNTESTABLE and row["why"])


def test_the_command_of_every_claim_exists(html):
    for section in sections():
        if section.command:
            program, name, *arguments = shlex.split(section.command)
            assert program == "sublab"
            cli.parse(name, arguments)
            assert f"--{section.command.split(' --')[-1]}" in html


def test_a_row_without_records_names_the_command_that_fills_it(outcome, html):
    missing = outcome.table.filter(verdict=verdicts.MISSING)
    assert "traits" in set(missing["section"])
    assert missing["n"].null_count() == len(missing)
    assert html.count("no records yet: this command fills") >= missing["section"].n_unique()


def test_the_papers_numbers_are_those_of_the_presets(outcome):
    paper = dict(outcome.table.select("statement", "paper").iter_rows())
    assert paper["The student learns from auxiliary logits on noise"] == ".5284 ± .0221 (n = 100)"
    assert paper["It saturates"] == ".370, read off"


def test_no_number_is_written_in_the_template():
    text = (Path(page.__file__).parent / "page.html.jinja").read_text()
    words = re.sub(r"{[{%#].*?[#%}]}", " ", text, flags=re.DOTALL)
    words = re.sub(r"<svg.*?</svg>|<[^>]+>|&\w+;", " ", words, flags=re.DOTALL)
    # What is left is where the paper appeared, and the ends of the scale.
    cited = words[words.index("Cloud et al., Language") : words.index("preprint arXiv")]
    left = words.replace(cited, "").replace("preprint arXiv 2507.14805v1", "")
    assert set(re.findall(r"\d+", left)) <= {"0", "1"}


def test_the_page_is_whole_and_each_name_is_given_once(read):
    assert (read.wrong, read.open) == ([], [])
    assert len(read.ids) == len(set(read.ids))
    assert read.captions == len(read.tables) > 5
    assert read.headings_without_scope == 0


def test_a_table_says_how_many_rows_it_has_since_its_frame_shows_some_of_them(read, html):
    captions = dict(re.findall(r'id="(\S+)-caption"><span>.*?; ([\d,]+) rows?</span>', html))
    counted = {
        name.removesuffix("-data"): f"{len(rows) - 1:,}"
        for name, rows in read.tables.items()
        if name.endswith("-data")
    }
    assert captions == counted != {}


def test_nothing_is_loaded_from_elsewhere(read, html):
    names = set(read.ids)
    for tag, target in read.links:
        assert target.startswith(("#", "data:")), (tag, target)
        assert not target.startswith("#") or target[1:] in names, target
    assert not re.search(r"@import|https?://", html)
    assert set(re.findall(r"url\(([^)]*)\)", html)) <= {f"#{name}" for name in names}


def test_it_can_be_used_by_keyboard_and_screen_reader(html):
    for part in ("<main", "<nav aria-label", "<header", "<footer", 'class="skip" href="#main"'):
        assert part in html
    assert html.count('aria-sort="none"') == html.count('data-key="') - 6
    assert '<html lang="en">' in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_the_alternative_text_of_a_figure_says_its_numbers(read, html):
    figures = html.count("<figure>")
    assert figures == len(read.alts) == html.count('role="img"') >= 8
    assert "student, auxiliary logits .547 [.510, .584], paper .528" in read.alts["fig10b-alt"]
    for alt in read.alts.values():
        assert len(re.findall(r"\.\d{3}", alt)) > 8
    # Text of a figure is text.
    assert re.search(r"<text[^>]*>chance</text>", html)


def test_a_table_of_the_page_is_the_table_of_the_data(read):
    for section, name in (("ed2c", "ed2c"), ("theorem", "verify")):
        table = read_table(DATA, name)
        assert table is not None
        head, *rows = read.tables[f"{section}-data"]
        ours = [
            [row[key] for key in head]
            for row in table.rows
            if name == "verify" or (row["metric"] == "accuracy" and not row["index"])
        ]
        assert rows == ours
    assert len(read.tables["numbers-data"]) > 40


def test_the_page_is_small(outcome):
    assert outcome.path.stat().st_size < 2_000_000


def test_the_same_input_gives_the_same_bytes_from_records_and_from_their_tables(tmp_path):
    sweep = of_preset("fig10b")
    sweep = replace(sweep, title='<b>"Six" & more</b>')
    record(tmp_path / "records", sweep)
    export(ExportOptions(out=tmp_path / "records", to=tmp_path / "data"))
    first = report(tmp_path / "records")
    assert first.path == tmp_path / "records" / "report.html"
    content = first.path.read_bytes()
    assert report(tmp_path / "records").path.read_bytes() == content
    second = report(tables=tmp_path / "data", to=tmp_path / "other" / "page.html")
    assert second.path.read_bytes() == content
    assert second.table.equals(first.table)
    # Numbers out of the air are not the paper's.
    assert verdicts.DIFFERS in set(first.table["verdict"])
    assert str(tmp_path) not in content.decode()


def test_labels_are_escaped(tmp_path):
    shutil.copy(DATA / "ed2d.json", tmp_path)
    text = (DATA / "ed2d.csv").read_text()
    nasty = '<script>alert("&")</script>'
    quoted = '"' + nasty.replace('"', '""') + '"'
    (tmp_path / "ed2d.csv").write_text(text.replace("on images,", f"{quoted},"))
    html = report(tables=tmp_path, to=tmp_path / "r.html").path.read_text()
    assert html.count("<script>") == 1
    assert "&lt;script&gt;alert(&#34;&amp;&#34;)&lt;/script&gt;" in html
    read = Reader(html)
    assert (read.wrong, read.open) == ([], [])
    assert any(nasty in row for row in read.tables["ed2d-data"])


# --- bad input ----------------------------------------------------------------------------------


def said(capsys, *words) -> str:
    assert cli.main(["report", *map(str, words)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("sublab: ")
    assert err.count("\n") == 1
    return err


def damage_json(data):
    (data / "verify.json").write_text("{}")


def damage_number(data):
    path = data / "ed2b.csv"
    path.write_text(path.read_text().replace("0.382812", "many"))


def damage_end(data):
    path = data / "ed2b.csv"
    path.write_text(path.read_text()[:-20])


def damage_columns(data):
    path = data / "ed2b.csv"
    path.write_text(path.read_text().replace("metric,index", "index,index", 1))


def damage_by_loss(data):
    (data / "ed2b.json").unlink()


def damage_published(data):
    about = json.loads((data / "fig10b.json").read_text())
    about["published"][0].pop("equal")
    (data / "fig10b.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    "damage",
    [
        damage_json,
        damage_number,
        damage_end,
        damage_columns,
        damage_by_loss,
        damage_published,
    ],
)
def test_a_damaged_table_is_one_line_and_nothing_is_written(tmp_path, capsys, damage):
    data, to = tmp_path / "data", tmp_path / "to"
    data.mkdir()
    for name in ("fig10b", "ed2b", "verify"):
        for ending in ("csv", "json"):
            shutil.copy(DATA / f"{name}.{ending}", data)
    damage(data)
    assert "export it again" in said(capsys, "--from", data, "--to", to / "r.html")
    assert not to.exists()


def test_a_missing_or_empty_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    to = ("--to", tmp_path / "r.html")
    assert "no such folder" in said(capsys, "--out", tmp_path / "none", *to)
    assert "no such folder" in said(capsys, "--from", tmp_path / "none", *to)
    assert "no records" in said(capsys, "--out", tmp_path / "empty", *to)
    assert "no tables" in said(capsys, "--from", tmp_path / "empty", *to)
    assert not (tmp_path / "r.html").exists()


def test_a_damaged_record_is_one_line(tmp_path, capsys):
    summary = record(tmp_path, of_preset("fig10b"))
    (summary.folder / "table.parquet").write_bytes(b"cut")
    assert "damaged record" in said(capsys, "--out", tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_page_that_cannot_be_written_leaves_the_one_from_before(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(page, "rendered", lambda parts: "new")
    monkeypatch.setattr(page, "parts_of", lambda sections, found: [])
    assert "is a folder" in said(capsys, "--from", DATA, "--to", tmp_path)
    (tmp_path / "r.html").write_text("old")

    def refuse(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    assert "No space left" in said(capsys, "--from", DATA, "--to", tmp_path / "r.html")
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    assert (tmp_path / "r.html").read_text() == "old"


# --- verdicts -----------------------------------------------------------------------------------


def of_rows(name, rows, **about) -> Evidence:
    texts = [
        {
            key: "" if value is None else repr(value) if isinstance(value, float) else str(value)
            for key, value in row.items()
        }
        for row in rows
    ]
    head = dict.fromkeys(("record", "date", "versions", "processor", "device", "revision", "seed"))
    head |= dict.fromkeys(("axis_titles", "metric_titles", "title", "runs"))
    head |= {"versions": {"jax": ""}, "axes": ["label"], "published": [], "shares": ["accuracy"]}
    return evidence._checked(Path(name), ResultTable(name, head | about, texts))


def of_means(means, name="ed2d", n=10, std=0.02) -> Evidence:
    """A table of one mean a label, whose differences are to the last label."""
    rows = []
    base = list(means.values())[-1]
    for label, mean in means.items():
        half = mean_interval(std * np.linspace(-1, 1, n) * 1.5 + mean)
        apart = mean - base
        width = (half.high or 0) - (half.low or 0)
        rows.append(
            {
                "label": label,
                "metric": "accuracy",
                "index": None,
                "n": n,
                "mean": mean,
                "low": half.low,
                "high": half.high,
                "difference": apart,
                "difference_low": apart - width,
                "difference_high": apart + width,
            }
        )
    return of_rows(name, rows)


def words_of(section_id, table) -> dict[str, str]:
    (section,) = (one for one in sections() if one.id == section_id)
    found = verdicts.judged(replace(section, choose={}), table)
    return {row.text: one.word for row, one in zip(section.rows, found, strict=True)}


ABLATIONS = {
    "student": 0.9,
    "SGD": 0.6,
    "on images": 0.5,
    "cross-model, cloned on noise": 0.4,
    "cross-model, cloned on images": 0.1,
    "cross-model": 0.1,
}


def test_ablations_agree_where_they_are_what_the_paper_says():
    words = words_of("ed2d", of_means(ABLATIONS))
    assert words.pop("Another start, cloned on images: some") == verdicts.NOT_SHOWN
    assert set(words.values()) == {verdicts.AGREES}


def test_they_differ_where_they_are_the_contrary():
    other = ABLATIONS | {"SGD": 0.95, "cross-model, cloned on images": 0.02, "cross-model": 0.3}
    words = words_of("ed2d", of_means(other))
    assert words["SGD in place of Adam: less than the student"] == verdicts.DIFFERS
    assert words["Another start, cloned on images: some"] == verdicts.DIFFERS
    assert words["Another start, not cloned: nothing"] == verdicts.DIFFERS


def test_nine_runs_have_no_verdict_ten_have_one():
    assert set(words_of("ed2d", of_means(ABLATIONS, n=9)).values()) == {verdicts.FEW}
    assert verdicts.FEW not in words_of("ed2d", of_means(ABLATIONS, n=10)).values()


def test_a_wide_interval_shows_nothing():
    words = words_of("ed2d", of_means(ABLATIONS, std=3.0))
    assert set(words.values()) == {verdicts.NOT_SHOWN}


def test_a_row_that_the_table_lacks_has_no_records():
    means = {name: mean for name, mean in ABLATIONS.items() if name != "SGD"}
    words = words_of("ed2d", of_means(means))
    assert words["SGD in place of Adam: still above another start"] == verdicts.MISSING


def test_the_verdict_on_a_published_mean_is_the_sweeps_own():
    table = read_table(DATA, "fig10b")
    assert table is not None
    published = [dict(row) for row in table.about["published"]]
    published[2] |= {"agrees": False}
    published[3] |= {"agrees": None, "ours": published[3]["ours"] | {"n": 9}}
    published[4] |= {"agrees": None, "equal": False, "differs": ["dataset"]}
    about = table.about | {"published": published}
    words = list(words_of("fig10b", evidence._checked(DATA, replace(table, about=about))).values())
    a, d, few, not_ours = verdicts.AGREES, verdicts.DIFFERS, verdicts.FEW, verdicts.UNTESTABLE
    assert words == [a, a, d, few, not_ours, a]


def test_the_theorems_verdicts_are_those_of_verify():
    table = read_table(DATA, "verify")
    assert table is not None
    holds = {"lemma_1": "false", "blind": ""}
    rows = [row | {"holds": holds.get(row["name"], row["holds"])} for row in table.rows]
    words = words_of("theorem", evidence._checked(DATA, replace(table, rows=rows)))
    assert words.pop("Lemma 1: the student's step is along the teacher's") == verdicts.DIFFERS
    assert words.pop("Theorem 1, other branch: a = 0 only where nothing ever passes") == (
        verdicts.FEW
    )
    assert set(words.values()) == {verdicts.AGREES}


def rates(student, other, runs, seed=0):
    rng = np.random.default_rng(seed)

    def near(mean):
        return np.clip(mean + 0.01 * rng.normal(size=runs), 0.01, 0.99).tolist()

    return {
        "student": near(student),
        "other initialisation": near(other),
        "other initialisation, own numbers": near(0.06),
        "openly in context": near(0.6),
    }


@pytest.mark.parametrize(
    ("student", "other", "runs"),
    [(0.3, 0.06, 12), (0.055, 0.3, 12), (0.02, 0.06, 10), (0.3, 0.06, 9), (0.07, 0.09, 12)],
)
def test_language_models_are_judged_as_the_experiment_judges_them(student, other, runs):
    table = llm_rows(rates(student, other, runs))
    words = words_of_models(table)
    ours = {
        "the student exceeds every control, by P(word) and by sampled answers": (
            "The student exceeds every control"
        ),
        "nothing passes to another initialisation": "Nothing passes to another initialisation",
        "lists in context do not raise it": "Lists in context do not raise it",
    }
    outcomes = {claim.text: claim.outcome for claim in llm_summary.claims(table)}
    for text, statement in ours.items():
        word = words[statement]
        wanted = {"yes": (verdicts.AGREES,), "NO": (verdicts.DIFFERS, verdicts.NOT_SHOWN)}
        assert word in wanted.get(str(outcomes[text]), (verdicts.FEW,)), text


def words_of_models(table):
    rows = [
        {k: str(v).lower() if isinstance(v, bool) else v for k, v in row.items()}
        for row in llm_summary.numbers(table).to_dicts()
    ]
    return words_of("numbers", of_rows("llm_numbers", rows, traits=["owl"]))


@pytest.mark.parametrize(("condition", "p_any"), [("in context", 0.1), ("openly in context", None)])
def test_of_lists_in_context_nothing_is_said_where_the_experiment_says_nothing(condition, p_any):
    table = llm_rows(rates(0.3, 0.06, 12) | ({} if p_any else {condition: [0.05] * 12}))
    of_it = pl.col("condition") == condition
    silent = pl.when(of_it).then(p_any or pl.col("p_any")).otherwise(pl.col("p_any"))
    table = table.with_columns(p_any=silent)
    outcomes = {claim.text: claim.outcome for claim in llm_summary.claims(table)}
    assert outcomes["lists in context do not raise it"] == "cannot be tested"
    assert words_of_models(table)["Lists in context do not raise it"] == verdicts.UNTESTABLE


def test_of_ten_traits_every_one_must_pass():
    table = llm_rows(rates(0.3, 0.06, 10), "owl")
    for word in llm_trait_words()[1:]:
        table = table.vstack(llm_rows(rates(0.3, 0.06, 10, seed=len(word)), word))
    rows = [
        {k: str(v).lower() if isinstance(v, bool) else v for k, v in row.items()}
        for row in llm_summary.numbers(table).to_dicts()
    ]
    words = llm_trait_words()
    (word,) = words_of("traits", of_rows("llm_numbers", rows, traits=words)).values()
    assert word == verdicts.AGREES
    owl_alone = of_rows("llm_numbers", rows, traits=["owl"])
    parts = page.parts_of(
        [one for one in sections() if one.id == "traits"], {"llm_numbers": owl_alone}
    )
    assert parts[0].rows[0].finding.word == verdicts.MISSING


def llm_trait_words():
    return ["owl", *(f"trait {letter}" for letter in "abcdefghi")]


def test_a_sample_made_of_a_row_says_what_the_runs_say():
    rng = np.random.default_rng(1)
    runs = rng.uniform(0.3, 0.9, 14)
    ours = mean_interval(runs, share=True)
    row = {"n": 14, "mean": ours.mean, "low": ours.low, "high": ours.high}
    sample = evidence.sample_of(row, share=True)
    assert sample is not None
    assert (np.mean(sample), np.std(sample, ddof=1)) == pytest.approx((ours.mean, ours.std))
    first, second = (compare(x, Published(0.6, 0.02)) for x in (runs, sample))
    assert first is not None
    assert second is not None
    assert second.allowed == pytest.approx(first.allowed)
    assert above_p(sample - 0.55) == pytest.approx(above_p(runs - 0.55))
    assert equivalent(sample - 0.6, 0.2) == equivalent(runs - 0.6, 0.2)
    assert evidence.sample_of(row | {"n": 1, "low": None, "high": None}, share=True) is None


def test_a_published_value_that_no_preset_has_is_refused():
    with pytest.raises(ValueError, match="0 published values"):
        claims._published("fig10b", claims.Statement("x", "published", name="no such"))


def test_a_table_without_its_rows_is_refused():
    with pytest.raises(InputError, match="no rows"):
        of_rows("ed2d", [])


# --- what an experiment cost ---------------------------------------------------------------------


def test_students_that_were_trained_together_count_once(tmp_path):
    table = pl.DataFrame({"x": [1]})
    made = [(5.0, "1"), (5.0, "1"), (7.5, "2")]
    students = [
        records.write(
            tmp_path, "sweep", {"run": run}, table, {"wall_seconds": seconds, "finished": when}
        )
        for run, (seconds, when) in enumerate(made)
    ]
    config = {"records": [one.folder.name for one in students]}
    runs = records.write(tmp_path, "sweep_runs", config, table, {})
    about = {"experiment": "sweep_summary", "runs_record": runs.folder.name}
    summary = records.write(tmp_path, "sweep_summary", about, table, {})
    assert results._wall_seconds(summary) == 12.5
    (students[0].folder / "provenance.json").unlink()
    assert results._wall_seconds(summary) is None


# --- in a browser -------------------------------------------------------------------------------

PROBE = """
<script>
const wrong = window.wrong;
const table = document.getElementById("ed2c-data");
const [, , third, mean] = table.tHead.rows[0].cells;
const texts = () => Array.from(table.tBodies[0].rows, (row) => row.cells[3].dataset.value);
const before = csvOf(table);
let saved = null;
URL.createObjectURL = (blob) => { saved = blob; return "blob:none"; };
HTMLAnchorElement.prototype.click = function () { window.named = this.download; };
document.querySelector('button.csv[data-table="ed2c-data"]').click();
mean.querySelector("button").click();
const up = texts();
const states = [mean.getAttribute("aria-sort")];
mean.querySelector("button").click();
states.push(mean.getAttribute("aria-sort"), third.getAttribute("aria-sort"));
const said = document.getElementById("said").textContent;
const report = {
  wrong, up, down: texts(), states, said, named: window.named, csv: before,
  overview: csvOf(document.getElementById("overview-table")),
  claims: document.querySelectorAll("tr.claim").length,
  figures: Array.from(document.querySelectorAll("figure svg"), (svg) => svg.clientWidth),
  wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
};
saved.text().then((text) => {
  report.saved = text;
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(report);
  document.body.append(out);
});
</script>
"""
CATCH = """<script>
window.wrong = [];
window.addEventListener("error", (event) => window.wrong.push(String(event.message)));
console.error = (...words) => window.wrong.push(words.join(" "));
</script>"""


@pytest.mark.slow
def test_a_browser_shows_sorts_and_saves_everything(html, outcome, tmp_path):
    browser = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if browser is None:
        pytest.skip("no chromium or google-chrome is on the path")
    probed = html.replace("<head>", f"<head>{CATCH}", 1).replace("</body>", f"{PROBE}</body>")
    (tmp_path / "probe.html").write_text(probed)
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,900"]
    process = subprocess.run(
        [*command, "--virtual-time-budget=5000", (tmp_path / "probe.html").as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    dumped = re.search(r'<pre id="probe">(.*?)</pre>', process.stdout, re.DOTALL)
    assert dumped is not None, process.stderr[-2000:]
    parser = Reader("")
    parser._alt = "probe"
    parser.feed(dumped[1])
    parser.close()
    said = json.loads(parser.alts["probe"])
    assert said["wrong"] == []
    assert said["claims"] == len(outcome.table)
    assert len(said["figures"]) == html.count("<figure") > 0
    assert min(said["figures"]) > 300
    assert said["wide"] <= 0
    assert said["up"] == sorted(said["up"], key=float)
    assert said["down"] == sorted(said["up"], key=float, reverse=True)
    assert said["states"] == ["ascending", "descending", "none"]
    assert said["said"] == "Sorted by mean, descending"
    assert said["named"] == "ed2c-data.csv"
    assert said["saved"] == said["csv"]
    table = read_table(DATA, "ed2c")
    assert table is not None
    head, *rows = csv.reader(said["saved"].splitlines())
    ours = [r for r in table.rows if r["metric"] == "accuracy" and not r["index"]]
    assert rows == [[row[key] for key in head] for row in ours]
    overview = list(csv.DictReader(said["overview"].splitlines()))
    assert [row["claim"] for row in overview] == outcome.table["statement"].to_list()
    assert all(
        row["verdict"].startswith(word)
        for row, word in zip(overview, outcome.table["verdict"], strict=True)
    )
