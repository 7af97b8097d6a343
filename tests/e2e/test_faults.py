"""Servers die, freeze and come back; clients leave and stall. One fleet, with the time limits that are the default,
lives through it all.

After each fault the fleet must be whole again by itself, with nothing restarted but what was hit, and exact.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest
import requests

from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from tests.e2e.client import random_ids
from tests.e2e.conftest import MODULES
from tests.e2e.fleet import RunningFleet, counter, launched, wait_idle
from tests.e2e.oracle import Oracle
from tests.e2e.watching import (
    ANSWER_WITHIN_S,
    ask,
    await_whole,
    changed,
    check,
    check_answer,
    error_of,
    family,
    kept_whole,
    pids,
    scheduler,
    workers,
)
from tests.waiting import until

pytestmark = pytest.mark.e2e

PROMPT = list(range(100, 140))
LONG_ANSWER = {"max_tokens": 3000, "ignore_eos": True}
FROZEN_WITHIN_S = 85
"""A leg waits so long for a frozen partner: SGLang's 60 s for a hand-over, as psserve sets them, and some patience."""


@pytest.fixture(scope="module")
def oracle(oracle_of: Callable[[Architecture], Oracle]) -> Oracle:
    return oracle_of("qwen3")


@pytest.fixture(scope="module")
def shared_fleet(zoo_of: Callable[[Architecture], Zoo]) -> Iterator[RunningFleet]:
    with launched(zoo_of("qwen3").path, "--chunked-prefill-size", "64") as fleet:
        yield fleet


@pytest.fixture
def fleet(shared_fleet: RunningFleet, oracle: Oracle) -> Iterator[RunningFleet]:
    """The fleet, whole before the test and after it, when every module must answer exactly and hold nothing."""
    prompts = {module: [PROMPT, random_ids(random.Random(module), 150)] for module in MODULES}
    with kept_whole(shared_fleet, oracle, prompts):
        yield shared_fleet
    wait_idle(shared_fleet)
    until(lambda: not zombies(shared_fleet))


@pytest.fixture
def before(fleet: RunningFleet) -> dict[str, int | None]:
    """The processes before the test."""
    return pids(fleet)


def zombies(fleet: RunningFleet) -> list[psutil.Process]:
    """What ended and was never reaped."""
    return [process for process in family(fleet.supervisor) if process.status() == psutil.STATUS_ZOMBIE]


def kill(fleet: RunningFleet, server: str) -> None:
    os.kill(fleet.pid(server), signal.SIGKILL)


def is_down(fleet: RunningFleet, server: str) -> bool:
    return workers(fleet)[server]["state"] != "ready"


def is_running(fleet: RunningFleet, *servers: str) -> bool:
    """Whether each of these servers has a leg of a request."""
    now = workers(fleet)
    return all(now[server]["running"] > 0 for server in servers)


def is_refused(answer: requests.Response) -> bool:
    return (answer.status_code, error_of(answer)["code"]) == (503, "module_unavailable")


def nothing_runs(fleet: RunningFleet) -> bool:
    return not any(worker["running"] for worker in workers(fleet).values() if worker["state"] == "ready")


def test_killing_an_idle_decode_server_fails_its_module_alone(
    fleet: RunningFleet, oracle: Oracle, before: dict[str, int | None]
) -> None:
    kill(fleet, "decode-alpha-0")
    assert ask(fleet, "alpha", PROMPT).status_code in (502, 503)
    until(lambda: is_down(fleet, "decode-alpha-0"))
    answer = ask(fleet, "alpha", PROMPT)
    assert is_refused(answer)
    assert int(answer.headers["Retry-After"]) > 0
    check(fleet, oracle, "beta", PROMPT)
    check(fleet, oracle, "gamma", PROMPT)
    await_whole(fleet)
    assert changed(fleet, before) == {"decode-alpha-0"}


def test_killing_a_decode_server_while_it_answers_ends_answers_with_an_error(
    fleet: RunningFleet, oracle: Oracle, before: dict[str, int | None]
) -> None:
    with ThreadPoolExecutor() as threads:
        whole = threads.submit(ask, fleet, "beta", PROMPT, **LONG_ANSWER)
        stream = ask(fleet, "beta", PROMPT, stream=True, **LONG_ANSWER)
        lines = stream.iter_lines()
        assert next(lines).startswith(b"data: ")
        until(lambda: workers(fleet)["decode-beta-0"]["running"] == 2)
        kill(fleet, "decode-beta-0")
        events = [line.removeprefix(b"data: ") for line in lines if line]
        check(fleet, oracle, "alpha", PROMPT)
        answer = whole.result()
    assert stream.status_code == 200
    assert b"[DONE]" not in events
    assert json.loads(events[-1])["error"]["code"] == "upstream_error"
    assert answer.status_code in (502, 503)
    error_of(answer)
    await_whole(fleet)
    assert changed(fleet, before) == {"decode-beta-0"}


