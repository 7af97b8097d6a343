"""Result files."""

from __future__ import annotations

from pathlib import Path

import pytest

from psserve.bench.metrics import summarise
from psserve.bench.result import append_result, read_results, result_line
from psserve.errors import BenchError

from .records import record
from .test_metrics import FACTS


def test_lines_are_added_and_read_back(tmp_path: Path) -> None:
    line = result_line(summarise([record()]), FACTS)
    for _ in range(2):
        append_result(tmp_path / "new" / "results.jsonl", line)
    assert read_results(tmp_path / "new" / "results.jsonl") == [line, line]


@pytest.mark.parametrize(("text", "said"), [("{", "no JSON"), ("[]", "no result"), ('{"duration": 1}', "no result")])
def test_what_is_no_result_is_named_by_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "results.jsonl"
    append_result(file, result_line(summarise([record()]), FACTS))
    file.write_text(file.read_text() + text)
    with pytest.raises(BenchError, match=f"{file}, line 2: {said}"):
        read_results(file)
