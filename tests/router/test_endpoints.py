"""What the other endpoints tell, and who may ask."""

from __future__ import annotations

import asyncio

import pytest

from psserve.contracts.router_config import RouterConfig
from tests.router.conftest import Fleet, eventually, make_config
from tests.router.fake_worker import Fabric, FakeWorker


async def test_models_are_listed_under_name_and_alias(fleet: Fleet) -> None:
    status, answer = await fleet.get("/v1/models")
    assert status == 200
    assert [card["id"] for card in answer["data"]] == ["math", "maths", "code"]
    assert answer["data"][1] == {
        "id": "maths",
        "object": "model",
        "created": 1764000000,
        "owned_by": "psserve",
        "root": "math",
        "parent": "base",
        "max_model_len": 4096,
    }


async def test_one_model(fleet: Fleet) -> None:
    assert (await fleet.get("/v1/models/maths"))[1]["id"] == "maths"
    status, answer = await fleet.get("/v1/models/nobody")
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["/v1/models", "/nowhere", "/dashboard"])
async def test_answers_do_not_name_the_server_s_library(fleet: Fleet, path: str) -> None:
    async with fleet.http.get(fleet.url + path) as response:
        assert response.headers.getall("Server") == ["psserve"]


async def test_workers_show_their_state(fleet: Fleet) -> None:
    _, answer = await fleet.get("/workers")
    assert [worker["state"] for worker in answer["workers"]] == ["ready"] * 3
    fields = {"name", "role", "module", "version", "url", "state", "running", "held", "error", "breaker"}
    assert set(answer["workers"][0]) == fields


@pytest.mark.parametrize("path", ["/health", "/liveness", "/readiness", "/version", "/server_info", "/metrics"])
async def test_answers_when_ready(fleet: Fleet, path: str) -> None:
    assert (await fleet.get(path))[0] == 200


async def test_no_key_is_ever_shown(make_fleet) -> None:
    fleet = await make_fleet(api_key="client-secret")
    for path in ("/server_info", "/workers", "/metrics", "/v1/models"):
        _, answer = await fleet.get(path, headers={"Authorization": "Bearer client-secret"})
        assert "secret" not in str(answer)


async def test_unknown_path(fleet: Fleet) -> None:
    status, answer = await fleet.get("/v1/nothing")
    assert (status, answer["error"]["code"]) == (404, "unknown_url")


