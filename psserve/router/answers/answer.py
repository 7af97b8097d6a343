"""Answers that are not streamed: one sequence's, or the merged answers of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psserve.contracts.router_config import RouterConfig
from psserve.router.answers.generation import Generation, parse_generation
from psserve.router.body.checks import Body
from psserve.router.observability.exchange import Exchange
from psserve.router.pairs.dispatcher import Dispatcher
from psserve.router.pairs.pair import Document, Sequence, add_usage, as_prompt, check_answer
from psserve.router.workers.tasks import together
from psserve.router.workers.workers import WorkerTable


async def generate_answer(dispatcher: Dispatcher, generation: Generation, exchange: Exchange) -> Document:
    """The whole answer to `generation`. Raises RequestError; then no sequence of it is running any more."""
    answers = await together(
        *(run_sequence(dispatcher, generation, sequence, exchange) for sequence in generation.sequences)
    )
    document = merge_answers(answers)
    exchange.usage = document["usage"]
    return document | {"usage": exchange.usage | exchange.usage_note()}


@dataclass(frozen=True)
class SequenceAnswer:
    """One sequence's answer, checked."""

    sequence: Sequence
    document: Document
    """OpenAI's object, with one choice and `usage`."""


async def run_sequence(
    dispatcher: Dispatcher, generation: Generation, sequence: Sequence, exchange: Exchange
) -> SequenceAnswer:
    """Run one sequence to its end."""
    async with dispatcher.open(generation.module, sequence) as legs:
        exchange.paired(legs.record)
        payload = await legs.read()
        exchange.answered()
        document = check_answer(legs, payload)
        return SequenceAnswer(sequence, document | {"usage": as_prompt(document["usage"], sequence.given)})


def merge_answers(answers: list[SequenceAnswer]) -> Document:
    """One answer of all choices, in the order of their sequences, under the first one's id."""
    if len(answers) == 1:
        return answers[0].document
    choices = [answer.document["choices"][0] | {"index": answer.sequence.index} for answer in answers]
    usage = add_usage((answer.sequence, answer.document["usage"]) for answer in answers)
    return answers[0].document | {"choices": choices, "usage": usage}


class BaseModel:
    """The base, where it is served as a module (`--serve-base`)."""

    def __init__(self, config: RouterConfig, table: WorkerTable, dispatcher: Dispatcher) -> None:
        self._config = config
        self._table = table
        self._dispatcher = dispatcher

    async def ask(self, body: Body) -> dict[str, Any]:
        """The answer to the chat completion `body`. Raises RequestError."""
        body = body | {"model": self._config.base.name}
        generation = parse_generation("chat", body, self._config, self._table)
        with self._table.hold(generation.module):
            async with self._dispatcher.open(generation.module, generation.sequences[0]) as legs:
                return check_answer(legs, await legs.read())
