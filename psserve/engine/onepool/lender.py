"""What SGLang's scheduler of a prefill server hands KV over with: it tells where the KV is, and lends it."""

from __future__ import annotations

import ctypes
import time
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from sglang.srt.disaggregation.base.conn import KVPoll
from sglang.srt.disaggregation.common.conn import CommonKVManager, CommonKVSender, KVTransferError

from psserve.engine.fixes.spinning import end_pause
from psserve.engine.handover.differences import lock_node, unlock_node
from psserve.engine.onepool.leases import Lease, LeaseTable, Waker
from psserve.engine.onepool.lines import Line, Lines
from psserve.engine.onepool.messages import Kind, Message
from psserve.engine.onepool.metrics import LeaseMetrics
from psserve.engine.onepool.pool import MEMORY
from psserve.engine.onepool.unchanged import LentBytes
from psserve.engine.settings import Settings

_SHOW_EVERY_S = 0.1
"""A turn of the scheduler is much shorter."""


class LendingManager(CommonKVManager):  # type: ignore[misc]
    """One a scheduler. `leases` is the scheduler's thread's; the lines' thread writes statuses and `_wanted`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.leases = LeaseTable()
        self.waker = Waker()
        self._wanted: dict[int, Line] = {}
        self._lent_bytes: LentBytes | None = None
        self._senders: WeakValueDictionary[int, LendingSender] = WeakValueDictionary()
        self._unserved: set[int] = set()
        """Rooms without a sender, at the last look for them."""
        self._looked_at = time.monotonic()
        super().__init__(*args, **kwargs)
        self._metrics = LeaseMetrics() if self.server_args.enable_metrics else None
        self._shown_at = 0.0

    def register_to_bootstrap(self) -> None:
        """Tell decode servers of this one, whose socket is there by then."""
        memory = MEMORY.lender()
        if Settings.from_environment().check_purity:
            self._lent_bytes = LentBytes(memory.tensors, self.kv_args.page_size)
        Lines(self._heard, self._line_ended).listen(self.rank_port, memory.pool, memory.files)
        super().register_to_bootstrap()

    def lend(self, tree: Any, req: Any) -> None:
        """Lock the whole pages of a prompt for its reader; if that is gone already, until the next `take_back`.

        All parts of a server lock the same, whatever each has heard.
        """
        room = req.bootstrap_room
        line = self._wanted.get(room)
        lock = lock_node(tree, req.last_node)
        self.leases.lend(Lease(room, line, lock, len(req.origin_input_ids), time.monotonic()))
        if line is None or self.request_status.get(room) == KVPoll.Failed:
            self.leases.give_back(room)

    def take_back(self, tree: Any, parts: Any = None) -> None:
        """Unlock what is not lent any more. What a reader that is gone had yet to take fails.

        `parts`: the process group of a server's parts, which then all do so at the same time. Raises ChangedLease,
        where that is checked.
        """
        for lease in self.leases.take_back(list if parts is None else partial(_agreed, parts)):
            if self._lent_bytes:
                self._lent_bytes.returned(lease.room)
            unlock_node(tree, lease.lock)
            if self.request_status.get(lease.room) == KVPoll.Transferring:
                self._fail(lease.room, "the decode server is gone")
        now = time.monotonic()
        self._show(now)
        self._forget_unserved(now)

    def tell(self, room: int, pages: np.ndarray[Any, np.dtype[np.int32]], aux_index: int) -> None:
        """READY. The forward that wrote the pages is over."""
        line = self._wanted.pop(room, None)
        if line is None:
            return
        lease, args = self.leases.of(room), self.kv_args
        if self._lent_bytes and lease:
            self._lent_bytes.lent(room, pages[: lease.tokens // args.page_size])
        metadata = b"".join(
            ctypes.string_at(pointer + aux_index * length, length)
            for pointer, length in zip(args.aux_data_ptrs, args.aux_item_lens, strict=True)
        )
        self.update_status(room, KVPoll.Transferring)
        line.send(Message(Kind.READY, room, pages.astype(np.int32).tobytes(), metadata))

    def serve(self, room: int, sender: LendingSender) -> None:
        """A request is here that hands a room's KV over: as long as its sender lives."""
        self._senders[room] = sender

    def forget(self, room: int) -> None:
        """Nobody waits for a room any more."""
        self._wanted.pop(room, None)

    def _forget_unserved(self, now: float) -> None:
        """Drop what is noted of rooms that had no sender for as long as SGLang waits for the other side.

        A reader may ask before the request comes here, and after it ended; and of a request that is aborted while it
        waits SGLang drops the sender, and not what is noted.
        """
        if now < self._looked_at + self.bootstrap_timeout:
            return
        noted = (self._wanted, self.request_status, self.failure_records, self.req_to_decode_prefix_len)
        rooms = {room for table in noted for room in list(table)}.difference(self._senders.keys())
        for room in rooms & self._unserved:
            for table in noted:
                table.pop(room, None)
        self._looked_at, self._unserved = now, rooms - self._unserved

    def _show(self, now: float) -> None:
        if self._metrics and now >= self._shown_at + _SHOW_EVERY_S:
            self._shown_at = now
            self._metrics.show(self.leases, now)

    def _heard(self, line: Line, message: Message) -> None:
        self._note(line, message)
        end_pause()

    def _note(self, line: Line, message: Message) -> None:
        room = message.room
        if message.kind is Kind.WANT:
            self._wanted[room] = line
            self.req_to_decode_prefix_len[room] = 0
            self.update_status(room, KVPoll.WaitingForInput)
        elif message.kind is Kind.TAKEN:
            if room in self.request_status:
                self.update_status(room, KVPoll.Success)
        elif message.kind is Kind.RELEASE:
            self._given_back(room)
        elif message.kind is Kind.ABORT:
            self._wanted.pop(room, None)
            if self.request_status.get(room, KVPoll.Success) != KVPoll.Success:
                self._fail(room, "the decode server does not want it any more")
            self._given_back(room)

    def _given_back(self, room: int) -> None:
        self.leases.give_back(room)
        self.waker.wake()

    def _line_ended(self, line: Line) -> None:
        for room in [room for room, its in list(self._wanted.items()) if its is line]:
            self._wanted.pop(room, None)
            self._fail(room, "the decode server is gone")
        self.leases.end_reader(line)
        self.waker.wake()

    def _fail(self, room: int, reason: str) -> None:
        self.record_failure(room, reason)
        self.update_status(room, KVPoll.Failed)


