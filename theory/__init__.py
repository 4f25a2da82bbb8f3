"""The first-order theory of subliminal learning, on any model `apply(params, x) -> logits`."""

from theory.alignment import (
    coefficient,
    inner_product,
    inner_product_reverse,
    student_direction,
    teacher_direction,
    unit_of_eps,
)
from theory.certificate import Curve, Horizon, curve, horizon, smallest_eps
from theory.conditions import ConditionError, conditions, require_conditions
from theory.guarantee import SafeStep, Theorem1, safe_step, theorem_1, trait_change
from theory.losses import (
    Loss,
    MatchingLoss,
    Potential,
    bernoulli_potential,
    matching,
    poisson_potential,
    softmax_potential,
    squared_potential,
)
from theory.passes import Apply, Inputs, Params, TraitLoss, Weights
from theory.score import forecast, one_sample, scores, scores_along, two_sample
from theory.symmetry import (
    Commutation,
    PermutedAccuracy,
    Readout,
    commutation,
    compare_trainings,
    ignores_readout,
    permute_readout,
    permuted_accuracy,
    untouched,
)
from theory.trajectory import Account, coverage, follow

__all__ = [
    "Account",
    "Apply",
    "Commutation",
    "ConditionError",
    "Curve",
    "Horizon",
    "Inputs",
    "Loss",
    "MatchingLoss",
    "Params",
    "PermutedAccuracy",
    "Potential",
    "Readout",
    "SafeStep",
    "Theorem1",
    "TraitLoss",
    "Weights",
    "bernoulli_potential",
    "coefficient",
    "commutation",
    "compare_trainings",
    "conditions",
    "coverage",
    "curve",
    "follow",
    "forecast",
    "horizon",
    "ignores_readout",
    "inner_product",
    "inner_product_reverse",
    "matching",
    "one_sample",
    "permute_readout",
    "permuted_accuracy",
    "poisson_potential",
    "require_conditions",
    "safe_step",
    "scores",
    "scores_along",
    "smallest_eps",
    "softmax_potential",
    "squared_potential",
    "student_direction",
    "teacher_direction",
    "theorem_1",
    "trait_change",
    "two_sample",
    "unit_of_eps",
    "untouched",
]
