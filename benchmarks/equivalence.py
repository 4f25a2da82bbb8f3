"""Whether rounding the factors of products moves what is measured, by margins said beforehand."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import t

# What a mean may not differ by more between float32 and another precision, paired by run (said
# beforehand, not taken from what was measured). By the first word of a condition's name.
MARGINS = {"teacher": 0.002, "student": 0.03, "cross-model": 0.02}


def equivalence(name: str, differences: Float[np.ndarray, " runs"]) -> dict[str, Any]:
    """Two one-sided tests: whether the 90 % interval of the mean lies within the margin.

    Args:
        name: of the condition; what is before its first comma has a margin.
        differences: of accuracies, paired by run.
    """
    margin = MARGINS[name.split(",", maxsplit=1)[0]]
    mean = float(np.mean(differences))
    error = float(np.std(differences, ddof=1)) / len(differences) ** 0.5
    half = float(t.ppf(0.95, len(differences) - 1)) * error
    return {
        "difference": mean,
        "half_width": half,
        "margin": margin,
        "within": abs(mean) + half < margin,
    }
