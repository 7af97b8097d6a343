"""Modules that share decode workers: each is an adapter there, which only the decode leg names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from psserve.contracts.router_config import RouterConfig
from psserve.router.workers import workers
from tests.router.conftest import Fleet, eventually
from tests.router.fake_worker import FakeWorker, Fault

SUMS = {"name": "sums", "aliases": ["adding"], "group": "math", "adapter": "sums@1"}
RIDDLES = {"name": "riddles", "group": "math", "adapter": "riddles@1"}
BASE = {"name": "base", "group": "math"}
CODE = {"name": "code"}
MODULES = [SUMS, RIDDLES, BASE, CODE]
"""Those of one group, whose worker is decode-math-0, and one with a worker of its own."""


@pytest.fixture
async def fleet(make_fleet: Callable[..., Any]) -> Fleet:
    made: Fleet = await make_fleet(modules=MODULES)
    return made


def reconfigured(fleet: Fleet, *modules: Any) -> RouterConfig:
    config = fleet.state.config
    return RouterConfig.model_validate(config.model_dump() | {"modules": modules, "serial": config.serial + 1})


async def test_each_module_of_a_group_is_answered_by_its_adapter(fleet: Fleet) -> None:
    for name, said in (("sums", "sums@1-0"), ("adding", "sums@1-0"), ("riddles", "riddles@1-0"), ("base", "math-0")):
        status, answer, headers = await fleet.complete(name, max_tokens=1)
        assert (status, answer["choices"][0]["text"]) == (200, said)
        assert headers["x-psserve-decode-worker"] == "decode-math-0"
    status, answer, headers = await fleet.complete("code", max_tokens=1)
    assert (answer["choices"][0]["text"], headers["x-psserve-decode-worker"]) == ("code-0", "decode-code-0")


async def test_the_base_is_never_told_of_an_adapter(fleet: Fleet) -> None:
    await fleet.complete("sums", n=2)
    await fleet.chat("riddles")
    assert not any("lora_path" in body for body in (*fleet.prefill.bodies, *fleet.prefill.probe_bodies))
    assert [body["lora_path"] for body in fleet.math.bodies] == ["sums@1", "sums@1", "riddles@1"]


async def test_clients_name_no_adapter(fleet: Fleet) -> None:
    status, answer, _ = await fleet.complete("sums", lora_path="riddles@1")
    assert (status, answer["error"]["param"]) == (400, "lora_path")
    assert fleet.math.bodies == []


async def test_a_worker_is_probed_with_one_for_all_its_adapters(fleet: Fleet) -> None:
    adapters = {body["lora_path"] for body in fleet.math.probe_bodies if "lora_path" in body}
    assert adapters == {"sums@1"}
    assert not any("lora_path" in body for body in fleet.code.probe_bodies)


async def test_modules_of_a_group_are_told_apart_in_metrics_and_headers(fleet: Fleet) -> None:
    for name in ("sums", "riddles"):
        _, _, headers = await fleet.complete(name, "x" * 200)
        assert headers["x-psserve-module"] == name
        fleet.prefill.cached_tokens = 64
    _, text = await fleet.get("/metrics")
    assert 'psserve_requests_total{code="200",module="sums",route="completions"} 1.0' in text
    assert 'psserve_requests_total{code="200",module="riddles",route="completions"} 1.0' in text
    assert 'psserve_shared_prefix_tokens_total{module="riddles"} 64.0' in text


async def test_the_dashboard_says_how_many_modules_share_a_server(fleet: Fleet) -> None:
    _, data = await fleet.get("/dashboard/data")
    sharing = {server["name"]: server["sharing"] for server in data["servers"]}
    assert sharing == {"prefill-0": 0, "decode-math-0": 3, "decode-code-0": 0}


async def test_the_dashboard_names_what_is_on_trial_on_shared_servers(make_fleet: Callable[..., Any]) -> None:
    def tried(**fields: Any) -> dict[str, Any]:
        return {"version": 2, "zoo_version": 4} | fields

    def adapter(name: str) -> dict[str, Any]:
        return {"group": "math", "adapter": f"{name}@2"}

    fleet = await make_fleet(
        modules=[
            SUMS | {"trial": tried(share=10, **adapter("sums"))},
            RIDDLES | {"trial": tried(shadow=True, **adapter("riddles"))},
            CODE | {"zoo_version": 3, "trial": tried(**adapter("code"))},
        ]
    )
    _, data = await fleet.get("/dashboard/data")
    assert {server["name"]: server["note"] for server in data["servers"]} == {
        "prefill-0": "",
        "decode-math-0": "; ".join(
            ("sums version 4, 10 % of sessions", "riddles version 4, in the shadow", "code version 4, for nobody")
        ),
        "decode-code-0": "version 3",
    }


async def test_a_module_whose_adapter_cannot_be_loaded_is_unavailable_alone(
    make_fleet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = await make_fleet(modules=MODULES, breaker={"failures": 2})
    fleet.math.unloadable.add("riddles@1")
    for _ in range(8):
        status, answer, headers = await fleet.complete("riddles")
        assert (status, answer["error"]["code"]) == (503, "module_unavailable")
        assert "'riddles'" in answer["error"]["message"]
        assert "secret" not in answer["error"]["message"]
        assert int(headers["Retry-After"]) > 0
        assert (await fleet.complete("sums"))[0] == 200
    worker = fleet.state.table.decodes[0]
    assert (worker.is_ready, worker.breaker.state, worker.starts) == (True, "closed", 1)
    _, text = await fleet.get("/metrics")
    assert 'psserve_leg_failures_total{reason="adapter",role="decode"} 1.0' in text  # and 7 that were not sent
    fleet.math.unloadable.clear()
    monkeypatch.setattr(workers, "monotonic", lambda start=workers.monotonic: start() + workers.LOAD_AGAIN_S)
    assert (await fleet.complete("riddles"))[0] == 200


@pytest.mark.parametrize("is_stream", [False, True])
async def test_what_one_worker_cannot_load_another_answers(fleet: Fleet, is_stream: bool) -> None:
    other = FakeWorker("decode-math-1", "decode", fleet.math.fabric, module="math")
    await other.start()
    try:
        config = fleet.state.config.model_dump()
        worker = {"name": other.name, "role": "decode", "port": other.port, "module": "math"}
        config |= {"workers": [*config["workers"], worker], "serial": config["serial"] + 1}
        fleet.state.reconfigure(RouterConfig.model_validate(config))
        await fleet.ready()
        fleet.math.unloadable.add("riddles@1")
        for _ in range(4):
            if is_stream:
                assert (await fleet.stream(model="riddles"))[0] == 200
            else:
                assert (await fleet.complete("riddles"))[0] == 200
        assert {body["lora_path"] for body in other.bodies} == {"riddles@1"}
    finally:
        await other.stop()


async def test_a_stream_whose_adapter_cannot_be_loaded_is_refused_before_it_begins(fleet: Fleet) -> None:
    fleet.math.unloadable.add("riddles@1")
    status, body = await fleet.stream(model="riddles")
    assert (status, b"module_unavailable" in body) == (503, True)
    await fleet.idle()


async def test_a_worker_serves_its_group_though_the_adapter_of_its_probe_cannot_be_loaded(
    make_fleet: Callable[..., Any],
) -> None:
    fleet = await make_fleet(modules=MODULES, start=False)
    fleet.math.unloadable.add("sums@1")
    for worker in fleet.workers:
        await worker.start()
    await fleet.ready()
    assert (await fleet.complete("riddles"))[0] == 200


@pytest.mark.parametrize("fault", ["status_400", "validation"])  # the latter quotes all of the request
async def test_requests_for_what_is_wrong_with_them_stay_the_clients_fault(fleet: Fleet, fault: Fault) -> None:
    fleet.math.faults.append(fault)
    assert (await fleet.complete("sums"))[0] == 400
    assert (await fleet.complete("sums"))[0] == 200


async def test_a_new_version_answers_at_once_and_the_old_one_is_held_while_requests_need_it(fleet: Fleet) -> None:
    fleet.math.faults.append("reset_mid_stream")  # it waits for `proceed` after its first event
    async with fleet.http.post(
        f"{fleet.url}/v1/completions", json={"model": "sums", "prompt": "p", "max_tokens": 3, "stream": True}
    ) as old:
        assert b"sums@1" in await old.content.readany()
        fleet.state.reconfigure(reconfigured(fleet, SUMS | {"version": 2, "adapter": "sums@2"}, RIDDLES, CODE))
        _, answer, headers = await fleet.complete("sums", max_tokens=1)
        assert (answer["choices"][0]["text"], headers["x-psserve-module-version"]) == ("sums@2-0", "2")
        _, view = await fleet.get("/workers")
        assert view["adapters"] == {"sums@1": 1}
        assert {worker["name"]: worker["held"] for worker in view["workers"]}["decode-math-0"] == 1
        fleet.math.proceed.set()
    await fleet.idle()

    async def nothing_is_held() -> bool:
        return (await fleet.get("/workers"))[1]["adapters"] == {}

    await eventually(nothing_is_held)


async def test_a_removed_module_is_not_found_and_its_group_serves_on(fleet: Fleet) -> None:
    fleet.state.reconfigure(reconfigured(fleet, RIDDLES, CODE))
    assert (await fleet.complete("sums"))[0] == 404
    assert (await fleet.complete("riddles"))[0] == 200


async def test_a_module_that_floods_its_group_leaves_the_others_their_turn(make_fleet: Callable[..., Any]) -> None:
    fleet = await make_fleet(modules=MODULES, queue={"window_requests": 4, "module_requests": 1})
    fleet.prefill.faults.extend(["hang"] * 2)
    held = [asyncio.create_task(fleet.complete("sums", f"prompt {number}")) for number in range(2)]
    await eventually(lambda: len(fleet.prefill.running) == 2)
    held.append(asyncio.create_task(fleet.complete("sums")))
    await eventually(lambda: len(fleet.state.admission._queue) == 1)
    assert (await fleet.complete("sums"))[0] == 429
    assert (await fleet.complete("riddles"))[0] == 200
    for request in held:
        request.cancel()
    await asyncio.gather(*held, return_exceptions=True)


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ([{"name": "sums", "adapter": "sums@1"}], "needs a group"),
        ([SUMS, {"name": "math"}], "is a group of modules, and a module with workers of its own"),
    ],
)
def test_modules_that_fit_no_group_are_refused(modules: Any, said: str) -> None:
    document = {
        "worker_key": "k",
        "base": {"name": "base", "path": "/zoo/base", "vocab_size": 512, "context_length": 4096},
        "modules": modules,
        "workers": [],
    }
    with pytest.raises(ValueError, match=said):
        RouterConfig.model_validate(document)
