"""One line a request, whatever clients send."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psserve.router.observability.exchange import SANE_ID, Exchange
from psserve.router.observability.log import JsonFormatter, LogLine, request_line
from tests.router.conftest import Fleet, eventually

SECRET = "what the client asks"


def written(formatter: logging.Formatter, *args: Any) -> str:
    """What a log of that form has after `log.info(*args)`."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    log = logging.Logger("test")
    log.addHandler(handler)
    log.info(*args)
    return stream.getvalue()


@given(st.text(), st.text())
def test_any_text_gives_one_line_of_json(request_id: str, module: str) -> None:
    line = request_line(Exchange(request_id, module=module, route="chat"), 200, "200", 1.0)
    text = written(JsonFormatter(), "%s", line)
    assert len(text.splitlines()) == 1
    document = json.loads(text)
    assert (document["event"], document["request"], document["module"]) == ("request", request_id, module)
    assert document["level"] == "info"


@given(st.text(), st.text())
def test_any_text_gives_one_line_of_text(one: str, other: str) -> None:
    line = str(LogLine(request=one, module=other, tokens=3, ttft_s=None))
    assert len(line.splitlines()) == 1
    assert line.endswith(" tokens=3 ttft_s=-")


def test_other_messages_and_exceptions_are_one_object_too() -> None:
    text = written(JsonFormatter(), "worker=%s\nstate=%s", "a", "b")
    assert json.loads(text)["message"] == "worker=a\nstate=b"
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("given_id", ['x" level="error', "a\u2028b", "a b", "ünï", "x" * 200])
async def test_ids_that_could_break_a_line_are_replaced(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, given_id: str
) -> None:
    caplog.set_level("INFO")
    body = {"model": "math", "prompt": SECRET, "max_tokens": 2}
    _, _, headers = await fleet.post("/v1/completions", body, headers={"x-request-id": given_id})
    assert SANE_ID.fullmatch(headers["x-request-id"])
    assert given_id not in caplog.text


async def test_attempts_that_failed_are_counted(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    fleet.math.faults.append("status_500")
    status, _, _ = await fleet.complete()
    assert status == 200
    (line,) = [record.args for record in caplog.records if isinstance(record.args, LogLine)]
    assert line["retries"] == 1


async def test_a_request_leaves_one_line_with_all_that_is_known(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    await fleet.stream(prompt=SECRET, max_tokens=4)
    await eventually(lambda: fleet.state.activity.ended)
    (line,) = [record.args for record in caplog.records if isinstance(record.args, LogLine)]
    expected = {
        "route": "completions", "module": "math", "prefill": "prefill-0", "decode": "decode-math-0",
        "routing": "new/affinity", "status": 200, "code": "200", "prompt_tokens": len(SECRET), "cached_tokens": 0,
        "shared_tokens": 0, "output_tokens": 4, "retries": 0, "key": "anyone",
    }  # fmt: skip
    assert {name: line[name] for name in expected} == expected
    assert 0 <= line["queue_s"] <= line["ttft_s"] <= line["seconds"]
    assert SECRET not in caplog.text
