"""`psserve simulate`: tables and result lines, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from psserve.bench.report.summary import read_points
from psserve.cli.main import cli

QUICK = ("--scale", "0.1", "--sessions", "6", "--concurrency", "2", "--gpus", "1x2", "--modules", "2")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", *arguments])


def test_every_system_gets_a_line_of_a_table_that_says_it_is_simulated() -> None:
    result = run(*QUICK, "--system", "shared", "--system", "colocated")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "simulated, not measured"
    assert [line.split()[0] for line in lines[1:]] == ["system", "shared", "colocated"]


def test_a_report_reads_the_lines(tmp_path: Path) -> None:
    result = run(*QUICK, "--system", "shared", "--json", "--out", str(tmp_path / "out.jsonl"))
    (point,) = read_points([tmp_path / "out.jsonl"])
    assert point.simulated
    assert point.values["sessions"] > 0
    assert point.phases["decode"] > 0
    assert json.loads(result.stdout) == [json.loads((tmp_path / "out.jsonl").read_text())]


def test_the_same_command_writes_the_same_bytes_in_every_process() -> None:
    command = [sys.executable, "-m", "psserve.cli.main", "simulate", *QUICK, "--system", "shared", "--json"]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    ]
    first, second = (process.communicate()[0] for process in started)
    assert json.loads(first)
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gpus", "4"), "--gpus 4: give prefill x decode servers"),
        (("--gpus", "1x2", "--modules", "3"), "too few for 3 modules"),
        (("--concurrency", "2,none"), "'none' is not a whole number from 1"),
        (("--rates", "0"), "--rates 0: give numbers above 0"),
        (("--rates", "1", "--concurrency", "2"), "give one of --concurrency (closed loop)"),
        (("--model", "GPT-2"), "model 'GPT-2' is not known: give one of Llama-3.1-8B"),
        (("--kv-tokens", "1000"), "a server has 984"),
        (("--calibrate", "x", "--kv-tokens", "9", "--hardware", "H100"), "--hardware: not with --calibrate"),
        (("--trace", "x", "--rate", "1"), "--rate means nothing with a --trace"),
        (("--trace", "x", "--rates", "1"), "a trace says by itself when its sessions start"),
        (("--arrival", "constant"), "--arrival needs a --rate"),
        (("--calibrate", "there-is-none.jsonl"), "--calibrate tells times, not memory: give --kv-tokens too"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    result = run("--system", "shared", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_an_option_of_servers_that_only_decode_is_refused_where_there_are_none() -> None:
    options = ("--link-gb-s", "10", "--decode-policy", "random")
    result = run(*QUICK, "--system", "colocated", "--system", "lora", *options)
    assert result.exit_code == 2
    assert "--decode-policy, --link-gb-s: no system of colocated, lora has servers that only decode" in result.stderr
    assert run(*QUICK, "--system", "shared", "--system", "lora", *options).exit_code == 0


def test_a_trace_is_simulated_with_the_modules_that_it_names(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    rows = [{"timestamp": at, "input_length": 1_024, "output_length": 8, "hash_ids": [1, at]} for at in (0, 9_000)]
    trace.write_text("".join(json.dumps(row | {"extra": {"model": "math"}}) + "\n" for row in rows))
    result = run("--system", "shared", "--gpus", "1x1", "--modules", "math", "--trace", str(trace), "--json")
    assert result.exit_code == 0, result.output
    (line,) = json.loads(result.stdout)
    assert line["cache_report"]["total_cached_tokens"] == 512
    assert line["psserve"]["load"]["sessions_per_s"] is None
