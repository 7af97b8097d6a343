"""From a zoo and options to a plan: which server, which device, which ports, which command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from psserve.fleet.options.key_file import NO_KEYS, ClientKeys
from psserve.fleet.options.options import FleetOptions
from psserve.fleet.plan import layout
from psserve.fleet.plan.devices import Machine, detect
from psserve.fleet.plan.fitting import fit_cpu, fit_gpus
from psserve.fleet.plan.memory import Budget, ServerMemory, usable_bytes
from psserve.fleet.plan.placement import Placer, place_fleet
from psserve.fleet.plan.ports import ServerPorts, fleet_ports
from psserve.fleet.plan.reach import check_reach
from psserve.fleet.plan.router_config import router_config
from psserve.fleet.plan.settings import check_devices, engine_settings, within_pool
from psserve.fleet.plan.sglang_args import (
    LOOPBACK,
    EngineSettings,
    kv_event_addresses,
    router_env,
    server_args,
    server_env,
)
from psserve.fleet.plan.slots import Slot, chosen_modules, module_slots, prefill_slots, spare_slots
from psserve.fleet.plan.spec import Checkpoint, FleetPlan, PlanBasis, RouterSpec, ServerSpec
from psserve.zoo import Base, Module, Zoo


def make_plan(
    zoo: Zoo,
    options: FleetOptions,
    *,
    keys: ClientKeys = NO_KEYS,
    machine: Machine | None = None,
    environ: Mapping[str, str] = os.environ,
) -> FleetPlan:
    """Plan a fleet. Writes nothing and starts nothing. `keys`: what clients must send.

    Raises:
        UsageError: the router would be open to other machines without a key, or its certificate cannot be used.
        UnknownModule: the options name one the zoo has not.
        PlanError: nothing to serve, a port is taken, or it does not fit this machine.
    """
    check_reach(options, keys)
    machine = machine or detect(environ)
    modules = chosen_modules(zoo, options)
    run, tmp = layout.run_dir(zoo.path), layout.tmp_dir(zoo.path)
    settings = engine_settings(zoo.base, options, machine)
    prefill = prefill_slots(zoo.base, options)
    decode = _decode_slots(zoo.base, modules, options, run)
    slots = prefill + decode
    check_devices(zoo.base, settings, slots)
    placed, memory = _fit(zoo.base, machine, settings, prefill, decode, spare_slots(zoo.base, options))
    smallest = min(one.kv_tokens for one in memory)
    settings = within_pool(settings, smallest, explicit=options.context_length is not None)
    basis = PlanBasis(options=options, machine=machine, settings=settings, environ=environ)
    router_port, ports = fleet_ports(options.router, slots)
    servers = tuple(
        make_server(zoo, basis, slot, gpus=gpus, memory=one, ports=its)
        for slot, gpus, one, its in zip(slots, placed, memory, ports, strict=True)
    )
    return FleetPlan(
        zoo=zoo.path,
        base=zoo.base.name,
        servers=servers,
        router=_router(zoo, basis, modules, servers, router_port, keys),
        checkpoints=tuple(
            Checkpoint(module=module.name, path=layout.checkpoint_path(run, module.name)) for module in modules
        ),
        basis=basis,
        run_dir=run,
        tmp_dir=tmp,
    )


def make_server(
    zoo: Zoo, basis: PlanBasis, slot: Slot, *, gpus: tuple[int, ...], memory: ServerMemory, ports: ServerPorts
) -> ServerSpec:
    """The server that a slot becomes with this device, memory and ports."""
    run, tmp = layout.run_dir(zoo.path), layout.tmp_dir(zoo.path)
    rendezvous = tmp / f"rendezvous-{slot.name}"
    publishes = basis.options.router.kv_events and slot.role == "prefill"
    kv_events = kv_event_addresses(tmp, slot.name) if publishes else None
    args = server_args(
        basis.settings,
        role=slot.role,
        checkpoint=slot.checkpoint,
        served_name=slot.module or zoo.base.name,
        port=ports.http,
        dist_port=ports.dist,
        bootstrap_port=ports.bootstrap,
        gpus=gpus,
        kv_tokens=memory.kv_tokens,
        kv_events=kv_events,
        extra=slot.options.args,
    )
    return ServerSpec(
        name=slot.name,
        role=slot.role,
        module=slot.module,
        host=LOOPBACK,
        port=ports.http,
        bootstrap_port=ports.bootstrap,
        gpus=gpus,
        memory=memory,
        max_running_requests=basis.settings.max_running_requests,
        command=(sys.executable, "-m", "psserve.engine.worker", *args),
        env=server_env(basis.settings, basis.environ, tmp_dir=tmp, rendezvous=rendezvous, extra=slot.options.env),
        log=layout.log_path(run, slot.name),
        rendezvous=rendezvous,
        kv_events=kv_events,
    )


def _decode_slots(base: Base, modules: Sequence[Module], options: FleetOptions, run: Path) -> list[Slot]:
    slots: list[Slot] = []
    for module in modules:
        slots += module_slots(module.name, module.aliases, layout.checkpoint_path(run, module.name), options)
    if options.serve_base:
        slots += module_slots(base.name, (), base.path, options)
    return slots


def _fit(
    base: Base,
    machine: Machine,
    settings: EngineSettings,
    prefill: Sequence[Slot],
    decode: Sequence[Slot],
    spare: Sequence[Slot],
) -> tuple[list[tuple[int, ...]], list[ServerMemory]]:
    """GPUs and memory of each server, prefill servers first; spare ones only take up room."""
    budget = Budget.of(base, settings.dtype, settings.page_size)
    slots = [*prefill, *decode, *spare]
    count = len(prefill) + len(decode)
    if settings.device == "cpu":
        return [()] * count, fit_cpu(machine, budget, slots)[:count]
    placer = Placer([usable_bytes(gpu) for gpu in machine.gpus], budget.fixed)
    placed = place_fleet(placer, len(machine.gpus), prefill, [*decode, *spare])
    memory = fit_gpus(machine.gpus, budget, list(zip(slots, placed, strict=True)), taken={})
    return placed[:count], memory[:count]


def _router(
    zoo: Zoo,
    basis: PlanBasis,
    modules: Sequence[Module],
    servers: Sequence[ServerSpec],
    port: int,
    keys: ClientKeys,
) -> RouterSpec:
    run, tmp, wanted = layout.run_dir(zoo.path), layout.tmp_dir(zoo.path), basis.options.router
    config_path = layout.router_config_path(run)
    return RouterSpec(
        name="router",
        role="router",
        host=wanted.host,
        port=port,
        command=(sys.executable, "-m", "psserve.router", "--config", str(config_path)),
        env=router_env(basis.environ, tmp_dir=tmp),
        log=layout.log_path(run, "router"),
        config_path=config_path,
        config=router_config(zoo.base, basis, modules, servers, port, keys),
    )
