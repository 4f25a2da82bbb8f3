"""Claims about the instances beyond the paper's setting: all hold, and a mutant breaks each."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest

from experiments.verify import beyond

INSTANCES = 20
# Claims with a condition that not every instance meets.
CONDITIONAL = {"matched_start", "two_maps_ensured"}


@pytest.fixture(scope="module", autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def numbers() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Of every instance: its numbers, and those of a student that steps the other way."""

    def with_sign(key: jax.Array, sign: jax.Array) -> dict[str, jax.Array]:
        def signed(function):
            return lambda *arguments, **keywords: jax.tree.map(
                lambda leaf: sign * leaf, function(*arguments, **keywords)
            )

        # One program for both; it takes longer to compile than to run.
        with pytest.MonkeyPatch.context() as patch:
            for name in ("student_direction", "inner_product"):
                patch.setattr(beyond, name, signed(getattr(beyond, name)))
            return beyond.evaluate(key)

    keys = jax.random.split(jax.random.key(0), INSTANCES)
    both = jax.jit(jax.vmap(jax.vmap(with_sign, (0, None)), (None, 0)))(keys, np.array([1.0, -1.0]))
    right, wrong = ({name: np.asarray(row[i]) for name, row in both.items()} for i in range(2))
    return right, wrong


@pytest.mark.parametrize("name", beyond.CLAIMS)
def test_a_claim_holds_of_every_instance_and_of_no_student_that_steps_the_other_way(numbers, name):
    claim = beyond.CLAIMS[name]
    for each, holds in zip(numbers, (True, False), strict=True):
        known = each[name][~np.isnan(each[name])]
        assert len(known) == INSTANCES or (name in CONDITIONAL and len(known) > INSTANCES / 2)
        assert (claim.holds(known) == holds).all(), known


def test_the_interval_certificate_reaches_somewhere_and_not_everywhere(numbers):
    reach = numbers[0]["reach"]
    assert (reach > 0.02).all()
    assert (reach < 1).all()


def test_adapters_drawn_apart_align_more_often_at_a_higher_rank(numbers):
    low, high = (np.mean(numbers[0][f"lora_{rank}"] > 0) for rank in (1, 16))
    assert 0 < low < high
    assert high > 0.9
