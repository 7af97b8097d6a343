"""Bad requests get an error in OpenAI's form from the whole stack and harm nothing: a good one passes after each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import requests

from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from tests.e2e.clients import ask_all
from tests.e2e.fleet import RunningFleet, launched, wait_idle
from tests.e2e.oracle import Oracle
from tests.e2e.watching import ANSWER_WITHIN_S, check, error_of, pids

pytestmark = pytest.mark.e2e

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
CONTEXT, VOCABULARY = 1024, 512
PROMPT = list(range(100, 140))


def completion(**fields: Any) -> bytes:
    return orjson.dumps({"model": "alpha", "prompt": PROMPT, "max_tokens": 4, **fields})


def chat(**fields: Any) -> bytes:
    messages = [{"role": "user", "content": "hello"}]
    return orjson.dumps({"model": "alpha", "messages": messages, "max_tokens": 4, **fields})


WORDS = "many words " * CONTEXT
LONG_CHAT = [{"role": "user", "content": WORDS}]

CASES: dict[str, tuple[str, bytes, int, str | None]] = {
    "malformed": (COMPLETIONS, b'{"model": "alpha", "prompt": ', 400, "invalid_json"),
    "empty body": (CHAT, b"", 400, "invalid_json"),
    "not UTF-8": (CHAT, b'{"model": "\xff\xfe"}', 400, "invalid_json"),
    "a list": (CHAT, b"[]", 400, "invalid_type"),
    "null": (COMPLETIONS, b"null", 400, "invalid_type"),
    "infinity": (COMPLETIONS, b'{"model": "alpha", "prompt": "a", "temperature": Infinity}', 400, "invalid_json"),
    "deep": (COMPLETIONS, b'{"model": "alpha", "prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400, None),
    "no model": (COMPLETIONS, orjson.dumps({"prompt": "hello"}), 400, "missing_required_parameter"),
    "model is a number": (COMPLETIONS, completion(model=7), 400, None),
    "unknown model": (COMPLETIONS, completion(model="delta"), 404, "model_not_found"),
    "the base as a model": (CHAT, chat(model="qwen3-tiny"), 404, "model_not_found"),
    "a path as a model": (CHAT, chat(model="../alpha"), 404, "model_not_found"),
    "no prompt": (COMPLETIONS, orjson.dumps({"model": "alpha"}), 400, "missing_required_parameter"),
    "empty prompt": (COMPLETIONS, completion(prompt=""), 400, None),
    "empty ids": (COMPLETIONS, completion(prompt=[]), 400, None),
    "an empty prompt in a batch": (COMPLETIONS, completion(prompt=[[1, 2], []]), 400, None),
    "prompt is an object": (COMPLETIONS, completion(prompt={}), 400, None),
    "an id past the vocabulary": (COMPLETIONS, completion(prompt=[5, VOCABULARY]), 400, "invalid_value"),
    "a huge id": (COMPLETIONS, completion(prompt=[2**62]), 400, "invalid_value"),
    "a negative id": (COMPLETIONS, completion(prompt=[5, -1]), 400, "invalid_value"),
    "a bool among ids": (COMPLETIONS, completion(prompt=[5, True]), 400, "invalid_value"),
    "a float among ids": (COMPLETIONS, completion(prompt=[5, 6.0]), 400, "invalid_value"),
    "a bad id in a batch": (COMPLETIONS, completion(prompt=[PROMPT, [VOCABULARY]]), 400, "invalid_value"),
    "too many ids": (COMPLETIONS, completion(prompt=PROMPT * 30), 400, "context_length_exceeded"),
    "ids and answer too long": (COMPLETIONS, completion(max_tokens=CONTEXT - 39), 400, "context_length_exceeded"),
    "too long a text": (COMPLETIONS, completion(prompt=WORDS), 400, "context_length_exceeded"),
    "text and answer too long": (
        COMPLETIONS,
        completion(prompt="hello", max_tokens=CONTEXT),
        400,
        "context_length_exceeded",
    ),
    "too long a chat": (CHAT, chat(messages=LONG_CHAT), 400, "context_length_exceeded"),
    "chat and answer too long": (CHAT, chat(max_tokens=CONTEXT), 400, "context_length_exceeded"),
    "too long a stream": (COMPLETIONS, completion(prompt=WORDS, stream=True), 400, "context_length_exceeded"),
    "max_tokens 0": (COMPLETIONS, completion(max_tokens=0), 400, "invalid_value"),
    "max_tokens is text": (CHAT, chat(max_tokens="5"), 400, "invalid_value"),
    "temperature is text": (CHAT, chat(temperature="hot"), 400, "invalid_value"),
    "top_p 0": (CHAT, chat(top_p=0), 400, "invalid_value"),
    "n too large": (CHAT, chat(n=10**6), 400, "invalid_value"),
    "stream is text": (CHAT, chat(stream="yes"), 400, None),
    "a bias past the vocabulary": (CHAT, chat(logit_bias={str(VOCABULARY): 1}), 400, "invalid_value"),
    "a stop token past the vocabulary": (CHAT, chat(stop_token_ids=[VOCABULARY]), 400, "invalid_value"),
    "a schema that is none": (
        CHAT,
        chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}),
        400,
        None,
    ),
    "an invalid regex": (COMPLETIONS, completion(regex="("), 400, None),
    "an invalid grammar": (COMPLETIONS, completion(ebnf="root ::= ("), 400, None),
    "no messages": (CHAT, chat(messages=[]), 400, "empty_array"),
    "messages are text": (CHAT, chat(messages="hello"), 400, "invalid_type"),
    "an unknown role": (CHAT, chat(messages=[{"role": "wizard", "content": "a"}]), 400, "invalid_value"),
    "an image": (
        CHAT,
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]),
        400,
        "unsupported_content_type",
    ),
    "tools are text": (CHAT, chat(tools="hammer"), 400, "invalid_value"),
    "unknown URL": ("/v1/nothing", chat(), 404, "unknown_url"),
} | {
    f"internal field {name}": (COMPLETIONS, completion(**{name: value}), 400, "unsupported_parameter")
    for name, value in {
        "bootstrap_room": 7,
        "bootstrap_host": "127.0.0.1",
        "bootstrap_port": 9,
        "rid": "mine",
        "input_ids": [1],
        "input_embeds": [[0.0]],
        "lora_path": "/tmp",
        "session_params": {"id": "x"},
        "custom_logit_processor": "x",
        "return_hidden_states": True,
        "chat_template": "x",
    }.items()
}  # fmt: skip


@pytest.fixture(scope="module")
def oracle(oracle_of: Callable[[Architecture], Oracle]) -> Oracle:
    return oracle_of("qwen3")


@pytest.fixture(scope="module")
def fleet(zoo_of: Callable[[Architecture], Zoo]) -> Iterator[RunningFleet]:
    """It must be the same processes after the last request as before the first."""
    with launched(zoo_of("qwen3").path, "--modules", "alpha", "--context-length", str(CONTEXT)) as fleet:
        before = pids(fleet)
        yield fleet
        wait_idle(fleet)
        assert pids(fleet) == before


def post(fleet: RunningFleet, path: str, body: bytes, **headers: str) -> requests.Response:
    headers = {"Content-Type": "application/json"} | headers
    return requests.post(fleet.url + path, data=body, headers=headers, timeout=ANSWER_WITHIN_S)


@pytest.mark.parametrize("case", CASES)
def test_is_refused_and_harms_nothing(case: str, fleet: RunningFleet, oracle: Oracle) -> None:
    path, body, status, code = CASES[case]
    before = pids(fleet)
    answer = post(fleet, path, body)
    error = error_of(answer)
    assert answer.status_code == status, error
    assert code is None or error["code"] == code, error
    check(fleet, oracle, "alpha", PROMPT, 4)
    assert pids(fleet) == before


@pytest.mark.parametrize(
    ("grammar", "status"),
    [
        ({"json_schema": '{"$ref": "#"}'}, 400),
        ({"ebnf": "root ::= root"}, 400),
        ({"ebnf": 'root ::= "a" dead\ndead ::= dead'}, 400),
        ({"json_schema": '{"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}]}'}, 400),
        ({"json_schema": '{"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}'}, 200),
        ({"json_schema": '{"type": "string", "pattern": "^((a{1,99}){1,99}){1,99}$"}'}, 200),
        ({"regex": "((a{1,99}){1,99}){1,99}"}, 200),
        ({"regex": "(a+)+$"}, 200),
    ],
    ids=[
        *("empty schema", "empty grammar", "dead end", "schemas that overlap", "endless schema", "huge pattern"),
        *("huge regex", "catastrophic regex"),
    ],
)
def test_grammars_that_are_bombs_elsewhere_harm_nothing(
    grammar: dict[str, str], status: int, fleet: RunningFleet, oracle: Oracle
) -> None:
    before = pids(fleet)
    assert post(fleet, COMPLETIONS, completion(**grammar)).status_code == status
    check(fleet, oracle, "alpha", PROMPT, 4)
    assert pids(fleet) == before


def test_a_prompt_of_one_token_is_no_bad_input(fleet: RunningFleet, oracle: Oracle) -> None:
    check(fleet, oracle, "alpha", [77])


def test_a_prompt_close_to_the_context_passes(fleet: RunningFleet, oracle: Oracle) -> None:
    """SGLang itself keeps 6 tokens of the context back."""
    check(fleet, oracle, "alpha", (PROMPT * 30)[: CONTEXT - 16], 8)


def test_headers_that_steer_workers_stop_at_the_router(fleet: RunningFleet, oracle: Oracle) -> None:
    answer = post(
        fleet,
        CHAT,
        chat(temperature=0),
        **{"x-override-bootstrap-room": "1", "x-override-bootstrap-port": "9", "x-override-rid": "mine"},
    )
    assert answer.status_code == 200, answer.text
    check(fleet, oracle, "alpha", PROMPT, 4)


def test_official_clients_get_the_same_answer_by_every_api(fleet: RunningFleet) -> None:
    answers = ask_all(fleet.url, "alpha", "hello")
    assert len(set(answers.values())) == 1, answers


def test_tokens_are_those_that_a_prompt_is_answered_with(fleet: RunningFleet) -> None:
    text = post(fleet, "/detokenize", orjson.dumps({"model": "alpha", "tokens": PROMPT})).json()["text"]
    counted = post(fleet, "/tokenize", orjson.dumps({"model": "alpha", "prompt": text})).json()["count"]
    answer = post(fleet, COMPLETIONS, completion(prompt=text)).json()
    assert answer["usage"]["prompt_tokens"] == counted
