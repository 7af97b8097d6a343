"""`psserve bench compare` as a user runs it, against routers in front of fake workers."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from psserve.bench.record import read_records
from psserve.bench.result import read_results
from psserve.cli.main import cli
from psserve.zoo import Zoo
from psserve.zoo.synthetic.zoo import build_zoo
from tests.router.conftest import Fleet, eventually

MODULES = ("math", "code")
QUICK = ("--models", "math,code", "--sessions", "3", "--turns", "2", "--think-secs", "0", "--scale", "0.02")


async def compare(*arguments: str) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "psserve.cli.main", "bench", "compare", *arguments)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return build_zoo(tmp_path_factory.mktemp("zoo") / "zoo", modules=("math", "code"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trace", "TRACE", "--rate", "1"), "a trace says by itself when its sessions start: leave --rate out"),
        (("--trace", "TRACE", "--rate", "1", "--concurrency", "2"), "leave --rate out"),
        (("--trace", "TRACE", "--modules", "1,2"), "sessions ask code: the systems have math"),
        (("--trace-block-tokens", "16"), "--trace-block-tokens means nothing without a --trace"),
        (("--arrival", "constant"), "--arrival needs a --rate"),
        (("--order", "math,sums"), "--order names sums"),
        (("--single-module", "sums"), "sessions ask sums: the systems have math, code"),
        (("--adapter", "math=."), "--adapter: not for the systems that are started here, which are: shared"),
        (("--system", "lora", "--adapter", "sums=."), "--adapter sums=.: the modules are: math, code"),
        (("--system", "lora", "--prefill", "2"), "--prefill: not for the systems that are started here"),
    ],
)
def test_what_makes_no_sense_is_told_before_a_system_starts(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.delattr("psserve.bench.compare.systems.running_system")
    trace = tmp_path / "trace.jsonl"
    rows = [{"timestamp": 0, "input_length": 9, "output_length": 3, "extra": {"model": name}} for name in MODULES]
    trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = [str(trace) if argument == "TRACE" else argument for argument in arguments]
    system = () if "--system" in told else ("--system", "shared")
    fixed = ("--zoo", str(zoo.path), "--models", ",".join(MODULES), "--out", str(tmp_path / "out"), *system)
    result = CliRunner().invoke(cli, ["bench", "compare", *fixed, *told])
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    assert not (tmp_path / "out").exists()


def test_options_of_systems_that_are_started_are_refused_where_none_is(zoo: Zoo, tmp_path: Path) -> None:
    system = ("--against", "x=http://127.0.0.1:1", "--models", "math")
    fixed = (*system, "--zoo", str(zoo.path), "--out", str(tmp_path / "out"))
    result = CliRunner().invoke(cli, ["bench", "compare", *fixed, "--kv-tokens", "4096"])
    assert result.exit_code == 2
    assert "--kv-tokens, --zoo: not for the systems that are started here, which are: none" in result.stderr


@pytest.mark.slow
async def test_an_interrupted_comparison_goes_on_and_then_is_whole(
    make_fleet: Callable[..., Awaitable[Fleet]], tmp_path: Path
) -> None:
    first, second = await make_fleet(), await make_fleet()
    second.math.faults.extend(["hang"] * 20)
    out = tmp_path / "out"
    systems = ("--against", f"ours={first.url}", "--against", f"theirs={second.url}")
    process = await compare(*systems, *QUICK, "--repeats", "2", "--concurrency", "2", "--out", str(out))
    await eventually(lambda: second.math.running)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = await process.communicate()
    assert process.returncode == 1, stderr
    assert f"go on with: psserve bench compare --resume {out}" in stderr.decode()
    lines = [line["psserve"] for line in read_results(out / "results.jsonl")]
    assert [(line["system"], line["partial"]) for line in lines] == [("ours", False), ("theirs", True)]

    second.math.faults.clear()
    process = await compare("--resume", str(out))
    stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr
    assert b"ours" not in stdout
    assert b"theirs\tthroughput\t" in stdout
    whole = [line["psserve"] for line in read_results(out / "results.jsonl") if not line["psserve"]["partial"]]
    assert [(line["system"], line["repeat"]) for line in whole] == [
        *(("ours", 0), ("theirs", 0)),
        *(("ours", 1), ("theirs", 1)),
    ]
    assert whole[-1]["command"] == whole[0]["command"]
    header, records = read_records(out / "records" / "ours.m2.c2.r2.jsonl")
    assert (header.system, len(records)) == ("ours", 6)
    assert json.loads((out / "report.json").read_text())["partial_runs"] == 1


@pytest.mark.slow
async def test_a_trace_is_compared_in_a_closed_loop(fleet: Fleet, tmp_path: Path) -> None:
    trace, out = tmp_path / "trace.jsonl", tmp_path / "out"
    rows = [{"timestamp": n, "input_length": 90, "output_length": 3, "extra": {"model": "code"}} for n in range(3)]
    trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ("--against", f"ours={fleet.url}", "--models", "math,code", "--trace", str(trace), "--concurrency", "2")
    process = await compare(*asked, "--repeats", "1", "--warmup", "0", "--out", str(out))
    _, stderr = await process.communicate()
    assert process.returncode == 0, stderr
    (line,) = read_results(out / "results.jsonl")
    assert (line["completed"], line["psserve"]["workload"]["preset"]) == (3, "trace")
    assert line["psserve"]["load"]["concurrency"] == 2


async def test_a_url_that_cannot_be_measured_is_told_before_anything_runs(fleet: Fleet, tmp_path: Path) -> None:
    systems = ("--against", f"ours={fleet.url}", "--against", "gone=http://127.0.0.1:1")
    process = await compare(*systems, *QUICK, "--out", str(tmp_path / "out"))
    stdout, stderr = await process.communicate()
    assert (process.returncode, stdout) == (1, b"")
    assert stderr.decode().splitlines() == ["psserve: error: http://127.0.0.1:1 cannot be reached: Connection refused"]
    assert fleet.math.bodies == []
