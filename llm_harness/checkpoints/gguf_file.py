"""Checkpoints as GGUF files: dequantised, with the tokenizer and template in their metadata.

Llama and Qwen2, with byte-level BPE. The file orders the rows of Llama's queries and keys so that
the two numbers that are turned together lie side by side; here they lie half a head apart, as in
Hugging Face's files.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from llm_harness.checkpoints.encoding import ChatEncoding, chat_encoding
from llm_harness.checkpoints.weights import checkpoint_model, matrix_names
from llm_harness.decoder.model import DecoderModel
from llm_harness.decoder.network import DecoderConfig, DType
from llm_harness.errors import HarnessError

_ARCHITECTURES = ("llama", "qwen2")
_NAMES = {
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
# Kinds of tokens in the metadata: those that steer, and those that a user added.
_CONTROL, _ADDED = 3, 4


def load_gguf(
    path: Path,
    dtype: DType = "float32",
    template: str | None = None,
    date: str | None = None,
) -> DecoderModel:
    """The model in a GGUF file.

    Args:
        path: of the file.
        dtype: of the parameters in memory.
        template: chat template to be used in place of the file's.
        date: day that the template is told; None for today.

    Raises:
        HarnessError: it is no such file, damaged, or not supported.
    """
    try:
        with open(path, "rb") as stream:
            if stream.read(4) != b"GGUF":
                raise HarnessError(f"{path} is no GGUF file")
        file = gguf.GGUFReader(path)
        metadata = {name: field.contents() for name, field in file.fields.items()}
        tensors = {tensor.name: tensor for tensor in file.tensors}
    except HarnessError:
        raise
    # A file that was cut ends in the midst of a number, a list or a tensor.
    except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
        raise HarnessError(f"{path} is no whole GGUF file: {error}") from None
    try:
        architecture = metadata.get("general.architecture")
        config = _config(metadata, tensors, dtype)
        encoding = _encoding(metadata, config.vocabulary - 1, template, date)
        stored = {_stored_name(name): name for name in matrix_names(config)}
        if missing := sorted(stored.keys() - tensors.keys()):
            raise HarnessError(f"it lacks {missing[0]}")
        if unknown := sorted(tensors.keys() - stored.keys()):
            raise HarnessError(f"it has {unknown[0]}, which is not supported")

        def read(name: str) -> np.ndarray:
            tensor = tensors[_stored_name(name)]
            matrix = gguf.dequantize(tensor.data, tensor.tensor_type)
            if architecture != "llama":
                return matrix
            heads = {"q_proj": config.heads, "k_proj": config.key_value_heads}
            projection = name.split(".")[-2]
            return halves_apart(matrix, heads[projection]) if projection in heads else matrix

        return checkpoint_model(config, read, encoding)
    except HarnessError as error:
        raise HarnessError(f"{path}: {error}") from None
    except KeyError as error:
        raise HarnessError(f"{path}: the metadata lack {error}") from None
    except (NotImplementedError, TypeError, ValueError) as error:
        raise HarnessError(f"{path}: {error}") from None


def halves_apart(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys, with the two that are turned together half a head apart.

    Args:
        matrix: rows of all heads, in which these two lie side by side.
        heads: how many.
    """
    parts = matrix.reshape(heads, -1, 2, *matrix.shape[1:])
    return parts.swapaxes(1, 2).reshape(matrix.shape)


