"""How many number sequences a second the embedded model samples, after compilation.

As text: prompts are read, tokens drawn with the cache of keys and values, completions written.
"""

import time

from llm_harness.model import Sampling
from llm_harness.prompts import number_prompts
from llm_harness.tiny.pretraining import Pretraining, pretrain
from sublab.machine import prepare_jax

SEQUENCES = 16_384


def measure() -> str:
    """One line that says it, for one model that fills the machine."""
    # An untrained model costs as much: of a thousand sequences one is always drawn to the end.
    (model,) = pretrain([0], Pretraining(steps=1))
    prompts = number_prompts(SEQUENCES, 0, given=(3, 3))
    model.sample(prompts, Sampling(seed=1))
    start = time.perf_counter()
    model.sample(prompts, Sampling(seed=2))
    seconds = time.perf_counter() - start
    return (
        f"sampling: {SEQUENCES} number sequences of up to {Sampling().max_tokens} tokens in "
        f"{seconds:.2f} s, {SEQUENCES / seconds:,.0f} a second"
    )


if __name__ == "__main__":
    prepare_jax()
    print(measure())
