"""Tokens a second of a decoder in the transformers library: `transformers_decoder.py AMOUNTS`.

`benchmarks.peers` sets `benchmarks.decoder` beside it: a Llama of the same sizes with random
weights, in float32, reads, trains low-rank adapters (by the peft library), and draws completions.
AMOUNTS is the JSON of `benchmarks.decoder.amounts_and_sizes`. It needs PyTorch, transformers and
peft, which the project itself does not, and prints one JSON.
"""

import json
import os
import statistics
import sys
import time
from typing import Any

import peft  # pyright: ignore[reportMissingImports]
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]


def main(sizes: dict[str, Any], lora: dict[str, Any], amounts: dict[str, int]) -> None:
    """Measures the three, and prints them."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=sizes["vocabulary"],
        hidden_size=sizes["width"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["key_value_heads"],
        intermediate_size=sizes["hidden"],
        rope_theta=sizes["rope_theta"],
        tie_word_embeddings=sizes["tied"],
        # No token ends a completion, so that all are drawn.
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    length = amounts["length"]

    def tokens(rows: int, places: int):
        return torch.randint(1, sizes["vocabulary"], (rows, places))

    read = tokens(amounts["read"], length)

    def mean():
        return model(read).logits.mean()

    with torch.inference_mode():
        forward = read.numel() / seconds(mean)
    prompts = tokens(amounts["drawn"], length // 4)

    def drawn():
        return model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=True,
            top_k=0,
            max_new_tokens=length // 4,
        )

    with torch.inference_mode():
        if drawn().shape[1] != 2 * (length // 4):
            raise SystemExit("transformers drew another number of tokens than it was asked for")
        sampling = prompts.numel() / seconds(drawn)
    adapted = peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=lora["rank"], lora_alpha=lora["alpha"], target_modules=list(lora["targets"])
        ),
    ).train()
    trained = [part for part in adapted.parameters() if part.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=1e-4)
    learnt = tokens(amounts["learnt"], length)

    def step():
        optimiser.zero_grad()
        adapted(learnt, labels=learnt).loss.backward()
        optimiser.step()

    lora_step = learnt.numel() / seconds(step)
    print(json.dumps({"forward": forward, "lora_step": lora_step, "sampling": sampling}))


def seconds(work, times: int = 3) -> float:
    """The median time of a call after the first."""
    work()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
