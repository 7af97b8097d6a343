"""The real router understands a plan, and the supervisor's client understands the real router."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest

from psserve.contracts.api_keys import ApiKey, digest_of
from psserve.contracts.router_config import POLICIES, RouterConfig
from psserve.errors import FleetError
from psserve.fleet import FleetOptions, make_plan
from psserve.fleet.options.key_file import ClientKeys
from psserve.fleet.options.options import RouterOptions
from psserve.fleet.plan.devices import Machine
from psserve.fleet.run.router_client import RouterClient
from tests.certificates import certificate

from .conftest import WAIT_S
from .fake_zoo import FakeBase, FakeZoo

KEYS = ClientKeys(plain="k", keys=(ApiKey(name="ci", digest=digest_of("psk_ci"), modules=("math",)),))


def test_router_runs_a_plan_behind_tls_and_shows_its_servers(tmp_path: Path) -> None:
    zoo: Any = FakeZoo(tmp_path, FakeBase(tmp_path / "base"))
    cert, key = certificate(tmp_path)
    router = RouterOptions(port=0, host="0.0.0.0", ssl_certfile=str(cert), ssl_keyfile=str(key))
    plan = make_plan(zoo, FleetOptions(router=router), keys=KEYS, machine=Machine(2, 2**34, 2**34, ()))
    config = tmp_path / "router.json"
    config.write_text(plan.router.config.model_dump_json())
    command = [*plan.router.command[:-1], str(config)]
    with subprocess.Popen(command, env=dict(plan.router.env), stdout=subprocess.PIPE, text=True) as router:
        try:
            assert router.stdout is not None
            assert json.loads(router.stdout.readline())["url"] == plan.router.url
            assert plan.router.url.startswith("https://0.0.0.0:")
            seen = RouterClient(plan.router.url, plan.operator_key, plan.router.certificate).workers()
            assert RouterClient(plan.router.url, "psk_ci", plan.router.certificate).models() == [
                "math",
                "maths",
                "auto",
            ]
            assert seen.keys() == {server.name for server in plan.servers}
            assert not any(view.state == "ready" for view in seen.values())
            with pytest.raises(FleetError):
                RouterClient(plan.router.url, "wrong", plan.router.certificate).workers()
            with pytest.raises(FleetError, match="no answer from https://"):  # a certificate of nobody it knows
                RouterClient(plan.router.url, "k").workers()
            router.terminate()
            assert router.wait(WAIT_S) == 0
        finally:
            router.kill()


def test_kv_events_are_published_by_prefill_servers_where_the_router_looks(tmp_path: Path) -> None:
    zoo: Any = FakeZoo(tmp_path, FakeBase(tmp_path / "base"))
    options = FleetOptions(router=RouterOptions(port=0, kv_events=True), page_size=8)
    plan = make_plan(zoo, options, machine=Machine(2, 2**34, 2**34, ()))
    config = RouterConfig.model_validate_json(plan.router.config.model_dump_json())
    assert config.page_size == 8
    for server, worker in zip(plan.servers, config.workers, strict=True):
        published = "--kv-events-config" in server.command
        assert published == (server.role == "prefill") == (worker.kv_events is not None)
        if worker.kv_events is not None:
            given = json.loads(server.command[server.command.index("--kv-events-config") + 1])
            assert given == {"publisher": "zmq"} | worker.kv_events.model_dump()
            assert str(plan.tmp_dir) in worker.kv_events.endpoint


def test_the_policies_that_can_be_asked_for_are_the_router_s() -> None:
    for field in ("prefill_policy", "decode_policy"):
        assert get_args(RouterOptions.model_fields[field].annotation) == POLICIES
