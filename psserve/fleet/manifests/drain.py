"""What a pod runs before it ends: it leaves all routers, and finishes.

`python -m psserve.fleet.manifests.drain SECONDS ROUTER_SECONDS`. Only then does Kubernetes send SIGTERM, so taking a
pod away fails no request. A router that ends takes no connection any more, but finishes its requests: only one that has
been silent for ROUTER_SECONDS has none.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.request
from http.client import HTTPException
from urllib.parse import urlsplit

from psserve.engine.settings import WORKER_KEY

ROUTERS, HOST = "PSSERVE_ROUTERS", "PSSERVE_HOST"
"""Environment variables: a URL whose name has the addresses of all routers, and the host, as these know it, whose
servers end with the pod."""
AGAIN_S = 1.0


def drain(routers: str, host: str, key: str, patience_s: float, router_end_s: float, again_s: float = AGAIN_S) -> bool:
    """Have all routers give this host's servers nothing new, and wait for the end of what they have.

    Routers are looked for every time: those that have just started are told as well. Returns whether the servers have
    nothing left; False after `patience_s`, or where no router has answered for `router_end_s`.
    """
    start = heard = time.monotonic()
    while (now := time.monotonic()) < start + patience_s:
        left = [_running(routers, address, host, key) for address in _addresses(routers)]
        told = [count for count in left if count is not None]
        all_answered = 0 < len(told) == len(left)
        if all_answered:
            heard = now
        if all_answered or now - heard >= router_end_s:
            if not told:
                return False
            if sum(told) == 0:
                return True
        time.sleep(again_s)
    return False


def _addresses(url: str) -> list[str]:
    """All that the URL's name stands for; none where it is not known."""
    try:
        found = socket.getaddrinfo(urlsplit(url).hostname, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(address[0]) for *_, address in found})


def _running(routers: str, address: str, host: str, key: str) -> int | None:
    """Requests that the router at this address has on the host's servers; None: it does not answer as one of ours.

    Tells it once more that they leave.
    """
    name, port = urlsplit(routers).netloc, urlsplit(routers).port
    url = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Host": name}
    body = json.dumps({"host": host}).encode()
    request = urllib.request.Request(f"{url}/workers/drain", data=body, headers=headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return int(json.load(answer)["running"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return None


if __name__ == "__main__":
    drain(os.environ[ROUTERS], os.environ[HOST], os.environ[WORKER_KEY], *map(float, sys.argv[1:]))
    sys.exit(0)
