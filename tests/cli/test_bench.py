"""psserve bench as a user types it, against a real router in front of fake workers."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from psserve.bench.record import read_records
from psserve.bench.result import read_results
from tests.router.conftest import Fleet, eventually

from .zoo_commands import fails, run

SMALL = ("--scale", "0.02", "--sessions", "4", "--think-secs", "0")


async def bench(fleet: Fleet | None, *arguments: str | Path) -> Result:
    """The command in a thread: the servers are in this one."""
    url = () if fleet is None else ("--url", fleet.url)
    return await asyncio.to_thread(run, "bench", *url, *SMALL, *arguments)


async def test_a_run_prints_tables_and_leaves_its_line_and_its_requests(fleet: Fleet, tmp_path: Path) -> None:
    out, requests = tmp_path / "results.jsonl", tmp_path / "requests.jsonl"
    result = await bench(fleet, "--out", out, "--records", requests, "--warmup", "1", "--slo", "ttft=60000")
    assert result.exit_code == 0, result.output
    assert "time to first token" in result.stdout
    assert "goodput" in result.stdout
    (line,) = read_results(out)
    assert (line["completed"], line["psserve"]["warmup_requests"]) == (3 * 8, 8)
    assert sorted(line["psserve"]["per_module"]) == ["code", "math"]  # without aliases
    header, records = read_records(requests)
    assert header.run == line["psserve"]["run"]
    assert len(records) == 4 * 8


async def test_json_says_what_is_needed_to_run_it_again_but_no_key(fleet: Fleet) -> None:
    result = await bench(fleet, "--json", "--models", "math", "--seed", "7", "--salt", "s", "--api-key", "sekret")
    line = json.loads(result.stdout)
    ours = line["psserve"]
    assert (ours["workload"]["seed"], ours["load"]["salt"], ours["load"]["concurrency"]) == (7, "s", 4)
    assert (line["dataset_name"], line["max_concurrency"], ours["modules"]) == ("react", 4, ["math"])
    assert ours["machine"]["psserve"]
    assert "sekret" not in result.output


async def test_one_module_in_all_roles(fleet: Fleet) -> None:
    line = json.loads((await bench(fleet, "--json", "--workload", "fanout", "--single-module", "code")).stdout)
    assert line["psserve"]["per_module"]["code"]["completed"] == line["completed"] == 4 * 4 * 2


async def test_a_trace_is_replayed(fleet: Fleet, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    rows = [{"timestamp": n, "input_length": 90, "output_length": 3, "extra": {"model": "code"}} for n in range(3)]
    trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("bench", "--url", fleet.url, "--trace", trace, "--json")
    line = json.loads((await asyncio.to_thread(run, *arguments)).stdout)
    assert (line["completed"], line["request_rate"]) == (3, "trace")
    assert line["psserve"]["load"]["concurrency"] is None
    trace.write_text("{}\n")
    assert f"{trace}, line 1: input_length" in fails(await asyncio.to_thread(run, *arguments))


async def test_failed_requests_are_warned_of(fleet: Fleet) -> None:
    fleet.code.faults.append("status_400")
    result = await bench(fleet, "--concurrency", "1")
    assert result.exit_code == 0
    assert "1 requests failed, and ended their sessions" in result.stderr


async def test_sessions_longer_than_a_context_are_warned_of(fleet: Fleet) -> None:
    result = await bench(fleet, "--sessions", "2", "--system-tokens", "250000", "--turns", "1")
    assert "2 of 2 sessions are longer (up to " in result.stderr
    assert "(4096 tokens), and will fail" in result.stderr


async def test_a_run_without_an_answer_failed(fleet: Fleet) -> None:
    fleet.code.faults.extend(["status_400"] * 4)
    result = await bench(fleet, "--order", "code,code")
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--url", "http://127.0.0.1:1"), 1, "http://127.0.0.1:1 cannot be reached"),
        (("--url", "localhost"), 2, "--url localhost: give http://HOST:PORT"),
        (("--url", "a=http://127.0.0.1:1", "--models", "b"), 2, "no --url for module b"),
        (("--url", "http://127.0.0.1:1", "--rate", "1", "--concurrency", "2"), 2, "not both"),
        (("--url", "http://127.0.0.1:1", "--arrival", "poisson"), 2, "--arrival needs a --rate"),
        (("--url", "http://me:secret@127.0.0.1:1"), 2, "give a key by --api-key"),
        (("--url", "http://127.0.0.1:1", "--models", "a,,b"), 2, "--models a,,b: give each name once"),
        (("--url", "http://127.0.0.1:1", "--turns", "x"), 2, "length 'x'"),
        (("--url", "http://127.0.0.1:1", "--trace", "t", "--turns", "3"), 2, "--turns means nothing with a --trace"),
        (("--url", "http://127.0.0.1:1", "--trace", "t", "--rate", "3"), 2, "--rate means nothing with a --trace"),
        (("--url", "http://127.0.0.1:1", "--trace-block-tokens", "16"), 2, "means nothing without a --trace"),
        (("--url", "http://127.0.0.1:1", "--trials", "2"), 2, "--trials means something with --workload reflexion"),
        (("--url", "http://127.0.0.1:1", "--zoo", "/no/zoo"), 2, "--zoo is for the fleet of a zoo"),
        (("--url", "http://127.0.0.1:1", "report"), 2, "--url: an option of report stands behind that word"),
        (("--url", "http://127.0.0.1:1", "--trace", "/no/trace"), 1, "/no/trace: No such file"),
        (("--url", "http://127.0.0.1:1", "--api", "completions", "--models", "a"), 2, "give the model's --tokenizer"),
        (("--url", "http://127.0.0.1:1", "--slo", "x=1"), 2, "--slo x=1"),
        (("--zoo", "/no/zoo"), 1, "/no/zoo"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], code: int, said: str) -> None:
    assert said in fails(run("bench", *arguments), code)


async def test_a_model_that_is_not_served_is_named(fleet: Fleet) -> None:
    assert "does not serve sums; it has" in fails(await bench(fleet, "--models", "math,sums"))


async def test_an_interrupted_run_leaves_a_line_that_says_so(fleet: Fleet, tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    fleet.code.faults.append("hang")
    launch = "import sys; from psserve.cli.main import main; sys.argv[0] = 'psserve'; main()"
    arguments: tuple[Any, ...] = ("bench", "--url", fleet.url, *SMALL, "--out", str(out))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", launch, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    await eventually(lambda: fleet.code.running and not fleet.code.faults)
    process.send_signal(signal.SIGINT)
    _, stderr = await process.communicate()
    assert process.returncode == 1, stderr
    assert b"the run was interrupted" in stderr
    (line,) = read_results(out)
    assert line["psserve"]["partial"]
    assert line["psserve"]["errors"]["interrupted"] >= 1
    assert line["psserve"]["errors"]["requests"] == 0
