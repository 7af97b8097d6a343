"""What a decode server was promised stays where READY said it is, whatever becomes of its prefill server meanwhile."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
import torch

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from sglang.srt.disaggregation.base.conn import KVPoll  # noqa: E402

from psserve.engine.onepool.memory import LentMemory, ReadMemory  # noqa: E402
from psserve.engine.onepool.messages import Kind, Message  # noqa: E402
from psserve.engine.onepool.pool import MEMORY  # noqa: E402
from psserve.engine.onepool.reader import ReadingManager, Source  # noqa: E402
from psserve.engine.versions import ONE_POOL, installed_sglang  # noqa: E402

pytestmark = pytest.mark.skipif(installed_sglang() not in ONE_POOL, reason="not with this release of SGLang yet")

TAIL, ROWS, BUFFERS, PAGE = (2, 8), 64, 2, 16
BEFORE, AFTER = 1000, 1001
"""The ports of a prefill server, and of the one that is started in its place."""
ROOM = 7


class Line:
    def __init__(self) -> None:
        self.ended = False
        self.said: list[Message] = []

    def send(self, message: Message) -> None:
        self.said.append(message)


class Lines:
    """The lines to two prefill servers, whose rows hold their ports."""

    def __init__(self) -> None:
        self.lines = {port: Line() for port in (BEFORE, AFTER)}
        self.lent = {port: LentMemory(ROWS, TAIL, torch.float32, BUFFERS) for port in self.lines}
        for port, memory in self.lent.items():
            for tensor in memory.tensors:
                tensor[:] = port

    def call(self, port: int) -> tuple[Line, Any, int]:
        return self.lines[port], self.lent[port].pool, os.dup(self.lent[port].file)


class Manager(ReadingManager):  # type: ignore[misc]
    """One without sockets."""

    def __init__(self) -> None:
        self._lines, self._sources, self._asked, self._arrived = Lines(), {}, {}, {}
        self.request_status: dict[int, Any] = {}
        self.failure_records: dict[int, str] = {}
        self.failure_lock = threading.Lock()
        self.is_dummy_cp_rank = False

    def source(self, port: int) -> Source:
        return self._sources[port]


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Manager:
    monkeypatch.setattr(MEMORY, "read", ReadMemory(ROWS, TAIL, torch.float32, BUFFERS, PAGE))
    return Manager()


def ask(manager: Manager, room: int, port: int) -> None:
    manager.request_status[room] = KVPoll.WaitingForInput
    manager.ask(room, port)


def test_what_was_ready_is_read_though_its_server_is_gone_and_another_is_there(manager: Manager) -> None:
    ask(manager, ROOM, BEFORE)
    line = manager.source(BEFORE).line
    manager._heard(line, Message(Kind.READY, ROOM, torch.tensor([2], dtype=torch.int32).numpy().tobytes()))
    manager._line_ended(line)
    ask(manager, ROOM + 1, AFTER)
    reading = manager.read(ROOM, PAGE)
    assert (MEMORY.reader().tensors[1][reading.slots] == BEFORE).all()
    before = manager.source(BEFORE).region
    assert before.users == 1
    reading.release()
    assert before.users == 0


def test_who_is_not_served_any_more_reads_nothing(manager: Manager) -> None:
    ask(manager, ROOM, BEFORE)
    manager.forget(ROOM)
    manager.forget(ROOM)
    source = manager.source(BEFORE)
    assert source.region.users == 0
    assert [message.kind for message in manager._lines.lines[BEFORE].said] == [Kind.WANT, Kind.ABORT]
