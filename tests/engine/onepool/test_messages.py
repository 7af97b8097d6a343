"""Messages come out as they went in, however the stream is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from psserve.engine.onepool.messages import Kind, Message, Unpacker, packed

messages = st.builds(
    Message,
    kind=st.sampled_from(Kind),
    room=st.integers(0, 2**63),
    pages=st.binary(max_size=40),
    metadata=st.binary(max_size=40),
)


@given(st.lists(messages, max_size=6), st.data())
def test_a_stream_cut_anywhere_gives_the_same_messages(sent: list[Message], data: st.DataObject) -> None:
    stream = b"".join(map(packed, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    unpacker, got = Unpacker(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += list(unpacker.feed(stream[start:end]))
    assert got == sent
