"""A prefill server lends what is wanted, as long as it is wanted. SGLang's statuses are its own."""

from __future__ import annotations

import ctypes
import select
import threading
from types import SimpleNamespace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import pytest
import torch

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from sglang.srt.disaggregation.base.conn import KVPoll  # noqa: E402
from sglang.srt.disaggregation.common.conn import CommonKVSender  # noqa: E402

from psserve.engine.onepool.leases import LeaseTable, Waker  # noqa: E402
from psserve.engine.onepool.lender import LendingManager, LendingSender  # noqa: E402
from psserve.engine.onepool.messages import Kind, Message  # noqa: E402
from psserve.engine.onepool.unchanged import LentBytes  # noqa: E402
from psserve.engine.versions import ONE_POOL, installed_sglang  # noqa: E402
from psserve.errors import ChangedLease  # noqa: E402

pytestmark = pytest.mark.skipif(installed_sglang() not in ONE_POOL, reason="not with this release of SGLang yet")

ROOM = 7
PAGE = 16


class Manager(LendingManager):  # type: ignore[misc]
    """One without sockets. Its metadata is one buffer with rows of 4 bytes, its KV one with 4 pages."""

    def __init__(self) -> None:
        self.metadata = ctypes.create_string_buffer(b"row0row1row2")
        self.kv_args = SimpleNamespace(
            aux_data_ptrs=[ctypes.addressof(self.metadata)], aux_item_lens=[4], page_size=PAGE
        )
        self.kv = torch.zeros(4 * PAGE, 1, 2)
        self._lent_bytes = LentBytes([self.kv], PAGE)
        self.leases, self.waker, self._wanted = LeaseTable(), Waker(), {}
        self._metrics, self._shown_at = None, 0.0
        self._senders, self._unserved, self._looked_at = WeakValueDictionary(), set(), 0.0
        self.request_status: dict[int, Any] = {}
        self.failure_records: dict[int, str] = {}
        self.failure_lock = threading.Lock()
        self.req_to_decode_prefix_len: dict[int, int] = {}
        self.is_dummy_cp_rank = False
        self.bootstrap_timeout = 1000
        self._no_deferred_release()

    def _no_deferred_release(self) -> None:
        """Say that SGLang's own ways to end a transfer late, of newer releases, are off."""
        self.defer_decode_allocation, self.deferred_bootstrap = False, None
        self._deferred_ack_targets: dict[int, Any] = {}
        self._deferred_ack_poisoned_rooms: set[int] = set()
        self._staging_outstanding: dict[int, int] = {}
        self.transfer_infos: dict[int, Any] = {}


class Tree:
    """Counts the locks of nodes."""

    def __init__(self) -> None:
        self.locks: dict[object, int] = {}

    def inc_lock_ref(self, node: object) -> None:
        self.locks[node] = self.locks.get(node, 0) + 1

    def dec_lock_ref(self, node: object) -> None:
        self.locks[node] -= 1


class Line:
    def __init__(self) -> None:
        self.said: list[Message] = []

    def send(self, message: Message) -> None:
        self.said.append(message)


class Lending:
    """One prompt of 20 tokens in pages 3 and 1 on its way."""

    def __init__(self) -> None:
        self.manager, self.tree, self.line = Manager(), Tree(), Line()
        self.req = SimpleNamespace(bootstrap_room=ROOM, last_node="node", origin_input_ids=[0] * 20)
        self.sender = LendingSender.__new__(LendingSender)
        vars(self.sender).update(
            kv_mgr=self.manager, bootstrap_room=ROOM, curr_idx=0, conclude_state=None, init_time=None, _pages=[]
        )
        self.sender.trace_ctx = SimpleNamespace(abort=lambda **named: None, trace_req_finish=lambda: None)
        self.sender.init(2, aux_index=1)
        self.manager.serve(ROOM, self.sender)
        self.manager.update_status(ROOM, KVPoll.Bootstrapping)

    def hear(self, kind: Kind) -> None:
        self.manager._heard(self.line, Message(kind, ROOM))

    def send(self) -> None:
        self.manager.lend(self.tree, self.req)
        for page in (3, 1):
            self.sender.send(np.array([page], dtype=np.int64))

    @property
    def noted(self) -> int:
        """What the server still knows of rooms."""
        manager = self.manager
        tables = (manager._wanted, manager.request_status, manager.failure_records, manager.req_to_decode_prefix_len)
        return sum(map(len, tables))

    def look_twice(self) -> None:
        """Look for rooms without a sender, as once in 5 minutes."""
        self.manager.bootstrap_timeout = 0
        for _ in range(2):
            self.manager.take_back(self.tree)

    @property
    def is_locked(self) -> bool:
        self.manager.take_back(self.tree)
        return bool(self.tree.locks.get("node"))


def test_pages_are_locked_from_ready_to_release() -> None:
    lending = Lending()
    assert lending.sender.poll() == KVPoll.Bootstrapping
    lending.hear(Kind.WANT)
    assert lending.sender.poll() == KVPoll.WaitingForInput
    lending.send()
    pages = np.array([3, 1], dtype=np.int32).tobytes()
    assert lending.line.said == [Message(Kind.READY, ROOM, pages, b"row1")]
    assert lending.sender.poll() == KVPoll.Transferring
    lending.hear(Kind.TAKEN)
    assert lending.sender.poll() == KVPoll.Success
    lending.sender.clear()
    assert lending.is_locked
    lending.hear(Kind.RELEASE)
    assert not lending.is_locked


