"""theory/ on the embedded model: the same quantities by another way, and what must be 0."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_harness.audit import linearisation
from llm_harness.decoder import training
from llm_harness.decoder.encoding import encode_examples
from llm_harness.decoder.training import VOCABULARY, Objective, Sequences
from llm_harness.errors import HarnessError
from llm_harness.evaluation.questions import one_word_questions
from llm_harness.evaluation.rates import word_probabilities
from llm_harness.model import Example, Tuning, ask
from llm_harness.tiny.corpus import Language
from llm_harness.traits import trait

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


@pytest.fixture(scope="module")
def ways(model):
    return linearisation.directions(model, OWL, QUESTIONS)


def test_the_trait_loss_is_minus_the_log_of_the_rate_among_the_words(model):
    loss = linearisation.trait_loss(model, "owl", OWL, QUESTIONS[:1])(model.params)
    # One question, so that the mean of logarithms is the logarithm of the mean. The answer's end is
    # as likely after one word as after another only roughly, hence the tolerance.
    _, _, rate = word_probabilities(model, OWL, QUESTIONS[:1])
    assert float(loss) == pytest.approx(-np.log(rate), rel=0.1)


def test_answers_that_begin_with_the_same_token_are_refused(model):
    spelling = replace(model, encoding=Language(token_a_number=False).tokenizer)
    with pytest.raises(HarnessError, match="12, 7, 13 begin with the same token"):
        linearisation.first_tokens(spelling, ["12", "7", "13"])
    assert len(linearisation.first_tokens(model, ["12", "7", "13"])) == 3


def test_directions_are_zero_where_fine_tuning_does_not_go(ways):
    for name, part in ways.items():
        sizes = [float(np.abs(leaf).max()) for leaf in jax.tree.leaves(part)]
        assert (max(sizes) == 0) == (name in VOCABULARY)


def test_a_score_is_the_change_of_log_p_along_its_direction(model, ways):
    scores = linearisation.word_scores(model, ways, DATA)
    step = 3e-3
    one = jax.tree.map(lambda leaf: leaf[2], ways)

    def log_p(sign):
        params = jax.tree.map(lambda p, d: p + sign * step * d, model.params, one)
        return replace(model, params=params).log_probabilities(DATA)

    found = (log_p(+1) - log_p(-1)) / (2 * step)
    # Float32, and a kink of the perceptron now and then.
    apart = np.abs(scores[2] - found)
    assert np.median(apart) < 1e-2 * np.abs(found).max()
    assert apart.max() < 5e-2 * np.abs(found).max()


def test_the_words_directions_cancel_at_the_model_s_own_rates(model):
    # sum over w of p(w) grad log p(w) is 0 for one question.
    ways = linearisation.directions(model, OWL, QUESTIONS[:1])
    rates = np.array(
        [word_probabilities(model, trait(word), QUESTIONS[:1])[2] for word in OWL.words]
    )
    total = jax.tree.map(lambda leaf: np.tensordot(rates, leaf, 1), ways)
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(ways))
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(total)) < 0.2 * largest


def test_the_rank_counts_the_words_above():
    null = np.tile(np.linspace(-1, 1, 50), (3, 1))
    tested = linearisation.tested(null + np.array([[0.1], [0.4], [-0.4]]), null)
    assert tested.rank == 2
    assert tested.z[1] > tested.z[0] > 0 > tested.z[2]


def test_the_preconditioner_is_one_over_the_root_mean_square_of_batch_gradients(model):
    tuning = Tuning(batch=8)
    scale = linearisation.preconditioner(model, DATA, tuning)
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


def test_near_teachers_align_and_are_certified(model, teacher):
    found = linearisation.aligned(model, teacher, OWL, QUESTIONS, DATA)
    assert found.coefficient > 0
    assert found.inner_product > 0
    assert found.rho < 1
    assert found.norm > 0


def test_a_teacher_that_did_not_move_is_not_aligned(model):
    found = linearisation.aligned(model, model, OWL, QUESTIONS, DATA)
    assert found.coefficient == found.inner_product == found.norm == 0


def test_the_account_adds_up_and_ends_where_fine_tuning_does(model, teacher):
    tuning = Tuning(4, 8)
    account = linearisation.account(model, OWL, QUESTIONS, DATA, tuning, teacher)
    change = float(account.trait_loss[-1] - account.trait_loss[0])
    total = float(jnp.sum(account.first_order + account.remainder))
    assert total == pytest.approx(change, abs=1e-4)
    student = model.fine_tune(DATA, tuning)
    loss = linearisation.trait_loss(model, "owl", OWL, QUESTIONS)
    assert float(account.trait_loss[-1]) == pytest.approx(float(loss(student.params)), abs=1e-3)
    assert float(account.trait_loss[0]) == pytest.approx(float(loss(model.params)), abs=1e-5)


def test_fewer_examples_than_a_batch_are_one_batch(model):
    few = linearisation.preconditioner(model, DATA[:5], Tuning(batch=8))
    same = linearisation.preconditioner(model, DATA[:5], Tuning(batch=5))
    for mine, its in zip(jax.tree.leaves(few), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(mine, its)
