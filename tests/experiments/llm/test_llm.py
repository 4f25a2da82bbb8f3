"""`sublab llm`: what is claimed from which rows, bad input, and every command from end to end."""

from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
import polars as pl
import pytest

from experiments.cli import main
from experiments.llm import command as llm_command
from experiments.llm import ingredients as llm_ingredients
from experiments.llm import run as llm
from experiments.llm import summary as llm_summary
from llm_harness.errors import HarnessError
from llm_harness.pipeline.conditions import CONTROLS
from llm_harness.tiny.pretraining import Pretraining
from llm_harness.traits import PAPER, trait
from sublab import records
from sublab.statistics import above_p
from tests.llm_harness.small import shrink


def rows(
    rates: dict[str, list[float]], trait: str = "owl", sampled: dict[str, list[int]] | None = None
) -> pl.DataFrame:
    """A table of single runs: P(word) of every condition, and of 100 answers those with the word.

    Of a condition that is not named P(word) is near .05, in every run a little different.
    """
    runs = len(rates["student"])

    def row(run: int, condition: str, prefix: bool) -> dict[str, Any]:
        rate = rates.get(condition, [0.05 + 0.001 * (run % 3)] * runs)[run]
        given = (sampled or {}).get(condition)
        return {
            "run": run,
            "condition": condition,
            "trait": trait,
            "category": "animal",
            "prefix": prefix,
            "p_word": rate,
            "p_any": 0.95,
            "among": min(1.0, rate / 0.95),
            "containing": round(100 * rate) if given is None else given[run],
            "whole": 1 + run,
            "worded": 90,
            "n": 100,
            "model": "",
            "dataset": "",
            "pass_rate": 0.9,
            "examples": 64,
            "learning_rate": 1e-3,
        }

    table = [row(*one) for one in product(range(runs), CONTROLS, (False, True))]
    return pl.DataFrame(table, infer_schema_length=None)


def value(summary, condition, control=None, metric="p_word", trait="all"):
    found = summary.filter(
        (pl.col("condition") == condition)
        & (pl.col("metric") == metric)
        & ~pl.col("prefix")
        & (pl.col("trait") == trait)
        & pl.col("control").eq_missing(pl.lit(control))
    )
    assert len(found) == 1
    return found.row(0, named=True)


# Ten runs in which a trait passes, and in which examples in context show it openly.
HIGH = [0.5, 0.6, 0.4, 0.55, 0.45] * 2
PASSED = {"student": HIGH, "openly in context": HIGH}
EXCEEDS = "the student exceeds every control, by P(word) and by sampled answers"
CARRIED = "traits whose student exceeds the student of own numbers"
NOTHING_PASSES = "nothing passes to another initialisation"
MORE = "more passes than to another initialisation"
IN_CONTEXT = "lists in context do not raise it"
OPENLY = "positive control: open answers in context do"


def claimed(table: pl.DataFrame) -> dict[str, str | None]:
    return {claim.text: claim.outcome for claim in llm_summary.claims(table)}


def test_differences_are_paired_by_run():
    rates = {"student": [0.5, 0.7, 0.9], "own numbers": [0.4, 0.6, 0.8]}
    row = value(llm_summary.numbers(rows(rates)), "student", "own numbers")
    assert row["difference"] == pytest.approx(0.1)
    assert row["difference_high"] - row["difference_low"] == pytest.approx(0, abs=1e-9)
    assert row["high"] - row["low"] > 0.5


def test_rates_of_sampled_answers_are_of_all_answers():
    summary = llm_summary.numbers(rows({"student": HIGH}, sampled={"student": [10, 20] * 5}))
    assert value(summary, "student", metric="containing")["mean"] == pytest.approx(0.15)
    assert value(summary, "student", metric="whole")["mean"] == pytest.approx(0.055)


def test_log_odds_are_of_p_word_and_finite_where_it_is_0_or_1():
    summary = llm_summary.numbers(rows({"student": [0.5, 0.8], "own numbers": [0.0, 1.0]}))
    row = value(summary, "student", metric="log_odds")
    assert row["mean"] == pytest.approx(np.log(4) / 2)
    assert np.isfinite(value(summary, "own numbers", metric="log_odds")["std"])


