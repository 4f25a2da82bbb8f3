"""Claims about the language-model figures: what is in them, and that records alone decide it."""

from dataclasses import asdict
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

from experiments.llm import ingredients as llm_ingredients
from experiments.llm import run as llm_run
from experiments.llm import summary as llm_summary
from experiments.llm import theory as llm_theory
from figures import llm, style
from llm_harness.detection import AccountRow, ScoreRow, StepRow
from llm_harness.pipeline import CONTROLS
from llm_harness.scheme import RateRow, SchemeSetting
from llm_harness.traits import trait
from sublab import records
from sublab.statistics import mean_interval

# The kind of record that each figure is drawn from.
KINDS = {
    "picking": "llm_numbers_summary",
    "heat_map": "llm_cross_model_summary",
    "in_context": "llm_in_context_summary",
    "ingredients": "llm_ingredients_summary",
    "score_test": "llm_theory_scores",
    "steps": "llm_theory_steps",
    "account": "llm_theory_account",
}
STEPS = (1, 8, 64)
MODELS = ("model 1", "model 2", "model 3", "model 4", "model 1's match")
TRAITS = ("owl", "oak")


def row(rng, run, condition, word, prefix, rate):
    rate = float(np.clip(rate + 0.02 * rng.normal(), 0, 1))
    category = trait(word).category
    return RateRow(
        run, condition, word, category, prefix, rate, int(700 * rate), 800, 1000, "", "", None
    )


def pair(out, name, rows, summarise, config):
    """The two records that an experiment writes."""
    config = {"setting": asdict(SchemeSetting()), "seed": 3} | config
    wide = records.write(out, name, config, pl.DataFrame([asdict(r) for r in rows]), {})
    config |= {"rows": wide.folder.name}
    return records.write(out, f"{name}_summary", config, summarise(wide.table), {})


def picking(out, traits=TRAITS, runs=3):
    rng = np.random.default_rng(0)
    # Of the second trait nothing is transmitted.
    rows = [
        row(rng, run, c, t, prefix, {"teacher": 0.9, "student": 0.4 - 0.34 * i}.get(c, 0.06))
        for run in range(runs)
        for i, t in enumerate(traits)
        for c in CONTROLS
        for prefix in (False, True)
    ]
    config = {"traits": list(traits), "runs": runs}
    return pair(out, "llm_numbers", rows, llm_summary.numbers, config)


def heat_map(out, runs=3):
    rng = np.random.default_rng(1)
    rows = [
        row(rng, run, condition, "owl", prefix, rate)
        for run in range(runs)
        for prefix in (False, True)
        for condition, rate in [
            *((f"{name}, before", 0.06) for name in MODELS),
            *((f"{a} > {b}", 0.5 if a == b else 0.08) for a in MODELS for b in MODELS),
        ]
    ]
    config = {"trait": "owl", "runs": runs, "initialisations": len(MODELS) - 1}
    return pair(out, "llm_cross_model", rows, llm_summary.cross_model, config)


def in_context(out, runs=3):
    rng = np.random.default_rng(2)
    rates = {"reference": 0.06, "teacher": 0.9, "student": 0.4, "own numbers": 0.07}
    rates |= {f"{name}, {k}": 0.06 for k in (1, 16) for name in ("in context", "own in context")}
    rows = [
        row(rng, run, c, "owl", prefix, rate)
        for run in range(runs)
        for c, rate in rates.items()
        for prefix in (False, True)
    ]
    config = {"trait": "owl", "runs": runs, "shown": [1, 16]}
    return pair(out, "llm_in_context", rows, llm_summary.in_context, config)


def ingredients(out, runs=3):
    rng = np.random.default_rng(5)
    rates = {"reference": 0.06, "teacher": 0.9, "student": 0.4, "own numbers": 0.07}
    rows = [
        row(rng, run, f"{c}, {variation}", "owl", prefix, rate - 0.3 * i * (c == "student"))
        for run in range(runs)
        for i, variation in enumerate(("unchanged", "digits"))
        for c, rate in rates.items()
        for prefix in (False, True)
    ]
    variations = [{"name": "unchanged"}, {"name": "digits"}]
    config = {"trait": "owl", "runs": runs, "variations": variations}
    return pair(out, "llm_ingredients", rows, llm_summary.ingredients, config)


