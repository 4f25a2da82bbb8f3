"""Claims about the figures of sweeps: what is in them, and that their records alone decide it."""

import subprocess
import sys
import tomllib
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib import pyplot as plt

from figures import panels, spec, style, sweep
from sublab import records
from sublab.errors import InputError
from tests.figures.made_up import (
    FOLDER,
    PRESETS,
    STEPS,
    SketchedSweep,
    flat,
    made_up,
    preset,
    sketched,
    written,
)

ROOT = Path(__file__).parents[2]
# Of each preset at cpu size, the kinds of its panels; "any" of inputs, whose file has no figure.
PANELS = {
    "alignment": ["steps", "cloud", "cloud"],
    "chains": ["line"],
    "classes": ["line"],
    "cloning": ["line", "cloud", "line", "cloud"],
    "datasets": ["bars"],
    "depth": ["line"],
    "ed2b": ["line"],
    "ed2c": ["line", "cloud", "line"],
    "ed2d": ["bars", "line", "line"],
    "ed2e": ["bars"],
    "fig10b": ["conditions", "images"],
    "forecast": ["cloud", "cloud", "line", "line", "line", "line"],
    "heads": ["bars"],
    "init-distance": ["line", "line", "cloud"],
    "init-scale": ["line"],
    "inputs": ["bars", "line", "line", "line"],
    "interventions": ["bars", "difference"],
    "layerwise": ["bars"],
    "losses": ["bars"],
    "noise-budget": ["line"],
    "width": ["line"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The summary of a preset at a size, with made-up values; each is written once."""
    out = tmp_path_factory.mktemp("results")
    return cache(lambda name, size: written(out, preset(name, size)))


@pytest.fixture
def show(monkeypatch):
    """Draws a summary without saving, and gives the figure that would have been saved.

    Laying it out takes long, and is only done where warnings are to be seen.
    """
    figures = []
    monkeypatch.setattr(sweep, "save", lambda figure, *_: figures.append(figure) or [])

    def draw(summary, lay_out=False):
        sweep.draw(summary, summary.folder)
        if lay_out:
            figures[-1].draw_without_rendering()
        plt.close(figures[-1])
        return figures[-1]

    return draw


def means(summary, metric="accuracy", column="mean", label=None, **where):
    """A column of the summary, in the order of the points; `where` has `_` for the axes' dots."""
    wanted = {axis.replace(".", "_"): axis for axis in summary.config["axes"]}
    points = [
        number
        for number, point in enumerate(summary.config["points"])
        if label in (None, point["label"])
        if all(point["coordinates"][wanted[name]] == value for name, value in where.items())
    ]
    table = summary.table.filter(metric=metric).sort("point", "index")
    return [
        row[column] for point in points for row in table.filter(point=point).iter_rows(named=True)
    ]


def lines_of(axes) -> dict[str, list[float]]:
    """Heights of the lines that have a label, by it."""
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def heights(axes) -> list[float]:
    return [bar.get_height() for bar in axes.patches]


def diamonds(figure) -> list[tuple[float, float]]:
    return [
        (round(float(line.get_xdata()[0]), 2), float(line.get_ydata()[0]))
        for axes in figure.axes
        for line in axes.lines
        if line.get_marker() == "D"
    ]


def texts(figure) -> str:
    found = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return "\n".join(text.get_text() for text in found)


def numbers_in(figure) -> set[float]:
    """Every height in the figure, rounded."""
    found = [
        *(y for axes in figure.axes for line in axes.lines for y in line.get_ydata()),
        *(height for axes in figure.axes for height in heights(axes)),
    ]
    return {round(float(y), 9) for y in found}


def of(rest="", name="mine") -> SketchedSweep:
    """A small sweep of one's own."""
    return sketched(f'runs = 2\n[base]\ndataset = "digits"\n{rest}', name)


def figured(figure, rest) -> SketchedSweep:
    """A small sweep of one's own with panels."""
    return sketched(f"runs = 2\n[figure]\npanels = [{figure}]\n{rest}")


def test_every_preset_is_drawn_here_and_says_panels_that_can_be_drawn():
    assert list(PANELS) == PRESETS
    for name in PRESETS:
        for size in ("smoke", "cpu", "paper"):
            drawn = preset(name, size)
            known = {*drawn.metrics, *preset(name, "cpu").metrics}
            if drawn.panels:
                spec.check_panels(drawn.panels, drawn.axes, sorted(known), drawn.labels)
                assert [panel["kind"] for panel in drawn.panels] == PANELS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_at_cpu_size_all_mean_accuracies_and_the_data_set_and_n_are_in_the_figure(made, show, name):
    summary = made(name, "cpu")
    figure = show(summary, lay_out=True)
    assert len(figure.axes) == len(PANELS[name])
    drawn = numbers_in(figure)
    assert {round(mean, 9) for mean in means(summary)} <= drawn
    runs = records.read(summary.folder.parents[1] / "sweep_runs" / summary.config["runs_record"])
    assert {round(run, 9) for run in runs.table["accuracy"]} <= drawn
    text = texts(figure).replace("\n", " ")
    assert f"n = {summary.config['runs']} runs" in text
    assert "MNIST" in text
    assert all(phrase in text for phrase in summary.config["shared"])
    (legend,) = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert 0 <= box.x0 < box.x1 <= whole.width
    # The panels are the figure; what explains them is not a list of half its height.
    assert box.height < 0.25 * whole.height


@pytest.mark.parametrize("name", PRESETS)
def test_at_smoke_size_a_single_run_is_drawn_without_intervals(tmp_path, show, name):
    """And what is null everywhere leaves its panel empty, whatever the panel is."""
    swept = preset(name, "smoke")
    missing = set(swept.metrics) - {"accuracy"}
    figure = show(written(tmp_path, swept, runs=1, missing=missing))
    assert "n = 1 run, smoke size" in texts(figure).replace("\n", " ")
    assert "digits" in texts(figure)
    assert "interval" not in texts(figure)
    assert not any(getattr(c, "has_yerr", False) for axes in figure.axes for c in axes.containers)
    empty = {"alignment": 3, "cloning": 2, "ed2c": 2, "ed2d": 1, "forecast": 3, "init-distance": 1}
    assert texts(figure).count("no values") == empty.get(name, 0)


def test_lines_are_the_means_in_the_order_of_the_axis(made, show):
    summary = made("ed2b", "cpu")
    (axes,) = show(summary).axes
    lines = lines_of(axes)
    for label in ("student", "cross-model", "student, on images"):
        assert lines[label] == pytest.approx(means(summary, label=label))
    assert lines["teacher"] == pytest.approx(means(summary, "teacher_accuracy", label="student"))
    assert lines["chance"] == [0.1, 0.1]
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "auxiliary logits m"


def test_intervals_are_those_of_the_summary(made, show):
    summary = made("losses", "cpu")
    (axes,) = show(summary).axes
    ends = sorted(
        (segment[0][1], segment[1][1])
        for bars in axes.containers
        if getattr(bars, "has_yerr", False)
        for collection in bars.lines[2]
        for segment in collection.get_segments()
    )
    low, high = means(summary, column="low"), means(summary, column="high")
    np.testing.assert_allclose(ends, sorted(zip(low, high, strict=True)))


@pytest.mark.parametrize("name", ["losses", "heads"])
def test_bars_are_as_high_as_the_means(made, show, name):
    summary = made(name, "cpu")
    (axes,) = show(summary).axes
    # Those of one series stand together in the picture's list.
    assert sorted(heights(axes)) == pytest.approx(sorted(means(summary)))
    squares = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "s"]
    assert sorted(squares) == pytest.approx(sorted(means(summary, "probe")))
    assert bool(squares) == (name == "heads")


@pytest.mark.parametrize(
    ("name", "axis", "words"),
    [
        ("heads", "model.aux", {"m = 10", "m = 50", "m = 250"}),
        ("layerwise", "model.aux", {"m = 3", "m = 50"}),
    ],
)
def test_groups_of_bars_have_one_of_every_value(made, show, name, axis, words):
    summary = made(name, "cpu")
    figure = show(summary)
    (axes,) = figure.axes
    values = dict.fromkeys(point["coordinates"][axis] for point in summary.config["points"])
    assert len(values) == len(words)
    where = axis.replace(".", "_")
    wanted = [mean for value in values for mean in means(summary, **{where: value})]
    assert heights(axes) == pytest.approx(wanted)
    assert words <= set(axes.get_legend_handles_labels()[1])


def test_every_data_set_has_its_own_chance(made, show):
    (axes,) = show(made("datasets", "cpu")).axes
    chance = [line.get_ydata()[0] for line in axes.lines if line.get_label() == "chance"]
    assert chance == pytest.approx([0.1, 0.1, 0.1, 1 / 47, 0.1])
    assert "EMNIST Balanced" in [text.get_text() for text in axes.get_xticklabels()]


def test_chance_falls_with_the_number_of_classes(made, show):
    (axes,) = show(made("classes", "cpu")).axes
    assert lines_of(axes)["chance"] == pytest.approx([1 / 2, 1 / 3, 1 / 5, 1 / 7, 1 / 10])


EXPECTATION = "exact expectation (nothing reaches the class logits)"


def knowing(summary, metric="accuracy", **coordinates):
    """A summary that knows the expectation of a metric at the points with these coordinates."""
    points = [
        number
        for number, point in enumerate(summary.config["points"])
        if coordinates.items() <= ({"label": point["label"]} | point["coordinates"]).items()
    ]
    assert points
    there = pl.col("point").is_in(points) & (pl.col("metric") == metric)
    known = pl.when(there).then(pl.lit(0.125)).alias("expected")
    return replace(summary, table=summary.table.with_columns(known)), points


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("fig10b", "cross-model, auxiliary logits"),
        ("ed2b", "cross-model"),
        ("heads", None),
    ],
)
def test_an_expectation_that_is_known_is_a_stroke_at_its_point(made, show, name, label):
    summary = made(name, "cpu")
    known, points = knowing(summary, **({"label": label} if label else {}))
    axes = show(known).axes[0]
    drawn = [
        float(y) for line in axes.lines if line.get_label() == EXPECTATION for y in line.get_ydata()
    ]
    assert drawn == [0.125] * len(points)
    assert EXPECTATION not in lines_of(show(summary).axes[0])
    # What is known of another metric is not drawn here.
    other, _ = knowing(summary, "final_loss")
    assert EXPECTATION not in lines_of(show(other).axes[0])