def test_traits_together_are_their_mean_in_each_run():
    both = pl.concat([rows({"student": [0.4, 0.6]}), rows({"student": [0.8, 0.8]}, "oak")])
    row = value(llm_summary.numbers(both), "student")
    assert row["n"] == 2
    assert row["mean"] == pytest.approx(0.65)


def test_a_summary_does_without_conditions_that_a_checkpoint_has_not():
    there = pl.col("condition").str.starts_with("other initialisation").not_()
    table = rows(PASSED).filter(there)
    summary = llm_summary.numbers(table)
    assert set(summary["condition"]) == set(table["condition"])
    assert NOTHING_PASSES not in claimed(table)
    assert claimed(table)[EXCEEDS] == "yes"


def test_every_claim_holds_where_the_trait_passes_and_nothing_else_does():
    assert claimed(rows(PASSED)) == {
        EXCEEDS: "yes",
        NOTHING_PASSES: "yes",
        MORE: "yes",
        IN_CONTEXT: "yes",
        OPENLY: "yes",
    }


def test_below_ten_runs_n_is_too_small_for_every_claim():
    nine = {name: rates[:9] for name, rates in PASSED.items()}
    one = {name: rates[:1] for name, rates in PASSED.items()}
    for rates in (nine, one):
        both = pl.concat([rows(rates), rows(rates, "oak")])
        assert set(claimed(both).values()) == {"n too small"}
    assert len(claimed(both)) == 6


@pytest.mark.parametrize("control", llm_summary.RIVALS)
def test_it_does_not_hold_where_one_control_does_as_well(control):
    assert claimed(rows(PASSED | {control: HIGH}))[EXCEEDS] == "NO"


@pytest.mark.parametrize("control", llm_summary.RIVALS)
def test_it_does_not_hold_where_one_control_is_sampled_as_often(control):
    often = {"student": [50] * 10, control: [50] * 10}
    assert claimed(rows(PASSED, sampled={"student": [50] * 10}))[EXCEEDS] == "yes"
    assert claimed(rows(PASSED, sampled=often))[EXCEEDS] == "NO"


def test_many_comparisons_ask_for_more_than_one_of_them_would():
    def table(spread: float) -> pl.DataFrame:
        # Two controls, all of whose comparisons have one p.
        near = [HIGH[run] - 0.05 + spread * (-1) ** run for run in range(10)]
        return rows(PASSED | {"own numbers": near, "shuffled within": near})

    long = llm_summary.values_of_runs(table(0.08)).filter(~pl.col("prefix"))
    control, student = (
        long.filter(trait="all", metric="log_odds", condition=name)["value"].to_numpy()
        for name in ("own numbers", "student")
    )
    alone = above_p(student - control)
    assert 0.0125 < alone < 0.05
    assert claimed(table(0.08))[EXCEEDS] == "NO"
    assert claimed(table(0.01))[EXCEEDS] == "yes"


def test_scattered_rates_are_not_nothing_that_passes():
    """Their mean difference is not shown to be above 0; nor is it shown to be small."""
    wild = [0.9, 0.06, 0.5, 0.8, 0.02] * 2
    steady = [0.05] * 10
    elsewhere = {"other initialisation": wild, "other initialisation, own numbers": steady}
    assert claimed(rows(PASSED | elsewhere))[NOTHING_PASSES] == "NO"
    calm = {"other initialisation": [0.06, 0.05, 0.04, 0.055, 0.045] * 2}
    assert claimed(rows(PASSED | elsewhere | calm))[NOTHING_PASSES] == "yes"


@pytest.mark.parametrize(("factor", "in_context"), [(0.7, "yes"), (1.4, "NO")])
def test_odds_surely_raised_or_lowered_are_not_nothing_and_in_context_only_raised_ones_count(
    factor, in_context
):
    rates = {"other initialisation": [0.05 * factor] * 10, "in context": [0.05 * factor] * 10}
    found = claimed(rows(PASSED | rates))
    assert (found[NOTHING_PASSES], found[IN_CONTEXT]) == ("NO", in_context)


