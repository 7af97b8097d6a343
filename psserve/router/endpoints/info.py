"""The endpoints that only tell: models, workers, health, version, metrics."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

import psserve
from psserve.contracts.router_config import ModuleConfig
from psserve.errors import RequestError
from psserve.router.access.body import json_response
from psserve.router.access.clients import CLIENT
from psserve.router.observability.engine_metrics import labelled_pages
from psserve.router.siblings import SIBLINGS, Tell, merged_views
from psserve.router.state import STATE, RouterState
from psserve.router.task_routing.routing import AUTO

READY = "ready"
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

    503 before, and once a shutdown has begun, in whichever process of the router.
    """
    others = await request.app[SIBLINGS].ask("/readiness")
    found = [_readiness(request.app[STATE]), *map(orjson.loads, others.values())]
    worst = next((one for one in found if one["status"] != READY), found[0])
    return json_response(worst, status=200 if worst["status"] == READY else 503)


def _readiness(state: RouterState) -> dict[str, Any]:
    if state.draining:
        return {"status": "draining"}
    waiting, failed = state.startup.look()
    if waiting or not state.table.is_usable():
        return {"status": "not ready", "waiting_for": waiting, "failed": failed}
    return {"status": READY} | ({"failed": failed} if failed else {})


@routes.get("/workers")
async def workers(request: web.Request) -> web.Response:
    """Every worker as the router sees it, adapters in use, and the serial of the configuration that it follows."""
    others = await request.app[SIBLINGS].ask("/workers")
    own = _view(request.app[STATE])
    return json_response(merged_views([own, *map(orjson.loads, others.values())]) if others else own)


def _view(state: RouterState) -> dict[str, Any]:
    """What this process knows."""
    table = state.table
    return {"workers": table.describe(), "adapters": table.held_adapters(), "serial": state.config.serial}


def told_to_siblings(state: RouterState) -> dict[str, Tell]:
    """What another process of the router may ask of this one, by path."""

    async def view() -> bytes:
        return orjson.dumps(_view(state))

    async def metrics() -> bytes:
        return state.metrics.render()

    async def readiness() -> bytes:
        return orjson.dumps(_readiness(state))

    return {"/workers": view, "/metrics": metrics, "/readiness": readiness}


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
    """The router's own metrics; of one that has several processes with the label `process`."""
    siblings, own = request.app[SIBLINGS], request.app[STATE].metrics.render()
    others = await siblings.ask("/metrics")
    pages = sorted({siblings.number: own, **others}.items())
    return _page(labelled_pages("process", ((str(n), page.decode()) for n, page in pages)) if others else own)


@routes.get("/engine_metrics")
async def engine_metrics(request: web.Request) -> web.Response:
    """The metrics of all SGLang servers, with the server's name as the label `worker`."""
    return _page(await request.app[STATE].engine_metrics.read())


def _page(body: bytes) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": METRICS_TYPE})
