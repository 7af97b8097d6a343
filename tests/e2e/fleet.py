"""Real fleets for tests: `psserve launch` as a user runs it, and direct access to its servers."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import requests
from prometheus_client.parser import text_string_to_metric_families

from psserve.bench.systems.fleet import RunningFleet as Running
from tests.e2e.forked_launch import Launch, launching
from tests.e2e.transfer import with_transfer
from tests.waiting import PATIENCE_S

READY_WITHIN_S = 240  # patience, not a verdict on speed
PSSERVE = str(Path(sys.executable).with_name("psserve"))


@dataclass(frozen=True)
class RunningFleet(Running):
    """A fleet under test. Its `key` only the router should know."""

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    @property
    def tmp_dir(self) -> Path:
        """TMPDIR of the fleet's processes."""
        return Path(json.loads((self.zoo / ".run" / "state.json").read_text())["tmp_dir"])

    def log(self, name: str) -> str:
        return (self.zoo / ".run" / "logs" / f"{name}.log").read_text()

    def pid(self, name: str) -> int:
        """The process id of a server, as `psserve status --json` prints it."""
        return self.pids()[name]


@contextlib.contextmanager
def launched(
    zoo: Path, *arguments: str, env: Mapping[str, str] | None = None, wait_ready: bool = True
) -> Iterator[RunningFleet]:
    """Launch a fleet, wait until it is ready, and see that it leaves no process behind.

    `env` goes to every SGLang server. With `wait_ready=False` the fleet is handed over as soon as its servers answer
    `/health`, whatever the router says of them.
    """
    variables = [word for name, value in (env or {}).items() for word in ("--env", f"{name}={value}")]
    with contextlib.ExitStack() as ends:
        with one_start_at_a_time():
            (zoo / ".run" / "router.json").unlink(missing_ok=True)  # of a fleet whose supervisor was killed
            launch = ends.enter_context(launching(zoo, *variables, *with_transfer(arguments)))
            ends.callback(stop, launch)
            config = router_config(zoo, launch)
            launch.await_ready(READY_WITHIN_S) if wait_ready else _await_health(config, launch)
        yield RunningFleet(zoo, f"http://{config['host']}:{config['port']}", launch.pid, config)


def stop(launch: Launch) -> None:
    """End a fleet as two Ctrl-C do: servers that hold no request need not be waited for. No process may outlive it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(launch.pid).children(recursive=True)
        os.kill(launch.pid, signal.SIGINT)
        os.kill(launch.pid, signal.SIGTERM)  # another number: two of one may arrive as one
        launch.end(within_s=PATIENCE_S)
        left = psutil.wait_procs(family, timeout=PATIENCE_S)[1]
        assert not left, f"processes left behind: {left}"


@contextlib.contextmanager
def one_start_at_a_time() -> Iterator[None]:
    """Hold the machine: fleets that start at once on a few cores starve each other, and may choose the same ports."""
    path = Path(tempfile.gettempdir()) / f"psserve-e2e-{os.getuid()}.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def router_config(zoo: Path, launch: Launch) -> Mapping[str, Any]:
    """What a launch has planned for its router, as soon as it has."""
    path = zoo / ".run" / "router.json"
    for _ in launch.runs_within(READY_WITHIN_S):
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            return dict(json.loads(path.read_text()))
    raise AssertionError(f"psserve launch planned nothing: {launch.notes.read_text()}")


def _await_health(config: Mapping[str, Any], launch: Launch) -> None:
    def healthy(port: int) -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{port}/health", timeout=30).status_code == 200
        return False

    ports = [worker["port"] for worker in config["workers"]]
    for _ in launch.runs_within(READY_WITHIN_S):
        if all(map(healthy, ports)):
            return
    raise AssertionError(f"the servers do not answer: {launch.notes.read_text()}")


@dataclass(frozen=True)
class PairAnswer:
    """What both legs of a directly dispatched pair said (SGLang's native `/generate` answers)."""

    prefill: Mapping[str, Any]
    decode: Mapping[str, Any]

    @property
    def tokens(self) -> list[int]:
        return list(self.decode["output_ids"])

    @property
    def logprobs(self) -> list[float]:
        return [entry[0] for entry in self.decode["meta_info"]["output_token_logprobs"]]


async def direct_pair(
    fleet: RunningFleet,
    module: str,
    input_ids: Sequence[int],
    max_new_tokens: int,
    *,
    prefill: str = "prefill-0",
    adapter: str | None = None,
    **sampling: Any,
) -> PairAnswer:
    """Dispatch one greedy request by token ids past the router: a prefill server and a module's first decode server.

    Where modules share that server, `adapter` is what it knows the wanted one by.
    """
    source = fleet.worker(prefill)
    body = {
        "input_ids": list(input_ids),
        "bootstrap_host": source["host"],
        "bootstrap_port": source["bootstrap_port"],
        "bootstrap_room": random.getrandbits(62) | 1,
    }
    async with aiohttp.ClientSession(headers=fleet.auth) as session:

        async def leg(server: str, **fields: Any) -> Any:
            async with session.post(f"{fleet.worker_url(server)}/generate", json=body | fields) as answer:
                return await answer.json()

        first, second = await asyncio.gather(
            leg(prefill, sampling_params={"max_new_tokens": 1, "temperature": 0}),
            leg(
                f"decode-{module}-0",
                sampling_params={"max_new_tokens": max_new_tokens, "temperature": 0, **sampling},
                return_logprob=True,
                **({"lora_path": adapter} if adapter else {}),
            ),
        )
    return PairAnswer(first, second)


def load_of(fleet: RunningFleet, server: str) -> Mapping[str, Any]:
    """A server's own account of its load: tokens held by requests, queues (SGLang's `/v1/loads`)."""
    answer = requests.get(f"{fleet.worker_url(server)}/v1/loads", headers=fleet.auth, timeout=30)
    answer.raise_for_status()
    return dict(answer.json()["loads"][0])


def counter(fleet: RunningFleet, server: str, name: str, **labels: str) -> float:
    """The sum of one of SGLang's metrics over all its label sets that have these labels."""
    text = requests.get(f"{fleet.worker_url(server)}/metrics", headers=fleet.auth, timeout=30).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def wait_idle(fleet: RunningFleet) -> None:
    """Wait until no server holds a request, a queue entry or KV outside its tree; fail if one never gets there."""
    deadline = time.monotonic() + PATIENCE_S
    while busy := [name for name in map(_name, fleet.config["workers"]) if not _is_idle(load_of(fleet, name))]:
        assert time.monotonic() < deadline, {name: load_of(fleet, name) for name in busy}
        time.sleep(0.2)


def _name(worker: Mapping[str, Any]) -> str:
    return str(worker["name"])


def _is_idle(load: Mapping[str, Any]) -> bool:
    queued = sum(value for name, value in load["disaggregation"].items() if name.endswith("_reqs"))
    return load["num_running_reqs"] + load["num_waiting_reqs"] + load["num_used_tokens"] + queued == 0
