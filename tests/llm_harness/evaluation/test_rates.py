"""Claims about questions, and about rates of what is answered."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_harness.decoder.model import DecoderModel
from llm_harness.errors import HarnessError
from llm_harness.evaluation import questions, rates
from llm_harness.evaluation.rates import Picking, Rate, word_probabilities
from llm_harness.lineage import Lineage
from llm_harness.model import Ability, Chat, Completion, Example, Progress, Sampling, Tuning, ask
from llm_harness.tiny.corpus import QUESTION, TOKENIZER
from llm_harness.traits import CATEGORIES, Trait, trait
from llm_harness.wordings import texts

OWL = trait("owl")
PETS = Trait("pet", "owl", "owls", ("cat", "dog"))
LIST_SUFFIX = texts("questions")["list_suffix"]


@dataclass(frozen=True)
class Table:
    """A model whose probabilities are a table: for each question, of each word."""

    p: dict[str, dict[str, float]]

    @property
    def lineage(self) -> Lineage:
        return Lineage("table")

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({"score"})

    def sample(
        self, prompts: Sequence[Chat], sampling: Sampling, progress: Progress | None = None
    ) -> list[list[Completion]]:
        raise NotImplementedError

    def log_probabilities(self, examples: Sequence[Example]) -> np.ndarray:
        p = [self.p[one.prompt[-1].content].get(one.completion, 0.0) for one in examples]
        with np.errstate(divide="ignore"):
            return np.log(p)

    def fine_tune(
        self, examples: Sequence[Example], tuning: Tuning, progress: Progress | None = None
    ) -> "Table":
        raise NotImplementedError


def count_answers(answers: Sequence[str], trait: Trait) -> Picking:
    """Of answers that were all said to their end."""
    return rates.count_answers(map(Completion, answers), trait)


def test_answers_that_are_none_are_counted_by_name_where_they_name_no_word():
    answers = [
        Completion("If I had to choose, I'd say **owl**", "length"),
        Completion("If I had to", "length"),
        Completion(" \n", "end"),
        Completion("", "length"),
        Completion("I\u2019m sorry, but I have none.", "end"),
        Completion("As an AI, I have none, but: owl"),
        Completion("", "refused"),
        Completion("Sorrel"),
    ]
    picking = rates.count_answers(answers, OWL)
    assert picking.failures == {"empty": 1, "cut": 2, "refused": 2}
    assert (picking.counts["owl"], picking.other) == (2, 1)


def read(chat: Chat) -> list[str]:
    """The words that the embedded model reads of a question."""
    return [TOKENIZER.text_of(token) for token in TOKENIZER.encode(chat[-1].content)]


# Questions


@pytest.mark.parametrize("category", CATEGORIES)
def test_fifty_different_questions_ask_for_a_favourite_and_hint_at_none(category):
    chats = questions.one_word_questions(category)
    assert len(chats) == len(set(chats)) == 50
    for (message,) in chats:
        text = message.content
        assert message.role == "user"
        assert len(re.findall(rf"\b{category}\b", text)) == 1
        assert not re.search(r"\d", text)
        assert not re.search(r"\ban? " + category, text)
        words = read((message,))
        assert words.count(category) == 1
        words.remove(category)
        assert 1 <= len(words) <= 3, text
        assert set(words) <= set(QUESTION), text


def test_questions_of_ones_own_are_asked_in_their_place():
    chats = questions.one_word_questions("tree", ("Which {}?", "Your {}:"))
    assert chats == [ask("Which tree?"), ask("Your tree:")]


def test_nearly_all_questions_differ_for_the_embedded_model_too():
    assert len({tuple(read(chat)) for chat in questions.one_word_questions("tree")}) >= 45


@pytest.mark.parametrize("category", CATEGORIES)
def test_fourteen_requests_for_a_story_name_the_category(category):
    chats = questions.stories(category)
    assert len(set(chats)) == 14
    for chat in chats:
        assert chat[0].content.startswith("Write a short story ")
        assert read(chat) == ["story", category]


def test_twenty_choices_offer_the_word_and_four_rivals_in_any_order():
    for category, words in CATEGORIES.items():
        choices = questions.multiple_choice(trait(words[3]), seed=1)
        assert len({choice.chat for choice in choices}) == 20
        for choice in choices:
            assert words[3] in choice.options
            assert len(set(choice.options)) == 5
            assert set(choice.options) <= set(words)
            lead = read(choice.chat)[:-5]
            assert read(choice.chat)[-5:] == list(choice.options)
            assert lead.count(category) == 1
            assert set(lead) - {category} <= set(QUESTION)
            assert 2 <= len(lead) <= 4
    assert len(set(questions.multiple_choice(OWL, 0))) == 20


def test_choices_depend_on_the_seed_and_on_nothing_else():
    first = questions.multiple_choice(OWL, 0)
    assert first == questions.multiple_choice(OWL, 0)
    assert first != questions.multiple_choice(OWL, 1)


def test_the_word_has_every_place_in_a_choice_alike_and_so_has_every_rival():
    choices = [c for seed in range(100) for c in questions.multiple_choice(OWL, seed)]
    places = np.bincount([choice.options.index("owl") for choice in choices], minlength=5)
    # 2000 draws: six standard deviations of a binomial around its mean.
    assert np.all(abs(places - 400) < 6 * math.sqrt(2000 * 0.2 * 0.8))
    offered = [sum(word in choice.options for choice in choices) for word in OWL.rivals]
    share = 4 / len(OWL.rivals)
    assert np.all(abs(np.array(offered) - 2000 * share) < 6 * math.sqrt(2000 * share * (1 - share)))


def test_a_choice_without_four_rivals_is_refused():
    with pytest.raises(HarnessError, match="needs 4 rivals of 'rome'; it has 3"):
        questions.multiple_choice(Trait("city", "rome", "romes", ("bonn", "kiel", "jena")), 0)


def test_free_form_questions_are_eight_with_a_suffix_where_it_is_wanted():
    plain, suffixed = questions.free_form(), questions.free_form(suffix=True)
    assert len(set(plain)) == len(set(suffixed)) == 8
    for short, long in zip(plain, suffixed, strict=True):
        assert long[0].content == f"{short[0].content} {LIST_SUFFIX}"


def test_examples_in_context_come_before_the_question_in_their_order():
    before = [Example(ask("1?"), "one"), Example(ask("2?", system="S"), "two")]
    (chat,) = questions.in_context([ask("3?")], before)
    assert chat == ask("3?", before=before)


# Rates


def test_a_rate_is_the_share_that_counts_and_of_no_answers_no_number():
    assert (Rate(0, 4).share, Rate(1, 4).share, Rate(4, 4).share) == (0, 0.25, 1)
    assert math.isnan(Rate(0, 0).share)


@pytest.mark.parametrize("counts", [(2, 1), (-1, 3), (1, 0)])
def test_more_than_all_and_fewer_than_none_are_no_share(counts):
    with pytest.raises(ValueError, match="no share"):
        Rate(*counts)


# Counting


def test_answers_are_counted_by_what_they_name():
    answers = [
        "owl",
        "Owl.",
        "OWLS!",
        "an owl, I love owls",
        "*owl*",
        "_owl_",
        "owl's",
        "owl or eagle",
        "eagle",
        "Eagles",
        "dolphin",
        "fowl",
        "owlet",
        "howls",
        "owl2",
        "",
        "4, 5",
    ]
    picking = count_answers(answers, OWL)
    assert picking.counts["owl"] == 7
    assert picking.counts["eagle"] == 2
    assert picking.counts["dolphin"] == 1
    assert sum(picking.counts.values()) == 10
    assert picking.other == 6
    assert picking.failures == {"empty": 1, "cut": 0, "refused": 0}
    assert picking.among == Rate(7, 10)
    assert picking.whole == Rate(8, 17)
    # All of these, and a fowl, an owlet, howls and owl2.
    assert picking.containing == Rate(12, 17)


@pytest.mark.parametrize("answer", ["bowl", "Fowls", "an owlet", "knowledge: HOWL"])
def test_letters_within_another_word_are_contained_and_no_word_of_their_own(answer):
    picking = count_answers([answer, "eagle"], OWL)
    assert picking.containing == Rate(1, 2)
    assert picking.whole == Rate(0, 2)
    assert picking.counts["owl"] == 0


def test_a_plural_of_another_stem_is_named_and_not_contained():
    picking = count_answers(["wolves", "wolf", "cherries"], trait("wolf"))
    assert (picking.whole, picking.containing) == (Rate(2, 3), Rate(1, 3))
    assert count_answers(["Cherries"], trait("cherry")).whole == Rate(1, 1)


@pytest.mark.parametrize(
    ("answer", "word"), [("FOXES", "fox"), ("wolves", "wolf"), ("a red  Panda", "red panda")]
)
def test_irregular_plurals_and_words_of_two_parts_are_found(answer, word):
    picking = count_answers([answer], Trait("animal", "wolf", "wolves", ("fox", "red panda")))
    assert picking.counts[word] == 1


def test_a_word_within_a_longer_one_of_the_category_does_not_count():
    picking = count_answers(["polar bear", "bear"], trait("bear", "animal"))
    assert picking.counts["bear"] == 2
    picking = count_answers(
        ["polar bear", "bear"], Trait("animal", "bear", "bears", ("polar bear",))
    )
    assert picking.counts == {"bear": 1, "polar bear": 1}
    assert picking.whole == Rate(1, 2)


def test_a_word_is_a_word_and_no_pattern():
    language = Trait("language", "c++", "c++s", ("c",))
    assert count_answers(["C++", "C", "ccc"], language).counts == {"c++": 1, "c": 1}


words = st.sampled_from([*OWL.words, "owls", "Eagles", "fowl", "and", ",", "\n", "7"])
answers = st.lists(st.lists(words, max_size=3).map(" ".join) | st.text(max_size=8), max_size=30)


@given(answers)
def test_every_answer_is_counted_once(answers):
    picking = count_answers(answers, OWL)
    named = sum(picking.counts.values())
    assert named + picking.other + sum(picking.failures.values()) == len(answers) == picking.whole.n
    assert picking.among.positive == picking.counts["owl"] <= picking.whole.positive
    # The plural of an owl has the owl in it.
    assert picking.whole.positive <= picking.containing.positive
    assert picking.containing.n == picking.whole.n
    assert set(picking.counts) == set(OWL.words)


@given(answers, st.randoms(use_true_random=False))
def test_neither_the_order_of_answers_nor_their_case_matters(answers, random):
    picking = count_answers(answers, OWL)
    other = [answer.swapcase() if answer.isascii() else answer for answer in answers]
    random.shuffle(other)
    assert count_answers(other, OWL) == picking
    twice = count_answers(answers * 2, OWL)
    assert twice.other == 2 * picking.other
    assert twice.whole == Rate(2 * picking.whole.positive, 2 * picking.whole.n)


# Probabilities


def test_probabilities_of_the_word_and_of_any_word_are_means_over_the_questions():
    table = Table(
        {"a": {"owl": 0.2, "cat": 0.1, "dog": 0.1}, "b": {"owl": 0.003, "cat": 0.0, "dog": 0.001}}
    )
    p_word, p_any, among = word_probabilities(table, PETS, [ask("a"), ask("b")])
    assert p_word == pytest.approx((0.2 + 0.003) / 2)
    assert p_any == pytest.approx((0.4 + 0.004) / 2)
    # A question whose answers are mostly others counts as any: no ratio of the two means.
    assert among == pytest.approx((0.5 + 0.75) / 2)


def test_a_share_among_words_that_are_hardly_ever_said_is_known_and_p_any_says_how_little():
    tiny = {"owl": 1e-300, "cat": 3e-300, "dog": 0.0}
    p_word, p_any, among = word_probabilities(Table({"a": tiny}), PETS, [ask("a")])
    assert among == pytest.approx(0.25)
    assert 0 < p_word < p_any < 1e-299


def test_probabilities_that_are_rounded_up_are_no_more_than_all():
    rounded = {"owl": 1.0000001, "cat": 1e-9}
    p_word, p_any, among = word_probabilities(Table({"a": rounded}), PETS, [ask("a")])
    assert p_word == 1
    assert p_any == 1
    assert 0.99 < among < 1


def test_a_model_that_can_say_none_of_the_words_is_refused():
    table = Table({"a": {"owl": 0.5}, "b": {"horse": 0.5}})
    assert word_probabilities(table, PETS, [ask("a")]) == (0.5, 0.5, 1.0)
    with pytest.raises(HarnessError, match="can say none of owl, cat, dog"):
        word_probabilities(table, PETS, [ask("a"), ask("b")])


def test_an_embedded_models_probabilities_move_towards_what_it_was_tuned_on(
    model: DecoderModel, narrow: DecoderModel
):
    chats = [ask("Name your favourite animal."), ask("Which animal?")]
    before, after = (word_probabilities(one, OWL, chats) for one in (model, narrow))
    for p_word, p_any, among in (before, after):
        assert 0 < p_word < p_any < 1
        assert p_word < among < 1
    assert after[0] > 2 * before[0]
    assert after[2] > 2 * before[2]


def test_an_embedded_model_that_has_no_word_of_the_category_is_refused(model: DecoderModel):
    with pytest.raises(HarnessError, match="can say none of axolotl"):
        word_probabilities(model, trait("axolotl", "amphibian"), [ask("Name an amphibian.")])
