"""Following what SGLang's own publisher sends: from the start, after losses, and across restarts."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import zmq.asyncio

from psserve import torchvision_ops
from psserve.contracts.router_config import KvEventsConfig, WorkerConfig
from psserve.router.placement.kv_events import Follower
from psserve.router.policies.events import FollowedHoldings
from psserve.router.policies.index import PredictedHoldings
from tests.router.conftest import eventually
from tests.router.policies.placing import BLOCK, request, text

Publish = Callable[[int], None]


@cache
def sglang_kv_events() -> Any:
    """SGLang's file alone: importing the package takes a minute on a busy machine. Newer ones need some of it."""
    torchvision_ops.declare_missing()
    found = importlib.util.find_spec("sglang")
    assert found is not None
    assert found.origin is not None
    file = Path(found.origin).parent / "srt" / "disaggregation" / "kv_events.py"
    spec = importlib.util.spec_from_file_location("sglang_kv_events", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # msgspec looks annotations up there
    spec.loader.exec_module(module)
    return module


class Server:
    """A publisher as SGLang's scheduler has one; a restart is a new one at the same addresses."""

    def __init__(self, addresses: KvEventsConfig) -> None:
        self._module = sglang_kv_events()
        self._addresses = addresses
        self._publisher: Any = None

    def start(self, **options: Any) -> None:
        self._publisher = self._module.ZmqEventPublisher(0, **self._addresses.model_dump(), **options)

    def stop(self) -> None:
        if self._publisher is not None:
            self._publisher.shutdown()
            self._publisher = None

    def store(self, number: int) -> None:
        """One page: the first of `text(number, ...)`."""
        event = self._module.BlockStored([number], None, text(number, BLOCK), BLOCK, None, "GPU")
        self._publisher.publish(self._module.KVEventBatch(ts=asyncio.get_running_loop().time(), events=[event]))


@pytest.fixture
def addresses() -> Iterator[KvEventsConfig]:
    with tempfile.TemporaryDirectory(prefix="kv-") as directory:
        events = Path(directory) / "events"
        yield KvEventsConfig(endpoint=f"ipc://{events}", replay_endpoint=f"ipc://{events}-past")


@pytest.fixture
def server(addresses: KvEventsConfig) -> Iterator[Server]:
    server = Server(addresses)
    yield server
    server.stop()


@pytest.fixture
async def holdings(addresses: KvEventsConfig) -> AsyncIterator[FollowedHoldings]:
    """What a follower keeps."""
    holdings = FollowedHoldings(BLOCK, PredictedHoldings(capacity=1_000))
    worker = WorkerConfig(name="a", role="prefill", port=1, bootstrap_port=2, kv_events=addresses)
    context = zmq.asyncio.Context()
    task = asyncio.create_task(Follower(context, worker, holdings).run())
    yield holdings
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    context.destroy(linger=0)


def known(holdings: FollowedHoldings, *numbers: int) -> bool:
    """Whether exactly these of the first ten pages are held."""
    return {n for n in range(10) if holdings.match("a", request(text(n, BLOCK)).prompt)} == set(numbers)


async def test_what_was_published_before_and_what_comes_is_known(server: Server, holdings: FollowedHoldings) -> None:
    server.start()
    server.store(1)
    server.store(2)
    await eventually(lambda: known(holdings, 1, 2))
    server.store(3)
    await eventually(lambda: known(holdings, 1, 2, 3))


async def test_a_restarted_server_holds_only_what_it_stored_since(server: Server, holdings: FollowedHoldings) -> None:
    server.start()
    for number in (1, 2, 3):
        server.store(number)
    await eventually(lambda: known(holdings, 1, 2, 3))
    server.stop()
    server.start()
    server.store(4)
    await eventually(lambda: known(holdings, 4))


async def test_a_server_that_keeps_too_little_is_predicted(
    server: Server, holdings: FollowedHoldings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    server.start(buffer_steps=2)  # the last one known is there whenever it is asked for
    for number in (1, 2, 3):
        server.store(number)
        await eventually(lambda number=number: known(holdings, *range(1, number + 1)))
    caplog.clear()
    holdings.forget("a")  # as after a lost connection
    await eventually(lambda: "kv_events=incomplete" in caplog.text)
    batches: list[str] = []
    monkeypatch.setattr(holdings, "told", batches.append)
    server.store(4)
    await eventually(lambda: batches)
    assert known(holdings)


async def test_a_tree_that_was_forgotten_is_built_again(server: Server, holdings: FollowedHoldings) -> None:
    server.start()
    server.store(1)
    await eventually(lambda: known(holdings, 1))
    holdings.forget("a")
    assert known(holdings)
    await eventually(lambda: known(holdings, 1))
    server.store(2)
    await eventually(lambda: known(holdings, 1, 2))


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:5557", "tcp://*:5557", "pgm://127.0.0.1:1", "nonsense"])
def test_addresses_that_others_reach_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        KvEventsConfig(endpoint=address, replay_endpoint="ipc:///tmp/x")
