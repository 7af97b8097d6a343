"""Answers from a server: a fake one that renders, tokenizes and generates as the real fleet does."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext
from typing import Any

import pytest
from aiohttp import web

from psserve.contracts.tls import server_context
from psserve.errors import TrainingError
from psserve.training.answers import ReferenceAnswerer, pair_answerer
from psserve.training.conversation import Conversation
from psserve.training.fleet_answers import FleetAnswerer, openai_messages
from psserve.training.reference import ModelPair, reference_answer
from psserve.training.scorers import SCORERS, evaluate
from psserve.zoo import Zoo
from tests.certificates import certificate
from tests.waiting import PATIENCE_S

TOOLS = ({"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}},)
CALL = {"type": "function", "function": {"name": "add", "arguments": {"x": 1}}}
ITEMS = [
    *(
        Conversation(({"role": "user", "content": f"{n} + {n}?"}, {"role": "assistant", "content": "4"}))
        for n in range(6)
    ),
    Conversation(
        (
            {"role": "user", "content": "go"},
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "content": "2"},
            {"role": "assistant", "content": "It is 2."},
        ),
        TOOLS,
    ),
]


@dataclass
class FakeFleet:
    """Answers as `reference` would; or with `status` and `body` where they are set."""

    reference: ReferenceAnswerer
    status: int = 200
    body: Any = None
    seen: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    versions: list[str] = field(default_factory=list)
    """Of which version the next answers say they are; the others say nothing."""
    url: str = ""
    certificate: tuple[Path, Path] | None = None
    """It speaks TLS with this one (and its key)."""
    renew: Callable[[SSLContext], None] | None = None
    """Called before each answer, whose connection is then closed."""
    tls: SSLContext | None = None

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.seen.append(body)
        self.keys.add(request.headers.get("Authorization"))
        if self.body is not None:
            return web.json_response(self.body, status=self.status)
        messages = json.loads(json.dumps(body["messages"]))
        for call in (call for message in messages for call in message.get("tool_calls", [])):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])  # as SGLang does
        asked = Conversation((*messages, {"role": "assistant", "content": "?"}), tuple(body.get("tools", ())))
        [text] = self.reference.answer([asked], body["max_tokens"])
        headers = {"x-psserve-module-version": self.versions.pop(0)} if self.versions else None
        message = {"role": "assistant", "content": text, "tool_calls": None}
        response = web.json_response({"choices": [{"message": message}]}, headers=headers)
        if self.renew is not None and self.tls is not None:
            self.renew(self.tls)
            response.force_close()
        return response

    def serve(self, ready: threading.Event, stop: threading.Event) -> None:
        async def run() -> None:
            app = web.Application()
            app.router.add_post("/v1/chat/completions", self.chat)
            runner = web.AppRunner(app)
            await runner.setup()
            self.tls = None if self.certificate is None else server_context(*self.certificate)
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self.tls)
            await site.start()
            self.url = f"{'http' if self.tls is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}"
            ready.set()
            await asyncio.to_thread(stop.wait)
            await runner.cleanup()

        asyncio.run(run())


@pytest.fixture
def reference(zoo: Zoo, alpha: ModelPair) -> ReferenceAnswerer:
    return pair_answerer(zoo, alpha, batch_size=3)


@pytest.fixture
def fleet(reference: ReferenceAnswerer) -> Iterator[FakeFleet]:
    with running(FakeFleet(reference)) as fake:
        yield fake


@contextmanager
def running(fake: FakeFleet) -> Iterator[FakeFleet]:
    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=fake.serve, args=(ready, stop))
    thread.start()
    assert ready.wait(PATIENCE_S)
    try:
        yield fake
    finally:
        stop.set()
        thread.join()


def test_reference_answers_are_the_reference(reference: ReferenceAnswerer, alpha: ModelPair) -> None:
    from psserve.training.tokenization import prompt_ids

    for item, text in zip(ITEMS, reference.answer(ITEMS, 8), strict=True):
        ids = prompt_ids(item, reference.tokenizer)
        tokens = reference_answer(alpha.base, alpha.module, ids, 8, stop_ids=reference.stop_ids).tokens
        assert text == reference.tokenizer.decode(tokens, skip_special_tokens=True)


def with_answer(item: Conversation, text: str) -> Conversation:
    return Conversation((*item.prompt, {"role": "assistant", "content": text or "-"}), item.tools)


def test_both_ways_give_the_same_answers_and_score(reference: ReferenceAnswerer, fleet: FakeFleet) -> None:
    texts = reference.answer(ITEMS, 8)
    items = [with_answer(item, text) for item, text in zip(ITEMS[:4], texts, strict=False)] + ITEMS[4:]
    served = FleetAnswerer(fleet.url, "alpha", concurrency=3)
    assert served.answer(items, 8) == texts
    scores = [evaluate(way, items, SCORERS["exact"], 8) for way in (reference, served)]
    assert scores[0] == scores[1]
    assert scores[0].right >= 1


def test_requests_are_greedy_and_carry_the_key(fleet: FakeFleet) -> None:
    FleetAnswerer(fleet.url, "alpha", api_key="secret").answer(ITEMS[:1], 8)
    assert fleet.seen[0] | {"messages": None} == {"model": "alpha", "messages": None, "temperature": 0, "max_tokens": 8}
    assert fleet.keys == {"Bearer secret"}


def test_the_versions_that_answered_are_kept(fleet: FakeFleet) -> None:
    fleet.versions = ["1", "2", "1"]
    answerer = FleetAnswerer(fleet.url, "alpha")
    answerer.answer(ITEMS[:3], 4)
    assert answerer.versions == {"1", "2"}


def test_of_a_server_that_has_no_versions_nothing_is_known(fleet: FakeFleet) -> None:
    answerer = FleetAnswerer(fleet.url, "alpha")
    answerer.answer(ITEMS[:2], 4)
    assert answerer.versions == {None}


def test_calls_travel_as_openai_wants_them() -> None:
    messages = openai_messages(ITEMS[-1])
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == '{"x": 1}'
    assert messages[1]["tool_calls"][0]["id"] == messages[2]["tool_call_id"]
    assert "id" not in CALL


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, {"error": {"message": "no such model"}}, "no such model"),
        (503, "down", "status 503"),
        (200, {"choices": []}, "did not answer in OpenAI's form"),
        (200, "hello", "did not answer in OpenAI's form"),
    ],
)
def test_a_failed_request_fails_the_evaluation(fleet: FakeFleet, status: int, body: Any, message: str) -> None:
    fleet.status, fleet.body = status, body
    with pytest.raises(TrainingError, match=message):
        FleetAnswerer(fleet.url, "alpha").answer(ITEMS, 8)


def test_a_certificate_that_signs_itself_is_trusted_if_it_is_the_one_that_was_named(
    reference: ReferenceAnswerer, tmp_path: Path
) -> None:
    files = certificate(tmp_path)
    with running(FakeFleet(reference, certificate=files)) as fleet:
        assert FleetAnswerer(fleet.url, "alpha", certificate=files[0]).answer(ITEMS[:2], 4)
        other = certificate(tmp_path, "other")[0]
        for wrong, message in ((None, "no answer from"), (other, "no answer from"), (tmp_path / "x", "cannot be read")):
            with pytest.raises(TrainingError, match=message):
                FleetAnswerer(fleet.url, "alpha", certificate=wrong).answer(ITEMS[:2], 4)


def test_a_certificate_may_be_renewed_between_two_answers(reference: ReferenceAnswerer, tmp_path: Path) -> None:
    def renew(tls: SSLContext) -> None:
        tls.load_cert_chain(*certificate(tmp_path))

    files = certificate(tmp_path)
    with running(FakeFleet(reference, certificate=files, renew=renew)) as fleet:
        answers = FleetAnswerer(fleet.url, "alpha", concurrency=1, certificate=files[0]).answer(ITEMS[:3], 4)
    assert answers == reference.answer(ITEMS[:3], 4)


def test_no_server_is_an_error_in_one_line() -> None:
    with pytest.raises(TrainingError, match=r"no answer from http://127\.0\.0\.1:1"):
        FleetAnswerer("http://127.0.0.1:1", "alpha").answer(ITEMS, 8)