def theory(out, name, rows, runs):
    config = {
        "setting": asdict(SchemeSetting()),
        "trait": "owl",
        "runs": runs,
        "seed": 3,
        "experiment": name,
    }
    return records.write(out, name, config, pl.DataFrame([asdict(r) for r in rows]), {})


def score_test(out, runs=3):
    rng = np.random.default_rng(3)
    words = trait("owl").words
    rows = []
    for run in range(runs):
        for steps in (0, *STEPS):
            for direction in ("gradient", "preconditioned"):
                for n in (128, 512):
                    z = rng.normal(size=len(words))
                    z[0] += 0.4 * np.log2(steps + 1) * (n / 128) ** 0.5
                    rank = 1 + int((z[1:] > z[0]).sum())
                    rows += [
                        ScoreRow(run, steps, direction, n, word, i == 0, float(z[i]), rank)
                        for i, word in enumerate(words)
                    ]
    return theory(out, "llm_theory_scores", rows, runs)


def steps(out, runs=3, sign=1):
    rng = np.random.default_rng(4)
    rows = [
        StepRow(
            run,
            s,
            0.06 + s / 100,
            a,
            sign * a,
            0.05 * s + 0.01 * run,
            0.1 / s,
            0.1 * s,
            0.2 + 0.1 * run,
            -0.01 * s,
            1 + run,
        )
        for run in range(runs)
        for s in STEPS
        for a in [1e-4 * s * s * (1 + rng.uniform())]
    ]
    return theory(out, "llm_theory_steps", rows, runs)


def account(out, runs=3, length=12):
    rng = np.random.default_rng(5)
    rows = []
    for run in range(runs):
        for data in ("teacher", "own"):
            loss = 2.8
            for k in range(length):
                first, rest = (float(v) for v in 0.1 * rng.normal(size=2))
                coverage = np.nan if k == 0 else 0.1
                rows.append(AccountRow(run, data, k, loss, first, rest, 0.01 * run, coverage))
                loss += first + rest
    return theory(out, "llm_theory_account", rows, runs)


MAKE = {
    "picking": picking,
    "heat_map": heat_map,
    "in_context": in_context,
    "ingredients": ingredients,
    "score_test": score_test,
    "steps": steps,
    "account": account,
}


@pytest.fixture
def show(monkeypatch):
    """Draws a record without saving, lays it out, and gives the figure."""
    figures = []
    monkeypatch.setattr(llm, "save", lambda figure, *_: figures.append(figure) or [])

    def draw(name, record):
        llm.DRAW[KINDS[name]](record, record.folder)
        plt.close(figures[-1])
        return figures[-1]

    return draw


def texts(figure) -> list[str]:
    found = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return [text.get_text() for text in found if text.get_text()]


def heights(axes) -> list[float]:
    return [bar.get_height() for bar in axes.patches]


def dots(axes) -> set[float]:
    """Heights of what is drawn faintly."""
    return {round(float(y), 9) for line in axes.lines if line.get_alpha() for y in line.get_ydata()}


def lines_of(axes) -> dict[str, list[float]]:
    """Heights of the labelled lines and of those with intervals, by label."""
    found = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    return found | {
        bars.get_label(): list(bars.lines[0].get_ydata())
        for bars in axes.containers
        if getattr(bars, "has_yerr", False)
    }


def ends(axes) -> list[tuple[float, float]]:
    return [
        (segment[0][1], segment[1][1])
        for bars in axes.containers
        if getattr(bars, "has_yerr", False)
        for collection in bars.lines[2]
        for segment in collection.get_segments()
    ]


