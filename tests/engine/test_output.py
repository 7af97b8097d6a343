"""A process whose output cannot be written goes on."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import logging, os, sys
from psserve.engine.process import lose_what_cannot_be_written
lose_what_cannot_be_written()
logging.basicConfig()
print("out", flush=True)
print("err", file=sys.stderr)
logging.warning("logged")
if os.fork() == 0:
    print("a child's")
else:
    os.wait()
"""


def test_a_full_disk_ends_nothing() -> None:
    with open("/dev/full", "wb") as full:
        run = subprocess.run([sys.executable, "-u", "-c", SCRIPT], stdout=full, stderr=full, check=False)
    assert run.returncode == 0


def test_what_can_be_written_is_written_at_once_and_in_order() -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    assert run.stdout.splitlines() == ["out", "err", "WARNING:root:logged", "a child's"]
