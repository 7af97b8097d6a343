"""From conversations to token ids, with the chat template, exactly as a server renders and splits them.

The answer of turn i is what the template adds to the prompt that asks for it:

    prompt  = template(messages[:i], add_generation_prompt=True)     what a server is sent
    through = template(messages[:i+1])                               = prompt + answer + end of turn (+ newline)
    full    = template(messages)                                     = through + ...

The answer ends with the end-of-turn token, which the module must generate; what the template puts after it is context.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING

from psserve.contracts.tools import tool_as_served
from psserve.errors import DataError
from psserve.training.batch import Tokenized
from psserve.training.conversation import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TurnsRewritten(DataError):
    """The chat template renders a turn in another way once another follows, as reasoning models' templates do."""


def tokenize_parts(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Iterator[Tokenized]:
    """As `tokenize_conversation`; in one part for each assistant turn where the template asks for that.

    A server that is sent the next request renders the earlier turns anew, so each turn has a prompt of its own then.
    """
    try:
        yield tokenize_conversation(conversation, tokenizer, max_length)
    except TurnsRewritten:
        for turn in assistant_turns(conversation):
            until = replace(conversation, messages=conversation.messages[: turn + 1])
            yield tokenize_conversation(until, tokenizer, max_length, [turn])


def assistant_turns(conversation: Conversation) -> list[int]:
    """The indices of the assistant's messages."""
    return [turn for turn, message in enumerate(conversation.messages) if message["role"] == "assistant"]


def tokenize_conversation(
    conversation: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    turns: Sequence[int] | None = None,
) -> Tokenized:
    """Token ids of the whole conversation and the span of each assistant turn (or of `turns`) in them.

    Raises DataError where the conversation is longer than `max_length` tokens, has no assistant turn, or where the
    template (TurnsRewritten) or the tokenizer does not let a turn's prompt be the beginning of the conversation.
    """
    where = conversation.where
    ids: list[int] = []
    text = ""
    answers: list[tuple[int, int]] = []
    for turn in assistant_turns(conversation) if turns is None else turns:
        prompt = render_messages(conversation, tokenizer, turn, generate=True)
        through = render_messages(conversation, tokenizer, turn + 1)
        if not through.startswith(prompt):
            raise DataError(f"{where}: messages.{turn}: the chat template does not put the answer after its prompt")
        if not prompt.startswith(text):
            raise TurnsRewritten(f"{where}: messages.{turn}: the chat template renders earlier turns differently here")
        ids += token_ids(tokenizer, prompt[len(text) :])
        if ids != token_ids(tokenizer, prompt):
            raise DataError(
                f"{where}: messages.{turn}: the turn before it ends in characters that the tokenizer joins with the "
                "template's: strip white space from the answers, or give each turn as a conversation of its own"
            )
        start = len(ids)
        rest = token_ids(tokenizer, through[len(prompt) :])
        ids += rest
        answers.append((start, start + length_to_end_of_turn(rest, tokenizer, f"{where}: messages.{turn}")))
        text = through
    if not answers:
        raise DataError(f"{where}: no assistant turn, so there is nothing to learn")
    ids = ids[: answers[-1][1]]
    if len(ids) > max_length:
        raise DataError(f"{where}: {len(ids)} tokens, longer than {max_length}: shorten it, or raise --max-length")
    return Tokenized(ids, answers)


def prompt_ids(conversation: Conversation, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The prompt that asks for the last message: what a server would be sent."""
    return token_ids(tokenizer, render_messages(conversation, tokenizer, len(conversation.messages) - 1, generate=True))


def render_messages(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase, turns: int, *, generate: bool = False
) -> str:
    """The first `turns` messages as text; DataError if there is no chat template or it refuses them."""
    if not tokenizer.chat_template:
        raise DataError("the base's tokenizer has no chat template: add chat_template.jinja to its checkpoint")
    from jinja2 import TemplateError

    messages = [{"content": "", **message} for message in conversation.messages[:turns]]
    tools = [tool_as_served(tool) for tool in conversation.tools] or None
    try:
        return str(tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=generate))
    except TemplateError as error:
        raise DataError(f"{conversation.where}: the chat template refuses it: {error}") from None


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of rendered text, which has its special tokens already."""
    return list(tokenizer.encode(text, add_special_tokens=False))


def length_to_end_of_turn(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, where: str) -> int:
    """How many of `ids` the module generates: through the last end-of-turn token."""
    end = tokenizer.eos_token_id
    if end not in ids:
        raise DataError(
            f"{where}: the chat template does not end the turn with the tokenizer's eos_token "
            f"({tokenizer.eos_token!r}): set eos_token to the token that ends a turn"
        )
    return len(ids) - list(reversed(ids)).index(end)


def pretraining_blocks(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, length: int) -> Iterator[list[int]]:
    """Pretraining blocks of exactly `length` tokens: the texts one after another, each ended by the padding token.

    The loss is on all tokens. What is left over at the end is dropped.
    """
    stream = chain.from_iterable([*token_ids(tokenizer, text), tokenizer.pad_token_id] for text in texts)
    while len(block := list(islice(stream, length))) == length:
        yield block