def test_depth_counts_layers_and_width_is_that_of_a_layer(made, show):
    for name, wanted in (("depth", [0, 1, 2, 3, 4]), ("width", [32, 64, 128, 256, 512, 1024])):
        (axes,) = show(made(name, "cpu")).axes
        (line,) = (line for line in axes.lines if line.get_label() == "student")
        assert list(line.get_xdata()) == wanted


def test_the_reference_stands_at_distance_zero(made, show):
    summary = made("init-distance", "cpu")
    for axes in show(summary).axes[:2]:
        (line,) = (line for line in axes.lines if line.get_label() == "reference")
        assert list(line.get_xdata()) == [0]
        assert list(line.get_ydata()) == means(summary, label="reference")


def test_differences_are_paired_and_those_of_the_summary(made, show):
    summary = made("interventions", "cpu")
    upper, lower = show(summary).axes
    differences = means(summary, column="difference")
    assert heights(upper) == pytest.approx(means(summary))
    assert heights(lower) == pytest.approx([d or 0.0 for d in differences])
    table = records.read(
        summary.folder.parents[1] / "sweep_runs" / summary.config["runs_record"]
    ).table
    last = table["point"].max()
    apart = table.filter(point=last)["accuracy"] - table.filter(point=0)["accuracy"]
    dots = [list(line.get_ydata()) for line in lower.lines if line.get_marker() == "o"]
    assert dots[-1] == pytest.approx(apart.to_list())
    names = [text.get_text().replace("\n", " ") for text in lower.get_xticklabels()]
    assert "liminal, weight 0.1, epochs 3" in names


