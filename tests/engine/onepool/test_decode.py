"""A decode server that reads prompts in place answers exactly, and each lease ends once (SGLang's own queues)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from psserve.engine.fixes import retraction  # noqa: E402
from psserve.engine.handover import decode, purity  # noqa: E402
from psserve.engine.handover.differences import slots_of  # noqa: E402
from psserve.engine.onepool import decode as one_pool  # noqa: E402
from psserve.engine.onepool import pool as kv_pool  # noqa: E402
from psserve.engine.onepool.host_memory import HostSpace  # noqa: E402
from psserve.engine.onepool.memory import LentMemory, Space  # noqa: E402
from psserve.engine.onepool.messages import Kind, Message  # noqa: E402
from psserve.engine.onepool.pool import MEMORY  # noqa: E402
from psserve.engine.onepool.reader import Reading, ReadingReceiver, Source  # noqa: E402
from psserve.engine.settings import NegativeControl, Role  # noqa: E402
from psserve.engine.versions import ONE_POOL, installed_sglang  # noqa: E402
from tests.engine.cuda.fake_driver import Gpu  # noqa: E402
from tests.engine.handover.decode_server import POOL, DecodeServer, expected, sglang_configured  # noqa: E402
from tests.engine.hooked import hooked  # noqa: E402
from tests.engine.onepool.spaces import FakeDeviceSpace  # noqa: E402
from tests.engine.release import only  # noqa: E402

pytestmark = pytest.mark.skipif(installed_sglang() not in ONE_POOL, reason="not with this release of SGLang yet")

LENT_PAGES = 400
PROMPTS = [[1], [1, 2], [*range(1, 4)], [*range(1, 5)], [*range(1, 6)], [*range(1, 7)], [*range(1, 41)]]


class Receiver(ReadingReceiver):  # type: ignore[misc]
    """What has arrived is given by the test."""

    conclude_state = None
    require_staging = False

    def __init__(self) -> None:
        self.arrived: Reading | None = None

    def send_metadata(self, kv_indices: Any, *args: Any, **kwargs: Any) -> None:
        """Ask nobody."""
        self.own_pages = kv_indices.tolist()

    def clear(self) -> None:
        """Forget nothing."""

    def reading(self, page_size: int, device: str) -> Reading:
        assert self.arrived is not None
        return self.arrived


class Line:
    """Remembers what is said."""

    ended = False

    def __init__(self) -> None:
        self.said: list[Message] = []

    def send(self, message: Message) -> None:
        self.said.append(message)


class ReadingServer(DecodeServer):
    """A decode server beside a prefill server's pool, whose pages are given out in a random order."""

    def __init__(self, page_size: int, lender: Space) -> None:
        super().__init__(page_size)
        self.line = Line()
        self.lent = LentMemory(lender, LENT_PAGES * page_size, (1, 1), torch.float32, 2)
        self.region = MEMORY.reader().map(self.lent.pool, self.lent.files)
        pages = list(range(1, LENT_PAGES))
        random.Random(1).shuffle(pages)
        self._pages = iter(pages)

    def enqueue(self, req: Any, *, rebootstrap: bool = False) -> None:
        super().enqueue(req, rebootstrap=rebootstrap)
        self.queue.queue[-1].kv_receiver = Receiver()

    def _fill(self, entry: Any) -> None:
        req, size = entry.req, self.page_size
        tokens = [*req.origin_input_ids, *req.output_ids][: slots_of(req).kv_committed_len]
        pages = [next(self._pages) for _ in range(-(-len(tokens) // size))]
        for token, (page, place) in zip(tokens, itertools.product(pages, range(size)), strict=False):
            self.lent.tensors[0][page * size + place] = float(token)
        source = Source(self.line, self.region)  # type: ignore[arg-type]
        numbers = torch.tensor(pages, dtype=torch.int32).numpy().tobytes()
        entry.kv_receiver.arrived = Reading(source, req.bootstrap_room, numbers, size)

    def turn(self) -> None:
        """What is looked at in each turn of the scheduler's loop."""
        one_pool._each_turn(self)

    def said_of(self, req: Any) -> list[Kind]:
        return [message.kind for message in self.line.said if message.room == req.bootstrap_room]

    def check_idle(self) -> None:
        super().check_idle()
        assert self.tree_cache.evictable_size() == 0, "the base's KV is not kept twice"
        assert self.region.users == 0
        rooms = {message.room for message in self.line.said}
        taken = [message.room for message in self.line.said if message.kind is Kind.TAKEN]
        released = [message.room for message in self.line.said if message.kind is Kind.RELEASE]
        assert sorted(taken) == sorted(released)
        assert set(taken) == rooms


@pytest.fixture(scope="module")
def hooked_sglang() -> Iterator[None]:
    hooks = [*decode.hooks(NegativeControl.NONE), *retraction.hooks(), *purity.hooks(Role.DECODE), *one_pool.hooks()]
    with sglang_configured(), hooked(hooks):
        yield


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDeviceSpace:
    """What a decode server sees of a GPU, in place of main memory."""
    space = FakeDeviceSpace(Gpu())
    monkeypatch.setattr(kv_pool, "_space_of", lambda pool: space)
    return space


@pytest.fixture(params=[1, 4], ids=["pages of 1", "pages of 4"])
def server(request: pytest.FixtureRequest, hooked_sglang: None) -> Iterator[ReadingServer]:
    """It must have leaked no slot and no lease when the test ends."""
    server = ReadingServer(request.param, HostSpace())
    yield server
    server.finish()
    server.check_idle()


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_an_answer_over_pages_read_in_place_is_exact(server: ReadingServer, prompt: Sequence[int]) -> None:
    req = server.submit(prompt, 9)
    server.run()
    assert list(req.output_ids) == expected(prompt, 9)
    assert server.said_of(req) == [Kind.TAKEN, Kind.RELEASE]


def test_whole_pages_take_no_slots(server: ReadingServer) -> None:
    server.submit([*range(1, 42)], 3)
    free = server.token_to_kv_pool_allocator.available_size()
    server.admit()
    assert free - server.token_to_kv_pool_allocator.available_size() <= server.page_size


def test_many_at_once(server: ReadingServer) -> None:
    reqs = [(server.submit(prompt, 5), prompt) for prompt in PROMPTS]
    server.run()
    for req, prompt in reqs:
        assert list(req.output_ids) == expected(prompt, 5)


@only(since="0.5.21")
@pytest.mark.parametrize("prompt", [[50, 51, 52], [*range(1, 42)]], ids=len)
def test_requests_whose_answers_may_fill_the_pool_run_beside_each_other(
    server: ReadingServer, prompt: Sequence[int]
) -> None:
    reqs = [server.submit(prompt, POOL * 7 // 8)]
    server.admit()
    server.step()
    reqs.append(server.submit(prompt, POOL * 7 // 8))
    server.admit()
    assert [len(req.output_ids) for req in reqs] == [1, 0]
    assert len(server.running_batch.reqs) == 2
    for req in reqs:
        server.abort(req)
    server.step()


@only(since="0.5.21")
@pytest.mark.parametrize("server", [4], indirect=True)
def test_no_more_wait_for_their_kv_than_leave_who_runs_room_to_its_end(server: ReadingServer) -> None:
    reqs = [server.submit([50, 51], POOL * 7 // 8)]
    server.admit()
    reqs += [server.submit([50, 51], 4) for _ in range(6)]
    server.preallocate()
    waiting = len(server.transfer_queue.queue)
    assert 0 < waiting < 6
    assert waiting * server.page_size + 1 + POOL * 7 // 8 <= POOL
    server.transfer()
    server.prebuild()
    server.preallocate()  # who runs can be retracted: there is room for the next
    assert server.transfer_queue.queue
    server.transfer()
    server.prebuild()
    server.abort(reqs[0])
    server.finish()
    server.run()
    assert [list(req.output_ids) for req in reqs[1:]] == [expected([50, 51], 4)] * 6


@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_a_retracted_request_keeps_what_it_reads(server: ReadingServer, prompt: Sequence[int], steps: int) -> None:
    req = server.submit(prompt, 9)
    other = server.submit([50, 51, 52, 53, 54], 9)
    server.admit()
    for _ in range(steps):
        server.step()
    server.retract(req)
    assert server.said_of(req) == [Kind.TAKEN]
    server.step()
    server.resume()
    server.prebuild()
    server.finish()
    assert list(req.output_ids) == expected(prompt, 9)
    assert list(other.output_ids) == expected([50, 51, 52, 53, 54], 9)
    assert server.said_of(req) == [Kind.TAKEN, Kind.RELEASE]


@only(since="0.5.21")
def test_a_request_that_is_retracted_for_good_reads_no_more(server: ReadingServer) -> None:
    from sglang.srt.runtime_context import get_disagg

    req = server.submit([*range(1, 12)], 9)
    server.admit()
    server.step()
    with get_disagg().override(disaggregation_decode_retraction_backup="none"):
        server.retract(req)
    server.queue.retracted_queue.clear()
    assert server.said_of(req) == [Kind.TAKEN, Kind.RELEASE]


def test_a_request_that_is_aborted_reads_no_more(server: ReadingServer) -> None:
    req = server.submit([*range(1, 12)], 9)
    server.admit()
    server.step()
    server.abort(req)
    server.step()
    assert server.said_of(req) == [Kind.TAKEN, Kind.RELEASE]


def test_kv_that_is_computed_anew_is_lent_anew(server: ReadingServer) -> None:
    prompt = [*range(1, 12)]
    req = server.submit(prompt, 9)
    server.admit()
    server.step()
    server.step()
    server.restart(req)
    assert server.said_of(req) == [Kind.TAKEN, Kind.RELEASE]
    server.run()
    assert server.said_of(req) == [Kind.TAKEN, Kind.RELEASE] * 2


def test_memory_of_a_prefill_server_that_ended_is_let_go_in_the_turn_after_its_last_reader(
    server: ReadingServer,
) -> None:
    req = server.submit([*range(1, 12)], 9)
    server.admit()
    server.step()
    server.region.ended = True
    server.turn()
    first, table = server.region.first_row, server.req_to_token_pool.req_to_token
    assert (table >= first).any()
    server.run()
    assert list(req.output_ids) == expected([*range(1, 12)], 9)
    server.turn()
    assert not (table >= first).any()
    assert MEMORY.reader().map(server.lent.pool, server.lent.files).first_row == first


# On a GPU: copies take their time.


def test_a_page_is_taken_once_the_gpu_has_copied_it_and_its_lease_ends_after_that(
    device: FakeDeviceSpace, hooked_sglang: None
) -> None:
    server = ReadingServer(4, FakeDeviceSpace(device.gpu))
    prompt = [*range(1, 12)]
    req = server.submit(prompt, 9)
    server.run()
    assert list(req.output_ids) == expected(prompt, 9)
    assert server.said_of(req) == []
    server.turn()
    assert server.said_of(req) == []
    (copy,) = device.asked
    copy.is_done = True
    server.turn()
    assert server.said_of(req) == [Kind.TAKEN, Kind.RELEASE]
    server.check_idle()


def test_a_prompt_of_whole_pages_waits_for_no_copy(device: FakeDeviceSpace, hooked_sglang: None) -> None:
    server = ReadingServer(4, FakeDeviceSpace(device.gpu))
    req = server.submit([*range(1, 10)], 9)
    server.run()
    assert server.said_of(req) == [Kind.TAKEN, Kind.RELEASE]
    assert device.asked == []
