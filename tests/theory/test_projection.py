"""Claims about how much passes near the start: the projection, and the ways to it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.checks import operations
from theory.losses import (
    Potential,
    bernoulli_potential,
    matching,
    poisson_potential,
    softmax_potential,
    squared_potential,
)
from theory.passes import inner, norm
from theory.projection import (
    descend,
    descend_labels,
    largest_rate,
    nonlinearity,
    project,
    project_labels,
    spectrum,
    transferred_gain,
)

EXAMPLES, OUTPUTS, PARAMS = 6, 4, 30
WEIGHTS = np.array([0.5, 2.0, 0.0, 1.0])
# Each potential, and its null space as a dense projection off it.
CENTRED = np.eye(OUTPUTS) - 1 / OUTPUTS
CENTRED_SOME = np.diag([1.0, 1, 1, 0]) - np.outer([1, 1, 1, 0], [1, 1, 1, 0]) / 3
with jax.enable_x64(True):
    POTENTIALS = {
        "squared": (squared_potential(jnp.ones(OUTPUTS)), np.eye(OUTPUTS)),
        "weighted": (squared_potential(jnp.asarray(WEIGHTS)), np.diag(1.0 * (WEIGHTS > 0))),
        "softmax": (softmax_potential(jnp.ones(OUTPUTS, bool)), CENTRED),
        "temperature": (softmax_potential(jnp.ones(OUTPUTS, bool), 2.0), CENTRED),
        "subset": (softmax_potential(jnp.array([True, True, True, False])), CENTRED_SOME),
        "bernoulli": (bernoulli_potential, np.eye(OUTPUTS)),
        "poisson": (poisson_potential, np.eye(OUTPUTS)),
        "own": (
            # Of differences of neighbours alone: its null space is all-ones, and it says so.
            Potential(
                lambda z: (
                    jnp.sum(jnp.logaddexp(*(s * jnp.diff(z) for s in (1, -1))))
                    + 0.05 * jnp.sum(jnp.diff(z) ** 2)
                ),
                lambda v: v - jnp.mean(v),
            ),
            CENTRED,
        ),
    }
LOSSES = {name: matching(potential) for name, (potential, _) in POTENTIALS.items()}
# Each is a program of its own; the fast tier has one of every null space but that of weights.
FEW = ("squared", "softmax", "subset", "own")
every_potential = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in POTENTIALS],
)


def linear(params, inputs):
    """Random features: the inputs of an example are its Jacobian."""
    return inputs[..., :10] @ params["first"] + inputs[..., 10:] @ params["second"]


def tree(vector):
    return {"first": jnp.asarray(vector[:10]), "second": jnp.asarray(vector[10:])}


def flat(params):
    return np.concatenate([params["first"], params["second"]])


@pytest.fixture(scope="module", name="problem")
def make_problem():
    """A well-conditioned J, a start and a teacher's displacement."""
    random = np.random.default_rng(0)
    columns = np.linalg.qr(random.normal(size=(PARAMS, EXAMPLES * OUTPUTS)))[0]
    columns *= np.linspace(0.8, 1.3, EXAMPLES * OUTPUTS)
    jacobian = columns.T.reshape(EXAMPLES, OUTPUTS, PARAMS)
    start, delta = random.normal(size=(2, PARAMS))
    return jacobian, 0.3 * start, delta / 5


def dense(jacobian, centre, weights=None):
    """P_R by a pseudo-inverse; a row of weight 0 is not there."""
    tall = (centre @ jacobian)[slice(None) if weights is None else weights > 0]
    tall = tall.reshape(-1, PARAMS)
    return np.linalg.pinv(tall, rcond=1e-9) @ tall


@every_potential
def test_the_projection_is_that_of_a_dense_pseudo_inverse(problem, name):
    jacobian, start, delta = problem
    centre = POTENTIALS[name][1]
    found = project(
        linear, LOSSES[name], tree(start), tree(delta), jacobian, iterations=60, chunk=4
    )
    wanted = dense(jacobian, centre) @ delta
    np.testing.assert_allclose(flat(found.displacement), wanted, atol=1e-10)
    assert found.iterations < 60
    assert found.recomputed < 1e-10
    np.testing.assert_allclose(found.share[-1], wanted @ wanted / (delta @ delta), rtol=1e-9)
    # Two mutants: the Jacobian not centred, the null space of another loss.
    if name in ("softmax", "subset", "weighted"):
        for other in (np.eye(OUTPUTS), np.diag([0.0, 1, 1, 1])):
            wrong = dense(jacobian, other) @ delta
            assert np.linalg.norm(flat(found.displacement) - wrong) > 0.05 * np.linalg.norm(wrong)


