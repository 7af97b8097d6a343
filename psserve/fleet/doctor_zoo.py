"""The doctor's checks of a zoo: what is in it, room on its disk, its fleet.toml, and whether a fleet fits here."""

from __future__ import annotations

import shutil
from pathlib import Path

from psserve.errors import PsserveError, UsageError, ZooError, ZooNotFound
from psserve.fleet.config_file import FILE_NAME, Flags, load_options
from psserve.fleet.devices import Machine
from psserve.fleet.finding import Finding
from psserve.fleet.key_file import client_keys
from psserve.fleet.memory import amount
from psserve.fleet.options import FleetOptions
from psserve.fleet.plan import make_plan
from psserve.zoo import Zoo, find_zoo


def check_zoo(explicit: Path | None) -> tuple[Zoo | None, list[Finding]]:
    """The zoo, if one is found and readable. A missing one is no failure unless it was asked for by name."""
    try:
        zoo = Zoo.open(find_zoo(explicit))
        scan = zoo.scan()
    except ZooNotFound as error:
        return None, [Finding("zoo", "warn" if explicit is None else "fail", str(error))]
    except (ZooError, OSError) as error:
        return None, [Finding("zoo", "fail", str(error))]
    damaged = [Finding("module", "fail", str(error)) for error in scan.damaged.values()]
    if not scan.modules:
        advice = "psserve add-model NAME --path DIR adds one"
        return zoo, [Finding("zoo", "warn", f"{zoo.path} has no module that can be served", advice), *damaged]
    names = ", ".join(module.name for module in scan.modules)
    return zoo, [Finding("zoo", "ok", f"{zoo.path}: base {zoo.base.name}, modules {names}"), *damaged]


def check_disk(zoo: Zoo) -> Finding:
    """Whether one more module, stored as a copy, would fit beside those there are."""
    held = sum(module.disk_bytes for module in zoo.modules())
    free = shutil.disk_usage(zoo.path).free
    found = f"modules take {amount(held)}; {amount(free)} free"
    if free >= zoo.base.weight_bytes:
        return Finding("disk", "ok", found)
    advice = (
        f"one more module takes up to {amount(zoo.base.weight_bytes)}: free some space, or add it with --store delta"
    )
    return Finding("disk", "warn", found, advice)


def check_config(zoo: Zoo | None) -> tuple[FleetOptions, list[Finding]]:
    """The options that `psserve launch` takes without flags, and how the zoo's fleet.toml is, if it has one."""
    if zoo is None or not (zoo.path / FILE_NAME).exists():
        return FleetOptions(), []
    try:
        options = load_options(zoo.path, None, Flags())
    except UsageError as error:
        return FleetOptions(), [Finding(FILE_NAME, "fail", str(error))]
    return options, [Finding(FILE_NAME, "ok", f"{zoo.path / FILE_NAME} is understood")]


def check_plan(zoo: Zoo | None, options: FleetOptions, machine: Machine) -> list[Finding]:
    """Whether the fleet of `options` could be planned on this machine. Its port has a check of its own."""
    if zoo is None or not zoo.modules():
        return []
    any_port = options.model_copy(update={"router": options.router.model_copy(update={"port": 0})})
    try:
        plan = make_plan(zoo, any_port, keys=client_keys(options, zoo.path), machine=machine)
    except PsserveError as error:
        return [Finding("plan", "fail", str(error))]
    devices = ", ".join(sorted({server.device for server in plan.servers}))
    total = amount(sum(server.memory.total_bytes for server in plan.servers))
    return [Finding("plan", "ok", f"{len(plan.servers)} servers on {devices}, {total} for weights and KV cache")]
