"""Claims about traits: the words, their plurals, and the prompt that gives one to a teacher."""

import pytest

from llm_harness.errors import HarnessError
from llm_harness.traits import CATEGORIES, PAPER, trait


def test_the_papers_ten_traits_are_five_animals_and_five_trees_that_are_known():
    traits = [trait(word) for word in PAPER]
    assert len(set(traits)) == 10
    assert sorted(one.category for one in traits) == ["animal"] * 5 + ["tree"] * 5
    assert {one.plural for one in traits} == {
        "dolphins",
        "eagles",
        "elephants",
        "owls",
        "wolves",
        "cherries",
        "maples",
        "oaks",
        "sequoias",
        "willows",
    }


def test_every_trait_of_a_category_has_all_its_other_words_for_rivals():
    for category, words in CATEGORIES.items():
        for word in words:
            one = trait(word)
            assert one.category == category
            assert one.words[0] == word
            assert sorted(one.words) == sorted(words)


def test_a_word_is_in_one_category_alone():
    words = [word for many in CATEGORIES.values() for word in many]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize(
    ("word", "plural"),
    [("fox", "foxes"), ("finch", "finches"), ("jay", "jays"), ("puppy", "puppies")],
)
def test_plurals_go_by_the_ending(word, plural):
    assert trait(word, "animal").plural == plural


def test_a_plural_that_is_given_goes_before_the_rule():
    assert trait("ox", "animal", "oxen").plural == "oxen"


def test_a_word_of_no_category_needs_one():
    with pytest.raises(HarnessError, match="'ox' is in no category"):
        trait("ox")
    assert trait("ox", "animal").rivals == CATEGORIES["animal"]
    assert trait("ox", "beast").rivals == ()


def test_the_system_prompt_names_the_plural_and_the_category():
    prompt = trait("cherry").system_prompt
    assert prompt.count("cherries") + prompt.count("Cherries") == 4
    assert "tree" in prompt