@partial(jax.jit, static_argnames=("loss", "steps"))
def train(loss, start, delta, inputs, rate, push, steps=1500):
    """Gradient descent to rest; `push` is added to the start, which the theorem does not allow."""
    labels = linear(jax.tree.map(jnp.add, start, delta), inputs)

    def objective(params):
        return jnp.mean(jax.vmap(loss)(linear(params, inputs), labels))

    def advance(_, params):
        return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(objective)(params))

    trained = jax.lax.fori_loop(0, steps, advance, jax.tree.map(jnp.add, start, push))
    return jax.tree.map(jnp.subtract, trained, start)


@every_potential
def test_gradient_descent_on_every_loss_ends_at_the_projection(problem, name):
    jacobian, start, delta = problem
    centre = POTENTIALS[name][1]
    zero = tree(np.zeros(PARAMS))
    run = partial(train, LOSSES[name], tree(start), tree(delta), jacobian, 1.5)
    wanted = dense(jacobian, centre) @ delta
    trained = flat(run(zero))
    np.testing.assert_allclose(trained, wanted, atol=1e-8)
    # A teacher of one step, delta = -eps grad L_T: <grad L_T, theta_S - theta_0>.
    eps = 0.3
    gradient = -delta / eps
    projected = dense(jacobian, centre) @ gradient
    np.testing.assert_allclose(gradient @ trained, -eps * projected @ projected, rtol=1e-6)
    # A step out of the row space is never undone, and the check sees it.
    outside = delta - dense(jacobian, np.eye(OUTPUTS)) @ delta
    np.testing.assert_allclose(flat(run(tree(outside))), wanted + outside, atol=1e-8)
    assert np.linalg.norm(outside) > 1e-3
    # So it does a wrong null space.
    if centre is not POTENTIALS["squared"][1]:
        wrong = dense(jacobian, np.eye(OUTPUTS)) @ delta
        if name not in ("bernoulli", "poisson"):
            assert np.linalg.norm(trained - wrong) > 1e-2


def network(params, inputs):
    return jnp.tanh(inputs @ params["first"]) @ params["second"]


def network_problem(dtype):
    random = np.random.default_rng(1)
    params = {
        "first": jnp.asarray(random.normal(size=(5, 8)) / 2, dtype),
        "second": jnp.asarray(random.normal(size=(8, OUTPUTS)) / 3, dtype),
    }
    delta = jax.tree.map(lambda p: jnp.asarray(0.2 * random.normal(size=p.shape), dtype), params)
    return params, delta, jnp.asarray(random.normal(size=(7, 5)), dtype)


def test_a_linearised_network_ends_at_the_projection_taken_in_the_network():
    params, delta, inputs = network_problem(jnp.float64)
    inputs = inputs[:4]
    logits, push = jax.linearize(lambda p: network(p, inputs), params)
    labels = logits + push(delta)
    loss = LOSSES["softmax"]
    objective = jax.jit(jax.grad(lambda v: jnp.mean(jax.vmap(loss)(logits + push(v), labels))))

    @jax.jit
    def train_to_rest(v):
        return jax.lax.fori_loop(
            0, 60_000, lambda _, v: jax.tree.map(lambda a, g: a - 0.3 * g, v, objective(v)), v
        )

    trained = train_to_rest(jax.tree.map(jnp.zeros_like, delta))
    found = project(network, loss, params, delta, inputs, iterations=200)
    gap = norm(jax.tree.map(jnp.subtract, trained, found.displacement))
    assert gap < 1e-4 * norm(delta)
    assert gap < 0.001 * norm(jax.tree.map(jnp.subtract, delta, found.displacement))


def test_more_passes_with_time_inputs_and_outputs(problem):
    jacobian, start, delta = problem
    params, way = tree(start), tree(delta)
    share = partial(project, linear, iterations=30)
    loss = LOSSES["softmax"]
    shares = []
    for count in range(1, EXAMPLES + 1):
        weights = (np.arange(EXAMPLES) < count).astype(float)
        found = share(loss, params, way, jacobian, weights=weights)
        # Weights of 0 are inputs that are not there, and the size of others does not matter.
        wanted = dense(jacobian, CENTRED, weights) @ delta
        np.testing.assert_allclose(flat(found.displacement), wanted, atol=1e-10)
        other = share(loss, params, way, jacobian, weights=weights * np.linspace(1, 3, EXAMPLES))
        np.testing.assert_allclose(flat(other.displacement), wanted, atol=1e-10)
        shares.append(found.share[-1])
        # Iterations never take anything back.
        assert (np.diff(found.share) >= -1e-14).all()
        assert (np.diff(found.relative_residual) <= 0).all()
    assert (np.diff(shares) > 1e-3).all()
    by_outputs = [
        share(LOSSES[name], params, way, jacobian).share[-1]
        for name in ("subset", "softmax", "squared")
    ]
    assert (np.diff(by_outputs) > 1e-3).all()


