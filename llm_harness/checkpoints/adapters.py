"""Low-rank adapters as PEFT's files, so that others serve what was trained here, and the reverse.

There a matrix of an adapter is (rank, in) or (out, rank) and each layer's by itself; ours are
(in, rank) and (rank, out), those of all layers in one array. Names, shapes and settings are those
of PEFT's documentation, "Checkpoint format".
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from llm_harness.checkpoints.weights import params_sha256
from llm_harness.decoder.model import Adapters, DecoderModel
from llm_harness.decoder.network import (
    ATTENTION,
    PERCEPTRON,
    DecoderConfig,
    Lora,
    Projection,
    joined,
    merge_adapters,
)
from llm_harness.errors import HarnessError
from llm_harness.lineage import Lineage

_ABOUT, _MATRICES = "adapter_config.json", "adapter_model.safetensors"
_PARTS: dict[Projection, str] = dict.fromkeys(ATTENTION, "self_attn") | dict.fromkeys(
    PERCEPTRON, "mlp"
)
# Settings that change what an adapter does, and that ours do not have.
_REFUSED = (
    "use_rslora",
    "use_dora",
    "fan_in_fan_out",
    "lora_bias",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "layers_to_transform",
    "target_parameters",
    "trainable_token_indices",
    "layer_replication",
    "exclude_modules",
    "use_qalora",
)


def save_adapters(
    adapters: Adapters, folder: Path, base: str | None = None, prefix: str = ""
) -> None:
    """Writes adapter_config.json and adapter_model.safetensors.

    Args:
        adapters: of one training.
        folder: is there.
        base: path or name under which others find the checkpoint that they belong to.
        prefix: of the files' names.
    """
    lora = adapters.lora
    about = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": list(lora.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": None,
        "layers_to_transform": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    (folder / f"{prefix}{_ABOUT}").write_text(json.dumps(about, indent=2) + "\n")
    matrices = {}
    for target in lora.targets:
        own = adapters.params["layers"][_PARTS[target]][target]
        for part in ("lora_A", "lora_B"):
            for layer, matrix in enumerate(np.asarray(own[part])):
                matrices[_name(layer, target, part)] = np.ascontiguousarray(matrix.T)
    save_file(matrices, folder / f"{prefix}{_MATRICES}", {"format": "pt"})


def read_adapters(folder: Path, config: DecoderConfig, prefix: str = "") -> Adapters:
    """The adapters in a folder, as `save_adapters` or PEFT writes them.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors.
        config: of the model that they belong to.
        prefix: of the files' names.

    Raises:
        HarnessError: files are missing, damaged, not supported, or of another model.
    """
    path = folder / f"{prefix}{_ABOUT}"
    try:
        about = json.loads(path.read_text())
        matrices = load_file(folder / f"{prefix}{_MATRICES}")
        if about["peft_type"] != "LORA":
            raise HarnessError(
                f"{path}: peft_type {about['peft_type']} is not supported: only LORA"
            )
        asked = [name for name in _REFUSED if about.get(name)]
        if asked or about.get("bias", "none") != "none":
            name = asked[0] if asked else "bias"
            raise HarnessError(f"{path}: {name} {about[name]} is not supported")
        targets = about["target_modules"]
        if not isinstance(targets, list) or not set(targets) <= _PARTS.keys():
            raise HarnessError(f"{path}: target_modules {targets} are not supported")
        # The order is that of the layers, whatever the file's: PEFT writes a set.
        ordered: tuple[Projection, ...] = tuple(each for each in _PARTS if each in targets)
        lora = Lora(int(about["r"]), float(about["lora_alpha"]), ordered)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, SafetensorError) as error:
        raise HarnessError(f"{folder} holds no adapters: {error}") from None
    wanted = {
        _name(layer, target, part)
        for layer in range(config.layers)
        for target in lora.targets
        for part in ("lora_A", "lora_B")
    }
    if different := sorted(wanted ^ matrices.keys()):
        raise HarnessError(f"{folder} holds adapters of another model: {different[0]}")
    params: dict[str, Any] = {}
    for target in lora.targets:
        params.setdefault(_PARTS[target], {})[target] = {
            part: np.stack(
                [matrices[_name(layer, target, part)].T for layer in range(config.layers)]
            ).astype(jax.numpy.dtype(config.dtype))
            for part in ("lora_A", "lora_B")
        }
    return Adapters(lora, {"layers": params})


def with_merged(model: DecoderModel, adapters: Adapters, lineage: Lineage) -> DecoderModel:
    """A model with adapters merged into it, as at the end of a training.

    Raises:
        HarnessError: the adapters are of a model of other sizes.
    """
    for target in adapters.lora.targets:
        own = adapters.params["layers"][_PARTS[target]][target]
        layers, width_in, width_out = model.params["layers"][_PARTS[target]][target]["kernel"].shape
        rank = adapters.lora.rank
        shapes = ((layers, width_in, rank), (layers, rank, width_out))
        if (own["lora_A"].shape, own["lora_B"].shape) != shapes:
            raise HarnessError(f"the adapters are of a model of other sizes: {target}")
    adapted = replace(model.config, lora=adapters.lora)
    merged = merge_adapters(adapted, joined(adapters.params, model.params))[1]
    return replace(
        model,
        params=jax.tree.map(np.asarray, merged),
        lineage=lineage,
        adapters=(*model.adapters, adapters),
    )


def load_adapters(model: DecoderModel, folder: Path) -> DecoderModel:
    """A model with the adapters of a folder merged into it, whoever trained them.

    Its lineage names the adapters by their content, since nothing is known of their training.

    Args:
        model: that they belong to.
        folder: with adapter_config.json and adapter_model.safetensors.

    Raises:
        HarnessError: files are missing, damaged, not supported, or of another model.
    """
    adapters = read_adapters(folder, model.config)
    about = {"adapters": params_sha256(adapters.params), "alpha": adapters.lora.alpha}
    lineage = model.lineage.trained("fine-tuning", about["adapters"], about)
    return with_merged(model, adapters, lineage)


def adapters_only(model: DecoderModel, base: DecoderModel) -> tuple[Adapters, ...] | None:
    """All that a model has beside `base`, where that is adapters; None where it is more."""
    before, after = base.lineage, model.lineage
    since = len(after.trainings) - len(before.trainings)
    of_base = (
        after.initialisation == before.initialisation
        and after.trainings[: len(before.trainings)] == before.trainings
    )
    learnt = model.adapters[len(base.adapters) :]
    return learnt if of_base and since == len(learnt) else None


def _name(layer: int, target: Projection, part: str) -> str:
    stem = f"base_model.model.model.layers.{layer}.{_PARTS[target]}.{target}"
    return f"{stem}.{part}.weight"
