from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_compile.py"


def test_a_word_that_is_no_architecture_is_a_usage_error() -> None:
    command = [sys.executable, str(SCRIPT), "9.0", "sm_80"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, "'sm_80' is no architecture such as 9.0" in done.stderr) == (2, True)