def test_killing_the_idle_prefill_server_needs_no_decode_server_restarted(
    fleet: RunningFleet, before: dict[str, int | None]
) -> None:
    kill(fleet, "prefill-0")
    for module in MODULES:
        answer = ask(fleet, module, PROMPT)
        assert answer.status_code in (502, 503)
        error_of(answer)
    await_whole(fleet)
    assert changed(fleet, before) == {"prefill-0"}


def test_killing_the_prefill_server_while_it_computes_and_transfers(
    fleet: RunningFleet, oracle: Oracle, before: dict[str, int | None]
) -> None:
    rng = random.Random(7)
    asked = [(module, random_ids(rng, 3500)) for module in MODULES * 3]
    with ThreadPoolExecutor(len(asked)) as threads:
        answers = [threads.submit(ask, fleet, module, prompt, 4) for module, prompt in asked]
        until(lambda: is_running(fleet, "prefill-0"))
        kill(fleet, "prefill-0")
        results = [answer.result() for answer in answers]
    for (module, prompt), result in zip(asked, results, strict=True):
        if result.status_code == 200:
            check_answer(result, oracle, module, prompt, 4)
        else:
            assert result.status_code in (502, 503)
            error_of(result)
    assert any(result.status_code != 200 for result in results)
    await_whole(fleet)
    assert changed(fleet, before) == {"prefill-0"}


def test_a_server_whose_scheduler_dies_is_replaced(
    fleet: RunningFleet, oracle: Oracle, before: dict[str, int | None]
) -> None:
    scheduler(fleet, "decode-gamma-0").kill()
    answer = ask(fleet, "gamma", PROMPT)
    assert answer.status_code in (502, 503, 504)
    error_of(answer)
    check(fleet, oracle, "alpha", PROMPT)
    until(lambda: changed(fleet, before) == {"decode-gamma-0"})


@contextmanager
def frozen(fleet: RunningFleet, server: str) -> Iterator[None]:
    held = scheduler(fleet, server)
    held.suspend()
    try:
        yield
    finally:
        held.resume()


def test_frozen_servers_are_avoided_until_they_answer_again_and_what_they_had_ends(
    fleet: RunningFleet, oracle: Oracle, before: dict[str, int | None]
) -> None:
    """First a decode server, then the prefill server too: one wait for SGLang's limit, which either side keeps."""
    with ThreadPoolExecutor() as threads, frozen(fleet, "decode-gamma-0"):
        waits_for_decode = threads.submit(ask, fleet, "gamma", PROMPT, within_s=FROZEN_WITHIN_S)
        until(lambda: is_running(fleet, "prefill-0", "decode-gamma-0"))
        time.sleep(5)  # until it is in the prefill server's scheduler, which begins to count the time then
        with frozen(fleet, "prefill-0"):
            waits_for_prefill = threads.submit(ask, fleet, "alpha", PROMPT[:20], within_s=FROZEN_WITHIN_S)
            until(lambda: is_down(fleet, "decode-gamma-0") and is_down(fleet, "prefill-0"))
            assert is_refused(ask(fleet, "beta", PROMPT))
            assert is_refused(waits_for_prefill.result())
        assert is_refused(waits_for_decode.result())
        until(lambda: not is_down(fleet, "prefill-0"))
        check(fleet, oracle, "alpha", PROMPT)
        check(fleet, oracle, "beta", PROMPT)
        assert is_refused(ask(fleet, "gamma", PROMPT))
    await_whole(fleet)
    assert not changed(fleet, before)


def test_killing_the_router_ends_its_requests_and_no_server(fleet: RunningFleet, before: dict[str, int | None]) -> None:
    """Nobody is left to abort what the servers were answering: they must notice by themselves."""
    computed = generated(fleet, "decode-alpha-0")
    stream = ask(fleet, "alpha", PROMPT, stream=True, **LONG_ANSWER)
    assert next(stream.iter_lines()).startswith(b"data: ")
    kill(fleet, "router")
    until(lambda: changed(fleet, before) == {"router"} and pids(fleet)["router"] is not None)
    until(lambda: is_reachable(fleet))
    until(lambda: is_at_rest(fleet, "decode-alpha-0"))
    assert generated(fleet, "decode-alpha-0") - computed < LONG_ANSWER["max_tokens"] / 2


