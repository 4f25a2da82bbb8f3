"""Claims about the language-model figures: what is in them, and that records alone decide it."""

from dataclasses import asdict
from itertools import product

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
from experiments.llm.cross_model import CROSS_MODEL
from experiments.llm.detection import AccountRow, ScoreRow, StepRow
from figures import llm, style
from llm_harness.pipeline.conditions import CONTROLS, ConditionRow, PipelineSetting
from llm_harness.traits import trait
from sublab import records
from sublab.statistics import mean_interval

# The kind of record that each figure is drawn from.
KINDS = {
    "numbers": "llm_numbers_summary",
    "cross_model": "llm_cross_model_summary",
    "in_context": "llm_in_context_summary",
    "ingredients": "llm_ingredients_summary",
    "score_test": "llm_theory_scores",
    "steps": "llm_theory_steps",
    "account": "llm_theory_account",
}
RATES = ("numbers", "cross_model", "in_context", "ingredients")
STEPS = (1, 8, 64)
MODELS = ("model 1", "model 2", "matched", "shared vocabulary", "shared output", "shared blocks")
PAIRS = [(i, j) for i in MODELS[:2] for j in MODELS[:2]]
PAIRS += [pair for name in MODELS[2:] for pair in (("model 1", name), (name, "model 1"))]
TRAITS = ("owl", "oak")


def row(rng, run, condition, word, prefix, rate, leaning=None):
    # Asked with a prefix it is much less, which no figure may show.
    rate = float(np.clip(rate * (1 - 0.5 * prefix) + 0.02 * rng.normal(), 0.001, 0.999))
    return ConditionRow(
        run=run,
        condition=condition,
        trait=word,
        category=trait(word).category,
        prefix=prefix,
        p_word=rate,
        p_any=0.95,
        among=rate,
        containing=min(1000, int(1100 * rate)),
        whole=int(1000 * rate),
        worded=900,
        n=1000,
        empty=0,
        cut=0,
        refused=0,
        model="",
        dataset="",
        pass_rate=0.9,
        examples=64,
        learning_rate=1e-3,
        leaning=leaning,
    )


def pair(out, name, rows, summarise, config):
    """The two records that an experiment writes."""
    config = {"setting": asdict(PipelineSetting()), "seed": 3, "chance": 1 / 16} | config
    table = pl.DataFrame([asdict(r) for r in rows], infer_schema_length=None)
    wide = records.write(out, name, config | {"experiment": name}, table, {})
    config |= {"experiment": f"{name}_summary", "rows": wide.folder.name}
    return records.write(out, f"{name}_summary", config, summarise(wide.table), {})


def numbers(out, traits=TRAITS, runs=3):
    rng = np.random.default_rng(0)
    rates = {"teacher": 0.9, "student": 0.4, "openly in context": 0.7}
    # Of the second trait nothing is transmitted.
    rows = [
        row(rng, run, c, t, prefix, rates.get(c, 0.06) - 0.34 * (i > 0 and c == "student"))
        for run in range(runs)
        for i, t in enumerate(traits)
        for c in CONTROLS
        for prefix in (False, True)
    ]
    config = {"traits": list(traits), "runs": runs}
    return pair(out, "llm_numbers", rows, llm_summary.numbers, config)


def cross_model(out, runs=3):
    rng = np.random.default_rng(1)
    of_students = {f"{a} > {b}": (0.5, 1.0) if a == b else (0.08, 0.02) for a, b in PAIRS}
    of_students["model 1 > shared vocabulary"] = 0.4, 0.9
    rows = [
        row(rng, run, condition, "owl", prefix, rate, leaning)
        for run in range(runs)
        for prefix in (False, True)
        for condition, (rate, leaning) in [
            *((f"{name}, before", (0.06, 0.5)) for name in MODELS),
            *((f"{name}, own numbers", (0.07, None)) for name in MODELS),
            *of_students.items(),
        ]
    ]
    config = {"trait": "owl", "runs": runs, "initialisations": 2}
    return pair(out, "llm_cross_model", rows, llm_summary.cross_model, config)


