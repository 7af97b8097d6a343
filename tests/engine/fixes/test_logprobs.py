"""Texts, bytes and places of tokens, of real tokenizers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from psserve.engine.fixes import logprobs
from psserve.engine.fixes.logprobs import TokenText, place
from tests.engine.hooked import hooked
from tests.engine.release import only


def of_bytes() -> PreTrainedTokenizerFast:
    """A token a byte, written as byte-level vocabularies do."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=words)


def with_byte_tokens() -> PreTrainedTokenizerFast:
    """Words, and bytes for what is none of them, as SentencePiece has them."""
    vocabulary = {"<unk>": 0} | {f"<0x{byte:02X}>": byte + 1 for byte in range(256)} | {"a": 257}
    words = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    words.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=words)


TOKENIZERS = {"byte-level": of_bytes(), "byte fallback": with_byte_tokens()}


def answer(tokenizer: Any, text: str) -> list[TokenText]:
    """The texts of the tokens of an answer, as a server comes to them: some tokens at a time."""
    from sglang.srt.managers.tokenizer_manager import TokenizerManager

    tokens = tokenizer.encode(text, add_special_tokens=False)
    manager = SimpleNamespace(tokenizer=tokenizer)
    state = SimpleNamespace(output_token_logprobs=[])
    for start in range(0, len(tokens), 3):
        known = len(state.output_token_logprobs)
        some = tokens[start : start + 3]
        state.output_token_logprobs += TokenizerManager.detokenize_logprob_tokens(
            manager, [-1.0] * len(some), some, True
        )
        place(state.output_token_logprobs, known)
    return [each for _, _, each in state.output_token_logprobs]


@pytest.fixture(autouse=True, scope="module")
def _hooked() -> Any:
    with hooked(logprobs.hooks()):
        yield


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=st.text(st.sampled_from("aé漢🙂�"), min_size=1, max_size=12))
def test_bytes_are_the_tokens_own(kind: str, text: str) -> None:
    texts = answer(TOKENIZERS[kind], text)
    assert b"".join(each.encode("utf-8") for each in texts) == text.encode()


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=st.text(st.sampled_from("aé漢🙂"), min_size=1, max_size=12))
def test_a_token_begins_where_its_character_does(kind: str, text: str) -> None:
    expected = []
    for number, letter in enumerate(text):
        expected += [number] * (1 if letter == "a" else len(letter.encode()))
    assert [each.offset for each in answer(TOKENIZERS[kind], text)] == expected


def test_a_token_of_text_that_cannot_be_read_keeps_its_text() -> None:
    tokenizer = SimpleNamespace(convert_ids_to_tokens=lambda token: "?�")
    assert logprobs.token_bytes(tokenizer, 1, "?�") == "?�".encode()


def test_offsets_reach_completions() -> None:
    from sglang.srt.entrypoints.openai.utils import to_openai_style_logprobs

    texts = answer(TOKENIZERS["byte-level"], "aéb")
    entries = [(-1.0, 0, text) for text in texts]
    assert to_openai_style_logprobs(output_token_logprobs=entries[1:]).text_offset == [1, 1, 2]


@only(since="0.5.21")
def test_parts_of_characters_are_no_latin_letters() -> None:
    from sglang.srt.entrypoints.openai.utils import to_openai_style_logprobs

    tokenizer = TOKENIZERS["byte-level"]
    ids = tokenizer.encode("é", add_special_tokens=False)
    entries = [(-1.0, token, text) for token, text in zip(ids, answer(tokenizer, "é"), strict=True)]
    given = to_openai_style_logprobs(output_token_logprobs=entries, tokenizer=tokenizer)
    assert (given.tokens, given.text_offset) == (["\ufffd", "\ufffd"], [0, 0])


@only(since="0.5.21")
def test_sglang_gives_a_chunks_tokens_alternatives_of_their_own_and_our_bytes() -> None:
    from sglang.srt.entrypoints.openai.serving_chat import OpenAIServingChat

    tokenizer = TOKENIZERS["byte-level"]
    serving = SimpleNamespace(tokenizer_manager=SimpleNamespace(tokenizer=tokenizer))
    ids = tokenizer.encode("é", add_special_tokens=False)
    entries = [(-1.0, token, text) for token, text in zip(ids, answer(tokenizer, "é"), strict=True)]
    tokens = OpenAIServingChat._build_token_logprobs_from_raw(serving, entries, [[entry] for entry in entries])
    assert [token.bytes for token in tokens] == [[0xC3], [0xA9]]
    assert [[top.bytes for top in token.top_logprobs] for token in tokens] == [[[0xC3]], [[0xA9]]]


@only(until="0.5.21")
def test_a_chunks_tokens_have_alternatives_of_their_own() -> None:
    from sglang.srt.entrypoints.openai.protocol import LogProbs
    from sglang.srt.entrypoints.openai.serving_chat import OpenAIServingChat

    given = LogProbs(tokens=["a", "b"], token_logprobs=[-1.0, -2.0], top_logprobs=[{"a": -1.0}, {"b": -2.0}])
    tokens = OpenAIServingChat._process_logprobs_tokens(SimpleNamespace(), given, use_token_index=False)
    assert [[top.token for top in token.top_logprobs] for token in tokens] == [["a"], ["b"]]


def test_ids_alone_are_left_alone() -> None:
    entries: list[Any] = [(-1.0, 5, None)]
    place(entries, 0)
    assert entries == [(-1.0, 5, None)]


def test_a_character_that_is_never_finished_takes_a_place() -> None:
    tokenizer = TOKENIZERS["byte-level"]
    entries: list[Any] = []
    for byte in "漢".encode()[:2] + b"ab":
        text = TokenText("")
        text.own = bytes([byte])
        entries.append((-1.0, 0, text))
    place(entries, 0)
    assert [text.offset for _, _, text in entries] == [0, 0, 1, 2]
    assert tokenizer.decode(tokenizer.convert_tokens_to_ids(["æ", "¼", "a", "b"])) == "\ufffdab"


def test_tokens_that_the_text_leaves_out_take_no_place() -> None:
    entries = [(-1.0, 0, text) for text in answer(TOKENIZERS["byte-level"], "abc")]
    entries[1] = (-1.0, 9, entries[1][2])
    place(entries, 0, skipped={9})
    assert [text.offset for _, _, text in entries] == [0, 1, 1]
