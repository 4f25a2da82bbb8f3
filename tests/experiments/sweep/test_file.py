"""Claims about sweep files: what they mean, and what is refused, with the line."""

from pathlib import Path

import pytest

from experiments.sweep import file as sweep_files
from experiments.sweep.file import parse, presets, read_preset
from sublab.errors import InputError
from toymlp.rules import contradictions
from toymlp.settings import from_dict

WHOLE = """\
title = "Two things"
measure = ["agreement"]
runs = 7
[base]
loss = "squared_error"
clone_epochs = 3
[grid]
aux = [2, 5]
[[list]]
label = "one"
[[list]]
label = "other"
start = "matched"
[list.grid]
clone_learning_rate = [1e-3, 1e-2]
[baseline]
label = "one"
[size.smoke]
runs = 2
[size.smoke.base]
images = 256
[size.smoke.grid]
aux = [3]
"""


def sweep_of(text: str, size: sweep_files.SizeName = "cpu") -> sweep_files.Sweep:
    return parse(text, "mine.toml", "mine", size)


def test_every_combination_of_the_grid_for_every_entry_of_the_list():
    sweep = sweep_of(WHOLE)
    assert [point.coordinates for point in sweep.points] == [
        {"label": "one", "aux": 2, "clone_learning_rate": None},
        {"label": "one", "aux": 5, "clone_learning_rate": None},
        {"label": "other", "aux": 2, "clone_learning_rate": 1e-3},
        {"label": "other", "aux": 2, "clone_learning_rate": 1e-2},
        {"label": "other", "aux": 5, "clone_learning_rate": 1e-3},
        {"label": "other", "aux": 5, "clone_learning_rate": 1e-2},
    ]
    assert (sweep.runs, sweep.measure, sweep.title) == (7, ("agreement",), "Two things")
    last = sweep.points[-1].setting
    assert last == from_dict(
        {"loss": "squared_error", "aux": 5, "start": "matched", "clone_epochs": 3,
         "clone_learning_rate": 1e-2}
    )  # fmt: skip


def test_a_setting_of_the_base_that_matters_nowhere_at_a_point_is_left_out_there():
    assert sweep_of(WHOLE).points[0].setting == from_dict({"loss": "squared_error", "aux": 2})


def test_a_baseline_is_the_entry_at_the_same_place_of_the_grid():
    sweep = sweep_of(WHOLE)
    assert [sweep.baseline_of(point) for point in sweep.points] == [
        sweep.points[i] for i in (0, 1, 0, 0, 1, 1)
    ]


def test_a_size_changes_what_it_names_and_nothing_else():
    small = sweep_of(WHOLE, "smoke")
    assert {point.setting.knobs.aux for point in small.points} == {3}
    assert all(point.setting.shape.images == 256 for point in small.points)
    assert all(point.setting.shape.loss == "squared_error" for point in small.points)
    assert small.runs == 2


def test_measurements_have_one_order_so_that_sweeps_share_records():
    one, other = (sweep_of(f"measure = {names}") for names in (["cka", "probe"], ["probe", "cka"]))
    assert one.measure == other.measure == ("probe", "cka")


def test_a_file_without_a_list_or_a_grid_is_one_point():
    (point,) = sweep_of("[base]\naux = 4\n").points
    assert point.coordinates == {}
    assert point.setting.knobs.aux == 4


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[base]\naux = 4\nauxx = 4\n", 3, "did you mean 'aux'"),
        ("[base]\n\naux = 0\n", 3, "from 1 to 10,000"),
        ("[base]\nloss = 'kld'\n", 2, "one of kl, squared_error"),
        ("[grid]\naux = 3\n", 2, "a list of one value or more"),
        ("[grid]\naux = []\n", 2, "a list of one value or more"),
        ("[grid]\naux = [2, 2]\n", 2, "twice"),
        ("[grid]\n\naux = [2, 2.5]\n", 3, "a whole number"),
        ("[base]\naux = 1\n", 2, "a softmax over one logit is constant"),
        ("[base]\ntemperature = 2.0\nloss = 'squared_error'\n", 2, "no effect at any point"),
        ("[[list]]\nlabel = 'a'\nperturbation = 0.3\n", 3, "start = perturbed"),
        ("[[list]]\naux = 3\n", None, "needs a label"),
        ("[base]\nhidden = [256, -1]\n", 2, "a list of whole numbers"),
        ("[base]\nstart = 'layerwise'\nredrawn = ['hidden_3']\n", 3, "has no part 'hidden_3'"),
        ("[base]\nstudent_hidden = [128]\n", None, "use independent or matched"),
        ("[base]\nfresh = true\ninputs = 'images'\n", 2, "not drawn"),
        ("measure = ['agreemint']\n", 1, "known are trait_loss"),
        ("measure = ['alignment']\n[base]\nfresh = true\n", 1, "cannot with fresh = true"),
        ("runs = 0\n", 1, "at least 1"),
        ("runs = true\n", 1, "a whole number"),
        ("aux = 3\n", 1, "settings go below [base]"),
        ("figure = 'ed3'\n", 1, "unknown figure"),
        ("[baseline]\naux = 3\n", 2, "cannot be a baseline"),
        ("[size.tiny]\nruns = 3\n", 1, "known are smoke, cpu, paper"),
        ("[size.cpu]\ntitle = 'x'\n", 2, "known are runs, base, grid, measure"),
        ("[base]\naux = \n", None, "is not TOML"),
        ("list = []\n", 1, "an empty list"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_line_and_what_would_be_right(text, line, says):
    with pytest.raises(InputError) as refused:
        sweep_of(text)
    message = str(refused.value)
    assert says in message
    assert message.startswith(f"mine.toml, line {line}: " if line else "mine.toml: ") or (
        line is None and message.startswith("mine.toml")
    )
    assert "\n" not in message


def test_the_same_point_twice_is_refused():
    with pytest.raises(InputError, match="there twice"):
        sweep_of("[[list]]\nlabel = 'a'\n[[list]]\nlabel = 'a'\n")


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        sweep_files.read_file(tmp_path / "none.toml", "cpu")
    (tmp_path / "latin.toml").write_bytes("title = 'café'".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        sweep_files.read_file(tmp_path / "latin.toml", "cpu")


def test_the_presets_are_those_that_the_literature_asks_for():
    assert set(presets()) >= {
        "ed2b", "ed2c", "ed2d", "ed2e", "losses", "width", "depth", "inputs", "init-distance",
        "layerwise", "heads", "classes", "noise-budget", "chains", "alignment", "interventions",
        "datasets",
    }  # fmt: skip


@pytest.mark.parametrize("name", presets())
def test_every_preset_has_three_sizes_and_its_figure(name):
    smoke, cpu, paper = (read_preset(name, size) for size in ("smoke", "cpu", "paper"))
    assert smoke.runs < cpu.runs < paper.runs == 100
    assert smoke.figure == name
    assert all(not list(contradictions(point.setting)) for point in paper.points)
    assert {point.label for point in smoke.points} == {point.label for point in paper.points}


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="known are alignment"):
        read_preset("ed2z", "cpu")


def test_a_preset_is_a_sweep_file_that_can_be_copied(tmp_path: Path):
    path = tmp_path / "ed2b.toml"
    path.write_text(sweep_files.preset_text("ed2b"))
    assert sweep_files.read_file(path, "cpu").points == read_preset("ed2b", "cpu").points
