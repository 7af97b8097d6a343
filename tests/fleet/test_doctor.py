from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
from click.testing import CliRunner

from psserve.cli.doctor import command
from psserve.engine.versions import SUPPORTED
from psserve.fleet import doctor
from psserve.fleet.devices import Gpu, Machine
from psserve.fleet.memory import GIB

CPU_ONLY = Machine(cores=2, total_bytes=16 * GIB, available_bytes=12 * GIB, gpus=())
ONE_GPU = Machine(cores=8, total_bytes=64 * GIB, available_bytes=60 * GIB, gpus=(Gpu(0, "H100", 80 * GIB, 79 * GIB),))


@pytest.mark.parametrize(
    ("found", "level"), [((3, 10, 9), "fail"), ((3, 11, 0), "ok"), ((3, 12, 7), "ok"), ((3, 13, 0), "fail")]
)
def test_python(found: tuple[int, int, int], level: str) -> None:
    assert doctor.check_python(found).level == level


@pytest.mark.parametrize("found", SUPPORTED)
def test_a_tested_sglang_is_ok(found: str) -> None:
    assert doctor.check_sglang(found) == doctor.Finding("sglang", "ok", found)


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
        ("2.13.0+cpu", ONE_GPU, "warn"),
        ("2.13.0", ONE_GPU, "ok"),
        (None, CPU_ONLY, "fail"),
    ],
)
def test_torch(found: str | None, machine: Machine, level: str) -> None:
    assert doctor.check_torch(found, machine).level == level


def test_device_names_gpus_and_their_memory() -> None:
    assert doctor.check_device(ONE_GPU).found == "1 NVIDIA GPU: H100 (79.0 GiB of 80.0 GiB free)"
    assert "2 cores" in doctor.check_device(CPU_ONLY).found


def test_memory_warns_when_the_fleet_needs_more_than_is_free() -> None:
    fits = CPU_ONLY.available_bytes // doctor.CPU_SERVER_BYTES
    assert doctor.check_memory(CPU_ONLY, fits).level == "ok"
    assert doctor.check_memory(CPU_ONLY, fits + 1).level == "warn"


@pytest.mark.parametrize(("free", "level"), [(None, "warn"), (64 * 1024**2, "warn"), (GIB, "ok")])
def test_shared_memory(free: int | None, level: str) -> None:
    assert doctor.check_shared_memory(free).level == level


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
    finding = doctor.check_port(30000, free=False)
    assert (finding.level, finding.found) == ("warn", "30000 is taken")


@pytest.mark.parametrize(("limit", "level"), [(1024, "warn"), (65536, "ok"), (resource.RLIM_INFINITY, "ok")])
def test_open_files(limit: int, level: str) -> None:
    assert doctor.check_open_files(limit).level == level


def test_no_zoo_is_a_failure_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PSSERVE_ZOO", raising=False)
    assert doctor.check_zoo(None)[1].level == "warn"
    assert doctor.check_zoo(tmp_path / "nowhere")[1].level == "fail"


def test_a_damaged_zoo_fails(tmp_path: Path) -> None:
    (tmp_path / "zoo.toml").write_text("schema = ???")
    zoo, finding = doctor.check_zoo(tmp_path)
    assert zoo is None
    assert finding.level == "fail"
    assert "zoo.toml" in finding.found


def test_every_bad_finding_says_what_to_do() -> None:
    bad = [
        doctor.check_python((3, 9, 0)),
        doctor.check_sglang(None),
        doctor.check_torch(None, CPU_ONLY),
        doctor.check_memory(CPU_ONLY, 100),
        doctor.check_shared_memory(None),
        doctor.check_transfer(lambda _: False),
        doctor.check_port(1, free=False),
        doctor.check_open_files(1),
    ]
    assert [finding.name for finding in bad if finding.level == "ok" or not finding.advice] == []


def test_json_and_exit_status_agree(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--zoo", str(tmp_path / "nowhere"), "--json"])
    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert report["ok"] is False
    assert [check["name"] for check in report["checks"] if check["level"] == "fail"][-1] == "zoo"


def test_one_line_a_check(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--zoo", str(tmp_path / "nowhere")])
    lines = result.stdout.splitlines()
    assert len(lines) == len(doctor.examine(tmp_path, 0))
    assert {line.split()[0] for line in lines} <= {"ok", "warn", "fail"}
