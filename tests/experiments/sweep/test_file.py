"""Claims about sweep files: what they mean, and what is refused, with the line."""

import re
from functools import cache
from pathlib import Path

import pytest

from experiments.sweep import file
from experiments.sweep.file import SIZES, parse, presets, read_preset
from sublab import settings
from sublab.errors import InputError
from toymlp.checks import contradictions
from toymlp.settings import Setting

WHOLE = """\
title = "Two things"
measure = ["agreement"]
runs = 7
[base]
student.loss = "squared_error"
start.clone.epochs = 3
[grid]
model.aux = [2, 5]
[[list]]
label = "one"
[[list]]
label = "other"
start.kind = "matched"
[list.grid]
start.clone.learning_rate = [1e-3, 1e-2]
[baseline]
label = "one"
[size.smoke]
runs = 2
[size.smoke.base]
student.inputs.count = 256
[size.smoke.grid]
model.aux = [3]
"""
# Every key of the files that were written before settings were nested, but for those still so.
_OLD_NAMES = """
hidden activation biases teacher_optimiser teacher_batch student_network student_hidden
student_activation student_biases student_optimiser student_schedule student_batch loss inputs
images fresh alpha blur subspace clone_inputs clone_images clone_fresh clone_batch clone_optimiser
clone_schedule project_trait aux init_scale teacher_learning_rate teacher_epochs
teacher_weight_decay student_learning_rate student_epochs student_weight_decay logits temperature
logit_noise interpolation perturbation redrawn shared frozen clone_epochs clone_learning_rate
clone_horizon clone_logits interventions.frozen generations liminal_weight liminal_epochs
"""
OLD_NAMES = _OLD_NAMES.split()


def sweep_of(text: str, size: file.SizeName = "cpu", *changes: str) -> file.Sweep:
    return parse(text, "mine.toml", "mine", size, changes)


@cache
def preset(name: str, size: file.SizeName) -> file.Sweep:
    return read_preset(name, size)


def setting(**values) -> Setting:
    return settings.build(Setting, {k.replace("__", "."): v for k, v in values.items()})


def refusal(text: str, size: file.SizeName = "cpu", *changes: str) -> str:
    with pytest.raises(InputError) as refused:
        sweep_of(text, size, *changes)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_every_combination_of_the_grid_for_every_entry_of_the_list():
    sweep = sweep_of(WHOLE)
    names = ("label", "model.aux", "start.clone.learning_rate")
    assert sweep.axes == names
    assert [tuple(point.coordinates[name] for name in names) for point in sweep.points] == [
        ("one", 2, None),
        ("one", 5, None),
        ("other", 2, 1e-3),
        ("other", 2, 1e-2),
        ("other", 5, 1e-3),
        ("other", 5, 1e-2),
    ]
    assert (sweep.runs, sweep.measure, sweep.title) == (7, ("agreement",), "Two things")
    assert sweep.points[-1].setting == setting(
        student__loss="squared_error",
        model__aux=5,
        start="matched",
        start__clone__epochs=3,
        start__clone__learning_rate=1e-2,
    )


def test_a_setting_of_the_base_of_a_kind_that_a_point_has_not_is_left_out_there():
    assert sweep_of(WHOLE).points[0].setting == setting(student__loss="squared_error", model__aux=2)


def test_an_entry_goes_before_the_base_a_grid_before_both_and_a_size_before_the_file():
    text = """
[base]
model.aux = 4
student.epochs = 4
student.batch = 4
[grid]
student.epochs = [5]
[[list]]
label = "a"
model.aux = 6
student.epochs = 6
[size.smoke.base]
student.batch = 7
model.aux = 7
"""
    (point,) = sweep_of(text).points
    assert point.setting == setting(model__aux=6, student__epochs=5, student__batch=4)
    (point,) = sweep_of(text, "smoke").points
    assert point.setting == setting(model__aux=6, student__epochs=5, student__batch=7)


