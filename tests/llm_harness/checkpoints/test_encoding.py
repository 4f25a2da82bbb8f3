"""Claims about chats as a checkpoint's tokens."""

import importlib
import importlib.util
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

import llm_harness.checkpoints
from llm_harness.checkpoints.encoding import ChatEncoding, encoding_of
from llm_harness.checkpoints.template import rendered
from llm_harness.decoder.encoding import Encoding
from llm_harness.decoder.network import DecoderApply
from llm_harness.errors import HarnessError
from llm_harness.model import Message, Sampling, ask
from tests.llm_harness.checkpoints.conftest import NAMES

CHAT = ask("owl")


@pytest.mark.parametrize("name", NAMES)
def test_it_is_an_encoding_that_its_description_makes_again(name, checkpoints):
    encoding = checkpoints[name].encoding
    assert isinstance(encoding, Encoding)
    assert isinstance(encoding, ChatEncoding)
    again = encoding_of(json.loads(json.dumps(encoding.about)))
    assert again == encoding
    assert hash(again) == hash(encoding)
    assert replace(encoding, date="2025-07-01") != encoding


def test_no_token_is_padding_and_the_largest_is_within_the_vocabulary(llama):
    encoding = llama.encoding
    assert encoding.encode("<|endoftext|>") == [1]
    assert encoding.size == llama.config.vocabulary == 301
    assert min(encoding.prompt(CHAT)) >= 1


def test_what_is_drawn_is_a_token_that_has_text_or_ends(llama):
    encoding = llama.encoding
    assert encoding.banned == (1, 2, *range(287, 301))
    assert encoding.stops == (3,)
    drawn = llama.sample([CHAT] * 64, Sampling(temperature=4.0, max_tokens=16))
    found = [completion for (completion,) in drawn]
    # Every token but the end is some bytes at least.
    reader = {text: encoding.encode(text) for text in (each.text for each in found)}
    assert max(token for tokens in reader.values() for token in tokens) < 287
    assert not any("<|" in each.text for each in found)
    assert {each.stop for each in found} == {"end", "length"}


def test_a_completion_comes_back_from_its_tokens_or_is_not_read(llama):
    encoding = llama.encoding
    for text in ("owl", "12, 345", " two  blanks\n", "Grüße, 世界 😀", ""):
        assert encoding.reads(text), text
        assert encoding.decode([*encoding.answer(text), 5, 6]) == text
        assert encoding.decode([0, *encoding.encode(text), 0]) == text
    for text in ("<|im_end|>", "owl<|im_end|>", "<|im_start|>owl"):
        assert not encoding.reads(text), text
    assert encoding.answer("owl")[-1] == encoding.stops[0]


def test_the_digits_are_ten_tokens_where_they_spell_all_numbers(llama):
    first, end = llama.encoding.digits
    assert [llama.encoding.decode([token]) for token in range(first, end)] == list("0123456789")
    assert llama.encoding.encode("907") == [first + 9, first, first + 7]


@pytest.mark.parametrize("chat", [(), (Message("system", "owl"),), (Message("assistant", "owl"),)])
def test_a_chat_that_does_not_end_with_a_user_is_refused(chat, llama):
    with pytest.raises(HarnessError, match="must end with a user's message"):
        llama.encoding.prompt(chat)


def test_a_chat_that_the_template_refuses_is_refused_in_its_words(qwen2):
    chat = (Message("user", "owl"), Message("system", "late"), Message("user", "owl"))
    with pytest.raises(HarnessError, match="refuses this chat: a system prompt comes first"):
        qwen2.encoding.prompt(chat)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].content + 1 }}",
        "{{ messages[9].content.x }}",
        "{{ 1 // 0 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% include 'other' %}",
    ],
)
def test_a_template_that_fails_or_leaves_the_sandbox_is_refused_in_one_line(source):
    with pytest.raises(HarnessError) as caught:
        rendered(source, CHAT, {})
    assert "\n" not in str(caught.value)


def test_a_template_is_told_the_day_it_is_given_or_today():
    source = "{{ strftime_now('%d %b %Y') }}"
    assert rendered(source, CHAT, {}, date="2025-07-01") == "01 Jul 2025"
    days = {datetime.now().strftime("%d %b %Y")}
    found = rendered(source, CHAT, {})
    assert found in days | {datetime.now().strftime("%d %b %Y")}


def test_a_day_that_is_none_is_refused_in_one_line():
    with pytest.raises(HarnessError, match="refuses this chat"):
        rendered("{{ strftime_now('%d') }}", CHAT, {}, date="yesterday")


def test_without_the_extra_one_line_says_what_to_install(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(HarnessError, match=r"tokenizers, gguf, jinja2: pip install .*\[llm\]"):
            exec(
                compile(Path(str(llm_harness.checkpoints.__file__)).read_text(), "room", "exec"), {}
            )


def test_a_word_is_spelt_with_a_capital_and_a_space_before_it_too(llama):
    spelt = llama.encoding.spellings("oak")
    assert {llama.encoding.decode(list(tokens)) for tokens in spelt} == {
        "oak",
        "Oak",
        " oak",
        " Oak",
    }
    assert not any(set(tokens) & set(llama.encoding.stops) for tokens in spelt)
    assert len(llama.encoding.spellings("Oak")) == 2


def test_no_spelling_is_the_beginning_of_another(llama):
    for word in ("oak", "7", "Ab", "a", ""):
        spelt = llama.encoding.spellings(word)
        assert not [
            (one, other)
            for one in spelt
            for other in spelt
            if one != other and one[: len(other)] == other
        ]


def test_the_probability_of_a_word_is_that_of_all_its_spellings_whatever_follows(llama):
    chats, words = [ask("Name a tree."), ask("7")] * 9, ["oak", "elm", "oaken", "a"]
    spelt = {word: llama.encoding.spellings(word) for word in words}
    # Of one token and of several, and some that begin as others do.
    assert len({len(tokens) for forms in spelt.values() for tokens in forms}) > 2
    found = llama.word_log_probabilities(chats, words)
    assert found.shape == (18, 4)
    np.testing.assert_allclose(found[2:], np.tile(found[:2], (8, 1)), rtol=1e-5)
    for row, chat in zip(found[:2], chats[:2], strict=True):
        prompt = llama.encoding.prompt(chat)
        for log_probability, word in zip(row, words, strict=True):
            total = 0.0
            for tokens in spelt[word]:
                logits = np.asarray(
                    DecoderApply(llama.config)(llama.params, np.array([[*prompt, *tokens]]))
                )
                log_p = log_softmax(logits[0].astype(np.float64), axis=-1)
                places = range(len(prompt) - 1, len(prompt) + len(tokens) - 1)
                total += np.exp(sum(log_p[i, t] for i, t in zip(places, tokens, strict=True)))
            assert np.exp(log_probability) == pytest.approx(total, rel=1e-4), word
