"""[cluster] of fleet.toml: the cluster whose machines a fleet's servers run on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from psserve.contracts.tables import Name, Seconds, SettingsTable


class ClusterOptions(SettingsTable):
    """The machines that servers run on, in place of this one alone (docs/cluster.md)."""

    kind: Literal["ray"]
    """What knows the machines and starts processes there: a Ray cluster to which this machine belongs."""
    address: Name = "auto"
    """Address of the head of the cluster, HOST:PORT; auto: of the one that runs on this machine."""
    nic: Name | None = None
    """Network interface of each machine over which servers reach each other. Left out: the one that Ray's address of
    the machine belongs to."""
    files: Literal["shared", "ship"] = "shared"
    """How machines get what servers load. shared: they all have the zoo and the base under the same path, on a file
    system that they share. ship: they are sent it, and keep it in ~/.cache/psserve."""
    private_network: bool = False
    """Say that nobody else reaches this network, or that all of it is encrypted: must be true."""
    lease_secs: Seconds = Field(default=600.0)
    """How long the servers of a machine go on when nobody asks after them any more, as when psserve was killed."""

    @model_validator(mode="after")
    def _possible(self) -> ClusterOptions:
        if not self.private_network:
            raise ValueError(
                "servers on several machines trust whoever reaches their ports, and KV caches, which hold the prompts,"
                " travel unencrypted: see that the network is private or encrypted as a whole (WireGuard), and say so"
                " with private_network = true"
            )
        return self
