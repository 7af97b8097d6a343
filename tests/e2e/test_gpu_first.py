"""The first quarter of an hour on a GPU, played through on a CPU."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.forked_launch import forked
from tests.e2e.forked_python import run_script

pytestmark = pytest.mark.e2e

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_first.py"


@pytest.mark.timeout(1800)
def test_a_dry_run_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PSSERVE_CHECK_PURITY")  # as a user runs it
    code, said = run(["--dry-run", "--out", str(tmp_path)], within_s=1700)
    assert code == 0, said
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert found.keys() == {"first", "import", "exactness", "handover", "early-send", "adapters", "bench"}
    for name in ("exactness", "early-send"):
        assert (found[name]["exactness"]["answers"], found[name]["exactness"]["control_refused"]) == (20, 20)
    assert found["early-send"]["sent_early"]
    assert (found["adapters"]["exactness"]["answers"], found["adapters"]["exactness"]["control_refused"]) == (40, 40)
    assert [row["prompt_tokens"] for row in found["handover"]["handover"]] == [1024]
    assert found["handover"]["handover"][0]["kv_bytes"] > 0
    assert found["handover"]["grammar"]["answer"] in ("true", "false")
    assert {run["psserve"]["system"] for run in found["bench"]["runs"]} == {"shared", "disaggregated"}


def run(arguments: Sequence[str], within_s: float) -> tuple[int | None, str]:
    """Exit status and output of the script, which is interrupted if the time is over: it ends its fleets then."""
    with forked(run_script, SCRIPT, arguments) as script:
        try:
            for _ in script.runs_within(within_s):
                pass
        finally:
            if script.process.is_alive():
                os.kill(script.pid, signal.SIGINT)
            code = script.end(within_s=60)
        return code, script.output.read_text() + script.notes.read_text()