async def test_wrong_method(fleet: Fleet) -> None:
    async with fleet.http.get(fleet.url + "/v1/completions") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "POST"
        assert (await response.json())["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "Basic client-secret", "Bearer schlüssel"])
async def test_wrong_key(make_fleet, header: str | None) -> None:
    fleet = await make_fleet(api_key="client-secret")
    headers = {"Authorization": header} if header else {}
    for path in ("/v1/models", "/workers", "/server_info"):
        status, answer = await fleet.get(path, headers=headers)
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert (await fleet.get("/health", headers=headers))[0] == 200
    assert (await fleet.get("/readiness", headers=headers))[0] == 200


async def test_key_that_is_no_text_is_wrong(make_fleet) -> None:
    """Header values are bytes: not every one decodes."""
    fleet = await make_fleet(api_key="client-secret")
    host, port = fleet.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /workers HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer \xff\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
    writer.close()


async def test_right_key(make_fleet) -> None:
    fleet = await make_fleet(api_key="client-secret")
    assert (await fleet.get("/v1/models", headers={"Authorization": "bearer client-secret"}))[0] == 200


async def test_clients_key_does_not_reach_workers(make_fleet) -> None:
    fleet = await make_fleet(api_key="client-secret")
    headers = {"Authorization": "Bearer client-secret"}
    status, _, _ = await fleet.post("/v1/completions", {"model": "math", "prompt": "p"}, headers=headers)
    assert status == 200
    assert "client-secret" not in str(fleet.math.headers)


async def test_foreign_host_name_is_refused(fleet: Fleet) -> None:
    status, answer = await fleet.get("/v1/models", headers={"Host": "evil.example:30000"})
    assert (status, answer["error"]["code"]) == (403, "forbidden_host")
    assert (await fleet.get("/v1/models", headers={"Host": "localhost:1"}))[0] == 200


async def test_draining_router_refuses_new_requests(fleet: Fleet) -> None:
    fleet.state.draining = True
    status, answer, headers = await fleet.complete()
    assert (status, answer["error"]["code"]) == (503, "server_is_overloaded")
    assert "Retry-After" in headers
    assert (await fleet.get("/readiness"))[0] == 503


async def test_metrics_count_requests_and_tokens(fleet: Fleet) -> None:
    fleet.prefill.cached_tokens = 4
    await fleet.complete("maths", prompt=[1, 2, 3, 4, 5, 6])
    await fleet.stream()
    await fleet.complete("math", n=0)
    await eventually(lambda: len(fleet.state.activity.ended) == 3)
    _, text = await fleet.get("/metrics")
    assert 'psserve_requests_total{code="200",module="math",route="completions"} 2.0' in text
    assert 'psserve_requests_total{code="400",module="-",route="completions"} 1.0' in text
    assert f'psserve_prompt_tokens_total{{module="math"}} {6.0 + len("some prompt")}' in text
    assert 'psserve_cached_tokens_total{module="math"} 8.0' in text
    assert 'psserve_worker_state{role="decode",state="ready",worker="decode-math-0"} 1.0' in text
    assert 'psserve_ttft_seconds_count{module="math"} 1.0' in text
    assert 'psserve_router_overhead_seconds_count{module="math"} 2.0' in text


async def test_prompts_are_not_logged(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    fleet.math.faults.append("validation")
    await fleet.chat("math", content="my dark secret")
    assert "route=chat" in caplog.text
    assert "my dark secret" not in caplog.text


async def test_nothing_is_ready_before_the_workers_are(make_fleet) -> None:
    fleet = await make_fleet(start=False)
    assert (await fleet.get("/readiness"))[0] == 503
    assert (await fleet.get("/health"))[0] == 200
    status, answer, _ = await fleet.complete("math")
    assert (status, answer["error"]["code"]) == (503, "module_unavailable")


async def test_the_first_start_is_ready_when_every_module_is_and_a_later_death_changes_nothing(make_fleet) -> None:
    fleet = await make_fleet(start=False)
    await fleet.prefill.start()
    await fleet.math.start()
    await eventually(fleet.state.table.is_usable)
    status, answer = await fleet.get("/readiness")
    assert (status, answer) == (503, {"status": "not ready", "waiting_for": ["code"], "failed": []})
    await fleet.code.start()
    await eventually(lambda: fleet.state.table.decodes[1].is_ready)
    assert await fleet.get("/readiness") == (200, {"status": "ready"})
    await fleet.code.stop()
    await eventually(lambda: not fleet.state.table.decodes[1].is_ready)
    assert await fleet.get("/readiness") == (200, {"status": "ready"})
    await fleet.math.stop()
    await eventually(lambda: not fleet.state.table.is_usable())
    assert await fleet.get("/readiness") == (503, {"status": "not ready", "waiting_for": [], "failed": []})


async def test_in_a_fleet_that_was_ready_once_a_restarted_router_waits_for_no_module(make_fleet) -> None:
    fleet = await make_fleet(start=False, was_ready=True)
    assert (await fleet.get("/readiness"))[0] == 503
    await fleet.prefill.start()
    await fleet.math.start()
    await eventually(fleet.state.table.is_usable)
    assert await fleet.get("/readiness") == (200, {"status": "ready"})


async def test_a_module_that_never_answers_is_told_and_holds_nobody_up_for_ever(make_fleet) -> None:
    fleet = await make_fleet(start=False, start_timeout_s=1e-9)
    await fleet.prefill.start()
    await fleet.math.start()
    await eventually(fleet.state.table.is_usable)
    assert await fleet.get("/readiness") == (200, {"status": "ready", "failed": ["code"]})
    await fleet.code.start()
    await eventually(lambda: fleet.state.table.decodes[1].is_ready)
    assert await fleet.get("/readiness") == (200, {"status": "ready"})


async def test_decode_before_prefill(make_fleet) -> None:
    fleet = await make_fleet(start=False)
    await fleet.math.start()
    await eventually(lambda: fleet.state.table.decodes[0].error is not None)
    assert not fleet.state.table.is_usable()
    await fleet.prefill.start()
    await eventually(fleet.state.table.is_usable)
    assert (await fleet.complete("math"))[0] == 200
    assert (await fleet.complete("code"))[0] == 503


async def test_worker_that_fails_its_probe_is_not_ready_and_says_why(make_fleet) -> None:
    fleet = await make_fleet(start=False)
    fleet.math.fail_probes = "status_500"
    for worker in fleet.workers:
        await worker.start()
    math, code = fleet.state.table.decodes
    await eventually(lambda: code.is_ready and "500" in (math.error or ""))
    assert not math.is_ready


async def test_a_decode_server_has_sampled_and_followed_a_grammar_before_it_is_ready(make_fleet) -> None:
    fleet = await make_fleet(start=False)
    for worker in fleet.workers:
        await worker.start()
    await fleet.ready()
    for decode in (fleet.math, fleet.code):
        asked = {frozenset(body.keys() & {"top_p", "top_k", "min_p", "regex"}) for body in decode.probe_bodies}
        assert asked == {frozenset(), frozenset({"top_p", "top_k", "min_p"}), frozenset({"regex"})}
    assert not any({"top_p", "regex"} & body.keys() for body in fleet.prefill.probe_bodies)


async def test_a_decode_server_that_fails_to_sample_is_not_ready(make_fleet) -> None:
    fleet = await make_fleet(start=False)
    fleet.math.fail_further = "status_500"
    for worker in fleet.workers:
        await worker.start()
    math, code = fleet.state.table.decodes
    await eventually(lambda: code.is_ready and "500" in (math.error or ""))
    assert not math.is_ready
    fleet.math.fail_further = None
    await fleet.ready()


@pytest.mark.parametrize("fault", ["status_400", "unhandled"])
async def test_a_decode_server_that_says_no_to_a_grammar_is_ready(make_fleet, fault: str) -> None:
    fleet = await make_fleet(start=False)
    fleet.math.fail_further = fault
    for worker in fleet.workers:
        await worker.start()
    await fleet.ready()


def _document(**fields: object) -> dict[str, object]:
    fabric = Fabric()
    workers = (
        FakeWorker("p", "prefill", fabric, port=1, bootstrap_port=2),
        FakeWorker("m", "decode", fabric, module="math", port=3),
        FakeWorker("c", "decode", fabric, module="code", port=4),
    )
    return make_config(*workers).model_dump() | fields


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"unknown": 1}, "Extra inputs"),
        ({"host": "0.0.0.0"}, "api_key"),
        ({"modules": [{"name": "math", "aliases": ["math"]}]}, "used twice"),
        ({"workers": [{"name": "p", "role": "prefill", "port": 1}]}, "bootstrap_port"),
        ({"workers": [{"name": "d", "role": "decode", "port": 1}]}, "needs module"),
    ],
)
def test_refused_configuration(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RouterConfig.model_validate(_document(**fields))
