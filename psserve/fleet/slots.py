"""The servers that options ask for, before they have a device, memory and ports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from psserve.fleet.layout import decode_name
from psserve.fleet.options import FleetOptions
from psserve.fleet.server_options import ServerOptions
from psserve.zoo import Base


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One server to be."""

    role: Literal["prefill", "decode"]
    name: str
    module: str | None
    """None: the base, on a prefill server."""
    checkpoint: Path
    options: ServerOptions
    replica: int
    """Which one of its role or module, from 0: decides which of the given GPUs it gets."""
    table: str
    """Where fleet.toml speaks of it, for messages."""
    port: int | None = None
    """The port that the options give it; None: a free one."""
    bootstrap_port: int | None = None


def prefill_slots(base: Base, options: FleetOptions) -> list[Slot]:
    """The servers that run the base."""
    wanted = options.prefill
    return [
        Slot(
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
        for i in range(wanted.replicas)
    ]


def module_slots(
    module: str, aliases: Sequence[str], checkpoint: Path, options: FleetOptions, edition: int = 1
) -> list[Slot]:
    """The servers of one module: `decode-NAME-0`, `decode-NAME-1`, ..."""
    wanted = options.of_module(module, *aliases)
    own = next((f"module.{name}" for name in (module, *aliases) if name in options.module), "decode")
    return [
        Slot(
            role="decode",
            name=decode_name(module, i, edition),
            module=module,
            checkpoint=checkpoint,
            options=wanted,
            replica=i,
            table=options.table(own),
            port=_nth(wanted.ports, i),
        )
        for i in range(wanted.replicas)
    ]


def spare_slots(base: Base, options: FleetOptions) -> list[Slot]:
    """Servers that only take up room, for those that live changes start."""
    return [
        Slot(
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
