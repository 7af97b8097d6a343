"""A line brings the pool and its file, then messages both ways; its end is heard on the other side."""

from __future__ import annotations

import itertools
import os
import queue
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pytest
import torch

from psserve.engine.onepool import lines
from psserve.engine.onepool.host_memory import HostSpace
from psserve.engine.onepool.layout import Pool
from psserve.engine.onepool.lines import Line, Lines
from psserve.engine.onepool.memory import LentMemory
from psserve.engine.onepool.messages import Kind, Message
from psserve.errors import EngineError
from tests.engine.onepool.spaces import open_files
from tests.waiting import PATIENCE_S

_ports = itertools.count(os.getpid() * 100_000)  # names of sockets, not TCP's


@dataclass
class Side:
    """What one process would hear."""

    heard: queue.Queue[tuple[Line, Message]] = field(default_factory=queue.Queue)
    ended: queue.Queue[Line] = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        self.lines = Lines(lambda line, message: self.heard.put((line, message)), self.ended.put)

    def next(self) -> tuple[Line, Message]:
        return self.heard.get(timeout=PATIENCE_S)

    def end(self) -> Line:
        return self.ended.get(timeout=PATIENCE_S)


@dataclass
class Server(Side):
    """A prefill server's side."""

    port: int = field(default_factory=lambda: next(_ports))
    memory: LentMemory = field(default_factory=lambda: LentMemory(HostSpace(), 8, (2, 4), torch.float32, 2))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.lines.listen(self.port, self.memory.pool, self.memory.files)


def closed(files: Iterable[int]) -> None:
    for file in files:
        os.close(file)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    closed(server.memory.files)


def test_a_line_begins_with_the_pool_and_its_file(server: Server) -> None:
    _, pool, (file,) = Side().lines.call(server.port)
    assert pool == server.memory.pool
    assert os.fstat(file).st_ino == os.fstat(server.memory.files[0]).st_ino
    os.close(file)


@pytest.mark.parametrize("count", [2, 249, 250, 251, 501])
def test_a_file_for_each_buffer_comes_in_its_order(count: int) -> None:
    server, files = Side(), [os.memfd_create(str(number)) for number in range(count)]
    server.lines.listen(port := next(_ports), (pool := Pool("one", 8, 32, count)), files)
    line, found, theirs = Side().lines.call(port)
    assert found == pool
    assert [os.fstat(file).st_ino for file in theirs] == [os.fstat(file).st_ino for file in files]
    line.send(Message(Kind.WANT, 3))
    assert server.heard.get(timeout=PATIENCE_S)[1] == Message(Kind.WANT, 3)
    closed([*files, *theirs])


def test_a_server_that_ends_while_it_gives_its_files_leaves_none_open() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    file = os.memfd_create("one")
    with ours, theirs:
        socket.send_fds(theirs, [b'{"pool": {}, "files": 2}'], [file])
        theirs.close()
        with pytest.raises(OSError, match="1 of 2 files did not come"):
            lines._hear_hello(ours)
        assert open_files(file) == 1
    os.close(file)


def test_messages_go_both_ways_in_their_order(server: Server) -> None:
    reader = Side()
    line, _, files = reader.lines.call(server.port)
    closed(files)
    wanted = [Message(Kind.WANT, room) for room in range(20)]
    for message in wanted:
        line.send(message)
    heard = [server.next() for _ in wanted]
    assert [message for _, message in heard] == wanted
    ready = Message(Kind.READY, 3, b"p" * 1_000_000, b"m" * 5_000)
    heard[0][0].send(ready)
    assert reader.next() == (line, ready)


def test_what_the_other_side_is_too_slow_for_keeps_its_place(server: Server) -> None:
    reader = Side()
    line, _, files = reader.lines.call(server.port)
    closed(files)
    sent = [Message(Kind.READY, room, b"p" * (0 if room % 3 else 1_000_000)) for room in range(30)]
    for message in sent:
        line.send(message)
    assert [server.next()[1] for _ in sent] == sent
    line.send(Message(Kind.WANT, 99))  # nothing is in its way any more
    assert server.next()[1].room == 99