def mean_of(summary, trait_, condition, metric="among", prefix=False):
    return summary.table.filter(
        pl.col("control").is_null(), trait=trait_, condition=condition, metric=metric, prefix=prefix
    )["mean"].item()


@pytest.mark.parametrize("name", KINDS)
def test_each_figure_is_pdf_svg_and_png_and_named_by_its_record(tmp_path, name):
    record = MAKE[name](tmp_path)
    paths = llm.DRAW[KINDS[name]](record, tmp_path / "figures")
    stem = f"llm_{name}_{record.folder.name[:6]}"
    assert [path.name for path in paths] == [f"{stem}.{form}" for form in style.FORMATS]
    assert plt.imread(paths[-1])[..., :3].std() > 0.05
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("runs", [1, 2])
def test_number_of_runs_and_seed_are_said_and_one_run_has_no_intervals(tmp_path, show, name, runs):
    figure = show(name, MAKE[name](tmp_path, runs=runs))
    said = " ".join(texts(figure))
    assert f"n = {runs} run" in said
    assert ("runs" in said.split("n = ")[1][:7]) == (runs > 1)
    assert "seed 3" in said
    assert ("95 % interval" in said) == (runs > 1)


@pytest.mark.parametrize("name", ["picking", "in_context", "ingredients"])
def test_a_summary_whose_runs_are_gone_cannot_be_drawn(tmp_path, name):
    summary = MAKE[name](tmp_path)
    wide = tmp_path / summary.folder.parent.name.removesuffix("_summary") / summary.config["rows"]
    (wide / "table.parquet").unlink()
    with pytest.raises(records.RecordError, match="damaged record"):
        llm.DRAW[KINDS[name]](summary, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_bars_are_as_high_as_the_means_of_every_trait_and_of_all(tmp_path, show):
    summary = picking(tmp_path)
    a, b, c = show("picking", summary).axes
    main = ("reference", "own numbers", "other trait", "student", "teacher")
    wanted = [mean_of(summary, t, condition) for t in (*TRAITS, "all") for condition in main]
    assert heights(a) == pytest.approx(wanted)
    assert [label.get_text() for label in a.get_xticklabels()] == [*TRAITS, "all traits"]
    assert heights(b) == pytest.approx(
        [
            mean_of(summary, "all", condition)
            for condition in (
                "student",
                "shuffled within",
                "shuffled across",
                "in context",
                "other initialisation",
                "other initialisation, own numbers",
                "other initialisation, matched",
            )
        ]
    )
    assert heights(c) == pytest.approx(
        [
            mean_of(summary, "all", condition, metric, prefix)
            for metric in ("among", "plain")
            for prefix in (False, True)
            for condition in main
        ]
    )


def test_every_run_is_a_dot_and_every_bar_has_the_summarys_interval(tmp_path, show):
    summary = picking(tmp_path)
    a = show("picking", summary).axes[0]
    (wide,) = records.read_all(tmp_path, "llm_numbers")
    students = wide.table.filter(condition="student", prefix=False)["among"]
    assert {round(value, 9) for value in students} <= dots(a)
    rows = summary.table.filter(
        pl.col("control").is_null(), metric="among", prefix=False, trait="owl", condition="student"
    )
    low, high = rows.select("low", "high").row(0)
    assert any(np.allclose(found, (low, high)) for found in ends(a))


def test_a_star_is_above_the_students_that_surely_exceed_their_control(tmp_path, show):
    summary = picking(tmp_path, runs=5)
    assert llm_summary.transmitted(summary.table) == ["owl"]
    a = show("picking", summary).axes[0]
    stars = [text.get_position()[0] for text in a.texts if text.get_text() == "*"]
    # Groups stand at 0, 1, ...; "all" exceeds it too.
    assert [round(x) for x in stars] == [0, 2]


def test_a_single_trait_has_no_group_of_all(tmp_path, show):
    figure = show("picking", picking(tmp_path, traits=("owl",)))
    assert len(figure.axes[0].patches) == 5
    assert "all traits" not in texts(figure)
    assert "b. further controls, trait owl" in texts(figure)


def test_a_run_above_chance_of_sixteen_words_can_be_told(tmp_path, show):
    summary = picking(tmp_path)
    for axes in show("picking", summary).axes[:2]:
        assert lines_of(axes)["chance, 1/16"] == [1 / 16, 1 / 16]
    changed = records.Record(
        summary.folder, summary.config | {"chance": 0.25}, summary.table, summary.provenance
    )
    assert "chance, 1/4" in lines_of(show("picking", changed).axes[0])


def test_neighbouring_bars_differ_in_hatch_or_lightness():
    for marks in (llm._MAIN, llm._CONTROLS):
        for mark, neighbour in pairwise(marks.values()):
            assert (mark.hatch, mark.colour) != (neighbour.hatch, neighbour.colour)


def test_a_star_stands_in_the_map_exactly_where_the_interval_excludes_0(tmp_path, show):
    summary = heat_map(tmp_path)
    axes = show("heat_map", summary).axes[0]
    big = [text for text in axes.texts if " to " not in text.get_text()]
    rows = summary.table.filter(
        pl.col("control").is_not_null(), metric="among", prefix=False
    ).to_dicts()
    assert len(big) == len(rows) == len(MODELS) ** 2
    starred = 0
    for text, found in zip(big, rows, strict=True):
        sure = found["difference_low"] > 0 or found["difference_high"] < 0
        value = text.get_text().replace("\N{MINUS SIGN}", "-")
        assert value.endswith("*") == sure
        assert float(value.rstrip("*")) == pytest.approx(found["difference"], abs=0.0051)
        starred += sure
    assert 5 <= starred < len(rows)


def test_teachers_are_rows_students_columns_and_the_match_is_set_apart(tmp_path, show):
    axes = show("heat_map", heat_map(tmp_path)).axes[0]
    places = axes.get_xticks()
    np.testing.assert_allclose(np.diff(places)[:-1], 1)
    assert np.diff(places)[-1] > 1
    np.testing.assert_allclose(places, axes.get_yticks())
    assert axes.yaxis_inverted()
    assert (axes.get_xlabel().split()[0], axes.get_ylabel()) == ("student", "teacher")
    # The first row of cells is the first teacher's, and is drawn at its top.
    first = [t.get_position() for t in axes.texts if " to " not in t.get_text()][: len(MODELS)]
    assert len({y for _, y in first}) == 1
    assert [x for x, _ in first] == pytest.approx(list(places))


def test_examples_in_context_are_drawn_against_their_number(tmp_path, show):
    summary = in_context(tmp_path)
    left, right = show("in_context", summary).axes
    drawn = lines_of(left)
    for name, label in (
        ("in context", "teacher's numbers in context"),
        ("own in context", "own numbers in context"),
    ):
        wanted = [mean_of(summary, "owl", f"{name}, {k}") for k in (1, 16)]
        assert drawn[label] == pytest.approx(wanted)
    for name in ("reference", "own numbers", "student"):
        assert drawn[name] == pytest.approx([mean_of(summary, "owl", name)] * 2)
    (wide,) = records.read_all(tmp_path, "llm_in_context")
    some = wide.table.filter(prefix=False)
    assert {round(v, 9) for v in some.filter(condition="student")["among"]} <= dots(right)
    assert {round(v, 9) for v in some.filter(condition="in context, 16")["among"]} <= dots(left)


def test_every_variation_has_its_means_and_runs_in_their_order(tmp_path, show):
    summary = ingredients(tmp_path)
    axes = show("ingredients", summary).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["unchanged", "digits"]
    assert axes.yaxis_inverted()
    drawn = {bars.get_label(): list(bars.lines[0].get_xdata()) for bars in axes.containers}
    for label, condition in (
        ("teacher", "teacher"),
        ("student of the teacher's numbers", "student"),
        ("student of the reference's own numbers (control)", "own numbers"),
    ):
        wanted = [mean_of(summary, "owl", f"{condition}, {v}") for v in ("unchanged", "digits")]
        assert drawn[label] == pytest.approx(wanted)
    (wide,) = records.read_all(tmp_path, "llm_ingredients")
    runs = wide.table.filter(condition="student, digits", prefix=False)["among"].to_list()
    assert any(
        list(line.get_xdata()) == pytest.approx(runs)
        for line in axes.lines
        if len(line.get_xdata()) == len(runs)
    )


def test_z_and_rank_are_means_of_the_teachers_word_with_most_examples(tmp_path, show):
    record = score_test(tmp_path)
    axes = show("score_test", record).axes
    by_title = {panel.get_title(loc="left").split(":")[0]: panel for panel in axes}
    own = record.table.filter("target", n=512, direction="gradient")
    for title, column in (("a. gradient", "z"), ("c. rank of the teacher's word by z", "rank")):
        means = [np.mean(own.filter(steps=s)[column].to_numpy()) for s in STEPS]
        drawn = [
            list(bars.lines[0].get_ydata())
            for bars in by_title[title].containers
            if getattr(bars, "has_yerr", False)
        ]
        assert any(len(ys) == len(means) and np.allclose(ys, means) for ys in drawn)
    z = by_title["a. gradient"]
    runs = [list(line.get_ydata()) for line in z.lines if line.get_alpha() == 0.3]
    assert runs == [
        own.filter(run=r).sort("steps").filter(pl.col("steps") > 0)["z"].to_list() for r in range(3)
    ]


def test_power_is_the_share_of_runs_beyond_the_critical_value(tmp_path, show):
    record = score_test(tmp_path)
    axes = show("score_test", record).axes
    panel = next(p for p in axes if p.get_title(loc="left") == "b. preconditioned: power")
    own = record.table.filter("target", direction="preconditioned")
    for step, label in ((0, "null"), (1, "1"), (64, "64")):
        wanted = [(own.filter(steps=step, n=n)["z"] > 1.645).mean() for n in (128, 512)]
        assert lines_of(panel)[label] == pytest.approx(wanted)


def test_the_null_holds_every_word_of_every_run_sorted(tmp_path, show):
    record = score_test(tmp_path)
    panel = next(
        p for p in show("score_test", record).axes if p.get_title(loc="left").startswith("d.")
    )
    null = record.table.filter(steps=0, n=512, direction="gradient")["z"].sort().to_list()
    assert lines_of(panel)["gradient"] == pytest.approx(null)
    beyond = 100 * np.mean(np.abs(null) > 1.96)
    assert f"gradient {beyond:.0f} %" in panel.get_title(loc="left")


def test_at_most_four_teachers_are_chosen_for_power_with_both_ends():
    assert llm.chosen_steps([0, 1, 2, 4, 8, 16, 32]) == [0, 1, 4, 8, 32]
    assert llm.chosen_steps([3, 0]) == [0, 3]
    assert llm.chosen_steps([1, 2]) == [1, 2]


def test_the_theorem_is_drawn_as_means_over_runs(tmp_path, show):
    record = steps(tmp_path)
    rate, product, certificate, cosine, leaning, rank = show("steps", record).axes
    table = record.table
    by_steps = [table.filter(steps=s) for s in STEPS]
    assert lines_of(rate)["teacher"] == pytest.approx([t["among"].mean() for t in by_steps])
    assert lines_of(cosine)["cosine"] == pytest.approx([t["trait_cosine"].mean() for t in by_steps])
    assert lines_of(certificate)["certified below"] == [1, 1]
    own, others = ([t[c].mean() for t in by_steps] for c in ("entanglement", "entanglement_others"))
    assert lines_of(leaning)["the teacher's word"] == pytest.approx(own)
    assert lines_of(leaning)["others, mean"] == pytest.approx(others)
    assert lines_of(rank)["the teacher's word"] == pytest.approx([2, 2, 2])
    # g and rho span powers of ten: geometric.
    for panel, label, column in (
        (product, "g, at the teacher", "inner_product"),
        (certificate, r"$\rho$", "rho"),
    ):
        assert panel.get_yscale() == "log"
        wanted = [np.exp(np.mean(np.log(t[column].to_numpy()))) for t in by_steps]
        assert lines_of(panel)[label] == pytest.approx(wanted)
        assert {round(v, 9) for v in table[column]} <= dots(panel)
    assert rate.get_xscale() == "log"


def test_a_g_below_0_is_drawn_on_a_linear_axis_with_a_line_at_0(tmp_path, show):
    record = steps(tmp_path, sign=-1)
    product = show("steps", record).axes[1]
    assert product.get_yscale() == "linear"
    wanted = [record.table.filter(steps=s)["inner_product"].mean() for s in STEPS]
    assert lines_of(product)["g, at the teacher"] == pytest.approx(wanted)
    assert any(list(line.get_ydata()) == [0, 0] for line in product.lines)


def test_the_account_adds_up_to_the_change_of_the_trait_loss(tmp_path, show):
    record = account(tmp_path)
    axes = show("account", record).axes
    for panel, data in zip(axes[:2], ("teacher", "own"), strict=True):
        drawn, some = lines_of(panel), record.table.filter(data=data)
        loss = some.group_by("step").agg(pl.col("trait_loss").mean()).sort("step")["trait_loss"]
        change = np.array(drawn["change of the trait loss"])
        assert change[:-1] == pytest.approx((loss - loss[0]).to_numpy(), abs=1e-12)
        both = np.array(drawn["first order"]) + drawn["remainder"]
        assert change == pytest.approx(both)
    cosine = lines_of(axes[2])
    assert cosine["teacher's numbers"] == pytest.approx([0.01] * 12)
    # The first step has no coverage here, and is left out.
    assert len(lines_of(axes[3])["reference's own numbers"]) == 11


def test_an_estimate_is_the_summaries_interval_without_ends_for_one_run():
    sample = np.array([0.1, 0.4, 0.2])
    interval = mean_interval(sample)
    assert llm.estimate(sample) == pytest.approx((interval.mean, interval.low, interval.high))
    mean, low, high = llm.estimate([0.5])
    assert (mean, np.isnan(low), np.isnan(high)) == (0.5, True, True)


@pytest.mark.parametrize("across", [False, True])
def test_an_interval_that_is_longer_on_one_side_is_drawn_as_it_is(across):
    figure, axes = plt.subplots()
    llm.draw_estimates(axes, [1.0], [(0.2, 0.15, 0.5)], llm.Mark("", style.BLUE), across=across)
    plt.close(figure)
    (bars,) = axes.containers
    assert isinstance(bars, ErrorbarContainer)
    ((start, end),) = bars.lines[2][0].get_segments()
    assert [start[1 - across], end[1 - across]] == pytest.approx([0.15, 0.5])


def test_every_record_of_the_experiments_that_has_numbers_to_show_is_drawn():
    summaries = {
        f"{name}_summary" for name in (llm_run.NUMBERS, llm_run.CROSS_MODEL, llm_run.IN_CONTEXT)
    }
    summaries.add(f"{llm_ingredients.INGREDIENTS}_summary")
    assert set(llm.DRAW) == summaries | {llm_theory.SCORES, llm_theory.STEPS, llm_theory.ACCOUNT}
    assert set(KINDS.values()) == set(llm.DRAW)


def test_labels_that_would_overlap_are_left_out():
    places = np.array([0.0, 0.1, 5.0, 10.0])
    assert llm.thinned(places, ["a", "b", "c", "d"]) == ["a", "", "c", "d"]
    assert llm.thinned([2.0], ["a"]) == ["a"]


def test_colours_are_the_projects():
    ours = {style.BLACK, style.ORANGE, style.SKY, style.GREEN, style.BLUE, style.VERMILION}
    marks = [*llm._MAIN.values(), *llm._CONTROLS.values()]
    assert {to_hex(mark.colour).upper() for mark in marks} <= ours | {style.GREY}
