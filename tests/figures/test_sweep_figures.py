"""Claims about the figures of sweeps: what is in them, and that their records alone decide it."""

from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest
from matplotlib import pyplot as plt

from experiments.sweep.file import parse, presets, read_preset
from experiments.sweep.summary import runs_table, summary_table
from figures import panels, style, sweep, sweep_frame
from figures.sweep_any import draw as draw_any
from figures.sweep_data import load
from figures.sweep_ed2d import chosen_rate
from sublab import records
from toymlp.measures import columns_of

STEPS = 30
# Range of a metric's values, and whether it is even in their logarithm.
RANGES = {
    "final_loss": (1e-4, 1e-1, True),
    "clone_loss": (1e-6, 1e-2, True),
    "clone_kl": (1e-6, 1e-2, True),
    "start_distance": (5.0, 25.0, False),
    "trait_change": (-1.5, 0.1, False),
    "first_order": (-1.5, 0.1, False),
    "alignment": (-0.01, 0.03, False),
}


def made_up(metric, point, rng):
    """A mean of a metric at a point, and how much its runs vary."""
    low, high, logarithmic = RANGES.get(metric, (0.12, 0.88, False))
    place = rng.uniform()
    if logarithmic:
        mean = low * (high / low) ** place
        return mean, 0.1 * mean
    return low + (high - low) * place, 0.02 * (high - low)


def value_of(metric, point, runs, rng, truth):
    """What the runs of a point have of a metric, as a sweep's records have it."""
    knobs, shape = point.setting.knobs, point.setting.shape
    mean, std = truth(metric, point, rng)
    if metric.startswith("clone_") and knobs.start != "matched":
        return [None] * runs
    length = {"alignment": STEPS, "start_feature_cosine": len(shape.hidden)}.get(metric)
    drawn = mean + std * rng.normal(size=(runs, length or 1))
    return [list(row) if length is not None else row[0] for row in drawn.tolist()]


def written(out, spec, size="cpu", *, runs=None, truth=made_up, missing=(), broken=None):
    """The two records that a sweep of `spec` would write, with made-up values.

    `missing` are metrics that are null everywhere, `broken` the number of a point and a metric
    that is not finite there in the first run.
    """
    runs, rng = runs or spec.runs, np.random.default_rng(0)
    tables = [
        pl.DataFrame(
            {"run": list(range(runs))}
            | {
                metric: [None] * runs
                if metric in missing
                else value_of(metric, point, runs, rng, truth)
                for metric in columns_of(spec.measure)
            }
        )
        for point in spec.points
    ]
    if broken is not None:
        number, metric = broken
        values = tables[number][metric].to_list()
        tables[number] = tables[number].with_columns(pl.Series(metric, [np.inf, *values[1:]]))
    settings = [point.setting.as_dict() for point in spec.points]
    config = {
        "name": spec.name, "title": spec.title, "figure": spec.figure, "size": size, "seed": 0,
        "runs": runs, "axes": list(spec.axes), "measure": list(spec.measure),
        "baseline": spec.baseline,
        "base": {k: v for k, v in settings[0].items() if all(s[k] == v for s in settings)},
    }  # fmt: skip
    wide = records.write(out, "sweep_runs", config, runs_table(spec, tables), {})
    config["runs_record"] = wide.folder.name
    return records.write(out, "sweep_summary", config, summary_table(spec, tables), {})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The summary of a preset at a size, with made-up values; each is written once."""
    out = tmp_path_factory.mktemp("results")
    return cache(lambda name, size: written(out, read_preset(name, size), size))


@pytest.fixture
def show(monkeypatch):
    """Draws a summary without saving, and gives the figure that would have been saved.

    Laying it out takes long, and is only done where warnings are to be seen.
    """
    figures = []
    monkeypatch.setattr(sweep_frame, "save", lambda figure, *_: figures.append(figure) or [])

    def draw(summary, draw=sweep.draw, lay_out=False):
        draw(summary, summary.folder)
        if lay_out:
            figures[-1].draw_without_rendering()
        plt.close(figures[-1])
        return figures[-1]

    return draw


def means(summary, metric="accuracy", column="mean", **where):
    return summary.table.filter(metric=metric, **where)[column].to_list()


def lines_of(axes) -> dict[str, list[float]]:
    """Heights of the lines that have a label, by it."""
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def heights(axes) -> list[float]:
    return [bar.get_height() for bar in axes.patches]


def diamonds(figure) -> list[tuple[float, float]]:
    return [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for axes in figure.axes for line in axes.lines if line.get_marker() == "D"
    ]  # fmt: skip


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


def of(base="", rest="", name="mine", figure=""):
    """A small sweep of one's own."""
    front = f'figure = "{figure}"\nruns = 2\n'
    return parse(f'{front}[base]\ndataset = "digits"\n{base}\n{rest}', "here", name, "cpu")


