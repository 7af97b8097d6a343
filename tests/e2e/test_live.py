"""A fleet that is changed under load: no request fails on modules that stay, nor on the one that is replaced."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import requests

from psserve.fleet.observe.control import change_fleet
from psserve.fleet.run.protocol import ChangeCommand, ChangeRequest
from psserve.zoo import Zoo
from psserve.zoo.disk.versions import kept_numbers
from psserve.zoo.synthetic.zoo import build_zoo
from psserve.zoo.verify import verify
from tests.e2e.adapters import AdapterOracle, build_adapters
from tests.e2e.client import client_of, random_ids
from tests.e2e.fleet import RunningFleet, launched, wait_idle
from tests.e2e.forked_launch import run_command
from tests.e2e.load import MAX_TOKENS, Load, Outcome
from tests.e2e.oracle import Oracle
from tests.e2e.watching import pids, workers
from tests.waiting import until

pytestmark = pytest.mark.e2e

CLIENTS = 200
THINK_S = float(os.environ.get("PSSERVE_THINK_SECS", "4"))
"""Of these clients until a module is replaced: on a busy machine commands and servers take long to start. From then on
all have a request in flight all the time."""
SHORT_THINK_S = THINK_S / 4
"""Of the clients of adapters, until one is replaced, and of those beside trials, until whole weights take over."""
PROMPTS = 12
ADAPTER_CLIENTS = 24
ADAPTER = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"]}
WITHIN_S = 600  # only bounds a test that hangs

Answer = tuple[int, ...]


@dataclass(frozen=True)
class Newcomers:
    """A zoo that serves alpha, beta and gamma, and checkpoints of modules that it does not have (yet)."""

    zoo: Zoo
    checkpoints: dict[str, Path]
    oracle: Oracle
    """Knows them all."""


@pytest.fixture(scope="module")
def newcomers(tmp_path_factory: pytest.TempPathFactory) -> Newcomers:
    """late: to be added; next: beta's new weights."""
    folder = tmp_path_factory.mktemp("live")
    zoo = build_zoo(folder / "zoo", "qwen3", modules=("alpha", "beta", "gamma", "late", "next"))
    oracle = Oracle(zoo)
    for name in ("late", "next"):
        shutil.copytree(zoo.base.path, folder / name)
        for file in zoo.module(name).path.glob("*.safetensors*"):
            shutil.copy(file, folder / name)
        zoo.remove(name)
    return Newcomers(zoo, {name: folder / name for name in ("late", "next")}, oracle)


@pytest.fixture(scope="module")
def fleet(newcomers: Newcomers) -> Iterator[RunningFleet]:
    with launched(newcomers.zoo.path, "--watch", "--drain-secs", str(WITHIN_S)) as fleet:
        yield fleet


async def psserve(zoo: Zoo, *arguments: str) -> tuple[int | None, str]:
    """Exit status and stderr of a command, while the load goes on."""
    return await asyncio.to_thread(run_command, *arguments, "--zoo", str(zoo.path), within_s=WITHIN_S)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.2)


def page(fleet: RunningFleet, path: str) -> str:
    return requests.get(fleet.url + path, timeout=30).text


def now(fleet: RunningFleet) -> RunningFleet:
    """The fleet with the servers that it has now."""
    return replace(fleet, config=json.loads((fleet.zoo / ".run" / "router.json").read_text()))


