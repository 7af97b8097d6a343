"""Options that say which models a benchmark's systems serve, and with what."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psserve.errors import UsageError
from psserve.fleet.options.options import FleetOptions

from .model_options import field_option
from .options import typed_options

if TYPE_CHECKING:
    from psserve.bench.systems.system import SystemSpec

_NAMES = (
    *("kv_tokens", "context_length", "device", "dtype", "transfer", "page_size"),
    *("prefill", "threads", "cores_by_role", "adapters", "engine_args", "start_timeout_secs"),
)
_SYSTEMS_OF = {"adapters": ("lora",), "prefill": ("shared", "one-pool")}
"""Of the options that are not for all systems."""
_OPTIONS = (
    click.option(
        "--kv-tokens",
        type=click.IntRange(1),
        default=65536,
        show_default=True,
        help="KV cache of all servers of a system together.",
    ),
    click.option("--context-length", type=click.IntRange(2), help="Longest prompt and answer [default: the base's]."),
    *(field_option(FleetOptions, name, default="auto") for name in ("device", "dtype", "transfer")),
    click.option("--page-size", type=click.IntRange(1), default=16, show_default=True, help="Tokens of a KV page."),
    click.option("--prefill", type=click.IntRange(1), default=1, show_default=True, help="`shared`: prefill servers."),
    click.option("--threads", type=click.IntRange(1), help="Of a server, on CPU [default: its share of the cores]."),
    click.option("--cores-by-role", is_flag=True, help="On CPU: half for prefill servers, half for decode servers."),
    click.option("--adapter", "adapters", multiple=True, metavar="MODULE=DIR", help="`lora`: a module's adapter."),
    click.option(
        "--engine-arg",
        "engine_args",
        multiple=True,
        metavar="ARG",
        help="One more argument for all SGLang servers, as in --engine-arg=--attention-backend --engine-arg=triton.",
    ),
    click.option("--start-timeout-secs", type=click.FloatRange(0, min_open=True), default=600, show_default=True),
)


def system_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator: the options, passed as `spec`, a function of zoo and modules that makes a SystemSpec."""

    @functools.wraps(command)
    def collected(**values: Any) -> Any:
        own = {name: values.pop(name) for name in _NAMES}
        return command(spec=functools.partial(_spec, own), **values)

    for option in reversed(_OPTIONS):
        collected = option(collected)
    return collected


def check_system_options(ctx: click.Context, started: Sequence[str]) -> None:
    """Raise UsageError if an option of these, or --zoo, was typed that is for none of the systems `started`."""
    unused = [name for name in (*_NAMES, "zoo_dir") if not set(_SYSTEMS_OF.get(name, started)).intersection(started)]
    if typed := typed_options(ctx, of=unused):
        systems = ", ".join(started) or "none"
        raise UsageError(f"{', '.join(typed)}: not for the systems that are started here, which are: {systems}")


def _spec(values: dict[str, Any], zoo: Path, modules: tuple[str, ...]) -> SystemSpec:
    from psserve.bench.systems.system import SystemSpec

    if values["transfer"] == "shared":
        raise UsageError("--transfer shared is a system of its own here: --system one-pool")
    adapters = dict(_adapter(text) for text in values["adapters"])
    if others := sorted(adapters.keys() - set(modules)):
        raise UsageError(f"--adapter {others[0]}={adapters[others[0]]}: the modules are: {', '.join(modules)}")
    taken = {name: values[name] for name in ("kv_tokens", "context_length", "device", "dtype", "transfer", "page_size")}
    return SystemSpec(
        zoo=zoo,
        modules=modules,
        prefill_servers=values["prefill"],
        threads=values["threads"],
        cores_by_role=values["cores_by_role"],
        adapters=adapters,
        args=values["engine_args"],
        start_timeout_s=values["start_timeout_secs"],
        **taken,
    )


def _adapter(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or not Path(folder).is_dir():
        raise UsageError(f"--adapter {text}: give MODULE=DIR, with a folder in PEFT's layout")
    return name, Path(folder)