def test_cosines_are_drawn_step_by_step(made, show):
    summary = made("alignment", "cpu")
    left, middle, right = show(summary).axes
    drawn = [line for line in left.lines if len(line.get_ydata()) == STEPS]
    labels = [point["label"] for point in summary.config["points"]]
    for line, label in zip(drawn, labels, strict=True):
        assert list(line.get_xdata()) == list(range(1, STEPS + 1))
        assert list(line.get_ydata()) == pytest.approx(means(summary, "alignment", label=label))
    assert lines_of(middle)["student"] == pytest.approx(
        means(summary, "first_order", label="student")
    )
    (equal,) = (line for line in middle.lines if line.get_label() == "equal")
    assert list(equal.get_xdata()) == list(equal.get_ydata())
    assert lines_of(right)["student"] == pytest.approx(means(summary, label="student"))


def test_transfer_is_drawn_against_cloning_run_by_run(made, show):
    summary = made("cloning", "cpu")
    table = records.read(
        summary.folder.parents[1] / "sweep_runs" / summary.config["runs_record"]
    ).table
    labels = {point["label"] for point in summary.config["points"]}
    for axes, m in zip(show(summary).axes[1::2], (50, 3), strict=True):
        points = [
            number
            for number, point in enumerate(summary.config["points"])
            if point["label"].startswith(f"m = {m},")
        ]
        rows = table.filter(pl.col("point").is_in(points))
        drawn = {
            (round(float(x), 9), round(float(y), 9))
            for line in axes.lines
            if line.get_label() not in labels
            for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
        }
        wanted = zip(rows["start_distance"], rows["accuracy"], strict=True)
        assert points
        assert rows.height == summary.config["runs"] * len(points)
        assert {(round(x, 9), round(y, 9)) for x, y in wanted} <= drawn


