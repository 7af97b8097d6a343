"""The policies' view of prompts, made without tokenizing."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.router.placement.prompt_key import BLOCK_BYTES, TextKeys, opening_of, prompt_bytes
from psserve.router.policies import Prompt

messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=200)}),
    min_size=1,
    max_size=6,
)
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]


async def key(**body: Any) -> Prompt:
    return await TextKeys().prompt(body)


@settings(deadline=None)
@given(messages, messages)
def test_a_conversation_that_goes_on_begins_with_the_same_bytes(first: list[Any], more: list[Any]) -> None:
    assert prompt_bytes({"messages": first + more}).startswith(prompt_bytes({"messages": first}))


async def test_the_order_of_a_message_s_fields_does_not_matter() -> None:
    one, other = {"role": "user", "content": "x" * 100}, {"content": "x" * 100, "role": "user"}
    assert await key(messages=[one]) == await key(messages=[other])


async def test_offered_tools_come_first_and_those_that_are_not_offered_do_not_count() -> None:
    chat = [{"role": "user", "content": "x" * 200}]
    plain = await key(messages=chat)
    assert plain.blocks[0] != (await key(messages=chat, tools=TOOLS)).blocks[0]
    assert plain == await key(messages=chat, tools=TOOLS, tool_choice="none")


async def test_salted_prompts_share_nothing() -> None:
    views = [await key(prompt="x" * 300, **salt) for salt in ({}, {"cache_salt": "a"}, {"extra_key": "a"})]
    assert len({view.blocks[0] for view in views}) == 3


async def test_token_ids_are_counted_and_not_estimated() -> None:
    keys = TextKeys()
    for _ in range(100):
        keys.learn({"prompt": "x"}, await keys.prompt({"prompt": "x" * 1000}), 1000)
    view = await keys.prompt({"prompt": list(range(100))})
    assert (view.tokens, view.block_tokens, len(view.blocks)) == (100, BLOCK_BYTES / 4, 100 * 4 // BLOCK_BYTES)


@settings(deadline=None)
@given(messages, messages)
def test_the_opening_stays_as_a_conversation_goes_on(first: list[Any], more: list[Any]) -> None:
    first = [*first, {"role": "user", "content": "hello"}]
    assert opening_of({"messages": first + more}) == opening_of({"messages": first})


def test_the_opening_tells_conversations_with_one_system_prompt_apart() -> None:
    system = {"role": "system", "content": "s" * 5_000}
    chats = [{"messages": [system, {"role": "user", "content": text}]} for text in ("one", "other")]
    assert opening_of(chats[0]) != opening_of(chats[1])


def test_the_opening_of_a_prompt_is_its_beginning() -> None:
    assert opening_of({"prompt": "x" * 5_000}) == opening_of({"prompt": "x" * 6_000})
    assert opening_of({"prompt": [1] * 5_000}) == opening_of({"prompt": [1] * 6_000})
    assert opening_of({"prompt": "short"}) != opening_of({"prompt": "shorter"})