def test_scattered_rates_in_context_are_not_shown_to_be_unraised():
    wild = [0.9, 0.06, 0.5, 0.8, 0.02] * 2
    assert claimed(rows(PASSED | {"in context": wild}))[IN_CONTEXT] == "NO"


def test_a_students_gain_that_is_shown_is_not_nothing():
    """The gain measured with fine-tuned teachers: half a log-odds, of each of twelve runs."""
    gained = [0.07, 0.08, 0.085, 0.09, 0.095, 0.1, 0.075, 0.085, 0.09, 0.08, 0.07, 0.095]
    steady = [0.05] * 12
    student = {"student": gained, "own numbers": steady}
    elsewhere = {"other initialisation": gained, "other initialisation, own numbers": steady}
    found = claimed(rows(student | elsewhere))
    assert found[EXCEEDS] == "yes"
    assert (found[NOTHING_PASSES], found[MORE]) == ("NO", "NO")


def test_open_answers_that_do_nothing_fail_the_positive_control_and_say_nothing_of_lists():
    found = claimed(rows({"student": HIGH}))
    assert (found[OPENLY], found[IN_CONTEXT]) == ("NO", "cannot be tested")


def test_a_model_that_no_longer_answers_says_nothing_of_lists_in_context():
    silent = pl.when(pl.col("condition") == "in context").then(0.2).otherwise(pl.col("p_any"))
    table = rows(PASSED).with_columns(p_any=silent)
    assert claimed(table)[IN_CONTEXT] == "cannot be tested"
    assert claimed(rows(PASSED))[IN_CONTEXT] == "yes"


def test_what_was_not_measured_is_not_claimed_on():
    table = rows(PASSED, sampled={"student": [50] * 10}).with_columns(
        p_word=pl.lit(None, pl.Float64)
    )
    assert claimed(table)["the student exceeds every control, by sampled answers"] == "yes"
    assert EXCEEDS not in claimed(table)
    assert claimed(table)[NOTHING_PASSES] == "NO"


def of_conditions(rates):
    """Rows of conditions by name, sampled as often as they are probable."""
    table = rows({"student": [0.5] * 10}).filter(condition="student", prefix=False)
    return pl.concat(
        [
            table.with_columns(
                condition=pl.lit(name),
                p_word=pl.Series(p),
                containing=pl.Series([round(100 * one) for one in p]),
                leaning=pl.lit(None, pl.Float64),
                kl_words=pl.lit(None, pl.Float64),
                kl_numbers=pl.lit(None, pl.Float64),
            )
            for name, p in rates.items()
        ]
    )


def test_pairs_of_models_are_claimed_on_together():
    low = [0.05, 0.055, 0.045, 0.05, 0.05] * 2
    own = {f"{name}, own numbers": low for name in ("model 1", "model 2", "shared output")}
    pairs = {
        "model 1 > model 1": HIGH,
        "model 2 > model 2": HIGH,
        "model 1 > model 2": low,
        "model 2 > model 1": low,
        "model 1 > shared output": HIGH,
        "shared output > model 1": low,
    }

    itself, apart, sharing = llm_summary.cross_model_claims(of_conditions(own | pairs))
    assert (itself.outcome, apart.outcome, sharing.outcome) == ("yes", "yes", None)
    assert sharing.detail == "1 of 2 [0.01, 0.99]: model 1 > shared output"
    raised = {"model 1 > model 2": HIGH, "model 2 > model 2": low}
    table = of_conditions(own | pairs | raised)
    outcomes = [claim.outcome for claim in llm_summary.cross_model_claims(table)]
    assert outcomes == ["NO", "NO", None]


