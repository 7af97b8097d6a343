"""The routers under test as processes: psserve's, SGLang's two, and none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from psserve.errors import FleetError
from psserve.fleet.plan.ports import free_ports
from psserve.fleet.run.process import tail
from psserve.fleet.run.router_client import HttpClient

START_S = 120.0
UPSTREAM = Path(__file__).parent / "upstream.py"
BOOTSTRAP_PORT = 8998
"""Nothing listens there, and nobody asks."""
PEERS = ("mini_lb", "sglang-router")
# SGLang itself is hidden: mini_lb would import all of it, PyTorch included, for tracing that is off.
PEER_START = """
import runpy, sys
sys.modules["sglang"] = None
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module("sglang_router.launch_router", run_name="__main__")
"""


@dataclass(frozen=True)
class Upstream:
    """The canned workers."""

    prefill: int
    decode: int
    pid: int


@dataclass(frozen=True)
class Router:
    """A process that listens on `port`; `pid` None: there is none, clients talk to the decode worker."""

    name: str
    port: int
    pid: int | None


@dataclass(frozen=True)
class Cores:
    """Which core the router runs on, and which one all others. None: wherever there is room."""

    router: int | None
    others: int | None


def two_cores() -> Cores:
    """The router has a core of its own where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    return Cores(cores[0], cores[1]) if len(cores) > 1 else Cores(None, None)


@contextmanager
def upstream(interval: float, cores: Cores) -> Iterator[Upstream]:
    """Canned workers; `interval`: seconds between the events of a stream."""
    command = [sys.executable, str(UPSTREAM), "--interval", str(interval)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        _pin(process.pid, cores.others)
        assert process.stdout is not None
        prefill, decode = process.stdout.readline().split()
        yield Upstream(int(prefill), int(decode), process.pid)
    finally:
        _stop(process)


@contextmanager
def router(name: str, workers: Upstream, cores: Cores, directory: Path, peer_path: Path) -> Iterator[Router]:
    """The router `name` ("direct": none) in front of `workers`, ready to serve. Logs go to `directory`.

    Raises RuntimeError when it does not start.
    """
    if name == "direct":
        yield Router(name, workers.decode, None)
        return
    (port,) = free_ports(1)
    command = _psserve(port, workers, directory) if name == "psserve" else _peer(name, port, workers, peer_path)
    with _started(name, command, port, directory, cores.router) as running:
        yield running


@contextmanager
def psserve_of(processes: int, workers: Upstream, directory: Path) -> Iterator[Router]:
    """psserve's router as so many processes, on any core. Raises RuntimeError when it does not start."""
    (port,), name = free_ports(1), f"psserve-{processes}"
    # One policy for all: what several processes have by default costs another time than what one has.
    command = _psserve(port, workers, directory, name, router_workers=processes, prefill_policy="session")
    with _started(name, command, port, directory, None) as running:
        yield running


@contextmanager
def _started(name: str, command: list[str], port: int, directory: Path, core: int | None) -> Iterator[Router]:
    path = directory / f"{name}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _pin(process.pid, core)
        _await_ready(name, process, port, path)
        yield Router(name, port, process.pid)
    finally:
        _stop(process)


def missing_peer(name: str, peer_path: Path) -> str | None:
    """Why the peer cannot be measured; None: it can."""
    if (peer_path / "sglang_router").is_dir():
        return None
    return f"{name} is not there: pip install --no-deps --target {peer_path} sglang-router"


def peer_version(peer_path: Path) -> str:
    """Of the wheel that both peers come from."""
    return next((path.stem.split("-")[1] for path in peer_path.glob("sglang_router-*.dist-info")), "unknown")


def _psserve(port: int, workers: Upstream, directory: Path, name: str = "router", **settings: Any) -> list[str]:
    config = {
        "port": port,
        "worker_key": "canned",
        "base": {"name": "base", "path": "/base", "vocab_size": 512, "context_length": 65536},
        "modules": [{"name": "math"}],
        "workers": [
            {"name": "prefill-0", "role": "prefill", "port": workers.prefill, "bootstrap_port": BOOTSTRAP_PORT},
            {"name": "decode-math-0", "role": "decode", "module": "math", "port": workers.decode},
        ],
        **settings,
    }
    path = directory / f"{name}.json"
    path.write_text(json.dumps(config))
    return [sys.executable, "-m", "psserve.router", "--config", str(path)]


def _peer(name: str, port: int, workers: Upstream, peer_path: Path) -> list[str]:
    """SGLang's routers as their documentation starts them; the Rust one keeps its checks of health to itself."""
    options = ["--mini-lb"] if name == "mini_lb" else ["--disable-health-check", "--worker-startup-check-interval", "1"]
    return [
        *(sys.executable, "-c", PEER_START, str(peer_path), "--pd-disaggregation", *options),
        *("--prefill", f"http://127.0.0.1:{workers.prefill}", str(BOOTSTRAP_PORT)),
        *("--decode", f"http://127.0.0.1:{workers.decode}", "--policy", "random"),
        *("--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_ports(1)[0])),
    ]


def _pin(pid: int, core: int | None) -> None:
    if core is not None:
        psutil.Process(pid).cpu_affinity([core])


def _await_ready(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until a chat is answered."""
    body = {"model": "math", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1, "stream": False}
    client, end = HttpClient(f"http://127.0.0.1:{port}"), time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            client.post("/v1/chat/completions", body, 5).close()
            return
        except FleetError:
            time.sleep(0.2)
    raise RuntimeError("\n".join([f"{name} did not start within {START_S:g} s:", *tail(log)]))


def _stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