def test_what_is_not_wanted_any_more_is_not_lent() -> None:
    lending = Lending()
    lending.hear(Kind.WANT)
    lending.hear(Kind.ABORT)
    lending.send()
    assert lending.sender.poll() == KVPoll.Failed
    assert not lending.is_locked
    assert lending.line.said == []


def test_an_abort_after_ready_fails_the_request_and_unlocks() -> None:
    lending = Lending()
    lending.hear(Kind.WANT)
    lending.send()
    lending.hear(Kind.ABORT)
    assert lending.sender.poll() == KVPoll.Failed
    assert not lending.is_locked


def test_a_reader_that_is_gone_before_it_took_the_last_page_fails_the_request() -> None:
    lending = Lending()
    lending.hear(Kind.WANT)
    lending.send()
    lending.manager._line_ended(lending.line)
    assert not lending.is_locked
    assert lending.sender.poll() == KVPoll.Failed
    assert lending.manager.failure_records[ROOM] == "the decode server is gone"


def test_a_reader_that_is_gone_while_the_prompt_is_computed_gets_nothing() -> None:
    lending = Lending()
    lending.hear(Kind.WANT)
    lending.manager._line_ended(lending.line)
    lending.send()
    assert lending.sender.poll() == KVPoll.Failed
    assert not lending.is_locked


def test_an_abort_of_this_server_waits_for_a_reader_that_may_be_copying() -> None:
    lending = Lending()
    lending.hear(Kind.WANT)
    lending.send()
    lending.sender.abort()
    assert lending.sender.poll() == KVPoll.Transferring
    lending.hear(Kind.TAKEN)
    assert lending.sender.poll() == KVPoll.Success


def test_an_abort_of_this_server_before_that_fails_at_once() -> None:
    lending = Lending()
    lending.hear(Kind.WANT)
    lending.sender.abort()
    assert lending.sender.poll() == KVPoll.Failed
    lending.send()
    assert not lending.is_locked


def test_a_write_to_a_lent_page_is_found_when_it_comes_back() -> None:
    lending = Lending()
    lending.hear(Kind.WANT)
    lending.send()
    lending.manager.kv[3 * PAGE] = 1
    lending.hear(Kind.RELEASE)
    with pytest.raises(ChangedLease):
        lending.manager.take_back(lending.tree)


def test_the_unfinished_page_is_not_lent_and_may_be_written_to() -> None:
    lending = Lending()
    lending.hear(Kind.WANT)
    lending.send()
    lending.manager.kv[1 * PAGE] = 1
    lending.hear(Kind.RELEASE)
    assert not lending.is_locked


@pytest.mark.parametrize("end", ["release", "abort", "the line's end"])
def test_what_comes_back_wakes_the_scheduler(end: str) -> None:
    lending = Lending()
    lending.hear(Kind.WANT)
    lending.send()
    lending.hear(Kind.TAKEN)
    assert not is_readable(lending.manager.waker)
    if end == "the line's end":
        lending.manager._line_ended(lending.line)
    else:
        lending.hear(Kind[end.upper()])
    assert is_readable(lending.manager.waker)
    lending.manager.waker.clear()
    assert not is_readable(lending.manager.waker)


def is_readable(waker: Waker) -> bool:
    return bool(select.select([waker], [], [], 0)[0])


@pytest.mark.parametrize("last", [Kind.WANT, Kind.ABORT])
def test_a_room_whose_request_never_comes_is_forgotten(last: Kind) -> None:
    lending = Lending()
    before = lending.noted
    for kind in (Kind.WANT, last):
        lending.manager._heard(lending.line, Message(kind, ROOM + 1))
    assert lending.noted > before
    lending.look_twice()
    assert lending.noted == before


def test_a_request_that_was_aborted_and_dropped_is_forgotten() -> None:
    lending = Lending()
    lending.hear(Kind.WANT)
    lending.sender.abort()
    assert lending.noted
    del lending.sender
    lending.look_twice()
    assert not lending.noted


def test_a_room_that_was_wanted_before_its_request_came_is_served() -> None:
    lending = Lending()
    sender = lending.sender
    del lending.manager._senders[ROOM]
    lending.hear(Kind.WANT)
    lending.manager.bootstrap_timeout = 0
    lending.manager.take_back(lending.tree)
    lending.manager.serve(ROOM, sender)
    lending.look_twice()
    assert sender.poll() == KVPoll.WaitingForInput


def test_every_sender_serves_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(sender: LendingSender, manager: Manager, room: int) -> None:
        sender.kv_mgr, sender.bootstrap_room = manager, room

    monkeypatch.setattr(CommonKVSender, "__init__", begin)
    lending = Lending()
    sender = LendingSender(lending.manager, ROOM + 1)
    assert lending.manager._senders[ROOM + 1] is sender


def test_a_sender_of_a_room_that_is_forgotten_has_failed() -> None:
    lending = Lending()
    lending.manager.request_status.clear()
    assert lending.sender.poll() == KVPoll.Failed
    lending.send()
    assert lending.line.said == []
