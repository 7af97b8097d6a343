"""Where in a prompt's tokens the answer begins: after the last generation prompt of the base's chat template.

That is what the template writes after the messages for a model to go on from, e.g. `<|im_start|>assistant` and a line
break. A template may write several, by how much thought is asked for. One that writes none (Mistral's) is taken by the
end of the user's turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Template, TemplateError
from tokenizers import Tokenizer

from psserve.router.body.thinking import EFFORTS, TOGGLES
from psserve.router.policies.base import TOKEN_BYTES, token_bytes
from psserve.zoo.checkpoints.chat_template import compiled
from psserve.zoo.checkpoints.tokenizer import read_chat_template

_CONTENT = "A question"
_SWITCHES: tuple[dict[str, Any], ...] = (
    {},
    *({toggle: value} for toggle in TOGGLES for value in (True, False)),
    *({"reasoning_effort": effort} for effort in EFFORTS),
)


class NoAnswer(ValueError):
    """A prompt has no answer in it, or none whose beginning can be told."""


class Place(NamedTuple):
    """Where the last generation prompt stands: its first token, and the answer's."""

    begin: int
    end: int


class GenerationPrompts:
    """Those of one base."""

    def __init__(self, base: Path) -> None:
        """`base`: its checkpoint. Raises NoAnswer when it has no tokenizer.json, or no template that can be used."""
        try:
            source = read_chat_template(base)
            self._tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
        except Exception as error:  # the tokenizers library raises bare Exception for files that it cannot read
            raise NoAnswer("the router cannot read the base's tokenizer.json and chat template") from error
        if source is None:
            raise NoAnswer("the base has no chat template, which would tell where an answer begins")
        self._ids = self._found(source)
        if not self._ids:
            raise NoAnswer("the base's chat template has no generation prompt that tells where an answer begins")

    @property
    def texts(self) -> list[str]:
        """What the template writes, the shortest first."""
        return sorted(self._ids, key=len)

    def last_in(self, tokens: Sequence[int]) -> Place:
        """The place in `tokens` of the last one, which an answer follows. Raises NoAnswer."""
        end, _, text = max((last_end(tokens, part), len(text), text) for text, part in self._ids.items())
        if end < 0:
            raise NoAnswer(f"has no generation prompt of the base's chat template, {self.texts[0]!r}")
        if end == len(tokens):
            raise NoAnswer("ends with the generation prompt: an answer must follow it")
        rest = text + self._tokenizer.decode(list(tokens[end:]), skip_special_tokens=False)
        if any(rest.rfind(other) + len(other) > len(text) for other in self.texts if other in rest):
            raise NoAnswer("has a token that is part of the last generation prompt and of the answer: cut it there")
        return Place(end - len(self._ids[text]), end)

    def _found(self, source: str) -> dict[str, list[int]]:
        """The text and tokens of each; not of one whose tokens depend on what stands before it."""
        try:
            template = compiled(source)
        except TemplateError as error:
            raise NoAnswer("the base's chat template cannot be understood") from error
        found: dict[str, list[int]] = {}
        for prompt, text in (_rendered(template, switches) for switches in _SWITCHES):
            whole, tokens = (self._tokenizer.encode(each, add_special_tokens=False).ids for each in (prompt, text))
            if text.strip() and whole[len(whole) - len(tokens) :] == tokens:
                found[text] = tokens
        return found


def _rendered(template: Template, switches: dict[str, Any]) -> tuple[str, str]:
    """A prompt, and the generation prompt that it ends with; empty where that cannot be told."""
    chat = {"messages": [{"role": "user", "content": _CONTENT}], **switches}
    try:
        prompt, without = (template.render(**chat, add_generation_prompt=is_asked) for is_asked in (True, False))
    except (TemplateError, AttributeError, LookupError, TypeError, ValueError):  # what templates raise, each its own
        return "", ""
    if prompt == without:
        return prompt, prompt.rpartition(_CONTENT)[2]
    return prompt, prompt.removeprefix(without) if prompt.startswith(without) else ""


def last_end(tokens: Sequence[int], part: Sequence[int]) -> int:
    """Where the last `part` in `tokens` ends; -1 where there is none."""
    return next((place // TOKEN_BYTES + len(part) for place in _places(token_bytes(tokens), token_bytes(part))), -1)


def _places(data: bytes, part: bytes) -> Iterator[int]:
    """Where in `data` a token begins that `part` begins with, from the last to the first."""
    place = data.rfind(part)
    while place >= 0:
        if place % TOKEN_BYTES == 0:
            yield place
        place = data.rfind(part, 0, place + len(part) - 1)
