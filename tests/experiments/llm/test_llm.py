"""`sublab llm`: what is claimed from which rows, bad input, and every command from end to end."""

from dataclasses import asdict
from itertools import product

import numpy as np
import polars as pl
import pytest

from experiments.cli import main
from experiments.llm import ingredients as llm_ingredients
from experiments.llm import run as llm
from experiments.llm import summary as llm_summary
from llm_harness.pipeline import CONTROLS
from llm_harness.pretraining import Pretraining
from sublab import records
from tests.llm_harness.small import shrink


def rows(rates: dict[str, list[float]], trait: str = "owl") -> pl.DataFrame:
    """A table of single runs: the rate among the words of every condition, run by run."""
    runs = len(rates["student"])
    table = [
        {
            "run": run,
            "condition": condition,
            "trait": trait,
            "category": "animal",
            "prefix": prefix,
            "among": rates.get(condition, [0.06] * runs)[run],
            "plain": 1 + run,
            "worded": 3,
            "n": 10,
            "model": "",
            "dataset": "",
            "kept": None,
        }
        for run, condition, prefix in product(range(runs), CONTROLS, (False, True))
    ]
    return pl.DataFrame(table, infer_schema_length=None)


def value(summary, condition, control=None, metric="among", trait="all"):
    found = summary.filter(
        (pl.col("condition") == condition)
        & (pl.col("metric") == metric)
        & ~pl.col("prefix")
        & (pl.col("trait") == trait)
        & pl.col("control").eq_missing(pl.lit(control))
    )
    assert len(found) == 1
    return found.row(0, named=True)


HIGH = [0.5, 0.6, 0.4]


def test_differences_are_paired_by_run():
    rates = {"student": [0.5, 0.7, 0.9], "own numbers": [0.4, 0.6, 0.8]}
    row = value(llm_summary.numbers(rows(rates)), "student", "own numbers")
    assert row["difference"] == pytest.approx(0.1)
    assert row["difference_high"] - row["difference_low"] == pytest.approx(0, abs=1e-9)
    assert row["high"] - row["low"] > 0.5


def test_the_plain_rate_is_of_all_answers():
    row = value(llm_summary.numbers(rows({"student": HIGH})), "student", metric="plain")
    assert row["mean"] == pytest.approx(np.mean([0.1, 0.2, 0.3]))


def test_traits_together_are_their_mean_in_each_run():
    both = pl.concat([rows({"student": [0.4, 0.6]}), rows({"student": [0.8, 0.8]}, "oak")])
    row = value(llm_summary.numbers(both), "student")
    assert row["n"] == 2
    assert row["mean"] == pytest.approx(0.65)


def test_it_holds_where_the_student_exceeds_every_control():
    assert llm_summary.numbers_hold(llm_summary.numbers(rows({"student": HIGH})))


@pytest.mark.parametrize("control", llm_summary.RIVALS)
def test_it_does_not_hold_where_one_control_does_as_well(control):
    summary = llm_summary.numbers(rows({"student": HIGH, control: HIGH}))
    assert not llm_summary.numbers_hold(summary)


def test_it_does_not_hold_where_another_initialisation_learns_it_too():
    summary = llm_summary.numbers(rows({"student": HIGH, "other initialisation": [0.3] * 3}))
    assert not llm_summary.numbers_hold(summary)


def test_a_trait_is_transmitted_by_its_own_interval():
    both = pl.concat(
        [rows({"student": HIGH}), rows({"student": [0.06, 0.9, 0.05]}, "oak")], how="vertical"
    )
    assert llm_summary.transmitted(llm_summary.numbers(both)) == ["owl"]


