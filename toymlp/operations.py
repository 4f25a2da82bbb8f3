"""Operations of a network's matrix products: the cost of a forward pass, and of a gradient."""

from collections.abc import Sequence
from itertools import pairwise


def dense(sizes: Sequence[int]) -> list[int]:
    """Multiply-adds for one example of each layer between layers of the given sizes."""
    return [a * b for a, b in pairwise(sizes)]


def forward(products: Sequence[int]) -> int:
    """Floating-point operations of one example's logits.

    Args:
        products: multiply-adds of every layer for one example.
    """
    return 2 * sum(products)


def gradient(products: Sequence[int]) -> int:
    """The same of its gradient: forward, by the weights, and by the activations.

    The first layer needs no gradient by its inputs.

    Args:
        products: as for `forward`.
    """
    return 2 * (3 * sum(products) - products[0])
