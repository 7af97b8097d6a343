"""The endpoints that only tell: models, workers, health, version, metrics."""

from __future__ import annotations

from typing import Any

from aiohttp import web

import psserve
from psserve.contracts.router_config import ModuleConfig
from psserve.errors import RequestError
from psserve.router.access.body import json_response
from psserve.router.access.clients import CLIENT
from psserve.router.state import STATE, RouterState
from psserve.router.task_routing.routing import AUTO

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

routes = web.RouteTableDef()


@routes.get("/v1/models")
async def list_models(request: web.Request) -> web.Response:
    """Every module that the client may use, under its name and under each alias; and `auto`."""
    state = request.app[STATE]
    data = [
        _model_card(state, name, module)
        for module in state.config.modules
        if request[CLIENT].may_use(module.name)
        for name in (module.name, *module.aliases)
    ]
    if state.tasks is not None:
        data.append(_auto_card(state))
    return json_response({"object": "list", "data": data})


@routes.get("/v1/models/{id}")
async def show_model(request: web.Request) -> web.Response:
    state = request.app[STATE]
    name = request.match_info["id"]
    if name == AUTO and state.tasks is not None:
        return json_response(_auto_card(state))
    module = state.table.module(name)
    if module is None or not request[CLIENT].may_use(module.name):
        raise RequestError(404, f"the model {name!r} does not exist", param="model", code="model_not_found")
    return json_response(_model_card(state, name, module))


def _model_card(state: RouterState, name: str, module: ModuleConfig) -> dict[str, Any]:
    """`root` is the module behind an alias, by its name: as SGLang has it, and no path of this machine's."""
    return {
        "id": name,
        "object": "model",
        "created": module.created,
        "owned_by": "psserve",
        "root": module.name,
        "parent": state.config.base.name,
        "max_model_len": state.config.base.context_length,
    }


def _auto_card(state: RouterState) -> dict[str, Any]:
    """`auto` can be asked for like a model, so clients that offer a list to choose from must find it there."""
    return _model_card(state, AUTO, ModuleConfig(name=AUTO))


@routes.get("/health")
@routes.get("/liveness")
async def health(request: web.Request) -> web.Response:
    """The router itself answers."""
    return json_response({"status": "ok"})


@routes.get("/readiness")
async def readiness(request: web.Request) -> web.Response:
    """200 when requests can be served: at first those to any module, from then on those to one at least.

    503 before, and once a shutdown has begun.
    """
    state = request.app[STATE]
    if state.draining:
        return json_response({"status": "draining"}, status=503)
    waiting, failed = state.startup.look()
    if waiting or not state.table.is_usable():
        return json_response({"status": "not ready", "waiting_for": waiting, "failed": failed}, status=503)
    return json_response({"status": "ready"} | ({"failed": failed} if failed else {}))


@routes.get("/workers")
async def workers(request: web.Request) -> web.Response:
    """Every worker as the router sees it, adapters in use, and the serial of the configuration that it follows."""
    state = request.app[STATE]
    table = state.table
    return json_response(
        {"workers": table.describe(), "adapters": table.held_adapters(), "serial": state.config.serial}
    )


@routes.get("/version")
async def version(request: web.Request) -> web.Response:
    return json_response({"version": psserve.__version__})


@routes.get("/server_info")
async def server_info(request: web.Request) -> web.Response:
    """What is served and within which limits; no keys, no addresses."""
    config = request.app[STATE].config
    return json_response(
        {
            "version": psserve.__version__,
            "base": config.base.model_dump(),
            "modules": [module.model_dump(exclude={"examples"}) for module in config.modules],
            "request_timeout_s": config.request_timeout_s,
            "first_byte_timeout_s": config.first_byte_timeout_s,
            "kv_pool_tokens": config.kv_pool_tokens,
        }
    )


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """The router's own metrics."""
    return _page(request.app[STATE].metrics.render())


@routes.get("/engine_metrics")
async def engine_metrics(request: web.Request) -> web.Response:
    """The metrics of all SGLang servers, with the server's name as the label `worker`."""
    return _page(await request.app[STATE].engine_metrics.read())


def _page(body: bytes) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": METRICS_TYPE})