@pytest.mark.parametrize("name", presets())
def test_every_preset_has_its_figure_in_three_formats(tmp_path, name):
    spec = read_preset(name, "smoke")
    summary = written(tmp_path, spec, "smoke")
    paths = sweep.draw(summary, tmp_path / "figures")
    stem = f"sweep_{name}_smoke_n{spec.runs}_{summary.folder.name[:6]}"
    assert [path.name for path in paths] == [f"{stem}.{form}" for form in style.FORMATS]
    starts = {".pdf": b"%PDF", ".svg": b"<?xml", ".png": b"\x89PNG"}
    for path in paths:
        assert path.read_bytes().startswith(starts[path.suffix])
    picture = plt.imread(paths[-1])[..., :3]
    assert picture.std() > 0.05
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", presets())
def test_at_cpu_size_all_mean_accuracies_and_the_data_set_and_n_are_in_the_figure(made, show, name):
    summary = made(name, "cpu")
    figure = show(summary, lay_out=True)
    drawn = numbers_in(figure)
    assert {round(mean, 9) for mean in means(summary)} <= drawn
    runs = load(summary).runs["accuracy"]
    assert {round(run, 9) for run in runs} <= drawn
    assert f"n = {summary.config['runs']} runs" in texts(figure).replace("\n", " ")
    assert "MNIST" in texts(figure)


def test_the_presets_name_the_figures_that_there_are():
    named = {read_preset(name, "cpu").figure for name in presets()}
    assert named == set(sweep.FIGURES)
    for name in presets():
        spec = read_preset(name, "cpu")
        assert set(spec.axes) - {"label"} == sweep.FIGURES[spec.figure][1], name


def test_lines_are_the_means_in_the_order_of_the_axis(made, show):
    summary = made("ed2b", "cpu")
    (axes,) = show(summary).axes
    lines = lines_of(axes)
    for label in ("student", "cross-model", "student, on images"):
        assert lines[label] == pytest.approx(means(summary, label=label))
    assert lines["teacher"] == pytest.approx(means(summary, "teacher_accuracy", label="student"))
    assert lines["chance"] == [0.1, 0.1]
    assert axes.get_xscale() == "log"


def test_intervals_are_those_of_the_summary(made, show):
    summary = made("losses", "cpu")
    (axes,) = show(summary).axes
    ends = sorted(
        (segment[0][1], segment[1][1])
        for bars in axes.containers if getattr(bars, "has_yerr", False)
        for collection in bars.lines[2] for segment in collection.get_segments()
    )  # fmt: skip
    low, high = means(summary, column="low"), means(summary, column="high")
    np.testing.assert_allclose(ends, sorted(zip(low, high, strict=True)))


@pytest.mark.parametrize("name", ["losses", "heads"])
def test_bars_are_as_high_as_the_means(made, show, name):
    summary = made(name, "cpu")
    (axes,) = show(summary).axes
    assert heights(axes) == pytest.approx(means(summary))
    if name == "heads":
        squares = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "s"]
        assert squares == pytest.approx(means(summary, "probe"))


@pytest.mark.parametrize(("name", "axis"), [("ed2e", "start"), ("layerwise", "aux")])
def test_groups_of_bars_have_one_of_every_value(made, show, name, axis):
    summary = made(name, "cpu")
    (axes,) = show(summary).axes
    values = list(dict.fromkeys(summary.table[axis]))
    assert len(values) == 2
    wanted = [mean for value in values for mean in means(summary, **{axis: value})]
    assert heights(axes) == pytest.approx(wanted)


