"""The context of one session as it is sent: chat messages, or token ids.

How long texts and the chat template are in tokens, which messages need, `measure_chat_sizes` learns from the server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from psserve.bench.load.endpoints import Sender
from psserve.bench.load.texts import CalibratedTexts, Texts, TokenizedTexts, words
from psserve.bench.session import Session, Step
from psserve.errors import BenchError


class Context(Protocol):
    """What a session has read and answered so far. It grows by `add`, then by `answered`, and so on."""

    def add(self, step: int) -> None:
        """Add the new tokens of step number `step`."""

    def prompt(self) -> dict[str, Any]:
        """The fields of a body that hold the context."""

    def answered(self, text: str, prompt_tokens: int, output_tokens: int) -> None:
        """Add an answer, and learn from the server's counts how long the context was."""


@dataclass(frozen=True)
class Template:
    """What a chat template adds, in tokens: around a first system and user message, and for each further pair of an
    answer and a user message."""

    first: int = 0
    further: int = 0


class ChatContext:
    """Messages. The words of each new one are as many as bring the whole prompt to the length that the workload wants:
    the template's tokens, and answers whose text is longer or shorter than their tokens, are made up for."""

    def __init__(self, session: Session, texts: Texts, template: Template, salt: str) -> None:
        self._session, self._texts, self._template, self._salt = session, texts, template, salt
        self._messages: list[dict[str, str]] = []
        self._wanted = session.system_tokens
        """Tokens that the prompt should have."""
        self._has = 0
        """Tokens that it has without the message that comes next."""
        if session.system_tokens > 0:
            system = texts.text(f"{salt}/system/{session.system}", session.system_tokens)
            self._messages.append({"role": "system", "content": system})
            self._has = session.system_tokens

    def add(self, step: int) -> None:
        self._wanted += self._session.steps[step].new_tokens
        self._has += self._template.further if step else self._template.first
        text = _new_text(self._session, step, self._texts, self._salt, max(1, self._wanted - self._has))
        self._messages.append({"role": "user", "content": text})

    def prompt(self) -> dict[str, Any]:
        return {"messages": self._messages}

    def answered(self, text: str, prompt_tokens: int, output_tokens: int) -> None:
        self._messages.append({"role": "assistant", "content": text})
        self._wanted += output_tokens
        self._has = prompt_tokens + output_tokens


class IdsContext:
    """Token ids: always exactly as long as the workload wants."""

    def __init__(self, session: Session, texts: TokenizedTexts, salt: str) -> None:
        self._session, self._texts, self._salt = session, texts, salt
        self._ids = texts.ids(f"{salt}/system/{session.system}", session.system_tokens)
        self._answers = 0

    def add(self, step: int) -> None:
        asked = self._session.steps[step]
        if asked.new_tokens:
            text = _new_text(self._session, step, self._texts, self._salt, 2 * asked.new_tokens)
            self._ids += self._texts.encode(text)[: asked.new_tokens]

    def prompt(self) -> dict[str, Any]:
        return {"prompt": self._ids}

    def answered(self, text: str, prompt_tokens: int, output_tokens: int) -> None:
        self._answers += 1
        filler = self._texts.ids(f"{self._salt}/{self._session.id}/answer/{self._answers}", output_tokens)
        self._ids += (self._texts.encode(text) + filler)[:output_tokens]


def _new_text(session: Session, step: int, texts: Texts, salt: str, tokens: int) -> str:
    blocks = session.steps[step].blocks
    if not blocks:
        return texts.text(f"{salt}/{session.id}/{step}", tokens)
    return _block_text(session.steps[step], texts, salt, tokens)


def _block_text(step: Step, texts: Texts, salt: str, tokens: int) -> str:
    """The text of named blocks; the last one ends where `tokens` are reached."""
    parts = []
    for number, block in enumerate(step.blocks):
        last = number == len(step.blocks) - 1
        size = tokens if last else min(step.block_tokens, tokens)
        parts.append(texts.text(f"{salt}/block/{block}", size))
        tokens -= size
        if tokens <= 0:
            break
    return " ".join(parts)


FEW, MANY = 50, 250
"""Words of the texts that are counted."""


@dataclass(frozen=True)
class ChatSizes:
    """What is needed to write chat messages of a wanted length."""

    texts: Texts
    template: Template


async def measure_chat_sizes(sender: Sender, module: str, tokenizer: TokenizedTexts | None, salt: str) -> ChatSizes:
    """Three short requests tell what words and messages take. With a tokenizer, words are known without them.

    Raises BenchError when the server refuses or does not count.
    """
    name = f"{salt}/calibration"
    few, many = (" ".join(words(name, count)) for count in (FEW, MANY))
    short = await _prompt_tokens(sender, module, _messages(few, few))
    longer = await _prompt_tokens(sender, module, _messages(few, many))
    further = await _prompt_tokens(sender, module, _messages(few, few, few, few))
    if tokenizer is not None:
        in_text = len(tokenizer.encode(few))
        return ChatSizes(tokenizer, _template(short, further, in_text))
    per_word = (longer - short) / (MANY - FEW)
    if per_word <= 0:
        raise BenchError(
            f"{module}: {MANY} words are no more tokens than {FEW} by the server's usage: give --tokenizer"
        )
    return ChatSizes(CalibratedTexts(per_word), _template(short, further, FEW * per_word))


def _template(short: int, further: int, in_text: float) -> Template:
    return Template(first=max(0, round(short - 2 * in_text)), further=max(0, round(further - short - 2 * in_text)))


def _messages(*texts: str) -> list[dict[str, str]]:
    roles = ("system", "user", "assistant", "user")
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


async def _prompt_tokens(sender: Sender, module: str, messages: list[dict[str, Any]]) -> int:
    answer = await sender.call(module, {"messages": messages}, 1, {})
    if answer.error is not None:
        raise BenchError(f"{sender.url_of(module)} did not answer a first request to {module}: {answer.error}")
    return answer.streamed.counts.prompt
