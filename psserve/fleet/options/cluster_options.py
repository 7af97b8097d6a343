"""[cluster] of fleet.toml: the cluster whose machines a fleet's servers run on."""

from __future__ import annotations

from collections.abc import Mapping
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
    topology_strategy: Mapping[Name, Literal["STRICT_PACK"]] = Field(default_factory=dict)
    """As Ray has it: {LABEL = "STRICT_PACK"} keeps the fleet on machines that have the same value of this label, as
    those of one NVLink domain; of the domains, the one that offers most. Left out: all machines."""
    files: Literal["shared", "ship"] = "shared"
    """How machines get what servers load. shared: they all have the zoo and the base under the same path, on a file
    system that they share. ship: they are sent it, and keep it in ~/.cache/psserve."""
    private_network: bool = False
    """Say that nobody else reaches this network, or that all of it is encrypted: must be true."""
    lease_secs: Seconds = Field(default=600.0)
    """How long the servers of a machine go on when nobody asks after them any more, as when psserve was killed."""

    @property
    def domain_label(self) -> str | None:
        """The label whose value all machines of the fleet must have in common."""
        return next(iter(self.topology_strategy), None)

    @model_validator(mode="after")
    def _possible(self) -> ClusterOptions:
        if len(self.topology_strategy) > 1:
            raise ValueError(
                f"topology_strategy names {len(self.topology_strategy)} labels"
                f" ({', '.join(self.topology_strategy)}), and machines are in one domain: give one"
            )
        if not self.private_network:
            raise ValueError(
                "servers on several machines trust whoever reaches their ports, and KV caches, which hold the prompts,"
                " travel unencrypted: see that the network is private or encrypted as a whole (WireGuard), and say so"
                " with private_network = true"
            )
        return self