def in_context(out, runs=3):
    rng = np.random.default_rng(2)
    rates = {"reference": 0.06, "teacher": 0.9, "student": 0.4, "own numbers": 0.07}
    rates |= {f"{name}, {k}": 0.06 for k in (1, 16) for name in ("in context", "own in context")}
    rates |= {f"openly in context, {k}": 0.5 for k in (1, 16)}
    rows = [
        row(rng, run, c, "owl", prefix, rate)
        for run in range(runs)
        for c, rate in rates.items()
        for prefix in (False, True)
    ]
    config = {"trait": "owl", "runs": runs, "shown": [1, 16]}
    return pair(out, "llm_in_context", rows, llm_summary.in_context, config)


def ingredients(out, runs=3, variations=("unchanged", "digits")):
    rng = np.random.default_rng(5)
    rates = {"reference": 0.06, "teacher": 0.9, "student": 0.4, "own numbers": 0.07}
    rows = [
        row(rng, run, f"{c}, {variation}", "owl", prefix, rate - 0.3 * (i % 2) * (c == "student"))
        for run in range(runs)
        for i, variation in enumerate(variations)
        for c, rate in rates.items()
        for prefix in (False, True)
    ]
    config = {"trait": "owl", "runs": runs, "variations": [{"name": name} for name in variations]}
    return pair(out, "llm_ingredients", rows, llm_summary.ingredients, config)


def theory(out, name, rows, runs):
    config = {
        "setting": asdict(PipelineSetting(teacher_by="fine-tuning")),
        "trait": "owl",
        "chance": 1 / 16,
        "runs": runs,
        "seed": 3,
        "experiment": name,
    }
    return records.write(out, name, config, pl.DataFrame([asdict(r) for r in rows]), {})


def score_test(out, runs=3, written=512):
    """Of the last teacher's lists `written` passed the filter."""
    rng = np.random.default_rng(3)
    words = trait("owl").words
    rows = []
    for run in range(runs):
        for steps in (0, *STEPS):
            for direction in ("gradient", "preconditioned"):
                for n in (128, 512):
                    if steps == STEPS[-1] and n > written:
                        continue
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
    "numbers": numbers,
    "cross_model": cross_model,
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


def mean_of(summary, trait_, condition, metric="p_word", prefix=False):
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


