from __future__ import annotations

import json
import resource
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from psserve.cli.doctor import command
from psserve.engine.versions import SUPPORTED
from psserve.fleet.observe import doctor
from psserve.fleet.observe.diagnosis import Diagnosis
from psserve.fleet.observe.doctor import (
    check_cluster,
    check_disk,
    check_fleet_file,
    check_kv,
    check_plan,
    check_request,
    check_server,
    check_zoo,
    find_fleet,
)
from psserve.fleet.observe.overview import ServerOverview
from psserve.fleet.options.config_file import validated
from psserve.fleet.options.options import FleetOptions
from psserve.fleet.plan.allowance import GIB, MIB
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.nvidia import Gpu
from psserve.fleet.run.router_client import RouterClient
from psserve.fleet.run.state import FleetState, ProcessId, write_state
from psserve.zoo import Zoo
from psserve.zoo.synthetic.zoo import build_zoo
from tests.fleet.observe.test_status_table import SERVER, fleet

CPU_ONLY = Machine(cores=2, total_bytes=16 * GIB, available_bytes=12 * GIB, gpus=())
ONE_GPU = Machine(cores=8, total_bytes=64 * GIB, available_bytes=60 * GIB, gpus=(Gpu(0, "H100", 80 * GIB, 79 * GIB),))


@pytest.mark.parametrize(
    ("found", "level"), [((3, 10, 9), "fail"), ((3, 11, 0), "ok"), ((3, 12, 7), "ok"), ((3, 13, 0), "fail")]
)
def test_python(found: tuple[int, int, int], level: str) -> None:
    assert doctor.check_python(found).level == level


@pytest.mark.parametrize("found", SUPPORTED)
def test_a_tested_sglang_is_ok(found: str) -> None:
    assert doctor.check_sglang(found) == Diagnosis("sglang", "ok", found)


@pytest.mark.parametrize("found", [None, "0.5.16", "0.5.18.post1", "0.6.0"])
def test_another_sglang_fails_and_names_the_tested_ones(found: str | None) -> None:
    finding = doctor.check_sglang(found)
    assert finding.level == "fail"
    assert all(version in finding.advice for version in SUPPORTED)


def test_requirements_all_there() -> None:
    required = ["aiohttp>=3.11", "transformers==5.12.1", 'peft; extra == "train"']
    finding = doctor.check_requirements(required, {"aiohttp": "3.14.5", "transformers": "5.12.1"}.get)
    assert (finding.level, finding.found) == ("ok", "2 required packages are installed")


def test_requirements_names_each_missing_or_other_version() -> None:
    required = ["aiohttp>=3.11", "prometheus-client>=0.20", 'transformers==5.12.1; python_version >= "3.11"']
    finding = doctor.check_requirements(required, {"aiohttp": "3.14.5", "transformers": "5.13.0"}.get)
    assert (finding.level, finding.advice) == ("fail", "run make setup")
    assert finding.found == "prometheus-client is missing, transformers is 5.13.0, not 5.12.1"


@pytest.mark.parametrize(
    ("found", "machine", "level"),
    [
        ("2.13.0+cpu", CPU_ONLY, "ok"),
        ("2.13.0+cpu", ONE_GPU, "fail"),
        ("2.13.0", ONE_GPU, "ok"),
        (None, CPU_ONLY, "fail"),
    ],
)
def test_torch(found: str | None, machine: Machine, level: str) -> None:
    assert doctor.check_torch(found, machine).level == level


def test_device_names_gpus_and_their_memory() -> None:
    assert doctor.check_device(ONE_GPU).found == "1 NVIDIA GPU: H100 (79.0 GiB of 80.0 GiB free)"
    assert "2 cores" in doctor.check_device(CPU_ONLY).found


def test_gpus_that_nothing_can_be_planned_on_are_a_failure() -> None:
    finding = doctor.check_device(replace(CPU_ONLY, unusable=("GPU 0 (NVIDIA GB10): no memory",)))
    assert (finding.level, finding.found) == ("fail", "GPU 0 (NVIDIA GB10): no memory")


def test_memory_warns_when_the_fleet_needs_more_than_is_free() -> None:
    fits = CPU_ONLY.available_bytes // doctor.CPU_SERVER_BYTES
    assert doctor.check_memory(CPU_ONLY, fits).level == "ok"
    assert doctor.check_memory(CPU_ONLY, fits + 1).level == "warn"


@pytest.mark.parametrize(
    ("machine", "free", "level"),
    [
        (CPU_ONLY, None, "warn"),
        (CPU_ONLY, 16 * MIB, "warn"),
        (CPU_ONLY, 64 * MIB, "ok"),
        (ONE_GPU, 64 * MIB, "warn"),
        (ONE_GPU, GIB, "ok"),
    ],
)
def test_shared_memory(machine: Machine, free: int | None, level: str) -> None:
    assert doctor.check_shared_memory(free, machine).level == level


