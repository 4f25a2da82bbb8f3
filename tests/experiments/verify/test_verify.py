"""Claims about `sublab verify`: groups, reuse, summary, verdict, figures, on made-up numbers."""

import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from experiments import cli
from experiments.verify import command
from experiments.verify import examples as verify_examples
from experiments.verify import run as verify
from experiments.verify import summary as verify_summary
from experiments.verify.beyond import RANKS
from experiments.verify.claims import CLAIMS
from experiments.verify.evaluate import SMALL, WIDE
from experiments.verify.families import FAMILIES
from experiments.verify.instances import TRAITS, Kinds, draw_keys, draw_kinds
from experiments.verify.run import VerifyOptions, VerifyOutcome
from experiments.verify.suites import ALL_CLAIMS, ALL_CONTROLS, SUITES, instances_of
from figures import style
from figures import verify as verify_figures
from sublab import records
from sublab.errors import InputError

# Suites that are long in tracing. The first three factorise what `linear` does.
TWINS = ("mlp", "cnn", "attention", "beyond", "every_step")
LISTS = ("remainders", "inner_products", "rhos")


def pretend(patch: pytest.MonkeyPatch) -> list[str]:
    """Evaluations that cost nothing and hold, and a list of those that were asked for."""
    asked: list[str] = []

    def program(suite):
        def evaluate(keys, wanted, _):
            asked.append(suite.name)
            seed = np.asarray(jax.random.key_data(keys))[..., -1]
            rng = np.random.default_rng(int(seed.flat[0]))
            shape = seed.shape
            if suite.family is None:
                return beyond_one_step(shape, rng)
            numbers = {}
            for name, claim in CLAIMS.items():
                good = 1.0 if claim.above else claim.bound / 2
                left_out = name == "blind" or (name == "linear" and not suite.family.linear)
                numbers[name] = np.full(shape, np.nan if left_out else good)
            for name in ("independent", "independent_trait", "rotated", "non_convex"):
                numbers[name] = rng.normal(size=shape)
            slope = 2 + 0.01 * rng.normal(size=shape)
            numbers |= {
                "remainders": (SMALL / SMALL[-1]) ** slope[..., None],
                "inner_products": np.sin(WIDE) * np.ones((*shape, 1)),
                "rhos": WIDE * np.ones((*shape, 1)),
                "slope": slope,
                "r2": np.full(shape, 0.999),
                "cosine": rng.uniform(0, 1, shape),
                "cosine_independent": rng.uniform(-1, 1, shape),
                "horizon": np.where(rng.uniform(size=shape) < 0.5, WIDE[5], np.inf),
                "certified": np.full(shape, WIDE[4]),
            }
            # What is not wanted is not evaluated.
            numbers["cosine"][~np.asarray(wanted)] = np.nan
            return numbers

        return evaluate

    def beyond_one_step(shape, rng):
        """Numbers of every other claim, control and rank; which suite has which matters not."""
        rest = {name: claim for name, claim in ALL_CLAIMS.items() if name not in CLAIMS}
        broken = [name for name in ALL_CONTROLS if ALL_CONTROLS[name].bound >= 0]
        return (
            {name: np.full(shape, 1.0 if c.above else c.bound) for name, c in rest.items()}
            | {name: rng.uniform(0.5, 1, shape) for name in broken[4:]}
            | {f"lora_{rank}": np.where(rng.uniform(size=shape) < 0.9, 1.0, -1.0) for rank in RANKS}
        )

    patch.setattr(verify, "_program", program)
    patch.setattr(verify_examples, "_grid", _grid)
    return asked


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    return pretend(monkeypatch)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> VerifyOutcome:
    """Of a thousand instances, for the tests that only read it."""
    with pytest.MonkeyPatch.context() as patch:
        pretend(patch)
        return verify.run(VerifyOptions(instances=1000, out=tmp_path_factory.mktemp("results")))


