"""The theory on the paper's own MLP, in the float32 in which it is trained."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.alignment import inner_product, inner_product_reverse, teacher_direction
from theory.certificate import curve, horizon, smallest_eps
from theory.guarantee import theorem_1
from theory.losses import class_cross_entropy, matching, softmax_potential
from theory.passes import step

# The paper's MLP: 28 x 28 pixels, two hidden layers, 10 class logits and 3 auxiliary ones.
WIDTHS = (784, 256, 256, 13)
CLASSES = jnp.arange(13) < 10


def apply(params, inputs):
    *hidden, last = params
    for layer in hidden:
        inputs = jax.nn.relu(inputs @ layer["kernel"] + layer["bias"])
    return inputs @ last["kernel"] + last["bias"]


@pytest.fixture
def problem():
    with jax.enable_x64(False):
        random = np.random.default_rng(0)
        params = [
            {
                "kernel": jnp.asarray(random.normal(size=sizes) / sizes[0] ** 0.5, jnp.float32),
                "bias": jnp.zeros(sizes[1]),
            }
            for sizes in pairwise(WIDTHS)
        ]
        noise, images = jnp.asarray(random.uniform(-1, 1, (2, 512, 784)), jnp.float32)
        labels = jnp.asarray(random.integers(0, 10, 512), jnp.int32)

        def trait(p):
            each = jax.vmap(class_cross_entropy, (0, 0, None))
            return jnp.mean(each(apply(p, images), labels, CLASSES))

        loss = matching(softmax_potential(~CLASSES))
        yield loss, params, jax.jit(partial(teacher_direction, trait))(params), noise


def test_identity_and_reverse_mode_agree_to_1e_4_in_float32(problem):
    loss, params, way, noise = problem
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 270_093
    for eps in (0.1, 1.0):
        teacher = step(params, way, eps)
        one, other = (
            function(apply, loss, params, way, teacher, noise, chunk=256)
            for function in (inner_product, inner_product_reverse)
        )
        assert one.dtype == jnp.float32
        assert one > 0
        np.testing.assert_allclose(one, other, rtol=1e-4)


def test_the_curve_in_float32_is_that_in_float64(problem):
    loss, params, way, noise = problem
    eps = np.array([0.3, 1.0, 3.0])
    found = curve(apply, loss, params, way, eps, noise)
    assert float(smallest_eps(found)) < 0.1
    with jax.enable_x64(True):
        doubles = [
            jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tree)
            for tree in (params, way, noise)
        ]
        exact = curve(apply, loss, doubles[0], doubles[1], eps, doubles[2])
    np.testing.assert_allclose(found.inner_product, exact.inner_product, rtol=1e-3)
    np.testing.assert_allclose(found.coefficient, exact.coefficient, rtol=1e-4)
    np.testing.assert_allclose(found.rho, exact.rho, rtol=1e-2, atol=1e-4)
    np.testing.assert_array_equal(found.certified, exact.certified)


@pytest.mark.slow
def test_the_horizon_does_not_shrink_where_less_far_is_looked(problem):
    loss, params, way, noise = problem
    for largest in (1.0, 10.0):
        found = horizon(apply, loss, params, way, noise, largest=largest, points=8)
        assert found.eps_star == found.eps_certified == np.inf
        assert found.smallest > 1e-6 * largest
    with pytest.raises(ValueError, match=r"largest: 0\.001 is drowned by rounding in float32"):
        horizon(apply, loss, params, way, noise, largest=1e-3, points=8)


@pytest.mark.slow
def test_theorem_1_in_float32_is_never_violated_by_rounding(problem):
    loss, params, _, noise = problem

    def trait(p):
        return -jnp.mean(jax.nn.log_softmax(apply(p, noise[:64]))[:, 0])

    tiny = theorem_1(apply, loss, trait, params, np.array([0.3, 1.0]), 1e-5, noise)
    assert tiny.holds is not False
    assert theorem_1(apply, loss, trait, params, np.array([0.3, 1.0]), 0.1, noise).holds is True
