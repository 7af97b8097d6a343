"""The sessions that made the records of a run: the same lengths, modules and pauses, to be simulated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from psserve.bench.record import RequestRecord
from psserve.bench.session import Call, Session, Step


def sessions_of(records: Iterable[RequestRecord], system_tokens: int) -> list[Session]:
    """In the order of their starts, without those that failed. `system_tokens`: how long their common beginning is."""
    made: dict[str, list[RequestRecord]] = defaultdict(list)
    for record in records:
        made[record.session].append(record)
    whole = [each for each in made.values() if all(record.error is None for record in each)]
    whole.sort(key=lambda each: min(record.due_s for record in each))
    return [_session(each, system_tokens) for each in whole]


def _session(records: Sequence[RequestRecord], system_tokens: int) -> Session:
    steps: dict[int, list[RequestRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda record: (record.step, record.call)):
        steps[record.step].append(record)
    before: list[RequestRecord] = []
    made = []
    for number in sorted(steps):
        made.append(_step(steps[number], before, system_tokens))
        before = steps[number]
    return Session(records[0].session, "system", system_tokens, tuple(made), min(record.due_s for record in records))


def _step(records: Sequence[RequestRecord], before: Sequence[RequestRecord], system_tokens: int) -> Step:
    """What a template adds between two turns counts as new; where it takes something away, one token is new."""
    context, due_s = system_tokens, records[0].due_s
    pause_s = 0.0
    if before:
        context = before[0].prompt_tokens + before[0].output_tokens
        pause_s = max(0.0, due_s - max(record.done_s for record in before))
    calls = tuple(Call(record.module, record.output_tokens) for record in records)
    return Step(max(1, records[0].prompt_tokens - context), calls, pause_s)