def test_lines_beside_each_other_stay_inside_their_panel(made, show):
    figure = show(made("cloning", "cpu"))
    figure.canvas.draw()
    axes = figure.axes[0]
    marks = [line for line in axes.lines if line.get_marker() in ("o", "s", "^", "v", "P", "X")]
    assert len(marks) > 6
    for mark in marks:
        places = mark.get_transform().transform(mark.get_xydata())[:, 0]
        assert np.all(axes.bbox.x0 < places), mark.get_label()
        assert np.all(places < axes.bbox.x1), mark.get_label()


def sgd(loss: dict[float, float]):
    """Values in which accuracy is best at the rate 0.03, and `loss` gives the losses."""

    def truth(metric, point, rng):
        if point.label == "SGD":
            rate = point.coordinates["student.learning_rate"]
            if metric == "final_loss":
                return loss[rate], 0.0
            if metric == "accuracy":
                return 0.9 if rate == 0.03 else 0.1 + rate / 100, 0.0
        return made_up(metric, point, rng)

    return truth


LOSSES = {0.03: 0.5, 0.1: 0.2, 0.3: 0.1, 1.0: 0.01, 3.0: 0.3, 10.0: 0.001}


def test_the_learning_rate_of_sgd_is_chosen_by_its_loss_and_not_by_accuracy(tmp_path, show):
    summary = written(tmp_path, preset("ed2d"), truth=sgd(LOSSES))
    left, middle, right = show(summary).axes
    assert heights(left)[1] == pytest.approx(0.2)
    ring = "lowest final loss"
    assert [lines_of(axes)[ring] for axes in (middle, right)] == [[0.001], [0.2]]
    assert "SGD, learning rate 10" in texts(left).replace("\n", " ")


def test_a_learning_rate_whose_loss_is_not_finite_in_every_run_is_not_chosen(tmp_path, show):
    losses = LOSSES | {10.0: np.inf, 3.0: np.nan}
    left, middle, _ = show(written(tmp_path, preset("ed2d"), truth=sgd(losses))).axes
    assert heights(left)[1] == pytest.approx(0.11)
    crosses = [line.get_xdata()[0] for line in middle.lines if line.get_marker() == "x"]
    assert crosses == [3.0, 10.0]


@pytest.mark.parametrize("broken", [np.inf, None])
def test_a_rate_with_one_run_without_a_loss_is_crossed_and_not_chosen(tmp_path, show, broken):
    """The mean of the other runs is lowest, and yet it is not chosen."""
    swept = preset("ed2d")
    first = written(tmp_path / "whole", swept, truth=sgd(LOSSES))
    table = records.read(first.folder.parents[1] / "sweep_runs" / first.config["runs_record"]).table
    values = {metric: table[metric].to_list() for metric in swept.metrics}
    rates = [point.coordinates["student.learning_rate"] for point in swept.points]
    values["final_loss"][rates.index(10.0) * swept.runs] = broken
    left, middle, _ = show(written(tmp_path / "broken", swept, values=values)).axes
    assert heights(left)[1] == pytest.approx(0.11)
    assert [line.get_xdata()[0] for line in middle.lines if line.get_marker() == "x"] == [10.0]


def test_without_any_finite_loss_sgd_has_no_bar(tmp_path, show):
    truth = sgd(dict.fromkeys(LOSSES, np.inf))
    figure = show(written(tmp_path, preset("ed2d"), truth=truth))
    assert len(figure.axes[0].patches) == 6
    assert "no value" in texts(figure)
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()][1] == "SGD"


