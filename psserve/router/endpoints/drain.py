"""The endpoint that servers themselves ask, before they end: who runs them need not know the router."""

from __future__ import annotations

import hmac
import logging

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from psserve.errors import RequestError
from psserve.router.access.body import json_response, read_body
from psserve.router.state import STATE

DRAIN_PATH = "/workers/drain"
log = logging.getLogger("psserve.router")
routes = web.RouteTableDef()


class DrainRequest(BaseModel):
    """The body."""

    model_config = ConfigDict(extra="forbid")

    host: str
    """Where the servers are, as the router's configuration has it."""


@routes.post(DRAIN_PATH)
async def drain(request: web.Request) -> web.Response:
    """Give the servers of a host nothing new until they have ended, and tell how many requests they still have.

    For whoever has the worker key. To be asked again until none is left. Raises RequestError: 400, 401,
    and those of `read_body`.
    """
    state = request.app[STATE]
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(errors="surrogateescape"), state.config.worker_key.encode()):
        raise RequestError(401, "this is for servers, which have a key of their own", code="invalid_api_key")
    try:
        host = DrainRequest.model_validate_json(await read_body(request, state.config.limits)).host
    except ValidationError as error:
        raise RequestError(400, 'the body must be {"host": "NAME"}', code="bad_request") from error
    workers = [worker for worker in state.table.workers if worker.config.host == host]
    for worker in workers:
        if not worker.leaves:
            log.info("worker=%s leaves", worker.name)
        worker.leaves = True
    return json_response({"workers": len(workers), "running": sum(worker.running for worker in workers)})
