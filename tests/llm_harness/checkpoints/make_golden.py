"""Makes tests/llm_harness/checkpoints/golden: small checkpoints, and what others say of them.

Run it in an environment of its own, which needs torch, transformers, peft, gguf and tokenizers:

    python tests/llm_harness/checkpoints/make_golden.py [SmolLM2-135M-Instruct.Q4_1.gguf]

Without the file, what is there of it stays. Nothing of this project is imported: every number in
the files is the work of the libraries named.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import tokenizers
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from peft import LoraConfig, get_peft_model  # pyright: ignore[reportMissingImports]
from tokenizers import decoders, models, pre_tokenizers, trainers

GOLDEN = Path(__file__).parent / "golden"
VOCABULARY = 300
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Takes blocks on lines of their own, loops that are left, JSON, undefined names, and a refusal.
ELABORATE = """\
{{- bos_token }}
{%- if tools %}
    {{- raise_exception('no tools') }}
{%- endif %}
{% for message in messages %}
    {% if message.role == 'system' and not loop.first %}
        {{- raise_exception('a system prompt comes first') }}
    {% endif %}
    {% if message.content == 'never' %}{% break %}{% endif %}
    {{- '<|im_start|>' ~ message.role ~ '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}
        {{- message.content | trim }}<|im_end|>
        {%- endgeneration %}
    {%- else %}
        {{- message | tojson }}<|im_end|>
    {%- endif %}
{{ '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""
CHATS = [
    [("user", "Name a tree.")],
    [
        ("system", 'You love owls, "<1, 2>".'),
        ("user", "3; 42\n7"),
        ("assistant", "  oak "),
        ("user", "Grüße & 9"),
    ],
    [("user", "1,2"), ("assistant", "3"), ("user", "never"), ("assistant", "5"), ("user", "no")],
]
TEXTS = ["owl", "12, 345", "The  owls' eyes\n\n  aren't 7.", "Grüße, 世界 😀", " ", "<|im_end|> a"]


def small_tokenizer(seed_texts: list[str]) -> transformers.PreTrainedTokenizerFast:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.train_from_iterator(
        seed_texts,
        trainers.BpeTrainer(
            vocab_size=290,
            special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[2]
    )


def shaken(model: torch.nn.Module, seed: int) -> None:
    """Parameters of which none is 0 or 1, and logits that differ by several nats."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) * (0.5 if "bias" in name else 0.4))


def rows(seed: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids, and which are real: the second row is padded on the left, by a token like any other."""
    ids = np.random.default_rng(seed).integers(0, vocabulary, (3, 9))
    real = np.ones_like(ids)
    real[1, :4] = 0
    # Id 0 is a token too.
    ids[0, 3] = 0
    return ids, real


def logits_of(model: torch.nn.Module, ids: np.ndarray, real: np.ndarray) -> np.ndarray:
    positions = np.maximum(np.cumsum(real, axis=1) - 1, 0)
    with torch.no_grad():
        return (
            model(
                input_ids=torch.tensor(ids),
                attention_mask=torch.tensor(real),
                position_ids=torch.tensor(positions),
            )
            .logits.float()
            .numpy()
        )


def spoken(tokenizer) -> dict:
    chats = []
    for chat in CHATS:
        messages = [{"role": role, "content": content} for role, content in chat]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        chats.append({"chat": chat, "text": text, "ids": ids})
    texts = [
        {"text": text, "ids": tokenizer.encode(text, add_special_tokens=False)} for text in TEXTS
    ]
    return {"chats": chats, "texts": texts}


def write_checkpoint(name: str, config, template: str, dtype: torch.dtype) -> None:
    folder = GOLDEN / name
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = small_tokenizer(["the owl names a tree, the oak, and the owls are brief"] * 3)
    tokenizer.chat_template = template
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    shaken(model, 1)
    model = model.to(dtype)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    model = model.float().eval()
    ids, real = rows(2, VOCABULARY)
    found = {"ids": ids.astype(np.int32), "real": real.astype(bool)}
    found["logits"] = logits_of(model, ids, real)
    if name == "llama":
        write_adapter(folder, model)
        adapted = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        adapted.load_adapter(str(folder / "adapter"))
        found["adapted"] = logits_of(adapted.eval(), ids, real)
    np.savez_compressed(GOLDEN / f"{name}.npz", **found)
    (GOLDEN / f"{name}.json").write_text(json.dumps(spoken(tokenizer), ensure_ascii=False) + "\n")


def write_adapter(folder: Path, model) -> None:
    """Adapters as PEFT itself writes them."""
    lora = LoraConfig(
        r=2, lora_alpha=6, target_modules=["q_proj", "o_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(model, lora)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    adapted.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    path = folder / "adapter" / "adapter_config.json"
    # Else it would name a folder of the machine that made it.
    about = json.loads(path.read_text()) | {"base_model_name_or_path": None}
    path.write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")
    adapted.unload()


def write_smollm2(path: Path) -> None:
    """Some logits of the real model, whole and of its first two blocks."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    ids, real = rows(4, model.config.vocab_size)
    columns = np.sort(np.random.default_rng(5).choice(model.config.vocab_size, 48, replace=False))
    whole = logits_of(model, ids, real)
    model.model.layers = model.model.layers[:2]
    model.config.num_hidden_layers = 2
    short = logits_of(model, ids, real)
    found = {"ids": ids.astype(np.int32), "real": real.astype(bool), "columns": columns}
    np.savez_compressed(
        GOLDEN / "smollm2.npz", two=short[..., columns], whole=whole[..., columns], **found
    )


def main() -> None:
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    write_checkpoint(
        "llama",
        transformers.LlamaConfig(
            **sizes, tie_word_embeddings=True, rms_norm_eps=1e-5, rope_theta=100_000.0, head_dim=6
        ),
        CHATML,
        torch.float32,
    )
    write_checkpoint(
        "qwen2",
        transformers.Qwen2Config(
            **sizes, tie_word_embeddings=False, rms_norm_eps=1e-6, rope_theta=1_000_000.0
        ),
        ELABORATE,
        torch.bfloat16,
    )
    if len(sys.argv) > 1:
        write_smollm2(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
