"""Workers that fail: what the client is told, and that both workers are freed."""

from __future__ import annotations

import asyncio
import socket
from time import monotonic
from typing import Any

import orjson
import pytest

from psserve.contracts.router_config import WorkerConfig
from psserve.router.access.server import _Handler
from psserve.router.workers.failures import reported_error
from psserve.router.workers.workers import Worker
from tests.router.conftest import PATIENCE_S, Fleet, eventually
from tests.router.fake_worker import Fault

LEGS = ("prefill", "math")


def check_error(answer: dict[str, dict[str, object]], code: str) -> None:
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["code"] == code
    assert "internal" not in str(answer["error"]["message"]).replace("internal error", "")


@pytest.mark.parametrize("leg", LEGS)
@pytest.mark.parametrize("fault", ["status_500", "abort", "reset", "not_json", "no_usage"])
async def test_broken_leg_is_a_502_and_frees_both(fleet: Fleet, leg: str, fault: Fault) -> None:
    getattr(fleet, leg).faults.extend([fault] * 3)  # a passing fault is tried again twice
    status, answer, _ = await fleet.complete("math")
    assert status == 502
    check_error(answer, "upstream_error")
    await fleet.idle()
    rid = (fleet.math.bodies or fleet.prefill.bodies)[0]["rid"]
    await eventually(lambda: rid in fleet.prefill.aborted and rid in fleet.math.aborted)


@pytest.mark.parametrize("leg", LEGS)
async def test_legs_that_disagree_are_a_split_mismatch(fleet: Fleet, leg: str) -> None:
    getattr(fleet, leg).faults.append("wrong_count")
    status, answer, _ = await fleet.complete("math")
    assert status == 502
    check_error(answer, "split_mismatch")
    _, metrics = await fleet.get("/metrics")
    assert "psserve_split_mismatch_total 1.0" in metrics


async def test_two_sides_that_count_the_same_are_a_split_mismatch(fleet: Fleet) -> None:
    """Stock SGLang, without the hooks: both sides see the whole prompt."""
    fleet.prefill.faults.append("wrong_count")
    status, _, _ = await fleet.complete("math", prompt=[1, 2])
    assert status == 502


@pytest.mark.parametrize("leg", LEGS)
async def test_too_long_for_a_worker_is_the_clients_error(fleet: Fleet, leg: str) -> None:
    getattr(fleet, leg).faults.append("too_long")
    status, answer, _ = await fleet.complete("math")
    assert status == 400
    check_error(answer, "context_length_exceeded")
    assert "8 tokens" in answer["error"]["message"]


async def test_refusal_of_a_field_names_it_and_hides_the_pairing(fleet: Fleet) -> None:
    fleet.math.faults.append("validation")
    status, answer, _ = await fleet.chat("math")
    assert status == 400
    assert answer["error"]["param"] == "messages.0"
    assert "bootstrap" not in answer["error"]["message"]


async def test_other_modules_go_on_while_one_hangs(fleet: Fleet) -> None:
    fleet.math.faults.append("hang")
    hanging = asyncio.create_task(fleet.complete("math"))
    await eventually(lambda: fleet.math.running)
    status, _, _ = await fleet.complete("code")
    assert status == 200
    hanging.cancel()
    await fleet.idle()


@pytest.mark.parametrize("leg", LEGS)
async def test_client_that_leaves_frees_both_workers(fleet: Fleet, leg: str) -> None:
    getattr(fleet, leg).faults.append("hang")
    request = asyncio.create_task(fleet.complete("math"))
    await eventually(lambda: fleet.prefill.running and fleet.math.running)
    (rid,) = fleet.math.running
    request.cancel()
    await eventually(lambda: rid in fleet.prefill.aborted and rid in fleet.math.aborted)
    await fleet.idle()


async def test_client_that_leaves_a_stream_frees_both_workers(fleet: Fleet) -> None:
    fleet.math.faults.append("hang_mid_stream")
    body = {"model": "math", "prompt": "p", "stream": True}
    async with fleet.http.post(fleet.url + "/v1/completions", json=body) as response:
        assert await response.content.readany()
        (rid,) = fleet.math.running
        response.close()
    await eventually(lambda: rid in fleet.math.aborted)
    await fleet.idle()