def test_every_data_set_has_its_own_chance(made, show):
    (axes,) = show(made("datasets", "cpu")).axes
    chance = [line.get_ydata()[0] for line in axes.lines if line.get_label() == "chance"]
    assert chance == pytest.approx([0.1, 0.1, 0.1, 1 / 47, 0.1])


def test_chance_falls_with_the_number_of_classes(made, show):
    (axes,) = show(made("classes", "cpu")).axes
    assert lines_of(axes)["chance"] == pytest.approx([1 / 2, 1 / 3, 1 / 5, 1 / 7, 1 / 10])


def test_depth_counts_layers_and_width_is_that_of_a_layer(made, show):
    for name, wanted in (("depth", [0, 1, 2, 3, 4]), ("width", [32, 64, 128, 256, 512, 1024])):
        (axes,) = show(made(name, "cpu")).axes
        (line,) = (line for line in axes.lines if line.get_label() == "student")
        assert list(line.get_xdata()) == wanted


def test_differences_are_paired_and_those_of_the_summary(made, show):
    summary = made("interventions", "cpu")
    _, lower = show(summary).axes
    differences = means(summary, column="difference")
    assert heights(lower) == pytest.approx([d or 0.0 for d in differences])
    runs = load(summary).runs
    none = runs.filter(label="none")["accuracy"]
    apart = (runs.filter(label="heads frozen")["accuracy"] - none).to_list()
    dots = [list(line.get_ydata()) for line in lower.lines if line.get_marker() == "o"]
    assert dots[-1] == pytest.approx(apart)


def test_cosines_are_drawn_step_by_step(made, show):
    summary = made("alignment", "cpu")
    left, middle, right = show(summary).axes
    drawn = [line for line in left.lines if len(line.get_ydata()) == STEPS]
    wanted = [means(summary, "alignment", label=label) for label in load(summary).labels]
    for line, values in zip(drawn, wanted, strict=True):
        assert list(line.get_xdata()) == list(range(1, STEPS + 1))
        assert list(line.get_ydata()) == pytest.approx(values)
    assert lines_of(middle)["student"] == pytest.approx(
        means(summary, "first_order", label="student")
    )
    (equal,) = (line for line in middle.lines if line.get_label() == "equal")
    assert list(equal.get_xdata()) == list(equal.get_ydata())
    assert lines_of(right)["student"] == pytest.approx(means(summary, label="student"))


def test_transfer_is_drawn_against_cloning_run_by_run(made, show):
    summary = made("cloning", "cpu")
    sweep_read = load(summary)
    for axes, metric in zip(
        show(summary).axes, ("clone_kl", "start_distance", "start_feature_cosine"), strict=True
    ):
        values = sweep_read.runs[metric]
        if metric == "start_feature_cosine":
            values = values.list.last()
        clouds = [line for line in axes.lines if line.get_label() not in sweep_read.labels]
        drawn = {
            (round(float(x), 9), round(float(y), 9)) for line in clouds for x, y in zip(
                line.get_xdata(), line.get_ydata(), strict=True)
        }  # fmt: skip
        wanted = zip(values, sweep_read.runs["accuracy"], strict=True)
        assert {(round(x, 9), round(y, 9)) for x, y in wanted} <= drawn


def sgd(loss):
    """Values in which accuracy is best at the rate 0.03, and `loss` gives the losses."""

    def truth(metric, point, rng):
        if point.label == "SGD":
            rate = point.coordinates["student_learning_rate"]
            if metric == "final_loss":
                return loss[rate], 0.0
            if metric == "accuracy":
                return {0.03: 0.9}.get(rate, 0.1 + rate / 100), 0.0
        return made_up(metric, point, rng)

    return truth


LOSSES = {0.03: 0.5, 0.1: 0.2, 0.3: 0.1, 1.0: 0.01, 3.0: 0.3, 10.0: 0.001}