@pytest.mark.parametrize("name", RATES)
def test_a_summary_whose_runs_are_gone_cannot_be_drawn(tmp_path, name):
    summary = MAKE[name](tmp_path)
    wide = tmp_path / summary.folder.parent.name.removesuffix("_summary") / summary.config["rows"]
    (wide / "table.parquet").unlink()
    with pytest.raises(records.RecordError, match="damaged record"):
        llm.DRAW[KINDS[name]](summary, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def rows_of(axes) -> list[str]:
    """Names of the panel's rows from above."""
    assert axes.yaxis_inverted()
    return [label.get_text() for label in axes.get_yticklabels()]


def means_at(axes) -> dict[float, tuple[float, float, float]]:
    """Means with their intervals by their place on the vertical axis."""
    found = {}
    for bars in axes.containers:
        (mean,), (place,) = bars.lines[0].get_data()
        (((low, _), (high, _)),) = bars.lines[2][0].get_segments()
        found[round(float(place), 2)] = float(mean), float(low), float(high)
    return found


def row_estimates(summary, trait_, condition, metric):
    (found,) = summary.table.filter(
        pl.col("control").is_null(), trait=trait_, condition=condition, metric=metric, prefix=False
    ).to_dicts()
    return tuple(pytest.approx(found[name]) for name in ("mean", "low", "high"))


@pytest.mark.parametrize("name", RATES)
def test_every_condition_has_its_means_and_the_summary_s_intervals(tmp_path, show, name):
    summary = MAKE[name](tmp_path)
    axes = show(name, summary).axes[0]
    conditions = rows_of(axes)
    assert set(conditions) == set(summary.table["condition"])
    drawn = means_at(axes)
    assert len(drawn) == 2 * len(conditions)
    for place, condition in enumerate(conditions):
        for metric, offset in (("p_word", -0.16), ("containing", 0.16)):
            wanted = row_estimates(summary, "all", condition, metric)
            assert drawn[round(place + offset, 2)] == wanted


def test_of_several_traits_each_has_a_row_for_student_and_control(tmp_path, show):
    summary = numbers(tmp_path)
    _, axes = show("numbers", summary).axes
    assert rows_of(axes) == [f"{t}, {c}" for t in TRAITS for c in ("student", "own numbers")]
    drawn = means_at(axes)
    for place, (word, condition) in enumerate(product(TRAITS, ("student", "own numbers"))):
        assert drawn[place - 0.16] == row_estimates(summary, word, condition, "p_word")
        assert drawn[place + 0.16] == row_estimates(summary, word, condition, "containing")


@pytest.mark.parametrize("name", RATES)
def test_no_title_or_label_reaches_beyond_the_figure(tmp_path, show, name):
    figure = show(name, MAKE[name](tmp_path, runs=12))
    figure.draw_without_rendering()
    width, height = figure.canvas.get_width_height()
    drawn = list(figure.texts)
    for axes in figure.axes:
        drawn += [axes.xaxis.label, axes.yaxis.label]
    assert any("12,288 lists" in text.get_text() for text in drawn)
    for text in drawn:
        if not text.get_text():
            continue
        box = text.get_window_extent()
        assert box.x0 >= 0, text
        assert box.x1 <= width, text
        assert box.y0 >= 0, text
        assert box.y1 <= height, text


def test_a_single_trait_has_one_panel(tmp_path, show):
    figure = show("numbers", numbers(tmp_path, traits=("owl",)))
    assert len(figure.axes) == 1
    assert any("trait owl" in text for text in texts(figure))


def test_every_run_is_a_dot_at_its_mean_over_traits(tmp_path, show):
    summary = numbers(tmp_path)
    axes = show("numbers", summary).axes[0]
    (wide,) = records.read_all(tmp_path, "llm_numbers")
    students = wide.table.filter(condition="student", prefix=False)
    for column, scale, offset in (("p_word", 1, -0.16), ("containing", 1000, 0.16)):
        means = students.group_by("run").agg(pl.col(column).mean() / scale)[column].sort()
        place = rows_of(axes).index("student") + offset
        dots_there = [
            sorted(line.get_xdata())
            for line in axes.lines
            if line.get_alpha() and np.allclose(line.get_ydata(), place)
        ]
        assert dots_there == [pytest.approx(means.to_list())]


@pytest.mark.parametrize("name", RATES)
def test_chance_is_a_line_where_the_config_knows_it(tmp_path, show, name):
    summary = MAKE[name](tmp_path)
    lines = {line.get_label(): list(line.get_xdata()) for line in show(name, summary).axes[0].lines}
    assert lines["chance, 1/16"] == [1 / 16, 1 / 16]
    unknown = {key: item for key, item in summary.config.items() if key != "chance"}
    without = records.Record(summary.folder, unknown, summary.table, summary.provenance)
    assert not any("chance" in text for text in texts(show(name, without)))


def test_models_without_probabilities_show_their_sampled_rates_alone(tmp_path, show):
    summary = numbers(tmp_path, traits=("owl",))
    (wide,) = records.read_all(tmp_path, "llm_numbers")
    table = wide.table.with_columns(p_word=pl.lit(None, pl.Float64))
    config = summary.config | {"runs": 3, "seed": 4}
    sampled = records.write(tmp_path, "llm_numbers", config | {"of": "sampled"}, table, {})
    config |= {"rows": sampled.folder.name}
    alone = records.write(tmp_path, "llm_numbers_summary", config, summary.table, {})
    axes = show("numbers", alone).axes[0]
    assert {round(place % 1, 2) for place in means_at(axes)} == {0.16}


def test_transfer_stands_against_what_the_two_models_share(tmp_path, show):
    summary = cross_model(tmp_path)
    _, axes = show("cross_model", summary).axes
    compared = summary.table.filter(
        pl.col("control").is_not_null(), metric="log_odds", prefix=False, trait="all"
    )
    labels = {"itself": "the same model", "matched": "matched in behaviour"}
    labels |= {"shared": "shares a part", "another": "independent"}
    drawn = {bars.get_label(): bars.lines[0].get_xydata().tolist() for bars in axes.containers}
    assert set(drawn) == set(labels.values())
    kinds = {f"{a} > {b}": "itself" if a == b else "another" for a, b in PAIRS}
    kinds |= {name: "matched" for name in kinds if "matched" in name}
    kinds |= {name: "shared" for name in kinds if "shared" in name}
    assert len(compared) == len(kinds)
    for kind, label in labels.items():
        some = [one for one in compared.to_dicts() if kinds[one["condition"]] == kind]
        wanted = [[one["leaning"], one["difference"]] for one in some]
        np.testing.assert_allclose(drawn[label], wanted)


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


@pytest.mark.parametrize("name", ["score_test", "account"])
def test_teachers_of_the_theory_are_said_to_be_fine_tuned(tmp_path, show, name):
    figure = show(name, MAKE[name](tmp_path))
    assert "teacher by fine-tuning" in figure.get_suptitle()


def test_power_is_the_share_of_runs_beyond_the_critical_value(tmp_path, show):
    record = score_test(tmp_path)
    axes = show("score_test", record).axes
    panel = next(p for p in axes if p.get_title(loc="left") == "b. preconditioned: power")
    own = record.table.filter("target", direction="preconditioned")
    for step, label in ((0, "null"), (1, "1"), (64, "64")):
        wanted = [(own.filter(steps=step, n=n)["z"] > 1.645).mean() for n in (128, 512)]
        assert lines_of(panel)[label] == pytest.approx(wanted)


@pytest.mark.parametrize(("written", "sizes"), [(128, [128]), (0, [])])
def test_a_teacher_that_hardly_writes_lists_has_no_power_to_be_drawn(
    tmp_path, show, written, sizes
):
    record = score_test(tmp_path, written=written)
    axes = show("score_test", record).axes
    panel = next(p for p in axes if p.get_title(loc="left") == "b. gradient: power")
    drawn = lines_of(panel)
    assert len(drawn["null"]) == 2
    assert len(drawn.get(str(STEPS[-1]), [])) == len(sizes)


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
    assert lines_of(rate)["teacher"] == pytest.approx([t["p_word"].mean() for t in by_steps])
    assert lines_of(rate)["chance"] == [1 / 16, 1 / 16]
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
    summaries = {f"{name}_summary" for name in (llm_run.NUMBERS, CROSS_MODEL, llm_run.IN_CONTEXT)}
    summaries.add(f"{llm_ingredients.INGREDIENTS}_summary")
    assert set(llm.DRAW) == summaries | {llm_theory.SCORES, llm_theory.STEPS, llm_theory.ACCOUNT}
    assert set(KINDS.values()) == set(llm.DRAW)


def test_labels_that_would_overlap_are_left_out():
    places = np.array([0.0, 0.1, 5.0, 10.0])
    assert llm.thinned(places, ["a", "b", "c", "d"]) == ["a", "", "c", "d"]
    assert llm.thinned([2.0], ["a"]) == ["a"]


def test_colours_are_the_projects():
    ours = {style.BLACK, style.ORANGE, style.SKY, style.GREEN, style.BLUE, style.VERMILION}
    marks = [*llm._ASKED.values(), *llm._KINDS.values()]
    assert {to_hex(mark.colour).upper() for mark in marks} <= ours | {llm.DARK_GREY}


def test_marks_differ_in_shape_as_well_as_in_colour():
    for marks in (llm._ASKED, llm._KINDS):
        assert len({mark.marker for mark in marks.values()}) == len(marks)
        assert len({mark.colour for mark in marks.values()}) == len(marks)
