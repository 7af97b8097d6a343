"""The HTTP client and a conversation, against a scripted router."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from psserve.cli.chat import command
from psserve.errors import FleetError, UnknownModule
from psserve.fleet.chat.chat import Chat
from psserve.fleet.run.router_client import RouterClient


class Script(BaseHTTPRequestHandler):
    """Answers every chat with `lines`, and keeps the requests."""

    lines: ClassVar[list[str]] = []
    status: ClassVar[int] = 200
    requests: ClassVar[list[dict[str, Any]]] = []
    keys: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self._answer(200, json.dumps({"data": [{"id": "math"}, {"id": "code"}]}))

    def do_POST(self) -> None:
        Script.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        Script.keys.append(self.headers["Authorization"])
        self._answer(Script.status, "".join(f"{line}\n\n" for line in Script.lines))

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


def delta(text: str) -> str:
    return "data: " + json.dumps({"choices": [{"delta": {"content": text}}]})


ENDED = 'data: {"choices": [{"delta": {}, "finish_reason": "length"}]}'
USAGE = "data: " + json.dumps(
    {
        "choices": [],
        "usage": {
            "prompt_tokens": 50,
            "completion_tokens": 16,
            "prompt_tokens_details": {"cached_tokens": 40},
        },
    }
)


@pytest.fixture
def url() -> Iterator[str]:
    Script.lines = [delta("Hel"), delta("lo"), ENDED, USAGE, "data: [DONE]"]
    Script.status, Script.requests, Script.keys = 200, [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Script)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_answer_comes_in_pieces(url: str) -> None:
    assert list(Chat(RouterClient(url), "code").say("hi")) == ["Hel", "lo"]
    (request,) = Script.requests
    assert (request["model"], request["messages"]) == ("code", [{"role": "user", "content": "hi"}])
    assert (request["stream"], request["stream_options"]) == (True, {"include_usage": True})


def test_facts_of_an_answer(url: str) -> None:
    talk = Chat(RouterClient(url), "code")
    list(talk.say("hi"))
    assert talk.last is not None
    assert talk.last.facts().startswith("prompt 50 tokens, 40 cached (80%); answer 16, first in ")
    assert talk.last.facts().endswith("cut at the length limit")


def test_no_facts_where_the_server_says_none(url: str) -> None:
    Script.lines = ["data: [DONE]"]
    talk = Chat(RouterClient(url), "code")
    assert list(talk.say("hi")) == []
    assert talk.last is not None
    assert talk.last.facts() == ""


def test_system_message_goes_first_and_outlives_clear(url: str) -> None:
    talk = Chat(RouterClient(url), "code")
    talk.system = "Be brief."
    list(talk.say("hi"))
    talk.clear()
    list(talk.say("again"))
    assert [[turn["content"] for turn in request["messages"]] for request in Script.requests] == [
        ["Be brief.", "hi"],
        ["Be brief.", "again"],
    ]


def test_turns_are_kept_over_a_switch(url: str) -> None:
    talk = Chat(RouterClient(url), None)
    list(talk.say("hi"))
    talk.switch("code")
    list(talk.say("again"))
    assert [request["model"] for request in Script.requests] == ["math", "code"]
    assert [turn["content"] for turn in Script.requests[1]["messages"]] == ["hi", "Hello", "again"]


def test_broken_answer_is_an_error_and_no_turn(url: str) -> None:
    talk = Chat(RouterClient(url), "math")
    Script.lines = [delta("Hel")]
    with pytest.raises(FleetError, match="broke off"):
        list(talk.say("hi"))
    Script.lines = ["data: [DONE]"]
    list(talk.say("hi"))
    assert len(Script.requests[1]["messages"]) == 1


def test_error_event_is_an_error(url: str) -> None:
    Script.lines = ['data: {"error": {"message": "module down"}}']
    with pytest.raises(FleetError, match="module down"):
        list(Chat(RouterClient(url), "math").say("hi"))


def test_refusal_shows_the_servers_words(url: str) -> None:
    Script.status, Script.lines = 503, ['{"error": {"message": "math is down"}}']
    with pytest.raises(FleetError, match="math is down"):
        list(Chat(RouterClient(url), "math").say("hi"))


def test_unknown_model_lists_the_known(url: str) -> None:
    with pytest.raises(UnknownModule, match="no model poems; it has: math, code"):
        Chat(RouterClient(url), "poems")


def test_nobody_there_is_an_error() -> None:
    with pytest.raises(FleetError, match=r"no answer from http://127\.0\.0\.1:1: "):
        RouterClient("http://127.0.0.1:1").workers()


def test_command_reads_lines_from_a_pipe(url: str) -> None:
    lines = "hi\n/model code\nagain\n/quit\nnever\n"
    result = CliRunner().invoke(command, ["--url", url, "--api-key", "k", "--max-tokens", "5"], input=lines)
    assert result.stdout == "Hello\nHello\n"
    assert [(request["model"], request["max_tokens"]) for request in Script.requests] == [("math", 5), ("code", 5)]
    assert Script.keys == ["Bearer k", "Bearer k"]


def test_a_thought_is_shown_and_forgotten(url: str) -> None:
    thoughts = [
        "data: " + json.dumps({"choices": [{"delta": {"reasoning_content": text}}]}) for text in ("Let me ", "see.")
    ]
    Script.lines = [*thoughts, delta("42"), ENDED, USAGE, "data: [DONE]"]
    talk, heard = Chat(RouterClient(url), "math"), []
    assert list(talk.say("12 + 30?", heard.append)) == ["42"]
    assert heard == ["Let me ", "see."]
    assert list(talk.say("sure?")) == ["42"]
    assert Script.requests[-1]["messages"][1] == {"role": "assistant", "content": "42"}
