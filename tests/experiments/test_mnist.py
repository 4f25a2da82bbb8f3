"""Claims about the MNIST experiment: its records, its summary, its verdict."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from toymlp.protocol import CONDITIONS, Protocol

from experiments import mnist, reproduce
from experiments.verify import run as verify
from sublab import records
from sublab.errors import InputError
from sublab.paper import FIGURE_10B
from toymlp import data, protocol

SMOKE = Protocol(noise_images=1024, student_epochs=1, teacher_epochs=1)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    return mnist.Options(runs=5, group=2, dataset="digits", out=out, protocol=SMOKE)


@pytest.fixture(scope="module")
def outcome(options):
    return mnist.run(options)


def test_the_table_has_one_row_a_model_with_every_setting_and_metric(outcome):
    assert len(outcome.table) == 5 * len(CONDITIONS)
    assert set(outcome.table.columns) >= {
        "dataset", "data_sha256", "seed", "run", "condition", "start_run", "aux", "hidden", "loss",
        "learning_rate", "teacher_epochs", "student_epochs", "teacher_batch", "student_batch",
        "noise_images", "accuracy", "final_loss",
    }  # fmt: skip
    assert outcome.table["run"].unique().sort().to_list() == [0, 1, 2, 3, 4]
    assert outcome.table["teacher_batch"].unique().to_list() == [25]
    untrained = outcome.table.filter(condition="reference")
    assert untrained["final_loss"].null_count() == 5


def test_every_finished_group_is_one_record_with_provenance(outcome, options):
    groups = records.read_all(options.out, mnist.EXPERIMENT)
    assert sorted(record.config["runs"] for record in groups) == [[0, 1], [2, 3], [4]]
    for record in groups:
        assert record.provenance["data"]["sha256"] == outcome.table["data_sha256"][0]
        assert record.provenance["device"]["platform"] == "cpu"
        assert record.provenance["wall_seconds"] > 0
        assert record.provenance["versions"]["jax"]
    scanned = records.scan(options.out).filter(pl.col("experiment") == mnist.EXPERIMENT).collect()
    assert (
        scanned.select(outcome.table.columns)
        .sort("run", "condition")
        .equals(outcome.table.sort("run", "condition"))
    )


def test_the_summary_is_the_mean_of_the_rows(outcome):
    for row in outcome.summary.table.iter_rows(named=True):
        sample = outcome.table.filter(condition=row["condition"])["accuracy"].to_numpy()
        assert row["n"] == 5
        assert row["mean"] == pytest.approx(sample.mean())
        assert row["std"] == pytest.approx(np.std(sample, ddof=1))
        assert row["low"] < row["mean"] < row["high"] or row["std"] == 0


def test_a_rerun_trains_nothing_and_gives_the_same(outcome, options, monkeypatch):
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(mnist, "run_protocol", forbidden)
    again = mnist.run(options)
    assert again.table.equals(outcome.table)
    assert again.summary.table.equals(outcome.summary.table)


def test_more_runs_train_only_the_new_ones(outcome, options, monkeypatch):
    trained: list[int] = []
    run_protocol = mnist.run_protocol

    def counted(*arguments, runs, **keywords):
        trained.extend(runs)
        return run_protocol(*arguments, runs=runs, **keywords)

    monkeypatch.setattr(mnist, "run_protocol", counted)
    more = mnist.run(replace(options, runs=6))
    assert trained == [4, 5]
    assert more.table.filter(pl.col("run") < 4).equals(outcome.table.filter(pl.col("run") < 4))


def test_a_damaged_record_is_told_and_done_again_with_the_same_numbers(
    outcome, options, capfd, monkeypatch
):
    folder = next(
        record.folder
        for record in records.read_all(options.out, mnist.EXPERIMENT)
        if record.config["runs"] == [2, 3]
    )
    (folder / "table.parquet").write_bytes(b"damaged")
    again = mnist.run(options)
    assert again.table.equals(outcome.table)
    lines = [line for line in capfd.readouterr().err.splitlines() if "damaged record" in line]
    assert len(lines) == 1
    assert str(folder) in lines[0]


def test_another_setting_is_another_record(outcome, options):
    before = len(records.read_all(options.out, mnist.EXPERIMENT))
    mnist.run(replace(options, runs=2, protocol=replace(SMOKE, learning_rate=1e-3)))
    assert len(records.read_all(options.out, mnist.EXPERIMENT)) == before + 1


def test_the_papers_numbers_stand_beside_the_papers_setting_and_no_other():
    at_paper = Protocol(teacher_batch=1024)
    assert mnist.published(at_paper, "mnist") == FIGURE_10B
    assert mnist.published(at_paper, "fashion_mnist") == {}
    for change in (
        {"aux": 4},
        {"loss": "squared_error"},
        {"learning_rate": 1e-3},
        {"teacher_batch": 512},
        {"student_epochs": 4},
        {"noise_images": 1000},
    ):
        assert mnist.published(replace(at_paper, **change), "mnist") == {}


def _with_results(monkeypatch, accuracy):
    """The experiment at the paper's setting, with given accuracies in place of training."""

    def results(_, __, *, runs, **___):
        return protocol.Results(
            runs=tuple(runs),
            start=dict.fromkeys(CONDITIONS, tuple(runs)),
            accuracy={c: accuracy(c, np.asarray(runs)) for c in CONDITIONS},
            loss={},
        )

    monkeypatch.setattr(mnist, "run_protocol", results)


