"""Checkpoints as folders of Hugging Face's form: config, safetensors, tokenizer, chat template.

Llama and Qwen2 alone. Whatever else a config asks for is refused, never passed over: a model that
is nearly the right one gives numbers that look like results.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from llm_harness.checkpoints.encoding import ChatEncoding, chat_encoding
from llm_harness.checkpoints.weights import Read, checkpoint_model, matrix_names
from llm_harness.decoder.model import DecoderModel
from llm_harness.decoder.network import DecoderConfig, DType
from llm_harness.errors import HarnessError

_ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
_TYPES = ("F32", "BF16", "F16")
# Names under which a template asks for special tokens.
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


def load_folder(
    folder: Path,
    dtype: DType = "float32",
    template: str | None = None,
    date: str | None = None,
) -> DecoderModel:
    """The model in a folder.

    Args:
        folder: with config.json, *.safetensors, tokenizer.json and a chat template.
        dtype: of the parameters in memory.
        template: chat template to be used in place of the folder's.
        date: day that the template is told; None for today.

    Raises:
        HarnessError: something is missing, damaged, or not supported.
    """
    about = _json(folder / "config.json")
    config = _config(about, dtype, folder / "config.json")
    encoding = _encoding(folder, about, config.vocabulary - 1, template, date)
    with ExitStack() as stack:
        return checkpoint_model(config, _reader(folder, config, stack), encoding)


def _config(about: Mapping[str, Any], dtype: DType, path: Path) -> DecoderConfig:
    """The decoder's sizes.

    Raises:
        HarnessError: the config lacks something, or asks for what the decoder does not have.
    """
    kind = about.get("model_type")
    architectures = about.get("architectures") or [_ARCHITECTURES.get(str(kind), kind)]
    if kind not in _ARCHITECTURES or architectures != [_ARCHITECTURES[kind]]:
        raise HarnessError(
            f"{path}: architecture {', '.join(map(str, architectures))} is not supported; "
            f"there are: {', '.join(_ARCHITECTURES.values())}"
        )
    try:
        layers, heads = int(about["num_hidden_layers"]), int(about["num_attention_heads"])
        rope = about.get("rope_parameters") or about.get("rope_scaling") or {}
        refused = _refused(about, kind, layers, rope)
        if refused is not None:
            raise HarnessError(f"{path}: {refused} is not supported")
        width, head_width = int(about["hidden_size"]), about.get("head_dim")
        if head_width is None and width % heads:
            raise HarnessError(f"{path}: {heads} heads do not divide a width of {width}")
        given = about.get("num_key_value_heads")
        keys = heads if given is None else int(given)
        if keys < 1 or heads % keys:
            raise HarnessError(f"{path}: {keys} heads of keys do not divide {heads} of queries")
        thetas = (rope.get("rope_theta"), about.get("rope_theta"), 10_000.0)
        theta = float(next(value for value in thetas if value is not None))
        if not theta > 0:
            raise HarnessError(f"{path}: a rope_theta of {theta} is none")
        return DecoderConfig(
            vocabulary=int(about["vocab_size"]) + 1,
            width=width,
            layers=layers,
            heads=heads,
            key_value_heads=keys,
            hidden=int(about["intermediate_size"]),
            head_width=None if head_width in (None, width / heads) else int(head_width),
            rope_theta=theta,
            norm_epsilon=float(about.get("rms_norm_eps", 1e-6)),
            tied=bool(about.get("tie_word_embeddings", False)),
            biases=kind == "qwen2",
            silent_padding=True,
            dtype=dtype,
        )
    except KeyError as error:
        raise HarnessError(f"{path} lacks {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise HarnessError(f"{path} is no config of a decoder: {error}") from None


def _refused(
    about: Mapping[str, Any], kind: str, layers: int, rope: Mapping[str, Any]
) -> str | None:
    """What the config asks for that the decoder does not have; None for nothing."""
    scaling = rope.get("rope_type", rope.get("type", "default"))
    turned = rope.get("partial_rotary_factor", about.get("partial_rotary_factor"))
    kinds = about.get("layer_types") or []
    unwindowed = int(about.get("max_window_layers", layers))
    windowed = bool(about.get("use_sliding_window")) and about.get("sliding_window") is not None
    asked = {
        f"rope_scaling of the kind {scaling!r}": scaling != "default",
        f"partial_rotary_factor {turned}": turned not in (None, 1),
        f"hidden_act {about.get('hidden_act')!r}": about.get("hidden_act", "silu") != "silu",
        "a quantised checkpoint": bool(about.get("quantization_config")),
        # Llama's is one of the output matrix too, which the decoder does not have.
        "attention_bias of Llama": kind == "llama" and bool(about.get("attention_bias")),
        "mlp_bias": bool(about.get("mlp_bias")),
        "a sliding window": "sliding_attention" in kinds
        or (windowed and not kinds and unwindowed < layers),
    }
    return next((what for what, is_asked in asked.items() if is_asked), None)


def _reader(folder: Path, config: DecoderConfig, stack: ExitStack) -> Read:
    """Gives the matrices of a folder, whose files `stack` closes.

    Raises:
        HarnessError: a file is missing or damaged, or has other matrices than the config says.
    """
    files: dict[str, Any] = {}
    try:
        for path in _weight_files(folder):
            file = stack.enter_context(safe_open(path, "numpy"))
            files |= dict.fromkeys(file.keys(), file)
    except (OSError, SafetensorError) as error:
        raise HarnessError(f"{folder}: the weights cannot be read: {error}") from None
    wanted = matrix_names(config)
    if missing := sorted(wanted - files.keys()):
        raise HarnessError(f"{folder}: the weights lack {missing[0]}")
    # Some files hold the tied output too, or the wavelengths of the positions.
    unknown = sorted(
        name
        for name in files.keys() - wanted
        if not name.endswith("rotary_emb.inv_freq")
        and not (config.tied and name == "lm_head.weight")
    )
    if unknown:
        raise HarnessError(f"{folder}: the weights have {unknown[0]}, which is not supported")

    def read(name: str) -> np.ndarray:
        kind = files[name].get_slice(name).get_dtype()
        if kind not in _TYPES:
            raise HarnessError(f"{folder}: {name} is {kind}; there are: {', '.join(_TYPES)}")
        return files[name].get_tensor(name)

    return read


def _weight_files(folder: Path) -> list[Path]:
    if (folder / _INDEX).exists():
        shards = _json(folder / _INDEX).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(n, str) for n in shards.values()):
            raise HarnessError(f"{folder / _INDEX} has no weight_map")
        return [folder / name for name in sorted(set(shards.values()))]
    if (folder / _WEIGHTS).exists():
        return [folder / _WEIGHTS]
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        raise HarnessError(f"{folder} has no {_WEIGHTS} and no {_INDEX}")
    return found


def _encoding(
    folder: Path, about: Mapping[str, Any], rows: int, template: str | None, date: str | None
) -> ChatEncoding:
    settings = _json(folder / "tokenizer_config.json", needed=False)
    tokenizer = _text(folder / "tokenizer.json")
    special = {
        name: text for name in _SPECIAL if (text := _special_text(settings.get(name))) is not None
    }
    ends = _ends(folder, about)
    try:
        if not ends and "eos_token" in special:
            added = json.loads(tokenizer)["added_tokens"]
            ends = [token["id"] for token in added if token["content"] == special["eos_token"]]
        return chat_encoding(
            tokenizer, template or _template(folder, settings), rows, special, ends, date
        )
    except HarnessError as error:
        raise HarnessError(f"{folder}: {error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise HarnessError(f"{folder / 'tokenizer.json'} is no tokenizer: {error!r}") from None


def _special_text(value: Any) -> str | None:
    return value.get("content") if isinstance(value, dict) else value


def _template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The chat template; of several the one named `default`. A file of its own comes first."""
    if (folder / "chat_template.jinja").exists():
        return _text(folder / "chat_template.jinja")
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {each.get("name"): each.get("template") for each in template}
        return named.get("default")
    return template


def _ends(folder: Path, about: Mapping[str, Any]) -> list[int]:
    """Ids that end a completion: those of generation, or else of the config."""
    generation = _json(folder / "generation_config.json", needed=False)
    for source in (generation, about):
        ends = source.get("eos_token_id")
        if isinstance(ends, int):
            return [ends]
        if ends:
            return [int(end) for end in ends]
    return []


def _json(path: Path, needed: bool = True) -> dict[str, Any]:
    if not needed and not path.exists():
        return {}
    try:
        value = json.loads(_text(path))
    except ValueError as error:
        raise HarnessError(f"{path} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise HarnessError(f"{path} is no JSON object")
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"{path} cannot be read: {error}") from None