# By preset: the diamonds, by x where that is a number (of bars: their places); or the level.
PUBLISHED = {
    "ed2b": [(3, 0.5284), (3, 0.1061), (3, 0.9434)],
    "losses": [(0.06, 0.451), (1.06, 0.566), (2.06, 0.455)],
    "inputs": [(0.06, 0.451), (1.06, 0.447), (2.06, 0.146)],
    "noise-budget": [(0, 0.10), (1, 0.17), (2, 0.25), (3, 0.33), (5, 0.45), (10, 0.58)],
    "init-scale": [(0.5, 0.32), (1.0, 0.45), (2.0, 0.21), (4.0, 0.11)],
    "fig10b": [
        (0.08, 0.0998),
        (1.08, 0.9434),
        (2.08, 0.5284),
        (3.08, 0.9126),
        (4.08, 0.1061),
        (5.08, 0.7427),
    ],
}
LEVELS = {"ed2c": [0.37] * 2, "alignment": [0.008]}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values_stand_beside_equal_settings_alone(made, show, name):
    figure = show(made(name, "cpu"))
    assert diamonds(figure) == PUBLISHED[name]
    note = "published (preprint, n = 100)" if name in ("ed2b", "fig10b") else "50,000 images"
    assert note in texts(figure)
    figure = show(made(name, "smoke"))
    assert diamonds(figure) == []
    assert "published" not in texts(figure)


def test_a_single_published_value_whose_setting_is_another_is_left_out(tmp_path, show):
    summary = written(tmp_path, preset("losses"))
    published = [
        row | {"equal": number != 1} for number, row in enumerate(summary.config["published"])
    ]
    figure = show(written(tmp_path, preset("losses"), published=published))
    assert diamonds(figure) == [PUBLISHED["losses"][0], PUBLISHED["losses"][2]]


@pytest.mark.parametrize("name", LEVELS)
def test_published_levels_stand_along_every_panel_of_their_metric(made, show, name):
    levels = [
        line.get_ydata()[0]
        for axes in show(made(name, "cpu")).axes
        for line in axes.lines
        if line.get_label().startswith("published")
    ]
    assert levels == LEVELS[name]
    assert "published" not in texts(show(made(name, "smoke")))


def test_figure_10b_has_a_bar_a_condition_and_examples_below(made, show):
    summary = made("fig10b", "cpu")
    bars, pictures = show(summary).axes
    wanted = [means(summary, row["metric"])[row["point"]] for row in summary.config["published"]]
    assert heights(bars) == pytest.approx(wanted)
    names = [text.get_text() for text in bars.get_xticklabels()]
    for mean, name in zip(wanted, names, strict=True):
        assert f"{mean:.4f}" in name
    assert "published 0.5284" in names[2]
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in bars.patches}) == 6
    (image,) = pictures.images
    # Ten pictures of 8 x 8 in each of two rows, with a gap between them and room for the texts.
    assert np.shape(image.get_array()) == (2 * (8 + 4), 10 * (8 + 1) - 1)
    assert "true labels" in names[1].replace("\n", " ")
    assert "Students see" in texts(pictures)


def test_figure_10b_without_examples_says_so(tmp_path, show):
    figure = show(written(tmp_path, preset("fig10b", "smoke"), samples=False))
    assert "no values" in texts(figure.axes[1])


def test_a_sweep_without_a_figure_gets_the_one_that_suits_any(tmp_path, show):
    grid = "[grid]\nmodel.aux = [2, 4, 8]\nstudent.loss.temperature = [1.0, 2.0]"
    summary = written(tmp_path, of(grid))
    (axes,) = show(summary).axes
    assert axes.get_xlabel() == "auxiliary logits m"
    for tau in (1.0, 2.0):
        wanted = means(summary, student_loss_temperature=tau)
        assert lines_of(axes)[f"temperature {tau:g}"] == wanted


def test_words_that_vary_are_bars_and_numbers_panels(tmp_path, show):
    rest = """
        [[list]]
        label = "kinds"
        [list.grid]
        student.inputs = ["uniform", "normal"]
        [[list]]
        label = "blurred"
        student.inputs = "blurred"
        [list.grid]
        student.inputs.width = [1.0, 2.0]
    """
    summary = written(tmp_path, of(rest))
    bars, panel = show(summary).axes
    assert heights(bars) == means(summary, label="kinds")
    assert lines_of(panel)["blurred"] == means(summary, label="blurred")
    assert "kinds, normal" in texts(bars).replace("\n", " ")


@pytest.mark.parametrize("name", PRESETS)
def test_any_preset_can_be_drawn_by_the_figure_that_suits_any(tmp_path, show, name):
    summary = written(tmp_path, preset(name, "smoke"), panels=[])
    figure = show(summary)
    assert {round(mean, 9) for mean in means(summary)} <= numbers_in(figure)