def test_a_baseline_is_the_entry_at_the_same_place_of_the_grid():
    sweep = sweep_of(WHOLE)
    assert [sweep.baseline_of(point) for point in sweep.points] == [
        sweep.points[i] for i in (0, 1, 0, 0, 1, 1)
    ]


def test_a_baseline_without_a_label_is_each_labels_own():
    text = "[grid]\nstart = ['reference', 'independent']\n[baseline]\nstart = 'independent'\n"
    text += "[[list]]\nlabel = 'same'\n[[list]]\nlabel = 'GELU'\nmodel.activation = 'gelu'\n"
    sweep = sweep_of(text)
    assert {point.label for point in sweep.points} == {"same", "GELU"}
    for point in sweep.points:
        baseline = sweep.baseline_of(point)
        assert baseline is not None
        assert (baseline.label, baseline.coordinates["start"]) == (point.label, "independent")


def test_a_size_changes_what_it_names_and_nothing_else():
    small = sweep_of(WHOLE, "smoke")
    assert {point.setting.model.aux for point in small.points} == {3}
    assert all(point.setting.student.inputs.count == 256 for point in small.points)
    assert all(point.setting.student.loss.kind == "squared_error" for point in small.points)
    assert small.runs == 2
    assert small.axes == ("label", "model.aux", "start.clone.learning_rate")


def test_an_entry_may_be_content_with_fewer_runs_than_the_sweep():
    sweep = sweep_of(
        "runs = 7\n[[list]]\nlabel = 'a'\n[[list]]\nlabel = 'b'\nruns = 3\nmodel.aux = 4"
    )
    assert [point.runs(sweep.runs) for point in sweep.points] == [7, 3]
    assert [point.runs(2) for point in sweep.points] == [2, 2]


def test_measurements_have_one_order_and_each_is_there_once():
    sweeps = [
        sweep_of(f"measure = {names}")
        for names in (["cka", "probe"], ["probe", "cka"], ["cka", "probe", "cka"])
    ]
    assert {sweep.measure for sweep in sweeps} == {("probe", "cka")}


def test_a_file_without_a_list_or_a_grid_is_one_point():
    (point,) = sweep_of("[base]\nmodel.aux = 4\n").points
    assert point.coordinates == {}
    assert point.setting == setting(model__aux=4)


@pytest.mark.parametrize(
    "text",
    [
        "[base]\nstudent.loss.kind = 'kl'\nstudent.loss.temperature = 2.0\nstudent.batch = 8",
        "[base.student]\nbatch = 8\nloss = { kind = 'kl', temperature = 2.0 }",
        "[base.student.loss]\ntemperature = 2.0\n[base.student]\nbatch = 8",
        "[base]\nstudent = { batch = 8, loss = { temperature = 2 } }",
        "base = { student.batch = 8, student.loss.temperature = 2.0 }",
        "[base]\n'student'.\"batch\" = 8\nstudent.loss.temperature = 2.0",
        "[base]\n[grid]\nstudent.batch = [8]\nstudent.loss.temperature = [2.0]",
        "[grid.student]\nbatch = [8]\nloss.temperature = [2.0]",
        "[[list]]\nlabel = 'a'\nstudent.batch = 8\n[list.student.loss]\ntemperature = 2.0",
        "list = [{ label = 'a', student = { batch = 8, loss = { temperature = 2.0 } } }]",
        "[size.cpu.base]\nstudent.batch = 8\n[size.cpu.grid.student.loss]\ntemperature = [2.0]",
    ],
)
def test_dotted_keys_nested_tables_and_inline_tables_say_the_same(text):
    (point,) = sweep_of(text).points
    assert point.setting == setting(student__batch=8, student__loss__temperature=2.0)


