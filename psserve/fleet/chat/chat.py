"""A conversation with one module at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from psserve.errors import FleetError, UnknownModule
from psserve.fleet.run.router_client import ChatUsage, RouterClient


@dataclass
class ChatAnswer:
    """The course of one answer; complete once its last piece was yielded."""

    model: str
    started: float = field(default_factory=time.monotonic)
    first: float | None = None
    """When its first text or thought came (monotonic seconds, as `started` and `ended`)."""
    ended: float | None = None
    usage: ChatUsage | None = None
    finish_reason: str | None = None

    def facts(self) -> str:
        """One line for people; what the server did not say is left out."""
        said = [] if self.usage is None else [_token_facts(self.usage)]
        if self.first is not None and self.ended is not None:
            said.append(f"first in {_seconds(self.first - self.started)}")
            tokens, took = self.usage.completion_tokens if self.usage else 0, self.ended - self.first
            if tokens > 1 and took > 0:  # the first token was there when the clock started
                said.append(f"{(tokens - 1) / took:.1f} tokens/s")
        if self.finish_reason == "length":
            said.append("cut at the length limit")
        return ", ".join(said)


class Chat:
    """Keeps the turns. Switching the module keeps them too: the new module goes on from the same base KV."""

    def __init__(self, client: RouterClient, model: str | None, max_tokens: int | None = None) -> None:
        """`model` None takes the first that the server lists.

        Raises:
            UnknownModule: the server has no such model, or none at all.
            FleetError: the server does not answer.
        """
        self._client = client
        self._max_tokens = max_tokens
        self._turns: list[dict[str, str]] = []
        self._speakers: list[str] = []
        """Of each turn: a module's name, or "user"."""
        self.system = ""
        """What every request starts with, as a system message; "" for none."""
        self.last: ChatAnswer | None = None
        self.model = self._known(model)

    @property
    def url(self) -> str:
        return self._client.url

    def models(self) -> list[str]:
        """The models that the server lists. Raises FleetError when it does not answer."""
        return self._client.models()

    def switch(self, model: str) -> None:
        """Let another model answer from here on. Raises UnknownModule when the server has no such model."""
        self.model = self._known(model)

    def clear(self) -> None:
        """Forget the turns; the system message stays."""
        self._turns.clear()
        self._speakers.clear()

    def say(self, text: str, think: Callable[[str], object] | None = None) -> Iterator[str]:
        """Yield the answer as it comes; `last` then says how it went. A turn that has no whole answer is not kept.

        `think` gets the pieces of the thought before it, which is no part of the conversation.

        Raises:
            FleetError: the server refuses, fails, or breaks off.
        """
        turn = {"role": "user", "content": text}
        head = [{"role": "system", "content": self.system}] if self.system else []
        pieces: list[str] = []
        self.last = answer = ChatAnswer(self.model)
        stream = self._client.chat(self.model, [*head, *self._turns, turn], max_tokens=self._max_tokens)
        with closing(stream):  # at once, where the answer is not wanted to its end
            for event in stream:
                answer.usage = event.usage or answer.usage
                answer.finish_reason = event.finish_reason or answer.finish_reason
                if event.text or event.thought:
                    answer.first = answer.first or time.monotonic()
                if event.thought and think is not None:
                    think(event.thought)
                if event.text:
                    pieces.append(event.text)
                    yield event.text
        answer.ended = time.monotonic()
        self._turns += [turn, {"role": "assistant", "content": "".join(pieces)}]
        self._speakers += ["user", answer.model]

    def save(self, path: Path) -> None:
        """Write the conversation as Markdown into a new file, for its user alone (0600).

        Raises:
            FleetError: the file is there already or cannot be written.
        """
        parts = [f"**system**\n\n{self.system}\n"] if self.system else []
        parts += [f"**{who}**\n\n{turn['content']}\n" for who, turn in zip(self._speakers, self._turns, strict=True)]
        try:
            with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write("\n".join(parts))
        except FileExistsError as error:
            raise FleetError(f"{path} is there already: give another name") from error
        except OSError as error:
            raise FleetError(f"cannot write {path}: {error.strerror}") from error

    def _known(self, model: str | None) -> str:
        models = self._client.models()
        if model is None and models:
            return models[0]
        if model is None or model not in models:
            listed = ", ".join(models) or "none"
            raise UnknownModule(f"{self._client.url} has no model {model or 'at all'}; it has: {listed}")
        return model


def _token_facts(usage: ChatUsage) -> str:
    share = usage.cached_tokens / max(1, usage.prompt_tokens)
    prompt = f"prompt {usage.prompt_tokens} tokens, {usage.cached_tokens} cached ({share:.0%})"
    return f"{prompt}; answer {usage.completion_tokens}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