@pytest.mark.parametrize(("shift", "agrees"), [(0.0, True), (0.3, False)])
def test_the_verdict_is_given_at_the_papers_setting(
    mnist_like, tmp_path, monkeypatch, shift, agrees
):
    _with_results(
        monkeypatch,
        lambda condition, runs: (
            FIGURE_10B[condition].mean
            + shift * (condition == "student_aux")
            + 0.001 * (-1.0) ** runs
        ),
    )
    outcome = mnist.run(mnist.Options(runs=10, out=tmp_path))
    assert outcome.agrees is agrees
    verdicts = dict(outcome.summary.table.select("condition", "agrees").iter_rows())
    assert verdicts == {c: agrees or c != "student_aux" for c in CONDITIONS}
    assert outcome.summary.table["paper_mean"].to_list() == [p.mean for p in FIGURE_10B.values()]


def test_no_verdict_elsewhere(outcome):
    assert outcome.agrees is None
    assert outcome.summary.table["paper_mean"].null_count() == len(CONDITIONS)


@pytest.fixture
def mnist_like(monkeypatch):
    """A data set of MNIST's shape and name; nothing is trained on it here."""
    tiny = data.Dataset(
        "mnist", np.zeros((60_000, 4), np.float32), np.zeros(60_000, np.int32),
        np.zeros((10, 4), np.float32), np.zeros(10, np.int32), 10, "0" * 64, "nowhere",
    )  # fmt: skip
    monkeypatch.setattr(data, "load", lambda *_, **__: tiny)


def _without_verification(monkeypatch) -> list[verify.VerifyOptions]:
    """Verifies nothing; returns a list of what it was asked to."""
    asked = []

    def run(options):
        asked.append(options)
        record = records.Record(options.out, {}, pl.DataFrame(), {})
        return verify.VerifyOutcome(pl.DataFrame(), record, [], holds=True)

    monkeypatch.setattr(verify, "run", run)
    return asked


def test_reproduce_falls_back_to_digits_loudly_where_mnist_is_not(tmp_path, monkeypatch, capfd):
    load = data.load

    def no_mnist(name, **keywords):
        if name == "mnist":
            raise data.DatasetUnavailableError("mnist could not be downloaded: no connection")
        return load(name, **keywords)

    monkeypatch.setattr(data, "load", no_mnist)
    _with_results(monkeypatch, lambda _, runs: np.full(len(runs), 0.5))
    asked = _without_verification(monkeypatch)
    both = reproduce.run(reproduce.Options(runs=2, instances=7, out=tmp_path, seed=3))
    assert asked == [verify.VerifyOptions(instances=7, out=tmp_path, seed=3)]
    outcome = both.mnist
    assert outcome.summary.config["dataset"] == "digits"
    assert outcome.agrees is None
    said = capfd.readouterr().err
    assert "WARNING" in said
    assert "`digits`" in said
    assert "NOT on MNIST" in said


def test_reproduce_does_not_hide_damaged_data(tmp_path, monkeypatch):
    def damaged(name, **_):
        raise InputError("train-images: damaged")

    monkeypatch.setattr(data, "load", damaged)
    _without_verification(monkeypatch)
    with pytest.raises(InputError, match="damaged"):
        reproduce.run(reproduce.Options(runs=2, out=tmp_path))


def test_reproduce_refuses_bad_runs_before_it_verifies(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "run", lambda _: pytest.fail("verified first"))
    with pytest.raises(InputError, match="runs must be at least 1"):
        reproduce.run(reproduce.Options(runs=0, out=tmp_path))