@pytest.mark.parametrize("key", ["start", "start.kind"])
def test_a_kind_is_named_with_or_without_the_word_kind(key):
    sweep = sweep_of(f"[grid]\n{key} = ['reference', 'independent']")
    assert sweep.axes == ("start",)
    assert [point.coordinates["start"] for point in sweep.points] == ["reference", "independent"]
    assert sweep_of(f"[base]\n{key} = 'matched'").points[0].setting == setting(start="matched")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[base]\nmodel.aux = 4\nmodel.auxx = 4\n", 3, "did you mean model.aux?"),
        ("[base]\n\nmodel.aux = 0\n", 3, "from 1 to 10,000"),
        ("[base]\nstudent.loss = 'kld'\n", 2, "one of cross_entropy, kl, squared_error"),
        ("[base]\nstudent.batch = 1\n[base.model]\n\naux = 0\n", 5, "from 1 to 10,000"),
        ("[base]\nmodel = { biases = true, aux = 0 }\n", 2, "from 1 to 10,000"),
        ("[grid]\nmodel.aux = 3\n", 2, "a list of one value or more"),
        ("[grid]\nmodel.aux = []\n", 2, "a list of one value or more"),
        ("[grid]\nmodel.aux = [2, 2]\n", 2, "twice"),
        ("[grid]\nmodel.hidden = [[8], [8]]\n", 2, "twice"),
        ("[grid]\n\nmodel.aux = [2, 2.5]\n", 3, "a whole number"),
        ("[grid]\nmodel.aux = [{ a = 1 }]\n", 2, "a value of a grid is a number, a text or a list"),
        ("[grid]\nstart = [{ kind = 'interpolated', weight = 0.9 }]\n", 2, "not a table"),
        ("[grid]\nstart = [{}]\n", 2, "start.kind = [...]"),
        ("[grid]\nstudent = [{ epochs = 1 }, { epochs = 2 }]\n", 2, "not a table"),
        ("[[published]]\nmean = nan\n", 2, "no number that a mean can have"),
        ("[[published]]\nmean = 0.5\nhalf_width = -1\n", 3, "half_width = -1"),
        ("[[published]]\nmean = 0.5\nn = 1\n", 3, "n = 1 is no number"),
        (
            '[grid]\nmodel.aux = [2, 3]\n[[published]]\nmean = 0.5\nat = { "model.aux" = 7 }\n',
            5,
            "no point of this sweep is at {'model.aux': 7}",
        ),
        ("[base]\nmodel.aux = 1\n", 2, "a softmax over one logit is constant"),
        (
            "[base]\nstudent.loss.temperature = 2.0\nstudent.loss.kind = 'squared_error'\n",
            2,
            "no effect at any point",
        ),
        ("[[list]]\nlabel = 'a'\nstart.size = 0.3\n", 3, "it is for start = perturbed"),
        ("[[list]]\nmodel.aux = 3\n", 1, "needs a label"),
        ("[[list]]\nlabel = ''\n", 2, "needs a label"),
        ("[[list]]\nlabel = 3\n", 2, "needs a label"),
        ("[[list]]\nlabel = 'a'\n[[list]]\nlabel = 'b'\n[[list]]\n\nlabel = 'a'", 7, "twice"),
        ("[[list]]\nlabel = 'a'\nruns = 0\n", 3, "at least 1"),
        ("[[list]]\nlabel = 'a'\nruns = true\n", 3, "a whole number"),
        ("[[list]]\nlabel = 'a'\nruns = 2.0\n", 3, "a whole number"),
        ("list = [3]\n", 1, "a list of tables"),
        ("list = []\n", 1, "an empty list"),
        ("[base]\nmodel.hidden = [256, -1]\n", 2, "a list of whole numbers"),
        ("[base]\nmodel.hidden = 256\n", 2, "a list of whole numbers"),
        (
            "[base]\nstart.kind = 'independent'\nstart.shared = ['hidden_3']\n",
            3,
            "has no part 'hidden_3'",
        ),
        ("[base]\nstudent_model.hidden = [128]\n", 2, "use independent or matched"),
        (
            "[[list]]\nlabel = 'a'\n[[list]]\nlabel = 'b'\n[list.grid]\nstart.weight = [0.1]\n",
            6,
            "it is for start = interpolated",
        ),
        (
            "[base]\nstudent.inputs.fresh = true\nstudent.inputs.kind = 'images'\n",
            2,
            "has no effect",
        ),
        ("measure = ['agreemint']\n", 1, "known are trait_loss"),
        ("measure = [3]\n", 1, "known are trait_loss"),
        ("measure = [['cka']]\n", 1, "known are trait_loss"),
        ("\n[size.paper]\nmeasure = ['agreemint']\n", 3, "known are trait_loss"),
        (
            "measure = ['alignment']\n[base]\nstudent.inputs.fresh = true\n",
            1,
            "alignment follows training step by step",
        ),
        ("runs = 0\n", 1, "at least 1"),
        ("runs = true\n", 1, "a whole number"),
        ("\n\n[size.smoke]\nruns = 0\n", 4, "at least 1"),
        ("keep = 'some'\n", 1, "one of models, nothing"),
        ("aux = 3\n", 1, "settings go below [base]"),
        ("dataset = 'digits'\n", 1, "settings go below [base]"),
        ("figure = 'ed3'\n", 1, "figure must be a table"),
        ("[figure]\npanels = [{ kind = 'pie' }]\n", 2, "pie"),
        ("[figure]\npanels = [{ kind = 'line', x = 'model.aux' }]\n", 2, "model.aux"),
        ("[figure]\nlegend = true\n", 2, "known are panels"),
        ("[baseline]\nmodel.aux = 3\n", 2, "cannot be a baseline"),
        ("[baseline]\nmodel.aux = { a = 1 }\n", 2, "cannot be a baseline"),
        ("[grid]\nmodel.aux = [2]\n[baseline]\nmodel.aux = 3\n", 4, "cannot be a baseline"),
        ("[[published]]\nmean = 0.5\nmetric = 'beauty'\n", 3, "unknown metric"),
        ("[[published]]\nmean = 'high'\n", 2, "a number"),
        ("[[published]]\nn = 3\n", 1, "needs its mean"),
        ("[[published]]\nmean = 0.5\nat = { model.aux = 3 }\n", 3, "no axis of this sweep"),
        (
            "[grid]\nmodel.aux = [3]\n[[published]]\nmean = 0.5\nat = { model.aux = '3' }\n",
            5,
            "a whole number",
        ),
        (
            "[[published]]\nmean = 0.5\n[[published]]\nmean = 0.5\nsetting = { model.aux = 0 }\n",
            5,
            "from 1 to 10,000",
        ),
        ("[size.tiny]\nruns = 3\n", 1, "known are smoke, cpu, paper"),
        ("[size.cpu]\ntitle = 'x'\n", 2, "known are runs, base, grid, measure"),
        ("size = { smoke = 3 }\n", 1, "smoke must be a table, [size.smoke]"),
        ("size = 3\n", 1, "size must be a table"),
        ("[base]\nmodel.aux = \n", None, "is not TOML"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line_and_what_would_be_right(text, line, says):
    message = refusal(text)
    assert says in message
    if line is None:
        assert message.startswith("mine.toml")
    else:
        assert message.startswith(f"mine.toml, line {line}: ")


@pytest.mark.parametrize("chosen", SIZES)
@pytest.mark.parametrize("wrong", SIZES)
@pytest.mark.parametrize(
    ("table", "value", "says"),
    [
        ("base", "model.aux = 0", "from 1 to 10,000"),
        ("grid", "model.aux = [3, 1]", "a softmax over one logit is constant"),
        ("base", "model.hidden = [8]\nstudent_model.hidden = [9]", "use independent or matched"),
    ],
)
def test_every_size_is_checked_whichever_is_chosen(chosen, wrong, table, value, says):
    text = f"runs = 2\n[size.{wrong}.{table}]\n{value}\n"
    message = refusal(text, chosen)
    assert says in message
    assert re.match(r"mine.toml, line [34]: ", message)
    sweep_of(text.replace("= 0", "= 5").replace("1]", "2]").replace("[9]", "[8]"), chosen)


def test_the_same_point_twice_is_refused():
    assert "there twice" in refusal("[[list]]\nlabel = 'a'\n[[list]]\nlabel = 'a'\n")
    text = "[grid]\nmodel.aux = [3]\n[[list]]\nlabel = 'a'\n[list.grid]\nmodel.aux = [3, 3]\n"
    assert "there twice" in refusal(text)


@pytest.mark.parametrize("name", OLD_NAMES)
@pytest.mark.parametrize("where", ["base", "grid", "set"])
def test_a_key_of_older_files_is_refused_in_one_line_with_the_new_one(name, where):
    if where == "set":
        message = refusal("", "cpu", f"{name}=1")
        assert message.startswith(f"--set {name}=1: ")
    else:
        message = refusal(f"[{where}]\n{name} = [1]\n")
        assert message.startswith("mine.toml, line 2: ")
    said = re.search(rf": {name} is called (\S+)", message)
    assert said is not None, message
    assert said[1] in settings.known(Setting)


def test_the_old_names_are_all_that_the_reader_knows():
    assert file._OLD_KEYS.keys() <= set(OLD_NAMES)
    prefixed = [n for n in OLD_NAMES if n.startswith(tuple(file._OLD_PREFIXES))]
    assert {name.split("_")[0] + "_" for name in prefixed} == file._OLD_PREFIXES.keys()


def test_a_key_that_only_looks_like_an_old_one_is_unknown():
    assert "unknown setting 'student_epoch'" in refusal("[base]\nstudent_epoch = 1\n")


def test_a_key_of_the_command_line_goes_before_base_entry_grid_and_size():
    text = """
[base]
student.epochs = 4
[grid]
model.aux = [2, 5]
[[list]]
label = "a"
student.batch = 6
[[list]]
label = "b"
[list.grid]
student.learning_rate = [0.1, 0.2]
[baseline]
model.aux = 2
[size.smoke.base]
student.epochs = 7
"""
    changes = ("student.epochs=1", "model.aux=9", "student.batch=8", "student.learning_rate=0.5")
    for size in SIZES:
        sweep = sweep_of(text, size, *changes)
        # What is set is no axis any more, and no baseline.
        assert sweep.axes == ("label",)
        assert sweep.crossed == ()
        assert sweep.baseline == {}
        expected = setting(
            student__epochs=1, model__aux=9, student__batch=8, student__learning_rate=0.5
        )
        assert [point.setting for point in sweep.points] == [expected] * 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("start.weight=0.5", "start.weight = 0.5 has no effect at any point"),
        ("student.loss.temperature=2", "no effect at any point"),
        ("model.aux=0", "from 1 to 10,000"),
        ("model.aux", "write key=value"),
        ("=3", "write key=value"),
        ("label=x", "unknown setting 'label'"),
        ("student.learning_rat=1", "did you mean"),
        ("student.inputs=noise", "one of uniform, normal"),
        ("model.hidden=8", "a list of whole numbers"),
        ("student=3", "unknown setting 'student'"),
    ],
)
def test_a_wrong_change_on_the_command_line_is_refused(change, says):
    assert says in refusal("[base]\nstudent.loss = 'squared_error'\n", "cpu", change)


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ("student.learning_rate=1e-3", "student__learning_rate", 1e-3),
        ("student.learning_rate=1", "student__learning_rate", 1.0),
        (" model.hidden = [8, 8]", "model__hidden", [8, 8]),
        ("student.inputs=images", "student__inputs", "images"),
        ("student.inputs.kind='images'", "student__inputs", "images"),
        ("order=shared", "order", "shared"),
        ("model.biases=false", "model__biases", False),
    ],
)
def test_a_value_of_the_command_line_is_toml_or_a_bare_word(change, key, value):
    assert sweep_of("", "cpu", change).points[0].setting == setting(**{key: value})