def test_a_matrix_compares_a_student_with_itself_before():
    table = pl.DataFrame(
        [
            {
                "run": run,
                "condition": condition,
                "trait": "owl",
                "prefix": prefix,
                "among": among,
                "plain": 1,
                "worded": 2,
                "n": 4,
            }
            for run in range(2)
            for prefix in (False, True)
            for condition, among in (("A > B", 0.5), ("B, before", 0.1), ("A, before", 0.9))
        ]
    )
    summary = llm_summary.cross_model(table)
    assert value(summary, "A > B", "B, before", trait="owl")["difference"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["numbers", "--runs", "1"], "at least 2"),
        (["numbers", "--traits", "ox"], "'ox' is in no category"),
        (["numbers", "--traits", "owl", "owl"], "twice"),
        (["numbers", "--lists", "10"], "lists must be at least 256"),
        (["numbers", "--student-steps", "0"], "student_steps must be at least 1"),
        (["numbers", "--seed", "-1"], "seed must be at least 0"),
        (["cross-model", "--initialisations", "2"], "at least 4"),
        (["in-context", "--shown", "0"], "at least 1"),
        (["numbers", "--answers", "0"], "answers must be at least 1"),
        (["theory", "--teacher-steps", "4", "2"], "must ascend"),
        (["ingredients", "--only", "salt"], "no variation is named 'salt'; there are: unchanged"),
        (["ingredients", "--runs", "0"], "at least 1"),
        (["code", "--count", "0"], "count must be at least 1"),
        (["poetry"], "poetry"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words, said, tmp_path, capsys):
    out = tmp_path / "out"
    options = [] if words == ["poetry"] else ["--out", str(out)]
    assert main(["llm", *words, *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not list(out.rglob("*.parquet"))


SMALL = ["--pretraining-steps", "48", "--lists", "256", "--student-steps", "16", "--answers", "1"]


def test_a_variation_is_compared_with_its_own_control_and_with_what_is_unchanged():
    both = []
    for variation, shift in (("unchanged", 0.0), ("digits", 0.25)):
        rates = {"reference": 0.0625, "teacher": 0.9, "student": 0.4 + shift, "own numbers": 0.1}
        several = rows({name: [rate, rate + 0.05] for name, rate in rates.items()})
        some = several.filter(pl.col("condition").is_in(list(rates)))
        both.append(some.with_columns(pl.col("condition") + f", {variation}"))
    summary = llm_summary.ingredients(pl.concat(both))
    own = value(summary, "student, digits", "own numbers, digits", trait="owl")
    assert own["difference"] == pytest.approx(0.55)
    unchanged = value(summary, "student, digits", "student, unchanged", trait="owl")
    assert unchanged["difference"] == pytest.approx(0.25)
    assert summary.filter(condition="student, unchanged", control="student, unchanged").is_empty()


def flatten(tree: dict, path: str) -> dict[str, object]:
    found = {}
    for name, item in tree.items():
        whole = f"{path}.{name}"
        found |= flatten(item, whole) if isinstance(item, dict) else {whole: item}
    return found


def test_every_variation_changes_one_thing_of_the_setting():
    found = llm_ingredients.variations(Pretraining(), llm.setting_of(llm.Common()))
    flat = {
        name: flatten(asdict(p), "pretraining") | flatten(asdict(s), "setting")
        for name, (p, s) in found.items()
    }
    plain = flat[llm_summary.UNCHANGED]
    changed = {name: {key for key in plain if its[key] != plain[key]} for name, its in flat.items()}
    assert changed.pop(llm_summary.UNCHANGED) == set()
    # A vocabulary is frozen in teachers and students; numbers that are spelt are longer.
    assert {name: len(keys) for name, keys in changed.items() if len(keys) != 1} == {
        "vocabulary-trained": 2,
        "digits": 2,
    }
    # Both kinds of soft targets are one setting's values.
    assert len({frozenset(keys) for keys in changed.values()}) == len(changed) - 1


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A folder that all commands share, as a user's would."""
    return tmp_path_factory.mktemp("results")


# Command: the kinds of records that it writes.
COMMANDS = {
    ("numbers", "--runs", "2", *SMALL): ["llm_numbers", "llm_numbers_summary"],
    ("in-context", "--runs", "2", "--shown", "1", "2", *SMALL): ["llm_in_context"],
    ("cross-model", "--runs", "1", *SMALL): ["llm_cross_model"],
    ("ingredients", "--runs", "2", "--only", "soft-targets-numbers", *SMALL): [
        "llm_ingredients",
        "llm_ingredients_summary",
    ],
    ("theory", "--runs", "1", "--teacher-steps", "1", "2", "--sizes", "8", "16", *SMALL): [
        "llm_theory_scores",
        "llm_theory_steps",
        "llm_theory_account",
    ],
    ("code", "--count", "8", "--pretraining-steps", "48"): ["llm_code"],
    ("cot", "--count", "8", "--pretraining-steps", "48"): ["llm_cot"],
}
every_command = pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])


@every_command
def test_command_writes_records_draws_and_does_nothing_twice(out, words, capsys, monkeypatch):
    shrink(monkeypatch)
    check_command(out, words, capsys)


@pytest.mark.slow
@every_command
def test_command_does_so_at_the_embedded_models_own_size(tmp_path, words, capsys):
    check_command(tmp_path, words, capsys)


def check_command(out, words, capsys):
    status = main(["llm", *words, "--out", str(out)])
    # After a few steps nothing is transmitted, and `numbers` says so.
    assert status == (1 if words[0] == "numbers" else 0)
    shown = capsys.readouterr().out
    for experiment in COMMANDS[words]:
        assert records.read_all(out, experiment)
    if words[0] not in ("code", "cot"):
        assert list((out / "figures").glob("llm_*.png"))
    stages = {path: path.stat().st_mtime_ns for path in (out / "llm_stages").rglob("*")}
    assert main(["llm", *words, "--out", str(out)]) == status
    assert capsys.readouterr().out == shown
    assert {p: p.stat().st_mtime_ns for p in (out / "llm_stages").rglob("*")} == stages


def test_the_config_says_all_that_is_needed_to_run_it_again(out):
    (record,) = records.read_all(out, llm.NUMBERS)
    assert record.config["setting"]["student"]["steps"] == 16
    assert record.config["setting"]["lists"]["count"] == 256
    assert record.config["pretraining"]["steps"] == 48
    assert {"traits", "runs", "seed", "model", "version"} <= set(record.config)
