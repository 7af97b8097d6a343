"""`x-request-timeout` and `x-smg-priority`."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from psserve.errors import RequestError
from psserve.router.body.deadlines import deadlines_of, priority_of


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
