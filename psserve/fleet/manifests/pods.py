"""Which servers are which pods: the plan's servers, moved to where they run in a cluster.

A server that shares no GPU is a pod of its own, and the replicas of a module are a set of such pods. Servers that share
GPUs are one pod: only inside a pod can they see the same device, and psserve's own placement has shared out its memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any

from psserve.errors import PlanError
from psserve.fleet.manifests.cluster import Cluster
from psserve.fleet.plan.layout import adapters_dir, decode_name
from psserve.fleet.plan.spec import FleetPlan, ServerSpec

ZOO = "/zoo"
RUN = "/checkpoints"
TMP = "/tmp"
ADDRESS = "$(POD_IP)"
LEADER = "$(LWS_LEADER_ADDRESS)"
"""What the LeaderWorkerSet controller tells all pods of a group: POD.SET.NAMESPACE."""
FIRST_PORT = 8000
PORTS_EACH = 4
"""HTTP, torch.distributed, where decode servers find a prefill server, where nodes find each other."""
_OF_THE_IMAGE = ("PATH", "CUDA_HOME", "LIBRARY_PATH", "SGLANG_DISABLED_MODEL_ARCHS")
"""Variables that tell of programs, libraries and the SGLang that are installed: the image has its own."""


@dataclass(frozen=True, kw_only=True)
class PodSet:
    """Equal pods."""

    name: str
    servers: tuple[ServerSpec, ...]
    """Of the first pod, as they run there; more than one where they share GPUs."""
    replicas: int
    gpus: int
    """Of each pod, on all its nodes."""
    nodes: int = 1
    """Nodes that each server is split over."""
    domain: str
    """What follows a pod's name where it is looked for."""
    taken: frozenset[str] = frozenset()
    """Names of servers in pods of several: a lone one has another."""

    @property
    def role(self) -> str:
        """What the pods are for: `prefill`, `decode`, or `shared` by servers of both kinds or of several modules."""
        return self.servers[0].role if len(self.servers) == 1 else "shared"

    @property
    def module(self) -> str | None:
        """The decode module, or the group of adapters; None for prefill servers and pods of several servers."""
        return self.servers[0].module if len(self.servers) == 1 else None

    def host(self, replica: int) -> str:
        """The name under which a pod is found, in its namespace."""
        return f"{self.name}-{replica}.{self.domain}"

    def workers(self, replica: int) -> list[dict[str, Any]]:
        """What the router is told of the servers in a pod (contracts.router_config.WorkerConfig)."""
        return [
            {
                "name": server.name if len(self.servers) > 1 else self._name(server, replica),
                "role": server.role,
                "module": server.module,
                "host": self.host(replica),
                "port": server.port,
                "bootstrap_port": server.bootstrap_port,
                "kv_tokens": server.memory.kv_tokens,
                "max_running_requests": server.max_running_requests,
            }
            for server in self.servers
        ]

    def _name(self, server: ServerSpec, replica: int) -> str:
        free = (name for number in count() if (name := _replica_name(server, number)) not in self.taken)
        return next(islice(free, replica, None))


def pod_sets(plan: FleetPlan, cluster: Cluster) -> list[PodSet]:
    """The sets of pods that run a plan's servers, prefill servers first.

    Raises:
        PlanError: a server would be split over nodes in a way that cannot be.
    """
    alone: dict[tuple[str, str | None], list[ServerSpec]] = {}
    together: list[list[ServerSpec]] = []
    for servers in _sharing(plan.servers):
        if len(servers) == 1:
            alone.setdefault((servers[0].role, servers[0].module), []).append(servers[0])
        else:
            together.append(servers)
    taken = frozenset(server.name for servers in together for server in servers)
    found = [
        _pod_set(plan, cluster, role if module is None else f"{role}-{module}", servers[:1], len(servers))
        for (role, module), servers in alone.items()
    ]
    return [replace(pods, taken=taken) for pods in found] + [
        _pod_set(plan, cluster, f"shared-{n}", servers, 1) for n, servers in enumerate(together)
    ]


def _sharing(servers: Sequence[ServerSpec]) -> list[list[ServerSpec]]:
    """The servers, those together that share a GPU with one another or with a third one."""
    groups: list[list[ServerSpec]] = []
    for server in servers:
        met = [group for group in groups if any(set(server.gpus) & set(other.gpus) for other in group)]
        if met:
            groups = [group for group in groups if group not in met]
        groups.append([*(one for group in met for one in group), server])
    order = {server.name: n for n, server in enumerate(servers)}
    ordered = [sorted(group, key=lambda server: order[server.name]) for group in groups]
    return sorted(ordered, key=lambda group: order[group[0].name])


