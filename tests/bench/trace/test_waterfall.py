"""`psserve bench trace`, and the file that it reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from psserve.bench.record import RequestRecord, RunHeader, read_records, write_records
from psserve.bench.trace.waterfall import waterfall
from psserve.cli.main import cli
from psserve.errors import BenchError, UsageError
from tests.bench.records import record

HEADER = RunHeader("run-1", "shared", 1_000.0)
SPANS = {"prefill": (3.1, 3.4), "decode": (3.4, 4.0)}
HOSTILE = "<script>alert(1)</script>"


def made() -> list[RequestRecord]:
    typical = [record(3.0, session="typical", spans=SPANS), record(5.0, session="typical", step=1, spans=SPANS)]
    return [record(session="short", spans=SPANS), *typical, record(0.0, session="long", done_s=99.0, spans=SPANS)]


def test_the_median_session_is_shown_from_its_own_start() -> None:
    shown = waterfall(made())
    assert (shown.session, shown.seconds) == ("typical", 3.0)
    assert [(row.step, row.begin, row.end) for row in shown.rows] == [(0, 0.0, 1.0), (1, 2.0, 3.0)]
    assert shown.rows[0].spans["decode"] == pytest.approx((0.4, 1.0))


def test_a_session_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(UsageError, match="no session 'x'; it has long, short, typical"):
        waterfall(made(), "x")
    with pytest.raises(UsageError, match="no requests"):
        waterfall([])


def test_requests_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "records" / "r.jsonl"
    write_records(path, HEADER, made())
    assert read_records(path) == (HEADER, made())
    path.write_text(path.read_text() + '{"session": 1}\n')
    with pytest.raises(BenchError, match=r"r\.jsonl, line 6: not the requests of a run"):
        read_records(path)


def trace(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["bench", "trace", str(path), *arguments])


def test_the_command_prints_a_bar_a_request_and_writes_what_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write_records(path, HEADER, [*made(), record(7.0, session="h", module=HOSTILE, error=HOSTILE)])
    files = {name: tmp_path / f"{name}.out" for name in ("html", "chrome", "otlp")}
    result = trace(path, "--session", "h", *(part for name, file in files.items() for part in (f"--{name}", str(file))))
    assert result.exit_code == 0, result.output
    assert "session h on shared, 1.000 s" in result.stderr
    assert json.loads(files["chrome"].read_text())["otherData"]["run"] == "run-1"
    assert json.loads(files["otlp"].read_text())["resourceSpans"]
    assert HOSTILE not in files["html"].read_text()
    assert "&lt;script&gt;" in files["html"].read_text()


def test_bars_say_what_was_when(tmp_path: Path) -> None:
    write_records(tmp_path / "r.jsonl", HEADER, made())
    lines = trace(tmp_path / "r.jsonl").stdout.splitlines()
    assert lines[1].split()[-1] == "PPPPPPDDDDDDDDDDDD"  # 60 columns are 3 s; before 0.1 s nothing is known
    assert json.loads(trace(tmp_path / "r.jsonl", "--json").stdout)["session"] == "typical"
