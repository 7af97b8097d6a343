"""Which bases can be served: runs the whole list of each architecture and writes docs/bases.json, then docs/bases.md.

    python scripts/bases.py                  all of them, against the SGLang that is installed: some minutes
    python scripts/bases.py -k "qwen2"       some; the results of the others stay

docs/bases.json has the results of each release of SGLang that this was run with; nothing in it is written by hand.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from psserve.zoo.checkpoints.architectures import TABLE, Architecture
from psserve.zoo.checkpoints.unsupported import MISSING

ROOT = Path(__file__).resolve().parent.parent
SUITES = ("tests/e2e/test_bases.py", "tests/e2e/test_adapter_bases.py")
RESULTS = ROOT / "docs" / "bases.json"
PARAMETER = re.compile(r"\[([a-z0-9_]+)")
"""The model type in a test's name, e.g. "test_a_chat[qwen2]"."""
Result = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Run the suite, and record what they found; the status is pytest's."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            *SUITES,
            f"--junitxml={report}",
            "-o",
            "junit_family=xunit1",
            *arguments,
        ]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        if not report.exists():
            return status
        found = results(report)
    recorded = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    release = recorded.setdefault(version("sglang"), {"results": {}})
    release |= {"transformers": version("transformers"), "torch": version("torch").partition("+")[0]}
    release["results"] |= found
    RESULTS.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n")
    subprocess.run([sys.executable, ROOT / "scripts" / "docs.py"], check=True)
    return status


def results(report: Path) -> dict[str, Result]:
    """Model type -> what its tests found, of pytest's report."""
    found: dict[str, Result] = {}
    answers: dict[tuple[str, str], int] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        match = PARAMETER.search(case.get("name") or "")
        if match is None:
            continue
        result = found.setdefault(match[1], {"passed": 0, "failed": 0, "answers": 0, "difference": 0.0})
        if case.find("skipped") is None:
            failed = case.find("failure") is not None or case.find("error") is not None
            result["failed" if failed else "passed"] += 1
        values = {one.get("name"): float(one.get("value") or 0) for one in case.iter("property")}
        suite = match[1], case.get("classname") or ""  # which counts up from test to test
        answers[suite] = max(answers.get(suite, 0), int(values.get("checked", 0)))
        result["difference"] = float(f"{max(result['difference'], values.get('difference', 0)):.1e}")
    for (model, _), count in answers.items():
        found[model]["answers"] += count
    return found


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
