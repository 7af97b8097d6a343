"""Planning more servers into a fleet that runs: of one more module, of new weights, of a host that is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from psserve.errors import NoRoom, PlanError, UnknownModule
from psserve.fleet.plan import layout
from psserve.fleet.plan.adapters import adapter_name, check_adapters, check_shipped, room_for, shares_servers
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.fitting import check_main_memory, fit_cpu, fit_gpus
from psserve.fleet.plan.host import Host, common_machine
from psserve.fleet.plan.measured import read_measured
from psserve.fleet.plan.memory import Budget, ServerMemory, usable_bytes
from psserve.fleet.plan.one_pool import check_one_pool, check_same_gpus
from psserve.fleet.plan.placement import Placer, Slot, decode_pool, spread
from psserve.fleet.plan.plan import make_server
from psserve.fleet.plan.planned import PlannedServer, planned_adapters, planned_decode
from psserve.fleet.plan.ports import more_ports
from psserve.fleet.plan.quantised import DTYPE_BYTES, check_quantised, check_split
from psserve.fleet.plan.router_config import module_config, worker_config
from psserve.fleet.plan.settings import check_devices, check_equal_tp
from psserve.fleet.plan.sglang_args import EngineSettings
from psserve.fleet.plan.spec import FleetPlan, ModulePlan, PlannedAdapter, PlannedCheckpoint, ServerSpec
from psserve.fleet.plan.transfer import check_limits
from psserve.zoo import Module, Zoo


def plan_module(zoo: Zoo, plan: FleetPlan, name: str, version: int = 1) -> ModulePlan:
    """Plan the servers of the module `name` beside those of `plan`, which all go on running. Writes and starts nothing.

    `name` can be a version of it (NAME@VERSION); `version` is the fleet's own number.

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
        adapter = PlannedAdapter(module=module.versioned_name, name=adapter_name(module.name, version))
    else:
        path = layout.checkpoint_path(plan.run_dir, module.name, version)
        checkpoint, adapter = PlannedCheckpoint(module=module.versioned_name, path=path), None
        planned = planned_decode(module.name, module.aliases, path, options, version)
        servers = _servers(zoo, plan, [module], _sized(planned, plan))
    return ModulePlan(
        module=module.name,
        version=version,
        servers=servers,
        checkpoint=checkpoint,
        adapter=adapter,
        entry=module_config(module, options, version),
        workers=tuple(worker_config(server, 1 if adapter else version) for server in servers),
    )


def plan_elsewhere(zoo: Zoo, plan: FleetPlan, server: ServerSpec, lost: Collection[str]) -> ServerSpec:
    """Plan a server of `plan` anew, on a host that is not `lost`: with the same name, and a pool of the same size.

    Raises:
        PlanError: it fits nowhere beside the servers that run.
    """
    planned, rest = server.planned, tuple(host for host in plan.basis.hosts if host.name not in lost)
    if planned is None or not rest:
        raise PlanError(f"{server.name}: no other host is there for it")
    options = planned.options.model_copy(update={"kv_tokens": server.memory.kv_tokens, "memory_fraction": None})
    others = replace(
        plan,
        servers=tuple(one for one in plan.servers if one.host_name not in lost and one.name != server.name),
        basis=replace(plan.basis, hosts=rest),
    )
    modules: list[Module] = []
    with suppress(UnknownModule):  # it serves the base, or a group of modules
        modules.append(zoo.module(planned.module or ""))
    (found,) = _servers(zoo, others, modules, [replace(planned, options=options)], plan.taken_ports)
    return replace(found, planned=planned)


def _adapter_servers(zoo: Zoo, plan: FleetPlan, module: Module) -> tuple[ServerSpec, ...]:
    """None, where those that run have room for the adapter; or the first ones."""
    room = next((server.adapters for server in plan.servers if server.adapters is not None), None)
    if room is None:
        options = plan.basis.options
        room = room_for(zoo.base, [module], options, DTYPE_BYTES[plan.basis.settings.dtype])
        return _servers(zoo, plan, [module], _sized(planned_adapters(zoo.base, room, options), plan))
    if reason := room.why_no_room(module):
        raise PlanError(
            f"{module.name} cannot be served beside the other adapters: {reason}; set max_rank and targets in"
            f" [adapters] and start the fleet again, or give it servers of its own: module.{module.name}.own_server"
        )
    return ()


