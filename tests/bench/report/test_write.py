"""The files of a report, by `psserve bench report`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from psserve.bench.result import append_result
from psserve.cli.main import cli
from tests.bench.report.results import line

HOSTILE = "<img src=x onerror=alert(1)>"


def report(results: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["bench", "report", str(results), *arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of three systems, one of them of hostile name, under two loads with one and two modules."""
    folder = tmp_path_factory.mktemp("report")
    for repeat in range(2):
        for concurrency in (2, 4):
            for modules in (("math",), ("math", "code")):
                for system, seconds in (("shared", 1.0), ("disaggregated", 2.0), (HOSTILE, 0.5)):
                    made = line(system, seconds, repeat=repeat, concurrency=concurrency, modules=modules)
                    append_result(folder / "results.jsonl", made)
    result = report(folder / "results.jsonl")
    assert result.exit_code == 0, result.output
    assert re.search(r"disaggregated\tthroughput\t2.00x\t2.00x\t2.00x", result.stdout)
    return folder


def test_there_is_a_page_a_text_data_and_two_pictures(folder: Path) -> None:
    assert {path.suffix for path in folder.glob("report.*")} == {".html", ".md", ".json", ".png", ".svg"}
    assert (folder / "report.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((folder / "report.json").read_text())["ratios"]["disaggregated"]["p95_session"] == 2


def test_the_page_needs_nothing_from_anywhere(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!#)|@import|url\((?!#)", page)
    assert "<script" not in page
    assert page.count("<svg") == page.count("</svg>") > 5
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_names_of_others_are_text_on_the_page(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert HOSTILE not in page
    assert "&lt;img src=x" in page


def test_page_and_text_say_the_same_ratios(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    assert "- against disaggregated: **2.00x** more requests a second (2.00x to 2.00x)" in text
    assert ">2.00x</strong>" in (folder / "report.html").read_text()


def test_how_each_system_was_started_is_told_once(tmp_path: Path) -> None:
    for repeat, port in enumerate(("30000", "30001")):
        made = line("disaggregated", 2.0, repeat=repeat)
        made["psserve"]["settings"] = {"commands": {"prefill-math": ["python", "-m", "server", "--port", port]}}
        append_result(tmp_path / "results.jsonl", made)
        made = line("shared", 1.0, repeat=repeat)
        made["psserve"]["settings"] = {"fleet": {"modules": ["math"], "prefill": {"replicas": 1}}}
        append_result(tmp_path / "results.jsonl", made)
    assert report(tmp_path / "results.jsonl", "--out", str(tmp_path)).exit_code == 0
    for text in ((tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()):
        assert "prefill-math: python -m server --port 30000\n" in text or "--port 30000</pre>" in text
        assert "30001" not in text
        assert "[prefill]\nreplicas = 1" in text


def test_a_single_run_is_a_report_too(tmp_path: Path) -> None:
    append_result(tmp_path / "one.jsonl", line("shared", 1.0))
    result = report(tmp_path / "one.jsonl", "--out", str(tmp_path / "out"), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["ratios"] == {}


def test_what_is_no_result_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("{}\n")
    result = report(tmp_path / "bad.jsonl")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "bad.jsonl, line 1: no result of psserve bench" in result.stderr