def test_a_line_that_is_hung_up_ends_on_both_sides(server: Server) -> None:
    reader = Side()
    line, _, files = reader.lines.call(server.port)
    closed(files)
    line.hang_up()
    assert reader.end() is line
    assert server.end().ended


def test_a_server_that_had_no_descriptor_left_lets_readers_in_later() -> None:
    code = f"""
import logging, os, resource, sys, threading, torch
from psserve.engine.onepool.lines import Lines
from psserve.engine.onepool.memory import LentMemory
from psserve.engine.onepool.host_memory import HostSpace
memory = LentMemory(HostSpace(), 8, (2, 4), torch.float32, 2)
lines, (soft, hard) = Lines(print, print), resource.getrlimit(resource.RLIMIT_NOFILE)
lines.listen({(port := next(_ports))}, memory.pool, memory.files)
logging.basicConfig(stream=sys.stdout, format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
print("up", flush=True)
sys.stdin.readline()
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
threading.Event().wait()
"""
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **piped) as process:  # type: ignore[call-overload]
        try:
            assert process.stdout.readline() == "up\n"
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as reader:
                reader.settimeout(PATIENCE_S)
                reader.connect(lines._name_of(port))
                assert "no reader of KV can be let in" in process.stdout.readline()
                process.stdin.write("\n")
                process.stdin.flush()
                _, files = lines._hear_hello(reader)
                closed(files)
        finally:
            process.kill()


def test_two_readers_have_lines_of_their_own(server: Server) -> None:
    readers = [Side(), Side()]
    for room, reader in enumerate(readers):
        line, _, files = reader.lines.call(server.port)
        closed(files)
        line.send(Message(Kind.WANT, room))
    first, second = (server.next()[0] for _ in readers)
    assert first is not second


def test_the_end_of_a_readers_process_is_heard(server: Server) -> None:
    code = f"""
from psserve.engine.onepool.lines import Lines
from psserve.engine.onepool.messages import Kind, Message
import os, signal, threading
line, _, _ = Lines(print, print).call({server.port})
line.send(Message(Kind.WANT, 5))
threading.Event().wait()
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        line, message = server.next()
        assert (message, line.ended) == (Message(Kind.WANT, 5), False)
    finally:
        process.kill()
        process.wait()
    assert server.end() is line
    assert line.ended
    line.send(Message(Kind.READY, 5))  # goes nowhere


def test_the_end_of_the_server_is_heard_and_one_that_starts_again_is_another_generation() -> None:
    code = f"""
import torch, threading
from psserve.engine.onepool.lines import Lines
from psserve.engine.onepool.memory import LentMemory
from psserve.engine.onepool.host_memory import HostSpace
memory = LentMemory(HostSpace(), 8, (2, 4), torch.float32, 2)
Lines(print, print).listen({(port := next(_ports))}, memory.pool, memory.files)
print("up", flush=True)
threading.Event().wait()
"""
    reader, generations = Side(), []
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout
        try:
            assert process.stdout.readline() == "up\n"
            line, pool, files = reader.lines.call(port)
            closed(files)
            generations.append(pool.generation)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        assert reader.end() is line
    assert generations[0] != generations[1]
    with pytest.raises(EngineError, match="does not lend its KV"):
        reader.lines.call(port)


def test_another_users_process_is_turned_away(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_another_user(peer: socket.socket) -> None:
        raise EngineError("the other side belongs to user 7")

    monkeypatch.setattr(lines, "_require_own", of_another_user)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.connect(lines._name_of(server.port))
        assert other.recv(1) == b""


def test_users_are_told_apart() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        lines._require_own(ours)

    class Foreign:
        def getsockopt(self, *_: int) -> bytes:
            return struct.pack("3i", 1, os.getuid() + 1, 1)

    with pytest.raises(EngineError, match="belongs to user"):
        lines._require_own(Foreign())  # type: ignore[arg-type]
