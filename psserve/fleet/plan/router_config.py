"""What the router is told of a fleet (psserve/contracts/router_config.py): its modules, its servers, who may come."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from pydantic import ValidationError

from psserve.contracts.router_config import (
    BaseConfig,
    ModuleConfig,
    RouterConfig,
    RouterSettings,
    TaskRoutingConfig,
    WorkerConfig,
)
from psserve.errors import PlanError
from psserve.fleet.options.key_file import ClientKeys
from psserve.fleet.options.options import FleetOptions, RouterOptions
from psserve.fleet.plan.adapters import GROUP, adapter_name, base_shares_servers, shares_servers
from psserve.fleet.plan.spec import PlanBasis, ServerSpec
from psserve.fleet.plan.start_limit import start_limit_s
from psserve.fleet.plan.thinking import thinking_of
from psserve.zoo import Base, Module
from psserve.zoo.checkpoints.tokenizer import read_chat_template

_LEAST_START_S = 600.0
"""A restarted server of a fleet that starts gets a second try."""


def router_config(
    base: Base, basis: PlanBasis, modules: Sequence[Module], servers: Sequence[ServerSpec], port: int, keys: ClientKeys
) -> RouterConfig:
    """The whole of it, with new secrets: the worker key, and the operator's.

    Raises:
        PlanError: what is to be served does not fit together.
    """
    options = basis.options
    wanted = options.router
    settings = {name: getattr(wanted, name) for name in RouterSettings.model_fields}
    served = [module_config(module, options) for module in modules]
    if options.serve_base:
        group = GROUP if base_shares_servers(base, modules, options) else None
        served.append(ModuleConfig(name=base.name, path=str(base.path), group=group))
    try:
        return RouterConfig(
            **settings | {"port": port, "allowed_hosts": tuple(name.lower() for name in wanted.allowed_hosts)},
            api_key=keys.plain,
            keys=keys.keys,
            operator_key=secrets.token_hex(32),
            ssl_certfile=options.path(wanted.ssl_certfile),
            ssl_keyfile=options.path(wanted.ssl_keyfile),
            worker_key=secrets.token_hex(32),
            base=BaseConfig(
                name=base.name,
                path=str(base.path),
                vocab_size=base.vocab_size,
                context_length=basis.settings.context_length,
                kv_token_bytes=servers[0].memory.kv_token_bytes,
                thinking=thinking_of(read_chat_template(base.path)),
            ),
            modules=tuple(served),
            workers=tuple(worker_config(server) for server in servers),
            request_timeout_s=wanted.request_timeout_secs,
            first_byte_timeout_s=wanted.first_byte_timeout_secs,
            drain_timeout_s=wanted.drain_secs,
            start_timeout_s=max(_LEAST_START_S, start_limit_s(basis, servers)),
            kv_pool_tokens=min(
                server.memory.kv_tokens for server in servers if server.role == "prefill" or not basis.settings.one_pool
            ),
            one_pool=basis.settings.one_pool,
            page_size=basis.settings.page_size,
            task_routing=_task_routing(wanted),
        )
    except ValidationError as error:
        raise PlanError(f"the router cannot serve this: {error.errors(include_url=False)[0]['msg']}") from error


def module_config(module: Module, options: FleetOptions, version: int = 1) -> ModuleConfig:
    """A module of the zoo. `version` counts replacements of its weights in a running fleet."""
    shares = shares_servers(module, options)
    return ModuleConfig(
        name=module.name,
        aliases=module.aliases,
        task=module.task,
        examples=module.examples,
        created=module.created,
        path=str(module.path),
        version=version,
        zoo_version=module.version,
        group=GROUP if shares else None,
        adapter=adapter_name(module.name, version) if shares else None,
    )


def worker_config(server: ServerSpec, version: int = 1) -> WorkerConfig:
    """A planned server. `version`: that of its module."""
    return WorkerConfig(
        name=server.name,
        role=server.role,
        module=server.module,
        version=version,
        host=server.host,
        port=server.port,
        bootstrap_port=server.bootstrap_port,
        kv_tokens=server.memory.kv_tokens,
        max_running_requests=server.max_running_requests,
        kv_events=server.kv_events,
    )


def _task_routing(options: RouterOptions) -> TaskRoutingConfig | None:
    if options.task_classifier == "none":
        return None
    return TaskRoutingConfig(
        classifier=options.task_classifier, threshold=options.task_threshold, default_module=options.default_module
    )