def one_step(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter(pl.col("family").is_in([family.name for family in FAMILIES]))


def _grid(seed, row):
    kinds = {"activation": "tanh", "loss": "softmax", "trait": "cross_entropy"}
    steps = np.geomspace(0.01, 30, 5)
    return pl.DataFrame(
        {
            "family": row["family"],
            "instance": row["instance"],
            **kinds,
            "trait_loss": 1.0,
            "eps": np.repeat(steps, 5),
            "alpha": np.tile(steps, 5),
            "change": np.linspace(-1, 1, 25),
            "safe_alpha": 1.0,
            "inner_product": 0.1,
        }
    )


@pytest.mark.parametrize(
    "suite",
    [
        pytest.param(suite, marks=pytest.mark.slow if suite.name in TWINS else (), id=suite.name)
        for suite in SUITES
    ],
)
def test_no_factorisations_of_a_program_wait_for_others(suite):
    """jaxlib cuts a batch among threads from 2e5 operations on, and may then wait for ever."""
    keys = draw_keys(0, suite.name, jnp.arange(2 * suite.block)).reshape(2, -1)
    kinds = {} if suite.family is None else draw_kinds(0, suite.name, 0, len(keys))

    def evaluate(keys, wanted, kinds):
        return verify._program(suite)(keys, wanted, Kinds(**kinds) if kinds else None)

    with jax.enable_x64(True):
        chosen = {name: jnp.asarray(index) for name, index in kinds.items()}
        program = jax.jit(evaluate).lower(keys, jnp.ones(len(keys), bool), chosen).as_text()
    found = re.findall(r"custom_call @lapack_\w+\(.*?: \(tensor<([\dx]+)xf64>", program)
    assert len(found) == program.count("custom_call @lapack_")
    assert bool(found) == (suite.name != "readout")
    for shape in found:
        *batch, rows, columns = map(int, shape.split("x"))
        together = math.prod(batch)
        # Ten operations for each entry and column, more than any of these takes.
        assert together == 1 or 10 * together * rows * columns * max(rows, columns) < 2e5, shape


def test_every_architecture_gets_its_share_and_each_instance_a_row(tmp_path, calls):
    outcome = verify.run(VerifyOptions(instances=1203, trained=70, out=tmp_path))
    sizes = dict(outcome.table.group_by("family").len().iter_rows())
    assert sorted(sizes[family.name] for family in FAMILIES) == [300, 301, 301, 301]
    rest = {suite.name: sizes[suite.name] for suite in SUITES if suite.family is None}
    assert rest == {"readout": 70, "beyond": 121, "every_step": 70, "to_rest": 70}
    of_families = one_step(outcome.table)
    assert of_families["cosine"].is_finite().fill_null(value=False).all()
    assert len(outcome.table.select("family", "instance").unique()) == 1203 + 121 + 3 * 70
    assert outcome.holds
    rows = outcome.summary.table
    assert rows.filter(kind="claim")["name"].to_list() == list(ALL_CLAIMS)
    assert rows.filter(kind="control")["name"].to_list() == list(ALL_CONTROLS)
    assert rows.filter(kind="rank")["name"].to_list() == [str(rank) for rank in RANKS]


def test_kinds_are_shared_by_a_block_and_vary_between_blocks(outcome):
    table = one_step(outcome.table)
    blocks = table.group_by("family", pl.col("instance") // 10).agg(
        pl.struct("activation", "loss", "trait", "data").n_unique().alias("kinds")
    )
    assert set(blocks["kinds"]) == {1}
    for name, count in (("activation", 4), ("loss", 8), ("trait", 4), ("data", 5)):
        assert table[name].n_unique() == count


def test_an_instance_does_not_depend_on_how_many_there_are(tmp_path, calls):
    few = verify.run(VerifyOptions(instances=300, out=tmp_path / "few")).table
    many = verify.run(VerifyOptions(instances=3100, out=tmp_path / "many")).table
    same = many.join(few, on=["family", "instance"], how="semi", maintain_order="left")
    assert same.drop(LISTS).equals(few.drop(LISTS))
    other = verify.run(VerifyOptions(instances=300, out=tmp_path / "other", seed=1)).table
    assert not other.drop(LISTS).equals(few.drop(LISTS))
    first, again = draw_kinds(0, "mlp", 0, 5), draw_kinds(0, "mlp", 3, 2)
    assert all((first[name][3:] == again[name]).all() for name in first)


def test_finished_groups_are_reused_and_a_damaged_one_is_made_again(tmp_path, calls, capfd):
    options = VerifyOptions(instances=3000, out=tmp_path)
    first = verify.run(options)
    assert len(calls) == 12
    again = verify.run(options)
    assert len(calls) == 12
    assert again.table.equals(first.table)
    assert "4,800 of 4,800 instances found" in capfd.readouterr().err
    damaged = records.read_all(tmp_path, verify.EXPERIMENT)[3]
    (damaged.folder / "table.parquet").write_bytes(b"")
    assert verify.run(options).table.equals(first.table)
    assert len(calls) == 13
    assert "made again" in capfd.readouterr().err


def test_an_interrupt_keeps_what_is_finished(tmp_path, calls, monkeypatch):
    write, written = records.write, []

    def interrupted(out, experiment, *rest):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(experiment)
        return write(out, experiment, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(records, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            verify.run(VerifyOptions(instances=3000, out=tmp_path))
    assert len(records.read_all(tmp_path, verify.EXPERIMENT)) == 3
    asked = len(calls)
    verify.run(VerifyOptions(instances=3000, out=tmp_path))
    assert len(calls) - asked == 9


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [
        *(
            (name, claim.bound - 1 if claim.above else 2 * claim.bound + 1, "claim")
            for name, claim in ALL_CLAIMS.items()
        ),
        ("slope", 1.9, "order"),
        ("rotated", 1.0, "control"),
        ("independent", 1.0, "control"),
        ("adam_student", 0.0, "control"),
        ("tied_readout", 0.0, "control"),
        ("lora_2", -1.0, "rank"),
    ],
)
def test_a_broken_claim_is_a_violation(outcome, column, value, kind):
    table = outcome.table.with_row_index("row")
    where = table["row"] if kind != "claim" else one_of(column, table)
    broken = with_value(table, column, where, value)
    rows = verify_summary.summarise(broken).filter(kind=kind)
    failed = rows.filter(~pl.col("holds"))
    if kind == "claim":
        assert failed["name"].to_list() == [column]
        assert failed["violations"].to_list() == [1]
        assert failed["worst"].to_list() == [value]
    elif kind == "order":
        assert failed["name"].to_list() == ["tanh", "gelu", "softplus"]
    else:
        assert failed["name"].to_list() == [column.removeprefix("lora_")]


def one_of(claim: str, table: pl.DataFrame) -> pl.Series:
    """The row of one instance that a claim is about; of a blind one there is none as yet."""
    if claim == "blind":
        return table["row"].head(1)
    return instances_of(claim, table)["row"].slice(7, 1)


def with_value(table: pl.DataFrame, column: str, rows: pl.Series, value: float | None):
    there = pl.col("row").is_in(rows.implode())
    return table.with_columns(pl.when(there).then(value).otherwise(pl.col(column)).alias(column))


@pytest.mark.parametrize("name", [name for name in ALL_CLAIMS if name != "blind"])
def test_a_number_that_did_not_come_out_is_a_violation_where_the_claim_is_about_it(outcome, name):
    table = outcome.table.with_row_index("row")
    rows = verify_summary.summarise(with_value(table, name, one_of(name, table), None))
    (row,) = rows.filter(kind="claim", name=name).to_dicts()
    some = ALL_CLAIMS[name].about == "some"
    assert (row["violations"], row["holds"]) == ((0, True) if some else (1, False))


def test_of_few_instances_a_control_and_an_order_have_no_verdict(outcome):
    few = outcome.table.filter(pl.col("instance") < 2)
    rows = verify_summary.summarise(few)
    assert rows.filter(kind="claim")["holds"].drop_nulls().all()
    assert rows.filter(kind="order")["holds"].is_null().all()
    # One that has failed for certain is the exception.
    assert False not in rows.filter(pl.col("kind").is_in(["control", "rank"]))["holds"].to_list()


def test_the_pooled_order_is_the_slope_of_all_fits_together(outcome):
    """Against a least-squares fit with one intercept an instance and one slope."""
    table = outcome.table
    tanh = table.filter((pl.col("family") != "linear") & (pl.col("activation") == "tanh"))
    y = np.log(np.array(tanh["remainders"].to_list()))
    y = y - y.mean(axis=1, keepdims=True)
    x = np.log(SMALL) - np.log(SMALL).mean()
    (row,) = verify_summary.summarise(table).filter(kind="order", name="tanh").to_dicts()
    assert row["worst"] == pytest.approx((y @ x).sum() / (len(y) * (x @ x)))
    assert row["instances"] == len(tanh)


def test_controls_name_the_condition_that_their_loss_misses(outcome):
    rows = outcome.summary.table.filter(kind="control")
    named = dict(zip(rows["name"], rows["named"], strict=True))
    assert named["rotated"] == "stationary"
    assert named["non_convex"] == "minimum"
    assert named["independent"] is None


def test_the_examples_are_chosen_by_their_rule():
    table = pl.DataFrame(
        {
            "family": ["cnn"] * 5,
            "instance": range(5),
            "activation": ["relu", "tanh", "relu", "tanh", "tanh"],
            "trait": [TRAITS[0], TRAITS[1], TRAITS[0], TRAITS[0], TRAITS[0]],
            "horizon": [1.0, 1.0, None, np.inf, 3.0],
        }
    )
    assert verify_examples.choose(table) == {"cnn": 4}
    assert verify_examples.choose(table.head(4)) == {"cnn": 3}
    assert verify_examples.choose(table.head(2)) == {"cnn": 0}
    # Nothing to show, and nothing to record, where all are blind.
    blind = table.with_columns(horizon=pl.lit(None, pl.Float64))
    assert verify_examples.choose(blind) == {}
    assert verify_examples.record(Path("nowhere"), 0, blind) == []


def test_the_curve_of_an_example_ends_where_g_and_rho_cross(outcome):
    table = outcome.table
    rows = verify_examples.curve_of(table.filter(family="cnn", instance=3).row(0, named=True))
    np.testing.assert_allclose(rows["eps"], WIDE)
    assert rows["eps_star"][0] == pytest.approx(np.pi, rel=0.02)
    assert rows["eps_certified"][0] == pytest.approx(1.0, rel=0.02)
    good = table.row(0, named=True) | {"inner_products": [1.0] * len(WIDE)}
    assert verify_examples.curve_of(good)["eps_star"][0] == np.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (VerifyOptions(instances=3), "instances must be from 4, one for each architecture"),
        (VerifyOptions(instances=10**8), "instances must be from 4"),
        (VerifyOptions(trained=0), "trained must be from 1"),
        (VerifyOptions(seed=-1), "seed must be from 0"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        verify.run(options)


@pytest.fixture
def one_format(monkeypatch) -> None:
    """All formats are written by one function, which other tests are about."""
    monkeypatch.setattr(style, "FORMATS", ("svg",))


def test_the_command_prints_three_tables_and_draws_four_figures(tmp_path, calls, capfd, one_format):
    assert command.main(command.OPTIONS(instances=200, out=tmp_path)) == 0
    out = capfd.readouterr().out
    for part in (
        "Lemma 1",
        "Theorem 1: fall",
        "holds",
        "order of the remainder",
        "ReLU",
        "is 2",
        "negative control",
        "violated",
    ):
        assert part in out
    assert "VIOLATED" not in out
    assert out.count("figure: ") == 4
    drawn = list((tmp_path / "figures").iterdir())
    names = {path.name.rsplit("_", 1)[0] for path in drawn}
    assert names == {"verify_remainder", "verify_cosine", "verify_curves", "verify_steps"}
    assert all(path.stat().st_size > 1000 for path in drawn)


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes_in_every_format(tmp_path, calls):
    assert command.main(VerifyOptions(instances=600, out=tmp_path)) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert len(before) == 4 * len(style.FORMATS)
    assert cli.main(["figures", "--out", str(tmp_path)]) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "figures").iterdir()} == before


def test_every_record_that_verify_makes_for_figures_has_what_draws_it():
    kinds = {verify.SUMMARY, verify_examples.CURVES, verify_examples.GRID}
    assert kinds == verify_figures.DRAW.keys()


def test_a_claim_that_fails_is_status_1(tmp_path, calls, capfd, monkeypatch):
    program = verify._program

    def broken(family):
        return lambda keys, *others: (
            program(family)(keys, *others) | {"lemma_1": np.full(keys.shape, -1.0)}
        )

    monkeypatch.setattr(verify, "_program", broken)
    monkeypatch.setattr(command, "draw", lambda drawable: [])
    assert command.main(VerifyOptions(instances=600, out=tmp_path)) == 1
    assert "VIOLATED" in capfd.readouterr().out


def test_figures_of_a_summary_whose_record_is_gone_cannot_be_drawn(tmp_path, calls):
    outcome = verify.run(VerifyOptions(instances=100, out=tmp_path))
    for record in records.read_all(tmp_path, verify.EXPERIMENT):
        (record.folder / "config.json").unlink()
    with pytest.raises(records.RecordError, match="damaged record"):
        verify_figures.draw_summary(outcome.summary, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_bad_arguments_are_one_line_and_status_2(capfd, tmp_path):
    for arguments, part in (
        (["--instances", "2"], "instances must be from 4"),
        (["--instances", "few"], "--instances"),
        (["--seed", "-4"], "seed must be from 0"),
    ):
        assert cli.main(["verify", *arguments, "--out", str(tmp_path / "r")]) == 2
        said = capfd.readouterr()
        assert said.err.count("\n") == 1
        assert part in said.err
        assert not (tmp_path / "r").exists()


def test_records_made_side_by_side_add_up_to_the_time_that_was_waited(monkeypatch):
    now = iter([10.0, 13.0, 14.0, 20.0])
    monkeypatch.setattr(verify.time, "monotonic", lambda: next(now))
    lap = verify.laps()
    assert [lap(), lap(), lap()] == [3.0, 1.0, 6.0]