@pytest.mark.parametrize(
    ("modules", "level", "found"),
    [
        ({"nixl", "nixl_cu13"}, "ok", "nixl"),
        ({"nixl", "nixl_cu13", "mooncake"}, "ok", "nixl, mooncake"),
        ({"nixl"}, "fail", "neither nixl nor mooncake is installed"),
        ({"mooncake"}, "warn", "mooncake only"),
        (set(), "fail", "neither nixl nor mooncake is installed"),
    ],
)
def test_transfer_backends(modules: set[str], level: str, found: str) -> None:
    finding = doctor.check_transfer(modules.__contains__)
    assert (finding.level, finding.found) == (level, found)


def test_a_taken_port_is_named() -> None:
    finding = doctor.check_port(30000, "is taken")
    assert (finding.level, finding.found) == ("warn", "30000 is taken")


def test_a_number_that_is_no_port_is_refused() -> None:
    result = CliRunner().invoke(command, ["--port", "70000"])
    assert result.exit_code == 2
    assert "70000 is not in the range 0<=x<=65535" in result.output


@pytest.mark.parametrize(("limit", "level"), [(1024, "warn"), (65536, "ok"), (resource.RLIM_INFINITY, "ok")])
def test_open_files(limit: int, level: str) -> None:
    assert doctor.check_open_files(limit).level == level


def test_no_zoo_is_a_failure_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PSSERVE_ZOO", raising=False)
    assert [finding.level for finding in check_zoo(None)[1]] == ["warn"]
    assert [finding.level for finding in check_zoo(tmp_path / "nowhere")[1]] == ["fail"]


def test_a_damaged_zoo_fails(tmp_path: Path) -> None:
    (tmp_path / "zoo.toml").write_text("schema = ???")
    zoo, (finding,) = check_zoo(tmp_path)
    assert zoo is None
    assert finding.level == "fail"
    assert "zoo.toml" in finding.found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return build_zoo(tmp_path_factory.mktemp("zoo") / "zoo", modules=("math", "code"), num_hidden_layers=1)


@pytest.fixture
def zoo(built: Zoo, tmp_path: Path) -> Zoo:
    return Zoo.open(shutil.copytree(built.path, tmp_path / "zoo"))


def test_each_damaged_module_is_a_failure_of_its_own(zoo: Zoo) -> None:
    (zoo.path / "modules" / "code" / "module.toml").write_text("x = 1")
    found, (whole, module) = check_zoo(zoo.path)
    assert found is not None
    assert (whole.level, whole.found.endswith("modules math")) == ("ok", True)
    assert (module.name, module.level) == ("module", "fail")


def test_disk_says_what_modules_take(zoo: Zoo) -> None:
    assert "modules take" in check_disk(zoo).found


@pytest.mark.parametrize(
    ("base", "modules", "level"),
    [(10**18, [], "warn"), (1, [], "ok"), (10**18, [5, 7], "ok"), (1, [5, 10**18], "warn")],
)
def test_disk_has_room_for_one_more_module_like_those_there_are(
    tmp_path: Path, base: int, modules: list[int], level: str
) -> None:
    held = [SimpleNamespace(disk_bytes=size, path=tmp_path / str(size)) for size in modules]
    zoo: Any = SimpleNamespace(path=tmp_path, modules=lambda: held, base=SimpleNamespace(weight_bytes=base))
    assert check_disk(zoo).level == level


def test_a_zoo_without_fleet_toml_has_the_defaults(zoo: Zoo) -> None:
    assert check_fleet_file(zoo) == (FleetOptions(), [])


def test_fleet_toml_is_read_and_its_mistakes_are_named(zoo: Zoo) -> None:
    (zoo.path / "fleet.toml").write_text("[router]\nport = 31000\n")
    options, (good,) = check_fleet_file(zoo)
    assert (options.router.port, good.level) == (31000, "ok")
    (zoo.path / "fleet.toml").write_text("[ruoter]\n")
    _, (bad,) = check_fleet_file(zoo)
    assert bad.level == "fail"
    assert "ruoter" in bad.found


def test_a_plan_that_fits_and_one_that_does_not(zoo: Zoo) -> None:
    (fits,) = check_plan(zoo, FleetOptions(), CPU_ONLY)
    assert (fits.level, fits.found.startswith("3 servers on cpu")) == ("ok", True)
    (too_much,) = check_plan(zoo, FleetOptions(), replace(CPU_ONLY, total_bytes=1))
    assert too_much.level == "fail"


CLUSTER = {"kind": "ray", "private_network": True}


def test_a_plan_over_a_cluster_is_left_to_launch(zoo: Zoo) -> None:
    (finding,) = check_cluster(zoo, validated({"cluster": CLUSTER}), has_ray=True)
    assert (finding.level, "by psserve launch, which checks" in finding.found) == ("ok", True)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"modules": ["poems"]}, "poems"),
        ({"router": {"host": "0.0.0.0"}}, "is open to other machines: make a key"),
    ],
)
def test_what_is_wrong_on_any_machine_is_told_of_a_cluster_too(zoo: Zoo, document: Any, said: str) -> None:
    (finding,) = check_cluster(zoo, validated({"cluster": CLUSTER} | document), has_ray=True)
    assert (finding.name, finding.level, said in finding.found) == ("plan", "fail", True)


