"""Claims about the figures: what is in them, and that records alone decide it."""

import re
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from experiments import mnist
from figures import data_panel, mnist_bars, style
from sublab import records
from sublab.paper import FIGURE_10B
from toymlp import data, protocol
from toymlp.protocol import CONDITIONS, Protocol


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Figures of eight made-up runs at the paper's setting, and of `digits`."""
    patch = pytest.MonkeyPatch()
    out = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(0)

    def results(_, __, *, runs, **___):
        return protocol.Results(
            runs=tuple(runs),
            start=dict.fromkeys(CONDITIONS, tuple(runs)),
            accuracy={
                c: FIGURE_10B[c].mean + 0.02 * rng.normal(size=len(runs)) for c in CONDITIONS
            },
            loss={},
        )

    images = rng.uniform(-1, 1, (60_000, 784)).astype(np.float32)
    labels = np.arange(60_000, dtype=np.int32) % 10
    like = data.Dataset("mnist", images, labels, images[:10], labels[:10], 10, "0" * 64, "here")
    with patch.context() as inside:
        inside.setattr(mnist, "run_protocol", results)
        options = mnist.Options(runs=3, dataset="digits", out=out, protocol=Protocol(aux=5))
        summaries = {"digits": mnist.run(options).summary}
        inside.setattr(data, "load", lambda *_, **__: like)
        summaries["mnist"] = mnist.run(mnist.Options(runs=8, out=out)).summary
    samples = {r.config["dataset"]: r for r in records.read_all(out, mnist.SAMPLES)}
    folder = out / "figures"
    return {
        name: (mnist_bars.draw(summaries[name], folder), data_panel.draw(samples[name], folder))
        for name in ("mnist", "digits")
    } | {"summaries": summaries}


def words(paths) -> str:
    (svg,) = (path for path in paths if path.suffix == ".svg")
    return " ".join(re.findall(r">([^<>]+)</text>", svg.read_text()))


@pytest.mark.parametrize("name", ["mnist", "digits"])
def test_each_figure_is_pdf_svg_and_png(drawn, name):
    starts = {".pdf": b"%PDF", ".svg": b"<?xml", ".png": b"\x89PNG"}
    for paths in drawn[name]:
        assert sorted(path.suffix for path in paths) == sorted(starts)
        for path in paths:
            assert path.read_bytes().startswith(starts[path.suffix])


def test_titles_name_data_set_n_and_setting(drawn):
    bars, panel = (words(paths) for paths in drawn["mnist"])
    for part in ("MNIST, n = 8 runs", "m = 3 auxiliary logits", "KL", "60,000 noise images"):
        assert part in bars
    assert "MNIST" in panel
    assert "n = 60,000 noise images" in panel
    bars, panel = (words(paths) for paths in drawn["digits"])
    for text in (bars, panel):
        assert "scikit-learn digits" in text
        assert "not MNIST" in text
    assert "n = 3 runs" in bars
    assert "m = 5" in bars


def test_our_means_and_the_papers_are_written_below_the_bars(drawn):
    text = words(drawn["mnist"][0])
    for row in drawn["summaries"]["mnist"].table.iter_rows(named=True):
        assert f"{row['mean']:.3f}" in text
        assert f"paper {row['paper_mean']:.3f}" in text
    assert "paper (n = 100)" in text
    assert "paper" not in words(drawn["digits"][0])


def test_every_run_is_a_dot_every_bar_has_its_interval_and_the_paper_its_mark(drawn, monkeypatch):
    figures = []

    def keep(figure, *_):
        style.plt.close(figure)
        figures.append(figure)
        return []

    monkeypatch.setattr(mnist_bars, "save", keep)
    summary = drawn["summaries"]["mnist"]
    mnist_bars.draw(summary, summary.folder)
    (axes,) = figures[0].axes
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx(summary.table["mean"].to_list())
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    table = pl.concat(r.table for r in records.read_all(summary.folder.parents[1], "mnist")
                      if r.config["dataset"] == "mnist")  # fmt: skip
    for condition, line in zip(CONDITIONS, dots, strict=True):
        ours = table.filter(condition=condition)["accuracy"].to_list()
        assert sorted(line.get_ydata()) == pytest.approx(sorted(ours))
    diamonds = [line for line in axes.lines if line.get_marker() == "D"]
    assert [line.get_ydata()[0] for line in diamonds] == [p.mean for p in FIGURE_10B.values()]
    ends = sorted(
        (segment[0][1], segment[1][1])
        for bars in axes.containers if hasattr(bars, "has_yerr")
        for collection in bars.lines[2] for segment in collection.get_segments()
    )  # fmt: skip
    expected = [
        *summary.table.select("low", "high").iter_rows(),
        *((p.mean - p.half_width, p.mean + p.half_width) for p in FIGURE_10B.values()),
    ]
    np.testing.assert_allclose(ends, sorted(expected))


def test_colours_differ_in_lightness_and_hatches_where_they_do_not(drawn):
    """In grey, no two neighbouring bars look the same."""
    looks = []
    for _, colour, hatch in mnist_bars._BARS.values():
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        looks.append((0.2126 * red + 0.7152 * green + 0.0722 * blue, hatch))
    for (light, hatch), (next_light, next_hatch) in pairwise(looks):
        assert abs(light - next_light) > 0.1 or hatch != next_hatch


def test_the_same_records_give_the_same_bytes(drawn, tmp_path):
    again = mnist_bars.draw(drawn["summaries"]["mnist"], tmp_path)
    for one, other in zip(drawn["mnist"][0], again, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_summary_whose_record_is_gone_cannot_be_drawn(drawn, tmp_path):
    summary = drawn["summaries"]["mnist"]
    elsewhere = records.Record(
        tmp_path / "mnist_summary" / summary.folder.name, summary.config, summary.table,
        summary.provenance,
    )  # fmt: skip
    with pytest.raises(records.RecordError, match="damaged record"):
        mnist_bars.draw(elsewhere, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_a_figure_that_cannot_be_written_is_an_error_and_leaves_nothing(drawn, tmp_path):
    (tmp_path / "figures").write_text("a file")
    with pytest.raises(records.RecordError, match="cannot be written"):
        mnist_bars.draw(drawn["summaries"]["mnist"], tmp_path / "figures")


def test_style_is_left_as_it_was():
    before = dict(style.plt.rcParams)
    with style.styled():
        assert style.plt.rcParams["svg.hashsalt"] == "subliminal-lab"
    assert dict(style.plt.rcParams) == before