def _agreed(parts: Any, ended: list[bool]) -> list[bool]:
    """Of each lease, whether it has ended for all parts."""
    flags = torch.tensor(ended, dtype=torch.uint8)
    torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MIN, group=parts)
    return flags.bool().tolist()


class LendingSender(CommonKVSender):  # type: ignore[misc]
    """One a request. It has succeeded once its reader has copied the last, unfinished page."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_time = time.time()
        self._pages: list[Any] = []
        self.kv_mgr.serve(self.bootstrap_room, self)

    def send(self, kv_indices: Any, state_indices: Any = None, num_kv_tokens: int | None = None) -> None:
        """Note the pages of a chunk; with the last one, tell them all."""
        self._pages.append(kv_indices)
        self.curr_idx += len(kv_indices)
        if self.curr_idx == self.num_kv_indices and self._status() != KVPoll.Failed:
            self.kv_mgr.tell(self.bootstrap_room, np.concatenate(self._pages), self.aux_index)

    def poll(self) -> Any:
        """How far it is."""
        if self.conclude_state is not None:
            return self.conclude_state
        status = self._status()
        if status == KVPoll.Bootstrapping:
            return self._check_bootstrap_timeout() or status
        return status

    def _status(self) -> Any:
        """What is noted of its room; where that was forgotten, it failed."""
        return self.kv_mgr.request_status.get(self.bootstrap_room, KVPoll.Failed)

    def abort(self) -> None:
        """End it, unless its pages are lent: then its reader says when, for it may be copying the last one."""
        if self.kv_mgr.request_status.get(self.bootstrap_room) != KVPoll.Transferring:
            super().abort()

    def clear(self) -> None:
        """Forget the request."""
        super().clear()
        self.kv_mgr.forget(self.bootstrap_room)

    def failure_exception(self) -> None:
        """Raise why it failed."""
        reason = self.kv_mgr.failure_records.pop(self.bootstrap_room, "unknown")
        self.conclude_state = KVPoll.Failed
        self.clear()
        raise KVTransferError(self.bootstrap_room, reason)