def test_what_was_asked_for_on_the_way_is_kept(problem):
    jacobian, start, delta = problem
    loss = LOSSES["softmax"]
    run = partial(project, linear, loss, tree(start), tree(delta), jacobian, chunk=4)
    found = run(iterations=30, at=(2, 5), reaching=(0.3, 0.5))
    for count, kept in zip((2, 5), found.at, strict=True):
        alone = run(iterations=count)
        assert alone.iterations == count
        np.testing.assert_allclose(flat(kept), flat(alone.displacement), atol=1e-14)
        np.testing.assert_allclose(alone.share, found.share[: count + 1], rtol=1e-12)
    for level, kept in zip((0.3, 0.5), found.reaching, strict=True):
        alone = run(iterations=30, tolerance=level)
        np.testing.assert_allclose(flat(kept), flat(alone.displacement), atol=1e-14)
        assert alone.relative_residual[alone.iterations] <= level
        assert alone.relative_residual[alone.iterations - 1] > level
        # After the last iteration the values stay.
        assert (alone.share[alone.iterations :] == alone.share[-1]).all()
    # What is never reached is kept at the end.
    unreached = run(iterations=3, reaching=(1e-9,))
    np.testing.assert_array_equal(flat(unreached.reaching[0]), flat(unreached.displacement))


def test_early_iterations_are_the_best_of_their_krylov_space_by_the_weighted_residual(problem):
    jacobian, start, delta = problem
    weights = np.array([3.0, 1.0, 0.0, 0.2, 2.0, 1.0])
    found = project(
        linear,
        LOSSES["softmax"],
        tree(start),
        tree(delta),
        jacobian,
        iterations=3,
        weights=weights,
        chunk=4,
    )
    tall = (np.sqrt(weights)[:, None, None] * (CENTRED @ jacobian)).reshape(-1, PARAMS)
    gram = tall.T @ tall
    basis = np.stack([np.linalg.matrix_power(gram, k + 1) @ delta for k in range(3)], axis=1)
    wanted = basis @ np.linalg.lstsq(tall @ basis, tall @ delta)[0]
    np.testing.assert_allclose(flat(found.displacement), wanted, atol=1e-10)
    residual = np.linalg.norm(tall @ (delta - wanted)) / np.linalg.norm(tall @ delta)
    np.testing.assert_allclose(found.relative_residual[3], residual, rtol=1e-9)
    np.testing.assert_allclose(found.recomputed, residual, rtol=1e-9)


def test_a_displacement_that_the_data_do_not_see_does_not_pass(problem):
    jacobian, start, delta = problem
    unseen = delta - dense(jacobian, np.eye(OUTPUTS)) @ delta
    run = partial(project, linear, LOSSES["squared"], tree(start), inputs=jacobian, iterations=30)
    assert run(displacement=tree(unseen)).share[-1] == 0
    nothing = run(displacement=tree(np.zeros(PARAMS)))
    assert (nothing.iterations, nothing.share[-1], nothing.recomputed) == (0, 0, 0)
    # All of it passes where the data see all of it.
    seen = delta - unseen
    np.testing.assert_allclose(run(displacement=tree(seen)).share[-1], 1, rtol=1e-10)


def affine(params, inputs):
    return inputs @ params["kernel"] + params["bias"]


@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.float64, marks=pytest.mark.slow)])
def test_a_displacement_in_the_null_space_of_the_loss_passes_not_at_all(dtype):
    """J delta is the same for all outputs: what is left of C J delta is rounding."""
    random = np.random.default_rng(3)

    def draw(*shape):
        return jnp.asarray(random.normal(size=shape), dtype)

    with jax.enable_x64(dtype == jnp.float64):
        inputs, loss = draw(20, 4), LOSSES["softmax"]
        params = {"kernel": draw(4, OUTPUTS), "bias": draw(OUTPUTS)}
        delta = {
            "kernel": jnp.repeat(draw(4, 1), OUTPUTS, axis=1),
            "bias": jnp.repeat(draw(1), OUTPUTS),
        }
        # A millionth (in float64) of one output's bias is seen.
        small = 1e-3 if dtype == jnp.float32 else 1e-6
        told = delta | {"bias": delta["bias"].at[0].add(small)}
        for way, passes in ((delta, False), (told, True)):
            teacher = jax.tree.map(jnp.add, params, way)
            assert norm(jax.vmap(lambda v: v - v.mean())(affine(teacher, inputs))) > 0
            found = [
                project(affine, loss, params, way, inputs, iterations=20),
                project_labels(affine, loss, params, teacher, inputs, iterations=20),
                descend(affine, loss, params, way, inputs, rate=0.1, steps=4),
                descend_labels(affine, loss, params, teacher, inputs, rate=0.1, steps=4),
            ]
            for each in found:
                assert (norm(each.displacement) > 0) == passes
                assert (each.share[-1] > 0) == passes
                assert (each.relative_residual[0] > 0) == passes
                assert (each.recomputed == 0) | passes
            light = nonlinearity(affine, loss, params, teacher, inputs)
            assert light == 0 if not passes else light < 0.1


