"""Several servers in one pod: the first that ends takes the others with it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.waiting import PATIENCE_S, until

SLEEPS = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"


def start(*servers: dict[str, object]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "psserve.fleet.manifests.group", *map(json.dumps, servers)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def server(name: str, script: str, *arguments: str) -> dict[str, object]:
    return {"name": name, "command": [sys.executable, "-c", script, *arguments], "env": {"OWN": name}}


def test_one_that_ends_takes_the_others_with_it(tmp_path: Path) -> None:
    ends = "import os, sys; sys.exit(3 if os.environ['OWN'] == 'prefill-0' else 0)"
    group = start(server("decode-math-0", SLEEPS, str(tmp_path / "up")), server("prefill-0", ends))
    _, said = group.communicate(timeout=PATIENCE_S)
    assert (group.returncode, said) == (1, "psserve: error: prefill-0 ended with 3: ending the others\n")


def test_a_signal_ends_all(tmp_path: Path) -> None:
    group = start(*(server(name, SLEEPS, str(tmp_path / name)) for name in ("one", "two")))
    until(lambda: len(list(tmp_path.iterdir())) == 2)
    group.send_signal(signal.SIGTERM)
    assert group.communicate(timeout=PATIENCE_S)[1] == ""
    assert group.returncode == 0
