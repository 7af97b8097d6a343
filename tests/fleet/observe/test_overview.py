"""What servers say of themselves, and a survey of them that nobody can stall."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from psserve.contracts.servers import KvLeases, ServerLoad
from psserve.errors import FleetError, NotRunning
from psserve.fleet.observe import overview
from psserve.fleet.observe.overview import read_load, read_totals, survey
from psserve.fleet.run.memory import MemoryUse, read_uses, write_uses
from psserve.fleet.run.router_client import HttpClient
from psserve.fleet.run.state import FleetState, ProcessId, ServerState, read_state, remove_state, write_state
from tests.waiting import PATIENCE_S

# As SGLang 0.5.18 and the router answered them, shortened.
LOADS = {
    "version": "0.5.18",
    "loads": [
        {
            "num_running_reqs": 2,
            "num_waiting_reqs": 1,
            "num_used_tokens": 320,
            "max_total_num_tokens": 16384,
            "disaggregation": {"mode": "prefill", "prefill_inflight_queue_reqs": 1},
        }
    ],
}
METRICS = """\
# TYPE sglang:prompt_tokens_total counter
sglang:prompt_tokens_total{engine_type="prefill",is_streaming="false"} 300.0
sglang:prompt_tokens_total{engine_type="prefill",is_streaming="true"} 100.0
# TYPE sglang:cached_tokens_total counter
sglang:cached_tokens_total{cache_source="device",engine_type="prefill"} 100.0
# TYPE psserve_inflight_requests gauge
psserve_inflight_requests 4.0
# TYPE psserve_prompt_tokens counter
psserve_prompt_tokens_total{module="math"} 200.0
psserve_prompt_tokens_total{module="code"} 200.0
# TYPE psserve_cached_tokens counter
psserve_cached_tokens_total{module="math"} 150.0
psserve_cached_tokens_total{module="code"} 50.0
# TYPE psserve_version_requests counter
psserve_version_requests_total{code="200",module="math",version="1"} 90.0
psserve_version_requests_total{code="200",module="math",version="2"} 8.0
psserve_version_requests_total{code="500",module="math",version="2"} 1.0
"""
WORKERS = {"workers": [{"name": "decode-math-0", "state": "down", "error": "oops"}]}
BODIES = {"/v1/loads": json.dumps(LOADS), "/metrics": METRICS, "/workers": json.dumps(WORKERS)}


class Speaking(BaseHTTPRequestHandler):
    """Every server of the fleet at once."""

    def do_GET(self) -> None:
        body = BODIES[self.path.partition("?")[0]].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "SILENT_AFTER_S", PATIENCE_S)


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Speaking)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def write_fleet(zoo: Path, router: int, prefill: int, decode: int) -> None:
    (zoo / ".run").mkdir()
    servers = [("prefill-0", "prefill", None, prefill), ("decode-math-0", "decode", "math", decode)]
    write_state(
        zoo / ".run",
        FleetState(
            url=f"http://127.0.0.1:{router}",
            zoo=str(zoo),
            base="b",
            supervisor=ProcessId.own(),
            ready=True,
            tmp_dir="t",
            servers=tuple(
                ServerState.model_validate(
                    {"name": name, "role": role, "module": module, "pid": os.getpid(), "port": at}
                    | {"state": "ready", "started": 1.0, "log": "l"}
                )
                for name, role, module, at in (*servers, ("router", "router", None, router))
            ),
        ),
    )


def test_load_counts_what_is_sent_as_running(port: int) -> None:
    load = read_load(HttpClient(f"http://127.0.0.1:{port}"), 5)
    assert load == ServerLoad(running=3, queued=1, kv_tokens=16384, kv_used_tokens=320)


def test_an_answer_in_another_form_is_an_error(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, read in (("/v1/loads", read_load), ("/metrics", read_totals)):
        monkeypatch.setitem(BODIES, path, "{")
        with pytest.raises(FleetError, match="in a form that psserve does not know"):
            read(HttpClient(f"http://127.0.0.1:{port}"), 5)


def test_survey(tmp_path: Path, port: int) -> None:
    write_fleet(tmp_path, port, port, port)
    prefill, decode, router = survey(tmp_path).servers
    assert (prefill.running, prefill.queued, prefill.kv_used_tokens) == (3, 1, 320)
    assert (prefill.cache_hit_rate, decode.cache_hit_rate, router.cache_hit_rate) == (0.25, 0.75, 0.5)
    assert (decode.state, decode.error) == ("down", "oops")
    assert (router.running, router.queued, router.kv_tokens, router.processes) == (4, None, None, 1)
    assert all(server.memory_bytes and server.uptime_s for server in (prefill, decode, router))


def test_the_memory_of_a_server_elsewhere_is_as_its_supervisor_knows_it(tmp_path: Path, port: int) -> None:
    write_fleet(tmp_path, port, port, port)
    run = tmp_path / ".run"
    state = read_state(run)
    assert state is not None
    prefill, *others = state.servers
    moved = prefill.model_copy(update={"host": "b", "pid": None})
    write_state(run, state.model_copy(update={"servers": (moved, *others)}))
    assert survey(tmp_path).servers[0].memory_bytes is None
    write_uses(run, {prefill.name: MemoryUse(main_bytes=5, gpu_bytes=6)})
    found = survey(tmp_path).servers[0]
    assert (found.memory_bytes, found.gpu_memory_bytes) == (5, 6)
    assert found.uptime_s
    remove_state(run)
    assert read_uses(run) == {}


TRIAL = {"version": 2, "zoo_version": 2, "share": 10.0, "shadow": True}


def test_what_is_on_trial(tmp_path: Path, port: int) -> None:
    write_fleet(tmp_path, port, port, port)
    modules = [{"name": "math", "version": 1, "zoo_version": 1, "trial": TRIAL}, {"name": "code", "trial": None}]
    (tmp_path / ".run" / "router.json").write_text(json.dumps({"modules": modules}))
    fleet = survey(tmp_path)
    (trial,) = fleet.trials
    assert (trial.module, trial.version, trial.beside, trial.share, trial.shadow) == ("math", 2, 1, 10.0, True)
    assert (trial.requests, trial.requests_beside) == (9, 90)
    assert fleet.servers[1].cache_hit_rate == 0.75


def test_a_server_of_adapters_has_their_hits(tmp_path: Path, port: int) -> None:
    write_fleet(tmp_path, port, port, port)
    modules = [{"name": name, "group": "math"} for name in ("code", "sums")]
    (tmp_path / ".run" / "router.json").write_text(json.dumps({"modules": modules}))
    _, decode, _ = survey(tmp_path).servers
    assert (decode.sharing, decode.cache_hit_rate) == (2, 0.5)


def test_silent_servers_are_shown_without_what_they_would_say(
    tmp_path: Path, port: int, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "SILENT_AFTER_S", 5.0)
    write_fleet(tmp_path, port, prefill=silent, decode=1)
    prefill, decode, router = survey(tmp_path).servers
    assert (prefill.running, prefill.cache_hit_rate, prefill.state) == (None, None, "ready")
    assert (decode.running, decode.cache_hit_rate) == (None, 0.75)
    assert router.running == 4


def test_no_fleet(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        survey(tmp_path)


LEASES = """\
psserve_kv_leases 2.0
psserve_kv_lease_tokens 3000.0
psserve_kv_lease_age_seconds 1.5
"""


def test_what_a_prefill_server_lends(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fleet(tmp_path, port, port, port)
    assert survey(tmp_path).one_pool is False
    assert survey(tmp_path).servers[0].kv_leases is None
    monkeypatch.setitem(BODIES, "/metrics", METRICS + LEASES)
    (tmp_path / ".run" / "router.json").write_text(json.dumps({"one_pool": True}))
    fleet = survey(tmp_path)
    assert fleet.one_pool is True
    leases = [server.kv_leases for server in fleet.servers]
    assert leases == [KvLeases(count=2, tokens=3000, oldest_s=1.5), None, None]
