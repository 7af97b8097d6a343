"""psserve itself, launched by its own command."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tomli_w

from psserve.bench.systems.fleet import launched
from psserve.bench.systems.running import RunningSystem
from psserve.bench.systems.server import Server
from psserve.bench.systems.spec import SystemSpec
from psserve.bench.systems.warm_up import warm_up
from psserve.fleet.plan.devices import choose, detect


@contextlib.contextmanager
def shared_system(name: str, spec: SystemSpec, note: Callable[[str], None]) -> Iterator[RunningSystem]:
    """Launch the zoo's fleet, and stop it at the end. Raises StartError."""
    with tempfile.TemporaryDirectory(prefix="psserve-bench-") as folder:
        config = Path(folder) / "fleet.toml"
        settings = fleet_settings(spec)
        config.write_text(tomli_w.dumps(settings))
        note("psserve launch")
        arguments = ["--config", str(config), "--", *spec.export_args()]
        with launched(spec.zoo, arguments, within_s=spec.start_timeout_s) as fleet:
            endpoints = dict.fromkeys(spec.modules, fleet.url)
            warm_up(endpoints, spec.start_timeout_s, note)
            yield RunningSystem(
                name=name,
                endpoints=endpoints,
                servers=tuple(
                    Server(worker["name"], fleet.worker_url(worker["name"]), prefills=worker["role"] == "prefill")
                    for worker in fleet.config["workers"]
                ),
                pids=fleet.pids(),
                ready_s=fleet.ready_s,
                settings={"fleet": settings},
                key=fleet.key,
            )


def fleet_settings(spec: SystemSpec) -> dict[str, Any]:
    """The fleet.toml of the system: half of the KV cache for the prefill servers, half for the decode servers."""
    options = spec.fleet_options().model_dump(mode="json", exclude_unset=True, exclude_none=True)
    machine = detect()
    device = choose(machine, spec.device)
    prefill = {"replicas": spec.prefill_servers, "kv_tokens": spec.kv_tokens // (2 * spec.prefill_servers)}
    decode = {"kv_tokens": spec.kv_tokens // (2 * len(spec.modules))}
    return {
        **options,
        "prefill": {**prefill, "env": spec.server_env(device, machine, spec.prefill_servers)},
        "decode": {**decode, "env": spec.server_env(device, machine, len(spec.modules))},
    }
