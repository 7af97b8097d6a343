"""Answers that are not streamed: one sequence's, or the merged answers of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from psserve.router.body import Generation
from psserve.router.dispatch import Dispatcher, Legs, Sequence
from psserve.router.exchange import Exchange
from psserve.router.failures import broken
from psserve.router.tasks import together
from psserve.router.usage import add_usage, checked_usage

Document = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """One sequence's answer, checked."""

    sequence: Sequence
    document: Document
    """OpenAI's object, with one choice and `usage`."""


async def generate_answer(dispatcher: Dispatcher, generation: Generation, exchange: Exchange) -> Document:
    """The whole answer to `generation`. Raises RequestError; then no sequence of it is running any more."""
    answers = await together(
        *(complete(dispatcher, generation, sequence, exchange) for sequence in generation.sequences)
    )
    document = merge(answers)
    exchange.usage = document["usage"]
    return document | {"usage": exchange.usage | exchange.usage_note()}


async def complete(dispatcher: Dispatcher, generation: Generation, sequence: Sequence, exchange: Exchange) -> Answer:
    """Run one sequence to its end."""
    async with dispatcher.open(generation.module, sequence) as legs:
        exchange.paired(legs)
        payload = await legs.read()
        exchange.answered()
        return Answer(sequence, check_answer(legs, payload))


def check_answer(legs: Legs, payload: bytes) -> Document:
    """The decode leg's answer with its usage checked and filled. Raises LegFailure."""
    try:
        document: Document = orjson.loads(payload)
        finish_reason = document["choices"][0]["finish_reason"]
        usage = document["usage"]
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        raise broken(legs.pair.decode, "malformed", f"decode answer: {error!r}") from error
    if finish_reason in ("abort", "error"):
        raise broken(legs.pair.decode, "aborted", f"decode finish_reason {finish_reason!r}")
    document["usage"] = checked_usage(legs, usage)
    return document


def merge(answers: list[Answer]) -> Document:
    """One answer of all choices, in the order of their sequences, under the first one's id."""
    if len(answers) == 1:
        return answers[0].document
    choices = [answer.document["choices"][0] | {"index": answer.sequence.index} for answer in answers]
    usage = add_usage((answer.sequence, answer.document["usage"]) for answer in answers)
    return answers[0].document | {"choices": choices, "usage": usage}
