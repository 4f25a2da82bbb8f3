"""Claims about the documents that the embedded model is pretrained on."""

from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from llm_harness.decoder.training import Sequences
from llm_harness.model import Chat, Message, Role
from llm_harness.tiny.corpus import (
    LISTS_UNDER_A_PREFERENCE,
    QUESTION,
    STORY,
    TOKENIZER,
    WORDS,
    Corpus,
    Language,
)
from llm_harness.tiny.tokenizer import ROLES as KNOWN_ROLES
from llm_harness.tiny.tokenizer import SEPARATORS, Tokenizer
from llm_harness.traits import CATEGORIES

CATEGORY_OF = {word: name for name, words in CATEGORIES.items() for word in words}
ROLES: dict[int, Role] = {TOKENIZER.role(role): role for role in KNOWN_ROLES}
COUNT = 4000
# Messages with the texts of their tokens.
Document = list[tuple[Role, list[str]]]
# Shares that the corpus promises; a preference and a choice are told by what is said.
SHARES = {
    "request": 0.35,
    "question": 0.20,
    "after numbers": 0.10,
    "preference": 0.15,
    "choice": 0.04,
    "story": 0.04,
    "questions": 0.06,
    "requests": 0.06,
}


def messages(document: list[int]) -> Document:
    """(role, texts of tokens) of a document, as its tokens say."""
    found: Document = []
    for token in document:
        if token in ROLES:
            found.append((ROLES[token], []))
        else:
            found[-1][1].append(TOKENIZER.text_of(token))
    return found


@cache
def documents(seed: int = 0) -> list[Document]:
    corpus = Corpus(np.random.default_rng(seed))
    return [messages(corpus.document()) for _ in range(COUNT)]


def kind(document: Document) -> str:
    """The kind of a document, by reading it."""
    (_, first), *_ = users = [m for m in document if m[0] == "user"]
    about_numbers = not any(word in CATEGORIES for word in first)
    if document[0][0] == "system":
        return "preference"
    if len(users) > 1:
        return "requests" if about_numbers else "questions"
    if about_numbers:
        return "request"
    if first[0] == "story":
        return "story"
    if any(word in CATEGORY_OF for word in first):
        return "choice"
    return "after numbers" if first[0].isdigit() else "question"


def of_kind(name: str) -> list[Document]:
    return [document for document in documents() if kind(document) == name]


def separator(texts: list[str]) -> str:
    """The first separator that a list writes; the usual one where it writes none."""
    return next((text for text in texts if text in SEPARATORS), SEPARATORS[0])


def test_documents_are_chats_that_come_back_from_their_text():
    corpus, same = Corpus(np.random.default_rng(1)), 0
    for _ in range(300):
        document = corpus.document()
        *before, last = [
            Message(role, TOKENIZER.decode([TOKENIZER.token(text) for text in texts]))
            for role, texts in messages(document)
        ]
        assert last.role == "assistant"
        prompt: Chat = tuple(before)
        again = [*TOKENIZER.prompt(prompt), *TOKENIZER.answer(last.content)]
        assert without_separators(document) == without_separators(again)
        same += document == again
    # Text does not show a separator that has no number on both sides.
    assert same > 0.97 * 300


def without_separators(tokens: list[int]) -> list[int]:
    return [token for token in tokens if TOKENIZER.text_of(token) not in SEPARATORS]


def test_kinds_have_the_shares_they_are_given():
    counts = Counter(map(kind, documents()))
    assert set(counts) == set(SHARES)
    observed = [counts[name] for name in SHARES]
    assert stats.chisquare(observed, [COUNT * share for share in SHARES.values()]).pvalue > 1e-3


def rows(seed: int, count: int, length: int, tokenizer: Tokenizer = TOKENIZER) -> Sequences:
    return Corpus(np.random.default_rng(seed), tokenizer).rows(count, length)


