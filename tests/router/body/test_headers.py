"""Deadlines, priority and session, as clients' headers have them."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest
from multidict import CIMultiDict

from psserve.errors import RequestError
from psserve.router.body.headers import (
    MAX_SESSION_LENGTH,
    SESSION_HEADERS,
    Deadlines,
    deadlines_of,
    handling_of,
    priority_of,
    session_of,
)


@pytest.mark.parametrize(("text", "seconds"), [(None, 60), ("5", 5), ("0.5", 0.5), ("1e9", 60)])
def test_a_client_may_ask_for_less_time_than_the_servers_own(text: str | None, seconds: float) -> None:
    headers = {} if text is None else {"x-request-timeout": text}
    before = monotonic()
    deadlines = deadlines_of(headers, 60.0, 20.0)
    assert before + seconds <= deadlines.end_by <= monotonic() + seconds
    assert before + min(seconds, 20) <= deadlines.begin_by <= monotonic() + min(seconds, 20)


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf", "nan", ""])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="x-request-timeout must be a number"):
        deadlines_of({"x-request-timeout": text}, 60.0, 60.0)


@pytest.mark.parametrize(
    ("headers", "body", "priority"),
    [({}, {}, 0), ({}, {"priority": 7}, 7), ({"x-smg-priority": "-3"}, {"priority": 7}, -3)],
)
def test_priority_is_the_headers_or_the_bodys(headers: dict[str, str], body: dict[str, Any], priority: int) -> None:
    assert priority_of(headers, body) == priority


@pytest.mark.parametrize("text", ["high", "1.5", "99999999999", "2147483648"])
def test_a_priority_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="whole number that fits in 32 bits"):
        priority_of({"x-smg-priority": text}, {})


def test_headers_count_in_their_order_and_before_the_body() -> None:
    headers = CIMultiDict({name: name for name in reversed(SESSION_HEADERS)})
    for name in SESSION_HEADERS:
        assert session_of(headers, {"user": "body"}) == name
        del headers[name]
    assert session_of(headers, {"user": "u", "prompt_cache_key": "key"}) == "key"
    assert session_of(headers, {"user": "u"}) == "u"
    assert session_of(headers, {}) is None


def test_header_names_have_no_case() -> None:
    assert session_of(CIMultiDict({"X-Session-ID": "abc"}), {}) == "abc"


def test_empty_and_odd_names_are_passed_over_and_long_ones_cut() -> None:
    assert session_of(CIMultiDict({"x-session-id": ""}), {"user": 7, "prompt_cache_key": ["a"]}) is None
    assert session_of({}, {"user": "u" * 1000}) == "u" * MAX_SESSION_LENGTH


def test_only_headers_of_traces_reach_the_servers() -> None:
    headers = CIMultiDict({"traceparent": "00-a-b-01", "x-override-rid": "x", "Authorization": "Bearer k"})
    assert handling_of(headers, {}, Deadlines.from_now(1.0, 1.0)).forwarded == {"traceparent": "00-a-b-01"}