def test_a_kind_of_the_command_line_takes_what_the_base_said_of_another_kind_away():
    text = "[base]\nstudent.inputs.fresh = true\nstart.clone.epochs = 3\nstart.kind = 'matched'\n"
    (point,) = sweep_of(text, "cpu", "start=independent", "student.inputs=images").points
    assert point.setting == setting(start="independent", student__inputs="images")
    # What an entry or a grid says of it is no such thing: it would be lost without a word.
    message = refusal(f"{text}[grid]\nstart.clone.batch = [8]\n", "cpu", "start=independent")
    assert message.startswith("mine.toml, line 6: start.clone.batch has no effect")


@pytest.mark.parametrize("name", presets())
def test_settings_of_the_command_line_hold_at_every_point_of_every_preset(name):
    values = {
        "student.learning_rate": 2e-3,
        "student.epochs": 2,
        "student.batch": 48,
        "teacher.epochs": 2,
        "model.init_scale": 0.9,
        "model.aux": 7,
        "dataset": "digits",
        "classes": 4,
        "order": "shared",
    }
    changes = [f"{key}={value}" for key, value in values.items()]
    for size in ("smoke", "paper"):
        before, sweep = preset(name, size), read_preset(name, size, changes)
        assert not set(values) & set(sweep.axes)
        assert {point.label for point in sweep.points} == {point.label for point in before.points}
        for point in sweep.points:
            assert values.items() <= settings.flatten(point.setting).items()
        if not set(values) & set(before.axes):
            changed = [settings.build(Setting, values, point.setting) for point in before.points]
            assert [point.setting for point in sweep.points] == changed


