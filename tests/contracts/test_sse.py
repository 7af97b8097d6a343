"""One reader of streams, for all of psserve's clients."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.contracts.sse import EventReader

STREAM = (
    b': a comment\n\ndata: {"a": "Zw\xc3\xb6lf"}\r\n\r\nevent: x\ndata:{"b": 2}\n\ndata: [DONE]\n\ndata: {"c": 3}\n\n'
)


@settings(deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_borders_of_bytes_do_not_matter_and_nothing_counts_after_the_end(borders: list[int]) -> None:
    reader, places = EventReader(), [0, *sorted(borders), len(STREAM)]
    events = [event for begin, end in pairwise(places) for event in reader.feed(STREAM[begin:end])]
    assert events == [{"a": "Zwölf"}, {"b": 2}]
    assert reader.ended


def test_a_stream_has_not_ended_before_its_last_event_is_whole() -> None:
    reader = EventReader()
    assert list(reader.feed(b'data: {"a": 1}\n\ndata: [DONE]')) == [{"a": 1}]
    assert not reader.ended


@pytest.mark.parametrize("data", [b"{", b"[]", b"7", b""])
def test_data_that_is_no_object_is_refused_after_what_came_before(data: bytes) -> None:
    found = EventReader().feed(b'data: {"a": 1}\n\ndata: ' + data + b"\n\n")
    assert next(found) == {"a": 1}
    with pytest.raises(ValueError):  # noqa: PT011 # orjson words most of them
        next(found)