def _servers(
    zoo: Zoo,
    plan: FleetPlan,
    modules: Sequence[Module],
    planned: Sequence[PlannedServer],
    taken_ports: frozenset[int] | None = None,
) -> tuple[ServerSpec, ...]:
    """The servers beside those of `plan`. `modules`: those of them that have weights of their own."""
    planned = [replace(server, port=None, bootstrap_port=None) for server in planned]
    check_shipped([server.adapters for server in planned], plan.basis.options)
    check_devices(zoo.base, plan.basis.settings, planned)
    check_quantised(zoo.base, modules, plan.basis.settings, common_machine(plan.basis.hosts))
    check_equal_tp(planned, plan.basis.options.prefill.tp)
    check_split(zoo.base, modules, plan.basis.options.table("prefill"), plan.basis.options.prefill.tp)
    placed, memory = _fit(zoo, modules, plan, planned)
    if plan.basis.settings.one_pool:
        check_one_pool(planned, hosts=len(plan.basis.hosts))
        check_same_gpus([*(server.gpus for server in plan.servers), *(slot.gpus for slot in placed)])
    if not plan.basis.settings.one_pool or plan.basis.why_transfer is not None:
        check_limits(plan.basis.settings, planned, memory)
    ports = more_ports(planned, taken_ports or plan.taken_ports)
    return tuple(
        make_server(zoo, plan.basis, server, slot=slot, memory=one, ports=its)
        for server, slot, one, its in zip(planned, placed, memory, ports, strict=True)
    )


def _sized(planned: Sequence[PlannedServer], plan: FleetPlan) -> list[PlannedServer]:
    """The servers with pools of a certain size."""
    smallest = min(server.memory.kv_tokens for server in plan.servers)
    return [
        replace(server, options=server.options.model_copy(update={"kv_tokens": smallest}))
        if server.options.kv_tokens is None and server.options.memory_fraction is None
        else server
        for server in planned
    ]


def _fit(
    zoo: Zoo, modules: Sequence[Module], plan: FleetPlan, planned: Sequence[PlannedServer]
) -> tuple[list[Slot], list[ServerMemory]]:
    """Place and memory of each server, beside the running ones."""
    held: Counter[str] = Counter()
    for server in plan.servers:
        held[server.host_name] += server.memory.total_bytes
    hosts, settings = plan.basis.hosts, plan.basis.settings
    measured = read_measured(layout.run_dir(zoo.path))
    budgets = {host.name: Budget.of(zoo.base, settings, host.machine, modules, measured) for host in hosts}

    def fit(host: Host, here: Sequence[PlannedServer]) -> tuple[list[tuple[int, ...]], list[ServerMemory]]:
        running = [server for server in plan.servers if server.host_name == host.name]
        return _fit_host(host.machine, budgets[host.name], settings, running, here)

    try:
        found = spread(hosts, planned, held, fit, on_gpus=settings.device == "cuda")
    except NoRoom as error:
        raise PlanError(f"{error} (decode.spare in fleet.toml keeps room for live changes)") from error
    return [slot for slot, _ in found], [memory for _, memory in found]


def _fit_host(
    machine: Machine,
    budget: Budget,
    settings: EngineSettings,
    running: Sequence[ServerSpec],
    planned: Sequence[PlannedServer],
) -> tuple[list[tuple[int, ...]], list[ServerMemory]]:
    """GPUs and memory of each server of one machine, beside those of the running ones there."""
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


def _taken_bytes(servers: Sequence[ServerSpec]) -> dict[int, int]:
    """The bytes of each GPU that these servers were planned to take."""
    taken: Counter[int] = Counter()
    for server in servers:
        for gpu in server.gpus:
            taken[gpu] += server.memory.total_bytes // len(server.gpus)
    return taken
