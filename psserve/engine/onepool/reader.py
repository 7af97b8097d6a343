"""What SGLang's scheduler of a decode server gets KV with: it asks where the KV is, and reads it there."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sglang.srt.disaggregation.base.conn import KVPoll
from sglang.srt.disaggregation.common.conn import CommonKVManager, CommonKVReceiver, KVTransferError

from psserve.engine.fixes.spinning import end_pause
from psserve.engine.onepool.lines import Line, Lines
from psserve.engine.onepool.memory import Done, Region
from psserve.engine.onepool.messages import Kind, Message
from psserve.engine.onepool.outbox import OUTBOX
from psserve.engine.onepool.pool import MEMORY
from psserve.errors import EngineError


@dataclass(frozen=True, eq=False)
class Source:
    """A prefill server: the line to it, and where its KV is mapped."""

    line: Line
    region: Region


class Reading:
    """A prompt's pages in a prefill server's KV, read in place until `release`."""

    def __init__(self, source: Source, room: int, pages: bytes, page_size: int, device: str = "cpu") -> None:
        """`device`: of `slots`."""
        self._source = source
        self._room = room
        self.first_rows = np.frombuffer(pages, dtype=np.int32).astype(np.int64) * page_size + source.region.first_row
        """int64 [pages]: where each begins in this server's buffers."""
        first_rows = torch.from_numpy(self.first_rows).to(device)
        self.slots = (first_rows[:, None] + torch.arange(page_size, device=device)).reshape(-1)
        """int64 [tokens of all pages]: rows of this server's buffers."""
        source.region.users += 1

    def taken(self, once: Done | None = None) -> None:
        """Say that the last, unfinished page is copied, once it is (None: it is)."""
        OUTBOX.put(partial(self._source.line.send, Message(Kind.TAKEN, self._room)), once)

    def release(self) -> None:
        """End the lease."""
        MEMORY.reader().leave(self._source.region)
        OUTBOX.put(partial(self._source.line.send, Message(Kind.RELEASE, self._room)))


class ReadingManager(CommonKVManager):  # type: ignore[misc]
    """One a scheduler. The lines' thread writes statuses and what arrived, the scheduler's thread all else."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lines = Lines(self._heard, self._line_ended)
        self._sources: dict[int, Source] = {}
        self._asked: dict[int, Source] = {}
        self._arrived: dict[int, Message] = {}
        self.turn = threading.RLock()
        """For the end of a room, and what is heard of it: READY for one that is ending is of no use to anybody."""
        self._start_heartbeat_checker_thread()

    def ask(self, room: int, port: int) -> None:
        """WANT, to the prefill server whose scheduler listens on this port."""
        try:
            source = self._source(port)
        except EngineError as error:
            self._fail(room, str(error))
            return
        self._asked[room] = source
        source.region.users += 1  # from here on: what READY names must still be mapped when it is read
        source.line.send(Message(Kind.WANT, room))
        if source.line.ended:  # before it was known that this room waits for it
            self._fail(room, "the prefill server is gone")

    def arrived(self, room: int) -> Message:
        """What READY said."""
        return self._arrived[room]

    def read(self, room: int, page_size: int, device: str) -> Reading:
        """Begin to read what arrived. `device`: of its slots."""
        source = self._asked.pop(room)
        reading = Reading(source, room, self._arrived.pop(room).pages, page_size, device)
        MEMORY.reader().leave(source.region)  # to the reading
        return reading

    def forget(self, room: int) -> None:
        """Say that a room's KV is not wanted, if it was asked for and not taken."""
        self._arrived.pop(room, None)
        if source := self._asked.pop(room, None):
            MEMORY.reader().leave(source.region)
            source.line.send(Message(Kind.ABORT, room))

    def _source(self, port: int) -> Source:
        if known := self._sources.get(port):
            if not known.line.ended:
                return known
            known.region.ended = True
        line, pool, files = self._lines.call(port)
        try:
            source = self._sources[port] = Source(line, MEMORY.reader().map(pool, files))
        except EngineError:
            line.hang_up()
            raise
        finally:
            for file in files:
                os.close(file)
        if line.ended:  # before it was known what its end means
            source.region.ended = True
        return source

    def _heard(self, line: Line, message: Message) -> None:
        with self.turn:
            if message.kind is not Kind.READY or message.room not in self.request_status:
                return
            self._arrived[message.room] = message
            self.update_status(message.room, KVPoll.Success)
        end_pause()

    def _line_ended(self, line: Line) -> None:
        for source in list(self._sources.values()):
            if source.line is line:
                source.region.ended = True
        for room, source in list(self._asked.items()):
            if source.line is line and self.request_status.get(room) != KVPoll.Success:
                self._fail(room, "the prefill server is gone")

    def _fail(self, room: int, reason: str) -> None:
        self.record_failure(room, reason)
        self.update_status(room, KVPoll.Failed)


class ReadingReceiver(CommonKVReceiver):  # type: ignore[misc]
    """One a request."""

    conclude_state: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._metadata_index: int | None = None
        self.own_pages: Sequence[int] = ()
        """Numbers of this server's own pages that the request got, for what is not read in place."""

    def _register_kv_args(self) -> bool:
        return True  # nobody writes here

    def send_metadata(self, kv_indices: Any, aux_index: int | None = None, *where: Any, **wherein: Any) -> None:
        """Ask for the KV. `kv_indices`: own pages."""
        self._metadata_index, self.init_time, self.own_pages = aux_index, time.time(), kv_indices.tolist()
        (server,) = self.bootstrap_infos  # both sides are split alike: the plan sees to it
        self.kv_mgr.ask(self.bootstrap_room, int(server["rank_port"]))

    def poll(self) -> Any:
        """How far it is. Once it has succeeded, SGLang's metadata is where SGLang looks for it."""
        if self.conclude_state is not None:
            return self.conclude_state
        status = self.kv_mgr.check_status(self.bootstrap_room)
        if status in (KVPoll.Success, KVPoll.Failed):
            if status == KVPoll.Success:
                self.kv_mgr.addr_to_rooms_tracker[self.bootstrap_addr].discard(self.bootstrap_room)
                self._note(self.kv_mgr.arrived(self.bootstrap_room).metadata)
            self.conclude_state = status
            return status
        if self._metadata_index is None:
            return status
        return self._check_waiting_timeout() or KVPoll.WaitingForInput

    def reading(self, page_size: int, device: str) -> Reading:
        """Begin to read, after a poll that said Success. `device`: of its slots."""
        reading: Reading = self.kv_mgr.read(self.bootstrap_room, page_size, device)
        return reading

    def _note(self, metadata: bytes) -> None:
        args, start = self.kv_mgr.kv_args, 0
        for pointer, length in zip(args.aux_data_ptrs, args.aux_item_lens, strict=True):
            ctypes.memmove(pointer + self._metadata_index * length, metadata[start : start + length], length)
            start += length

    def _send_abort_notification(self, **how: bool) -> None:
        self.kv_mgr.forget(self.bootstrap_room)

    def clear(self) -> None:
        """Forget the request; what it asked for and did not get goes back."""
        with self.kv_mgr.turn:
            super().clear()
            self.kv_mgr.forget(self.bootstrap_room)

    def failure_exception(self) -> None:
        """Raise why it failed."""
        raise KVTransferError(self.bootstrap_room, self.kv_mgr.failure_records.pop(self.bootstrap_room, "unknown"))
