"""A plan of fake servers, and a supply of more of them. Also used by run_fleet.py, in a process of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from psserve.contracts.router_config import BaseConfig, ModuleConfig, RouterConfig, WorkerConfig
from psserve.errors import PlanError
from psserve.fleet import FleetOptions, FleetPlan
from psserve.fleet.live.supply import Offer, Offers
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.layout import checkpoint_path, decode_name, log_path, run_dir
from psserve.fleet.plan.memory import ServerMemory
from psserve.fleet.plan.ports import free_ports
from psserve.fleet.plan.sglang_args import EngineSettings
from psserve.fleet.plan.spec import ModulePlan, PlanBasis, PlannedCheckpoint, RouterSpec, ServerSpec

FAKE = str(Path(__file__).with_name("fake_server.py"))
ENV = {"PATH": "/usr/bin:/bin"}


def server(zoo: Path, tmp: Path, name: str, port: int, arguments: list[str], module: str | None) -> ServerSpec:
    return ServerSpec(
        name=name,
        role="decode" if module else "prefill",
        module=module,
        host="127.0.0.1",
        port=port,
        bootstrap_port=None,
        gpus=(),
        memory=ServerMemory(weight_bytes=0, kv_tokens=1024, kv_bytes=0, overhead_bytes=0, kind=""),
        command=(sys.executable, FAKE, "server", "--port", str(port), *arguments),
        env=ENV,
        log=log_path(run_dir(zoo), name),
        rendezvous=tmp / f"rendezvous-{name}",
    )


def plan_of(zoo: Path, servers: dict[str, list[str]], ports: list[int], tmp: Path) -> FleetPlan:
    """`servers`: prefill-N or decode-MODULE-N -> arguments. The router's port is the first."""
    run = run_dir(zoo)
    specs = tuple(
        server(zoo, tmp, name, port, arguments, None if name.startswith("prefill") else name.split("-")[1])
        for (name, arguments), port in zip(servers.items(), ports[1:], strict=True)
    )
    router = RouterSpec(
        name="router",
        role="router",
        host="127.0.0.1",
        port=ports[0],
        command=(sys.executable, FAKE, "router", "--config", str(run / "router.json")),
        env=ENV,
        log=log_path(run, "router"),
        config_path=run / "router.json",
        config=RouterConfig(
            port=ports[0],
            worker_key="sesame",
            base=BaseConfig(name="fake", path="", vocab_size=1, context_length=512),
            modules=tuple(_entry(spec.module, {}) for spec in specs if spec.module),
            workers=tuple(worker(spec, 1) for spec in specs),
        ),
    )
    return FleetPlan(
        zoo=zoo,
        base="fake",
        servers=specs,
        router=router,
        checkpoints=(),
        basis=basis(),
        run_dir=run,
        tmp_dir=tmp,
    )


def worker(spec: ServerSpec, version: int) -> WorkerConfig:
    bootstrap = None if spec.module else spec.port
    return WorkerConfig(
        name=spec.name, role=spec.role, module=spec.module, port=spec.port, bootstrap_port=bootstrap, version=version
    )


def basis() -> PlanBasis:
    settings = EngineSettings(
        device="cpu",
        dtype="float32",
        transfer="nixl",
        page_size=16,
        context_length=512,
        chunked_prefill_size=None,
        max_running_requests=None,
    )
    return PlanBasis(options=FleetOptions(), machine=Machine(2, 2**34, 2**34, ()), settings=settings, environ={})


class FakeSupply:
    """Modules as `offers.json` lists them: {MODULE: {weights, server: [arguments], task, ...}}."""

    def __init__(self, zoo: Path) -> None:
        self._zoo = zoo

    def _read(self) -> dict[str, Any]:
        return dict(json.loads((self._zoo / "offers.json").read_text()))

    def offers(self) -> Offers:
        listed = self._read()
        damaged = {name: offer["damaged"] for name, offer in listed.items() if "damaged" in offer}
        sound = {name: offer for name, offer in listed.items() if name not in damaged}
        return Offers({name: Offer(offer["weights"], _entry(name, offer)) for name, offer in sound.items()}, damaged)

    def plan(self, plan: FleetPlan, module: str, version: int) -> ModulePlan:
        offer = self._read()[module]
        if "unplanned" in offer:
            raise PlanError(offer["unplanned"])
        if "bug" in offer:
            raise ZeroDivisionError
        name = decode_name(module, 0, version)
        spec = server(self._zoo, plan.tmp_dir, name, free_ports(1)[0], offer.get("server", []), module)
        return ModulePlan(
            module=module,
            version=version,
            servers=(spec,),
            checkpoint=PlannedCheckpoint(module=module, path=checkpoint_path(plan.run_dir, module, version)),
            entry=_entry(module, offer, version),
            workers=(worker(spec, version),),
        )

    def materialise(self, checkpoint: PlannedCheckpoint) -> tuple[str, ...]:
        offer = self._read()[checkpoint.module]
        if "takes_s" in offer:
            return ("sleep", str(offer["takes_s"]))
        if reason := offer.get("unmade"):
            return ("sh", "-c", f"mkdir -p {checkpoint.path}; echo start >&2; echo '{reason}' >&2; exit 1")
        return ("mkdir", "-p", str(checkpoint.path))


def _entry(name: str, offer: dict[str, Any], version: int = 1) -> ModuleConfig:
    return ModuleConfig(name=name, task=offer.get("task", ""), version=version)
