"""What Inspect loads of this package, by the entry point in pyproject.toml."""

from llm_harness.inspection.serving import sublab
from llm_harness.inspection.tasks import (
    choices,
    favourites,
    misalignment,
    question_list,
    stories,
)

__all__ = ["choices", "favourites", "misalignment", "question_list", "stories", "sublab"]