@pytest.mark.parametrize("leg", LEGS)
async def test_deadline_is_a_504_and_frees_both(make_fleet, leg: str) -> None:
    fleet = await make_fleet(request_timeout_s=0.5)
    getattr(fleet, leg).faults.append("hang")
    status, answer, _ = await fleet.complete("math")
    assert status == 504
    check_error(answer, "timeout")
    await fleet.idle()


@pytest.mark.parametrize(("leg", "fault", "stream"), [("prefill", "hang", False), ("math", "hang_paired", True)])
async def test_an_answer_that_does_not_begin_in_time_is_a_504(make_fleet, leg: str, fault: Fault, stream: bool) -> None:
    fleet = await make_fleet(first_byte_timeout_s=0.5)
    getattr(fleet, leg).faults.append(fault)
    status, answer, _ = await fleet.complete("math", stream=stream)
    assert status == 504
    check_error(answer, "timeout")
    await fleet.idle()


async def test_an_answer_that_has_begun_may_take_longer_than_its_first_byte(make_fleet) -> None:
    fleet = await make_fleet(first_byte_timeout_s=2.0, request_timeout_s=3.0)
    fleet.math.faults.extend(["hang_mid_stream", "hang_paired"])
    started = monotonic()
    streamed = asyncio.create_task(fleet.stream())
    await eventually(lambda: fleet.math.bodies)  # and has met the first of the two faults
    status, answer, _ = await fleet.complete("math")
    _, raw = await streamed
    assert monotonic() - started >= 3.0
    assert b'"timeout"' in raw
    assert (status, answer["error"]["code"]) == (504, "timeout")
    await fleet.idle()


async def test_decode_that_answered_nothing_by_the_deadline_is_proven_again(make_fleet) -> None:
    fleet = await make_fleet(request_timeout_s=0.5)
    fleet.math.fail_probes = "status_500"
    while fleet.state.table.decodes[0].is_ready:
        fleet.math.faults.append("hang")
        await fleet.complete("math")  # a busy machine may not even have reached it by the deadline
    fleet.math.faults.clear()
    status, answer, _ = await fleet.complete("math")
    assert (status, answer["error"]["code"]) == (503, "module_unavailable")
    fleet.math.fail_probes = None
    await fleet.ready()


async def interrupted_stream(fleet: Fleet) -> bytes:
    """All bytes of a stream whose fault strikes after the client has its first event."""
    body = {"model": "math", "prompt": "some prompt", "max_tokens": 3, "stream": True}
    async with fleet.http.post(fleet.url + "/v1/completions", json=body) as response:
        assert response.status == 200
        first = await response.content.readany()
        assert b"math-0" in first
        fleet.math.proceed.set()
        return first + await response.read()


@pytest.mark.parametrize("fault", ["error_event", "abort"])
async def test_stream_that_fails_before_its_first_byte_has_a_status(fleet: Fleet, fault: Fault) -> None:
    fleet.math.faults.extend([fault] * 3)
    status, raw = await fleet.stream(max_tokens=1)
    assert status == 502
    check_error(orjson.loads(raw), "upstream_error")


async def test_an_error_is_read_to_its_end_and_says_whose_fault_it_is(make_fleet) -> None:
    fleet = await make_fleet(breaker={"failures": 1})
    fleet.math.faults.append("long_unhandled")
    status, answer, _ = await fleet.complete()
    assert status == 400
    check_error(answer, "invalid_value")
    assert answer["error"]["message"].count("x") > 500
    assert fleet.state.table.decodes[0].breaker.state == "closed"


async def test_an_error_event_is_read_to_its_end_and_says_whose_fault_it_is(make_fleet) -> None:
    fleet = await make_fleet(breaker={"failures": 1})
    fleet.math.faults.append("long_error_event")
    status, raw = await fleet.stream()
    assert status == 400
    check_error(orjson.loads(raw), "invalid_value")
    assert "regex grammar: xxx" in orjson.loads(raw)["error"]["message"]
    assert fleet.state.table.decodes[0].breaker.state == "closed"


@pytest.mark.parametrize("fault", ["error_mid_stream", "reset_mid_stream", "no_usage"])
async def test_stream_that_fails_later_ends_with_an_error_event(fleet: Fleet, fault: Fault) -> None:
    fleet.math.faults.append(fault)
    raw = await interrupted_stream(fleet)
    assert b"[DONE]" not in raw
    *_, last, rest = raw.split(b"\n\n")
    assert rest == b""
    check_error(orjson.loads(last.removeprefix(b"data: ")), "upstream_error")
    await fleet.idle()


