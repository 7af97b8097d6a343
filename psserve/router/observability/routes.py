"""`/metrics` and `/engine_metrics`, for Prometheus."""

from __future__ import annotations

from aiohttp import web

from psserve.router.state import STATE

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

routes = web.RouteTableDef()


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """The router's own."""
    return _page(request.app[STATE].metrics.render())


@routes.get("/engine_metrics")
async def engine_metrics(request: web.Request) -> web.Response:
    """Those of all SGLang servers, with the server's name as the label `worker`."""
    return _page(await request.app[STATE].engine_metrics.read())


def _page(body: bytes) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})
