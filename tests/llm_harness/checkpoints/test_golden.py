"""Claims about logits and texts: they are those of the libraries that checkpoints are made for."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_harness.checkpoints.adapters import load_adapters
from llm_harness.decoder import network
from llm_harness.decoder.model import DecoderModel
from llm_harness.decoder.network import DecoderApply
from llm_harness.model import Chat, Message
from tests.llm_harness.checkpoints.conftest import GOLDEN, NAMES, numbers_of, spoken
from tests.llm_harness.reading import read, read_on


def tokens_of(golden: dict[str, np.ndarray]) -> np.ndarray:
    return np.where(golden["real"], golden["ids"] + 1, 0)


def assert_equal_where_real(found, expected, real) -> None:
    assert np.abs(np.asarray(found) - expected)[real].max() < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers_with_and_without_padding(name, checkpoints):
    model, golden = checkpoints[name], numbers_of(name)
    tokens = tokens_of(golden)
    assert (tokens == 0).any()
    found = np.asarray(read(DecoderApply(model.config), model.params, tokens))
    assert np.ptp(golden["logits"]) > 2
    assert_equal_where_real(found[..., 1:], golden["logits"], golden["real"])
    alone = read(DecoderApply(model.config), model.params, tokens[1:2, 4:])
    assert_equal_where_real(alone[..., 1:], golden["logits"][1:2, 4:], golden["real"][1:2, 4:])


@pytest.mark.parametrize("name", NAMES)
def test_reading_on_from_a_cache_gives_the_logits_of_transformers(name, checkpoints):
    model, golden = checkpoints[name], numbers_of(name)
    tokens, given = jnp.asarray(tokens_of(golden)), 6
    positions, seen = network.reading(tokens)
    _, cache = read_on(
        model.config,
        model.params,
        tokens[:, :given],
        positions[:, :given],
        seen[:, :given, :given],
    )
    room = [(0, 0), (0, 0), (0, tokens.shape[1] - given), (0, 0), (0, 0)]
    cache = tuple(np.pad(part, room) for part in cache)
    for place in range(given, tokens.shape[1]):
        here = slice(place, place + 1)
        found, cache = read_on(
            model.config,
            model.params,
            tokens[:, here],
            positions[:, here],
            seen[:, here],
            cache,
            place,
        )
        real = golden["real"][:, here]
        assert_equal_where_real(found[..., 1:], golden["logits"][:, here], real)


@pytest.mark.parametrize("name", NAMES)
def test_padding_has_no_probability(name, checkpoints):
    model, tokens = checkpoints[name], tokens_of(numbers_of(name))
    shares = jax.nn.softmax(read(DecoderApply(model.config), model.params, tokens))
    assert not np.asarray(shares[..., 0]).any()


@pytest.mark.parametrize("name", NAMES)
def test_chats_and_texts_have_the_text_and_the_ids_that_transformers_gives_them(name, checkpoints):
    encoding, golden = checkpoints[name].encoding, spoken(name)
    for each in golden["chats"]:
        chat: Chat = tuple(Message(role, content) for role, content in each["chat"])
        assert encoding.rendered(chat) == each["text"]
        assert encoding.prompt(chat) == [id + 1 for id in each["ids"]]
    for each in golden["texts"]:
        assert encoding.encode(each["text"]) == [id + 1 for id in each["ids"]]


def test_adapters_that_peft_wrote_give_the_logits_that_peft_gives(llama):
    golden = numbers_of("llama")
    model = load_adapters(llama, GOLDEN / "llama" / "adapter")
    found = read(DecoderApply(model.config), model.params, tokens_of(golden))
    assert np.abs(golden["adapted"] - golden["logits"]).max() > 0.5
    assert_equal_where_real(found[..., 1:], golden["adapted"], golden["real"])


@pytest.mark.parametrize(("part", "layers"), [("two", 2), ("whole", 30)])
def test_logits_of_the_real_model_are_those_of_transformers(part, layers, smollm2: DecoderModel):
    golden = numbers_of("smollm2")
    config = replace(smollm2.config, layers=layers)
    blocks = jax.tree.map(lambda leaf: leaf[:layers], smollm2.params["layers"])
    found = read(DecoderApply(config), smollm2.params | {"layers": blocks}, tokens_of(golden))
    columns = np.asarray(found)[..., golden["columns"] + 1]
    assert_equal_where_real(columns, golden[part], golden["real"])
