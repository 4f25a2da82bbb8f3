"""Claims about random instances of a readout that no loss sees."""

import jax
import numpy as np
import pytest

from experiments.verify import readout

INSTANCES = 20


@pytest.fixture(scope="module")
def numbers():
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(3), INSTANCES)
        program = jax.jit(lambda keys: jax.lax.map(readout.evaluate, keys))
        return {name: np.asarray(values) for name, values in program(keys).items()}


def test_training_commutes_with_permuting_answers_that_no_loss_sees(numbers):
    (claim,) = readout.CLAIMS.values()
    assert claim.holds(numbers["blind_readout"]).all()


@pytest.mark.parametrize("name", readout.CONTROLS)
def test_it_does_not_where_answers_are_seen(numbers, name):
    assert not readout.CONTROLS[name].holds(numbers[name]).any()
    # By far more than rounding.
    assert (numbers[name] > 1e-6).all()