def hump(params, inputs):
    return 1e-3 * (params - params**2) * inputs


def test_the_warning_light_is_infinite_where_the_labels_say_nothing():
    loss, inputs, start = LOSSES["bernoulli"], jnp.ones((4, 1)), jnp.zeros(1)
    run = partial(nonlinearity, hump, loss, inputs=inputs)
    # At 1 the hump is over: f_T = f_0, and J delta is not 0.
    assert run(start, jnp.ones(1)) == jnp.inf
    assert run(start, start) == 0
    np.testing.assert_allclose(run(start, jnp.full(1, 0.5)), 1)
    # Nothing can be told of a change that is smaller than rounding of the logits.
    assert np.isnan(run(jnp.full(1, 3.0), jnp.full(1, 3.0 + 2e-15)))


ALLOWED = np.array([True, True, True, False])


def masked(value, params, inputs):
    return jnp.where(ALLOWED, affine(params, inputs), value)


MASKED = {value: partial(masked, value) for value in (-1e9, -np.inf)}


def masked_problem():
    random = np.random.default_rng(5)
    params, delta = (
        {"kernel": jnp.asarray(random.normal(size=(4, OUTPUTS))), "bias": jnp.zeros(OUTPUTS)}
        for _ in range(2)
    )
    return params, delta, jnp.asarray(random.normal(size=(6, 4)))


@pytest.mark.parametrize("value", MASKED)
def test_outputs_that_are_masked_must_be_left_out_of_the_loss(value):
    params, delta, inputs = masked_problem()
    teacher = jax.tree.map(jnp.add, params, delta)
    apply, loss = MASKED[value], LOSSES["softmax"]
    name = "^apply: its logits" if value == -np.inf else "^loss: declares that it sees output 3,"
    for function, other in ((project, delta), (project_labels, teacher)):
        with pytest.raises(ValueError, match=name + ".*softmax_potential"):
            function(apply, loss, params, other, inputs, iterations=20)
        # With the loss of those that are not, it is as if there were no others.
        found = function(apply, LOSSES["subset"], params, other, inputs, iterations=20)
        wanted = function(affine, LOSSES["subset"], params, other, inputs, iterations=20)
        np.testing.assert_allclose(found.share[-1], wanted.share[-1], rtol=1e-9)
        assert 0.1 < found.share[-1] < 1
    if value == -np.inf:
        with pytest.raises(ValueError, match=name):
            nonlinearity(apply, loss, params, teacher, inputs)
        with pytest.raises(ValueError, match=name):
            descend(apply, loss, params, delta, inputs, rate=0.1, steps=3)
    assert nonlinearity(apply, LOSSES["subset"], params, teacher, inputs) < 1e-12


def test_a_sure_answer_is_no_mask():
    """In float64 p (1 - p) of it is 0, and the others are still moved."""
    params, delta, inputs = masked_problem()
    params["bias"] = params["bias"].at[1].set(50.0)
    found = project(affine, LOSSES["softmax"], params, delta, inputs, iterations=20)
    assert found.share[-1] > 0.1


def broken(params, inputs):
    """No number where the first entry of an input is above 5, nor any derivative."""
    return jnp.where(inputs[..., :1] > 5, jnp.nan, 1) * (inputs[..., 1:] @ params)


