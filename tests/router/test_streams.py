"""Requests that succeed, streamed."""

from __future__ import annotations

from typing import Any

import orjson

from tests.router.conftest import Fleet


def events(raw: bytes) -> list[dict[str, Any]]:
    """The chunks of a stream that must end well."""
    *chunks, done, rest = raw.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [orjson.loads(chunk.removeprefix(b"data: ")) for chunk in chunks]


async def test_stream_carries_the_modules_words(fleet: Fleet) -> None:
    status, raw = await fleet.stream()
    assert status == 200
    assert "".join(chunk["choices"][0]["text"] for chunk in events(raw)) == "math-0 math-0 math-0 "


async def test_usage_chunk_is_kept_from_who_did_not_ask(fleet: Fleet) -> None:
    _, raw = await fleet.stream()
    assert all(chunk["choices"] for chunk in events(raw))
    assert fleet.math.bodies[0]["stream_options"] == {"include_usage": True}


async def test_usage_chunk_has_the_bases_cached_tokens(fleet: Fleet) -> None:
    fleet.prefill.cached_tokens = 9
    _, raw = await fleet.stream(stream_options={"include_usage": True})
    last = events(raw)[-1]
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens"] == len("some prompt")
    assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 9}


async def test_chat_stream(fleet: Fleet) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "prompt": None}
    status, raw = await fleet.stream("/v1/chat/completions", **body)
    assert status == 200
    assert {chunk["object"] for chunk in events(raw)} == {"chat.completion.chunk"}


async def test_stream_headers(fleet: Fleet) -> None:
    body = {"model": "math", "prompt": "p", "stream": True}
    async with fleet.http.post(fleet.url + "/v1/completions", json=body) as response:
        assert response.content_type == "text/event-stream"
        assert response.headers["x-psserve-decode-worker"] == "decode-math-0"
        assert "x-psserve-router-overhead-ms" in response.headers


async def test_streams_of_n_are_told_apart_by_index_under_one_id(fleet: Fleet) -> None:
    _, raw = await fleet.stream(n=3, seed=5, stream_options={"include_usage": True})
    *chunks, last = events(raw)
    texts = {0: "", 1: "", 2: ""}
    for chunk in chunks:
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == {0: "math-5 " * 3, 1: "math-6 " * 3, 2: "math-7 " * 3}
    assert len({chunk["id"] for chunk in (*chunks, last)}) == 1
    assert last["usage"]["completion_tokens"] == 9
    assert last["usage"]["prompt_tokens"] == len("some prompt")


async def test_text_that_looks_like_a_mark_is_no_event(fleet: Fleet) -> None:
    fleet.math.module = '"error" [DONE] "abort" "choices":[]'
    status, raw = await fleet.stream(max_tokens=1)
    assert status == 200
    assert len(events(raw)) == 4  # the name has three blanks, and the fake streams word by word
