"""Any valid setting runs, and its record makes it again. SUBLAB_SETTINGS says how many."""

import json
import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from experiments.sweep import run as sweep
from sublab import records
from toymlp import rules
from toymlp.accounts import followable
from toymlp.measures import FOLLOWED, MEASURES
from toymlp.settings import DEFAULTS, FIELDS, TYPES, Setting, checked_value, from_dict

COUNT = int(os.environ.get("SUBLAB_SETTINGS", "6"))
# Where the whole range would take long: a few values, and all kinds of everything else.
_SMALL = {
    "dataset": ["digits"],
    "classes": [0, 2, 10],
    "hidden": [[16, 16], [16], [], [8, 16, 16]],
    "student_hidden": [[16, 16], [16], [8, 16]],
    "images": [100, 128],
    "clone_images": [100],
    "teacher_batch": [0, 64],
    "student_batch": [32, 64, 1000],
    "clone_batch": [32],
    "subspace": [1, 64],
    "aux": [1, 3, 12, 70],
    "teacher_epochs": [0, 1],
    "student_epochs": [0, 1, 2],
    "clone_epochs": [0, 1, 2],
    "clone_horizon": [2, 5],
    "generations": [1, 2],
    "liminal_epochs": [0, 1],
    "redrawn": [["hidden_1"], ["class_head", "aux_head"]],
    "shared": [[], ["class_head"], ["aux_head", "hidden_1"]],
    "frozen": [[], ["class_head"], ["hidden_1"]],
}  # fmt: skip


def values(name: str):
    if name in _SMALL:
        return st.sampled_from(_SMALL[name])
    kind = TYPES[name]
    limits = FIELDS[name].metadata
    if kind is bool:
        return st.booleans()
    if kind is float:
        low = limits["low"] if limits["above"] is None else 1e-3
        # Learning rates from useful to hopeless: a model that diverges is a result too.
        high = min(limits["high"], 10.0 if "rate" in name else 20.0)
        return st.floats(low, high).filter(lambda x: x == 0 or x > 1e-6)
    choices = getattr(kind, "__args__", ())
    flat = [v for c in choices for v in (getattr(c, "__args__", None) or [c])]
    named = [v for v in flat if isinstance(v, str)]
    return st.sampled_from(named or [True, False])


@st.composite
def some_values(draw) -> dict:
    """A few settings away from their defaults."""
    always = {name: draw(values(name)) for name in _SMALL if name in (
        "dataset", "hidden", "images", "clone_images", "student_batch", "clone_batch",
        "teacher_epochs", "student_epochs", "clone_epochs", "clone_horizon", "aux",
    )}  # fmt: skip
    names = draw(st.lists(st.sampled_from(sorted(set(DEFAULTS) - set(always))), unique=True))
    return always | {name: draw(values(name)) for name in names}


def setting_of(chosen: dict) -> Setting:
    """The setting, without what has no effect; not one with a contradiction."""
    setting = from_dict(chosen)
    useless = rules.idle(setting)
    setting = from_dict({name: value for name, value in chosen.items() if name not in useless})
    assume(not list(rules.contradictions(setting)))
    return setting


def file_of(setting: Setting, measure: list[str]) -> str:
    defaults = Setting().as_dict()
    lines = [
        f"{name} = {json.dumps(value)}"
        for name, value in setting.as_dict().items()
        if value != defaults[name]
    ]
    return f"measure = {json.dumps(measure)}\n[base]\n" + "\n".join(lines) + "\n"


@settings(
    max_examples=COUNT, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
@given(chosen=some_values(), data=st.data())
def test_any_valid_setting_runs_and_its_record_says_how_to_run_it_again(chosen, data):
    setting = setting_of(chosen)
    known = [name for name in MEASURES if name not in FOLLOWED or not followable(setting)]
    measure = data.draw(st.lists(st.sampled_from(known), unique=True, max_size=3))
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "any.toml", Path(folder) / "out"
        path.write_text(file_of(setting, measure))
        outcome = sweep.run(sweep.Options(file=path, runs=2, out=out))
        assert outcome.failures == ()
        (record,) = records.read_all(out, sweep.STUDENTS)
    assert from_dict(record.config["setting"]) == setting
    assert record.config["runs"] == [0, 1]
    assert set(record.config["measure"]) == set(measure)
    assert len(record.table) == 2
    assert record.table["accuracy"].is_between(0, 1).all()
    for name, value in setting.as_dict().items():
        shown = "-".join(map(str, value)) if isinstance(value, list) else value
        assert record.table[name].to_list() == [shown] * 2
        assert checked_value(name, value) is not None or value is None