async def test_split_mismatch_in_a_stream(fleet: Fleet) -> None:
    fleet.math.faults.append("wrong_count")
    raw = await interrupted_stream(fleet)
    assert b"[DONE]" not in raw
    assert b"split_mismatch" in raw


async def test_deadline_in_a_stream(fleet: Fleet) -> None:
    body = {"model": "math", "prompt": "p", "max_tokens": 3, "stream": True}
    for seconds in ("1", "8", "64"):
        fleet.math.faults.append("hang_mid_stream")
        headers = {"x-request-timeout": seconds}
        async with fleet.http.post(fleet.url + "/v1/completions", json=body, headers=headers) as response:
            raw = await response.read()
        await fleet.idle()
        if response.status == 200:
            break
        fleet.math.faults.clear()  # a machine with so little time for us that not even the first byte came
    assert response.status == 200
    assert b'"timeout"' in raw
    assert b"[DONE]" not in raw


async def test_client_that_does_not_read_is_cut_off_at_the_deadline(fleet: Fleet) -> None:
    fleet.math.module = "x" * 100_000  # few events, more bytes than sockets hold: so it is the client that is slow
    body = {"model": "math", "prompt": "p", "max_tokens": 500, "stream": True}
    for seconds in ("0.5", "4", "32"):
        headers = {"x-request-timeout": seconds}
        url = fleet.url + "/v1/completions"
        async with fleet.http.post(url, json=body, headers=headers, read_bufsize=1024) as response:
            if response.status == 504:
                continue  # a machine with so little time for us that not even the first byte came
            assert response.status == 200
            await fleet.idle()
            await eventually(lambda: metric_of(fleet, 'psserve_requests_total{code="timeout"'))
            return
    pytest.fail("no first byte in 32 s")


