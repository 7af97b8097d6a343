"""`psserve bench compare` as a user runs it, against routers in front of fake workers."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from psserve.bench.record import read_records
from psserve.bench.result import read_results
from tests.router.conftest import Fleet, eventually

QUICK = ("--models", "math,code", "--sessions", "3", "--turns", "2", "--think-secs", "0", "--scale", "0.02")


async def compare(*arguments: str) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "psserve.cli.main", "bench", "compare", *arguments)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)


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


async def test_a_url_that_cannot_be_measured_is_told_before_anything_runs(fleet: Fleet, tmp_path: Path) -> None:
    systems = ("--against", f"ours={fleet.url}", "--against", "gone=http://127.0.0.1:1")
    process = await compare(*systems, *QUICK, "--out", str(tmp_path / "out"))
    stdout, stderr = await process.communicate()
    assert (process.returncode, stdout) == (1, b"")
    assert stderr.decode().splitlines() == ["psserve: error: http://127.0.0.1:1 cannot be reached: Connection refused"]
    assert fleet.math.bodies == []