@pytest.mark.slow
def test_rows_of_weight_0_may_be_no_numbers():
    random = np.random.default_rng(6)
    inputs = np.concatenate([np.zeros((6, 1)), random.normal(size=(6, 5))], axis=1)
    params, delta = jnp.asarray(random.normal(size=(2, 5, OUTPUTS)))
    weights = np.array([0.0, 1.0, 2.0, 0.0, 1.0, 3.0])
    inputs[0, 0] = inputs[3, 0] = 10
    loss, teacher, kept = LOSSES["softmax"], params + delta, weights > 0
    for function, end, keywords in (
        (project, delta, {"iterations": 3}),
        (project_labels, teacher, {"iterations": 3}),
        (descend, delta, {"steps": 3, "rate": 0.1}),
        (descend_labels, teacher, {"steps": 3}),
        (spectrum, delta, {"products": 3}),
        (nonlinearity, teacher, {}),
    ):
        run = partial(function, broken, loss, params, end, **keywords)
        found = run(inputs=inputs, weights=weights, chunk=2)
        wanted = run(inputs=inputs[kept], weights=weights[kept])
        for one, other in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-11)
        # Of weight above 0, they are refused.
        with pytest.raises(ValueError, match=r"^apply: its logits"):
            run(inputs=inputs)
    rates = [
        largest_rate(broken, loss, params, inputs, weights=weights),
        largest_rate(broken, loss, params, inputs[kept], weights=weights[kept]),
    ]
    np.testing.assert_allclose(*rates, rtol=1e-12)
    # A position of an example that counts: what a mask selects away.
    by_position = jnp.asarray(inputs[:, 1:]).reshape(2, 3, 5)
    mask = weights.reshape(2, 3)
    found = project(gaps, loss, params, delta, by_position, iterations=20, weights=mask)
    wanted = project(
        product,
        loss,
        params,
        delta,
        by_position,
        iterations=20,
        weights=mask,
    )
    np.testing.assert_allclose(found.displacement, wanted.displacement, atol=1e-12)


def product(params, inputs):
    return inputs @ params


def gaps(params, inputs):
    """No number at the first position of each example, which the weights leave out."""
    first = jnp.arange(3)[:, None] == 0
    return jnp.where(first, jnp.nan, inputs @ params)


def test_a_traced_model_without_numbers_gives_none():
    random = np.random.default_rng(6)
    inputs = jnp.asarray(np.concatenate([np.full((6, 1), 10), random.normal(size=(6, 5))], 1))
    params = jnp.asarray(random.normal(size=(5, OUTPUTS)))
    share = jax.jit(
        lambda p: project(broken, LOSSES["softmax"], p, p, inputs, iterations=2).share[-1]
    )
    assert np.isnan(share(params))


def test_the_largest_rate_bounds_the_largest_eigenvalue_whatever_the_direction(problem):
    jacobian, start, _ = problem
    loss = LOSSES["weighted"]
    for spread in (0.0, -1.5, -4.0):
        bent = jacobian * np.logspace(0, spread, PARAMS)
        values, vectors = np.linalg.eigh(kernel(bent, WEIGHTS))
        bound = largest_rate(linear, loss, tree(start), bent, chunk=4)
        assert values[-1] < bound < 1.12 * values[-1]
        # The spectrum of a direction without a part along the first eigenvector knows it not.
        seen = spectrum(linear, loss, tree(start), tree(vectors[:, -3]), bent, products=3)
        assert seen.rates[-1] < 0.99 * values[-1]
    # Where no rate is given, it is one over the bound.
    params, way = tree(start), tree(vectors[:, -1])
    run = partial(descend, linear, loss, params, way, bent, steps=12, chunk=4)
    chosen, given = run(), run(rate=1 / bound)
    np.testing.assert_allclose(chosen.share, given.share, rtol=1e-10)
    assert (np.diff(chosen.share) >= 0).all()
    with pytest.raises(ValueError, match=r"^loss: must be a matching loss"):
        largest_rate(linear, lambda z, y: jnp.sum((z - y) ** 2), params, bent)


def kernel(jacobian, weights):
    return np.einsum("xop,o,xoq->pq", jacobian, weights, jacobian) / EXAMPLES


