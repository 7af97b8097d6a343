"""From a zoo and options to a plan: which server, which device, which ports, which command line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from psserve.contracts.programs import program
from psserve.engine.settings import WORKER
from psserve.errors import PlanError
from psserve.fleet.options.key_file import NO_KEYS, ClientKeys
from psserve.fleet.options.options import FleetOptions
from psserve.fleet.options.server_options import AnswerOptions, ServerOptions
from psserve.fleet.plan import layout
from psserve.fleet.plan.adapters import (
    adapter_name,
    base_shares_servers,
    check_adapters,
    check_shipped,
    room_for,
    shares_servers,
)
from psserve.fleet.plan.attention import attention_backend
from psserve.fleet.plan.devices import Machine, detect
from psserve.fleet.plan.fitting import check_main_memory, fit_cpu, fit_gpus
from psserve.fleet.plan.host import Host, check_hosts, common_machine, local_host
from psserve.fleet.plan.measured import read_measured
from psserve.fleet.plan.memory import Budget, ServerMemory, usable_bytes
from psserve.fleet.plan.one_pool import check_one_pool, check_pools, lent_rows, smallest_pool
from psserve.fleet.plan.parsers import NO_PARSERS, Parsers, chosen_parsers, parser_args
from psserve.fleet.plan.placement import Placer, Slot, place_fleet, prefill_replicas, spread
from psserve.fleet.plan.planned import (
    PlannedServer,
    chosen_modules,
    planned_adapters,
    planned_decode,
    planned_prefill,
    planned_spare,
)
from psserve.fleet.plan.ports import ServerPorts, fleet_ports
from psserve.fleet.plan.quantised import DTYPE_BYTES, check_quantised, check_split
from psserve.fleet.plan.reach import check_reach
from psserve.fleet.plan.router_config import router_config
from psserve.fleet.plan.settings import check_devices, check_equal_tp, engine_settings, with_cores, within_pool
from psserve.fleet.plan.sglang_args import (
    EngineSettings,
    kv_event_addresses,
    router_env,
    server_args,
    server_env,
)
from psserve.fleet.plan.spec import FleetPlan, PlanBasis, PlannedAdapter, PlannedCheckpoint, RouterSpec, ServerSpec
from psserve.fleet.plan.transfer import chosen_transfer
from psserve.zoo import Base, Module, Zoo
from psserve.zoo.checkpoints.architectures import CHECKS, TABLE
from psserve.zoo.checkpoints.tokenizer import read_chat_template


def make_plan(
    zoo: Zoo,
    options: FleetOptions,
    *,
    keys: ClientKeys = NO_KEYS,
    machine: Machine | None = None,
    environ: Mapping[str, str] = os.environ,
    hosts: Sequence[Host] = (),
) -> FleetPlan:
    """Plan a fleet. Writes nothing and starts nothing. `keys`: what clients must send.

    Its servers run on `hosts`; left out: on this machine, which is `machine`, if that is given.

    Raises:
        UsageError: the router would be open to other machines without a key, or its certificate cannot be used.
        UnknownModule: the options name one the zoo has not.
        PlanError: nothing to serve, a port is taken, or it does not fit this machine.
        IncompatibleCheckpoint: an older psserve made the zoo, and its base is one that this one refuses.
    """
    check_reach(options, keys)
    if options.cluster is not None and not hosts:
        raise PlanError(
            f"{options.table('cluster')}: this command plans for one machine, and only psserve launch asks the cluster"
            " for its machines"
        )
    hosts = tuple(hosts) or (local_host(machine or detect(environ), environ),)
    check_hosts(hosts, options)
    machine = common_machine(hosts)
    _check_served(zoo.base)
    modules = chosen_modules(zoo, options)
    check_adapters(zoo.base, modules, options)
    run, tmp = layout.run_dir(zoo.path), layout.tmp_dir(zoo.path)
    settings = engine_settings(zoo.base, options, machine)
    decode = _all_decode(zoo.base, modules, options, run, DTYPE_BYTES[settings.dtype])
    spare = planned_spare(zoo.base, options)
    gpus_there = len(machine.gpus) if settings.device == "cuda" else 0
    replicas = prefill_replicas(gpus_there, options.prefill, [*decode, *spare])
    prefill = planned_prefill(zoo.base, options, replicas)
    planned = prefill + decode
    check_shipped([server.adapters for server in planned], options)
    check_devices(zoo.base, settings, planned)
    check_quantised(zoo.base, modules, settings, machine)
    check_equal_tp(planned, options.prefill.tp)
    check_split(zoo.base, modules, options.table("prefill"), options.prefill.tp)
    if settings.one_pool:
        check_one_pool(planned, hosts=len(hosts))
    placed, memory = _fit(zoo, modules, hosts, settings, prefill, decode, spare)
    explicit, why = options.context_length is not None, None
    if options.transfer == "auto":
        settings, why = chosen_transfer(settings, planned, memory, explicit=explicit, hosts=len(hosts))
    for host in hosts:
        settings = with_cores(settings, host.machine, sum(slot.host is host for slot in placed))
    if settings.one_pool:
        check_pools(zoo.base, settings, planned, memory, [slot.gpus for slot in placed])
        settings = replace(settings, lent_rows=lent_rows(settings, planned, memory))
    smallest = smallest_pool(settings, planned, memory)
    settings = within_pool(settings, smallest, explicit=explicit)
    basis = PlanBasis(options=options, hosts=hosts, settings=settings, why_transfer=why)
    router_port, ports = fleet_ports(options.router, planned, [slot.host for slot in placed])
    servers = tuple(
        make_server(zoo, basis, server, slot=slot, memory=one, ports=its)
        for server, slot, one, its in zip(planned, placed, memory, ports, strict=True)
    )
    return FleetPlan(
        zoo=zoo.path,
        base=zoo.base.name,
        servers=servers,
        router=_router(zoo, basis, modules, servers, router_port, keys, environ),
        checkpoints=tuple(
            PlannedCheckpoint(module=module.name, path=layout.checkpoint_path(run, module.name))
            for module in modules
            if not shares_servers(module, options)
        ),
        adapters=tuple(
            PlannedAdapter(module=module.name, name=adapter_name(module.name, 1))
            for module in modules
            if shares_servers(module, options)
        ),
        basis=basis,
        run_dir=run,
        tmp_dir=tmp,
    )


def make_server(
    zoo: Zoo,
    basis: PlanBasis,
    server: PlannedServer,
    *,
    slot: Slot,
    memory: ServerMemory,
    ports: ServerPorts,
) -> ServerSpec:
    """The command, environment and files of a planned server with this place, memory and ports."""
    host, gpus = slot.host, slot.gpus
    run, tmp = layout.run_dir(zoo.path), layout.tmp_dir(zoo.path, host.tmp)
    rendezvous = tmp / f"rendezvous-{server.name}"
    publishes = basis.options.router.kv_events and server.role == "prefill"
    kv_events = kv_event_addresses(tmp, server.name) if publishes else None
    parsers = _parsers(zoo.base, server.options)
    args = server_args(
        basis.settings,
        host,
        role=server.role,
        checkpoint=server.checkpoint,
        served_name=server.module or zoo.base.name,
        port=ports.http,
        dist_port=ports.dist,
        bootstrap_port=ports.bootstrap,
        gpus=gpus,
        kv_tokens=memory.kv_tokens,
        kv_events=kv_events,
        extra=(*parser_args(parsers), *server.options.args),
        attention=_attention(zoo.base, basis, slot),
        tp=server.options.tp,
        adapters=server.adapters,
    )
    return ServerSpec(
        name=server.name,
        role=server.role,
        module=server.module,
        host=host.address,
        host_name=host.name,
        port=ports.http,
        bootstrap_port=ports.bootstrap,
        gpus=gpus,
        memory=memory,
        parsers=parsers,
        max_running_requests=basis.settings.max_running_requests,
        command=program(WORKER, *args, python=host.python),
        env=server_env(
            basis.settings,
            host,
            tmp_dir=tmp,
            rendezvous=rendezvous,
            extra=server.options.env,
            tp=server.options.tp,
            adapters=None if server.adapters is None else layout.adapters_dir(run),
            model=TABLE[zoo.base.architecture].sglang,
        ),
        log=layout.log_path(run, server.name),
        rendezvous=rendezvous,
        kv_events=kv_events,
        adapters=server.adapters,
        planned=server,
    )


def _check_served(base: Base) -> None:
    if base.checks < CHECKS:
        from psserve.zoo.checkpoints.served import check_made_before  # here, as it imports Transformers

        check_made_before(base)


def _parsers(base: Base, options: ServerOptions) -> Parsers:
    if not isinstance(options, AnswerOptions):  # a prefill server answers nobody
        return NO_PARSERS
    return chosen_parsers(read_chat_template(base.path), options)


def _attention(base: Base, basis: PlanBasis, slot: Slot) -> str | None:
    capabilities = [slot.host.machine.gpus[i].capability for i in slot.gpus]
    found = {attention_backend(base.head_dim, basis.settings.dtype, capability) for capability in capabilities}
    return next(filter(None, found), None)


def _all_decode(
    base: Base, modules: Sequence[Module], options: FleetOptions, run: Path, number_bytes: int
) -> list[PlannedServer]:
    planned: list[PlannedServer] = []
    sharing: list[Module] = []
    for module in modules:
        if shares_servers(module, options):
            sharing.append(module)
        else:
            planned += planned_decode(module.name, module.aliases, layout.checkpoint_path(run, module.name), options)
    if sharing:
        planned += planned_adapters(base, room_for(base, sharing, options, number_bytes), options)
    if options.serve_base and not base_shares_servers(base, modules, options):
        planned += planned_decode(base.name, (), base.path, options)
    return planned


def _fit(
    zoo: Zoo,
    modules: Sequence[Module],
    hosts: Sequence[Host],
    settings: EngineSettings,
    prefill: Sequence[PlannedServer],
    decode: Sequence[PlannedServer],
    spare: Sequence[PlannedServer],
) -> tuple[list[Slot], list[ServerMemory]]:
    """Place and memory of each server, prefill servers first; spare ones only take up memory."""
    measured = read_measured(layout.run_dir(zoo.path))
    budgets = {host.name: Budget.of(zoo.base, settings, host.machine, modules, measured) for host in hosts}

    def fit(host: Host, here: Sequence[PlannedServer]) -> tuple[list[tuple[int, ...]], list[ServerMemory]]:
        return _fit_host(host.machine, budgets[host.name], settings, here)

    found = spread(hosts, [*prefill, *decode, *spare], {}, fit, on_gpus=settings.device == "cuda")
    wanted = found[: len(prefill) + len(decode)]
    return [slot for slot, _ in wanted], [memory for _, memory in wanted]


def _fit_host(
    machine: Machine, budget: Budget, settings: EngineSettings, servers: Sequence[PlannedServer]
) -> tuple[list[tuple[int, ...]], list[ServerMemory]]:
    """GPUs and memory of each server of one machine, prefill servers first."""
    if settings.device == "cpu":
        return [()] * len(servers), fit_cpu(machine, budget, settings, servers)
    prefill = [server for server in servers if server.role == "prefill"]
    placer = Placer([usable_bytes(gpu) for gpu in machine.gpus], budget.fixed)
    placed = place_fleet(placer, len(machine.gpus), prefill, servers[len(prefill) :])
    memory = fit_gpus(machine.gpus, budget, settings, list(zip(servers, placed, strict=True)), taken={})
    check_main_memory(machine, memory)
    return placed, memory


def _router(
    zoo: Zoo,
    basis: PlanBasis,
    modules: Sequence[Module],
    servers: Sequence[ServerSpec],
    port: int,
    keys: ClientKeys,
    environ: Mapping[str, str],
) -> RouterSpec:
    run, tmp, wanted = layout.run_dir(zoo.path), layout.tmp_dir(zoo.path), basis.options.router
    config_path = layout.router_config_path(run)
    return RouterSpec(
        name="router",
        role="router",
        host=wanted.host,
        port=port,
        command=program("psserve.router", "--config", str(config_path)),
        env=router_env(environ, tmp_dir=tmp),
        log=layout.log_path(run, "router"),
        config_path=config_path,
        config=router_config(zoo.base, basis, modules, servers, port, keys),
    )
