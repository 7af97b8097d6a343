"""What a pod runs before it ends: it leaves the router, and finishes.

`python -m psserve.fleet.manifests.drain SECONDS`. Only then does Kubernetes send SIGTERM, so taking a pod away fails no
request. Where the router does not answer, as when all of the fleet is deleted, there is nobody to wait for.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request

from psserve.engine.settings import WORKER_KEY

ROUTER, HOST = "PSSERVE_ROUTER", "PSSERVE_HOST"
"""Environment variables: the router's URL, and the pod's name as the router knows it."""
AGAIN_S = 1.0
TRIES = 3


def drain(router: str, host: str, key: str, patience_s: float, again_s: float = AGAIN_S) -> bool:
    """Have the router give this host's servers nothing new, and wait for the end of what they have.

    Returns whether they have nothing left; False after `patience_s`, or where the router does not answer.
    """
    deadline = time.monotonic() + patience_s
    failures = 0
    while time.monotonic() < deadline and failures < TRIES:
        try:
            if _running(router, host, key) == 0:
                return True
            failures = 0
        except (OSError, ValueError, KeyError):  # no answer, or none of a router of ours
            failures += 1
        time.sleep(again_s)
    return False


def _running(router: str, host: str, key: str) -> int:
    """Requests that the host's servers have. Tells the router once more that they leave."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    body = json.dumps({"host": host}).encode()
    request = urllib.request.Request(f"{router}/workers/drain", data=body, headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
        return int(json.load(answer)["running"])


if __name__ == "__main__":
    drain(os.environ[ROUTER], os.environ[HOST], os.environ[WORKER_KEY], float(sys.argv[1]))
    sys.exit(0)
