"""Plans of simulated machines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from psserve.fleet import FleetPlan, make_plan
from psserve.fleet.options.config_file import Flags, overlaid, validated
from psserve.fleet.options.key_file import ClientKeys
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.nvidia import Gpu

GIB = 1024**3
TOKEN_BYTES = 2 * 4 * 2 * 16 * 2
"""Of the fake zoo's base in bfloat16."""
HOPPER = (9, 0)
CPU = Machine(2, 24 * GIB, 20 * GIB, ())
TWO_GPUS = replace(CPU, gpus=(Gpu(0, "H100", 80 * GIB, 80 * GIB, HOPPER), Gpu(1, "H100", 80 * GIB, 40 * GIB, HOPPER)))
SHELL = {
    "PATH": "/bin",
    "OPENAI_API_KEY": "secret",
    "SGLANG_TEST_RETRACT": "true",
    "DUMPER_SERVER_PORT": "1",
    "LC_ALL": "C",
}


def gpus(count: int, gib: int = 80) -> Machine:
    """A machine of equal, empty GPUs."""
    return replace(CPU, gpus=tuple(Gpu(i, "H100", gib * GIB, gib * GIB, HOPPER) for i in range(count)))


def plan(
    zoo: Any,
    machine: Machine = CPU,
    document: dict[str, Any] | None = None,
    *,
    api_key: str | None = None,
    **flags: Any,
) -> FleetPlan:
    """A plan of fleet.toml's content with flags over it (`prefill__replicas=2`), the router on a free port."""
    given = Flags(
        kv_tokens=flags.pop("kv_tokens", None),
        env=flags.pop("env", {}),
        args=flags.pop("args", ()),
        values={"router.port": 0} | {key.replace("__", "."): value for key, value in flags.items()},
    )
    options = validated(overlaid(document or {}, given))
    return make_plan(zoo, options, keys=ClientKeys(plain=api_key), machine=machine, environ=SHELL)


def value_of(command: tuple[str, ...], flag: str) -> str:
    """What follows a flag on a command line."""
    return command[command.index(flag) + 1]
