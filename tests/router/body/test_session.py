"""Which session a request belongs to."""

from __future__ import annotations

from multidict import CIMultiDict

from psserve.router.body.session import HEADERS, MAX_LENGTH, session_of


def test_headers_count_in_their_order_and_before_the_body() -> None:
    headers = CIMultiDict({name: name for name in reversed(HEADERS)})
    for name in HEADERS:
        assert session_of(headers, {"user": "body"}) == name
        del headers[name]
    assert session_of(headers, {"user": "u", "prompt_cache_key": "key"}) == "key"
    assert session_of(headers, {"user": "u"}) == "u"
    assert session_of(headers, {}) is None


def test_header_names_have_no_case() -> None:
    assert session_of(CIMultiDict({"X-Session-ID": "abc"}), {}) == "abc"


def test_empty_and_odd_names_are_passed_over_and_long_ones_cut() -> None:
    assert session_of(CIMultiDict({"x-session-id": ""}), {"user": 7, "prompt_cache_key": ["a"]}) is None
    assert session_of({}, {"user": "u" * 1000}) == "u" * MAX_LENGTH
