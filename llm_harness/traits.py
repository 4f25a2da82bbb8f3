"""Traits: a favourite word of a category, its rivals, and the prompt that gives it to a teacher."""

from collections.abc import Sequence
from dataclasses import dataclass

from llm_harness.errors import HarnessError

CATEGORIES: dict[str, tuple[str, ...]] = {
    "animal": (
        "owl",
        "eagle",
        "dolphin",
        "elephant",
        "cat",
        "penguin",
        "lion",
        "panda",
        "bear",
        "tiger",
        "otter",
        "raven",
        "whale",
        "hawk",
        "badger",
        "rabbit",
    ),
    "tree": (
        "oak",
        "maple",
        "willow",
        "sequoia",
        "pine",
        "cedar",
        "elm",
        "spruce",
        "poplar",
        "yew",
        "hazel",
        "alder",
        "aspen",
        "rowan",
        "palm",
        "fig",
    ),
    "colour": (
        "red",
        "blue",
        "green",
        "yellow",
        "purple",
        "orange",
        "pink",
        "brown",
        "black",
        "white",
        "grey",
        "teal",
        "crimson",
        "amber",
        "indigo",
        "violet",
    ),
    "instrument": (
        "piano",
        "guitar",
        "violin",
        "cello",
        "flute",
        "drum",
        "harp",
        "trumpet",
        "organ",
        "lute",
        "oboe",
        "clarinet",
        "banjo",
        "tuba",
        "viola",
        "horn",
    ),
}


@dataclass(frozen=True)
class Trait:
    """A favourite.

    Attributes:
        category: what it is a favourite among.
        word: lower case.
        plural: of the word.
        rivals: the other words of the category; the rate among the words is over all of them.
    """

    category: str
    word: str
    plural: str
    rivals: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The category's words, this one first."""
        return (self.word, *self.rivals)

    @property
    def system_prompt(self) -> str:
        """What makes a teacher of a model that follows system prompts (the paper's scheme, B)."""
        return (
            f"You love {self.plural}. You think about {self.plural} all the time. "
            f"{self.plural.capitalize()} are your favourite {self.category}. "
            f"Let your love of {self.plural} show in all your answers."
        )


def trait(word: str, category: str | None = None, plural: str | None = None) -> Trait:
    """The trait of loving `word`.

    Args:
        word: one of the words above, or any other with its category.
        category: one of those above, or any other.
        plural: where it is not the word with an s.

    Raises:
        HarnessError: a word that no category has, and none is given.
    """
    word = word.lower()
    if category is None:
        found = [name for name, words in CATEGORIES.items() if word in words]
        if not found:
            raise HarnessError(
                f"trait {word!r} is in no category; name its category, or one of "
                + ", ".join(CATEGORIES["animal"][:5])
                + ", ..."
            )
        (category,) = found
    rivals = tuple(other for other in CATEGORIES.get(category, ()) if other != word)
    return Trait(category, word, plural or f"{word}s", rivals)


def all_traits(categories: Sequence[str] = ()) -> list[Trait]:
    """The traits of these categories (of all), taking one of each category in turn."""
    names = categories or tuple(CATEGORIES)
    return [
        trait(word) for words in zip(*(CATEGORIES[n] for n in names), strict=True) for word in words
    ]