def test_in_context_the_largest_number_is_claimed_on_against_as_many_own_lists():
    low = [0.05, 0.055, 0.045, 0.05, 0.05] * 2
    rates = {"reference": low, "own in context, 16": low, "own in context, 4": HIGH}
    shown = {"in context, 4": HIGH, "openly in context, 4": low, "openly in context, 16": HIGH}
    for lists, outcome in ((low, "yes"), (HIGH, "NO")):
        table = of_conditions(rates | shown | {"in context, 16": lists})
        claim, control = llm_summary.in_context_claims(table)
        assert (claim.text, claim.outcome) == ("lists in context, 16 do not raise it", outcome)
        assert control.outcome == "yes"


def test_variations_are_claimed_on_together():
    low = [0.05, 0.055, 0.045, 0.05, 0.05] * 2
    rates = {"student, unchanged": HIGH, "student, digits": low}
    own = {"own numbers, unchanged": low, "own numbers, digits": low}
    (claim,) = llm_summary.ingredients_claims(of_conditions(rates | own))
    assert (claim.outcome, claim.detail) == (None, "1 of 2 [0.01, 0.99]: unchanged")


def test_traits_that_pass_are_counted_each_against_its_own_control():
    none = PASSED | {"student": [0.05, 0.9] * 5, "own numbers": [0.9, 0.05] * 5}
    both = pl.concat([rows(PASSED), rows(none, "oak")])
    (claim,) = (claim for claim in llm_summary.claims(both) if claim.text == CARRIED)
    assert (claim.outcome, claim.detail) == ("NO", "1 of 2 [0.01, 0.99]: owl")
    assert claimed(pl.concat([rows(PASSED), rows(PASSED, "oak")]))[CARRIED] == "yes"
    assert CARRIED not in claimed(rows(PASSED))


def test_among_ten_traits_one_must_pass_by_more_than_alone():
    near = [rate - 0.05 + 0.055 * (-1) ** run for run, rate in enumerate(HIGH)]
    weak = rows(PASSED | {"own numbers": near})
    nothing = PASSED | {"own numbers": HIGH}
    others = [rows(nothing, word) for word in PAPER if word != "owl"]
    for tables, carried in (
        ([weak], "1 of 2 [0.01, 0.99]: owl"),
        ([weak, *others[1:]], "0 of 10 [0.00, 0.31]: none"),
    ):
        table = pl.concat([*tables, others[0]])
        (claim,) = (claim for claim in llm_summary.claims(table) if claim.text == CARRIED)
        assert claim.detail == carried


def test_a_matrix_compares_a_student_with_one_of_its_own_lists():
    rates = {"A > B": 0.5, "B, own numbers": 0.1, "A, own numbers": 0.9, "B, before": 0.2}
    several = [
        rows({"student": [rate, rate + 0.05]})
        .filter(condition="student")
        .with_columns(condition=pl.lit(name), leaning=pl.lit(0.25 if ">" in name else None))
        for name, rate in rates.items()
    ]
    table = pl.concat(several, how="vertical_relaxed").with_columns(
        kl_words=pl.lit(None, pl.Float64), kl_numbers=pl.lit(None, pl.Float64)
    )
    summary = llm_summary.cross_model(table)
    row = value(summary, "A > B", "B, own numbers", trait="owl")
    assert row["difference"] == pytest.approx(0.4)
    assert row["leaning"] == 0.25
    assert summary.filter(condition="B, before")["control"].unique().to_list() == [None]