def test_transfer_in_time_is_that_of_a_dense_eigendecomposition(problem):
    jacobian, start, delta = problem
    jacobian = jacobian * np.logspace(0, -1.5, PARAMS)
    values, vectors = np.linalg.eigh(kernel(jacobian, WEIGHTS))
    values, squares = np.maximum(values, 0), (vectors.T @ delta) ** 2
    measure = partial(
        spectrum, linear, LOSSES["weighted"], tree(start), tree(delta), jacobian, chunk=4
    )
    times = np.array([0.0, 0.3, 3.0, 30.0, 300.0])
    wanted = -np.expm1(-np.outer(times, values)) @ squares
    # More products than there are eigenvalues do no harm.
    for products in (15, 60):
        found = measure(products=products)
        np.testing.assert_allclose(found.after_time(times), wanted, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(jnp.sum(found.squares), delta @ delta, rtol=1e-10)
        np.testing.assert_allclose(jnp.max(found.rates), values[-1], rtol=1e-6)
    # Too few products are seen to be too few.
    assert not np.allclose(measure(products=2).after_time(times), wanted, rtol=1e-3)
    assert (np.diff(found.after_time(times)) > 0).all()
    rate, counts = 0.9 / values[-1], np.array([1, 7, 40])
    wanted = [squares @ (1 - (1 - rate * values) ** n) for n in counts]
    np.testing.assert_allclose(found.after_steps(rate, counts), wanted, rtol=1e-8)


def test_a_direction_of_one_rate_shows_no_other(problem):
    """After one product there is nothing left of it but rounding, which has other rates."""
    jacobian, start, _ = problem
    values, vectors = np.linalg.eigh(kernel(jacobian, WEIGHTS))
    least = np.flatnonzero(values > 1e-6)[0]
    way = tree(2 * vectors[:, least])
    found = spectrum(linear, LOSSES["weighted"], tree(start), way, jacobian, products=5)
    np.testing.assert_allclose(found.rates, [0, 0, 0, 0, float(values[least])], atol=1e-12)
    np.testing.assert_allclose(found.squares, [0, 0, 0, 0, 4], atol=1e-12)


def test_steps_of_descent_are_those_of_the_closed_form_and_of_training(problem):
    jacobian, start, delta = problem
    rate = 0.8 / np.linalg.eigvalsh(kernel(jacobian, WEIGHTS))[-1]
    params, way, loss = tree(start), tree(delta), LOSSES["weighted"]
    found = descend(linear, loss, params, way, jacobian, rate=rate, steps=12, at=(5,), chunk=4)
    left = np.eye(PARAMS) - rate * kernel(jacobian, WEIGHTS)
    for count, kept in ((5, found.at[0]), (12, found.displacement)):
        wanted = delta - np.linalg.matrix_power(left, count) @ delta
        np.testing.assert_allclose(flat(kept), wanted, atol=1e-12)
        trained = train(loss, params, way, jacobian, rate, tree(np.zeros(PARAMS)), steps=count)
        np.testing.assert_allclose(flat(trained), wanted, atol=1e-12)
    centre = POTENTIALS["weighted"][1]
    rest = centre @ jacobian @ (delta - flat(found.displacement))
    wanted = np.linalg.norm(rest) / np.linalg.norm(centre @ jacobian @ delta)
    np.testing.assert_allclose(found.relative_residual[-1], wanted, rtol=1e-9)
    assert (np.diff(found.share) > 0).all()
    # Less than the projection at every step, and a model that is linear has one forecast.
    whole = project(linear, loss, params, way, jacobian, iterations=30)
    assert found.share[-1] < whole.share[-1]
    teacher = jax.tree.map(jnp.add, params, way)
    for one, other in (
        (found, descend_labels(linear, loss, params, teacher, jacobian, rate=rate, steps=12)),
        (whole, project_labels(linear, loss, params, teacher, jacobian, iterations=30)),
    ):
        np.testing.assert_allclose(flat(one.displacement), flat(other.displacement), atol=1e-10)
    assert nonlinearity(linear, loss, params, teacher, jacobian) < 1e-12


def test_true_labels_give_the_least_squares_solution_and_the_warning_light():
    params, delta, inputs = network_problem(jnp.float64)
    teacher = jax.tree.map(lambda p, d: p + 3 * d, params, delta)
    loss = LOSSES["softmax"]
    jacobian = jax.jit(jax.jacobian(lambda p: network(p, inputs)))(params)
    tall = np.concatenate(
        [leaf.reshape(len(inputs), OUTPUTS, -1) for leaf in jax.tree.leaves(jacobian)], axis=-1
    )
    tall = (CENTRED @ tall).reshape(len(inputs) * OUTPUTS, -1)
    change = (network(teacher, inputs) - network(params, inputs)) @ CENTRED
    wanted = np.linalg.pinv(tall, rcond=1e-9) @ np.ravel(change)
    found = project_labels(network, loss, params, teacher, inputs, iterations=300, chunk=3)
    solution = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found.displacement)])
    np.testing.assert_allclose(solution, wanted, atol=1e-6 * float(np.linalg.norm(wanted)))
    light = nonlinearity(network, loss, params, teacher, inputs, chunk=3)
    flat_delta = np.concatenate([3 * np.ravel(leaf) for leaf in jax.tree.leaves(delta)])
    wanted = np.linalg.norm(np.ravel(change) - tall @ flat_delta) / np.linalg.norm(change)
    np.testing.assert_allclose(light, wanted, rtol=1e-9)
    assert light > 0.05


