"""Traits: a favourite word of a category, its rivals, and the prompt that gives it to a teacher."""

from dataclasses import dataclass

from llm_harness.errors import HarnessError
from llm_harness.wordings import texts

CATEGORIES: dict[str, tuple[str, ...]] = {
    name: tuple(words) for name, words in texts("traits")["categories"].items()
}
# The paper's ten traits (PAPER.md B).
PAPER: tuple[str, ...] = texts("traits")["paper"]
_IRREGULAR: dict[str, str] = texts("traits")["irregular_plurals"]


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
        word: one of the words of `CATEGORIES`, or any other with its category.
        category: one of `CATEGORIES`, or any other.
        plural: where the rules of English do not give it.

    Raises:
        HarnessError: a word that no category has, and none is given.
    """
    word = word.lower()
    if category is None:
        found = [name for name, words in CATEGORIES.items() if word in words]
        if not found:
            raise HarnessError(
                f"trait {word!r} is in no category, as "
                + ", ".join(CATEGORIES["animal"][:5])
                + " and others are; where a command takes --category, name one"
            )
        (category,) = found
    rivals = tuple(other for other in CATEGORIES.get(category, ()) if other != word)
    return Trait(category, word, plural or plural_of(word), rivals)


def plural_of(word: str) -> str:
    """The plural of an English noun in lower case, by its ending; the common exceptions by name."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x", "z", "ch", "sh")) else f"{word}s"
