"""Log-probabilities say truly which bytes a token is, where in the answer it begins, and what else it might have been.

Stock SGLang gives every token the offset -1, and one that is part of a character other bytes in each release. Before
0.5.21 it gives each token of a streamed chunk the alternatives of the chunk's first. Its chat streams leave out tokens
that make no text.
"""

from __future__ import annotations

import re
from codecs import utf_8_decode
from collections.abc import AsyncIterator, Callable, Container, Sequence
from functools import cache
from time import time
from typing import Any

from psserve.engine.handover.sglang.http_process import LogProbs, RequestState, Tokenizer, TokenizerManager
from psserve.engine.hooks import Hook, Kind

Entry = tuple[float | None, int, str]
"""Log-probability (None: not known), id and text of a token, as SGLang keeps them."""
_UNREADABLE = "\ufffd"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""A token of one byte in vocabularies that are not made of bytes."""
_CONTINUES, _BEGINS = 0x80, 0xC0
"""From here on a byte goes on with a character of several bytes, and begins one."""


class TokenText(str):
    """A token's text; `encode` gives the token's own bytes, which need not be whole characters."""

    own: bytes
    offset: int
    """Characters of the answer before it."""
    end: int
    """Whole characters of the answer with it."""
    unfinished: bytes
    """The bytes at its end that make no character yet."""

    def encode(self, *_: object) -> bytes:
        return self.own


def token_bytes(tokenizer: Tokenizer, token: int, text: str) -> bytes:
    """The bytes of a token: those of `text`, unless it is part of a character."""
    if _UNREADABLE not in text:
        return text.encode()
    name = tokenizer.convert_ids_to_tokens(token)
    if byte := _BYTE.fullmatch(name):
        return bytes.fromhex(byte[1])
    try:
        return bytes(_bytes_of_letters()[letter] for letter in name)
    except KeyError:  # a token of text that holds a true U+FFFD
        return text.encode()


@cache
def _bytes_of_letters() -> dict[str, int]:
    """The alphabet in which byte-level vocabularies write bytes."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {letter: byte for byte, letter in bytes_to_unicode().items()}


def _with_bytes(
    original: Callable[..., list[Entry]],
    manager: TokenizerManager,
    token_logprobs_val: list[float],
    token_logprobs_idx: list[int],
    decode_to_text: bool,
) -> list[Entry]:
    """AROUND `TokenizerManager.detokenize_logprob_tokens`."""
    entries = original(manager, token_logprobs_val, token_logprobs_idx, decode_to_text)
    return [_with_own_bytes(manager.tokenizer, entry) for entry in entries] if decode_to_text else entries


def _with_own_bytes(tokenizer: Tokenizer, entry: Entry) -> Entry:
    value, token, text = entry
    known = TokenText(text)
    known.own = token_bytes(tokenizer, token, text)
    return value, token, known


def _with_offsets(
    original: Callable[..., None],
    manager: TokenizerManager,
    meta_info: object,
    state: RequestState,
    *rest: Any,
    **named: Any,
) -> None:
    """AROUND `TokenizerManager.add_logprob_to_meta_info`, which adds the new tokens of a request to the list."""
    known = len(state.output_token_logprobs)
    original(manager, meta_info, state, *rest, **named)
    skipped = special_tokens(manager.tokenizer) if state.obj.sampling_params.get("skip_special_tokens", True) else ()
    place(state.output_token_logprobs, known, skipped)


@cache
def special_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    """The tokens that texts leave out, unless a request asks for them."""
    return frozenset(token for token, added in tokenizer.added_tokens_decoder.items() if added.special)


def place(entries: Sequence[Entry], known: int, skipped: Container[int] = ()) -> None:
    """Say of the entries from `known` on where they begin; those before it have been placed.

    `skipped`: tokens that the answer's text leaves out.
    """
    before = entries[known - 1][2] if known else None
    end, unfinished = (before.end, before.unfinished) if isinstance(before, TokenText) else (0, b"")
    for _, token, text in entries[known:]:
        if not isinstance(text, TokenText):
            return  # the client wants ids alone
        own = b"" if token in skipped else text.own
        if unfinished and own and not _CONTINUES <= own[0] < _BEGINS:
            end, unfinished = end + 1, b""  # it stays U+FFFD
        readable, used = utf_8_decode(unfinished + own, "replace")
        text.offset, text.end, text.unfinished = end, end + len(readable), (unfinished + own)[used:]
        end, unfinished = text.end, text.unfinished


def _fill_offsets(original: Callable[..., LogProbs], *args: Any, tokenizer: object = None, **kwargs: Any) -> LogProbs:
    """AROUND `to_openai_style_logprobs`.

    With a tokenizer, SGLang since 0.5.21 writes parts of characters as Latin letters, which other tokens are too.
    """
    logprobs = original(*args, **kwargs)
    logprobs.text_offset = [getattr(text, "offset", -1) for text in logprobs.tokens]
    return logprobs


def _alternatives_of_each(
    original: Callable[..., list[Any]], serving: object, logprobs: LogProbs, use_token_index: bool = False
) -> list[Any]:
    """AROUND `OpenAIServingChat._process_logprobs_tokens`: a chunk may have several tokens."""
    return original(serving, logprobs, use_token_index=True)


async def _send_without_text(
    original: Callable[..., AsyncIterator[str]], serving: object, *args: Any, **step: Any
) -> AsyncIterator[str]:
    """AROUND `OpenAIServingChat._generate_stream_content`: send a step's log-probabilities though it made no text.

    Stock SGLang does so only where a model's tool calls or thoughts are parsed.
    """
    from sglang.srt.entrypoints.openai.sse_utils import build_sse_content

    sent = False
    async for chunk in original(serving, *args, **step):
        sent = True
        yield chunk
    if step["choice_logprobs"] is not None and not sent:
        about = {"chunk_id": step["content"]["meta_info"]["id"], "model": step["request"].model, "index": step["index"]}
        yield build_sse_content(created=int(time()), logprobs=step["choice_logprobs"], **about)


def hooks() -> tuple[Hook, ...]:
    """The hooks that a decode server needs; a prefill server is asked for no log-probabilities."""
    manager = "sglang.srt.managers.tokenizer_manager.TokenizerManager"
    openai = "sglang.srt.entrypoints.openai"
    return (
        Hook(f"{manager}.detokenize_logprob_tokens", Kind.AROUND, _with_bytes),
        Hook(f"{manager}.add_logprob_to_meta_info", Kind.AROUND, _with_offsets),
        Hook(f"{openai}.utils.to_openai_style_logprobs", Kind.AROUND, _fill_offsets),
        Hook(f"{openai}.serving_chat.OpenAIServingChat._process_logprobs_tokens", Kind.AROUND, _alternatives_of_each),
        Hook(f"{openai}.serving_chat.OpenAIServingChat._generate_stream_content", Kind.AROUND, _send_without_text),
    )
