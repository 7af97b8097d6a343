"""What is known of one sequence."""

from __future__ import annotations

from psserve.router.observability.exchange import SequenceRecord

OUTPUT = b'data: {"choices":[{"text":"a","finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"text":"b","finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def record(**fields: float) -> SequenceRecord:
    return SequenceRecord(True, 0.0, **fields)  # type: ignore[arg-type]  # all are numbers


def test_time_per_token_leaves_the_first_one_out() -> None:
    assert record(first_output=1.0, last_output=3.0, output_tokens=5).seconds_per_token == 0.5


def test_one_token_has_no_time_per_token() -> None:
    assert record(first_output=1.0, last_output=3.0, output_tokens=1).seconds_per_token is None


def test_an_answer_that_came_at_once_has_no_time_per_token() -> None:
    assert record(first_output=1.0, last_output=1.0, output_tokens=5).seconds_per_token is None


def test_gaps_are_told_between_outputs_alone() -> None:
    gaps: list[float] = []
    sequence = record()
    sequence.on_gap = gaps.append
    for data in (OUTPUT, OUTPUT, OUTPUT, LAST):
        sequence.arrived(data)
    assert len(gaps) == 2
    assert all(gap >= 0 for gap in gaps)
