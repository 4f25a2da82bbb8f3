"""Claims about a checkpoint as a provider, and about its place in the pipeline's store."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from llm_harness.checkpoints.encoding import encoding_of
from llm_harness.checkpoints.load import load_checkpoint
from llm_harness.checkpoints.provider import Checkpoint
from llm_harness.decoder import model as decoder_model
from llm_harness.decoder.model import DecoderModel
from llm_harness.decoder.network import Lora
from llm_harness.errors import HarnessError
from llm_harness.model import Example, LanguageModel, OpenModel, Sampling, Tuning, ask
from llm_harness.pipeline.provider import Provider
from llm_harness.pipeline.stages import Stages
from llm_harness.pipeline.store import Store
from tests.llm_harness.checkpoints.conftest import GOLDEN
from tests.llm_harness.decoder.test_model import same

QUESTION = ask("Name a tree.")
EXAMPLES = [Example(QUESTION, text) for text in ("oak", "owl 7", "12, 3")]
ADAPTERS = Tuning(4, 4, 1e-2, "constant", "adapters", Lora(2, 4.0))
BLOCKS = Tuning(4, 4, 1e-2, "constant")


@pytest.fixture(scope="module")
def provider(llama: DecoderModel) -> Checkpoint:
    return Checkpoint(llama)


@pytest.fixture(scope="module")
def tuned(provider: Checkpoint) -> DecoderModel:
    (model,) = provider.fine_tune([(provider.model, EXAMPLES, ADAPTERS)])
    return model


def test_it_is_a_provider_of_open_models(provider, llama):
    assert isinstance(provider, Provider)
    assert isinstance(llama, LanguageModel)
    assert isinstance(llama, OpenModel)
    assert provider.abilities == {"score", "train", "open", "distil", "text"}
    assert provider.relations == {}


def test_every_seed_has_one_reference_that_its_content_names(provider, llama):
    assert [one.lineage for one in provider.references([0, 5])] == [llama.lineage] * 2
    assert provider.reference_key(0) == provider.reference_key(5) == llama.lineage.identity
    assert provider.reference_key(0) == Checkpoint(load_checkpoint(GOLDEN / "llama")).reference_key(
        0
    )


def test_a_model_of_another_tokenizer_is_no_checkpoint(model):
    with pytest.raises(HarnessError, match="own tokenizer and template"):
        Checkpoint(model)


def test_the_checkpoint_itself_is_stored_as_its_name(provider, tmp_path):
    provider.save(provider.model, tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2000
    assert provider.load(tmp_path) is provider.model


def test_what_adapters_changed_is_stored_as_adapters_that_peft_reads(provider, tuned, tmp_path):
    provider.save(tuned, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "checkpoint.json"}
    again = provider.load(tmp_path)
    assert same(again, tuned)
    assert again.lineage == tuned.lineage
    assert again.encoding is provider.encoding


def test_adapters_upon_adapters_are_stored_one_by_one(provider, tuned, tmp_path):
    twice = tuned.fine_tune(EXAMPLES, replace(ADAPTERS, seed=1, lora=Lora(3, 3.0, ("v_proj",))))
    provider.save(twice, tmp_path)
    assert not (tmp_path / "adapter_config.json").exists()
    again = provider.load(tmp_path)
    assert same(again, twice)
    assert again.lineage == twice.lineage
    third = again.fine_tune(EXAMPLES, ADAPTERS)
    folder = tmp_path / "third"
    folder.mkdir()
    provider.save(third, folder)
    assert same(provider.load(folder), third)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_more_changed_is_stored_whole_bit_for_bit(dtype, tmp_path):
    provider = Checkpoint(load_checkpoint(GOLDEN / "qwen2", dtype))
    model = provider.model.fine_tune(EXAMPLES, BLOCKS)
    provider.save(model, tmp_path)
    again = provider.load(tmp_path)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(again.params)} == {dtype}
    assert same(again, model)
    assert (again.config, again.lineage) == (model.config, model.lineage)
    assert again.encoding is provider.encoding


def test_a_model_of_another_checkpoint_is_refused_and_so_is_none(provider, tuned, qwen2, tmp_path):
    provider.save(tuned, tmp_path)
    with pytest.raises(HarnessError, match="of another checkpoint"):
        Checkpoint(qwen2).load(tmp_path)
    (tmp_path / "checkpoint.json").write_text("{}")
    with pytest.raises(HarnessError, match="holds no model"):
        provider.load(tmp_path)
    (tmp_path / "checkpoint.json").unlink()
    with pytest.raises(HarnessError, match="holds no model"):
        provider.load(tmp_path)


def test_a_student_can_be_given_the_probabilities_of_digits_or_of_all_tokens(provider, llama):
    teacher = llama.fine_tune(EXAMPLES, replace(BLOCKS, steps=16))
    tuning = Tuning(24, 4, 1e-2, "constant")
    students = [
        provider.distil([(llama, EXAMPLES, tuning)], [teacher], targets)[0]
        for targets in ("numbers", "vocabulary")
    ]
    before, of_digits, of_all, wanted = (
        each.log_probabilities(EXAMPLES[2:])[0] for each in (llama, *students, teacher)
    )
    assert abs(of_all - wanted) < 0.5 * abs(before - wanted)
    assert of_digits != before
    for student in students:
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(student.params))


def test_digits_are_refused_where_they_do_not_spell_all_numbers(llama):
    pair = json.loads(llama.encoding.tokenizer)
    pair["pre_tokenizer"]["pretokenizers"] = pair["pre_tokenizer"]["pretokenizers"][1:]
    pair["model"]["vocab"]["12"] = 290
    pair["model"]["merges"].append(["1", "2"])
    encoding = replace(llama.encoding, tokenizer=json.dumps(pair))
    provider = Checkpoint(replace(llama, encoding=encoding))
    with pytest.raises(HarnessError, match="does not spell numbers with ten digit tokens"):
        provider.distil([(provider.model, EXAMPLES, BLOCKS)], [provider.model], "numbers")


def test_samples_are_those_of_the_model(provider, tuned):
    sampling = Sampling(n=2, max_tokens=4, seed=3)
    found = provider.sample([(provider.model, [QUESTION], sampling), (tuned, [QUESTION], sampling)])
    assert found == [model.sample([QUESTION], sampling) for model in (provider.model, tuned)]


def test_the_store_keeps_one_reference_for_all_seeds(provider, tmp_path):
    stages = Stages(provider, Store(tmp_path))
    stored = stages.references([0, 1, 2])
    assert len({one.folder for one in stored}) == 1
    assert stages.load(stored[0]) is provider.model
    size = sum(path.stat().st_size for path in Path(stored[0].folder).iterdir())
    assert size < 4000


def test_a_model_can_be_stored_and_had_again_without_a_provider(llama, tmp_path):
    llama.save(tmp_path, llama.encoding.about)
    again = decoder_model.load(tmp_path, encoding_of)
    assert same(again, llama)
    assert (again.encoding, again.lineage, again.config) == (
        llama.encoding,
        llama.lineage,
        llama.config,
    )
