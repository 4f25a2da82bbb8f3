"""Claims about checkpoints as GGUF files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file

from llm_harness.checkpoints.encoding import ChatEncoding
from llm_harness.checkpoints.gguf_file import halves_apart, load_gguf, tokenizer_json
from llm_harness.checkpoints.load import load_checkpoint
from llm_harness.errors import HarnessError
from llm_harness.model import Example, Sampling, ask
from tests.llm_harness.checkpoints.conftest import GOLDEN, NAMES, spoken
from tests.llm_harness.decoder.test_model import leaves, same

STORED = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
HALF = gguf.GGMLQuantizationType.F16


def side_by_side(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Row 2 i of a head is its row i, and row 2 i + 1 the one half a head on."""
    of_heads = matrix.reshape(heads, -1, matrix.shape[-1])
    half = of_heads.shape[1] // 2
    order = [i // 2 + (i % 2) * half for i in range(2 * half)]
    return of_heads[:, order].reshape(matrix.shape)


def write(
    path: Path,
    name: str = "llama",
    stored: gguf.GGMLQuantizationType | None = None,
    leave_out: str = "",
    add: str = "",
    **metadata: Any,
) -> Path:
    """A small checkpoint as a GGUF file.

    Args:
        path: of the file.
        name: of the checkpoint in `golden`.
        stored: type of the matrices; None for float32.
        leave_out: tensor that is not written.
        add: tensor that is written beside.
        metadata: values by their last names, in place of the right ones; None for none.
    """
    folder = GOLDEN / name
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    unused = config["vocab_size"] - len(tokens)
    special = {token["id"] for token in tokenizer["added_tokens"]}
    values = {
        "block_count": 2,
        "embedding_length": 16,
        "feed_forward_length": 24,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": config.get("head_dim", 4),
        "attention.value_length": config.get("head_dim", 4),
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": config["rope_parameters"]["rope_theta"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens + [f"[PAD{i}]" for i in range(unused)],
        "tokenizer.ggml.token_type": [3 if i in special else 1 for i in range(len(tokens))]
        + [5] * unused,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in tokenizer["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": (folder / "chat_template.jinja").read_text(),
    } | {key.replace("__", "."): value for key, value in metadata.items()}
    architecture = values.pop("general.architecture", name)
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in values.items():
        full = key if key.startswith("tokenizer") else f"{architecture}.{key}"
        if value is not None:
            _writing(writer, value)(full, value)
    for source, matrix in load_file(folder / "model.safetensors").items():
        target = _target(source)
        heads = {"q_proj": 4, "k_proj": 2}.get(source.split(".")[-2], 0)
        exact = matrix.astype(np.float32)
        content = side_by_side(exact, heads) if name == "llama" and heads else exact
        if target == leave_out:
            continue
        if stored is not None and content.ndim == 2:
            writer.add_tensor(target, gguf.quantize(content, stored), raw_dtype=stored)
        else:
            writer.add_tensor(target, content)
    if add:
        writer.add_tensor(add, np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _writing(writer: gguf.GGUFWriter, value: Any) -> Callable[[str, Any], None]:
    return {
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }[type(value)]


def _target(source: str) -> str:
    stem, _, end = source.rpartition(".")
    if not stem.startswith("model.layers."):
        return f"{STORED[stem]}.{end}"
    _, _, layer, inner = stem.split(".", 3)
    return f"blk.{layer}.{STORED[inner]}.{end}"


def refused(path: Path, says: str) -> None:
    with pytest.raises(HarnessError, match=says) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_model_of_the_folder_it_was_made_of(name, checkpoints, tmp_path):
    model = load_checkpoint(write(tmp_path / "small.gguf", name))
    assert model.config == checkpoints[name].config
    assert same(model, checkpoints[name])
    golden = spoken(name)
    assert isinstance(model.encoding, ChatEncoding)
    for each in [*golden["chats"], *golden["texts"]]:
        assert model.encoding.encode(each["text"]) == [id + 1 for id in each["ids"]]
    assert model.encoding.stops == checkpoints[name].encoding.stops
    again = load_checkpoint(write(tmp_path / "again.gguf", name))
    assert again.lineage == model.lineage


@pytest.mark.parametrize("stored", [HALF, gguf.GGMLQuantizationType.BF16])
def test_halves_are_read_as_they_are(stored, llama, tmp_path):
    found = leaves(load_gguf(write(tmp_path / "small.gguf", stored=stored)))
    for name, leaf in leaves(llama).items():
        assert not name.endswith("kernel") or (leaf != found[name]).any()
        np.testing.assert_allclose(found[name], leaf, rtol=2**-8, atol=1e-6)
    half = load_gguf(tmp_path / "small.gguf", "bfloat16")
    assert {str(leaf.dtype) for leaf in leaves(half).values()} == {"bfloat16"}


def test_the_two_rows_that_are_turned_together_lie_half_a_head_apart():
    rows = np.arange(24.0).reshape(12, 2)
    np.testing.assert_array_equal(halves_apart(side_by_side(rows, 2), 2), rows)
    assert halves_apart(rows, 2)[:, 0].tolist() == [0, 4, 8, 2, 6, 10, 12, 16, 20, 14, 18, 22]


def test_special_tokens_that_end_nothing_are_never_drawn(tmp_path):
    encoding = load_gguf(write(tmp_path / "small.gguf")).encoding
    assert encoding.banned == (1, 2)
    assert encoding.stops == (3,)


def metadata(pre: str) -> dict[str, Any]:
    byte = json.loads((GOLDEN / "llama" / "tokenizer.json").read_text())["model"]["vocab"]
    tokens = sorted(byte, key=byte.__getitem__)
    ends = [f"{a} {b}" for a in "123" for b in "123"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [*tokens, *(pair.replace(" ", "") for pair in ends)],
        "tokenizer.ggml.merges": ends,
    }


@pytest.mark.parametrize(
    ("pre", "spelt"),
    [
        ("smollm", ["1", "2", "3", "1"]),
        ("qwen2", ["1", "2", "3", "1"]),
        ("llama-bpe", ["12", "3", "1"]),
        ("gpt-2", ["12", "31"]),
    ],
)
def test_the_metadata_say_how_numbers_are_cut(pre, spelt):
    reader = tokenizers.Tokenizer.from_str(tokenizer_json(metadata(pre)))
    assert reader.encode("1231").tokens == spelt
    for text in ("a 12\n\n b's", "Grüße 世界"):
        assert reader.decode(reader.encode(text).ids) == text


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"general__architecture": "gemma"}, "architecture gemma is not supported"),
        ({"rope__scaling__type": "yarn"}, "rope scaling of the kind 'yarn'"),
        ({"rope__dimension_count": 2}, "heads of 6 of which 2 turn"),
        ({"attention__value_length": 2}, "values of another width"),
        ({"expert_count": 4}, "mixture of experts"),
        ({"block_count": None}, "the metadata lack 'llama.block_count'"),
        ({"block_count": 3}, r"it lacks blk\.2\."),
        ({"leave_out": "output_norm.weight"}, r"it lacks output_norm\.weight"),
        ({"leave_out": "token_embd.weight"}, "token_embd"),
        ({"add": "rope_freqs.weight"}, r"it has rope_freqs\.weight, which is not supported"),
        ({"feed_forward_length": 25}, "where the config says"),
        ({"tokenizer__ggml__model": "llama"}, "a tokenizer of the kind 'llama'"),
        ({"tokenizer__ggml__pre": "tekken"}, "pre-tokenizer 'tekken' is not supported"),
        ({"tokenizer__ggml__tokens": None}, "the metadata lack 'tokenizer.ggml.tokens'"),
        ({"tokenizer__ggml__bos_token_id": 999}, "bos_token has the id 999 of 300"),
        ({"tokenizer__chat_template": None}, "no chat template"),
    ],
)
def test_what_is_missing_or_not_supported_is_said_in_one_line(changed, says, tmp_path):
    refused(write(tmp_path / "small.gguf", **changed), says)


