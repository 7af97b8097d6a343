"""The first quarter of an hour on a GPU, played through on a CPU."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_first.py"


@pytest.mark.timeout(1800)
def test_a_dry_run_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PSSERVE_CHECK_PURITY")  # as a user runs it
    command = [sys.executable, str(SCRIPT), "--dry-run", "--out", str(tmp_path)]
    code, said = run(command, within_s=1700)
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


def run(command: Sequence[str], within_s: float) -> tuple[int, str]:
    """Exit status and output of the script, which is interrupted if the time is over: it ends its fleets then."""
    script = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = script.communicate(timeout=within_s)
    finally:
        script.send_signal(signal.SIGINT)
        script.wait()
    return script.returncode, said
