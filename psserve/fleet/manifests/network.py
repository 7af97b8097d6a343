"""What a pod runs before all else: `python -m psserve.fleet.manifests.network NIC`.

Without the interface that KV goes through, servers would start, and the first requests run into their time limit.
"""

from __future__ import annotations

import socket
import sys

from psserve.contracts.programs import exit_status
from psserve.errors import StartError
from psserve.fleet.run.probe import is_no_interface


def require_nics(nics: str) -> None:
    """See that this machine has what a value of `UCX_NET_DEVICES` names. Raises StartError."""
    there = sorted(name for _, name in socket.if_nameindex())
    for nic in nics.split(","):
        if nic not in there and not is_no_interface(nic):
            raise StartError(f"--nic: no interface {nic} here: there are {', '.join(there)}")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: require_nics(sys.argv[1])))
