"""How long texts and a chat template are in tokens, by what the server counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psserve.bench.load.caller import Caller
from psserve.bench.load.context import Template
from psserve.bench.load.texts import CalibratedTexts, Texts, TokenizedTexts
from psserve.bench.load.words import words
from psserve.errors import BenchError

FEW, MANY = 50, 250
"""Words of the texts that are counted."""


@dataclass(frozen=True)
class Calibration:
    """What is needed to write chat messages of a wanted length."""

    texts: Texts
    template: Template


async def calibrate(caller: Caller, module: str, tokenizer: TokenizedTexts | None, salt: str) -> Calibration:
    """Three short requests tell what words and messages take. With a tokenizer, words are known without them.

    Raises BenchError when the server refuses or does not count.
    """
    name = f"{salt}/calibration"
    few, many = (" ".join(words(name, count)) for count in (FEW, MANY))
    short = await _prompt_tokens(caller, module, _messages(few, few))
    longer = await _prompt_tokens(caller, module, _messages(few, many))
    further = await _prompt_tokens(caller, module, _messages(few, few, few, few))
    if tokenizer is not None:
        in_text = len(tokenizer.encode(few))
        return Calibration(tokenizer, _template(short, further, in_text))
    per_word = (longer - short) / (MANY - FEW)
    if per_word <= 0:
        raise BenchError(
            f"{module}: {MANY} words are no more tokens than {FEW} by the server's usage: give --tokenizer"
        )
    return Calibration(CalibratedTexts(per_word), _template(short, further, FEW * per_word))


def _template(short: int, further: int, in_text: float) -> Template:
    return Template(first=max(0, round(short - 2 * in_text)), further=max(0, round(further - short - 2 * in_text)))


def _messages(*texts: str) -> list[dict[str, str]]:
    roles = ("system", "user", "assistant", "user")
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


async def _prompt_tokens(caller: Caller, module: str, messages: list[dict[str, Any]]) -> int:
    answer = await caller.call(module, {"messages": messages}, 1, {})
    if answer.error is not None:
        raise BenchError(f"{caller.url_of(module)} did not answer a first request to {module}: {answer.error}")
    return answer.streamed.counts.prompt
