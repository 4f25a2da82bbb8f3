"""Claims about the random linearised problems: what is claimed holds, and mutants are seen."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.verify import near_start
from experiments.verify.near_start import CONTROLS, EVERY_STEP, STEPS, TO_REST

INSTANCES = 24


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def numbers(function, seed: int = 0) -> dict[str, np.ndarray]:
    keys = jax.random.split(jax.random.key(seed), INSTANCES)
    return jax.device_get(jax.jit(jax.vmap(function))(keys))


@pytest.fixture(scope="module")
def at_rest() -> dict[str, np.ndarray]:
    with jax.enable_x64(True):
        return numbers(near_start.to_rest)


def known(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def test_the_claims_of_every_step_hold_and_each_control_breaks_its_own():
    found = numbers(near_start.every_step)
    for name, claim in EVERY_STEP.items():
        assert len(known(found[name])) == INSTANCES
        assert claim.holds(found[name]).all(), (name, found[name])
    # As `Claim` is told: not one number is at its bound.
    assert np.median(found["approach"]) < -1e-12
    assert np.median(found["trait_bound"]) < -1e-4
    for name in CONTROLS:
        assert np.isfinite(found[name]).all()
        approach = EVERY_STEP["approach"].holds(found[f"{name}_approach"])
        # What (a) says holds of any teacher, and of descent alone.
        assert approach.all() == (name != "adam_student")
        assert (found[name] > 0).any(), name
    assert STEPS * 500 >= 20_000


def test_the_claims_of_training_to_rest_hold(at_rest):
    for name, claim in TO_REST.items():
        assert claim.holds(known(at_rest[name])).all(), (name, at_rest[name])
        # Most squared errors are other losses.
        assert len(known(at_rest[name])) == INSTANCES or name == "in_time"
    assert 0 < len(known(at_rest["in_time"])) < INSTANCES
    # Shares differ, or there was nothing to see.
    assert np.median(at_rest["in_inputs"]) < -0.05
    assert np.median(at_rest["in_outputs"]) < -0.05


def test_a_rate_above_the_bound_is_seen(monkeypatch):
    right = near_start.largest_eigenvalue
    monkeypatch.setattr(near_start, "largest_eigenvalue", lambda *rest: right(*rest) / 2.5)
    found = numbers(near_start.every_step)
    # Some runs leave the world; of those that do not, not all come nearer.
    for name in ("approach", "along"):
        assert not EVERY_STEP[name].holds(known(found[name])).all()
    # The identity is about any rates.
    identity = known(found["identity_of_steps"])
    assert len(identity) > 0
    assert EVERY_STEP["identity_of_steps"].holds(identity).all()


def test_a_projection_without_the_null_space_is_seen(monkeypatch):
    right = near_start.potential_of

    def undeclared(kind):
        return near_start.Potential(right(kind).value, lambda vector: vector)

    monkeypatch.setattr(near_start, "potential_of", undeclared)
    found = numbers(near_start.to_rest)
    # Both projections are taken off the wrong space, so they agree, and the training does not.
    assert TO_REST["projection"].holds(found["projection"]).all()
    assert 5 < np.sum(~TO_REST["rest"].holds(found["rest"])) < INSTANCES
    assert not TO_REST["rest_gain"].holds(found["rest_gain"]).all()


def test_too_few_iterations_are_seen(monkeypatch):
    right = near_start.project

    def hasty(*arguments, **keywords):
        return right(*arguments, **keywords | {"iterations": 3})

    monkeypatch.setattr(near_start, "project", hasty)
    monkeypatch.setattr(near_start, "STEPS_TO_REST", 20)
    found = numbers(near_start.to_rest)
    assert not TO_REST["projection"].holds(found["projection"]).any()
    assert not TO_REST["rest"].holds(found["rest"]).all()


def test_float32_is_refused():
    with jax.enable_x64(False):
        for function in (near_start.every_step, near_start.to_rest):
            with pytest.raises(ValueError, match="works in float64"):
                function(jax.random.key(jnp.uint32(0)))
