"""Streams as they come in."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.bench.load.stream import RequestFailed, Streamed, TokenCounts, refusal_text


def event(document: Any) -> bytes:
    return b"data: " + (document if isinstance(document, bytes) else json.dumps(document).encode()) + b"\n\n"


STREAM = b"".join(
    [
        event({"id": "x", "choices": [{"delta": {"role": "assistant", "content": ""}}]}),
        b": a comment\n\n",
        event({"choices": [{"delta": {"content": "Zwölf "}}]}),
        event({"choices": [{"delta": {"reasoning_content": "hm "}}]}),
        event({"choices": [{"text": "apples"}]}),
        event({"choices": [{"delta": {}, "finish_reason": "length"}]}),
        event(
            {
                "choices": [],
                "usage": {
                    "prompt_tokens": 9,
                    "completion_tokens": 3,
                    "prompt_tokens_details": {"cached_tokens": 4},
                },
            }
        ),
        event(b"[DONE]"),
    ]
)


@settings(deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_borders_of_bytes_do_not_matter(borders: list[int]) -> None:
    streamed, places = Streamed(), [0, *sorted(borders), len(STREAM)]
    for begin, end in pairwise(places):
        streamed.feed(STREAM[begin:end], float(end))
    assert streamed.text == "Zwölf hm apples"
    assert len(streamed.moments) == 3  # the first chunk has no text yet, the last ones no more
    assert streamed.usage == TokenCounts(prompt=9, cached=4, output=3)
    assert streamed.ended


@pytest.mark.parametrize("data", [b"{", b"[]", b"7", b'{"choices": 7}', b'{"choices": ["x"]}', b'{"usage": {"a": 1}}'])
def test_what_is_no_event_fails_the_request(data: bytes) -> None:
    with pytest.raises(RequestFailed, match="not in OpenAI's form"):
        Streamed().feed(event(data), 0.0)


def test_an_error_event_fails_the_request() -> None:
    with pytest.raises(RequestFailed, match="error in the stream: out of memory"):
        Streamed().feed(event({"error": {"message": "out of\nmemory"}}), 0.0)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b'{"error": {"message": "no such model"}}', "status 404: no such model"),
        (b'{"object": "error", "message": "too long"}', "status 404: too long"),
        (b"<html>", "status 404"),
        (b"[]", "status 404"),
    ],
)
def test_refusals_in_every_form(payload: bytes, said: str) -> None:
    assert refusal_text(404, payload) == said
