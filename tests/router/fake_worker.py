"""A worker that keeps SGLang's HTTP contract without a model: a real server on loopback, scripted to misbehave.

A decode worker answers only once the prefill worker it was paired with served the same room, and the other way round.
Tokens of a text are its characters; an answer is `max_tokens` words that name the module or its adapter,
or the first alternative of a regular expression.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from aiohttp import web

from tests.ports import own_ports
from tests.router.fake_chat import finish_of, message_of, scripted

CHAT_FIELDS = (
    "messages", "tools", "tool_choice", "parallel_tool_calls", "chat_template_kwargs", "reasoning_effort",
    "max_completion_tokens",
)  # fmt: skip
Fault = Literal[
    "hang",  # accepts and never answers
    "hang_paired",  # the same, once its partner has got what it needs
    "hang_mid_stream",  # one event, then nothing
    "reset",  # closes the connection instead of answering
    "reset_mid_stream",  # one event, then closes the connection
    "status_500",
    "unhandled",  # 500 too: SGLang's front met an exception over this body
    "long_unhandled",  # the same, in more bytes than arrive at a time
    "overloaded",  # 503
    "status_400",
    "grammar",  # 400: it does not compile, and SGLang does not say which field it is from
    "too_long",
    "validation",  # FastAPI's refusal, which quotes the body
    "abort",  # 200 with finish_reason abort
    "error_event",  # an error event under 200, before any token
    "long_error_event",  # one of more bytes than arrive at a time, about the client's fault
    "hang_before_done",  # everything but the end of a stream
    "late_end",  # a stream's connection stays a while after its last event
    "error_mid_stream",  # one token, then an error event
    "wrong_count",  # prompt_tokens off by one
    "not_json",
    "no_usage",
]


@dataclass
class Fabric:
    """Where legs meet: one event pair a room."""

    rooms: dict[int, dict[str, asyncio.Event]] = field(default_factory=dict)

    def meet(self, room: int) -> dict[str, asyncio.Event]:
        return self.rooms.setdefault(room, {"prefill": asyncio.Event(), "decode": asyncio.Event()})


@dataclass
class FakeWorker:
    """One server. `faults` holds what the next requests of users meet; probes are always served."""

    name: str
    role: Literal["prefill", "decode"]
    fabric: Fabric
    module: str | None = None
    key: str = "worker-secret"
    port: int = 0
    bootstrap_port: int = 0
    cached_tokens: int = 0
    faults: deque[Fault] = field(default_factory=deque)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    fail_probes: Fault | None = None
    fail_further: Fault | None = None
    """What probes meet that ask for more than one greedy token."""
    probe_bodies: list[dict[str, Any]] = field(default_factory=list)
    probes: int = 0
    asked_loads: int = 0
    metrics_page: str = ""
    proceed: asyncio.Event = field(default_factory=asyncio.Event)
    """A stream with a fault waits for this after its first event."""
    later_system: Literal["in_place", "leaves_out", "refuses"] = "in_place"
    """What its template does with a system message after the first message."""
    tokenizing: deque[int] = field(default_factory=deque)
    """Statuses of the next answers about tokens; 200 when there are no more."""
    unloadable: set[str] = field(default_factory=set)
    """Adapters that it fails to load, also for probes."""
    questions: int = 0
    """How often it was asked for a sign of life."""
    _awake: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    def freeze(self) -> None:
        """Accept everything and answer nothing, as a server whose scheduler is stopped."""
        self._awake.clear()

    def thaw(self) -> None:
        self._awake.set()

    async def start(self) -> None:
        """Listen; on the same port as before after a stop."""
        self._awake.set()
        app = web.Application()
        app.router.add_post("/v1/completions", self._generate)
        app.router.add_post("/v1/chat/completions", self._generate)
        app.router.add_post("/v1/tokenize", self._tokenize)
        app.router.add_post("/v1/detokenize", self._detokenize)
        app.router.add_post("/abort_request", self._abort)
        app.router.add_get("/v1/loads", self._loads)
        app.router.add_get("/server_info", self._server_info)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        # SGLang too binds with SO_REUSEADDR: a restart on the same port works at once.
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.port = self.port or own_ports(1)[0]  # nobody else takes it while this one is down
        sock.bind(("127.0.0.1", self.port))
        self.bootstrap_port = self.bootstrap_port or self.port + 1
        await web.SockSite(self._runner, sock).start()

    async def stop(self) -> None:
        """Die: close every connection and the port."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _abort(self, request: web.Request) -> web.Response:
        self._check_key(request)
        self.aborted.append((await request.json())["rid"])
        return web.Response()

    async def _tokenize(self, request: web.Request) -> web.Response:
        self._check_key(request)
        await self._awake.wait()
        self.bodies.append(body := await request.json())
        if self.tokenizing and (status := self.tokenizing.popleft()) != 200:
            return sglang_error(status, "It cannot tell now.")
        if isinstance(prompt := body.get("prompt"), list):
            ids = [list(text.encode()) for text in prompt]
            return web.json_response({"tokens": ids, "count": [*map(len, ids)], "max_model_len": 10**30})
        messages = body.get("messages") or ()
        later = [message for message in messages[1:] if message["role"] == "system"]
        if later and self.later_system == "refuses":
            return sglang_error(400, "System message must be at the beginning.")
        if later and self.later_system == "leaves_out":
            body = body | {"messages": [message for message in messages if message not in later]}
        count = prompt_tokens(body)
        tokens = list(prompt.encode()) if prompt is not None else [0] * count
        return web.json_response({"tokens": tokens, "count": count, "max_model_len": 10**30})

    async def _detokenize(self, request: web.Request) -> web.Response:
        self._check_key(request)
        await self._awake.wait()
        tokens = (await request.json())["tokens"]
        text = [bytes(ids).decode() for ids in tokens] if isinstance(tokens[0], list) else bytes(tokens).decode()
        return web.json_response({"text": text})

    async def _server_info(self, request: web.Request) -> web.Response:
        self._check_key(request)
        self.questions += 1
        await self._awake.wait()
        return web.json_response({})

    async def _loads(self, request: web.Request) -> web.Response:
        self._check_key(request)
        self.asked_loads += 1
        load = {"num_running_reqs": len(self.running), "num_waiting_reqs": 0}
        return web.json_response({"loads": [load | {"num_used_tokens": 320, "max_total_num_tokens": 2048}]})

    async def _metrics(self, request: web.Request) -> web.Response:
        response = web.Response(text=self.metrics_page)
        response.enable_compression()  # for who accepts it, as SGLang does
        return response

    def _check_key(self, request: web.Request) -> None:
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            raise web.HTTPUnauthorized

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        self._check_key(request)
        body = await request.json()
        is_probe = isinstance(body.get("prompt"), list) and body["model"] == "base" and body.get("max_tokens") == 1
        is_probe = is_probe and len(body["prompt"]) == 4
        if not is_probe:
            self.bodies.append(body)
            self.headers.append(dict(request.headers))
        fault = self.faults.popleft() if self.faults and not is_probe else None
        if is_probe:
            self.probe_bodies.append(body)
            fault = self.fail_further if {"regex", "top_p"} & body.keys() else self.fail_probes
        self.probes += is_probe
        rid = body["rid"]
        assert len(rid) == 32
        self.running.add(rid)
        try:
            await self._awake.wait()
            if (early := await self._fail_early(request, fault, body)) is not None:
                return early
            await self._pair(body)
            body = understood(request.path, body)
            limit = body.get("max_completion_tokens", body.get("max_tokens", 16))
            return await self._answer(request, body | {"max_tokens": limit}, fault)
        finally:
            self.running.discard(rid)

    async def _pair(self, body: dict[str, Any]) -> None:
        """Meet the other leg of the room."""
        assert isinstance(body["bootstrap_host"], str)
        assert isinstance(body["bootstrap_port"], int)
        assert 0 < body["bootstrap_room"] < 2**63
        room = self.fabric.meet(body["bootstrap_room"])
        assert not room[self.role].is_set(), "a room was used twice"
        room[self.role].set()
        await room["decode" if self.role == "prefill" else "prefill"].wait()

    async def _fail_early(self, request: web.Request, fault: Fault | None, body: dict[str, Any]) -> web.Response | None:
        if (adapter := body.get("lora_path")) in self.unloadable:
            return sglang_error(400, f"Failed to implicitly load LoRA adapter {adapter}: /zoo/secret: wrong shapes")
        if fault == "hang":
            await asyncio.Event().wait()
        if fault == "reset":
            assert request.transport is not None
            request.transport.abort()
        if fault == "status_500":
            return sglang_error(500, "KVTransferError: /internal/path secret stack")
        if fault == "unhandled":
            return sglang_error(500, "Internal server error: 'bool' object has no attribute 'get'")
        if fault == "long_unhandled":
            return sglang_error(500, f"Internal server error: {'x' * 500_000}")
        if fault == "overloaded":
            return sglang_error(503, "The request queue is full.")
        if fault == "status_400":
            return sglang_error(400, "Failed to compile the grammar")
        if fault == "grammar":
            return sglang_error(400, "Failed to compile json grammar: [19:26:11] /project/cpp/x.cc:10: a loop")
        if fault == "too_long":
            return sglang_error(400, "The input (9 tokens) is longer than the model's context length (8 tokens).")
        if fault == "validation":
            detail = [{"type": "int_type", "loc": ("body", "messages", 0), "msg": "Input should be ok", "input": body}]
            return sglang_error(400, str(detail))
        return None

    async def _answer(self, request: web.Request, body: dict[str, Any], fault: Fault | None) -> web.StreamResponse:
        if fault == "hang_paired":
            await asyncio.Event().wait()
        if fault == "not_json":
            return web.Response(text="<html>")
        usage = self._usage(body, fault)
        if body.get("stream"):
            return await self._stream(request, body, usage, fault)
        choice = self._choice(body, self._text(body), "abort" if fault == "abort" else "length")
        if deltas := scripted(body):
            choice["message"] = message_of(deltas)
        if fault != "abort":
            choice |= finish_of(body, deltas)
        document = self._identity(body) | {"choices": [choice]}
        if fault != "no_usage":
            document["usage"] = usage
        return web.json_response(document)

    async def _stream(
        self, request: web.Request, body: dict[str, Any], usage: dict[str, Any], fault: Fault | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)

        async def send(document: dict[str, Any]) -> None:
            await response.write(b"data: " + orjson.dumps(document) + b"\n\n")

        error = {"error": {"object": "error", "message": "scheduler /internal secret", "code": 500}}
        if fault == "error_event":
            await send(error)
            return response
        if fault == "long_error_event":
            await send({"error": {"message": f"Failed to compile regex grammar: {'x' * 500_000}", "code": 400}})
            return response
        if deltas := scripted(body):
            for delta in deltas:
                await send(self._identity(body) | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
            choice = {"index": 0, "delta": {}, **finish_of(body, deltas)}
            await send(self._identity(body) | {"choices": [choice]})
        for number, word in enumerate([] if deltas else self._text(body).split()):
            last = number == body.get("max_tokens", 16) - 1
            reason = ("abort" if fault == "abort" else "length") if last else None
            choice = self._choice(body, word + " ", reason)
            await send(
                self._identity(body) | {"choices": [choice | finish_of(body, []) if reason == "length" else choice]}
            )
            if fault == "hang_mid_stream":
                await asyncio.Event().wait()
            if fault not in (None, "hang_before_done", "late_end") and body.get("max_tokens", 16) > 1:
                await self.proceed.wait()
            if fault == "reset_mid_stream":
                assert request.transport is not None
                request.transport.abort()
                return response
            if fault == "error_mid_stream":
                await send(error)
                return response
        if body.get("stream_options", {}).get("include_usage") and fault != "no_usage":
            await send(self._identity(body) | {"choices": [], "usage": usage})
        if fault == "hang_before_done":
            await asyncio.Event().wait()
        await response.write(b"data: [DONE]\n\n")
        if fault == "late_end":
            await asyncio.sleep(0.1)
        return response

    def _usage(self, body: dict[str, Any], fault: Fault | None) -> dict[str, Any]:
        count = prompt_tokens(body)
        if self.role == "prefill" and count > 1:
            count -= 1
        if fault == "wrong_count":
            count += 1
        completion = 1 if self.role == "prefill" else body.get("max_tokens", 16)
        usage: dict[str, Any] = {
            "prompt_tokens": count,
            "completion_tokens": completion,
            "total_tokens": count + completion,
            "prompt_tokens_details": None,
            "reasoning_tokens": 0,
        }
        if self.cached_tokens:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        return usage

    def _identity(self, body: dict[str, Any]) -> dict[str, Any]:
        kind = "chat.completion" if "messages" in body else "text_completion"
        chunk = ".chunk" if body.get("stream") and "messages" in body else ""
        return {"id": body["rid"], "object": kind + chunk, "created": 1764000000, "model": body["model"]}

    def _text(self, body: dict[str, Any]) -> str:
        if "regex" in body:
            return str(body["regex"].strip("()").partition("|")[0])
        return " ".join([f"{body.get('lora_path', self.module)}-{body.get('seed', 0)}"] * body.get("max_tokens", 16))

    def _choice(self, body: dict[str, Any], text: str, reason: str | None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason, "logprobs": None}
        if "messages" not in body:
            return choice | {"text": text}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": text, "logprob": math.log(0.5)}]}
        message = {"role": "assistant", "content": text}
        return choice | ({"delta": message} if body.get("stream") else {"message": message})


def understood(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The body without the fields of the other endpoint, which mean nothing here and may be anything."""
    others = ("prompt",) if path.endswith("/chat/completions") else CHAT_FIELDS
    return {name: value for name, value in body.items() if name not in others}


def prompt_tokens(body: dict[str, Any]) -> int:
    """Tokens of a body's prompt: ids, or characters of everything that shapes it."""
    if "messages" in body:
        tools = body.get("tools") if body.get("tool_choice") != "none" else None
        if isinstance(choice := body.get("tool_choice"), dict):
            tools = [tool for tool in body["tools"] if tool["function"]["name"] == choice["function"]["name"]]
        return len(orjson.dumps([body["messages"], tools or None, body.get("chat_template_kwargs")]))
    prompt = body["prompt"]
    assert isinstance(prompt, str) or all(isinstance(token, int) for token in prompt), "batches do not reach workers"
    return len(prompt)


def sglang_error(status: int, message: str) -> web.Response:
    """SGLang's flat error body."""
    body = {"object": "error", "message": message, "type": "Error", "param": None, "code": status}
    return web.json_response(body, status=status)