async def test_client_that_does_not_read_the_end_of_a_stream_is_cut_off_at_the_deadline(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits for the client but the end: more is sent than it takes, and less than is waited for before."""
    made = _Handler.connection_made

    def made_small(handler: _Handler, transport: asyncio.Transport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        made(handler, transport)

    monkeypatch.setattr(_Handler, "connection_made", made_small)
    fleet.math.module = "x" * 2000
    body = orjson.dumps({"model": "math", "prompt": "p", "max_tokens": 55, "stream": True})
    host, port = fleet.url.removeprefix("http://").split(":")
    for seconds in (1, 8, 64):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((host, int(port)))
            head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nx-request-timeout: {seconds}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
            await eventually(lambda: fleet.state.activity.ended)
        ended = fleet.state.activity.ended.pop()
        if ended.exchange.usage is not None:
            break  # a machine with so little time for us as not to have it all sent by the deadline tries again
    assert (ended.code, ended.exchange.usage["completion_tokens"]) == ("timeout", 55)
    assert not fleet.state.table._held


async def metric_of(fleet: Fleet, start: str) -> bool:
    return start in (await fleet.get("/metrics"))[1]


async def test_failed_prefill_never_lets_decode_bytes_out(fleet: Fleet) -> None:
    fleet.prefill.faults.extend(["abort"] * 3)
    status, raw = await fleet.stream()
    assert status == 502
    assert b"math-0" not in raw


@pytest.mark.parametrize("stream", [False, True])
async def test_one_failed_sequence_of_many_frees_all(fleet: Fleet, stream: bool) -> None:
    fleet.math.faults.extend(["hang_paired", "hang", "not_json"])
    body = {"model": "math", "prompt": "p", "n": 3, "stream": stream}
    status, _, _ = await fleet.post("/v1/completions", body)
    assert status == 502
    await fleet.idle()


@pytest.mark.parametrize("stream", [False, True])
async def test_sequences_wait_no_longer_than_for_the_first_ones_end(fleet: Fleet, stream: bool) -> None:
    fleet.prefill.faults.extend(["status_500"] * 3)
    status, _, _ = await fleet.post("/v1/completions", {"model": "math", "prompt": "p", "n": 3, "stream": stream})
    assert status == 502
    assert len(fleet.prefill.bodies) == 3
    await fleet.idle()


async def test_deadline_covers_reading_the_prompt(make_fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = await make_fleet(request_timeout_s=0.5)

    async def never(body: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(fleet.state.routing.keys, "prompt", never)
    async with asyncio.timeout(PATIENCE_S):
        status, answer, _ = await fleet.complete("math")
    assert (status, answer["error"]["code"]) == (504, "timeout")


async def test_deadline_covers_waiting_for_the_first_sequence(make_fleet) -> None:
    fleet = await make_fleet(request_timeout_s=0.5)
    fleet.prefill.faults.append("hang")
    while fleet.prefill.faults:  # a busy machine may not even have reached it by the deadline
        status, answer, _ = await fleet.complete("math", n=3)
        assert (status, answer["error"]["code"]) == (504, "timeout")
    assert len(fleet.prefill.bodies) == 1
    await fleet.idle()


async def test_dead_module_is_a_fast_503_and_the_others_serve(fleet: Fleet) -> None:
    await fleet.math.stop()
    status, answer, headers = await fleet.complete("math")
    assert status == 503
    check_error(answer, "module_unavailable")
    assert int(headers["Retry-After"]) > 0
    assert (await fleet.complete("code"))[0] == 200


async def test_dead_prefill_is_a_fast_503(fleet: Fleet) -> None:
    await fleet.prefill.stop()
    status, answer, _ = await fleet.complete("math")
    assert status == 503
    check_error(answer, "module_unavailable")


@pytest.mark.parametrize("leg", LEGS)
async def test_restarted_worker_serves_again(fleet: Fleet, leg: str) -> None:
    worker = getattr(fleet, leg)
    await worker.stop()
    await eventually(lambda: not fleet.state.table.is_usable() or leg == "math")
    await fleet.complete("math")
    await worker.start()
    await fleet.ready()
    assert (await fleet.complete("math"))[0] == 200


@pytest.mark.parametrize("leg", LEGS)
async def test_worker_that_dies_mid_request_ends_it(fleet: Fleet, leg: str) -> None:
    other = "math" if leg == "prefill" else "prefill"
    getattr(fleet, other).faults.append("hang")
    request = asyncio.create_task(fleet.complete("math"))
    await eventually(lambda: fleet.prefill.running and fleet.math.running)
    await getattr(fleet, leg).stop()
    status, answer, _ = await request
    assert status in (502, 503)
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    await fleet.idle()


async def test_stale_pooled_connection_is_retried_on_a_fresh_one(fleet: Fleet) -> None:
    """A worker that restarted between two requests: its old connections are dead, it is not."""
    assert (await fleet.complete("math"))[0] == 200
    await fleet.math.stop()
    await fleet.math.start()
    assert (await fleet.complete("math"))[0] == 200


async def test_reset_is_retried_once_and_on_the_same_workers(fleet: Fleet) -> None:
    """A pooled connection may have been stale; a fresh one that breaks means that this request may kill servers."""
    fleet.math.faults.extend(["reset"] * 3)
    await fleet.complete("code")
    status, _, _ = await fleet.complete("math")
    assert status == 502
    assert len(fleet.math.bodies) <= 2
    rooms = [body["bootstrap_room"] for body in fleet.math.bodies]
    assert len(set(rooms)) == len(rooms)


async def test_many_clients_that_drop_at_once_leave_nothing_behind(fleet: Fleet) -> None:
    fleet.prefill.faults.extend(["hang"] * 50)
    requests = [asyncio.create_task(fleet.complete("math")) for _ in range(50)]
    await eventually(lambda: len(fleet.prefill.running) == 50)
    for request in requests:
        request.cancel()
    await fleet.idle()
    assert (await fleet.complete("math"))[0] == 200


async def test_refused_requests_do_not_count_against_a_worker(fleet: Fleet) -> None:
    fleet.math.faults.extend(["status_400"] * 20)
    for _ in range(20):
        assert (await fleet.complete("math"))[0] == 400
    assert (await fleet.complete("math"))[0] == 200


@pytest.mark.parametrize("leg", LEGS)
async def test_a_body_that_the_server_cannot_handle_is_its_clients_fault(fleet: Fleet, leg: str) -> None:
    worker = getattr(fleet, leg)
    worker.faults.extend(["unhandled"] * 20)
    for _ in range(20):
        status, answer, _ = await fleet.complete("math")
        assert status == 400
        check_error(answer, "invalid_value")
        assert "'bool' object has no attribute 'get'" in answer["error"]["message"]
    assert len(worker.bodies) == 20  # none was tried again
    before = worker.probes
    await eventually(lambda: worker.probes > before)  # whether it serves others
    await eventually(lambda: not any(worker.is_suspect for worker in fleet.state.table.workers))
    assert all(worker.is_ready and worker.breaker.state == "closed" for worker in fleet.state.table.workers)
    assert (await fleet.complete("math"))[0] == 200


async def test_a_body_that_two_pairs_stumble_over_takes_no_worker_from_anybody(fleet: Fleet) -> None:
    """The failures of a prefill server that met two decode servers would count: this one's do not."""
    fleet.prefill.faults.extend(["unhandled"] * 20)
    for module in ("math", "code") * 10:
        assert (await fleet.complete(module))[0] == 400
    await eventually(lambda: not any(worker.is_suspect for worker in fleet.state.table.workers))
    assert all(worker.is_ready and worker.breaker.state == "closed" for worker in fleet.state.table.workers)
    assert [(await fleet.complete(module))[0] for module in ("math", "code")] == [200, 200]


@pytest.mark.parametrize(
    ("message", "param", "told"),
    [
        ("Failed to compile ebnf grammar: [19:26:11] /project/cpp/x.cc:10: EBNF lexer error", "ebnf", "grammar: EBNF"),
        ("Failed to compile regex grammar: missing )", "regex", "missing )"),
        ("min_new_tokens must be in [0, max_new_tokens(2)], got 5.", "min_tokens", "got 5"),
        ("Tool 3 function has invalid 'parameters' schema: 7", "tools[3].function.parameters", "schema: 7"),
        ("Something else", None, "Something else"),
    ],
)
def test_a_refusal_in_sglangs_words_names_the_field(message: str, param: str | None, told: str) -> None:
    failure = reported_error(Worker(WorkerConfig(name="d", role="decode", module="math", port=1)), 400, message)
    assert failure.param == param
    assert told in str(failure)
    assert "/project" not in str(failure)


OBJECT = {"type": "object"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": OBJECT}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("route", "fields", "param"),
    [
        ("completions", {"json_schema": '{"type": "object"}'}, "json_schema"),
        ("completions", {"response_format": {"type": "json_object"}}, "response_format"),
        ("completions", {"regex": "a+"}, "regex"),
        ("chat", {"ebnf": "root ::= 'a'", "tools": [TOOL]}, "ebnf"),
        (
            "chat",
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": OBJECT}}},
            "response_format",
        ),
        ("chat", {"tools": [TOOL], "tool_choice": "required"}, "tools"),
        ("chat", {"response_format": {"type": "text"}}, None),
    ],
)
async def test_a_grammar_that_does_not_compile_names_its_field(
    fleet: Fleet, route: str, fields: dict[str, Any], param: str | None, stream: bool
) -> None:
    fleet.math.faults.append("grammar")
    status, answer, _ = await (fleet.chat if route == "chat" else fleet.complete)(stream=stream, **fields)
    assert status == 400
    check_error(answer, "invalid_value")
    assert answer["error"]["param"] == param
    assert answer["error"]["message"] == "Failed to compile json grammar: a loop"


async def test_a_server_that_handles_no_body_is_left_alone(fleet: Fleet) -> None:
    fleet.math.faults.append("unhandled")
    fleet.math.fail_probes = "unhandled"
    await fleet.complete("math")
    await eventually(lambda: not fleet.state.table.decodes[0].is_ready)
    assert (await fleet.complete("math"))[0] == 503
    assert (await fleet.complete("code"))[0] == 200
    fleet.math.fail_probes = None
    await fleet.ready()


@pytest.mark.parametrize("message", ["Internal Server Error", "Internal server error: /zoo/base is not there"])
def test_of_a_bodys_fault_nothing_of_the_inside_is_told(message: str) -> None:
    worker = Worker(WorkerConfig(name="d", role="decode", module="math", port=1))
    failure = reported_error(worker, 500, message)
    assert (failure.status, failure.reason) == (400, "unhandled")
    assert str(failure).endswith("docs/api.md")
    assert reported_error(worker, 500, "KVTransferError: Internal server error").status == 502


def test_a_refusal_by_kinds_of_values_names_the_field() -> None:
    kind = "function-after[check(), ChatCompletionMessageGenericParam]"
    detail = [{"loc": ("body", "messages", 1, kind, "tool_calls", 0, "str"), "msg": "Input should be 'function'"}]
    failure = reported_error(Worker(WorkerConfig(name="d", role="decode", module="math", port=1)), 400, str(detail))
    assert (failure.param, str(failure)) == (
        "messages.1.tool_calls.0",
        "messages.1.tool_calls.0: Input should be 'function'",
    )
