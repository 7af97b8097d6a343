"""A fleet as its user meets it: the commands, the official client, and what the fleet shows to anybody else."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from tests.e2e.fleet import PSSERVE, one_start_at_a_time
from tests.e2e.transfer import with_transfer
from tests.e2e.watching import family, listening
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.e2e

MODULES = ["alpha", "beta"]
SERVERS = {"prefill-0", "decode-alpha-0", "decode-beta-0", "router"}
HELLO: Any = [{"role": "user", "content": "hello"}]


def psserve(*arguments: str | Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    """What a user types, and `typed` on its standard input."""
    return subprocess.run([PSSERVE, *map(str, arguments)], input=typed, capture_output=True, text=True, timeout=240)


@dataclass(frozen=True)
class Detached:
    """A fleet in the background."""

    zoo: Path
    launch: subprocess.CompletedProcess[str]

    def status(self) -> dict[str, Any]:
        return dict(json.loads(psserve("status", "--json", "--zoo", self.zoo).stdout))

    def processes(self) -> list[psutil.Process]:
        return family(self.status()["supervisor"]["pid"])

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.status()['url']}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def fleet(zoo_of: Callable[[Architecture], Zoo]) -> Iterator[Detached]:
    zoo = zoo_of("qwen3").path
    with one_start_at_a_time():
        transfer = with_transfer(("--modules", ",".join(MODULES)))
        launch = psserve("launch", "--zoo", zoo, *transfer, "--port", "0", "--detach")
    try:
        yield Detached(zoo, launch)
    finally:
        psserve("stop", "--zoo", zoo)  # the last test has stopped it, if all went well


def test_launch_detached_says_where_it_serves(fleet: Detached) -> None:
    assert fleet.launch.returncode == 0, fleet.launch.stderr
    (line,) = fleet.launch.stdout.splitlines()
    assert line == f"psserve: ready at {fleet.status()['url']} (base qwen3-tiny; modules alpha, beta)"


def test_status_shows_every_server(fleet: Detached) -> None:
    servers = {server["name"]: server for server in fleet.status()["servers"]}
    assert set(servers) == SERVERS
    assert {server["state"] for server in servers.values()} == {"ready"}
    assert all(psutil.pid_exists(server["pid"]) for server in servers.values())
    text = psserve("status", "--zoo", fleet.zoo).stdout
    assert all(name in text for name in SERVERS)
    assert all(server["memory_bytes"] > 1_000_000 for server in servers.values())
    assert {servers[name]["kv_used_tokens"] for name in SERVERS - {"router"}} == {0}


def test_logs_of_a_running_fleet(fleet: Detached) -> None:
    lines = psserve("logs", "--zoo", fleet.zoo, "-n", "1").stdout.splitlines()
    assert {line.partition(" ")[0] for line in lines} >= {*SERVERS, "supervisor"}


def test_models_lists_the_zoo(fleet: Detached) -> None:
    listed = json.loads(psserve("models", "--json", "--zoo", fleet.zoo).stdout)
    assert [module["name"] for module in listed["modules"]] == ["alpha", "beta", "gamma"]


def test_chat_prints_the_answers_alone(fleet: Detached) -> None:
    talk = psserve("chat", "beta", "--zoo", fleet.zoo, "--max-tokens", "8", typed="hello\n/model alpha\nand you?\n")
    assert (talk.returncode, talk.stderr) == (0, "")
    assert talk.stdout.strip()


def test_chat_with_an_unknown_module_names_the_known_ones(fleet: Detached) -> None:
    talk = psserve("chat", "delta", "--zoo", fleet.zoo)
    assert talk.returncode == 1
    assert talk.stderr.count("\n") == 1
    assert "it has: alpha, beta" in talk.stderr


def test_doctor_finds_the_zoo_and_fails_nothing(fleet: Detached) -> None:
    report = psserve("doctor", "--zoo", fleet.zoo)
    assert report.returncode == 0, report.stdout
    assert str(fleet.zoo) in report.stdout
    assert [line.split()[2] for line in report.stdout.splitlines() if " answers, in " in line] == MODULES
    assert "are free or hold cache" in report.stdout


def bench(fleet: Detached, asked: str, *arguments: str | Path) -> dict[str, Any]:
    """The result line of a run of two sessions."""
    small = "--sessions 2 --system-tokens 200 --output-tokens 8 --think-secs 0 --json"
    run = psserve("bench", "--zoo", fleet.zoo, *f"{asked} {small}".split(), *arguments)
    assert run.returncode == 0, run.stderr
    line: dict[str, Any] = json.loads(run.stdout)
    assert line["psserve"]["errors"] == {"requests": 0, "interrupted": 0, "by_message": {}}
    assert (line["completed"], line["psserve"]["other_lengths"]) == (8, 0)
    return line


def test_bench_measures_the_sharing_of_prompts_of_exact_lengths(fleet: Detached) -> None:
    exact = ("--api", "completions", "--tokenizer", Zoo.open(fleet.zoo).base.path)
    line = bench(fleet, "--workload react --turns 4 --new-tokens 40 --concurrency 1", *exact)
    assert line["total_input_tokens"] == 2 * sum(200 + 40 * (turn + 1) + 8 * turn for turn in range(4))
    counters = line["psserve"]["counters"]
    assert counters["prefill"]["cached_tokens"] == line["cache_report"]["total_cached_tokens"]
    assert counters["prefill"]["hit_ratio"] > 0.5  # a session's second module finds what its first one had read
    assert counters["decode"]["cached_tokens"] > 0
    assert counters["kv_bytes"] > 0


def test_bench_writes_chat_prompts_of_about_the_length_it_says(fleet: Detached) -> None:
    line = bench(fleet, "--workload fanout --turns 2 --new-tokens 150")
    wanted = 2 * 2 * (350 + 508)  # two sessions, two modules, two turns
    assert abs(line["total_input_tokens"] - wanted) < 0.1 * wanted


def test_a_second_launch_is_refused(fleet: Detached) -> None:
    second = psserve("launch", "--zoo", fleet.zoo, "--port", "0")
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert f"runs already at {fleet.status()['url']}" in second.stderr


def test_a_taken_port_is_named(fleet: Detached, tmp_path: Path) -> None:
    other = shutil.copytree(fleet.zoo, tmp_path / "zoo", ignore=shutil.ignore_patterns(".run"))
    port = fleet.status()["url"].rpartition(":")[2]
    launch = psserve("launch", "--zoo", other, "--port", port)
    assert launch.returncode == 1
    assert launch.stderr.count("\n") == 1
    assert port in launch.stderr


def test_the_official_client_lists_models(fleet: Detached) -> None:
    models = fleet.client().models.list().data
    assert [model.id for model in models if model.id != "auto"] == MODULES
    assert {model.model_dump()["parent"] for model in models if model.id != "auto"} == {"qwen3-tiny"}


def test_the_official_client_chats_and_streams_the_same(fleet: Detached) -> None:
    client = fleet.client()
    whole = client.chat.completions.create(model="alpha", messages=HELLO, max_tokens=12, temperature=0)
    stream = client.chat.completions.create(
        model="alpha",
        messages=HELLO,
        max_tokens=12,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    usage, expected = chunks[-1].usage, whole.usage
    assert usage is not None
    assert expected is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (expected.prompt_tokens, expected.completion_tokens)


def test_the_official_client_completes_ids(fleet: Detached) -> None:
    answer = fleet.client().completions.create(model="beta", prompt=[5, 6, 7], max_tokens=3, temperature=0, n=2)
    assert answer.choices[0].text == answer.choices[1].text
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3


def test_the_official_client_sees_errors_as_its_own(fleet: Detached) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        fleet.client().chat.completions.create(model="delta", messages=HELLO)
    assert caught.value.code == "model_not_found"


def test_every_socket_listens_on_loopback(fleet: Detached) -> None:
    sockets = listening(fleet.processes())
    assert len({title for _, title in sockets}) > len(SERVERS)  # HTTP servers and schedulers are among them
    assert {address for address, _ in sockets} <= {"127.0.0.1", "::1"}, sockets


def worker_key(fleet: Detached) -> str:
    return str(json.loads((fleet.zoo / ".run" / "router.json").read_text())["worker_key"])


def test_the_worker_key_is_on_no_command_line_and_in_no_log(fleet: Detached) -> None:
    key = worker_key(fleet)
    assert not [process for process in fleet.processes() if key in " ".join(process.cmdline())]
    logs = {log.name: log.read_text(errors="replace") for log in (fleet.zoo / ".run" / "logs").iterdir()}
    assert not [name for name, text in logs.items() if key in text]
    assert "***" in logs["prefill-0.log"]  # SGLang does log its arguments


def test_only_the_user_can_read_the_files_of_a_fleet(fleet: Detached) -> None:
    run = fleet.zoo / ".run"
    assert run.stat().st_mode & 0o777 == 0o700
    assert (run / "router.json").stat().st_mode & 0o777 == 0o600


def test_servers_refuse_who_has_no_key(fleet: Detached) -> None:
    ports = [server["port"] for server in fleet.status()["servers"] if server["role"] != "router"]
    for port in ports:
        stranger = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="guess", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            stranger.models.list()


def test_stop_lets_an_answer_end_and_leaves_nothing(fleet: Detached) -> None:
    processes = fleet.processes()
    body: Any = {"ignore_eos": True}
    stream = fleet.client().completions.create(
        model="alpha", prompt=[5, 6, 7], max_tokens=400, stream=True, extra_body=body
    )
    next(iter(stream))
    stopping = subprocess.Popen([PSSERVE, "stop", "--zoo", str(fleet.zoo)], stdout=subprocess.PIPE, text=True)
    *_, last = stream
    assert last.choices[0].finish_reason == "length"
    said, _ = stopping.communicate(timeout=PATIENCE_S)
    assert (stopping.returncode, said.startswith("stopped http://127.0.0.1:")) == (0, True)
    assert not psutil.wait_procs(processes, timeout=PATIENCE_S)[1]
    assert psserve("status", "--zoo", fleet.zoo).returncode == 1