def test_a_single_point_is_a_single_bar(tmp_path, show):
    summary = written(tmp_path, of())
    (axes,) = show(summary).axes
    assert heights(axes) == means(summary)
    assert "mine" in texts(axes)


def test_a_single_value_on_an_axis_is_a_line_of_one_point(tmp_path, show):
    rest = '[grid]\nmodel.aux = [4]\n[[list]]\nlabel = "student"'
    summary = written(tmp_path, figured('{ kind = "line", x = "model.aux" }', rest))
    (axes,) = show(summary).axes
    assert lines_of(axes)["student"] == means(summary)


def test_words_on_x_stand_side_by_side(tmp_path, show):
    rest = '[grid]\nmodel.activation = ["relu", "gelu"]\nmodel.aux = [2, 3]'
    summary = written(tmp_path, figured('{ kind = "line", x = "model.activation" }', rest))
    (axes,) = show(summary).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["relu", "gelu"]
    assert lines_of(axes)["m = 2"] == means(summary, model_aux=2)


def test_no_bar_is_dropped_where_points_differ_in_more_than_the_groups(tmp_path, show):
    rest = "[grid]\nstart = ['matched', 'independent']\nmodel.aux = [2, 3]\nclasses = [2, 5]"
    figure = '{ kind = "bars", series = "start" }, { kind = "cloud", x = "final_loss" }'
    summary = written(tmp_path, figured(figure, rest))
    bars, cloud = show(summary).axes
    assert sorted(heights(bars)) == pytest.approx(sorted(means(summary)))
    assert "m = 2, classes 5" in [t.get_text().replace("\n", " ") for t in bars.get_xticklabels()]
    assert lines_of(cloud)["student"] == means(summary)
    # Points whose chance differs have no one line of it in a cloud.
    assert "chance" not in lines_of(cloud)


def test_axes_of_one_last_word_are_told_apart(tmp_path, show):
    rest = "[grid]\nteacher.epochs = [1, 2]\nstudent.epochs = [3, 4]"
    (axes,) = show(written(tmp_path, figured('{ kind = "bars" }', rest))).axes
    names = [text.get_text().replace("\n", " ") for text in axes.get_xticklabels()]
    assert names[0] == "teacher epochs 1, student epochs 3"


def test_a_union_is_one_axis_with_or_without_kind():
    for axes in (["start"], ["start.kind"]):
        assert spec.axis_named("start", axes) == axes[0]
        assert spec.axis_named("start.kind", axes) == axes[0]
    assert spec.axis_named("start.weight", ["start"]) is None


AXES, METRICS, LABELS = ("label", "model.aux"), ("accuracy", "final_loss"), ("student", "SGD")


