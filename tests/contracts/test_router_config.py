"""The router's configuration: what it refuses, and that it is the same after it was written and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from psserve.contracts.api_keys import ApiKey, digest_of
from psserve.contracts.router_config import (
    BaseConfig,
    KvEventsConfig,
    ModuleConfig,
    RouterConfig,
    TaskRoutingConfig,
    WorkerConfig,
    load_config,
)
from psserve.errors import UsageError

CONFIG = RouterConfig(
    worker_key="w",
    operator_key="o",
    keys=(ApiKey(name="ci", digest=digest_of("psk_ci"), modules=("math",)),),
    ssl_certfile=Path("/cert.pem"),
    ssl_keyfile=Path("/key.pem"),
    base=BaseConfig(name="tiny", path="/base", vocab_size=512, context_length=4096),
    modules=(ModuleConfig(name="math", aliases=("maths",), examples=("1+1?",), version=2),),
    workers=(
        WorkerConfig(
            name="p",
            role="prefill",
            port=1,
            bootstrap_port=2,
            kv_events=KvEventsConfig(endpoint="ipc:///run/kv", replay_endpoint="tcp://127.0.0.1:5"),
        ),
        WorkerConfig(name="d", role="decode", module="math", port=3, version=2),
    ),
    task_routing=TaskRoutingConfig(default_module="math"),
)
PLAIN: dict[str, Any] = {
    "worker_key": "w",
    "base": {"name": "tiny", "path": "/base", "vocab_size": 512, "context_length": 4096},
    "modules": [{"name": "math", "aliases": ["maths"]}],
    "workers": [{"name": "d", "role": "decode", "module": "math", "port": 3}],
}


def written(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "router.json"
    path.write_text(json.dumps(PLAIN | changes))
    return path


def test_what_the_fleet_writes_the_router_reads(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    path.write_text(CONFIG.model_dump_json(indent=1))
    assert load_config(path) == CONFIG


def test_a_short_file_is_enough(tmp_path: Path) -> None:
    config = load_config(written(tmp_path))
    assert (config.host, config.modules[0].version, config.workers[0].version, config.needs_key) == (
        "127.0.0.1",
        1,
        1,
        False,
    )


def test_older_files_call_a_version_edition(tmp_path: Path) -> None:
    worker = PLAIN["workers"][0] | {"edition": 3}
    config = load_config(written(tmp_path, modules=[{"name": "math", "edition": 3}], workers=[worker]))
    assert (config.modules[0].version, config.workers[0].version) == (3, 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"modules": [{"name": "a", "aliases": ["b"]}, {"name": "b"}]}, "module name or alias 'b' is used twice"),
        ({"workers": PLAIN["workers"] * 2}, "worker name 'd' is used twice"),
        ({"workers": [{"name": "d", "role": "decode", "port": 3}]}, "worker 'd': a decode worker needs module"),
        ({"workers": [{"name": "p", "role": "prefill", "port": 3}]}, "a prefill worker needs bootstrap_port"),
        ({"task_routing": {"classifier": "base-model"}}, "needs the base among modules"),
        ({"ssl_certfile": "/cert.pem"}, "ssl_certfile and ssl_keyfile belong together"),
        ({"host": "0.0.0.0"}, "is reachable from other machines: set api_key"),
        ({"keys": [{"name": "ci", "digest": "0" * 64}] * 2}, "key name 'ci' is used twice"),
        ({"modules": [{"name": "math", "version": 0}]}, r"modules\.0\.version: Input should be greater than"),
        ({"speed": 1}, "speed: Extra inputs are not permitted"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_config(written(tmp_path, **changes))


@pytest.mark.parametrize("changes", [{"api_key": "k"}, {"keys": []}, {"insecure": True}])
def test_other_machines_may_come_with_a_key_or_where_that_is_wanted(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert load_config(written(tmp_path, host="0.0.0.0", **changes)).host == "0.0.0.0"


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:5", "tcp://*:5", "tcp://example.com:5", "udp://127.0.0.1:5"])
def test_kv_events_stay_on_this_machine(address: str) -> None:
    with pytest.raises(ValueError, match="KV events hold prompts"):
        KvEventsConfig(endpoint=address, replay_endpoint="ipc:///run/kv")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the router's configuration"):
        load_config(tmp_path / "none.json")