def test_the_learning_rate_of_sgd_is_chosen_by_its_loss_and_not_by_accuracy(tmp_path, show):
    summary = written(tmp_path, read_preset("ed2d", "cpu"), truth=sgd(LOSSES))
    left, middle, right = show(summary).axes
    assert heights(left)[1] == pytest.approx(0.2)
    ring = {"lowest distillation loss"}
    assert [lines_of(axes)[name] for axes in (middle, right) for name in ring] == [[0.001], [0.2]]
    assert "SGD,\nrate 10" in texts(left)


def test_a_learning_rate_whose_loss_is_not_finite_in_every_run_is_not_chosen(tmp_path, show):
    losses = LOSSES | {10.0: np.inf, 3.0: np.nan}
    summary = written(tmp_path, read_preset("ed2d", "cpu"), truth=sgd(losses))
    left, middle, _ = show(summary).axes
    assert heights(left)[1] == pytest.approx(0.11)
    crosses = [line.get_xdata()[0] for line in middle.lines if line.get_marker() == "x"]
    assert crosses == [3.0, 10.0]
    # In some runs only: the mean of the others is lowest, and yet it is not chosen.
    spec = read_preset("ed2d", "cpu")
    number = [point.coordinates["student_learning_rate"] for point in spec.points].index(10.0)
    summary = written(tmp_path, spec, truth=sgd(LOSSES), broken=(number, "final_loss"))
    assert chosen_rate(load(summary)) == 1.0


def test_without_any_finite_loss_sgd_has_no_bar(tmp_path, show):
    truth = sgd(dict.fromkeys(LOSSES, np.inf))
    figure = show(written(tmp_path, read_preset("ed2d", "cpu"), truth=truth))
    assert len(figure.axes[0].patches) == 5
    assert "no value" in texts(figure)


PUBLISHED = {
    "ed2b": [(3, 0.5284), (3, 0.1061), (3, 0.9434)],
    "losses": [0.451, 0.566, 0.455],
    "inputs": [0.451, 0.447, 0.146],
    "noise-budget": [(0, 0.10), (1, 0.17), (2, 0.25), (3, 0.33), (5, 0.45), (10, 0.58)],
    "init-scale": [(0.5, 0.32), (1.0, 0.45), (2.0, 0.21), (4.0, 0.11)],
}
LEVELS = {"ed2c": 0.37, "cloning": 0.37, "alignment": 0.008}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values_stand_beside_the_papers_setting_alone(made, show, name):
    figure = show(made(name, "cpu"))
    both = isinstance(PUBLISHED[name][0], tuple)
    assert [mark if both else mark[1] for mark in diamonds(figure)] == PUBLISHED[name]
    assert "published" in texts(figure)
    if name == "losses":
        assert "published, 50,000 images an epoch" in texts(figure)
    figure = show(made(name, "smoke"))
    assert diamonds(figure) == []
    assert "published" not in texts(figure)


@pytest.mark.parametrize("name", LEVELS)
def test_published_levels_stand_beside_the_papers_setting_alone(made, show, name):
    figure = show(made(name, "cpu"))
    levels = [
        line.get_ydata()[0] for line in figure.axes[0].lines
        if line.get_label().startswith("published")
    ]  # fmt: skip
    assert levels == [LEVELS[name]]
    assert "published" not in texts(show(made(name, "smoke")))


@pytest.mark.parametrize(
    "changed",
    [
        {"hidden": [128, 128]}, {"teacher_epochs": 6}, {"images": 50_000}, {"aux": 5},
        {"loss": "squared_error"}, {"dataset": "kmnist"}, {"student_learning_rate": 1e-3},
    ],
)  # fmt: skip
def test_one_setting_that_is_not_the_papers_takes_published_values_away(made, changed):
    read = load(made("init-scale", "cpu"))
    assert read.is_published_setting()
    other = replace(read, config=read.config | {"base": read.config["base"] | changed})
    assert not other.is_published_setting()


@pytest.mark.parametrize("name", presets())
def test_a_single_run_is_drawn_without_intervals(tmp_path, show, name):
    figure = show(written(tmp_path, read_preset(name, "smoke"), "smoke", runs=1), lay_out=True)
    assert "n = 1 run" in texts(figure)
    assert "interval" not in texts(figure)
    assert not any(getattr(c, "has_yerr", False) for axes in figure.axes for c in axes.containers)


