"""Which bases can be served: runs the whole list of each architecture and writes docs/bases.json, then docs/bases.md.

    python scripts/bases.py                  all of them, against the SGLang that is installed: some minutes
    python scripts/bases.py -k "qwen2"       some; the results of the others stay

An architecture's results are written as soon as its last test has ended, so a run that is broken off keeps what it
has. docs/bases.json has the results of each release of SGLang that this was run with; nothing in it is written by hand.
With another release: `scripts/sglang.sh 0.5.22`, then this with .venv/sglang-0.5.22 on PYTHONPATH.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from psserve.zoo.checkpoints.architectures import TABLE, Architecture
from psserve.zoo.checkpoints.unsupported import MISSING

ROOT = Path(__file__).resolve().parent.parent
SUITES = ("tests/e2e/test_bases.py", "tests/e2e/test_adapter_bases.py")
RESULTS = ROOT / "docs" / "bases.json"
PARAMETER = re.compile(r"\[([a-z0-9_]+)")
"""The model type in a test's name, e.g. "test_a_chat[qwen2]"."""
Result = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Run the suites, and record what they found; the status is pytest's."""
    os.chdir(ROOT)
    status = pytest.main([*SUITES, *arguments], plugins=[Recorder(record)])
    subprocess.run([sys.executable, ROOT / "scripts" / "docs.py"], check=True)
    return int(status)


class Recorder:
    """Counts what pytest reports, and hands an architecture's result on once all of its tests have ended."""

    def __init__(self, record: Callable[[str, Result], None]) -> None:
        self._record = record
        self._left: Counter[str] = Counter()
        self._reports: defaultdict[str, list[pytest.TestReport]] = defaultdict(list)
        self._found: dict[str, Result] = {}
        self._answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """Of an architecture, by its suites, each of which counts up from test to test."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Have all tests of an architecture follow one another, whatever their files."""
        places = {row.model_type: place for place, row in enumerate(TABLE.values())}
        items.sort(key=lambda item: places.get(model_type(item.nodeid), len(places)))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.expect(item.nodeid for item in session.items)

    def expect(self, tests: Iterable[str]) -> None:
        """These tests will be run."""
        self._left = Counter(map(model_type, tests))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test has three reports, the last of what comes after it; that one has what was compared."""
        self._reports[report.nodeid].append(report)
        kind = model_type(report.nodeid)
        if report.when != "teardown" or not kind:
            return
        result = self._found.setdefault(kind, {"passed": 0, "failed": 0, "answers": 0, "difference": 0.0})
        count(self._reports.pop(report.nodeid), result)
        compared: dict[str, Any] = dict(report.user_properties)
        answers, suite = self._answers[kind], report.nodeid.partition("::")[0]
        answers[suite] = max(answers[suite], int(compared.get("checked", 0)))
        result["answers"] = answers.total()
        result["difference"] = float(f"{max(result['difference'], compared.get('difference', 0)):.1e}")
        self._left[kind] -= 1
        if not self._left[kind]:
            self._record(kind, result)


def count(reports: Sequence[pytest.TestReport], result: Result) -> None:
    """Add a test to an architecture's result. One that was skipped counts as neither passed nor failed."""
    if any(report.failed for report in reports):
        result["failed"] += 1
    elif any(report.when == "call" and report.passed for report in reports):
        result["passed"] += 1


def model_type(test: str) -> str:
    """The architecture that a test is of; empty if it is of none."""
    match = PARAMETER.search(test)
    return match[1] if match else ""


def record(kind: str, result: Result) -> None:
    """Write an architecture's result, with this release of SGLang, into docs/bases.json."""
    recorded = read_results() if RESULTS.exists() else {}
    release = recorded.setdefault(version("sglang"), {"results": {}})
    release |= {"transformers": version("transformers"), "torch": version("torch").partition("+")[0]}
    release["results"][kind] = result
    RESULTS.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n")


def served(recorded: Mapping[str, Any]) -> list[Architecture]:
    """The architectures of which all tests passed with each release that they were run with."""
    return [row for row in TABLE.values() if (ran := list(runs(recorded, row))) and not any(r["failed"] for r in ran)]


def runs(recorded: Mapping[str, Any], row: Architecture) -> Iterator[Result]:
    """The results of an architecture, by release."""
    for release in recorded.values():
        if result := release["results"].get(row.model_type):
            yield result


def table(recorded: Mapping[str, Any]) -> str:
    """The results, a column for each release, as a table in Markdown."""
    releases = sorted(recorded, key=lambda release: [int(part) for part in release.split(".")])
    lines = ["| architecture | models | " + " | ".join(f"SGLang {release}" for release in releases) + " |"]
    lines.append("|" + "---|" * (2 + len(releases)))
    for row in TABLE.values():
        cells = [cell(recorded[release]["results"].get(row.model_type)) for release in releases]
        lines.append(f"| `{row.name}` | {row.models} | " + " | ".join(cells) + " |")
    versions = "; ".join(
        f"{release}: Transformers {recorded[release]['transformers']}, PyTorch {recorded[release]['torch']}"
        for release in releases
    )
    return "\n".join([*lines, "", f"{versions}.", ""])


def cell(result: Result | None) -> str:
    """One result, in words."""
    if result is None:
        return "not run"
    if result["failed"]:
        return f"**{result['failed']} of {result['failed'] + result['passed']} tests failed**"
    return f"{result['passed']} tests, {result['answers']} answers, {result['difference']:.0e}"


def missing() -> str:
    """What cannot be served, as a list in Markdown."""
    return "".join(f"- {why}: {', '.join(f'`{name}`' for name in names)}\n" for why, names in MISSING.items())


def names(recorded: Mapping[str, Any]) -> str:
    """The models that can be served, for README."""
    return "; ".join(row.models for row in served(recorded))


def read_results() -> dict[str, Any]:
    """What docs/bases.json has."""
    return dict(json.loads(RESULTS.read_text()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
