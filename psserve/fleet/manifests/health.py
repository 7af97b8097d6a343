"""The probe of a pod of several servers: `python -m psserve.fleet.manifests.health PORT...`.

It fails unless every one of them answers.
"""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Iterable
from http.client import HTTPException

POD_IP = "POD_IP"
"""Environment variable: where the pod's servers listen."""
ANSWER_S = 10
"""For all of them to answer."""


def failures(address: str, ports: Iterable[str]) -> list[str]:
    """What is wrong with servers at these ports."""
    return [f"port {port}: {why}" for port in ports if (why := _failure(address, port)) is not None]


def _failure(address: str, port: str) -> str | None:
    host = f"[{address}]" if ":" in address else address
    try:
        no_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        no_proxy.open(f"http://{host}:{port}/health", timeout=ANSWER_S).close()
    except (OSError, HTTPException) as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit("\n".join(failures(os.environ[POD_IP], sys.argv[1:])) or 0)
