"""Thousands of bodies that no client should send: each gets a status and a body of the agreed form.

PSSERVE_FUZZ_CASES=100000 tries that many (5,000 is the default); hypothesis draws them.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from psserve.router.body.fields import REFUSED
from tests.router.conftest import Fleet
from tests.router.test_bad_input import CHAT_CASES, COMPLETION_CASES

CASES = int(os.environ.get("PSSERVE_FUZZ_CASES", "5000"))
BATCH = 50
AT_ONCE = 16
HELLO = [{"role": "user", "content": "hello"}]
GOOD: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": "math", "prompt": "p", "max_tokens": 2},
    "/v1/chat/completions": {"model": "math", "messages": HELLO, "max_tokens": 2},
    "/v1/responses": {"model": "math", "input": "hello", "max_output_tokens": 2},
    "/v1/messages": {"model": "math", "messages": HELLO, "max_tokens": 2},
    "/v1/messages/count_tokens": {"model": "math", "messages": HELLO},
    "/v1/tokenize": {"model": "math", "prompt": "p"},
    "/v1/detokenize": {"model": "math", "tokens": [97]},
}
NAMES = sorted(
    {name for fields, *_ in (*COMPLETION_CASES, *CHAT_CASES) for name in fields}
    | {name for body in GOOD.values() for name in body}
    | REFUSED.keys()
    | {"system", "thinking", "stop_sequences", "output_config", "metadata", "instructions", "text", "reasoning"}
    | {"include", "previous_response_id", "reasoning_effort", "continue_final_message", "add_special_tokens"}
)
COUNTS = {"max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"}
NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e308, 10**30, -(2**63), 2**63, "", "x", "\x00", "\ud800", "a" * 2000,
    "math", "auto", "required", [], [[]], {}, [0], [[0], [1]], [511, 512], [None], ["a", 1], [{}], {"": {}},
    {"type": "text"},
    {"type": "function", "function": {"name": "f"}}, [{"type": "function", "function": {"name": "f"}}],
    {"type": "json_schema", "json_schema": {"schema": {}}}, {"1": 5}, [{"role": "user"}], HELLO * 3,
    [{"role": "assistant", "content": None, "tool_calls": 5}], [{"role": "user", "content": [{"type": "text"}]}],
    [{"role": "tool", "content": "a", "tool_call_id": "t"}], [{"type": "function_call"}], {"type": "enabled"},
]  # fmt: skip

values = st.sampled_from(NASTY) | st.integers() | st.floats() | st.text(max_size=4)
paths = st.sampled_from(sorted(GOOD))
changed = st.tuples(paths, st.lists(st.tuples(st.sampled_from(NAMES), values), min_size=1, max_size=3), st.booleans())
raw = st.tuples(paths, st.binary(max_size=40))


def _body_of(path: str, changes: list[tuple[str, Any]], streams: bool) -> bytes:
    body = GOOD[path] | dict(changes)
    for name in COUNTS & body.keys():  # what is asked for must be little: a fake worker writes it all
        if type(body[name]) is int and 2 < body[name] < 2**31:
            body[name] = 2
    return json.dumps(body | ({"stream": True} if streams else {})).encode(errors="replace")


def _draw() -> list[tuple[str, bytes]]:
    cases: list[tuple[str, bytes]] = []

    @given(st.lists(changed | raw, min_size=BATCH, max_size=BATCH))
    @settings(
        max_examples=-(-CASES // BATCH),
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    def collect(drawn: list[Any]) -> None:
        cases.extend((case[0], case[1] if len(case) == 2 else _body_of(*case)) for case in drawn)

    collect()
    return cases


async def _check(fleet: Fleet, path: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    async with fleet.http.post(fleet.url + path, data=body, headers=headers) as response:
        payload = await response.read()
    assert response.status in {200, 400, 404, 413, 502}, (path, body, payload)
    if response.status == 200:
        return
    answer = json.loads(payload)
    if path.startswith("/v1/messages"):
        assert (answer["type"], set(answer["error"])) == ("error", {"type", "message"}), (path, body, payload)
    else:
        assert set(answer["error"]) == {"message", "type", "param", "code"}, (path, body, payload)


async def test_any_body_gets_an_answer_of_the_agreed_form_and_good_ones_pass_after(fleet: Fleet) -> None:
    cases = _draw()
    assert len(cases) >= CASES
    for start in range(0, len(cases), AT_ONCE):
        await asyncio.gather(*(_check(fleet, path, body) for path, body in cases[start : start + AT_ONCE]))
    for path, good in GOOD.items():
        assert (await fleet.post(path, good))[0] == 200
    assert all(worker.is_ready for worker in fleet.state.table.workers)
    await fleet.idle()
