"""The aiohttp application: routes, and the one border that every request passes on its way in and out."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic

from aiohttp import web

from psserve.contracts.router_config import RouterConfig
from psserve.errors import RequestError
from psserve.router.access.body import json_response
from psserve.router.apis.messages_answer import error_body as anthropic_error
from psserve.router.dashboard import routes as dashboard
from psserve.router.endpoints import drain, generate, info, tokens
from psserve.router.endpoints.gate import enter, metered, tell_rates
from psserve.router.observability.exchange import Exchange, new_exchange
from psserve.router.observability.log import request_line
from psserve.router.siblings import SIBLINGS, Siblings
from psserve.router.state import STATE, RouterState

SOME = 1 << 16
CLIENT_LEFT = 499  # in log and metrics only, as nginx has it

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger("psserve.router")


def make_app(config: RouterConfig, siblings: Siblings | None = None) -> web.Application:
    """A router for `config`, or the process of one that has `siblings`.

    Its worker connections and probes live from the app's startup to its cleanup.
    """
    app = web.Application(middlewares=[border], client_max_size=config.limits.body_bytes)
    app.on_response_prepare.append(tell_rates)
    app[SIBLINGS] = siblings or Siblings()
    app.cleanup_ctx.append(_run_router(config))
    app.add_routes(info.routes)
    app.add_routes(drain.routes)
    app.add_routes(dashboard.routes)
    app.add_routes(generate.routes)
    app.add_routes(tokens.routes)
    return app


def _run_router(config: RouterConfig) -> Callable[[web.Application], AsyncIterator[None]]:
    async def context(app: web.Application) -> AsyncIterator[None]:
        state = RouterState.create(config, _first_turn(config, app[SIBLINGS]))
        app[STATE] = state
        probing = asyncio.create_task(state.prober.run())
        await app[SIBLINGS].open(info.told_to_siblings(state) | dashboard.told_to_siblings(state))
        yield
        await app[SIBLINGS].close()
        probing.cancel()
        await state.close()

    return context


def _first_turn(config: RouterConfig, siblings: Siblings) -> int:
    """Which of equal servers is first, another one for each process: those of one machine know which they are."""
    return siblings.number + (secrets.randbelow(SOME) if config.replicas > 1 else 0)


@web.middleware
async def border(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses who may not enter, turns every error into OpenAI's form, and records how the request went."""
    exchange = new_exchange(request)
    state = request.app[STATE]
    status = CLIENT_LEFT
    with state.tracing.request(request, exchange):
        try:
            response = await _answer(request, handler, exchange)
            status = response.status
            return response
        finally:
            code = exchange.code = exchange.failed or str(status)
            # Not before the answer is on its way: its client need not wait for our notes.
            asyncio.get_running_loop().call_soon(_record, state, exchange, status, code)


def _record(state: RouterState, exchange: Exchange, status: int, code: str) -> None:
    """Take note of a request that was answered with `status`. Endpoints that only tell are counted, not logged.

    `code` is the status, or the code of an error inside a stream.
    """
    now = monotonic()
    state.metrics.answered(exchange, code, now)
    if exchange.is_work:
        state.activity.end(exchange, code, now)
        log.info("%s", request_line(exchange, status, code, now))


async def _answer(request: web.Request, handler: Handler, exchange: Exchange) -> web.StreamResponse:
    try:
        enter(request)
        with metered(request):
            response = await handler(request)
    except RequestError as error:
        response = _error_response(request, error)
    except web.HTTPException as error:
        response = _error_response(request, _from_http(request, error))
        if isinstance(error, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = error.headers["Allow"]
    except ConnectionError:
        # The client left in the middle of a write; the legs are cancelled already.
        raise asyncio.CancelledError from None
    except Exception:  # the last line of defence: a bug of ours must still be an OpenAI-form answer
        log.exception("request=%s failed by a bug", exchange.request_id)
        if exchange.first_byte is not None:
            raise  # a stream has begun: aiohttp cuts the connection
        bug = RequestError(500, "internal error", type="server_error", code="internal_error")
        response = _error_response(request, bug)
    if not response.prepared:
        response.headers.update(exchange.headers())
    return response


def _error_response(request: web.Request, error: RequestError) -> web.Response:
    body = anthropic_error(error) if request.path.startswith("/v1/messages") else error.body()
    response = json_response(body, status=error.status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _from_http(request: web.Request, error: web.HTTPException) -> RequestError:
    """aiohttp's own refusals in our words."""
    if isinstance(error, web.HTTPNotFound):
        return RequestError(404, "no such URL; docs/api.md lists those of the API, all under /v1", code="unknown_url")
    if isinstance(error, web.HTTPMethodNotAllowed):
        return RequestError(405, f"{error.method} is not allowed here", code="method_not_allowed")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return RequestError(413, f"the body is larger than {request.client_max_size} bytes", code="request_too_large")
    return RequestError(error.status, error.reason, code="bad_request")
