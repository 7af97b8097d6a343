"""Texts as tokens and back: `/tokenize`, `/detokenize`, and how many a message of Anthropic's form has.

A decode server of the module answers, so the tokens are those that it would be given. Nothing is generated.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from psserve.contracts.router_config import ModuleConfig, RouterConfig
from psserve.router.access.body import json_response, read_body
from psserve.router.access.clients import CLIENT
from psserve.router.answers.generation import served_module
from psserve.router.apis.dialect import Document, refuse_unknown
from psserve.router.apis.messages_request import OWN_FIELDS, count_body
from psserve.router.body.chat import offered_tools
from psserve.router.body.checks import Body, check_bool, check_token_ids, invalid, missing
from psserve.router.body.fields import TOKENIZE_FIELDS, check_body
from psserve.router.body.headers import deadlines_of
from psserve.router.body.load import load_body
from psserve.router.body.messages import with_readable_calls
from psserve.router.body.thinking import toggled
from psserve.router.observability.exchange import EXCHANGE
from psserve.router.state import STATE
from psserve.router.task_routing.routing import AUTO
from psserve.router.workers.tasks import Deadline

DETOKENIZE_FIELDS = ("model", "tokens", "skip_special_tokens")

routes = web.RouteTableDef()


@routes.post("/tokenize")
@routes.post("/v1/tokenize")
async def tokenize(request: web.Request) -> web.Response:
    """Token ids of a prompt, of each of several, or of a chat as the template renders it."""
    body, deadline = await _begin(request, "tokenize")
    _check_tokenize(body, request.app[STATE].config)
    answer = await _count(request, body, deadline)
    return json_response(answer | {"max_model_len": request.app[STATE].config.base.context_length})


@routes.post("/detokenize")
@routes.post("/v1/detokenize")
async def detokenize(request: web.Request) -> web.Response:
    """The text of a list of token ids, or of each of several."""
    body, deadline = await _begin(request, "detokenize")
    _check_detokenize(body, request.app[STATE].config.base.vocab_size)
    async with deadline:
        return json_response(await _ask(request, "/v1/detokenize", body))


@routes.post("/v1/messages/count_tokens")
async def count_tokens(request: web.Request) -> web.Response:
    body, deadline = await _begin(request, "count_tokens", OWN_FIELDS)
    body = count_body(body)
    check_body("tokenize", body, request.app[STATE].config)
    answer = await _count(request, body, deadline)
    return json_response({"input_tokens": answer["count"]})


async def _begin(request: web.Request, name: str, taken: frozenset[str] = frozenset()) -> tuple[Body, Deadline]:
    """The body, and the deadline of the request, which begins now. Raises RequestError."""
    request[EXCHANGE].route = name
    config = request.app[STATE].config
    raw = await read_body(request, config.limits)
    deadlines = deadlines_of(request.headers, config.request_timeout_s, config.first_byte_timeout_s)
    return load_body(raw, config.limits, taken), Deadline(deadlines.end_by)


async def _count(request: web.Request, body: Body, deadline: Deadline) -> Document:
    """The tokens of a checked body's texts or chat. Raises RequestError."""
    async with deadline:
        body = await request.app[STATE].roles.fit(body)
        return await _ask(request, "/v1/tokenize", _rendered_alike(body))


def _check_tokenize(body: Body, config: RouterConfig) -> None:
    refuse_unknown(body, TOKENIZE_FIELDS, {})
    if ("prompt" in body) == ("messages" in body):
        raise invalid("prompt", "give either prompt or messages")
    check_body("tokenize", body, config)


def _rendered_alike(body: Body) -> Body:
    """A checked body's messages, tools and switches as the two legs get them."""
    if "messages" not in body:
        return body
    return body | {"messages": with_readable_calls(body["messages"])} | offered_tools(body) | toggled(body)


def _check_detokenize(body: Body, vocab_size: int) -> None:
    refuse_unknown(body, DETOKENIZE_FIELDS, {})
    check_bool(body, "skip_special_tokens")
    if "tokens" not in body:
        raise missing("tokens")
    tokens = body["tokens"]
    is_batch = isinstance(tokens, list) and bool(tokens) and isinstance(tokens[0], list)
    for ids in tokens if is_batch else [tokens]:
        check_token_ids(ids, "tokens", vocab_size)


def _module_for(name: Any, request: web.Request) -> ModuleConfig:
    """The module that `model` names; of `auto` any that the client may use: their tokens are the same, the base's.

    Raises RequestError (400, 403, 404).
    """
    state, client = request.app[STATE], request[CLIENT]

    def is_ready(module: ModuleConfig) -> bool:
        return any(worker.serves(module) for worker in state.table.decodes_of(module))

    usable = [module for module in state.config.modules if client.may_use(module.name)]
    if name == AUTO and state.tasks is not None and usable:
        return max(usable, key=is_ready)  # the first of them, if one is
    module = served_module(name, state.table)
    client.require(module.name)
    return module


async def _ask(request: web.Request, path: str, body: Body) -> Document:
    """The answer of a decode server of the body's module. Raises RequestError."""
    state = request.app[STATE]
    module = _module_for(body.get("model"), request)
    request[EXCHANGE].module = module.name
    await state.lengths.check(body, at_once=True)
    _, decodes = state.routing.candidates(module)
    worker = min(decodes, key=lambda worker: worker.running)
    return await state.upstream.ask(worker, path, body)