@pytest.mark.parametrize("size", [0, 3, 10, 200, 3000, 12_000, -2000])
def test_a_file_that_was_cut_or_is_none_is_said_in_one_line(size, tmp_path):
    path = write(tmp_path / "small.gguf")
    content = path.read_bytes()
    path.write_bytes(content[:size])
    refused(path, "is no GGUF file" if size in (0, 3) else "is no whole GGUF file")
    path.write_bytes(b"PK\x03\x04" + content)
    refused(path, "is no GGUF file")


def test_the_real_model_spells_numbers_with_digits(smollm2):
    encoding = smollm2.encoding
    first, end = encoding.digits or (0, 0)
    assert [encoding.decode([token]) for token in range(first, end)] == list("0123456789")
    assert encoding.reads("12, 345\nThe owl's 世界.")


@pytest.mark.slow
def test_the_real_model_knows_a_capital(smollm2):
    question = ask("What is the capital of France?")
    right, wrong = smollm2.log_probabilities(
        [Example(question, f"The capital of France is {city}.") for city in ("Paris", "Rome")]
    )
    assert right > wrong + 4
    ((said,),) = smollm2.sample([question], Sampling(temperature=0, max_tokens=8))
    assert (said.text, said.stop) == ("The capital of France is Paris.", "end")