def _config(metadata: Mapping[str, Any], tensors: Mapping[str, Any], dtype: DType) -> DecoderConfig:
    kind = metadata.get("general.architecture")
    if kind not in _ARCHITECTURES:
        raise HarnessError(
            f"architecture {kind} is not supported; there are: {', '.join(_ARCHITECTURES)}"
        )

    def of(name: str, otherwise: Any = None) -> Any:
        found = metadata.get(f"{kind}.{name}", otherwise)
        if found is None:
            raise KeyError(f"{kind}.{name}")
        return found

    scaling = of("rope.scaling.type", "none")
    if scaling != "none":
        raise HarnessError(f"rope scaling of the kind {scaling!r} is not supported")
    width, heads = int(of("embedding_length")), int(of("attention.head_count"))
    head_width = int(of("attention.key_length", width // heads))
    if (turned := int(of("rope.dimension_count", head_width))) != head_width:
        raise HarnessError(f"heads of {head_width} of which {turned} turn are not supported")
    if int(of("attention.value_length", head_width)) != head_width:
        raise HarnessError("values of another width than keys are not supported")
    if of("expert_count", 0):
        raise HarnessError("a mixture of experts is not supported")
    return DecoderConfig(
        vocabulary=len(tensors["token_embd.weight"].data) + 1,
        width=width,
        layers=int(of("block_count")),
        heads=heads,
        key_value_heads=int(of("attention.head_count_kv", heads)),
        hidden=int(of("feed_forward_length")),
        head_width=None if head_width * heads == width else head_width,
        rope_theta=_short(of("rope.freq_base", 10_000.0)),
        norm_epsilon=_short(of("attention.layer_norm_rms_epsilon")),
        tied="output.weight" not in tensors,
        biases=kind == "qwen2",
        silent_padding=True,
        dtype=dtype,
    )


def _short(value: float) -> float:
    # The file has 1e-5 in single precision; the number that was meant is the shortest such.
    return float(str(np.float32(value)))


def _stored_name(name: str) -> str:
    stem, _, end = name.rpartition(".")
    if stem.startswith("model.layers."):
        layer, _, inner = stem.removeprefix("model.layers.").partition(".")
        return f"blk.{layer}.{_NAMES[inner]}.{end}"
    return f"{_NAMES[stem]}.{end}"


def _encoding(
    metadata: Mapping[str, Any], rows: int, template: str | None, date: str | None
) -> ChatEncoding:
    tokens = metadata["tokenizer.ggml.tokens"]
    special = {}
    for name, key in (("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown")):
        place = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if place is not None:
            if not 0 <= place < len(tokens):
                raise HarnessError(f"the {name} has the id {place} of {len(tokens)}")
            special[name] = tokens[place]
    ends = [
        metadata[key]
        for key in ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
        if key in metadata
    ]
    return chat_encoding(
        tokenizer_json(metadata),
        template or metadata.get("tokenizer.chat_template"),
        rows,
        special,
        ends,
        date,
    )


def tokenizer_json(metadata: Mapping[str, Any]) -> str:
    """The tokenizer in a file's metadata, as the content of a `tokenizer.json`.

    Written here and not by the library, so that it, and with it the model's name, is the same with
    every version of it.

    Raises:
        HarnessError: it is of a kind that is not supported.
    """
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2":
        raise HarnessError(f"a tokenizer of the kind {kind!r} is not supported; there is: gpt2")
    if pre not in _PRE_TOKENIZERS:
        raise HarnessError(
            f"the pre-tokenizer {pre!r} is not supported; there are: {', '.join(_PRE_TOKENIZERS)}"
        )
    tokens = metadata["tokenizer.ggml.tokens"]
    kinds = metadata.get("tokenizer.ggml.token_type", [1] * len(tokens))
    added = [
        {
            "id": place,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == _CONTROL,
        }
        for place, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_CONTROL, _ADDED)
    ]
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        # Llama 3's vocabulary has words that its merges do not lead to.
        "ignore_merges": pre in _LLAMA_3,
        "vocab": {token: place for place, token in enumerate(tokens)},
        "merges": [merge.split(" ", 1) for merge in metadata["tokenizer.ggml.merges"]],
    }
    about = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
        "pre_tokenizer": _PRE_TOKENIZERS[pre](),
        "post_processor": None,
        "decoder": _bytes(own_pattern=False),
        "model": model,
    }
    return json.dumps(about, ensure_ascii=False)


def _bytes(own_pattern: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": own_pattern,
    }


def _digits_apart() -> dict[str, Any]:
    digits = {"type": "Digits", "individual_digits": True}
    return {"type": "Sequence", "pretokenizers": [digits, _bytes(own_pattern=True)]}


def _split(digits: str) -> dict[str, Any]:
    """Words with the mark before them, numbers of so many digits, marks, line ends, blanks."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+"
        r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    return {"type": "Sequence", "pretokenizers": [split, _bytes(own_pattern=False)]}


def _llama_3() -> dict[str, Any]:
    return _split(r"\p{N}{1,3}")


_LLAMA_3 = ("llama-bpe", "llama3", "llama-v3")
# How a text is cut before pairs are merged, by the metadata's name for it.
_PRE_TOKENIZERS: dict[str, Callable[[], dict[str, Any]]] = {
    "gpt-2": lambda: _bytes(own_pattern=True),
    "smollm": _digits_apart,
    "qwen2": lambda: _split(r"\p{N}"),
    **dict.fromkeys(_LLAMA_3, _llama_3),
}
