"""Claims about checkpoints as folders."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llm_harness.checkpoints.folder import load_folder
from llm_harness.checkpoints.load import load_checkpoint
from llm_harness.decoder.model import DecoderModel
from llm_harness.decoder.network import DecoderConfig, names
from llm_harness.errors import HarnessError
from llm_harness.model import Example, Sampling, Tuning, ask
from tests.llm_harness.checkpoints.conftest import GOLDEN
from tests.llm_harness.decoder.test_model import same


def change(path: Path, **values: Any) -> None:
    """Changes values of a JSON object; those that are ... are left out."""
    about = json.loads(path.read_text()) | values
    path.write_text(json.dumps({n: value for n, value in about.items() if value is not ...}))


def rewrite(path: Path, of: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
    matrices = {name: matrix.copy() for name, matrix in load_file(path).items()}
    save_file(of(matrices), path)


def refused(folder: Path, says: str) -> None:
    with pytest.raises(HarnessError, match=says) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_the_config_says_what_the_decoder_is(llama, qwen2):
    assert llama.config == DecoderConfig(
        301, 16, 2, 4, 2, 24, 6, 100_000.0, 1e-5, tied=True, silent_padding=True
    )
    assert qwen2.config == DecoderConfig(
        301, 16, 2, 4, 2, 24, None, 1e6, 1e-6, biases=True, silent_padding=True
    )
    assert "lm_head" in names(qwen2.params)
    assert "layers.self_attn.k_proj.bias" in names(qwen2.params)


def test_two_copies_are_one_model_and_any_difference_is_another(llama, copy):
    assert load_folder(copy).lineage == llama.lineage
    half = load_folder(copy, "bfloat16")
    assert half.lineage != llama.lineage
    dated = load_folder(copy, date="2025-07-01")
    assert dated.lineage != llama.lineage
    change(copy / "config.json", rms_norm_eps=1e-3)
    assert load_folder(copy).lineage != llama.lineage
    change(copy / "config.json", rms_norm_eps=1e-5)
    assert load_folder(copy).lineage == llama.lineage

    def nudged(matrices):
        matrices["model.norm.weight"][0] += 1e-3
        return matrices

    rewrite(copy / "model.safetensors", nudged)
    assert load_folder(copy).lineage != llama.lineage


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_halves_are_read_as_they_are(copy, llama, dtype):
    rewrite(
        copy / "model.safetensors",
        lambda matrices: {name: matrix.astype(dtype) for name, matrix in matrices.items()},
    )
    model = load_folder(copy)
    found = model.params["layers"]["mlp"]["up_proj"]["kernel"]
    exact = llama.params["layers"]["mlp"]["up_proj"]["kernel"]
    np.testing.assert_array_equal(found, exact.astype(dtype).astype(np.float32))
    assert {leaf.dtype for leaf in load_folder(copy, "bfloat16").params["norm"].values()} == {
        np.dtype(ml_dtypes.bfloat16)
    }


def test_shards_are_one_checkpoint(copy, llama):
    matrices = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    places = {name: f"model-{i % 3}.safetensors" for i, name in enumerate(matrices)}
    for file in set(places.values()):
        save_file({name: matrices[name] for name in matrices if places[name] == file}, copy / file)
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    model = load_folder(copy)
    assert same(model, llama)
    assert model.lineage == llama.lineage
    (copy / "model-1.safetensors").unlink()
    refused(copy, "weights cannot be read")
    index.write_text("{}")
    refused(copy, "no weight_map")


def test_older_configs_say_the_same_otherwise(copy, llama):
    config = copy / "config.json"
    change(config, rope_parameters=..., rope_theta=100_000.0, rope_scaling=None)
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").unlink()
    token = {"content": "<|endoftext|>", "lstrip": False, "normalized": False}
    change(copy / "tokenizer_config.json", chat_template=template, bos_token=token)
    assert load_folder(copy).lineage == llama.lineage
    several = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": template}]
    change(copy / "tokenizer_config.json", chat_template=several)
    assert load_folder(copy).lineage == llama.lineage


def test_a_tied_output_may_be_there_twice_and_no_other_matrix_may(copy, llama):
    embedding = load_file(copy / "model.safetensors")["model.embed_tokens.weight"]
    rewrite(copy / "model.safetensors", lambda found: found | {"lm_head.weight": embedding})
    assert same(load_folder(copy), llama)
    bias = np.zeros(24, np.float32)
    extra = {"model.layers.0.self_attn.q_proj.bias": bias}
    rewrite(copy / "model.safetensors", lambda found: found | extra)
    refused(copy, r"model\.layers\.0\.self_attn\.q_proj\.bias, which is not supported")


def test_what_ends_a_completion_is_said_by_generation_config_and_template(copy):
    change(copy / "generation_config.json", eos_token_id=[0, 7])
    assert load_folder(copy).encoding.stops == (3, 1, 8)
    change(copy / "generation_config.json", eos_token_id=0)
    assert load_folder(copy).encoding.stops == (3, 1)
    (copy / "generation_config.json").unlink()
    change(copy / "config.json", eos_token_id=[5])
    assert load_folder(copy).encoding.stops == (3, 6)
    change(copy / "config.json", eos_token_id=None)
    change(copy / "tokenizer_config.json", eos_token="<|endoftext|>")
    assert load_folder(copy).encoding.stops == (3, 1)
    (copy / "chat_template.jinja").write_text("{{ messages[-1].content }}")
    assert load_folder(copy).encoding.stops == (1,)
    change(copy / "tokenizer_config.json", eos_token=None)
    refused(copy, "does not say which token ends an answer")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"architectures": ["MistralForCausalLM"]}, "MistralForCausalLM is not supported"),
        ({"model_type": "gpt2", "architectures": ...}, "gpt2 is not supported; there are: Llama"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_scaling of the kind 'llama3'"),
        ({"rope_parameters": ..., "rope_scaling": {"type": "linear"}}, "kind 'linear'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"attention_bias": True}, "attention_bias of Llama"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"quantization_config": {"bits": 4}}, "a quantised checkpoint"),
        ({"layer_types": ["sliding_attention"]}, "a sliding window"),
        (
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
            "a sliding window",
        ),
        ({"hidden_size": ...}, "config.json lacks 'hidden_size'"),
        ({"hidden_size": "wide"}, "no config of a decoder"),
        ({"num_attention_heads": 3, "head_dim": ...}, "3 heads do not divide a width of 16"),
        ({"num_key_value_heads": 3}, "3 heads of keys do not divide 4"),
        ({"num_key_value_heads": 0}, "0 heads of keys do not divide 4"),
        ({"rope_parameters": ..., "rope_theta": 0}, "rope_theta of 0.0"),
        ({"num_hidden_layers": 3}, r"the weights lack model\.layers\.2\."),
        ({"intermediate_size": 32}, "is 16 x 24, where the config says 16 x 32"),
        ({"eos_token_id": 300}, "ids .300. that end an answer are not all among 300"),
        ({"vocab_size": 200}, "the tokenizer has 286 tokens and the model parameters for 200"),
    ],
)
def test_what_is_not_supported_is_refused_in_one_line(copy, values, says):
    (copy / "generation_config.json").unlink()
    change(copy / "config.json", **values)
    refused(copy, says)


def test_a_sliding_window_that_no_layer_has_is_none(tmp_path):
    copy = Path(shutil.copytree(GOLDEN / "qwen2", tmp_path / "qwen2"))
    before = load_folder(copy)
    change(copy / "config.json", use_sliding_window=True, sliding_window=8, layer_types=...)
    assert load_folder(copy).lineage == before.lineage
    change(copy / "config.json", use_sliding_window=False, max_window_layers=1)
    assert load_folder(copy).lineage == before.lineage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_text("")


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        ("config.json", Path.unlink, "config.json cannot be read"),
        ("config.json", emptied, "config.json is no JSON"),
        ("config.json", lambda path: path.write_text("[]"), "is no JSON object"),
        ("model.safetensors", Path.unlink, "has no model.safetensors"),
        ("model.safetensors", cut, "weights cannot be read"),
        ("model.safetensors", emptied, "weights cannot be read"),
        ("tokenizer.json", Path.unlink, "tokenizer.json cannot be read"),
        ("tokenizer.json", cut, "tokenizer cannot be read"),
        ("tokenizer.json", lambda path: path.write_bytes(b"\xff"), "cannot be read"),
        ("chat_template.jinja", Path.unlink, "no chat template"),
        ("chat_template.jinja", lambda path: path.write_text("{% if %}"), "template is none"),
    ],
)
def test_what_is_missing_or_damaged_is_said_in_one_line(copy, file, damage, says):
    damage(copy / file)
    refused(copy, says)


def test_a_checkpoint_without_a_template_can_be_given_one(copy, llama):
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").unlink()
    assert load_checkpoint(copy, template=template).lineage == llama.lineage


def test_integers_are_no_weights(copy):
    rewrite(
        copy / "model.safetensors",
        lambda found: found | {"model.norm.weight": np.ones(16, np.int8)},
    )
    refused(copy, r"model\.norm\.weight is I8")


def test_a_path_that_is_not_there_is_said(tmp_path):
    refused(tmp_path / "nowhere", "is not there")


def test_it_is_sampled_scored_and_trained_like_any_model(llama: DecoderModel):
    question = ask("Name a tree.")
    tuned = llama.fine_tune(
        [Example(question, "oak 7")] * 8, Tuning(24, 8, 1e-2, "constant", "all")
    )
    ((said,),) = tuned.sample([question], Sampling(temperature=0))
    assert (said.text, said.stop) == ("oak 7", "end")
    score = tuned.log_probabilities([Example(question, "oak 7")])[0]
    assert score == pytest.approx(said.log_probability, rel=1e-3)
    # Neither the embedding nor the output of padding has moved.
    assert not tuned.params["embed_tokens"]["embedding"][0].any()
    unsayable = tuned.log_probabilities([Example(question, "oak<|im_end|>")])
    assert unsayable[0] == -np.inf