def test_a_cluster_needs_ray(zoo: Zoo) -> None:
    (finding,) = check_cluster(zoo, validated({"cluster": CLUSTER}), has_ray=False)
    assert (finding.name, finding.level, finding.advice) == ("ray", "fail", "pip install 'psserve[ray]'")


def test_of_a_fleet_over_a_cluster_this_machine_need_not_hold_a_server(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "detect", lambda: replace(CPU_ONLY, total_bytes=1, available_bytes=0))
    (zoo.path / "fleet.toml").write_text('[cluster]\nkind = "ray"\nprivate_network = true\n')
    found = doctor.examine(zoo.path, None)
    over_cluster = check_cluster(zoo, validated({"cluster": CLUSTER}), has_ray=find_spec("ray") is not None)
    assert next(finding for finding in found if finding.name == "memory").level == "ok"
    assert [finding for finding in found if finding.name in ("plan", "ray")] == over_cluster


def test_an_interface_that_is_not_there_is_named(zoo: Zoo) -> None:
    options = validated({"decode": {"env": {"UCX_NET_DEVICES": "none7"}}})
    plan, network = check_plan(zoo, options, CPU_ONLY)
    assert (plan.level, network.level) == ("ok", "fail")
    assert network.found.startswith("UCX_NET_DEVICES=none7: there is no such interface, only ")


def test_no_fleet_is_no_failure(zoo: Zoo) -> None:
    state, (finding,) = find_fleet(zoo)
    assert (state, finding.level) == (None, "ok")


def test_a_damaged_state_file_is_named(zoo: Zoo) -> None:
    (zoo.path / ".run").mkdir()
    (zoo.path / ".run" / "state.json").write_text("{")
    _, (finding,) = find_fleet(zoo)
    assert finding.level == "fail"
    assert "state.json" in finding.found


def test_a_fleet_that_runs_on_another_machine_is_named(zoo: Zoo) -> None:
    (zoo.path / ".run").mkdir()
    elsewhere = ProcessId(pid=1, ticks=1, boot="another", machine="host-b")
    state = FleetState(url="u", zoo="z", base="b", supervisor=elsewhere, ready=True, tmp_dir="t", servers=())
    write_state(zoo.path / ".run", state)
    _, (finding,) = find_fleet(zoo)
    assert finding.level == "fail"
    assert "host-b" in finding.found


@pytest.mark.parametrize(
    ("server", "level"),
    [
        (SERVER.model_copy(update={"restarts": 0}), "ok"),
        (SERVER.model_copy(update={"restarts": 2}), "warn"),
        (SERVER.model_copy(update={"state": "down", "error": "oops"}), "fail"),
    ],
)
def test_state_of_a_server(server: ServerOverview, level: str) -> None:
    finding = check_server(server)
    assert (finding.level, "psserve logs decode-math-0" in finding.advice) == (level, level != "ok")


@pytest.mark.parametrize(
    ("changed", "level", "said"),
    [
        ({"running": 0, "kv_used_tokens": 0}, "ok", "are free or hold cache"),
        ({"running": 1, "kv_used_tokens": 9}, "ok", "in use by requests"),
        ({"running": 0, "kv_used_tokens": 9}, "fail", "decode-math-0 holds 9 tokens"),
        ({"running": None, "kv_used_tokens": None}, "warn", "no server says"),
    ],
)
def test_kv_that_no_request_holds_is_a_leak(changed: dict[str, int | None], level: str, said: str) -> None:
    finding = check_kv(fleet(SERVER.model_copy(update={"queued": 0, **changed})))
    assert finding.level == level
    assert said in finding.found


def test_a_module_that_does_not_answer_is_a_failure() -> None:
    finding = check_request(RouterClient("http://127.0.0.1:1"), "math")
    assert (finding.level, finding.found.startswith("math: no answer from")) == ("fail", True)


def test_every_bad_finding_says_what_to_do() -> None:
    bad = [
        doctor.check_python((3, 9, 0)),
        doctor.check_sglang(None),
        doctor.check_torch(None, CPU_ONLY),
        doctor.check_memory(CPU_ONLY, 100),
        doctor.check_shared_memory(None, CPU_ONLY),
        doctor.check_transfer(lambda _: False),
        doctor.check_port(1, "is taken"),
        doctor.check_open_files(1),
    ]
    assert [finding.name for finding in bad if finding.level == "ok" or not finding.advice] == []


def test_json_and_exit_status_agree(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--zoo", str(tmp_path / "nowhere"), "--json"])
    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert report["ok"] is False
    assert "zoo" in [check["name"] for check in report["checks"] if check["level"] == "fail"]


def test_one_line_a_check_and_nothing_but_a_line_for_what_fails(zoo: Zoo) -> None:
    result = CliRunner().invoke(command, ["--zoo", str(zoo.path)])
    names = [line.split()[1] for line in result.stdout.splitlines()]
    assert {"psserve", "zoo", "disk", "plan", "fleet"} <= set(names)
    assert {line.split()[0] for line in result.stdout.splitlines()} <= {"ok", "warn", "fail"}
