"""launch --dry-run, status and stop as a user types them."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from psserve import __version__
from psserve.cli import launch
from psserve.cli.launch import command
from psserve.cli.main import cli
from psserve.contracts.router_config import ModuleConfig, Trial
from psserve.engine.arguments import _OTHER_NAMES, _REFUSED, _SET_BY_FLEET
from psserve.engine.versions import installed_sglang, runs_one_pool_unasked
from psserve.fleet import FleetOptions, make_plan
from psserve.fleet.live.requests import ZooWatch
from psserve.fleet.options.options import RouterOptions
from psserve.fleet.options.server_options import RESERVED_ARGUMENTS
from psserve.fleet.plan import devices
from psserve.fleet.plan.nvidia import Torch
from psserve.fleet.run.state import FleetState, ProcessId, ServerState, read_state, write_state
from psserve.fleet.run.trials import keep_trials
from psserve.zoo import Zoo
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.fleet.nvidia_smi import H100, put_on_path


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "zoo.toml").touch()
    (tmp_path / ".run").mkdir()
    fake: Any = FakeZoo(tmp_path, FakeBase(tmp_path / "base"))
    monkeypatch.setattr(Zoo, "open", lambda path: fake)
    monkeypatch.setenv("PSSERVE_ZOO", str(tmp_path))
    return tmp_path


def psserve(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_dry_run_prints_the_plan_and_starts_nothing(zoo: Path) -> None:
    result = psserve("launch", "--dry-run", "--device", "cpu", "--port", "0", "--modules", "maths, code")
    assert result.exit_code == 0
    assert "# decode-math-0" in result.stdout
    assert list((zoo / ".run").iterdir()) == []


def test_dry_run_as_json(zoo: Path) -> None:
    arguments = ("--device", "cpu", "--port", "0", "--env", "A=b=c", "--json", "--", "--schedule-policy", "lpm")
    servers = json.loads(psserve("launch", "--dry-run", *arguments).stdout)["servers"]
    assert [server["name"] for server in servers] == ["prefill-0", "decode-code-0", "decode-math-0", "router"]
    assert servers[0]["command"][-2:] == ["--schedule-policy", "lpm"]
    assert servers[0]["env"]["A"] == "b=c"


def test_launch_says_what_was_on_trial(zoo: Path) -> None:
    trial = Trial(version=2, zoo_version=4, share=10)
    keep_trials(zoo / ".run", [ModuleConfig(name="math", zoo_version=3, trial=trial)])
    said = psserve("launch", "--dry-run", "--device", "cpu", "--port", "0").stderr
    assert "psserve: version 4 of math was on trial: it is taken up again once the fleet is ready\n" in said


def test_a_watched_zoo_is_followed_from_before_it_is_planned(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watches: list[ZooWatch] = []

    def plan(*_: object) -> tuple[Any, None]:
        manifest = zoo / "modules" / "late" / "module.toml"
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.touch()
        return make_plan(Zoo.open(zoo), FleetOptions(device="cpu", router=RouterOptions(port=0))), None

    monkeypatch.setattr(launch, "_plan", plan)
    monkeypatch.setattr(launch, "_launch", lambda plan, starter, watch, detach: watches.append(watch))
    monkeypatch.setattr("psserve.fleet.live.requests._EVERY_S", 0.0)
    assert psserve("launch", "--watch").exit_code == 0
    assert psserve("launch").exit_code == 0
    assert watches[1] is None
    assert [watches[0].changed() for _ in range(2)] == [False, True]


def test_an_untested_sglang_is_allowed_to_every_server(zoo: Path) -> None:
    arguments = ("--device", "cpu", "--port", "0", "--json")
    for flag, env in (((), None), (("--allow-untested-sglang",), "1")):
        servers = json.loads(psserve("launch", "--dry-run", *flag, *arguments).stdout)["servers"]
        assert [server["env"].get("PSSERVE_ALLOW_UNTESTED_SGLANG") for server in servers[:3]] == [env] * 3


def test_dry_run_follows_the_configuration(zoo: Path) -> None:
    (zoo / "fleet.toml").write_text("[prefill]\nreplicas = 2\n[router]\nport = 0\n[module.maths]\nreplicas = 2")
    servers = json.loads(psserve("launch", "--dry-run", "--device", "cpu", "--prefill", "1", "--json").stdout)[
        "servers"
    ]
    assert [server["name"] for server in servers[:-1]] == [
        "prefill-0",
        "decode-code-0",
        "decode-math-0",
        "decode-math-1",
    ]


def test_a_mistake_in_the_configuration_is_one_line(zoo: Path) -> None:
    (zoo / "other.toml").write_text("[prefill]\nreplica = 2")
    result = psserve("launch", "--dry-run", "--config", str(zoo / "other.toml"))
    advice = "prefill.replica: unknown key; did you mean prefill.replicas?"
    assert (result.exit_code, result.stderr) == (2, f"psserve: error: {zoo / 'other.toml'}: {advice}\n")


def test_every_flag_is_a_key_of_the_configuration(zoo: Path) -> None:
    flags = ("--modules=math", "--no-serve-base", "--prefill=1", "--host=localhost", "--port=0", "--device=cpu")
    flags += ("--dtype=auto", "--transfer=auto", "--page-size=8", "--kv-tokens=2048", "--context-length=512")
    flags += ("--chunked-prefill-size=64", "--max-running-requests=4", "--request-timeout-secs=9")
    flags += ("--eviction-policy=slru",)
    flags += ("--first-byte-timeout-secs=9", "--allow-untested-sglang", "--kv-cache-dtype=auto")
    flags += (
        "--start-timeout-secs=9",
        "--first-byte-timeout-secs=9",
        "--drain-secs=9",
        "--api-key=k",
        "--env=A=b",
        "--json",
        "--dry-run",
    )
    flags += ("--prefill-policy=random", "--decode-policy=random", "--no-kv-events", "--router-workers=2")
    flags += ("--insecure", "--allowed-hosts=a,b", "--log-format=json", "--otlp-traces-endpoint=localhost:4318")
    flags += ("--task-classifier=tfidf", "--task-threshold=0.5", "--default-module=math")
    known = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    assert known - {flag.split("=")[0].replace("--no-", "--") for flag in flags} == {
        *("--zoo", "--config", "--watch", "--detach", "--api-key-file", "--ssl-certfile", "--ssl-keyfile")
    }
    assert psserve("launch", *flags).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (("--prefill", "0"), 2, "psserve: error: --prefill 0: give at least 1\n"),
        (("--env", "A"), 2, "psserve: error: --env 'A': give NAME=VALUE\n"),
        (("alpha",), 2, "psserve: error: unexpected argument 'alpha'; SGLang's own arguments follow after --\n"),
        (("--modules", ""), 2, "psserve: error: modules names no module: leave it out to serve all\n"),
        (("--api-key", ""), 2, "psserve: error: --api-key is empty\n"),
        (
            ("--", "--load-format", "dummy"),
            2,
            "psserve: error: SGLang's --load-format cannot be given: "
            "psserve reads safetensors and nothing else: remove it\n",
        ),
        (
            ("--host", "0.0.0.0"),
            2,
            "psserve: error: --host 0.0.0.0 is open to other machines: "
            "make a key with `psserve keys add NAME`, or use 127.0.0.1 (--insecure lets anybody in)\n",
        ),
        (("--modules", "poems"), 1, "psserve: error: --modules: poems\n"),
    ],
)
def test_mistakes_are_one_line(zoo: Path, arguments: tuple[str, ...], exit_code: int, message: str) -> None:
    result = psserve("launch", "--dry-run", "--device", "cpu", *arguments)
    assert (result.exit_code, result.stderr) == (exit_code, message)


def test_unknown_option_is_not_swallowed(zoo: Path) -> None:
    result = psserve("launch", "--dry-run", "--schedule-policy", "lpm")
    assert result.exit_code == 2
    assert "No such option" in result.stderr


@pytest.mark.parametrize("command", ["status", "stop", "chat"])
def test_without_a_fleet_the_command_says_so(zoo: Path, command: str) -> None:
    result = psserve(command)
    assert result.exit_code == 1
    assert result.stderr == f"psserve: error: no fleet runs for the zoo {zoo}; start one with `psserve launch`\n"


@pytest.fixture
def state(zoo: Path) -> FleetState:
    server = ServerState(
        name="decode-math-0",
        role="decode",
        module="math",
        port=41003,
        state="failed",
        restarts=5,
        error="oops",
        log="l",
    )
    state = FleetState(
        url="http://127.0.0.1:1",
        zoo=str(zoo),
        base="b",
        supervisor=ProcessId.own(),
        ready=True,
        tmp_dir="t",
        servers=(server,),
    )
    write_state(zoo / ".run", state)
    return state


def test_status_as_json_is_the_state_and_more(state: FleetState) -> None:
    document = json.loads(psserve("status", "--json").stdout)
    assert document["versions"]["psserve"] == __version__
    (server,) = document["servers"]
    assert server["memory_bytes"] is None
    kept = {name: document[name] for name in FleetState.model_fields}
    kept["servers"] = [{name: server[name] for name in ServerState.model_fields}]
    assert FleetState.model_validate(kept) == state


def test_status_shows_why_a_server_failed(state: FleetState) -> None:
    lines = psserve("status").stdout.splitlines()
    assert lines[0].split()[:2] == ["http://127.0.0.1:1", "0"]
    heading, row = (line.split() for line in lines[4:6])
    shown = dict(zip(heading, row, strict=True))
    assert (shown["server"], shown["state"], shown["restarts"]) == ("decode-math-0", "failed", "5")
    assert lines[-1] == "decode-math-0: oops"


def test_launch_beside_a_running_fleet_is_refused(state: FleetState) -> None:
    result = psserve("launch", "--device", "cpu")
    assert result.exit_code == 1
    assert "runs already at http://127.0.0.1:1" in result.stderr


def test_status_cleans_up_after_a_dead_supervisor(zoo: Path, state: FleetState) -> None:
    dead = ProcessId(pid=state.supervisor.pid, ticks=state.supervisor.ticks - 1)
    write_state(zoo / ".run", state.model_copy(update={"supervisor": dead}))
    assert psserve("status").exit_code == 1
    assert read_state(zoo / ".run") is None


def test_logs_of_one_process_come_as_they_are_and_of_several_after_their_names(zoo: Path) -> None:
    logs = zoo / ".run" / "logs"
    logs.mkdir()
    (logs / "router.log").write_text("1\n2\n")
    (logs / "decode-math-0.log").write_text("3\n4\n")
    assert psserve("logs", "math", "-n", "1").stdout == "4\n"
    assert psserve("logs", "-n", "1").stdout == "router        | 2\ndecode-math-0 | 4\n"


def test_logs_of_nothing_is_an_error(zoo: Path) -> None:
    result = psserve("logs")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "was not served yet" in result.stderr


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (H100.replace("580.65.06", "535.183.01"), "the NVIDIA driver is 535.183.01"),
        (H100.replace("81559, 81000", "[N/A], [N/A]"), "nvidia-smi does not tell its memory"),
        (H100.replace("9.0", "6.1"), "GPU 0 (NVIDIA H100 80GB HBM3) is sm_61, and SGLang needs sm_75"),
    ],
)
def test_gpus_on_which_nothing_could_start_are_refused_before_anything_starts(
    zoo: Path, monkeypatch: pytest.MonkeyPatch, row: str, message: str
) -> None:
    monkeypatch.setattr(devices, "torch_build", lambda: Torch("2.13.0+cu130", "13.0"))
    put_on_path(monkeypatch, zoo / "bin", row)
    result = psserve("launch", "--port", "0")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "--device cpu" in result.stderr
    assert list((zoo / ".run").iterdir()) == []


def test_a_cpu_build_of_torch_beside_a_gpu_is_refused(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "torch_build", lambda: Torch("2.13.0+cpu", None))
    put_on_path(monkeypatch, zoo / "bin", H100)
    result = psserve("launch", "--port", "0")
    assert result.exit_code == 1
    assert "torch 2.13.0+cpu is a build for CPU" in result.stderr
    assert "make setup DEVICE=gpu" in result.stderr


def test_dry_run_says_that_it_cuts_the_context(zoo: Path) -> None:
    result = psserve("launch", "--dry-run", "--device", "cpu", "--port", "0", "--kv-tokens", "1024")
    assert "the context is cut to 880 tokens, of the base's 4096" in result.stderr
    assert "cut" not in psserve("launch", "--dry-run", "--device", "cpu", "--port", "0").stderr


def test_dry_run_says_how_kv_is_shared_out(zoo: Path) -> None:
    result = psserve("launch", "--dry-run", "--device", "cpu", "--port", "0", "--transfer", "nixl")
    assert "KV tokens (60%) are prefill servers'" in result.stderr


def test_dry_run_says_which_transfer_was_chosen_and_why(zoo: Path) -> None:
    arguments = ("launch", "--dry-run", "--device", "cpu", "--port", "0")
    chosen = "shared" if runs_one_pool_unasked(installed_sglang() or "") else "nixl and not shared"
    assert psserve(*arguments).stderr.startswith(f"psserve: --transfer auto is {chosen}: ")
    assert "--transfer auto" not in psserve(*arguments, "--transfer", "nixl").stderr


REFUSED_BY_WORKERS = {*_SET_BY_FLEET, *_OTHER_NAMES, *chain.from_iterable(_REFUSED.values())}


@pytest.mark.parametrize("argument", sorted(REFUSED_BY_WORKERS | RESERVED_ARGUMENTS.keys()))
def test_dry_run_refuses_every_argument_that_a_launch_would(zoo: Path, argument: str) -> None:
    for given in ((argument, "x"), (f"{argument}=x",), (argument[:-1], "x")):
        result = psserve("launch", "--dry-run", "--device", "cpu", "--port", "0", "--", *given)
        assert result.exit_code == 2, given
        assert given[0].partition("=")[0] in result.stderr
        assert not result.stdout


def test_dry_run_refuses_what_a_decode_server_would(zoo: Path) -> None:
    (zoo / "fleet.toml").write_text('[decode]\nargs = ["--enable-hierarchical-cache"]\n')
    result = psserve("launch", "--dry-run", "--device", "cpu", "--port", "0")
    assert result.exit_code == 2
    assert "it would keep KV that the module wrote" in result.stderr


def test_several_routers_are_for_a_cluster(zoo: Path) -> None:
    (zoo / "fleet.toml").write_text("[router]\nreplicas = 2\n")
    result = psserve("launch", "--dry-run")
    assert result.exit_code == 2
    assert "this machine has one router; use router_workers" in result.stderr
