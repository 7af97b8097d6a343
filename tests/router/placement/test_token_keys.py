"""Prompts tokenized in the router have the tokens that Transformers, and so SGLang, would give them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve import torchvision_ops
from psserve.demo.tasks.tokenizer import write_demo_tokenizer
from psserve.errors import RequestError, UsageError
from psserve.router.placement.token_keys import TokenKeys
from psserve.router.policies.base import TOKEN_BYTES, blocks_of, token_bytes

PAGE = 4
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
TOOLS = [
    {"type": "function", "function": {"name": "add", "description": "Adds <two>.", "parameters": {"type": "object"}}}
]
CHAT = [
    {"role": "system", "content": "You add."},
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "2", "tool_call_id": "1"},
]
turns = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=40)}),
    min_size=1,
    max_size=5,
)


def _any_length(tokens: int, param: str) -> None:
    """Whatever comes is short enough."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base")
    write_demo_tokenizer(directory, ["some text to learn words from, 1 + 1 = 2"], 4096)
    return directory


@pytest.fixture(scope="module")
def keys(base: Path) -> TokenKeys:
    return TokenKeys(base, PAGE, _any_length)


@pytest.fixture(scope="module")
def reference(base: Path) -> Any:
    torchvision_ops.declare_missing()
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base)


@settings(deadline=None)
@given(turns)
def test_chats_have_the_tokens_of_transformers(keys: TokenKeys, reference: Any, chat: list[Any]) -> None:
    expected = reference.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert keys.tokens({"messages": chat}) == expected


def test_tools_and_calls_are_shown_as_sglang_shows_them(keys: TokenKeys, reference: Any) -> None:
    function = {"description": "Adds <two>.", "name": "add", "parameters": {"type": "object"}, "strict": False}
    shown = [dict(message) for message in CHAT]
    call = {"id": "1", "index": None, "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    shown[2] |= {"content": "", "tool_calls": [call]}
    tools = [{"type": "function", "function": function, "defer_loading": None}]
    expected = reference.apply_chat_template(shown, tools=tools, add_generation_prompt=True, return_dict=False)
    assert keys.tokens({"messages": CHAT, "tools": TOOLS}) == expected
    assert keys.tokens({"messages": CHAT, "tools": TOOLS, "tool_choice": "none"}) != expected


def test_text_parts_are_one_text_and_a_continued_answer_is_left_open(keys: TokenKeys) -> None:
    parts = [{"type": "text", "text": "1 +"}, {"type": "text", "text": "1?"}]
    one = keys.tokens({"messages": [{"role": "user", "content": parts}]})
    assert one == keys.tokens({"messages": [{"role": "user", "content": "1 + 1?"}]})
    chat = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "It is"}]
    assert keys.tokens({"messages": chat, "continue_final_message": True})[: len(one)] == one


async def test_blocks_are_pages_of_what_the_base_computes(keys: TokenKeys) -> None:
    view = await keys.prompt({"prompt": list(range(9))})
    assert (len(view.blocks), view.tokens) == (2, 8)
    assert view.blocks == blocks_of(token_bytes(range(8)), PAGE * TOKEN_BYTES)
    text = "1 + 1 = 2, some words"
    assert (await keys.prompt({"prompt": text})).tokens == len(keys.tokens({"prompt": text})) - 1


async def test_what_cannot_be_rendered_or_is_salted_is_known_nowhere(keys: TokenKeys) -> None:
    broken = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "x", "arguments": "{"}}]}
    for body in ({"messages": [broken]}, {"prompt": list(range(9)), "cache_salt": "s"}):
        view = await keys.prompt(body)
        assert view.blocks == ()
        assert view.tokens >= 1


async def test_tokenizing_leaves_the_event_loop_free(keys: TokenKeys) -> None:
    async with asyncio.TaskGroup() as group:
        work = group.create_task(keys.prompt({"prompt": "some words and more. " * 5_000}))
        rounds = 0
        while not work.done():
            await asyncio.sleep(0)
            rounds += 1
    assert rounds > 1


def test_a_base_without_tokenizer_json_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"tokenizer\.json"):
        TokenKeys(tmp_path, PAGE, _any_length)


@pytest.mark.parametrize(
    ("body", "param"),
    [({"prompt": "word " * 5000}, "prompt"), ({"messages": [{"role": "user", "content": "word " * 5000}]}, "messages")],
)
async def test_text_that_is_too_long_is_refused_before_a_server_sees_it(
    base: Path, body: dict[str, Any], param: str
) -> None:
    def refuse_long(tokens: int, param: str) -> None:
        if tokens > 4096:
            raise RequestError(400, "too long", param=param, code="context_length_exceeded")

    with pytest.raises(RequestError) as caught:
        await TokenKeys(base, PAGE, refuse_long).prompt(body)
    assert caught.value.param == param