def test_what_the_command_line_says_is_of_the_chosen_size_alone():
    text = "[size.smoke.base]\nmodel.hidden = [16]\n"
    for size in ("cpu", "paper"):
        (point,) = sweep_of(text, size, "student_model.hidden=[256, 256]").points
        assert point.setting.student_model.hidden == (256, 256)
    assert "use independent" in refusal(text, "smoke", "student_model.hidden=[256, 256]")


def test_what_was_published_of_an_axis_that_is_set_is_of_that_place_alone():
    text = """
[grid]
model.aux = [3, 5]
[[published]]
mean = 0.5
at = { model.aux = 5 }
"""
    (value,) = sweep_of(text).published
    assert (value.at, value.setting) == ({"model.aux": 5}, {})
    (value,) = sweep_of(text, "cpu", "model.aux=3").published
    assert (value.at, value.setting) == ({}, {"model.aux": 5})


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        file.read_file(tmp_path / "none.toml", "cpu")
    with pytest.raises(InputError, match="cannot be read"):
        file.read_file(tmp_path, "cpu")
    (tmp_path / "latin.toml").write_bytes("title = 'café'".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        file.read_file(tmp_path / "latin.toml", "cpu")


def test_the_presets_are_those_that_the_literature_asks_for():
    assert set(presets()) >= {
        "fig10b",
        "ed2b",
        "ed2c",
        "ed2d",
        "ed2e",
        "losses",
        "width",
        "depth",
        "inputs",
        "init-distance",
        "layerwise",
        "heads",
        "classes",
        "noise-budget",
        "chains",
        "alignment",
        "interventions",
        "datasets",
    }


@pytest.mark.parametrize("name", presets())
def test_every_preset_has_three_sizes_and_its_figure(name):
    smoke, cpu, paper = (preset(name, size) for size in SIZES)
    assert smoke.runs < cpu.runs < paper.runs == 100
    assert all(not list(contradictions(point.setting)) for point in paper.points)
    assert {point.label for point in smoke.points} == {point.label for point in paper.points}
    # Seconds, without a download.
    assert {point.setting.dataset for point in smoke.points} == {"digits"}


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="known are alignment"):
        read_preset("ed2z", "cpu")


def test_a_preset_is_a_sweep_file_that_can_be_copied(tmp_path: Path):
    path = tmp_path / "ed2b.toml"
    path.write_text(file.preset_text("ed2b"))
    assert file.read_file(path, "cpu").points == read_preset("ed2b", "cpu").points
