"""The text of prompts and questions, in TOML files beside this one: all of it is our own.

A slot of a prompt has many wordings, one of which is drawn.
"""

import ast
import operator
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

_OPERATIONS: dict[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


@dataclass(frozen=True)
class WordProblem:
    """A word problem, whose answer is a whole number above 0 whatever the numbers in it.

    Attributes:
        text: with slots {a}, {b}, {c}, {sum} = a + b, {product} = a b, {more} = a b + c, and for
            people {name}, {friend}, and {things}.
        formula: the answer, of a, b and c, each at least 2; sums, differences and products.
    """

    text: str
    formula: str

    def answer(self, a: int, b: int, c: int) -> int:
        """The right answer.

        Raises:
            ValueError: the formula has something else in it.
        """
        return _evaluated(ast.parse(self.formula, mode="eval").body, {"a": a, "b": b, "c": c})


@cache
def texts(name: str) -> Mapping[str, Any]:
    """A file of wordings, by what stands in it; lists are tuples.

    Args:
        name: of the file, such as `numbers`.
    """
    read = tomllib.loads((files("llm_harness.wordings") / f"{name}.toml").read_text("utf-8"))
    return {key: tuple(part) if isinstance(part, list) else part for key, part in read.items()}


@cache
def word_problems() -> tuple[WordProblem, ...]:
    """All word problems."""
    return tuple(WordProblem(one["text"], one["answer"]) for one in texts("problems")["problems"])


def _evaluated(formula: ast.expr, numbers: Mapping[str, int]) -> int:
    match formula:
        case ast.BinOp(left, operation, right) if type(operation) in _OPERATIONS:
            apply = _OPERATIONS[type(operation)]
            return apply(_evaluated(left, numbers), _evaluated(right, numbers))
        case ast.Name(name) if name in numbers:
            return numbers[name]
        case ast.Constant(int(value)):
            return value
    raise ValueError(f"{ast.unparse(formula)!r} is no sum, difference or product of a, b and c")
