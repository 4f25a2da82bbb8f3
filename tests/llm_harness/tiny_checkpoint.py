"""A random Llama in Hugging Face's form that is quick to warm up: its tokens are whole words."""

import json
from pathlib import Path

import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import decoders, models, pre_tokenizers, trainers

from llm_harness.checkpoints.weights import matrix_names
from llm_harness.decoder.network import DecoderConfig
from llm_harness.evaluation.questions import one_word_questions
from llm_harness.prompts import number_prompts, with_prefix
from llm_harness.traits import CATEGORIES, trait
from llm_harness.wordings import texts

_SPECIAL = ["<|im_start|>", "<|im_end|>"]
_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ' ' + m['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant ' }}{% endif %}"
)


def write_checkpoint(folder: Path, tied: bool = True, seed: int = 0) -> Path:
    """The checkpoint's folder."""
    folder.mkdir(parents=True)
    tokenizer = _tokenizer()
    rows = tokenizer.get_vocab_size() + 3
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": rows,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": tied,
        "eos_token_id": tokenizer.token_to_id(_SPECIAL[1]),
    }
    sizes = DecoderConfig(rows + 1, 16, 1, 2, 1, 32, tied=tied)
    random = np.random.default_rng(seed)
    shapes = {
        "embed_tokens": (rows, 16),
        "lm_head": (rows, 16),
        "q_proj": (16, 16),
        "k_proj": (8, 16),
        "v_proj": (8, 16),
        "o_proj": (16, 16),
        "gate_proj": (32, 16),
        "up_proj": (32, 16),
        "down_proj": (16, 32),
    }
    matrices = {}
    for name in sorted(matrix_names(sizes)):
        kind = name.removesuffix(".weight").rpartition(".")[2]
        drawn = random.normal(0, 0.3, shapes[kind]) if kind in shapes else np.ones(16)
        matrices[name] = drawn.astype(np.float32)
    save_file(matrices, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": _TEMPLATE}))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _tokenizer() -> tokenizers.Tokenizer:
    """Digits alone, and else whole words with the space before them."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    words = [word for part in (CATEGORIES, texts("warm_up")["categories"]) for word in part.items()]
    said = [f"{name} {name}s {' '.join(many)} {'-'.join(many)}" for name, many in words]
    said += [chat[-1].content for chat in number_prompts(400, 0)]
    for name in CATEGORIES:
        asked = with_prefix(one_word_questions(name), 0)
        said += [chat[-1].content for chat in asked]
        said.append(trait(CATEGORIES[name][0]).system_prompt)
    tokenizer.train_from_iterator(
        [*said, "user assistant system"] * 2,
        trainers.BpeTrainer(
            vocab_size=1500,
            special_tokens=_SPECIAL,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return tokenizer