@pytest.mark.parametrize("name", presets())
def test_metrics_that_are_null_everywhere_leave_their_panel_empty(tmp_path, show, name):
    spec = read_preset(name, "smoke")
    missing = set(columns_of(spec.measure)) - {"accuracy"}
    summary = written(tmp_path, spec, "smoke", missing=missing)
    figure = show(summary)
    empty = {"alignment": 3, "cloning": 3, "ed2c": 2, "init-distance": 1}.get(name, 0)
    assert texts(figure).count("no values") == empty


def test_a_sweep_without_a_figure_gets_the_one_that_suits_any(tmp_path, show):
    spec = of("hidden = [16]", "[grid]\naux = [2, 4, 8]\ntemperature = [1.0, 2.0]")
    summary = written(tmp_path, spec)
    (axes,) = show(summary).axes
    assert axes.get_xlabel() == "auxiliary logits m"
    for tau in (1.0, 2.0):
        assert lines_of(axes)[f"temperature {tau}"] == means(summary, temperature=tau)


def test_words_that_vary_are_bars_and_numbers_panels(tmp_path, show):
    rest = """
        [[list]]
        label = "kinds"
        [list.grid]
        inputs = ["uniform", "normal"]
        [[list]]
        label = "blurred"
        inputs = "blurred"
        [list.grid]
        blur = [1.0, 2.0]
    """
    summary = written(tmp_path, of("", rest))
    bars, panel = show(summary).axes
    assert heights(bars) == means(summary, label="kinds")
    assert lines_of(panel)["blurred"] == means(summary, label="blurred")
    assert "kinds," in texts(bars)


def test_a_single_point_is_a_single_bar(tmp_path, show):
    summary = written(tmp_path, of("aux = 4"))
    (axes,) = show(summary).axes
    assert heights(axes) == means(summary)
    assert "mine" in texts(axes)


def test_a_single_value_on_an_axis_is_a_line_of_one_point(tmp_path, show):
    rest = '[grid]\naux = [4]\n[[list]]\nlabel = "student"'
    summary = written(tmp_path, of("", rest, figure="ed2b"))
    (axes,) = show(summary).axes
    assert lines_of(axes)["student"] == means(summary)


def test_a_name_that_is_no_file_name_makes_one(tmp_path):
    summary = written(tmp_path, of("aux = 4", name="../my sweep"))
    paths = sweep.draw(summary, tmp_path / "figures")
    assert {path.parent for path in paths} == {tmp_path / "figures"}
    assert paths[0].name.startswith("sweep_..-my-sweep_cpu_n2_")


def test_a_figure_of_other_axes_falls_back_to_the_one_that_suits_any(tmp_path, show):
    summary = written(tmp_path, of("", "[grid]\nimages = [100, 200]", figure="ed2b"))
    assert "images" in show(summary).axes[0].get_xlabel()
    assert lines_of(show(summary).axes[0])["mine"] == means(summary)


def test_any_preset_can_be_drawn_by_the_figure_that_suits_any(made, show):
    for name in presets():
        summary = made(name, "smoke")
        figure = show(summary, draw_any)
        assert {round(mean, 9) for mean in means(summary)} <= numbers_in(figure), name


def test_an_unknown_figure_is_an_error_that_names_those_there_are(tmp_path):
    summary = written(tmp_path, of("aux = 4"))
    other = replace(summary, config=summary.config | {"figure": "ed3"})
    with pytest.raises(records.RecordError, match="unknown figure 'ed3'; known are alignment,"):
        sweep.draw(other, tmp_path / "figures")


def test_a_summary_whose_runs_are_gone_cannot_be_drawn(tmp_path):
    summary = written(tmp_path, of("aux = 4"))
    (tmp_path / "sweep_runs" / summary.config["runs_record"] / "table.parquet").unlink()
    with pytest.raises(records.RecordError, match="damaged record"):
        sweep.draw(summary, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_many_lines_and_bars_all_look_different():
    looks = [panels.look(number) for number in range(36)]
    assert len(set(looks)) == 36