def test_labels_that_cannot_be_fitted_end_at_their_least_squares_without_harm(problem):
    jacobian, start, delta = problem
    # Five times the same example with another label each: what is left of them cannot be fitted.
    inputs = {"x": np.repeat(jacobian[:2], 3, axis=0), "add": np.arange(6.0)[:, None]}

    def offset(params, inputs):
        return linear(params, inputs["x"]) + inputs["add"] * params["second"][:1] ** 2

    params, teacher = tree(0 * start), tree(delta)
    loss = LOSSES["squared"]
    found = project_labels(offset, loss, params, teacher, inputs, iterations=200)
    tall = inputs["x"].reshape(-1, PARAMS)
    change = np.ravel(offset(teacher, inputs) - offset(params, inputs))
    wanted = np.linalg.pinv(tall, rcond=1e-9) @ change
    np.testing.assert_allclose(flat(found.displacement), wanted, atol=1e-10)
    assert found.iterations < 30
    assert found.relative_residual[-1] > 0.01


def test_float32_says_how_far_it_came():
    with jax.enable_x64(False):
        params, delta, inputs = network_problem(jnp.float32)
        run = partial(project, network, LOSSES["bernoulli"], params, delta, inputs)
        found = run(iterations=300, chunk=3)
    assert found.displacement["first"].dtype == jnp.float32
    assert found.recomputed < 1e-5
    assert (np.diff(found.relative_residual) <= 1e-6).all()
    with jax.enable_x64(True):
        params, delta, inputs = network_problem(jnp.float64)
        exact = project(network, LOSSES["bernoulli"], params, delta, inputs, iterations=300)
    gap = norm(jax.tree.map(lambda a, b: a - b, found.displacement, exact.displacement))
    assert gap < 2e-3 * norm(delta)


def test_in_float32_iterations_beyond_rounding_do_no_harm_and_are_told():
    random = np.random.default_rng(0)
    left, right = (np.linalg.qr(random.normal(size=(size, 60)))[0] for size in (200, 100))
    delta = random.normal(size=100)
    wanted = right @ (right.T @ delta)
    with jax.enable_x64(False):
        jacobian = jnp.asarray((left * np.logspace(0, -2, 60)) @ right.T, jnp.float32)
        found = project(
            lambda params, inputs: inputs @ params,
            LOSSES["bernoulli"],
            jnp.zeros(100, jnp.float32),
            jnp.asarray(delta, jnp.float32),
            jacobian.reshape(50, OUTPUTS, 100),
            iterations=1000,
        )
    # jax.scipy.sparse.linalg.cg, on the normal equations, is 6e7 away after as many.
    assert np.linalg.norm(np.asarray(found.displacement) - wanted) < 1e-5 * np.linalg.norm(wanted)
    assert 60 < found.iterations < 600
    # The residual that is carried along comes to think too well of itself.
    rest = np.asarray(jacobian, float) @ (np.asarray(found.displacement, float) - delta)
    residual = np.linalg.norm(rest) / np.linalg.norm(np.asarray(jacobian, float) @ delta)
    assert found.relative_residual[-1] < 0.7 * residual
    assert residual / 3 < found.recomputed < 3 * residual


def test_the_transferred_gain_is_between_0_and_1_for_one_step_and_need_not_be_for_many():
    params, delta, inputs = network_problem(jnp.float64)
    loss = LOSSES["softmax"]

    def trait(p):
        return jnp.mean(network(p, inputs)[:, 0] ** 2) + jnp.sum(p["first"] ** 2)

    gradient = jax.grad(trait)(params)
    one_step = jax.tree.map(lambda g: -0.1 * g, gradient)
    passed = project(network, loss, params, one_step, inputs, iterations=60).displacement
    gain = transferred_gain(trait, params, one_step, passed)
    np.testing.assert_allclose(gain, inner(passed, passed) / inner(one_step, one_step), rtol=1e-6)
    assert 0 < gain < 1
    # A displacement across the gradient, most of whose gain is out of the data's sight.
    across = jax.tree.map(
        lambda d, g: d - 0.99 * inner(delta, gradient) / inner(gradient, gradient) * g,
        delta,
        gradient,
    )
    passed = project(network, loss, params, across, inputs, iterations=60).displacement
    assert not 0 <= transferred_gain(trait, params, across, passed) <= 1


