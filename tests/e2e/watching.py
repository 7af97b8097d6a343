"""A running fleet seen from outside: its processes, its workers' states, plain requests."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psutil
import requests

from tests.e2e.fleet import RunningFleet
from tests.e2e.oracle import Oracle
from tests.waiting import until

ANSWER_WITHIN_S = 20  # the issue's own limit: whatever breaks, a client hears of it by then
ERROR_FIELDS = {"message", "type", "param", "code"}


def ask(
    fleet: RunningFleet,
    module: str,
    prompt: Sequence[int] | str,
    max_tokens: int = 8,
    within_s: float = ANSWER_WITHIN_S,
    **fields: Any,
) -> requests.Response:
    """A greedy completion request; fails when nothing is heard for `within_s` seconds."""
    body = {"model": module, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "logprobs": 1}
    body |= {"return_token_ids": True, **fields}
    url = f"{fleet.url}/v1/completions"
    return requests.post(url, json=body, stream=bool(fields.get("stream")), timeout=within_s)


def check(fleet: RunningFleet, oracle: Oracle, module: str, prompt: Sequence[int], max_tokens: int = 8) -> None:
    """Ask, and compare the answer with the reference."""
    check_answer(ask(fleet, module, prompt, max_tokens), oracle, module, prompt, max_tokens)


def check_answer(
    answer: requests.Response, oracle: Oracle, module: str, prompt: Sequence[int], max_tokens: int = 8
) -> None:
    assert answer.status_code == 200, answer.text
    oracle.check_choice(oracle.answer(module, prompt, max_tokens), answer.json()["choices"][0])


def error_of(answer: requests.Response) -> dict[str, Any]:
    """The error in an answer, which must have OpenAI's form."""
    assert answer.status_code >= 400, answer.text
    error = answer.json()["error"]
    assert set(error) == ERROR_FIELDS
    assert error["message"]
    return dict(error)


def workers(fleet: RunningFleet) -> dict[str, Mapping[str, Any]]:
    """The router's view of each server."""
    answer = requests.get(f"{fleet.url}/workers", timeout=30)
    return {worker["name"]: worker for worker in answer.json()["workers"]}


def pids(fleet: RunningFleet) -> dict[str, int | None]:
    """The process of every server and the router; None while one waits for its restart."""
    state = json.loads((fleet.zoo / ".run" / "state.json").read_text())
    return {server["name"]: server["pid"] for server in state["servers"]}


def changed(fleet: RunningFleet, before: Mapping[str, int | None]) -> set[str]:
    """Names of those that are another process now."""
    return {name for name, pid in pids(fleet).items() if pid != before[name]}


def await_whole(fleet: RunningFleet) -> None:
    """Wait until every server serves, by the router's word and the supervisor's."""

    def whole() -> bool:
        state = json.loads((fleet.zoo / ".run" / "state.json").read_text())
        return (
            all(server["state"] == "ready" for server in state["servers"])
            and all(worker["state"] == "ready" for worker in workers(fleet).values())
            and requests.get(f"{fleet.url}/readiness", timeout=30).status_code == 200
        )

    until(whole)


@contextlib.contextmanager
def kept_whole(
    fleet: RunningFleet, oracle: Oracle, prompts: Mapping[str, Sequence[Sequence[int]]]
) -> Iterator[RunningFleet]:
    """A fleet, whole before what is done with it and after that, when each module must answer its `prompts` exactly."""
    await_whole(fleet)
    yield fleet
    await_whole(fleet)
    for module, its in prompts.items():
        for prompt in its:
            check(fleet, oracle, module, prompt)


def scheduler(fleet: RunningFleet, server: str) -> psutil.Process:
    """The process of a server that holds its KV cache and runs its model."""
    children = psutil.Process(fleet.pid(server)).children(recursive=True)
    return next(child for child in children if "sglang::scheduler" in " ".join(child.cmdline()))


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it."""
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def listening(processes: Sequence[psutil.Process]) -> set[tuple[str, str]]:
    """(address, title) of every TCP socket that listens and every UDP socket, IPv4 and IPv6."""
    return {
        (connection.laddr.ip, " ".join(process.cmdline()))
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status in (psutil.CONN_LISTEN, psutil.CONN_NONE) and connection.laddr
    }
