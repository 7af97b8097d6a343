"""The table of a fleet, wide and narrow."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from psserve.console import console, show
from psserve.contracts.servers import KvLeases
from psserve.fleet.observe.overview import FleetOverview, ServerOverview, TrialOverview
from psserve.fleet.observe.status_table import duration, render_status
from psserve.fleet.run.state import ProcessId

SERVER = ServerOverview(
    name="decode-math-0",
    role="decode",
    module="math",
    pid=123456,
    port=41003,
    state="ready",
    restarts=1,
    log="l",
    memory_bytes=3 * 2**30,
    running=3,
    queued=0,
    cache_hit_rate=0.834,
    kv_tokens=1000,
    kv_used_tokens=120,
    uptime_s=3600 * 5,
)
DOWN = ServerOverview(name="decode-code-0", role="decode", module="code", port=1, state="down", error="oops", log="l")


def fleet(*servers: ServerOverview) -> FleetOverview:
    return FleetOverview(
        url="http://127.0.0.1:30000",
        zoo="/zoo",
        base="b",
        supervisor=ProcessId(pid=1, ticks=1),
        ready=True,
        tmp_dir="t",
        servers=servers,
        versions={"psserve": "1"},
    )


def shown(*servers: ServerOverview, width: int | None = None) -> list[str]:
    out = io.StringIO()
    show(render_status(fleet(*servers), made := Console(file=out, width=width) if width else console(out)), made)
    return out.getvalue().splitlines()


def test_a_server_of_adapters_says_how_many_share_it() -> None:
    sharing = SERVER.model_copy(update={"name": "decode-adapters-0", "module": "adapters", "sharing": 20})
    assert "decode-adapters-0 decode adapters (20) ready" in " ".join(shown(sharing)[-1].split())


@pytest.mark.parametrize(("processes", "name"), [(1, "router"), (2, "router (2 processes)")])
def test_a_router_of_several_processes_says_so(processes: int, name: str) -> None:
    router = SERVER.model_copy(update={"name": "router", "role": "router", "module": None, "processes": processes})
    assert f"{name} router ready" in " ".join(shown(router)[-1].split())


def test_a_pipe_gets_every_column_that_has_something_to_say() -> None:
    heading, row = shown(SERVER)[-2:]
    titles = "server role module state device memory running queued hits KV restarts up pid port"
    assert " ".join(heading.split()) == titles
    cells = "decode-math-0 decode math ready cpu 3.00 GiB 3 0 83% 12% 1 5 h 0 m 123456 41003"
    assert " ".join(row.split()) == cells


def test_eighty_columns_are_enough() -> None:
    lines = shown(SERVER, DOWN, width=80)
    assert max(map(len, lines)) <= 80
    assert any(line.split()[:2] == ["decode-math-0", "ready"] for line in lines)


def test_gpu_memory_is_shown_where_there_is_some() -> None:
    assert "GPU" in shown(SERVER.model_copy(update={"gpu_memory_bytes": 2**30}))[-2].split()


def test_what_is_wrong_is_said_below() -> None:
    lines = shown(SERVER, DOWN)
    assert "1 of 2 ready" in lines[0]
    assert lines[-1] == "decode-code-0: oops"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.9, "59 s"), (61, "1 m 1 s"), (7300, "2 h 1 m"), (90_000, "1 d 1 h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_it_says_what_reads_the_answers_where_that_fits() -> None:
    reads = SERVER.model_copy(update={"tool_call_parser": "qwen", "reasoning_parser": "qwen3"})
    assert any("qwen + qwen3" in line for line in shown(reads))
    assert not any("qwen3" in line for line in shown(reads, width=100))


def test_one_pool_and_each_modules_own_part() -> None:
    sizes = {"kv_tokens": 36_864, "kv_used_tokens": 3_008, "kv_leases": KvLeases(count=2, tokens=3_000, oldest_s=61)}
    lender = SERVER.model_copy(update={"name": "prefill-0", "role": "prefill", "module": None, **sizes})
    out = io.StringIO()
    shared = fleet(lender, SERVER, DOWN).model_copy(update={"one_pool": True})
    show(render_status(shared, made := console(out)), made)
    assert out.getvalue().splitlines()[3:5] == [
        "one KV pool: 3008 of 36864 tokens in use, 3000 are lent to 2 requests, the oldest for 1 m 1 s",
        "own parts: math 120 of 1000",
    ]


def test_servers_of_one_module_have_own_parts_by_their_names() -> None:
    other = SERVER.model_copy(update={"name": "decode-math@2-0"})
    out = io.StringIO()
    show(render_status(fleet(SERVER, other).model_copy(update={"one_pool": True}), made := console(out)), made)
    assert f"own parts: {SERVER.name} 120 of 1000, decode-math@2-0 120 of 1000" in out.getvalue()


@pytest.mark.parametrize(
    ("share", "shadow", "requests", "said"),
    [
        (10.0, False, 9, "on trial for 10 % of the sessions: 9 requests, version 1: 90"),
        (2.5, True, 9, "on trial for 2.5 % of the sessions and in the shadow of the others: 9 requests, version 1: 90"),
        (0.0, False, None, "on trial for nobody: - requests, version 1: 90"),
    ],
)
def test_a_version_on_trial(share: float, shadow: bool, requests: int | None, said: str) -> None:
    given = {"share": share, "shadow": shadow, "requests": requests, "requests_beside": 90}
    trial = TrialOverview.model_validate({"module": "math", "version": 2, "beside": 1} | given)
    out = io.StringIO()
    show(render_status(fleet(SERVER).model_copy(update={"trials": (trial,)}), made := console(out)), made)
    assert out.getvalue().splitlines()[3] == f"math: version 2 is {said}"


def test_a_fleet_of_copies_has_no_one_pool() -> None:
    assert not any("pool" in line for line in shown(SERVER))
