"""A place is in use from the asking for KV there until nobody reads it. SGLang's statuses are its own."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from sglang.srt.disaggregation.base.conn import KVPoll  # noqa: E402

from psserve.engine.onepool import reader  # noqa: E402
from psserve.engine.onepool.host_memory import HostSpace  # noqa: E402
from psserve.engine.onepool.memory import LentMemory, ReadMemory, Region  # noqa: E402
from psserve.engine.onepool.messages import Kind, Message  # noqa: E402
from psserve.engine.onepool.pool import Memory  # noqa: E402
from psserve.engine.onepool.reader import ReadingManager, ReadingReceiver  # noqa: E402
from psserve.engine.versions import ONE_POOL, installed_sglang  # noqa: E402
from tests.engine.onepool.spaces import open_files  # noqa: E402

pytestmark = pytest.mark.skipif(installed_sglang() not in ONE_POOL, reason="not with this release of SGLang yet")

ROOM, PORT, PAGE = 7, 5, 16
PAGES = np.array([2, 1], dtype=np.int32).tobytes()
NOBODY = torch.zeros(1, 1, dtype=torch.int32)


class Line:
    """Remembers what is said."""

    def __init__(self) -> None:
        self.said: list[Kind] = []
        self.ended = False
        self.hung_up = False

    def send(self, message: Message) -> None:
        self.said.append(message.kind)

    def hang_up(self) -> None:
        self.hung_up = True


class PrefillServer:
    """Stands for the sockets: who calls gets a line to it, its pool and its file."""

    def __init__(self) -> None:
        self.lent = LentMemory(HostSpace(), 64, (1, 2), torch.float32, 2)
        self.line = Line()

    def call(self, port: int) -> Any:
        return self.line, self.lent.pool, [os.dup(file) for file in self.lent.files]


class Manager(ReadingManager):  # type: ignore[misc]
    """One without sockets and SGLang's threads."""

    def __init__(self, server: PrefillServer) -> None:
        self._lines: Any = server
        self._sources, self._asked, self._arrived = {}, {}, {}
        self.turn = threading.RLock()
        self.request_status: dict[int, Any] = {ROOM: KVPoll.WaitingForInput}
        self.failure_records: dict[int, str] = {}
        self.failure_lock = threading.Lock()
        self.is_dummy_cp_rank = False

    @property
    def region(self) -> Region:
        return self._sources[PORT].region

    def ready(self) -> None:
        """READY is heard."""
        self._heard(self._sources[PORT].line, Message(Kind.READY, ROOM, PAGES))


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> ReadMemory:
    memory = ReadMemory(HostSpace(), 64, (1, 2), torch.float32, 2, PAGE)
    monkeypatch.setattr(reader, "MEMORY", Memory(read=memory))
    return memory


@pytest.fixture
def server() -> PrefillServer:
    return PrefillServer()


@pytest.fixture
def manager(memory: ReadMemory, server: PrefillServer) -> Manager:
    manager = Manager(server)
    manager.ask(ROOM, PORT)
    return manager


def test_a_request_uses_its_place_from_the_asking_to_the_release(manager: Manager, server: PrefillServer) -> None:
    users = [manager.region.users]
    manager.ready()
    reading = manager.read(ROOM, PAGE, "cpu")
    users.append(manager.region.users)
    reading.taken()
    reading.release()
    users.append(manager.region.users)
    assert users == [1, 1, 0]
    assert server.line.said == [Kind.WANT, Kind.TAKEN, Kind.RELEASE]


def test_a_reading_names_the_rows_of_its_pages(manager: Manager) -> None:
    manager.ready()
    reading = manager.read(ROOM, PAGE, "cpu")
    first = manager.region.first_row
    assert reading.first_rows.tolist() == [first + 2 * PAGE, first + PAGE]
    assert reading.slots.tolist() == [*range(first + 32, first + 48), *range(first + 16, first + 32)]


def test_a_request_that_is_forgotten_uses_its_place_no_more(manager: Manager, server: PrefillServer) -> None:
    manager.forget(ROOM)
    manager.forget(ROOM)
    assert manager.region.users == 0
    assert server.line.said == [Kind.WANT, Kind.ABORT]


def test_what_arrived_before_its_server_ended_can_still_be_read(
    manager: Manager, server: PrefillServer, memory: ReadMemory
) -> None:
    server.lent.tensors[1][2 * PAGE] = 5
    manager.ready()
    manager._line_ended(server.line)  # type: ignore[arg-type]
    memory.let_go(NOBODY)
    reading = manager.read(ROOM, PAGE, "cpu")
    assert memory.tensors[1][reading.slots[0]].tolist() == [[5, 5]]
    reading.release()
    memory.let_go(NOBODY)
    assert memory.map(server.lent.pool, server.lent.files).place == 0


def test_what_was_ready_is_read_though_another_server_came_in_its_place(
    manager: Manager, server: PrefillServer, memory: ReadMemory
) -> None:
    server.lent.tensors[1][:] = 5
    manager.ready()
    before = manager.region
    manager._line_ended(server.line)  # type: ignore[arg-type]
    server.line.ended = True
    manager._lines = PrefillServer()
    manager.request_status[ROOM + 1] = KVPoll.WaitingForInput
    memory.let_go(NOBODY)
    manager.ask(ROOM + 1, PORT)
    assert manager.region.place == 1
    reading = manager.read(ROOM, PAGE, "cpu")
    assert (memory.tensors[1][reading.slots] == 5).all()
    reading.release()
    assert before.users == 0


def test_a_server_that_ended_while_it_was_called_is_gone(memory: ReadMemory, server: PrefillServer) -> None:
    server.line.ended = True
    manager = Manager(server)
    manager.ask(ROOM, PORT)
    assert manager.request_status[ROOM] == KVPoll.Failed
    assert manager.region.ended


def test_files_that_were_mapped_are_not_left_open(memory: ReadMemory, server: PrefillServer) -> None:
    Manager(server).ask(ROOM, PORT)
    assert open_files(server.lent.files[0]) == 1


def test_a_server_whose_kv_does_not_fit_is_hung_up_on(memory: ReadMemory, server: PrefillServer) -> None:
    server.lent = LentMemory(HostSpace(), 64, (1, 4), torch.float32, 2)
    manager = Manager(server)
    manager.ask(ROOM, PORT)
    assert "cannot be read in place" in manager.failure_records[ROOM]
    assert server.line.hung_up
    assert open_files(server.lent.files[0]) == 1


def test_ready_for_a_room_that_ends_just_then_leaves_nothing(manager: Manager) -> None:
    receiver = ReadingReceiver.__new__(ReadingReceiver)
    vars(receiver).update(kv_mgr=manager, bootstrap_room=ROOM, bootstrap_addr="", conclude_state=None)
    manager.required_prefill_response_num_table, manager.prefill_response_tracker = {}, {}
    manager.addr_to_rooms_tracker, manager.defer_decode_allocation = defaultdict(set), False
    ending = threading.Thread(target=receiver.clear)

    class Statuses(dict[int, Any]):
        def __contains__(self, room: object) -> bool:
            found = super().__contains__(room)
            if threading.current_thread() is threading.main_thread() and ending.ident is None:
                ending.start()
                ending.join(0.2)  # it must not end meanwhile, and cannot
            return found

    manager.request_status = Statuses(manager.request_status)
    manager.ready()
    ending.join()
    assert not manager._arrived
    assert not manager.request_status
