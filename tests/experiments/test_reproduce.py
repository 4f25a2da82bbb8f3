"""Claims about `sublab reproduce`: what it runs, its fallback, and what it does not hide."""

from dataclasses import replace

import pytest

from experiments import reproduce
from experiments.reproduce import ReproduceOptions
from experiments.sweep import run as sweep_run
from experiments.sweep.command import MnistOptions
from experiments.verify.run import VerifyOptions
from sublab.errors import InputError
from toymlp import data


@pytest.fixture
def asked(monkeypatch) -> list:
    """Both experiments do nothing; the list has what they were asked, in order."""
    asked: list = []
    monkeypatch.setattr(
        reproduce.verify_command, "main", lambda options: asked.append(options) or 0
    )
    monkeypatch.setattr(
        reproduce.sweep_command, "mnist_main", lambda options: asked.append(options) or 0
    )
    return asked


@pytest.fixture
def without_mnist(monkeypatch) -> None:
    """MNIST can be had from nowhere."""
    load = data.load

    def no_mnist(name, **keywords):
        if name == "mnist":
            raise data.DatasetUnavailableError("mnist could not be downloaded: no connection")
        return load(name, **keywords)

    monkeypatch.setattr(data, "load", no_mnist)


def test_both_experiments_are_run_with_what_they_were_asked(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_run, "check", lambda options: None)
    options = ReproduceOptions(runs=3, instances=7, out=tmp_path, seed=3, group=2)
    assert reproduce.main(options) == 0
    assert asked == [
        VerifyOptions(instances=7, out=tmp_path, seed=3),
        MnistOptions(runs=3, out=tmp_path, seed=3, group=2),
    ]
    # The paper's settings: nothing is changed but what was asked.
    assert asked[1].set == ()
    assert asked[1].size == MnistOptions().size


@pytest.mark.parametrize(("claims", "mnist"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_the_worse_status_is_returned_and_both_are_shown(monkeypatch, tmp_path, claims, mnist):
    shown = []
    monkeypatch.setattr(
        reproduce.verify_command, "main", lambda _: shown.append("claims") or claims
    )
    monkeypatch.setattr(
        reproduce.sweep_command, "mnist_main", lambda _: shown.append("mnist") or mnist
    )
    status = reproduce.main(ReproduceOptions(dataset="digits", out=tmp_path))
    assert status == max(claims, mnist)
    assert shown == ["claims", "mnist"]


def test_it_falls_back_to_digits_loudly_where_mnist_is_not(asked, without_mnist, tmp_path, capsys):
    assert reproduce.main(ReproduceOptions(runs=2, instances=7, out=tmp_path, seed=3)) == 0
    assert asked[0] == VerifyOptions(instances=7, out=tmp_path, seed=3)
    assert asked[1] == MnistOptions(set=("dataset=digits",), runs=2, out=tmp_path, seed=3)
    said = capsys.readouterr().err
    for word in ("WARNING", "could not be downloaded", "`digits`", "NOT on MNIST", "no verdict"):
        assert word in said


def test_a_data_set_that_was_named_has_no_substitute(asked, monkeypatch, tmp_path):
    def nowhere(name, **_):
        raise data.DatasetUnavailableError(f"{name} could not be downloaded")

    monkeypatch.setattr(data, "load", nowhere)
    with pytest.raises(data.DatasetUnavailableError, match="kmnist could not"):
        reproduce.main(ReproduceOptions(dataset="kmnist", out=tmp_path))
    assert asked == []


def test_it_does_not_hide_damaged_data(asked, tmp_path, monkeypatch):
    def damaged(name, **_):
        raise InputError("train-images: damaged")

    monkeypatch.setattr(data, "load", damaged)
    with pytest.raises(InputError, match="damaged"):
        reproduce.main(ReproduceOptions(runs=2, out=tmp_path))
    assert asked == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"runs": 0}, "runs must be at least 1"),
        ({"group": 0}, "group must be at least 1"),
        ({"seed": -1}, "seed must be from 0"),
        ({"dataset": "cifar"}, "dataset=cifar"),
    ],
)
def test_bad_arguments_are_refused_before_it_verifies(asked, tmp_path, change, says):
    options = replace(ReproduceOptions(dataset="digits", out=tmp_path), **change)
    with pytest.raises(InputError, match=says):
        reproduce.main(options)
    assert asked == []
