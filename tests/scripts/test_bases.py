"""The table of bases is what a run found, and nothing else."""

from __future__ import annotations

from pathlib import Path

from scripts import bases

REPORT = """<testsuites><testsuite>
<testcase name="test_a_chat[qwen2]"><properties><property name="checked" value="3"/>
<property name="difference" value="2.04e-06"/></properties></testcase>
<testcase name="test_sixteen_at_once[qwen2]"><properties><property name="checked" value="19"/>
<property name="difference" value="5.16e-06"/></properties></testcase>
<testcase name="test_own_layer[qwen2]"><skipped/></testcase>
<testcase name="test_a_chat[phi3]"><error/></testcase>
<testcase name="test_sixteen_at_once[phi3]"><failure/></testcase>
<testcase name="test_repeated[phi3]"/>
<testcase name="test_of_something_else"/>
</testsuite></testsuites>"""


def test_a_report_is_counted_by_architecture(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    assert bases.results(tmp_path / "report.xml") == {
        "qwen2": {"passed": 2, "failed": 0, "answers": 19, "difference": 5.2e-06},
        "phi3": {"passed": 1, "failed": 2, "answers": 0, "difference": 0.0},
    }


def recorded(tmp_path: Path) -> dict[str, object]:
    (tmp_path / "report.xml").write_text(REPORT)
    versions = {"transformers": "5.12.1", "torch": "2.13.0"}
    return {
        "0.5.9": versions | {"results": {}},
        "0.5.18": versions | {"results": bases.results(tmp_path / "report.xml")},
    }


def test_a_table_has_a_column_for_each_release_in_order(tmp_path: Path) -> None:
    lines = bases.table(recorded(tmp_path)).splitlines()
    assert lines[0] == "| architecture | models | SGLang 0.5.9 | SGLang 0.5.18 |"
    row = next(line for line in lines if "Qwen2ForCausalLM" in line)
    assert row.endswith("| not run | 2 tests, 19 answers, 5e-06 |")
    assert "**2 of 3 tests failed**" in next(line for line in lines if "Phi3ForCausalLM" in line)
    assert lines[-1].startswith("0.5.9: Transformers 5.12.1, PyTorch 2.13.0; 0.5.18: ")


def test_what_failed_or_was_not_run_is_no_base_of_readme(tmp_path: Path) -> None:
    assert bases.names(recorded(tmp_path)) == "Qwen2, Qwen2.5, QwQ"
