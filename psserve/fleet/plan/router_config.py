"""What the router's configuration says of modules and servers (psserve/contracts/router_config.py reads it)."""

from __future__ import annotations

from typing import Any

from psserve.fleet.options.options import RouterOptions
from psserve.fleet.plan.spec import ServerSpec
from psserve.zoo import Base, Module


def base_entry(base: Base, context_length: int, kv_token_bytes: int) -> dict[str, Any]:
    """The entry of the base. `context_length`: tokens of prompt and answer together, as served."""
    return {
        "name": base.name,
        "path": str(base.path),
        "vocab_size": base.vocab_size,
        "context_length": context_length,
        "kv_token_bytes": kv_token_bytes,
    }


def module_entry(module: Module, edition: int = 1) -> dict[str, Any]:
    """The entry of a module under `modules`. `edition` counts replacements of its weights in a running fleet."""
    return {
        "name": module.name,
        "aliases": list(module.aliases),
        "task": module.task,
        "examples": list(module.examples),
        "created": module.created,
        "path": str(module.path),
        "edition": edition,
    }


def base_as_module(base: Base) -> dict[str, Any]:
    """The entry of the base under `modules`, where it is served too."""
    return {"name": base.name, "path": str(base.path)}


def task_routing_entry(options: RouterOptions) -> dict[str, Any] | None:
    """How modules are chosen for `model: "auto"`; None where that is off."""
    if options.task_classifier == "none":
        return None
    return {
        "classifier": options.task_classifier,
        "threshold": options.task_threshold,
        "default_module": options.default_module,
    }


def worker_entry(server: ServerSpec, edition: int = 1) -> dict[str, Any]:
    """The entry of a server under `workers`. `edition`: that of its module."""
    return {
        "name": server.name,
        "role": server.role,
        "module": server.module,
        "edition": edition,
        "host": server.host,
        "port": server.port,
        "bootstrap_port": server.bootstrap_port,
        "kv_tokens": server.memory.kv_tokens,
        "max_running_requests": server.max_running_requests,
        "kv_events": server.kv_events,
    }
