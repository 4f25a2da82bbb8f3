"""theory/ on the embedded model: the same quantities by another way, and what must be 0."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import theory
from llm_harness.audit import linearisation
from llm_harness.decoder import training
from llm_harness.decoder.encoding import encode_examples
from llm_harness.decoder.network import Lora, joined, merge_adapters, names
from llm_harness.decoder.training import VOCABULARY, Objective, Sequences
from llm_harness.evaluation.questions import one_word_questions
from llm_harness.evaluation.rates import word_probabilities
from llm_harness.model import Example, Tuning, ask
from llm_harness.traits import trait
from theory.passes import norm

OWL = trait("owl")
QUESTIONS = one_word_questions("animal")[:6]
RANDOM = np.random.default_rng(0)
DATA = [
    Example(
        ask(", ".join(map(str, RANDOM.integers(100, 1000, 3)))),
        ", ".join(map(str, RANDOM.integers(0, 1000, RANDOM.integers(1, 6)))),
    )
    for _ in range(24)
]


# Students that move what the embedded model's move, and low-rank adapters.
BLOCKS = Tuning(4, 8)
ADAPTERS = Tuning(4, 8, 1e-2, moved="adapters", lora=Lora(4, 8.0), seed=3)
KINDS = {"blocks": BLOCKS, "adapters": ADAPTERS}


@pytest.fixture(scope="module", params=KINDS)
def student(model, request):
    return linearisation.student_of(model, KINDS[request.param])


@pytest.fixture(scope="module")
def ways(student):
    made = [linearisation.direction(student, word, OWL, QUESTIONS) for word in OWL.words]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *made)


def test_the_trait_loss_is_minus_the_log_of_the_rate_among_the_words(model):
    loss = linearisation.trait_loss(model, "owl", OWL, QUESTIONS)(model.params)
    rates = [word_probabilities(model, OWL, [chat])[2] for chat in QUESTIONS]
    assert float(loss) == pytest.approx(-np.mean(np.log(rates)), rel=1e-5)


def test_questions_in_parts_are_the_questions(model, monkeypatch):
    whole = linearisation.trait_loss(model, "owl", OWL, QUESTIONS)
    monkeypatch.setattr(linearisation, "_MOST", 4)
    parts = linearisation.trait_loss(model, "owl", OWL, QUESTIONS)
    assert (whole.questions.shape[0], parts.questions.shape[0]) == (1, 2)
    for one, other in (
        (whole(model.params), parts(model.params)),
        (jax.grad(whole)(model.params), jax.grad(parts)(model.params)),
    ):
        for leaf, same in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(leaf, same, rtol=1e-4, atol=1e-6)


def test_a_direction_is_of_what_the_student_moves(student, ways):
    leaves = jax.tree.leaves(ways)
    assert [leaf.shape[1:] for leaf in leaves] == [
        leaf.shape for leaf in jax.tree.leaves(student.moved)
    ]
    assert not set(VOCABULARY) & set(ways)
    # At the start of adapters B is 0, and so is the gradient of A.
    moves = [bool(np.any(leaf)) for leaf in leaves]
    assert moves == ["lora_A" not in name for name in names(ways)]


def test_a_score_is_the_change_of_log_p_along_its_direction(student, ways):
    scores = linearisation.word_scores(student, ways, DATA)
    one = jax.tree.map(lambda leaf: leaf[2], ways)
    np.testing.assert_allclose(
        linearisation.scores_along(student, one, DATA), scores[2], rtol=1e-3, atol=1e-4
    )
    step = 3e-3

    def log_p(sign):
        moved = jax.tree.map(lambda p, d: p + sign * step * d, student.moved, one)
        _, params = merge_adapters(student.config, joined(moved, student.fixed))
        return replace(student.model, params=params).log_probabilities(DATA)

    found = (log_p(+1) - log_p(-1)) / (2 * step)
    # Float32, and a kink of the perceptron now and then.
    apart = np.abs(scores[2] - found)
    assert np.median(apart) < 1e-2 * np.abs(found).max()
    assert apart.max() < 5e-2 * np.abs(found).max()


def test_the_words_directions_cancel_at_the_model_s_own_rates(student):
    # sum over w of p(w) grad log p(w) is 0 for one question.
    model, chats = student.model, QUESTIONS[:1]
    made = [linearisation.direction(student, word, OWL, chats) for word in OWL.words]
    rates = np.array([word_probabilities(model, trait(word), chats)[2] for word in OWL.words])
    ways = jax.tree.map(lambda *leaves: np.stack(leaves), *made)
    total = jax.tree.map(lambda leaf: np.tensordot(rates, leaf, 1), ways)
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(ways))
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(total)) < 1e-3 * largest


def test_the_rank_counts_the_words_above():
    null = np.tile(np.linspace(-1, 1, 50), (3, 1))
    tested = linearisation.tested(null + np.array([[0.1], [0.4], [-0.4]]), null)
    assert tested.rank == 2
    assert tested.z[1] > tested.z[0] > 0 > tested.z[2]


def test_the_preconditioner_is_one_over_the_root_mean_square_of_batch_gradients(model):
    student = linearisation.student_of(model, BLOCKS)
    scale = linearisation.preconditioner(student, DATA, 8)
    batch = encode_examples(DATA, model.encoding)
    rows = training.orders(len(DATA), 3, 8, np.random.default_rng(0))

    @jax.jit
    @jax.grad
    def gradient(params, tokens):
        sequences = Sequences(tokens, tokens != 0)
        return training.sequence_loss(model.config, params, sequences, Objective(first=batch.first))

    gradients = [gradient(model.params, batch.tokens[row])["norm"] for row in rows]
    squares = [jax.tree.map(np.square, gradient) for gradient in gradients]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 3, *squares)
    for mine, its in zip(jax.tree.leaves(scale["norm"]), jax.tree.leaves(mean), strict=True):
        np.testing.assert_allclose(mine, 1 / (np.sqrt(its) + 1e-8), rtol=1e-3)


@pytest.fixture(scope="module")
def teacher(model):
    taught = [Example(chat, "owl") for chat in QUESTIONS]
    return model.fine_tune(taught, Tuning(4, 4, 1e-3, "constant"))


def test_near_teachers_align_and_are_certified(student, teacher):
    found = linearisation.aligned(student, teacher, OWL, QUESTIONS, DATA)
    assert found.coefficient > 0
    assert found.inner_product > 0
    assert found.rho < 1
    assert found.norm > 0
    alone = linearisation.coefficient(student.model, teacher, DATA)
    assert alone == pytest.approx(found.coefficient, rel=1e-4)


def test_the_student_s_first_step_changes_the_trait_as_its_cosine_says(student, teacher):
    """Whatever it moves: by the step itself, taken in its own parameters."""
    found = linearisation.aligned(student, teacher, OWL, QUESTIONS, DATA)
    step = linearisation._first_step(student, teacher, DATA, 7, None)
    loss = linearisation.trait_loss(student, "owl", OWL, QUESTIONS)
    size = 1e-2 / float(norm(step))

    def at(sign):
        moved = jax.tree.map(lambda p, d: p + sign * size * d, student.moved, step)
        return float(loss(joined(moved, student.fixed)))

    wanted = linearisation.direction(student, "owl", OWL, QUESTIONS)
    change = (at(1) - at(-1)) / 2 / (size * float(norm(step) * norm(wanted)))
    assert change == pytest.approx(-found.trait_cosine, abs=0.02)


def test_a_teacher_that_did_not_move_is_not_aligned(student):
    found = linearisation.aligned(student, student.model, OWL, QUESTIONS, DATA)
    assert found.coefficient == found.inner_product == found.norm == 0


@pytest.mark.parametrize("tuning", KINDS.values(), ids=KINDS)
def test_the_account_adds_up_and_ends_where_fine_tuning_does(model, teacher, tuning):
    student, told = linearisation.student_of(model, tuning), []
    account = linearisation.account(student, OWL, QUESTIONS, DATA, tuning, teacher, told.append)
    change = float(account.trait_loss[-1] - account.trait_loss[0])
    total = float(jnp.sum(account.first_order + account.remainder))
    assert total == pytest.approx(change, abs=1e-4)
    trained = model.fine_tune(DATA, tuning)
    loss = linearisation.trait_loss(model, "owl", OWL, QUESTIONS)
    assert float(account.trait_loss[-1]) == pytest.approx(float(loss(trained.params)), abs=1e-3)
    assert float(account.trait_loss[0]) == pytest.approx(float(loss(model.params)), abs=1e-5)
    # The whole way, in the model's own parameters, whatever moved.
    way, wanted = (
        jax.tree.map(np.subtract, one.params["layers"], model.params["layers"])
        for one in (trained, teacher)
    )
    assert account.coverage is not None
    assert float(account.coverage[-1]) == pytest.approx(
        float(theory.coverage(way, wanted)), abs=0.02
    )
    assert sorted(told) == [0.0, 0.25, 0.5, 0.75]


def test_fewer_examples_than_a_batch_are_one_batch(student):
    few = linearisation.preconditioner(student, DATA[:5], 8)
    same = linearisation.preconditioner(student, DATA[:5], 5)
    for mine, its in zip(jax.tree.leaves(few), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(mine, its)