@pytest.mark.parametrize(
    ("panel", "message"),
    [
        (3, "must be a table with a kind, not 3"),
        ({"x": "model.aux"}, "kind = None; it must be one of line, bars, difference,"),
        ({"kind": "lines"}, "kind = 'lines'; it must be one of line, bars, difference,"),
        ({"kind": "bars", "x": "model.aux"}, "unknown key 'x'; a panel of kind bars may have also"),
        ({"kind": "line"}, "x is missing; a panel of kind line needs it, one of label, model.aux"),
        ({"kind": "cloud"}, "x is missing; a panel of kind cloud needs it, one of accuracy, final"),
        ({"kind": "steps"}, "y is missing; a panel of kind steps needs it, one of accuracy, final"),
        ({"kind": "line", "x": "aux"}, "x = 'aux'; it must be one of label, model.aux"),
        ({"kind": "line", "x": ["a"]}, "x = ['a']; it must be one of label, model.aux"),
        ({"kind": "cloud", "x": "kl"}, "x = 'kl'; it must be one of accuracy, final_loss"),
        ({"kind": "bars", "y": "kl"}, "y = 'kl'; it must be one of accuracy, final_loss"),
        ({"kind": "bars", "also": {}}, "also = {}; it must be one of accuracy, final_loss"),
        ({"kind": "bars", "series": "start"}, "series = 'start'; it must be one of label, model"),
        ({"kind": "bars", "labels": ["teacher"]}, "labels = ['teacher']; it must be a list of lab"),
        ({"kind": "bars", "labels": []}, "labels = []; it must be a list of labels of this sweep"),
        ({"kind": "bars", "labels": [[1]]}, "labels = [[1]]; it must be a list of labels of this"),
        ({"kind": "bars", "names": {"a": 1}}, "names = {'a': 1}; it must be a table of texts by"),
        ({"kind": "bars", "choose": "SGD"}, "choose = 'SGD'; it must be a table of metrics by"),
        ({"kind": "bars", "choose": {"a": "accuracy"}}, "choose = ['a']; it must be a list of lab"),
        ({"kind": "bars", "choose": {"SGD": "kl"}}, "choose.SGD = 'kl'; it must be one of accurac"),
        ({"kind": "bars", "inches": "wide"}, "inches = 'wide'; it must be a number from 1 to 20"),
        ({"kind": "bars", "inches": 0}, "inches = 0; it must be a number from 1 to 20"),
        ({"kind": "bars", "stack": 1}, "stack = 1; it must be true or false"),
        ({"kind": "bars", "title": ""}, "title = ''; it must be a text"),
        ({"kind": "bars", "y": ["accuracy"]}, "y = ['accuracy']; it must be one of accuracy, fin"),
        ({"kind": "line", "x": "model.aux", "y": ["kl"]}, "y = 'kl'; it must be one of accuracy"),
        ({"kind": "line", "x": "model.aux", "y": []}, "y = []; it must be a list of metrics, eac"),
        (
            {"kind": "line", "x": "model.aux", "y": ["accuracy", "accuracy"]},
            "y = ['accuracy', 'accuracy']; it must be a list of metrics, each once",
        ),
        (
            {"kind": "line", "x": "model.aux", "names": {"student": 1}},
            "names = {'student': 1}; it must be a table of texts by label or metric",
        ),
        (
            {"kind": "line", "x": "model.aux", "read": "size"},
            "read = 'size'; it must be one of width, depth",
        ),
        ({"kind": "line", "x": "model.aux", "log": True}, "log = True; it must be one of y"),
        ({"kind": "cloud", "x": "accuracy", "log": "z"}, "log = 'z'; it must be one of x, y, xy"),
    ],
)
def test_a_panel_that_cannot_be_drawn_is_refused_with_its_number_and_what_would_be_right(
    panel, message
):
    with pytest.raises(InputError) as error:
        spec.check_panels([{"kind": "bars"}, panel], AXES, METRICS, LABELS)
    assert str(error.value).startswith(f"[figure] panel 2: {message}")
    assert "\n" not in str(error.value)


def test_names_of_the_figure_are_those_of_every_panel_that_may_have_some_and_its_own_go_first():
    panels = [
        {"kind": "line", "names": {"a": "own", "c": "third"}},
        {"kind": "bars"},
        {"kind": "steps"},
    ]
    named = spec.with_names(panels, {"a": "first", "b": "second"})
    assert named[0]["names"] == {"a": "own", "b": "second", "c": "third"}
    assert named[1]["names"] == {"a": "first", "b": "second"}
    assert named[2] == {"kind": "steps"}
    assert spec.with_names(panels, {}) == panels
    # What is no panel is left for the check to refuse.
    for wrong in (3, {}, [3], [{"kind": 3}], [{"kind": "line", "names": 3}]):
        assert spec.with_names(wrong, {"a": "first"}) == wrong


SEVERAL = """
[grid]
model.aux = [3, 10]
[[list]]
label = "student"
[[list]]
label = "one logit"
student.loss = "squared_error"
[list.grid]
model.aux = [1]
[[list]]
label = "other"
[[figure.panels]]
kind = "line"
title = "of one kind"
x = "model.aux"
y = ["accuracy", "teacher_accuracy"]
labels = ["student", "one logit"]
[[figure.panels]]
kind = "line"
x = "model.aux"
y = ["accuracy", "final_loss"]
stack = true
[figure.names]
"one logit" = "student"
accuracy = "what it does"
"""


