"""Texts that no context holds are refused before any server gets them; what may fit goes on."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from psserve.contracts.router_config import BaseConfig
from psserve.errors import RequestError
from psserve.router.placement.text_length import TextLengths, longest_token
from tests.router.conftest import Fleet

CONTEXT = 10_000
LONGEST = 8  # of the tokens below


@pytest.fixture
def base(tmp_path: Path) -> BaseConfig:
    """A tokenizer of single bytes, and one token of eight letters."""
    vocab = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("a", "a"), ("aa", "aa"), ("aaaa", "aaaa")]
    vocab |= {left + right: 256 + number for number, (left, right) in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return BaseConfig(name="base", path=str(tmp_path), vocab_size=512, context_length=CONTEXT)


def chat(content: Any, role: str = "user", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content}]} | fields


async def refused(base: BaseConfig, body: dict[str, Any], **options: Any) -> str | None:
    """The field that is refused."""
    try:
        await TextLengths(base).check(body, **options)
    except RequestError as error:
        return error.param if (error.status, error.code) == (400, "context_length_exceeded") else str(error)
    return None


TOOL = {"type": "function", "function": {"name": "f", "description": "b" * 30_000}}
CALL = {"function": {"name": "f", "arguments": "b" * 30_000}}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "a" * (LONGEST * CONTEXT)}, None),
        ({"prompt": "a" * (LONGEST * CONTEXT + 1)}, "prompt"),
        ({"prompt": "b" * 30_000}, "prompt"),  # fewer characters, and each a token
        ({"prompt": ["a", "b" * 30_000]}, "prompt"),
        ({"prompt": ["b" * 9_000] * 8}, None),  # a server for each
        ({"prompt": [1] * 9_000}, None),
        (chat("a" * (LONGEST * CONTEXT + 1)), "messages"),
        (chat([{"type": "text", "text": "b" * 15_000}] * 2), "messages"),
        (chat("x" * 30_000 + "</think>b", role="assistant"), None),  # templates drop it
        (chat(None, role="assistant", tools=[TOOL]), "messages"),
        (chat("hi", tools=[TOOL], tool_choice="none"), None),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [CALL]}]}, "messages"),
    ],
)
async def test_what_no_context_holds_is_refused(base: BaseConfig, body: dict[str, Any], param: str | None) -> None:
    assert await refused(base, body) == param


async def test_a_batch_that_one_server_gets_counts_as_a_whole(base: BaseConfig) -> None:
    assert await refused(base, {"prompt": ["b" * 9_000] * 8}, at_once=True) == "prompt"


async def test_nothing_is_measured_without_a_tokenizer(base: BaseConfig, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    document = json.loads(file.read_text())
    unknown = document | {"pre_tokenizer": None, "decoder": None}  # all that it does not know is one token
    for text in (json.dumps(unknown), "{", "[]", '{"model": {"vocab": []}}'):
        file.write_text(text)
        assert longest_token(file) is None
        assert await refused(base, {"prompt": "b" * 10**6}) is None


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/messages", "/v1/tokenize"])
async def test_no_server_gets_it(make_fleet: Callable[..., Awaitable[Fleet]], base: BaseConfig, path: str) -> None:
    fleet = await make_fleet(base=base.model_dump())
    text = "ab " * 1_000_000
    part = {"prompt": text} if path in ("/v1/completions", "/v1/tokenize") else chat(text)
    body = {"model": "math"} | part | ({"max_tokens": 2} if path != "/v1/tokenize" else {})
    status, answer, _ = await fleet.post(path, body)
    assert status == 400
    assert "3000000 characters" in answer["error"]["message"]
    assert not fleet.math.bodies
    assert not fleet.prefill.bodies
