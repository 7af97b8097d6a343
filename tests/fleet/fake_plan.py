"""A plan of fake servers, and a supply of more of them. Also used by run_fleet.py, in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psserve.contracts.router_config import VERSION_MARK, BaseConfig, ModuleConfig, RouterConfig, WorkerConfig
from psserve.errors import PlanError
from psserve.fleet import FleetOptions, FleetPlan
from psserve.fleet.live.supply import Offer, Offers
from psserve.fleet.plan.adapters import GROUP, AdapterRoom, adapter_name
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.host import local_host
from psserve.fleet.plan.layout import checkpoint_path, decode_name, log_path, run_dir
from psserve.fleet.plan.memory import ServerMemory
from psserve.fleet.plan.sglang_args import EngineSettings
from psserve.fleet.plan.spec import (
    ModulePlan,
    PlanBasis,
    PlannedAdapter,
    PlannedCheckpoint,
    RouterSpec,
    ServerSpec,
)

ROOM = AdapterRoom(rank=8, targets=("q_proj",), in_batch=8, loaded=32, slot_bytes=0, loaded_bytes=0)
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
        adapters=ROOM if module == GROUP else None,
    )


def plan_of(
    zoo: Path,
    servers: dict[str, list[str]],
    ports: list[int],
    tmp: Path,
    adapters: Sequence[str] = (),
    checkpoints: Sequence[str] = (),
) -> FleetPlan:
    """`servers`: prefill-N or decode-MODULE-N -> arguments; `adapters`: modules of those called decode-adapters-N.

    `checkpoints`: modules whose checkpoints are made of a zoo that is really there.

    The router's port is the first.
    """
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
            modules=tuple(_entry(spec.module, {}) for spec in specs if spec.module and spec.module != GROUP)
            + tuple(_entry(module, {"adapter": True}) for module in adapters),
            workers=tuple(worker(spec, 1) for spec in specs),
        ),
    )
    return FleetPlan(
        zoo=zoo,
        base="fake",
        servers=specs,
        router=router,
        checkpoints=tuple(PlannedCheckpoint(module=name, path=checkpoint_path(run, name)) for name in checkpoints),
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
    return PlanBasis(options=FleetOptions(), hosts=(local_host(Machine(2, 2**34, 2**34, ()), {}),), settings=settings)


class FakeSupply:
    """Modules as `offers.json` lists them: {MODULE: {weights, server: [arguments], task, adapter: true, ...}}.

    MODULE@VERSION is a version of one.

    Each new server gets the next of `ports`.
    """

    def __init__(self, zoo: Path, ports: Sequence[int]) -> None:
        self._zoo = zoo
        self._ports = iter(ports)

    def _read(self) -> dict[str, Any]:
        return dict(json.loads((self._zoo / "offers.json").read_text()))

    def offers(self) -> Offers:
        listed = {name: offer for name, offer in self._read().items() if VERSION_MARK not in name}
        damaged = {name: offer["damaged"] for name, offer in listed.items() if "damaged" in offer}
        sound = {name: offer for name, offer in listed.items() if name not in damaged}
        return Offers({name: Offer(offer["weights"], _entry(name, offer)) for name, offer in sound.items()}, damaged)

    def version(self, name: str) -> Offer:
        offer = self._read()[name]
        return Offer(offer["weights"], _entry(name.partition(VERSION_MARK)[0], offer))

    def plan(self, plan: FleetPlan, module: str, version: int) -> ModulePlan:
        offer = self._read()[module]
        if "unplanned" in offer:
            raise PlanError(offer["unplanned"])
        if "bug" in offer:
            raise ZeroDivisionError
        called, module = module, module.partition(VERSION_MARK)[0]
        if "adapter" in offer:
            return self._adapter(plan, module, version, offer)
        name = decode_name(module, 0, version)
        spec = server(self._zoo, plan.tmp_dir, name, next(self._ports), offer.get("server", []), module)
        return ModulePlan(
            module=module,
            version=version,
            servers=(spec,),
            checkpoint=PlannedCheckpoint(module=called, path=checkpoint_path(plan.run_dir, module, version)),
            entry=_entry(module, offer, version),
            workers=(worker(spec, version),),
        )

    def _adapter(self, plan: FleetPlan, module: str, version: int, offer: dict[str, Any]) -> ModulePlan:
        servers: tuple[ServerSpec, ...] = ()
        if not any(spec.module == GROUP for spec in plan.servers):
            servers = (
                server(self._zoo, plan.tmp_dir, decode_name(GROUP, 0), next(self._ports), offer["server"], GROUP),
            )
        return ModulePlan(
            module=module,
            version=version,
            servers=servers,
            checkpoint=None,
            adapter=PlannedAdapter(module=module, name=adapter_name(module, version)),
            entry=_entry(module, offer, version),
            workers=tuple(worker(spec, 1) for spec in servers),
        )

    def serving_form(self, module: str) -> Path:
        form = self._zoo / "forms" / self._read()[module]["weights"]
        form.mkdir(parents=True, exist_ok=True)
        return form

    def materialise(self, checkpoint: PlannedCheckpoint) -> tuple[str, ...]:
        offer = self._read()[checkpoint.module]
        if "takes_s" in offer:
            return ("sleep", str(offer["takes_s"]))
        if reason := offer.get("unmade"):
            return ("sh", "-c", f"mkdir -p {checkpoint.path}; echo start >&2; echo '{reason}' >&2; exit 1")
        return ("mkdir", "-p", str(checkpoint.path))


def _entry(name: str, offer: dict[str, Any], version: int = 1) -> ModuleConfig:
    shared = {"group": GROUP, "adapter": adapter_name(name, version)} if "adapter" in offer else {}
    return ModuleConfig(name=name, task=offer.get("task", ""), version=version, **shared)
