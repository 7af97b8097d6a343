from __future__ import annotations

import asyncio
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The package, imported as the script does."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import router_bench.client
    import router_bench.report
    import router_bench.routers

    return router_bench


def test_the_router_passes_on_all_that_the_canned_workers_answer(bench: ModuleType, tmp_path: Path) -> None:
    anywhere = bench.routers.Cores(None, None)
    with (
        bench.routers.upstream(0.0, anywhere) as workers,
        bench.routers.router("psserve", workers, anywhere, tmp_path, tmp_path) as router,
    ):
        for stream in (False, True):
            made = bench.client.requests(router.port, words=40, max_tokens=3, stream=stream, seed=0)
            answers = asyncio.run(bench.client.open_loop(router.port, made, rate=100, seconds=0.05))
            assert len(answers) == 5
            assert all(0 < answered.first_s <= answered.total_s for answered in answers)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "503"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: {}\n\r\n0\r\n\r\n", "DONE"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", "broke"),
    ],
)
async def test_the_client_takes_no_failure_for_an_answer(bench: ModuleType, answer: bytes, why: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        connection = await bench.client.Connection.open(server.sockets[0].getsockname()[1])
        with pytest.raises(bench.client.BadAnswer, match=why):
            await connection.send(b"GET / HTTP/1.1\r\n\r\n")
        connection.close()


def test_no_two_requests_are_alike(bench: ModuleType) -> None:
    made = bench.client.requests(80, words=40, max_tokens=3, stream=False, seed=0)
    assert len(set(islice(made, 100))) == 100


def test_what_a_router_adds_is_above_going_direct(bench: ModuleType) -> None:
    times = {"direct": [0.001] * 98 + [0.004] * 2, "psserve": [0.003] * 98 + [0.009] * 2}
    figures = bench.report.latency_figures(times)
    assert figures["psserve"]["added_p50_ms"] == 2
    assert figures["psserve"]["added_p99_ms"] == 5
    assert "added_p50_ms" not in figures["direct"]