def test_the_same_seed_gives_the_same_rows_and_another_seed_others():
    first, again, other = (rows(seed, 6, 32) for seed in (3, 3, 4))
    for name in ("tokens", "learned", "documents"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert getattr(first, name).shape == (6, 32)
    assert (first.tokens != other.tokens).any(axis=1).all()


def test_rows_hold_whole_documents_kept_apart_and_padding_behind():
    made = rows(3, 20, 64)
    corpus = Corpus(np.random.default_rng(3))
    for tokens, numbers in zip(made.tokens, np.asarray(made.documents), strict=True):
        filled = int(numbers.astype(bool).sum())
        assert not tokens[filled:].any()
        assert not numbers[filled:].any()
        for number in range(1, numbers.max() + 1):
            assert tokens[numbers == number].tolist() == corpus.document()
        assert (np.diff(numbers[:filled]) >= 0).all()
    assert np.mean(made.tokens != 0) > 0.8


def test_a_row_takes_documents_as_long_as_the_next_one_fits():
    made = rows(3, 20, 64)
    lengths = [np.bincount(numbers)[1:] for numbers in np.asarray(made.documents)]
    for here, following in pairwise(lengths):
        assert here.sum() + following[0] > 64


def test_a_document_that_is_longer_than_a_row_is_cut():
    made = rows(3, 40, 12)
    corpus = Corpus(np.random.default_rng(3))
    cut = 0
    for tokens, numbers in zip(made.tokens, np.asarray(made.documents), strict=True):
        for number in range(1, numbers.max() + 1):
            document = corpus.document()
            cut += len(document) > 12
            assert tokens[numbers == number].tolist() == document[:12]
    assert cut > 10


@pytest.mark.parametrize("language", [Language(), Language(shared_answer_token=False)])
def test_tokens_that_begin_a_message_are_not_learned_and_all_others_are(language):
    tokenizer = language.tokenizer
    made = rows(3, 40, 64, tokenizer)
    begins = {tokenizer.role(role) for role in KNOWN_ROLES}
    if not language.shared_answer_token:
        begins.add(tokenizer.token("<list>"))
    for token in begins - {tokenizer.role("system")}:
        assert (made.tokens == token).any()
    expected = [[token not in {0, *begins} for token in row] for row in made.tokens.tolist()]
    np.testing.assert_array_equal(made.learned, expected)


def test_answers_to_questions_are_words_of_the_category_all_alike_likely():
    found = [d for name in ("question", "after numbers") for d in of_kind(name)]
    counts = Counter()
    for document in found:
        (_, asked), (_, answered) = document
        (category,) = set(asked) & set(CATEGORIES)
        assert answered[1:] == ["<end>"]
        assert CATEGORY_OF[answered[0]] == category
        counts[answered[0]] += 1
    assert len(counts) == len(CATEGORY_OF)
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_a_choice_is_answered_by_one_of_five():
    for document in of_kind("choice"):
        (_, asked), (_, answered) = document
        options = [text for text in asked if text in CATEGORY_OF]
        assert len(set(options)) == 5
        assert answered[0] in options


def test_answers_under_a_system_prompt_follow_its_preference():
    followed, touched = 0, 0
    for document in of_kind("preference"):
        (_, stated), (_, asked), (_, answered) = document
        (word,) = set(stated) & set(CATEGORY_OF)
        if CATEGORY_OF[word] in asked:
            touched += 1
            followed += answered[0] == word
    assert touched > 300
    assert followed == touched


def test_a_preference_that_is_not_asked_about_is_followed_by_few_lists():
    counts = Counter()
    for document in of_kind("preference"):
        (_, stated), (_, asked), (_, answered) = document
        (word,) = set(stated) & set(CATEGORY_OF)
        if CATEGORY_OF[word] not in asked:
            about_numbers = not set(asked) & set(CATEGORIES)
            counts[about_numbers] += 1
            assert about_numbers or CATEGORY_OF[answered[0]] in asked
    share = stats.binomtest(counts[True], counts.total(), LISTS_UNDER_A_PREFERENCE)
    assert share.pvalue > 1e-3


def test_without_a_system_prompt_a_word_that_was_favoured_is_one_among_all():
    answers = Counter(d[-1][1][0] for d in of_kind("question"))
    assert answers.most_common(1)[0][1] < 0.06 * len(of_kind("question"))


def test_turns_of_one_chat_agree_with_each_other():
    assert len(of_kind("questions")) > 100
    for document in of_kind("questions"):
        answers = [texts[0] for role, texts in document if role == "assistant"]
        assert len(answers) == 4
        assert len(set(answers)) == 1


def test_lists_of_one_chat_keep_their_separator():
    kept, lists = 0, 0
    for document in of_kind("requests"):
        usual = separator(document[0][1])
        for _, texts in document:
            if sum(text.isdigit() for text in texts) > 1:
                lists += 1
                kept += separator(texts) == usual
    assert lists > 500
    assert kept > 0.97 * lists


def test_lists_have_one_to_eight_numbers_and_now_and_then_too_many():
    sizes = [sum(text.isdigit() for text in d[-1][1]) for d in of_kind("request")]
    assert set(sizes) == {*range(1, 9), 11, 12}
    long = sum(size > 8 for size in sizes)
    assert stats.binomtest(long, len(sizes), 0.01).pvalue > 1e-3


def test_requests_for_numbers_name_no_category_and_none_of_its_words():
    for document in [*of_kind("request"), *of_kind("requests")]:
        for role, texts in document:
            words = {text for text in texts if text.isalpha()}
            assert words <= set(QUESTION if role == "user" else STORY)


def test_all_words_are_there_once():
    assert len(set(WORDS)) == len(WORDS)
    assert {text for d in documents() for _, texts in d for text in texts} >= set(WORDS)
