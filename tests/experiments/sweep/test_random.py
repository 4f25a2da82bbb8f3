"""Any valid setting runs, and its record makes it again. SUBLAB_SETTINGS says how many."""

import os
import tempfile
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from experiments.sweep import run as sweep_run
from experiments.sweep import store
from experiments.sweep.run import SweepOptions
from sublab import records
from sublab.settings import Key, SettingError, applicable, build, flatten, known
from tests.experiments.sweep.small import file_of, sweep, toml_of
from toymlp.checks import canonical, contradictions
from toymlp.data import load
from toymlp.measures import MEASURES, columns_of, followable
from toymlp.networks import architectures
from toymlp.settings import PREPRINT, Setting

# In the slow tier; the fast one has a few.
COUNT = int(os.environ.get("SUBLAB_SETTINGS", "12"))
FEW = 2
# Counts and lengths, from their least: more of them take longer and are no other case.
MOST = 128
WIDEST = 16
# The data set that needs no download.
DATA = {"dataset": "digits"}
KEYS = known(Setting)
PARTS = architectures(PREPRINT)[1].parts


def values(key: Key) -> st.SearchStrategy[Any]:
    """Values of a key, small where large ones would only take long."""
    kind, optional = _bare(key.type)
    limits = key.metadata
    if key.is_kind:
        return st.sampled_from([item.kind for item in get_args(key.type)])
    if get_origin(kind) is tuple and get_args(kind)[0] is int:
        least = limits.get("least", 0)
        drawn = st.lists(st.integers(limits["low"], WIDEST), min_size=least, max_size=3)
    elif get_origin(kind) is tuple:
        drawn = st.lists(st.sampled_from(PARTS), unique=True, max_size=len(PARTS) - 1)
    elif get_origin(kind) is Literal:
        drawn = st.sampled_from(get_args(kind))
    elif kind is bool:
        drawn = st.booleans()
    elif kind is int:
        most = MOST if key.default > 10 else key.default + 3
        drawn = st.integers(limits["low"], min(limits["high"], most))
    elif kind is float:
        low = 1e-3 if limits.get("low") is None else limits["low"]
        # Learning rates from useful to hopeless: a model that diverges is a result too.
        drawn = st.floats(low, min(limits["high"], 10.0)).filter(lambda x: x == 0 or x > 1e-6)
    else:
        raise AssertionError(f"{key.name}: {key.type}")
    return st.none() | drawn if optional else drawn


def _bare(hint: Any) -> tuple[Any, bool]:
    """A type without its None, and whether it had one."""
    parts = get_args(hint)
    if NoneType not in parts:
        return hint, False
    (rest,) = (part for part in parts if part is not NoneType)
    return rest, True


@cache
def usual() -> dict[str, Any]:
    """What every setting has, unless something else is drawn: what would take long, made small."""
    large = {
        name: MOST
        for name, key in KEYS.items()
        if key.type is int and isinstance(key.default, int) and key.default > MOST
    }
    return DATA | large | {"model.hidden": [WIDEST, WIDEST]}


def drawable() -> list[str]:
    """The keys whose values are drawn: all but the data set, and what is only left out."""
    return [name for name, key in KEYS.items() if name not in DATA and _is_value(key)]


def _is_value(key: Key) -> bool:
    return key.is_kind or get_args(key.type) == () or not _holds_a_setting(key)


def _holds_a_setting(key: Key) -> bool:
    return any(hasattr(part, "__dataclass_fields__") for part in get_args(key.type))


@st.composite
def any_values(draw) -> dict[str, Any]:
    """Values of some keys."""
    names = draw(st.lists(st.sampled_from(drawable()), unique=True, min_size=3, max_size=12))
    return {name: draw(values(KEYS[name])) for name in names}


def setting_of(chosen: dict[str, Any]) -> Setting:
    """A valid setting with these values, without those that contradict the rest."""
    chosen = dict(chosen)
    while True:
        setting, error = _tried(chosen)
        if error is None:
            assert setting is not None
            return setting
        wrong = [name for name in error.keys if name in chosen]
        assume(wrong)
        del chosen[wrong[0]]


def _tried(chosen: dict[str, Any]) -> tuple[Setting | None, SettingError | None]:
    wanted = usual() | chosen
    there = applicable(Setting, wanted)
    try:
        setting = build(Setting, {name: wanted[name] for name in there})
    except SettingError as error:
        return None, error
    return setting, next(contradictions(setting), None)


def one_line(setting: Setting) -> Setting:
    """The setting in its one spelling."""
    labels = load("digits").train_labels
    images = int(np.sum(labels < setting.classes)) if setting.classes else len(labels)
    return canonical(setting, images)


def runs_and_is_recorded(setting: Setting, measure: list[str]) -> None:
    """Asserts that a setting runs, and that its record says how to run it again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outcome = sweep(folder, f"measure = {measure}\n{toml_of(setting)}", runs=1)
        assert outcome.failures == ()
        (record,) = records.read_all(folder / "out", store.STUDENTS)
        recorded = build(Setting, record.config["setting"])
        assert recorded == one_line(setting)
        file_of(folder, f"measure = {measure}\n{toml_of(recorded)}")
        again = sweep_run.dry_run(
            SweepOptions(file=folder / "small.toml", runs=1, out=folder / "out")
        )
    assert (again.recorded, again.total) == (1, 1)
    assert record.config["run"] == 0
    (row,) = record.table.to_dicts()
    assert set(columns_of(measure)) <= set(row)
    assert 0 <= row["accuracy"] <= 1
    assert {key: records.cell(value) for key, value in flatten(recorded).items()}.items() <= (
        row.items()
    )


def measurements(setting: Setting) -> st.SearchStrategy[list[str]]:
    """Measurements that can be made of a setting."""
    known_ones = [
        name for name, measure in MEASURES.items() if not (measure.follows and followable(setting))
    ]
    return st.lists(st.sampled_from(known_ones), unique=True, max_size=3)


def test_every_key_is_drawn_and_every_value_of_it_is_allowed():
    assert set(drawable()) == set(KEYS) - {"dataset", "interventions.liminal"}
    for name in drawable():
        assert values(KEYS[name]) is not None
    assert usual().keys() <= KEYS.keys()


_CHECKS = [HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large]


@given_settings(max_examples=FEW, suppress_health_check=_CHECKS)
@given(chosen=any_values(), data=st.data())
def test_a_valid_setting_runs_and_its_record_says_how_to_run_it_again(chosen, data):
    setting = setting_of(chosen)
    runs_and_is_recorded(setting, data.draw(measurements(setting)))


@pytest.mark.slow
@given_settings(max_examples=COUNT, suppress_health_check=_CHECKS)
@given(chosen=any_values(), data=st.data())
def test_any_valid_setting_runs_and_its_record_says_how_to_run_it_again(chosen, data):
    setting = setting_of(chosen)
    runs_and_is_recorded(setting, data.draw(measurements(setting)))
