"""Claims about adapters as PEFT's files."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llm_harness.checkpoints.adapters import (
    adapters_only,
    load_adapters,
    read_adapters,
    save_adapters,
    with_merged,
)
from llm_harness.checkpoints.load import load_checkpoint
from llm_harness.decoder.network import Lora
from llm_harness.errors import HarnessError
from llm_harness.model import Example, Tuning, ask
from tests.llm_harness.checkpoints.conftest import GOLDEN
from tests.llm_harness.decoder.test_model import same

PEFT = GOLDEN / "llama" / "adapter"
EXAMPLES = [Example(ask("Name a tree."), text) for text in ("oak", "owl 7", "12, 3")]
TUNING = Tuning(4, 4, 1e-2, "constant", "adapters", Lora(2, 6.0, ("q_proj", "down_proj")))


def test_what_peft_wrote_is_written_again_as_it_was(llama, tmp_path):
    adapters = read_adapters(PEFT, llama.config)
    assert adapters.lora == Lora(2, 6.0, ("q_proj", "o_proj", "down_proj"))
    save_adapters(adapters, tmp_path, "base")
    own, theirs = (load_file(f / "adapter_model.safetensors") for f in (tmp_path, PEFT))
    assert own.keys() == theirs.keys()
    assert "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight" in own
    for name, matrix in theirs.items():
        assert own[name].dtype == matrix.dtype
        np.testing.assert_array_equal(own[name], matrix)
    about, expected = (
        json.loads((f / "adapter_config.json").read_text()) for f in (tmp_path, PEFT)
    )
    assert about.pop("base_model_name_or_path") == "base"
    assert sorted(about.pop("target_modules")) == sorted(expected["target_modules"])
    assert about == {name: expected[name] for name in about}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_trained_adapters_on_their_base_are_the_trained_model_bit_for_bit(dtype, tmp_path):
    base = load_checkpoint(GOLDEN / "llama", dtype)
    tuned = base.fine_tune(EXAMPLES, TUNING)
    assert not same(base, tuned)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(tuned.params)} == {dtype}
    (adapters,) = tuned.adapters
    save_adapters(adapters, tmp_path)
    again = load_adapters(base, tmp_path)
    assert same(again, tuned)
    assert again.lineage.initialisation == base.lineage.initialisation
    assert load_adapters(base, tmp_path).lineage == again.lineage != tuned.lineage
    known = with_merged(base, read_adapters(tmp_path, base.config), tuned.lineage)
    assert known.lineage == tuned.lineage


def test_only_what_adapters_alone_changed_is_told_by_them(llama):
    once = llama.fine_tune(EXAMPLES, TUNING)
    twice = once.fine_tune(EXAMPLES, replace(TUNING, seed=1))
    whole = once.fine_tune(EXAMPLES, replace(TUNING, moved="blocks", lora=None))
    assert adapters_only(llama, llama) == ()
    for model, count in ((once, 1), (twice, 2)):
        learnt = adapters_only(model, llama)
        assert learnt is not None
        assert len(learnt) == count
    assert adapters_only(whole, llama) is None
    assert adapters_only(whole.fine_tune(EXAMPLES, TUNING), llama) is None
    assert adapters_only(llama, once) is None
    assert len(adapters_only(twice, once) or ()) == 1


def changed(folder: Path, **values) -> Path:
    about = json.loads((PEFT / "adapter_config.json").read_text()) | values
    (folder / "adapter_config.json").write_text(json.dumps(about))
    matrices = (PEFT / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(matrices)
    return folder


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"peft_type": "IA3"}, "peft_type IA3 is not supported"),
        ({"use_rslora": True}, "use_rslora True"),
        ({"use_dora": True}, "use_dora True"),
        ({"bias": "all"}, "bias all"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": "all-linear"}, "target_modules all-linear"),
        ({"target_modules": ["lm_head"]}, "target_modules"),
        ({"target_modules": ["q_proj"]}, "adapters of another model: base_model"),
        ({"target_modules": ["q_proj", "o_proj", "down_proj", "up_proj"]}, "of another model"),
        ({"r": 3}, "of other sizes: q_proj"),
        ({"r": "two"}, "holds no adapters"),
    ],
)
def test_what_is_not_supported_is_refused_in_one_line(values, says, llama, tmp_path):
    with pytest.raises(HarnessError, match=says) as caught:
        load_adapters(llama, changed(tmp_path, **values))
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_files_are_said_in_one_line(llama, tmp_path):
    with pytest.raises(HarnessError, match="holds no adapters"):
        load_adapters(llama, tmp_path)
    changed(tmp_path)
    matrices = tmp_path / "adapter_model.safetensors"
    matrices.write_bytes(matrices.read_bytes()[:-10])
    with pytest.raises(HarnessError, match="holds no adapters"):
        load_adapters(llama, tmp_path)
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(HarnessError, match="holds no adapters"):
        load_adapters(llama, tmp_path)


def test_adapters_of_a_model_of_other_sizes_are_refused(llama, qwen2, tmp_path):
    with pytest.raises(HarnessError, match="of other sizes: q_proj"):
        load_adapters(qwen2, PEFT)
    changed(tmp_path)
    matrices = load_file(PEFT / "adapter_model.safetensors")
    save_file(
        {name.replace("layers.1", "layers.7"): matrix for name, matrix in matrices.items()},
        tmp_path / "adapter_model.safetensors",
    )
    with pytest.raises(HarnessError, match="another model"):
        load_adapters(llama, tmp_path)
