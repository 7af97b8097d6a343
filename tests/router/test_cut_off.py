"""What clients hear when the network to the workers is out: a real one, in a namespace."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

NAMESPACE = ["unshare", "--user", "--map-root-user", "--net"]


def may_unshare() -> bool:
    """Whether this machine lets its users make namespaces."""
    found = shutil.which("unshare") is not None
    return found and subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not may_unshare(), reason="no network namespaces here (unshare --user --net)")
def test_a_short_cut_loses_nothing_and_a_long_one_ends_requests_long_before_their_deadline() -> None:
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "tests.router.cut_off"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    short, long, unread = json.loads(done.stdout)
    assert short["meanwhile"] == long["meanwhile"] == long["whole"] == "module_unavailable"
    assert short["reasons"] == ["error"]  # the worker's own, sent when the network was back
    assert sorted(long["reasons"]) == ["connect", "error", "reset"]
    assert short["stream"] == long["stream"] == "upstream_error"
    assert unread["reason"] == "connect"
