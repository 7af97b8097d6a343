"""The servers that options ask for, before they have a device, memory and ports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from psserve.errors import PlanError, UnknownModule
from psserve.fleet.options.options import FleetOptions
from psserve.fleet.options.server_options import ServerOptions
from psserve.fleet.plan.adapters import GROUP, AdapterRoom
from psserve.fleet.plan.layout import decode_name
from psserve.zoo import Base, Module, Zoo
from psserve.zoo.disk.scan import Scan


@dataclass(frozen=True, kw_only=True)
class PlannedServer:
    """One server to be."""

    role: Literal["prefill", "decode"]
    name: str
    module: str | None
    """Or the group of modules. None: the base, on a prefill server."""
    checkpoint: Path
    options: ServerOptions
    replica: int
    """Which one of its role or module, from 0: decides which of the given GPUs it gets."""
    table: str
    """Where fleet.toml speaks of it, for messages."""
    port: int | None = None
    """The port that the options give it; None: a free one."""
    bootstrap_port: int | None = None
    adapters: AdapterRoom | None = None
    """What it has room for, if it serves adapters; its checkpoint is the base's then."""


def planned_prefill(base: Base, options: FleetOptions, replicas: int) -> list[PlannedServer]:
    """The servers that run the base."""
    wanted = options.prefill
    return [
        PlannedServer(
            role="prefill",
            name=f"prefill-{i}",
            module=None,
            checkpoint=base.path,
            options=wanted,
            replica=i,
            table=options.table("prefill"),
            port=_nth(wanted.ports, i),
            bootstrap_port=_nth(wanted.bootstrap_ports, i),
        )
        for i in range(replicas)
    ]


def planned_decode(
    module: str, aliases: Sequence[str], checkpoint: Path, options: FleetOptions, version: int = 1
) -> list[PlannedServer]:
    """The servers of one module: `decode-NAME-0`, `decode-NAME-1`, ..."""
    wanted = options.of_module(module, *aliases)
    own = next((f"module.{name}" for name in (module, *aliases) if name in options.module), "decode")
    return [
        PlannedServer(
            role="decode",
            name=decode_name(module, i, version),
            module=module,
            checkpoint=checkpoint,
            options=wanted,
            replica=i,
            table=options.table(own),
            port=_nth(wanted.ports, i),
        )
        for i in range(wanted.replicas)
    ]


def planned_adapters(base: Base, room: AdapterRoom, options: FleetOptions) -> list[PlannedServer]:
    """The servers that adapters share: `decode-adapters-0`, `decode-adapters-1`, ..."""
    wanted = options.of_adapters()
    table = options.table("adapters" if options.adapters.model_fields_set else "decode")
    return [
        PlannedServer(
            role="decode",
            name=decode_name(GROUP, i),
            module=GROUP,
            checkpoint=base.path,
            options=wanted,
            replica=i,
            table=table,
            port=_nth(wanted.ports, i),
            adapters=room,
        )
        for i in range(wanted.replicas)
    ]


def planned_spare(base: Base, options: FleetOptions) -> list[PlannedServer]:
    """Servers that only take up memory, for those that live changes start."""
    return [
        PlannedServer(
            role="decode",
            name=f"spare-{i}",
            module=None,
            checkpoint=base.path,
            options=options.decode,
            replica=i,
            table=options.table("decode"),
        )
        for i in range(options.decode.spare)
    ]


def _nth(ports: Sequence[int], index: int) -> int | None:
    return ports[index] if ports else None


# --- which modules


def chosen_modules(zoo: Zoo, options: FleetOptions) -> list[Module]:
    """The modules to serve, each once.

    Raises:
        UnknownModule: the options name one the zoo has not.
        PlanError: there is nothing to serve, a name stands for two, or the default module is not served.
    """
    scan = zoo.scan()
    if options.modules is None:
        modules = list(scan.modules)
    else:
        chosen = [_module(scan, name, options.where("modules")) for name in options.modules]
        modules = list({module.name: module for module in chosen}.values())
    if not modules and not options.serve_base:
        raise PlanError(f"the zoo {zoo.path} has no module; add one with `psserve add-model`, or use --serve-base")
    for module in modules:
        if options.serve_base and zoo.base.name in (module.name, *module.aliases):
            where = options.where("serve_base")
            raise PlanError(f"{where}: the module {module.name} has the base's name {zoo.base.name} already")
    _check_tables(zoo.base, scan, options)
    _check_default(zoo, modules, options)
    return modules


def _module(scan: Scan, name: str, where: str) -> Module:
    try:
        return scan.get(name)
    except UnknownModule as error:
        raise UnknownModule(f"{where}: {error}") from None


def _check_default(zoo: Zoo, modules: list[Module], options: FleetOptions) -> None:
    """Check that what `auto` falls back to is served."""
    default = options.router.default_module
    served = [name for module in modules for name in (module.name, *module.aliases)]
    if options.serve_base:
        served.append(zoo.base.name)
    if default is not None and default not in served:
        said = options.said("router.default_module", default)
        raise PlanError(f"{said}: not served (served: {', '.join(served)})")


def _check_tables(base: Base, scan: Scan, options: FleetOptions) -> None:
    """Every [module.NAME] must speak of a module of the zoo, and no two of the same."""
    seen: dict[str, str] = {}
    for table in options.module:
        where = options.table(f"module.{table}")
        name = table if table == base.name else _module(scan, table, where).name
        if name in seen:
            raise PlanError(f"{where} and module.{seen[name]} are both the module {name}: keep one of them")
        seen[name] = table
