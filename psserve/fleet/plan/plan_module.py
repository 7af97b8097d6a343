"""Planning one more module, or new weights of one, into a fleet that runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from psserve.errors import PlanError
from psserve.fleet.plan import layout
from psserve.fleet.plan.adapters import adapter_name, check_adapters, room_for, shares_servers
from psserve.fleet.plan.fitting import check_main_memory, fit_cpu, fit_gpus
from psserve.fleet.plan.host import Host, common_machine
from psserve.fleet.plan.measured import read_measured
from psserve.fleet.plan.memory import Budget, ServerMemory, usable_bytes
from psserve.fleet.plan.one_pool import check_one_pool
from psserve.fleet.plan.placement import Placer, Slot, decode_pool, spread
from psserve.fleet.plan.plan import make_server
from psserve.fleet.plan.planned import PlannedServer, planned_adapters, planned_decode
from psserve.fleet.plan.ports import more_ports
from psserve.fleet.plan.quantised import DTYPE_BYTES, check_quantised, check_split
from psserve.fleet.plan.router_config import module_config, worker_config
from psserve.fleet.plan.settings import check_devices, check_equal_tp, within_pool
from psserve.fleet.plan.spec import FleetPlan, ModulePlan, PlannedAdapter, PlannedCheckpoint, ServerSpec
from psserve.zoo import Module, Zoo


def plan_module(zoo: Zoo, plan: FleetPlan, name: str, version: int = 1) -> ModulePlan:
    """Plan the servers of the module `name` beside those of `plan`, which all go on running. Writes and starts nothing.

    An adapter needs none where those run that adapters share.

    They get free ports and, where the options ask for no certain size, KV pools as large as the smallest in the fleet:
    what the fleet has promised about the context holds for them too, and memory is left for others.

    Raises:
        UnknownModule: the zoo has no module `name`.
        PlanError: they do not fit beside the running servers, or those of adapters have no room for it.
    """
    module, options = zoo.module(name), plan.basis.options
    group_runs = any(server.adapters is not None for server in plan.servers)
    check_adapters(zoo.base, [module], options, served=plan.modules, group_runs=group_runs)
    if shares_servers(module, options):
        servers, checkpoint = _adapter_servers(zoo, plan, module), None
        adapter = PlannedAdapter(module=module.name, name=adapter_name(module.name, version))
    else:
        path = layout.checkpoint_path(plan.run_dir, module.name, version)
        checkpoint, adapter = PlannedCheckpoint(module=module.name, path=path), None
        servers = _servers(zoo, plan, module, planned_decode(module.name, module.aliases, path, options, version))
    return ModulePlan(
        module=module.name,
        version=version,
        servers=servers,
        checkpoint=checkpoint,
        adapter=adapter,
        entry=module_config(module, options, version),
        workers=tuple(worker_config(server, 1 if adapter else version) for server in servers),
    )


def _adapter_servers(zoo: Zoo, plan: FleetPlan, module: Module) -> tuple[ServerSpec, ...]:
    """None, where those that run have room for the adapter; or the first ones."""
    room = next((server.adapters for server in plan.servers if server.adapters is not None), None)
    if room is None:
        options = plan.basis.options
        room = room_for(zoo.base, [module], options, DTYPE_BYTES[plan.basis.settings.dtype])
        return _servers(zoo, plan, module, planned_adapters(zoo.base, room, options))
    if reason := room.why_no_room(module):
        raise PlanError(
            f"{module.name} cannot be served beside the other adapters: {reason}; set max_rank and targets in"
            f" [adapters] and start the fleet again, or give it servers of its own: module.{module.name}.own_server"
        )
    return ()


def _servers(zoo: Zoo, plan: FleetPlan, module: Module, planned: Sequence[PlannedServer]) -> tuple[ServerSpec, ...]:
    planned = [_sized(server, plan) for server in planned]
    check_devices(zoo.base, plan.basis.settings, planned)
    check_quantised(zoo.base, [module], plan.basis.settings, common_machine(plan.basis.hosts))
    check_equal_tp(planned, plan.basis.options.prefill.tp)
    check_split(zoo.base, [module], plan.basis.options.table("prefill"), plan.basis.options.prefill.tp)
    placed, memory = _fit(zoo, module, plan, planned)
    if plan.basis.settings.one_pool:
        check_one_pool(plan.basis.settings, planned, hosts=len(plan.basis.hosts))
    else:
        within_pool(plan.basis.settings, min(one.kv_tokens for one in memory), explicit=True)
    return tuple(
        make_server(zoo, plan.basis, server, slot=slot, memory=one, ports=ports)
        for server, slot, one, ports in zip(
            planned, placed, memory, more_ports(planned, _taken_ports(plan)), strict=True
        )
    )


def _sized(server: PlannedServer, plan: FleetPlan) -> PlannedServer:
    """The server with a free port and a certain pool size."""
    options = server.options
    if options.kv_tokens is None and options.memory_fraction is None:
        smallest = min(server.memory.kv_tokens for server in plan.servers)
        options = options.model_copy(update={"kv_tokens": smallest})
    return replace(server, port=None, options=options)


def _fit(
    zoo: Zoo, module: Module, plan: FleetPlan, planned: Sequence[PlannedServer]
) -> tuple[list[Slot], list[ServerMemory]]:
    """Place and memory of each server, beside the running ones."""
    held: Counter[str] = Counter()
    for server in plan.servers:
        held[server.host_name] += server.memory.total_bytes
    on_gpus = plan.basis.settings.device == "cuda"
    found: dict[str, tuple[Slot, ServerMemory]] = {}
    hosts_of = spread(plan.basis.hosts, planned, held, on_gpus=on_gpus)
    for host in plan.basis.hosts:
        here = [server for server, its in zip(planned, hosts_of, strict=True) if its is host]
        running = [server for server in plan.servers if server.host_name == host.name]
        if here:
            placed, memory = _fit_host(zoo, module, plan, host, running, here)
            for of_it, gpus, one in zip(here, placed, memory, strict=True):
                found[of_it.name] = Slot(host, gpus), one
    return [found[server.name][0] for server in planned], [found[server.name][1] for server in planned]


def _fit_host(
    zoo: Zoo,
    module: Module,
    plan: FleetPlan,
    host: Host,
    running: Sequence[ServerSpec],
    planned: Sequence[PlannedServer],
) -> tuple[list[tuple[int, ...]], list[ServerMemory]]:
    """GPUs and memory of each server of one host, beside those of the running ones there."""
    machine, settings = host.machine, plan.basis.settings
    budget = Budget.of(zoo.base, settings, machine, [module], read_measured(layout.run_dir(zoo.path)))
    try:
        if settings.device == "cpu":
            held = sum(server.memory.total_bytes + server.memory.adapter_bytes for server in running)
            return [()] * len(planned), fit_cpu(machine, budget, settings, planned, held)
        taken = _taken_bytes(running)
        placer = Placer([usable_bytes(gpu) - taken.get(gpu.index, 0) for gpu in machine.gpus], budget.fixed)
        prefill_on = [server.gpus for server in running if server.role == "prefill"]
        placed = placer.place(planned, decode_pool(len(machine.gpus), prefill_on, planned))
        memory = fit_gpus(machine.gpus, budget, settings, list(zip(planned, placed, strict=True)), taken)
        check_main_memory(machine, [*(server.memory for server in running), *memory])
        return placed, memory
    except PlanError as error:
        raise PlanError(f"{error} (decode.spare in fleet.toml keeps room for live changes)") from error


def _taken_bytes(servers: Sequence[ServerSpec]) -> dict[int, int]:
    """The bytes of each GPU that these servers were planned to take."""
    taken: Counter[int] = Counter()
    for server in servers:
        for gpu in server.gpus:
            taken[gpu] += server.memory.total_bytes // len(server.gpus)
    return taken


def _taken_ports(plan: FleetPlan) -> frozenset[int]:
    ports = [port for server in plan.servers for port in (server.port, server.bootstrap_port)]
    return frozenset(port for port in [*ports, plan.router.port] if port)
