"""The endpoints that generate: OpenAI's chat completions, completions and responses, and Anthropic's messages."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from psserve.router.access.body import json_response, read_body
from psserve.router.access.clients import CLIENT
from psserve.router.answers.answer import generate_answer
from psserve.router.answers.generation import parse_generation
from psserve.router.answers.given import Answers
from psserve.router.answers.one_call import OneCallEvents, wants_one_call, with_one_call
from psserve.router.answers.streaming import Events, stream_answer
from psserve.router.apis.dialect import Translation
from psserve.router.apis.messages_answer import MessagesTranslation
from psserve.router.apis.messages_request import OWN_FIELDS
from psserve.router.apis.responses_answer import ResponsesTranslation
from psserve.router.body.checks import Body
from psserve.router.body.fields import ROUTE_PATHS, Route, check_body
from psserve.router.body.given import has_answers
from psserve.router.body.headers import deadlines_of, handling_of
from psserve.router.body.load import load_body
from psserve.router.observability.exchange import EXCHANGE
from psserve.router.state import STATE
from psserve.router.task_routing.routing import AUTO
from psserve.router.workers.tasks import Deadline

routes = web.RouteTableDef()


@routes.post(ROUTE_PATHS["chat"])
async def chat_completions(request: web.Request) -> web.StreamResponse:
    return await _generate(request, "chat")


@routes.post(ROUTE_PATHS["completions"])
async def completions(request: web.Request) -> web.StreamResponse:
    return await _generate(request, "completions")


@routes.post("/v1/responses")
async def responses(request: web.Request) -> web.StreamResponse:
    return await _generate(request, "chat", "responses", ResponsesTranslation)


@routes.post("/v1/messages")
async def messages(request: web.Request) -> web.StreamResponse:
    return await _generate(request, "chat", "messages", MessagesTranslation, OWN_FIELDS)


async def _generate(
    request: web.Request,
    route: Route,
    name: str | None = None,
    translate: Callable[[Body], Translation] | None = None,
    taken: frozenset[str] = frozenset(),
) -> web.StreamResponse:
    """Answer on `route`; `name` is the endpoint's in log and metrics, `translate` makes chat bodies of its own form.

    `taken`: fields of that form that other endpoints refuse.
    """
    state = request.app[STATE]
    exchange = request[EXCHANGE]
    exchange.route = name or route
    raw = await read_body(request, state.config.limits)
    deadlines = deadlines_of(request.headers, state.config.request_timeout_s, state.config.first_byte_timeout_s)
    body = load_body(raw, state.config.limits, taken)
    translation = translate(body) if translate is not None else None
    if translation is not None:
        body = translation.chat
    check_body(route, body, state.config)
    handling = handling_of(request.headers, body, deadlines)
    answers: Answers = ()
    async with Deadline(deadlines.begin_by):
        if route == "chat":
            body = await state.roles.fit(body)
        if body.get("model") == AUTO:
            await _choose_module(request, body)
        if route == "completions" and has_answers(body):
            await state.lengths.check(body)
            body, answers = await state.given.cut(body)
    generation = parse_generation(route, body, state.config, state.table, handling, answers)
    request[CLIENT].require(generation.module.name)
    is_single = route == "chat" and wants_one_call(body)
    exchange.accept(generation.module)
    exchange.read_tokens = generation.read_tokens
    exchange.on_gap = state.metrics.sequences.gap.labels(exchange.module).observe
    with (
        state.table.hold(generation.module),
        state.metrics.inflight.track_inprogress(),
        state.activity.follow(exchange),
        state.shadows.beside(generation, exchange) as listener,
    ):
        async with Deadline(deadlines.begin_by):
            await state.lengths.check(body)
        if generation.stream:
            events = translation.events() if translation is not None else Events()
            if is_single:
                events = OneCallEvents(events)
            if listener is not None:
                events = listener.between(events)
            response = await stream_answer(state.dispatcher, generation, exchange, request, events, deadlines.end_by)
        else:
            answer = await generate_answer(state.dispatcher, generation, exchange)
            if listener is not None:
                listener.hear(answer)
            if is_single:
                answer = with_one_call(answer)
            response = json_response(translation.answer(answer) if translation is not None else answer)
    if (usage := exchange.usage) is not None and not answers:
        state.admission.outputs.learn(exchange.module, usage["completion_tokens"] / len(generation.sequences))
    return response


async def _choose_module(request: web.Request, body: Body) -> None:
    """Name the module that `body` leaves to us, where that is on. Raises RequestError."""
    state, client = request.app[STATE], request[CLIENT]
    if state.tasks is None:
        return
    await state.lengths.check(body)
    task = await state.tasks.choose(body, request.headers, client.key.name, client.may_use)
    request[EXCHANGE].task = task
    body["model"] = task.module
