"""Spans from what servers noted: whose notes belong together, and what follows from them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.bench.record import PHASES, handoff_share, mean_seconds
from psserve.bench.trace.spans import ServerNote, join, read_exports
from tests.bench.records import record

STARTED = 1_000_000.0


def note(request_id: str, *times: float, room: int | None = 7, prefilled: float | None = None) -> ServerNote:
    """Times after the run's start: received, queued, started, finished."""
    received, queued, started, finished = (STARTED + time for time in times)
    return ServerNote(request_id, room, received, queued, started, prefilled and STARTED + prefilled, finished)


PREFILL = note("p", 0.1, 0.15, 0.2, 0.6, prefilled=0.5)
DECODE = note("d", 0.1, 0.6, 0.7, 1.0)


def test_a_pair_of_servers_gives_all_phases_without_gaps() -> None:
    (joined,) = join([record(answer_id="d")], [DECODE, PREFILL], STARTED)
    edges = [0.0, 0.1, 0.2, 0.5, 0.6, 0.7, 1.0]
    assert list(joined.spans) == list(PHASES)
    assert [edge for span in joined.spans.values() for edge in span] == pytest.approx(
        [edge for pair in pairwise(edges) for edge in pair]
    )


def test_a_pair_may_share_its_request_id() -> None:
    same = [note("x", 0.1, 0.15, 0.2, 0.6, prefilled=0.5), note("x", 0.1, 0.6, 0.7, 1.0)]
    (joined,) = join([record(answer_id="x")], same, STARTED)
    assert joined.spans["transfer"] == pytest.approx((0.5, 0.6))


def test_an_ordinary_server_has_no_transfer() -> None:
    whole = note("w", 0.1, 0.15, 0.2, 1.0, room=None, prefilled=0.5)
    (joined,) = join([record(answer_id="w")], [whole], STARTED)
    assert list(joined.spans) == ["router_queue", "prefill_queue", "prefill", "decode"]


@pytest.mark.parametrize("notes", [[], [DECODE], [PREFILL], [note("other", 0, 0, 0, 0)]])
def test_a_request_that_is_not_wholly_noted_has_no_spans(notes: list[ServerNote]) -> None:
    (joined,) = join([record(answer_id="d")], notes, STARTED)
    assert joined.spans == {}


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=9, max_size=9))
def test_spans_are_never_negative_and_fill_the_request_whatever_the_clocks_say(times: list[float]) -> None:
    notes = [note("p", *times[:4], prefilled=times[4] or 0.1), note("d", *times[5:])]
    (joined,) = join([record(answer_id="d")], notes, STARTED)
    if joined.spans:  # clocks that put the decode server first make it the prefill server
        edges = [edge for span in joined.spans.values() for edge in span]
        assert edges == sorted(edges)
        assert (edges[0], edges[-1]) == (0.0, 1.0)


def test_the_handoff_is_transfer_and_waiting_for_the_decode_server() -> None:
    joined = join([record(answer_id="d"), record(warmup=True, answer_id="d")], [DECODE, PREFILL], STARTED)
    seconds = mean_seconds([*joined, record()])
    assert seconds["decode"] == pytest.approx(0.3)
    assert handoff_share(seconds) == pytest.approx(0.2)
    assert (mean_seconds([record()]), handoff_share({})) == ({}, None)


def exported(**changes: Any) -> str:
    values = {
        "id": "d",
        "request_parameters": json.dumps({"bootstrap_room": 7}),
        "request_received_ts": 10.0,
        "queue_time": 0.5,
        "forward_entry_time": 11.0,
        "prefill_finished_time": 11.5,
        "request_finished_ts": 12.0,
    }
    return json.dumps(values | changes)


def test_exports_are_read_as_far_as_they_are_whole(tmp_path: Path) -> None:
    lines = [exported(), exported(id="old", request_finished_ts=1.0), '{"id": "aborted"}', "[]", exported()[:40]]
    (tmp_path / "sglang-request-metrics-20261124_19.log").write_text("\n".join(lines))
    (tmp_path / "other.log").write_text(exported())
    assert read_exports(tmp_path, since=5.0) == [ServerNote("d", 7, 10.0, 10.5, 11.0, 11.5, 12.0)]