def test_each_metric_of_a_list_is_a_line_and_labels_of_one_text_are_on_one(tmp_path, show):
    summary = written(tmp_path, sketched(SEVERAL))
    first, second = show(summary, lay_out=True).axes
    expected = {
        metric: [
            mean
            for label in ("one logit", "student")
            for mean in means(summary, metric, label=label)
        ]
        for metric in ("accuracy", "teacher_accuracy", "final_loss")
    }
    lines = lines_of(first)
    assert lines["what it does"] == pytest.approx(expected["accuracy"])
    assert lines["teacher accuracy"] == pytest.approx(expected["teacher_accuracy"])
    # Where there are several lines of a metric, each says which it is.
    lines = lines_of(second)
    assert lines["student: what it does"] == pytest.approx(expected["accuracy"])
    assert lines["student: final loss"] == pytest.approx(expected["final_loss"])
    other = means(summary, label="other")
    assert lines["other: what it does"] == pytest.approx(other)
    assert (first.get_title(), second.get_title()) == ("of one kind", "")
    # All accuracies, and not: on the scale of accuracies, or not.
    assert first.get_ylabel() == "Test accuracy"
    assert first.get_ylim()[0] == 0


@pytest.mark.parametrize("wrong", [[], {}, "line"])
def test_panels_are_a_list_of_one_or_more(wrong):
    with pytest.raises(InputError, match=r"\[figure\] panels must be a list of one or more"):
        spec.check_panels(wrong, AXES, METRICS, LABELS)


def test_the_first_panel_has_none_to_stand_below_and_labels_need_a_list():
    with pytest.raises(InputError, match="panel 1: stack = true: the first panel has none before"):
        spec.check_panels([{"kind": "bars", "stack": True}], AXES, METRICS, LABELS)
    with pytest.raises(InputError, match=r"of this sweep: \(this sweep has none\)"):
        spec.check_panels([{"kind": "bars", "labels": ["a"]}], ["model.aux"], METRICS, [])


def test_every_key_of_every_kind_is_documented_and_has_a_check():
    assert spec.__doc__ is not None
    for kind, keys in spec.KEYS.items():
        assert f"    {kind} " in spec.__doc__
        for key in keys - {"kind"}:
            assert f"    {key} " in spec.__doc__
            with pytest.raises(InputError, match=r"\[figure\] panel 2: (x|y|" + key + ")"):
                spec.check_panels(
                    [{"kind": "bars"}, {"kind": kind, key: object()}], AXES, METRICS, LABELS
                )


def test_a_sweep_file_is_checked_without_matplotlib_or_polars():
    code = "import sys, figures.spec; print({'matplotlib', 'polars'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_files_are_named_by_sweep_size_runs_and_record(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "FORMATS", ("svg",))
    for name, stem in (("../my sweep", "sweep_..-my-sweep"), ("fig10b", "fig10b")):
        summary = written(tmp_path, of(name=name))
        (path,) = sweep.draw(summary, tmp_path / "figures")
        assert path == tmp_path / "figures" / f"{stem}_cpu_n2_{summary.folder.name[:6]}.svg"
        first = path.read_bytes()
        assert sweep.draw(summary, tmp_path / "figures") == [path]
        assert path.read_bytes() == first
    assert plt.get_fignums() == []


@pytest.mark.parametrize("kind", ["sweep_runs", "samples"])
def test_a_summary_whose_other_records_are_gone_cannot_be_drawn(tmp_path, kind):
    summary = written(tmp_path, of())
    for table in (tmp_path / kind).glob("*/table.parquet"):
        table.unlink()
    with pytest.raises(records.RecordError, match="damaged record"):
        sweep.draw(summary, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_many_lines_and_bars_all_look_different():
    looks = [panels.look(number) for number in range(36)]
    assert len(set(looks)) == 36


def test_in_grey_no_two_neighbouring_bars_look_the_same():
    def lightness(colour):
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    looks = [panels.look(number) for number in range(36)]
    for left, right in pairwise(looks):
        apart = abs(lightness(left.colour) - lightness(right.colour))
        assert apart > 0.1 or left.hatch != right.hatch


def test_the_page_on_settings_quotes_the_keys_and_the_example_of_a_figure_is_right():
    page, settings = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("sweeps", "settings"))
    assert spec.__doc__ is not None
    assert spec.__doc__[spec.__doc__.index("Every panel has") :].rstrip() in settings
    example = page.split("### Its figure")[1].split("```toml\n")[1].split("```")[0]
    described = tomllib.loads(example)["figure"]["panels"]
    spec.check_panels(described, AXES, ("accuracy", "aux_kl"), LABELS)


def test_what_smoke_size_shares_is_written_once():
    shared = flat(tomllib.loads((FOLDER / "smoke.inc.toml").read_text()))
    for name in PRESETS:
        changes = tomllib.loads((FOLDER / f"{name}.toml").read_text())["size"]["smoke"]
        own = flat(changes.get("base", {}))
        assert not [key for key, value in shared.items() if own.get(key) == value], name