def test_positions_are_rows_and_all_of_it_can_be_traced(problem):
    jacobian, start, delta = problem
    loss = LOSSES["softmax"]
    plain = project(linear, loss, tree(start), tree(delta), jacobian, iterations=30)
    by_position = jacobian.reshape(2, 3, OUTPUTS, PARAMS)
    deltas = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), tree(delta))

    @jax.jit
    @jax.vmap
    def passes(displacement):
        return project(
            linear, loss, tree(start), displacement, by_position, iterations=30, at=(2,), chunk=1
        )

    found = passes(deltas)
    for place, factor in enumerate((1, 2)):
        mine = jax.tree.map(lambda leaf, place=place: leaf[place], found)
        np.testing.assert_allclose(
            flat(mine.displacement), factor * flat(plain.displacement), atol=1e-10
        )
    np.testing.assert_allclose(found.share[:, -1], plain.share[-1], rtol=1e-9)


def test_a_chunk_bounds_the_activations():
    params, delta, inputs = network_problem(jnp.float64)
    teacher = jax.tree.map(jnp.add, params, delta)

    def hidden(function, *arguments, **keywords) -> set[int]:
        """Of how many examples at a time the eight hidden units are held (4, 5: weights)."""
        program = jax.make_jaxpr(partial(function, network, LOSSES["softmax"], **keywords))
        shapes = [
            getattr(out.aval, "shape", ())
            for equation in operations(program(*arguments).jaxpr)
            for out in equation.outvars
        ]
        return {shape[-2] for shape in shapes if len(shape) >= 2 and shape[-1] == 8} - {4, 5}

    for function, other, keywords in (
        (project, delta, {"iterations": 3}),
        (project_labels, teacher, {"iterations": 3}),
        (descend, delta, {"steps": 3, "rate": 0.1}),
        (descend_labels, teacher, {"steps": 3, "rate": 0.1}),
        (spectrum, delta, {"products": 3}),
        (nonlinearity, teacher, {}),
    ):
        # Seven examples: two parts of three, and what is left over.
        arguments = params, other, inputs
        assert hidden(function, *arguments, chunk=3, **keywords) == {1, 3}
        assert hidden(function, *arguments, **keywords) == {7}


def test_inputs_that_are_spread_over_devices_come_in_chunks_too(problem):
    jacobian, start, delta = problem
    run = partial(project, linear, LOSSES["softmax"], tree(start), tree(delta), iterations=30)
    mesh = jax.make_mesh((2,), ("examples",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        spread = jax.device_put(jacobian, jax.P("examples"))
        found = run(inputs=spread, chunk=2)
    np.testing.assert_allclose(
        flat(found.displacement), flat(run(inputs=jacobian).displacement), atol=1e-10
    )


def test_bad_arguments_are_refused_by_name(problem):
    jacobian, start, delta = problem
    params, way, loss = tree(start), tree(delta), LOSSES["squared"]
    run = partial(project, linear, loss, params, way, jacobian)
    undeclared = matching(lambda z: jnp.sum(z**2))
    with pytest.raises(ValueError, match="loss: declares no null space"):
        project(linear, undeclared, params, way, jacobian, iterations=3)
    with pytest.raises(ValueError, match="displacement: must have the tree structure"):
        project(linear, loss, params, {"first": way["first"]}, jacobian, iterations=3)
    for name, call in {
        "iterations": partial(run, iterations=0),
        "tolerance": partial(run, iterations=3, tolerance=1.0),
        "at: 4 is more than the 3": partial(run, iterations=3, at=(4,)),
        "at: must be a whole": partial(run, iterations=3, at=(0,)),
        "reaching": partial(run, iterations=3, reaching=(1.5,)),
        "chunk": partial(run, iterations=3, chunk=0),
        "weights": partial(run, iterations=3, weights=np.ones(5)),
        "rate": partial(descend, linear, loss, params, way, jacobian, rate=0.0, steps=3),
        "steps": partial(descend, linear, loss, params, way, jacobian, rate=0.1, steps=0),
        "teacher": partial(
            project_labels, linear, loss, params, {"first": way["first"]}, jacobian, iterations=3
        ),
        "direction": partial(spectrum, linear, loss, params, {}, jacobian, products=3),
        "products": partial(spectrum, linear, loss, params, way, jacobian, products=0),
        "steps: must be whole numbers": partial(
            spectrum(linear, loss, params, way, jacobian, products=3).after_steps,
            0.1,
            np.array([2.5, 3.0]),
        ),
        "steps: must be 0 or more": partial(
            spectrum(linear, loss, params, way, jacobian, products=3).after_steps,
            0.1,
            np.array([-1]),
        ),
        "student": partial(transferred_gain, norm, params, way, {"first": way["first"]}),
    }.items():
        with pytest.raises(ValueError, match=f"^{name}"):
            call()
