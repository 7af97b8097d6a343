"""Event streams, cut at any byte."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psserve.contracts.router_config import WorkerConfig
from psserve.router.answers.streaming import ChoiceRelay, Relay
from psserve.router.observability.exchange import SequenceRecord
from psserve.router.pairs.pair import Legs, Pair, PrefillUsage
from psserve.router.workers.failures import LegFailure
from psserve.router.workers.workers import Worker

WORDS = ["one", '"error"', "[DONE]", '"abort"', "zwölf \n\n"]


def event(document: Any) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


def chunk(text: str, reason: str | None = None) -> bytes:
    return event({"id": "a", "choices": [{"index": 0, "text": text, "finish_reason": reason}], "usage": None})


USAGE = event({"id": "a", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
DONE = b"data: [DONE]\n\n"


def make_legs(prefill_tokens: int = 4) -> Legs:
    prefill = Worker(WorkerConfig(name="p", role="prefill", port=1, bootstrap_port=2))
    decode = Worker(WorkerConfig(name="d", role="decode", module="m", port=3))
    unused: Any = SimpleNamespace()
    return Legs(Pair(prefill, decode), unused, unused, PrefillUsage(prefill_tokens, 3), SequenceRecord(True, 0.0))


def feed_all(relay: Relay, raw: bytes, cuts: list[int]) -> bytes:
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    out = b"".join(relay.feed(raw[start:end]) for start, end in pairwise(edges))
    relay.finish()
    return out


@given(st.lists(st.sampled_from(WORDS)), st.lists(st.integers(0, 10**6)))
def test_bytes_pass_untouched_but_for_the_usage_chunk_and_the_end(words: list[str], cuts: list[int]) -> None:
    text = b"".join(chunk(word) for word in words)
    assert feed_all(Relay(make_legs(), include_usage=False), text + USAGE + DONE, cuts) == text


@given(st.lists(st.integers(0, 10**6)))
def test_usage_chunk_is_patched_when_asked_for(cuts: list[int]) -> None:
    relay = Relay(make_legs(), include_usage=True)
    usage, rest = feed_all(relay, USAGE + DONE, cuts).split(b"\n\n")
    patched = orjson.loads(usage.removeprefix(b"data: "))["usage"]
    assert patched == {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
    assert rest == b""


@given(st.lists(st.sampled_from(WORDS)), st.lists(st.integers(0, 10**6)))
def test_choice_relay_rewrites_index_and_identity(words: list[str], cuts: list[int]) -> None:
    relay = ChoiceRelay(make_legs(), {"id": "b", "object": "o", "created": 1, "model": "m"}, index=7)
    out = feed_all(relay, b"".join(chunk(word) for word in words) + USAGE + DONE, cuts)
    chunks = [orjson.loads(part.removeprefix(b"data: ")) for part in out.split(b"\n\n")[:-1]]
    assert [part["choices"][0]["text"] for part in chunks] == words
    assert all((part["id"], part["choices"][0]["index"]) == ("b", 7) for part in chunks)
    assert relay.usage is not None


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (event({"error": {"message": "m", "code": 500}}), "error"),
        (event({"error": {"message": "m", "code": 400}}), "refused"),
        (event({"error": {"message": "m", "code": 503}}), "overloaded"),
        (event({"error": "text"}), "error"),
        (chunk("x", "abort"), "aborted"),
        (DONE, "malformed"),
        (b'data: {"error"\n\n', "malformed"),
        (chunk("x"), "reset"),  # ends without [DONE]
        (chunk("x") + USAGE, "reset"),
        (b"data: {", "reset"),
    ],
)
def test_streams_that_failed(raw: bytes, reason: str) -> None:
    with pytest.raises(LegFailure) as caught:
        feed_all(Relay(make_legs(), include_usage=True), raw, [])
    assert caught.value.reason == reason


@pytest.mark.parametrize("prefill_tokens", [3, 5, 6])
def test_usage_that_breaks_the_split(prefill_tokens: int) -> None:
    with pytest.raises(LegFailure) as caught:
        Relay(make_legs(prefill_tokens), include_usage=False).feed(USAGE)
    assert caught.value.code == "split_mismatch"
