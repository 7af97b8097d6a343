"""Every lease ends once, by a word of its reader or with it."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from psserve.engine.onepool.leases import Lease, LeaseTable

ALICE, BOB = object(), object()


def lease(room: int, reader: object = ALICE, tokens: int = 16, since: float = 0.0) -> Lease:
    return Lease(room, reader, f"node {room}", tokens, since)


def rooms(leases: list[Lease]) -> set[int]:
    return {one.room for one in leases}


def test_what_a_reader_gives_back_is_taken_back_once() -> None:
    table = LeaseTable()
    table.lend(lease(1))
    table.lend(lease(2))
    table.give_back(1)
    table.give_back(1)
    assert rooms(table.take_back()) == {1}
    assert table.take_back() == []
    assert len(table) == 1


def test_a_readers_end_ends_its_leases_and_no_others() -> None:
    table = LeaseTable()
    for room, reader in ((1, ALICE), (2, BOB), (3, ALICE)):
        table.lend(lease(room, reader))
    table.end_reader(ALICE)
    assert rooms(table.take_back()) == {1, 3}
    assert table.tokens == 16


def test_a_room_that_was_never_lent_is_passed_over() -> None:
    table = LeaseTable()
    table.give_back(9)
    assert table.take_back() == []


def test_parts_of_a_server_take_back_what_all_of_them_have_heard() -> None:
    """The first part hears of rooms 1 and 2, the second of 2 and then of 1: in no turn do they differ."""
    parts = [LeaseTable(), LeaseTable()]
    for part in parts:
        for room in (1, 2, 3):
            part.lend(lease(room))
    for part, heard in zip(parts, (1, 2), strict=True):
        part.give_back(heard)
    assert turn(parts) == [set(), set()]
    parts[0].give_back(2)
    assert turn(parts) == [{2}, {2}]
    parts[1].give_back(1)
    assert turn(parts) == [{1}, {1}]
    assert [len(part) for part in parts] == [1, 1]


def turn(parts: list[LeaseTable]) -> list[set[int]]:
    """One turn of all parts: what each takes back."""
    said: list[list[bool]] = []
    for part in parts:
        part.take_back(lambda ended: said.append(ended) or [False] * len(ended))  # type: ignore[func-returns-value]
    both = [all(flags) for flags in zip(*said, strict=True)]
    return [rooms(part.take_back(lambda _: both)) for part in parts]


def test_the_oldest_lease() -> None:
    table = LeaseTable()
    assert table.oldest_s(100.0) == 0
    table.lend(lease(1, since=40.0))
    table.lend(lease(2, since=90.0))
    assert table.oldest_s(100.0) == 60


class Leases(RuleBasedStateMachine):
    """Whatever is lent, given back and ended, in any order: locks and unlocks of each node are equal in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.table = LeaseTable()
        self.lent: dict[int, Lease] = {}
        self.returned: set[int] = set()
        self.ended: list[object] = []
        self.unlocked: list[int] = []
        self.next_room = 0

    @rule(reader=st.sampled_from([ALICE, BOB]), tokens=st.integers(1, 50))
    def lend(self, reader: object, tokens: int) -> None:
        self.next_room += 1
        self.lent[self.next_room] = lease(self.next_room, reader, tokens)
        self.table.lend(self.lent[self.next_room])

    @rule(room=st.integers(1, 12))
    def give_back(self, room: int) -> None:
        self.table.give_back(room)
        self.returned.add(room)

    @rule(reader=st.sampled_from([ALICE, BOB]))
    def end(self, reader: object) -> None:
        self.table.end_reader(reader)
        self.ended.append(reader)

    @rule()
    def take_back(self) -> None:
        over = {room for room, one in self.lent.items() if room in self.returned or one.reader in self.ended}
        assert rooms(self.table.take_back()) == over
        for room in over:
            self.unlocked.append(room)
            del self.lent[room]
        self.returned.clear()
        self.ended.clear()

    @invariant()
    def counts(self) -> None:
        assert len(self.table) == len(self.lent)
        assert self.table.tokens == sum(one.tokens for one in self.lent.values())
        assert len(self.unlocked) == len(set(self.unlocked))


TestLeases = Leases.TestCase