def _pod_set(plan: FleetPlan, cluster: Cluster, part: str, servers: Sequence[ServerSpec], replicas: int) -> PodSet:
    gpus = sorted({gpu for server in servers for gpu in server.gpus})
    nodes = _nodes(cluster, part, len(gpus), len(servers))
    moved = [_moved(plan, cluster, server, gpus, n) for n, server in enumerate(servers)]
    if nodes > 1:
        moved = [_over_nodes(cluster, moved[0], nodes)]
    name = cluster.name_of(part)
    return PodSet(
        name=name,
        servers=tuple(moved),
        replicas=replicas,
        gpus=len(gpus),
        nodes=nodes,
        domain=name if nodes == 1 else f"{name}.{cluster.namespace}",  # as in LEADER
    )


def _nodes(cluster: Cluster, part: str, gpus: int, servers: int) -> int:
    if gpus <= cluster.gpus_per_node:
        return 1
    if servers > 1:
        raise PlanError(
            f"{part}: servers share {gpus} GPUs among them, and a node has {cluster.gpus_per_node}: give fewer of them"
            " the same gpus in fleet.toml, or more --gpus"
        )
    if gpus % cluster.gpus_per_node:
        raise PlanError(
            f"{part}: {gpus} GPUs are no whole nodes of {cluster.gpus_per_node}: change tp or --gpus-per-node"
        )
    if not cluster.lws:
        raise PlanError(
            f"{part}: {gpus} GPUs are {gpus // cluster.gpus_per_node} nodes of {cluster.gpus_per_node}: a server over"
            " several nodes needs the LeaderWorkerSet controller in the cluster; say --lws, or lower tp"
        )
    return gpus // cluster.gpus_per_node


def _moved(plan: FleetPlan, cluster: Cluster, server: ServerSpec, gpus: Sequence[int], number: int) -> ServerSpec:
    """The server as it runs in a pod that has these of the plan's GPUs, as the pod's server of this number."""
    first = FIRST_PORT + PORTS_EACH * number
    changed = {"--host": ADDRESS, "--port": str(first), "--nccl-port": str(first + 1)}
    if server.bootstrap_port is not None:
        changed["--disaggregation-bootstrap-port"] = str(first + 2)
    if server.gpus:
        changed["--base-gpu-id"] = str(gpus.index(server.gpus[0]))
    command = ("python", *_with_values(relocated(plan, list(server.command[1:])), changed))
    env = {name: value for name, value in relocated(plan, dict(server.env)).items() if name not in _OF_THE_IMAGE}
    return replace(
        server,
        command=command,
        env=env | {"SGLANG_HOST_IP": ADDRESS, "UCX_NET_DEVICES": cluster.nic},
        port=first,
        bootstrap_port=None if server.bootstrap_port is None else first + 2,
        gpus=tuple(gpus.index(gpu) for gpu in server.gpus),
    )


def _over_nodes(cluster: Cluster, server: ServerSpec, nodes: int) -> ServerSpec:
    """The server split over several nodes, whose processes find each other over the network."""
    where = f"{LEADER}:{server.port + 3}"
    command = (*server.command, "--nnodes", str(nodes), "--node-rank", "$(LWS_WORKER_INDEX)", "--dist-init-addr", where)
    own = {"GLOO_SOCKET_IFNAME": cluster.nic, "NCCL_SOCKET_IFNAME": cluster.nic}
    env = {name: text for name, text in server.env.items() if name != "SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE"}
    return replace(server, command=command, env=env | own)


def relocated(plan: FleetPlan, value: Any) -> Any:
    """The same list, table or text with the plan's folders where pods have them."""
    if isinstance(value, str):
        for here, there in _places(plan).items():
            value = value.replace(here, there)
        return value
    if isinstance(value, Mapping):
        return {name: relocated(plan, one) for name, one in value.items()}
    return [relocated(plan, one) for one in value] if isinstance(value, list | tuple) else value


def _places(plan: FleetPlan) -> dict[str, str]:
    """Folder of the plan -> folder in a pod, inner ones first."""
    return {
        str(plan.run_dir / "checkpoints"): RUN,
        str(adapters_dir(plan.run_dir)): f"{RUN}/adapters",
        str(plan.tmp_dir): TMP,
        str(plan.zoo): ZOO,
    }


def _with_values(command: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """The command with other values after these flags, each of which it has once."""
    changed = list(command)
    for flag, value in values.items():
        changed[changed.index(flag) + 1] = value
    return changed


def _replica_name(server: ServerSpec, replica: int) -> str:
    return f"prefill-{replica}" if server.module is None else decode_name(server.module, replica)
