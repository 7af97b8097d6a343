"""Modules that are adapters: which of them share decode servers, and what these servers have room for.

A server of the group has the base's weights, and `slots` adapters on its device beside them; SGLang makes room for them
at its start, each as large as the largest adapter may be. More adapters are kept in main memory, up to `loaded`, and
all others are read from disk when they are asked for. How many modules there are costs a server nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psserve.errors import PlanError
from psserve.fleet.options.options import FleetOptions
from psserve.zoo import Base, Module
from psserve.zoo.disk.storage import read_json

GROUP = "adapters"
"""What servers and router have as the module of the servers that adapters share."""
LOADED_FOR_EACH = 4
"""Adapters kept in main memory for each that a batch may have, where nobody says."""


@dataclass(frozen=True, kw_only=True)
class AdapterRoom:
    """What a decode server of adapters has room for, from its start to its end."""

    rank: int
    """The highest."""
    targets: tuple[str, ...]
    """Names of the layers that adapters may change."""
    in_batch: int
    """Adapters that one batch may have."""
    loaded: int
    """Adapters in main memory, at most."""
    slot_bytes: int
    """Of one adapter on the server's device."""
    loaded_bytes: int
    """Of the largest adapter in main memory."""

    @property
    def slots(self) -> int:
        """Adapters on the device: those of a batch, and the base, which takes a slot too."""
        return self.in_batch + 1

    @property
    def device_bytes(self) -> int:
        return self.slots * self.slot_bytes

    @property
    def main_bytes(self) -> int:
        return self.loaded * self.loaded_bytes

    def why_no_room(self, module: Module) -> str | None:
        """Why a server with this room cannot serve an adapter; None if it can."""
        assert module.adapter is not None
        shape = module.adapter
        if shape.rank > self.rank:
            return f"its rank is {shape.rank}, and the servers of adapters were started for {self.rank} at most"
        if more := sorted(set(shape.targets) - set(self.targets)):
            return f"it changes {', '.join(more)}, and the servers of adapters were started for {_listed(self.targets)}"
        return None


def shares_servers(module: Module, options: FleetOptions) -> bool:
    """Whether a module is served as an adapter, beside others."""
    return module.shares_servers and not options.of_module(module.name, *module.aliases).own_server


def adapter_name(module: str, version: int) -> str:
    """What servers know a version of a module by. Never used for anything else while a fleet lives."""
    return f"{module}@{version}"


def base_shares_servers(base: Base, modules: Iterable[Module], options: FleetOptions) -> bool:
    """Whether the base is served as a module by the servers of adapters, which have its weights."""
    wanted = options.serve_base and base.name not in options.module
    return wanted and any(shares_servers(module, options) for module in modules)


def room_for(base: Base, modules: Iterable[Module], options: FleetOptions, number_bytes: int) -> AdapterRoom:
    """What servers need for these modules, which are adapters, computing with numbers of so many bytes."""
    shapes = [module.adapter for module in modules if module.adapter is not None]
    wanted = options.adapters
    rank = max(wanted.max_rank or 1, *(shape.rank for shape in shapes))
    targets = tuple(sorted(set(wanted.targets).union(*(shape.targets for shape in shapes))))
    return AdapterRoom(
        rank=rank,
        targets=targets,
        in_batch=wanted.max_loras_per_batch,
        loaded=wanted.max_loaded or LOADED_FOR_EACH * wanted.max_loras_per_batch,
        slot_bytes=rank * _width(base, targets) * base.num_layers * number_bytes,
        loaded_bytes=max(shape.bytes for shape in shapes),
    )


def check_adapters(
    base: Base,
    modules: Sequence[Module],
    options: FleetOptions,
    *,
    served: Iterable[str] = (),
    group_runs: bool = False,
) -> None:
    """Check that each module is served in one way, and the group's name is no module's.

    `modules`: those to be served, beside the ones of `served` and the servers of adapters that run, if any do
    (`group_runs`).

    Raises:
        PlanError: a table asks for servers of a module that has none of its own, or a module is called as the group.
    """
    sharing = {module.name for module in modules if shares_servers(module, options)}
    for module in modules:
        own = next((name for name in (module.name, *module.aliases) if name in options.module), None)
        if own is None or module.name not in sharing:
            continue
        if keys := options.module[own].model_fields_set - {"own_server"}:
            raise PlanError(
                f"{options.table(f'module.{own}')}.{min(keys)}: {module.name} is an adapter and shares the servers of"
                " adapters: set it in [adapters], or give the module servers of its own with own_server = true"
            )
    if (sharing or group_runs) and GROUP in {base.name, *served, *(module.name for module in modules)}:
        raise PlanError(f"a module is called {GROUP}, as the servers that adapters share: rename it")


def _width(base: Base, targets: Iterable[str]) -> int:
    """The values that one rank of an adapter has in a layer of the model: inputs and outputs of what it changes."""
    config = read_json(base.path / "config.json")
    hidden, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    queries, keys = int(config["num_attention_heads"]) * base.head_dim, base.num_kv_heads * base.head_dim
    widths = {
        "q_proj": hidden + queries,
        "k_proj": hidden + keys,
        "v_proj": hidden + keys,
        "o_proj": queries + hidden,
        "gate_proj": hidden + inner,
        "up_proj": hidden + inner,
        "down_proj": inner + hidden,
        "qkv_proj": 3 * hidden + queries + 2 * keys,  # servers have its input's matrix once for each of the three
        "gate_up_proj": 2 * hidden + 2 * inner,
        "lm_head": -(-(hidden + base.vocab_size) // base.num_layers),  # it is there once
    }
    return sum(widths[target] for target in targets)


def _listed(targets: Sequence[str]) -> str:
    return ", ".join(targets)


def check_shipped(rooms: Iterable[AdapterRoom | None], options: FleetOptions) -> None:
    """Raise PlanError if servers of adapters, who read these at any time, are to run on machines without the zoo."""
    if options.cluster is not None and options.cluster.files == "ship" and any(room is not None for room in rooms):
        raise PlanError(
            f'{options.table("cluster")}.files = "ship": modules that are LoRA adapters are read while servers run, and'
            " are not sent: set own_server = true for each, or share the files"
        )