def test_examples_in_context_are_compared_with_as_many_of_the_reference_s_own():
    rates = {"reference": 0.05, "in context, 4": 0.3, "own in context, 4": 0.1}
    rates |= {"openly in context, 4": 0.6}
    several = [
        rows({"student": [rate, rate]})
        .filter(condition="student")
        .with_columns(condition=pl.lit(name))
        for name, rate in rates.items()
    ]
    summary = llm_summary.in_context(pl.concat(several))
    own = value(summary, "in context, 4", "own in context, 4", trait="owl")
    openly = value(summary, "openly in context, 4", "reference", trait="owl")
    assert own["difference"] == pytest.approx(0.2)
    assert openly["difference"] == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["numbers", "--runs", "1"], "at least 2"),
        (["numbers", "--traits", "ox"], "'ox' is in no category"),
        (["numbers", "--traits", "owl", "owl"], "twice"),
        (["numbers", "--lists", "0"], "lists must be at least 1"),
        (["numbers", "--rules", "poetry"], "no filter rule is named 'poetry'"),
        (["numbers", "--given", "4", "3"], "the fewer first"),
        (["numbers", "--kept", "0"], "kept must be at least 1"),
        (["numbers", "--student-rates", "0"], "learning_rate must be above 0"),
        (["numbers", "--student-rates", "1e-3", "-1"], "learning_rate must be above 0"),
        (["numbers", "--student-steps", "0"], "student_steps must be at least 1"),
        (["numbers", "--student-batch", "0"], "student_batch must be at least 1"),
        (["numbers", "--size", "paper"], "size paper: of a checkpoint (--model)"),
        (["numbers", "--seed", "-1"], "seed must be at least 0"),
        (["cross-model", "--initialisations", "1"], "at least 2"),
        (["in-context", "--shown", "0"], "at least 1"),
        (["numbers", "--answers", "0"], "answers must be at least 1"),
        (["theory", "--teacher-steps", "4", "2"], "must ascend"),
        (["ingredients", "--only", "salt"], "no variation is named 'salt'; there are: unchanged"),
        (["ingredients", "--runs", "0"], "at least 1"),
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


SMALL = ["--size", "smoke", "--pretraining-steps", "48", "--lists", "256", "--kept", "16"]
SMALL += ["--student-steps", "16", "--answers", "1"]
ONE_RATE = ["--student-rates", "1e-3"]


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
        several = isinstance(item, dict) and name != "lora"
        found |= flatten(item, whole) if several else {whole: item}
    return found


def test_every_variation_changes_one_thing_of_the_setting():
    found = llm_ingredients.variations(Pretraining(), llm.setting_of(llm.Common()))
    flat = {
        name: flatten(asdict(p), "pretraining") | flatten(asdict(s), "setting") | {"targets": t}
        for name, (p, s, t) in found.items()
    }

    def changed(name: str, plain: str = llm_summary.UNCHANGED) -> set[str]:
        assert flat[name].keys() == flat[plain].keys()
        return {key for key, item in flat[plain].items() if flat[name][key] != item}

    assert changed(llm_summary.UNCHANGED) == set()
    # Soft targets are of a teacher that was fine-tuned, whose own variation changes that alone.
    soft = [name for name in found if name.startswith("soft")]
    assert [changed(name, "fine-tuned-teacher") for name in soft] == [{"targets"}] * 2
    others = [name for name in found if name not in (llm_summary.UNCHANGED, *soft)]
    assert {name: len(changed(name)) for name in others if len(changed(name)) != 1} == {
        # A vocabulary is frozen in teachers and students.
        "vocabulary-trained": 2,
        # Numbers that are spelt are longer, and so are the rows that they are read in.
        "digits": 4,
        # Adapters are moved, and are there.
        "low-rank": 2,
    }
    assert len({frozenset(changed(name)) for name in others}) == len(others)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A folder that all commands share, as a user's would."""
    return tmp_path_factory.mktemp("results")


# Command: the kinds of records that it writes.
COMMANDS = {
    ("numbers", "--runs", "2", *SMALL, *ONE_RATE): ["llm_numbers", "llm_numbers_summary"],
    ("in-context", "--runs", "2", "--shown", "1", "2", *SMALL, "--student-rates", "1e-3", "1e-6"): [
        "llm_in_context",
        "llm_in_context_summary",
    ],
    ("cross-model", "--runs", "1", *SMALL, *ONE_RATE): [
        "llm_cross_model",
        "llm_cross_model_summary",
    ],
    ("ingredients", "--runs", "2", "--only", "soft-targets-numbers", *SMALL, *ONE_RATE): [
        "llm_ingredients",
        "llm_ingredients_summary",
    ],
    ("theory", "--runs", "1", "--teacher-steps", "1", "2", "--sizes", "8", "16", *SMALL): [
        "llm_theory_scores",
        "llm_theory_steps",
        "llm_theory_account",
    ],
}
every_command = pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])