def is_reachable(fleet: RunningFleet) -> bool:
    try:
        return requests.get(f"{fleet.url}/health", timeout=30).status_code == 200
    except requests.ConnectionError:
        return False


def generated(fleet: RunningFleet, server: str) -> float:
    """Tokens that a decode server has computed, whoever wanted them."""
    return counter(fleet, server, "sglang:realtime_tokens_total", mode="decode")


def is_at_rest(fleet: RunningFleet, server: str) -> bool:
    """Whether a decode server computes nothing for a second. What it says of its load lags behind."""
    before = generated(fleet, server)
    time.sleep(1)
    return generated(fleet, server) == before


def send(fleet: RunningFleet, body: dict[str, object], timeout_s: int = 600) -> socket.socket:
    """A connection over which a completion request went, and of which nothing was read."""
    payload = json.dumps({"prompt": PROMPT, "temperature": 0, **body}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(payload)}\r\n"
    head += f"x-request-timeout: {timeout_s}\r\n"
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(ANSWER_WITHIN_S)
    connection.connect((fleet.config["host"], fleet.config["port"]))
    connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + payload)
    return connection


@pytest.mark.parametrize("server", ["prefill-0", "decode-alpha-0"], ids=["prefill", "transfer"])
def test_a_client_that_leaves_before_the_answer_frees_both_legs(
    server: str, fleet: RunningFleet, before: dict[str, int | None]
) -> None:
    """With the one frozen, a request waits in prefill; with the other, KV waits for its receiver."""
    with frozen(fleet, server):
        connection = send(fleet, {"model": "alpha", "max_tokens": 8})
        until(lambda: is_running(fleet, "prefill-0", "decode-alpha-0"))
        connection.close()
        until(lambda: nothing_runs(fleet))
    wait_idle(fleet)
    assert not changed(fleet, before)


def test_a_client_that_leaves_its_stream_frees_both_legs(fleet: RunningFleet, before: dict[str, int | None]) -> None:
    computed = generated(fleet, "decode-alpha-0")
    connection = send(fleet, {"model": "alpha", "stream": True, **LONG_ANSWER})
    assert connection.recv(1024).startswith(b"HTTP/1.1 200")
    connection.close()
    until(lambda: nothing_runs(fleet))
    until(lambda: is_at_rest(fleet, "decode-alpha-0"))
    assert generated(fleet, "decode-alpha-0") - computed < LONG_ANSWER["max_tokens"] / 2
    assert not changed(fleet, before)


def test_forty_clients_that_leave_at_once_leave_nothing(fleet: RunningFleet, before: dict[str, int | None]) -> None:
    router = psutil.Process(fleet.pid("router"))
    open_files = router.num_fds()
    for number in range(40):
        send(fleet, {"model": MODULES[number % 3], "max_tokens": 50, "stream": number % 2 == 0}).close()
    until(lambda: nothing_runs(fleet))
    wait_idle(fleet)
    until(lambda: router.num_fds() <= open_files + 4)  # probes and our own connections come and go
    assert not changed(fleet, before)


def test_a_client_that_reads_nothing_is_cut_off_and_holds_up_nobody(
    fleet: RunningFleet, oracle: Oracle, before: dict[str, int | None]
) -> None:
    connection = send(fleet, {"model": "gamma", "stream": True, "n": 8, "logprobs": 5, **LONG_ANSWER}, timeout_s=12)
    until(lambda: is_running(fleet, "decode-gamma-0"))
    for module in MODULES:
        check(fleet, oracle, module, PROMPT)
    until(lambda: nothing_runs(fleet))
    wait_idle(fleet)
    connection.close()
    assert not changed(fleet, before)


def test_a_server_that_is_replaced_while_the_disk_is_full_under_its_log_serves(
    fleet: RunningFleet, oracle: Oracle, before: dict[str, int | None]
) -> None:
    """The last test here: what comes after it would run on that server."""
    log = fleet.zoo / ".run" / "logs" / "decode-alpha-0.log"
    log.unlink()
    log.symlink_to("/dev/full")
    try:
        kill(fleet, "decode-alpha-0")
        until(lambda: changed(fleet, before) == {"decode-alpha-0"} and pids(fleet)["decode-alpha-0"] is not None)
        await_whole(fleet)
        assert os.readlink(f"/proc/{fleet.pid('decode-alpha-0')}/fd/1") == "/dev/full"
        check(fleet, oracle, "alpha", PROMPT)
        assert changed(fleet, before) == {"decode-alpha-0"}
    finally:
        log.unlink()  # other fleets of this zoo would keep it, and whoever reads it reads for ever
