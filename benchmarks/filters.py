"""How many completions a second the filter of numbers takes, what it counts, and what prompts take.

Times are the best of a few calls, on one core.
"""

import time
from collections.abc import Callable

import numpy as np

from llm_harness.filters import apply_filter, number_rule, prohibited_rule
from llm_harness.model import Example, ask
from llm_harness.prompts import number_prompts

COMPLETIONS, PROMPTS = 100_000, 16_384
_REPEATS = 3


def seconds(function: Callable[[], object]) -> float:
    """The best time of a call."""
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def completions(count: int) -> list[Example]:
    """Lists of numbers, about a third of them with one fault or another, as a teacher's are."""
    random, prompt, found = np.random.default_rng(0), ask("Go on."), []
    separators = (", ", ",", " ", "\n", "; ")
    faults = ("{}, 1000", "{}\n", "[{}", "{} and so on", "{},", "{};  7", "{0}, {0}, {0}")
    for _ in range(count):
        numbers = random.integers(0, 1000, random.integers(4, 11)).tolist()
        text = separators[random.integers(len(separators))].join(map(str, numbers))
        if random.random() < 1 / 3:
            text = faults[random.integers(len(faults))].format(text)
        found.append(Example(prompt, text))
    return found


def measure() -> list[str]:
    """Lines that say what filtering and prompts take."""
    examples, lines = completions(COMPLETIONS), []
    kinds = (("number rule", [number_rule]), ("with prohibited", [number_rule, prohibited_rule]))
    for name, rules in kinds:
        time_taken = seconds(lambda rules=rules: apply_filter(examples, rules))
        share = 1 - len(apply_filter(examples, rules).kept) / COMPLETIONS
        lines.append(
            f"filter, {name}: {COMPLETIONS} completions, {share:.0%} of them dropped and counted, "
            f"in {time_taken:.2f} s, {COMPLETIONS / time_taken:,.0f} a second"
        )
    time_taken = seconds(lambda: number_prompts(PROMPTS, 0))
    lines.append(
        f"prompts: {PROMPTS} number prompts in {time_taken:.2f} s, "
        f"{PROMPTS / time_taken:,.0f} a second"
    )
    return lines


if __name__ == "__main__":
    for line in measure():
        print(line)