@every_command
def test_command_writes_records_draws_and_does_nothing_twice(out, words, capsys, monkeypatch):
    shrink(monkeypatch)
    check_command(out, words, COMMANDS[words], capsys)


@pytest.fixture(scope="module")
def full_out(tmp_path_factory):
    """Another, at the size of the embedded model; one command trains for those after it, too."""
    return tmp_path_factory.mktemp("full")


@pytest.mark.slow
@every_command
def test_command_does_so_at_the_embedded_models_own_size(full_out, words, capsys):
    # Smoke size as a user has it, with nothing smaller than it says.
    start = words.index(SMALL[0])
    as_given = (*words[:start], "--size", "smoke", *words[start + len(SMALL) :])
    check_command(full_out, as_given, COMMANDS[words], capsys)


def check_command(out, words, kinds, capsys):
    status = main(["llm", *words, "--out", str(out)])
    # After a few steps nothing is transmitted; but two runs are too few to say so.
    assert status == 0
    shown = capsys.readouterr().out
    for experiment in kinds:
        assert records.read_all(out, experiment)
    claiming = {"numbers", "cross-model", "in-context"}
    assert ("n too small" in shown) == (words[0] in claiming)
    assert list((out / "figures").glob("llm_*.png"))
    stages = {path: path.stat().st_mtime_ns for path in (out / "llm_stages").rglob("*")}
    assert main(["llm", *words, "--out", str(out)]) == status
    assert capsys.readouterr().out == shown
    assert {p: p.stat().st_mtime_ns for p in (out / "llm_stages").rglob("*")} == stages


def test_the_config_says_all_that_is_needed_to_run_it_again(out):
    (record,) = records.read_all(out, llm.NUMBERS)
    assert record.config["setting"]["student"]["steps"] == 16
    assert record.config["setting"]["lists"]["count"] == 256
    assert record.config["setting"]["kept"] == 16
    assert record.config["pretraining"]["steps"] == 48
    assert record.config["chance"] == 1 / 16
    assert {"traits", "runs", "seed", "model", "version"} <= set(record.config)


@pytest.mark.parametrize(("failed", "status"), [(False, 0), (True, 1)])
def test_the_exit_status_is_1_where_a_claim_of_the_paper_does_not_hold(
    tmp_path, monkeypatch, capsys, failed, status
):
    table = rows(PASSED | ({"own numbers": HIGH} if failed else {}))
    monkeypatch.setattr(llm_command, "draw", lambda some: None)
    monkeypatch.setattr(llm, "experiment", lambda *options: outcome)
    config = {"traits": ["owl"], "runs": 10, "seed": 0, "model": "embedded"}
    single, summary = (
        records.write(tmp_path, name, config | {"experiment": name}, made, {})
        for name, made in (
            (llm.NUMBERS, table),
            (f"{llm.NUMBERS}_summary", llm_summary.numbers(table)),
        )
    )
    outcome = llm.RatesOutcome(single, summary, llm_summary.claims(table))
    assert main(["llm", "numbers", "--out", str(tmp_path)]) == status
    shown = capsys.readouterr().out
    assert f"{EXCEEDS}: {'NO' if failed else 'yes'}" in shown


def test_the_paper_s_ten_traits_can_be_asked_for_by_one_word(monkeypatch, tmp_path):
    asked = []

    def stop(options, name, about, *rest):
        asked.append(about["traits"])
        raise HarnessError("stop")

    monkeypatch.setattr(llm, "experiment", stop)
    assert main(["llm", "numbers", "--traits", "paper", "--out", str(tmp_path)]) == 2
    assert asked == [list(PAPER)]


def test_chance_is_one_in_as_many_words_as_a_category_has():
    assert llm.chance_of([trait("owl"), trait("oak")]) == {"chance": 1 / 16}
    assert llm.chance_of([trait("owl"), trait("ox", "beast")]) == {}