async def test_modules_come_change_and_go_under_load(fleet: RunningFleet, newcomers: Newcomers) -> None:
    zoo, oracle = newcomers.zoo, newcomers.oracle
    rng = random.Random(7)
    prompts = [random_ids(rng, rng.randrange(2, 60)) for _ in range(PROMPTS)]

    def right(module: str) -> list[Answer]:
        return [tuple(oracle.answer(module, prompt, MAX_TOKENS).tokens) for prompt in prompts]

    answers = {module: right(module) for module in ("alpha", "beta", "gamma", "late", "next")}
    stayed = {name: pid for name, pid in pids(fleet).items() if "beta" not in name and "gamma" not in name}
    at: dict[str, float] = {}

    async with client_of(fleet.url) as client, Load(client, prompts, THINK_S) as load:

        async def served() -> set[str]:
            return {card["id"] for card in (await client.get("/v1/models"))[1]["data"]} - {"auto"}

        async def answered(module: str, count: int) -> bool:
            return len(load.of(module)) >= count

        async def starts(server: str, change: asyncio.Task[object]) -> bool:
            """Or the change that brings it has ended."""
            known = (await client.get("/workers"))[1]["workers"]
            return change.done() or server in {worker["name"] for worker in known}

        load.start(("alpha", "beta", "gamma"), CLIENTS)
        await eventually(lambda: answered("alpha", CLIENTS // 4))
        at["three"] = time.monotonic()
        await eventually(lambda: answered("alpha", CLIENTS // 2))

        at["add"] = time.monotonic()
        code, said = await psserve(
            zoo, "add-model", "late", "--path", str(newcomers.checkpoints["late"]), "--allow-naive"
        )
        assert code == 0, said
        await eventually(lambda: _holds(served, {"alpha", "beta", "gamma", "late"}))  # the zoo is watched
        at["late"] = time.monotonic()
        load.start(("late",), CLIENTS // 4)
        await eventually(lambda: answered("late", PROMPTS))
        at["four"] = time.monotonic()
        known = len(load.of("alpha"))
        await eventually(lambda: answered("alpha", known + CLIENTS // 4))

        at["update"] = time.monotonic()
        path = str(newcomers.checkpoints["next"])
        update = asyncio.create_task(psserve(zoo, "update-model", "beta", "--path", path, "--allow-naive", "--live"))
        await eventually(lambda: starts("decode-beta-0-v2", update))
        load.hurry()
        code, said = await update
        assert code == 0, said
        at["updated"] = time.monotonic()

        at["remove"] = time.monotonic()
        code, said = await psserve(zoo, "remove-model", "gamma", "--yes", "--live")
        assert code == 0, said
        assert await served() == {"alpha", "beta", "late"}
        load.stop("gamma")
        at["removed"] = time.monotonic()

        before = len(load.of("beta"))
        await eventually(lambda: answered("beta", before + CLIENTS // 2))
        load.stop("alpha", "beta", "late")

    for module in ("alpha", "late"):
        assert {(one.status, one.code) for one in load.of(module)} == {(200, None)}
        assert all(set(one.answers) == {answers[module][one.prompt]} for one in load.of(module))

    was_replaced(load.of("beta"), answers["beta"], answers["next"], at["update"], at["updated"])
    was_removed(load.of("gamma"), answers["gamma"], at["remove"])

    assert {name: pids(fleet)[name] for name in stayed} == stayed
    assert set(workers(fleet)) == {"prefill-0", "decode-alpha-0", "decode-beta-0-v2", "decode-late-0"}
    assert set(pids(fleet)) == {*workers(fleet), "router"}
    wait_idle(now(fleet))
    until(lambda: all(worker["running"] == worker["held"] == 0 for worker in workers(fleet).values()))
    assert "gamma" not in page(fleet, "/metrics")
    assert 'module="late"' in page(fleet, "/metrics")

    for name, phase, quiet in (
        ("add", ("add", "late"), ("three", "add")),
        ("update", ("update", "updated"), ("four", "update")),
        ("remove", ("remove", "removed"), ("four", "update")),
    ):
        took, usual = (load.median_s("alpha", at[start], at[end]) for start, end in (phase, quiet))
        print(f"alpha during {name}: median {took} s, {usual} s before")  # a benchmark, not a verdict


def was_replaced(outcomes: list[Outcome], old: list[Answer], new: list[Answer], from_s: float, until_s: float) -> None:
    """No request failed while a module was replaced in [from_s, until_s], and each was answered by one version of it.

    `old` and `new` are what the versions answer to each prompt.
    """
    assert {(one.status, one.code) for one in outcomes} == {(200, None)}
    for one in outcomes:
        of_one = set(one.answers)  # the choices of one request are one version's
        assert of_one in ({old[one.prompt]}, {new[one.prompt]})
        if one.ended < from_s:
            assert of_one == {old[one.prompt]}
        if one.started > until_s:
            assert of_one == {new[one.prompt]}


def was_removed(outcomes: list[Outcome], answers: list[Answer], from_s: float) -> None:
    """What a module answered is right, and what was refused ended after its removal began at `from_s`."""
    gone = [one for one in outcomes if one.status != 200]
    assert {(one.status, one.code) for one in gone} <= {(404, "model_not_found")}
    assert all(one.ended > from_s for one in gone)
    assert all(set(one.answers) == {answers[one.prompt]} for one in outcomes if one.status == 200)


async def _holds(served: Callable[[], Awaitable[set[str]]], modules: set[str]) -> bool:
    return await served() == modules


async def test_module_that_cannot_be_loaded_changes_nothing(fleet: RunningFleet, newcomers: Newcomers) -> None:
    """The zoo's checks pass what was damaged later; SGLang then fails on it."""
    zoo = newcomers.zoo
    before = pids(fleet), set(workers(fleet))
    module = zoo.add("broken", newcomers.checkpoints["late"], allow_naive=True)
    weights = next(module.path.glob("*.safetensors"))
    with weights.open("r+b") as file:
        file.seek(8)
        file.write(b"\0" * 64)
    code, said = await psserve(zoo, "reload")
    assert code == 1
    assert "fleet: decode-broken-0: starting" in said
    assert "the last lines of" in said
    assert "psserve: error: broken: decode-broken-0" in said.splitlines()[-1]
    assert "SafetensorError" in said.splitlines()[-1]
    await eventually(lambda: _same(fleet, before))
    assert "model_not_found" in page(fleet, "/v1/models/broken")
    zoo.remove("broken")  # else it is tried again at each change to come


async def test_adapters_come_change_and_go_under_load(
    fleet: RunningFleet, newcomers: Newcomers, tmp_path: Path
) -> None:
    """They are loads and unloads on one server, which the first of them brings; alpha has its own all the while."""
    rng = random.Random(8)
    prompts = [random_ids(rng, rng.randrange(2, 60)) for _ in range(PROMPTS)]
    elsewhere = build_adapters(tmp_path, "qwen3", {name: ADAPTER for name in ("sums", "swapped", "poems")})
    oracle = AdapterOracle(elsewhere)

    def right(module: str) -> list[Answer]:
        return [tuple(oracle.answer(module, prompt, MAX_TOKENS).tokens) for prompt in prompts]

    answers = {module: right(module) for module in ("sums", "swapped", "poems")}
    at: dict[str, float] = {}

    async def change(command: ChangeCommand, module: str, source: str = "") -> None:
        """What `--live` does, without a new process's imports."""
        at[f"{command} {module}"] = time.monotonic()  # from here on: the fleet may notice by itself
        if source:
            replace = command == "update"
            add = partial(newcomers.zoo.add, allow_naive=True, store="adapter", replace=replace)
            await asyncio.to_thread(add, module, tmp_path / source)
        request = ChangeRequest(command=command, module=module)
        await asyncio.to_thread(change_fleet, fleet.zoo, request, print)
        at[f"{command} {module} done"] = time.monotonic()

    async with client_of(fleet.url) as client, Load(client, prompts, SHORT_THINK_S) as load:

        async def answered(module: str, count: int) -> bool:
            return len(load.of(module)) >= count

        await change("add", "sums", "sums")
        processes = pids(fleet)
        load.start(("alpha", "sums"), ADAPTER_CLIENTS)
        await change("add", "poems", "poems")
        load.start(("poems",), ADAPTER_CLIENTS // 2)
        await eventually(lambda: answered("poems", PROMPTS))
        load.hurry()
        await change("update", "sums", "swapped")
        await change("remove", "poems")
        load.stop("poems")
        assert pids(fleet) == processes
        before = len(load.of("sums"))
        await eventually(lambda: answered("sums", before + PROMPTS))
        load.stop("alpha", "sums")

    assert {(one.status, one.code) for one in load.of("alpha")} == {(200, None)}
    was_replaced(load.of("sums"), answers["sums"], answers["swapped"], at["update sums"], at["update sums done"])
    was_removed(load.of("poems"), answers["poems"], at["remove poems"])

    folder = fleet.zoo / ".run" / "adapters"
    until(lambda: [link.name for link in folder.iterdir()] == ["sums@2"])
    response = await asyncio.to_thread(requests.get, f"{fleet.url}/workers", timeout=30)
    assert response.json()["adapters"] == {}
    wait_idle(now(fleet))

    killed = processes["decode-adapters-0"]
    os.kill(killed, signal.SIGKILL)
    await eventually(lambda: _is_back(fleet, "decode-adapters-0", killed))
    async with client_of(fleet.url) as client:  # nobody told the new server of anything
        answer = await client.complete("sums", prompts[0], MAX_TOKENS)
    assert tuple(answer["choices"][0]["token_ids"]) == answers["swapped"][0]


QUESTIONS = [f"What is {number} and {number + 2}?" for number in range(8)]
SESSIONS = [f"session {number}" for number in range(16)]


async def answers_to_questions(fleet: RunningFleet, model: str) -> dict[str, str]:
    """What a module, or a version of it, says to each question; not to those that it says nothing to."""

    def ask(question: str) -> str:
        body = {"model": model, "messages": [{"role": "user", "content": question}]}
        response = requests.post(
            f"{fleet.url}/v1/chat/completions", json=body | {"max_tokens": MAX_TOKENS, "temperature": 0}, timeout=60
        )
        return str(response.json()["choices"][0]["message"]["content"] or "")

    said = {question: await asyncio.to_thread(ask, question) for question in QUESTIONS}
    return {question: answer for question, answer in said.items() if answer.strip()}


async def versions_of_sessions(fleet: RunningFleet, model: str) -> list[str]:
    """The version that answers each session, which the router tells."""

    def ask(session: str) -> str:
        body = {"model": model, "prompt": "Once", "max_tokens": 1, "temperature": 0}
        headers = {"x-session-id": session}
        response = requests.post(f"{fleet.url}/v1/completions", json=body, headers=headers, timeout=60)
        assert response.status_code == 200, response.text
        return response.headers["x-psserve-module-version"]

    return [await asyncio.to_thread(ask, session) for session in SESSIONS]


def items(path: Path, answers: dict[str, str]) -> tuple[str, ...]:
    """The options that require these very answers of a new version."""
    lines = [json.dumps({"prompt": question, "completion": answer}) for question, answer in answers.items()]
    path.write_text("\n".join(lines))
    return ("--require-accuracy", "0.9", "--data", str(path), "--scorer", "exact", "--max-tokens", str(MAX_TOKENS))


async def test_a_worse_version_is_refused_or_rolled_back_and_one_that_proves_itself_takes_over(
    fleet: RunningFleet, newcomers: Newcomers, tmp_path: Path
) -> None:
    """An adapter's versions, and one of whole weights, while clients ask both modules."""
    zoo, oracle = newcomers.zoo, newcomers.oracle
    rng = random.Random(9)
    prompts = [random_ids(rng, rng.randrange(2, 60)) for _ in range(PROMPTS)]
    adapters = AdapterOracle(build_adapters(tmp_path, "qwen3", {"good": ADAPTER, "worse": ADAPTER}))

    async def done(*arguments: str) -> str:
        code, said = await psserve(zoo, *arguments)
        assert code == 0, said
        return said

    async def update(module: str, path: Path, *options: str) -> tuple[int | None, str]:
        return await psserve(zoo, "update-model", module, "--path", str(path), "--allow-naive", *options)

    await done("add-model", "words", "--path", str(tmp_path / "good"), "--allow-naive", "--live")
    for served in (("remove-model", "words", "--yes"), ("rename-model", "words", "others")):
        code, said = await psserve(zoo, *served)
        assert (code, "'words' is served by the running fleet" in said) == (1, True), said
    good = items(tmp_path / "good.jsonl", await answers_to_questions(fleet, "words"))
    async with client_of(fleet.url) as client, Load(client, prompts, SHORT_THINK_S) as load:
        load.start(("alpha", "words"), ADAPTER_CLIENTS)

        code, said = await update("words", tmp_path / "worse", *good)
        assert (code, "0.9 is required: refused, and version 1 stays" in said) == (1, True), said
        assert kept_numbers(zoo.module("words").path) == []

        code, said = await update("words", tmp_path / "worse", "--canary", "50", "--shadow")
        assert code == 0, said
        notes = {server["name"]: server["note"] for server in json.loads(page(fleet, "/dashboard/data"))["servers"]}
        assert notes["decode-adapters-0"] == "words version 2, 50 % of sessions, in the shadow"
        of_sessions = await versions_of_sessions(fleet, "words")
        assert set(of_sessions) == {"1", "2"}
        assert await versions_of_sessions(fleet, "words") == of_sessions
        other = items(tmp_path / "worse.jsonl", await answers_to_questions(fleet, "words@2"))
        await eventually(lambda: _is_counted(fleet, 'psserve_shadow_tokens_total{answer="shadow",module="words"'))
        await done("rollback", "words")
        assert set(await versions_of_sessions(fleet, "words")) == {"1"}

        code, said = await update("words", tmp_path / "worse", *other)
        assert code == 0, said
        assert set(await versions_of_sessions(fleet, "words")) == {"3"}
        await done("rollback", "words", "--live")
        assert set(await versions_of_sessions(fleet, "words")) == {"1"}

        code, said = await update("alpha", newcomers.checkpoints["late"], "--canary", "50")
        assert code == 0, said
        of_sessions = await versions_of_sessions(fleet, "alpha")
        assert set(of_sessions) == {"1", "2"}
        load.hurry()
        await done("promote", "alpha")
        assert set(await versions_of_sessions(fleet, "alpha")) == {"2"}
        load.stop("alpha", "words")

    for module, versions in {
        "words": [(adapters, "good"), (adapters, "worse")],
        "alpha": [(oracle, "alpha"), (oracle, "late")],
    }.items():
        assert {(one.status, one.code) for one in load.of(module)} == {(200, None)}
        for one in load.of(module):
            right = [tuple(known.answer(name, prompts[one.prompt], MAX_TOKENS).tokens) for known, name in versions]
            assert set(one.answers) in ({right[0]}, {right[1]})
    until(lambda: not any("alpha-0" in name and "v2" not in name for name in workers(fleet)))
    assert not list(verify(zoo, "words"))
    wait_idle(now(fleet))


async def _is_counted(fleet: RunningFleet, series: str) -> bool:
    return series in await asyncio.to_thread(page, fleet, "/metrics")


async def _is_back(fleet: RunningFleet, name: str, before: int) -> bool:
    return pids(fleet).get(name) not in (None, before) and workers(fleet)[name]["state"] == "ready"


async def _same(fleet: RunningFleet, before: tuple[object, object]) -> bool:
    return (pids(fleet), set(workers(fleet))) == before
