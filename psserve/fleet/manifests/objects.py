"""Kubernetes objects of server pods: their set, their headless Service, their disruption budget."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from psserve.contracts.programs import program
from psserve.engine.settings import WORKER_KEY
from psserve.fleet.manifests.cluster import GIB, Cluster
from psserve.fleet.manifests.drain import HOST, ROUTERS
from psserve.fleet.manifests.health import ANSWER_S, POD_IP
from psserve.fleet.manifests.pods import LEADER, RUN, ZOO, PodSet
from psserve.fleet.plan.adapters import GROUP
from psserve.fleet.plan.spec import FleetPlan, ServerSpec
from psserve.fleet.plan.start_limit import start_limit_s

Object = dict[str, Any]
ROUTER_PORT = 30000
PROCESS_BYTES = int(2.2 * GIB)
"""Of a server's processes, beside weights and KV cache (docs/fleet.md)."""
GPU_SERVER_BYTES = 8 * GIB
CORES = {"cpu": 1, "cuda": 4}
PROBE_S = 10
GRACE_S = 60
"""For a server that has drained, to end."""
LEAVE_S = 5
"""Until Services no longer send anything to a router that ends."""
ROUTER_GRACE_S = 15
"""For one that has drained."""
USER = 1000
SECURITY: Object = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONFINED: Object = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """All that objects are made from."""

    plan: FleetPlan
    cluster: Cluster
    sets: Sequence[PodSet]
    worker_key: str
    modules_made: Mapping[str, bool]
    """Module that has a checkpoint made -> whether that writes into the zoo."""


def labels(cluster: Cluster, component: str) -> dict[str, str]:
    """By which objects of one kind of pod are found."""
    return {
        "app.kubernetes.io/name": "psserve",
        "app.kubernetes.io/instance": cluster.name,
        "app.kubernetes.io/component": component,
    }


def metadata(cluster: Cluster, name: str, component: str) -> Object:
    return {"name": name, "namespace": cluster.namespace, "labels": labels(cluster, component)}


def server_objects(fleet: Fleet, pods: PodSet) -> list[Object]:
    """The objects of one set of pods. A LeaderWorkerSet brings its own Service."""
    budget = disruption_budget(fleet.cluster, pods.name, pods.role, selector(fleet.cluster, pods))
    if pods.nodes > 1:
        return [_leader_worker_set(fleet, pods), budget]
    return [_service(fleet.cluster, pods), _stateful_set(fleet, pods), budget]


def selector(cluster: Cluster, pods: PodSet) -> dict[str, str]:
    """The labels of the pods of one set."""
    return labels(cluster, pods.role) | {"psserve.io/set": pods.name}


def _service(cluster: Cluster, pods: PodSet) -> Object:
    ports = [{"name": f"http-{n}", "port": server.port} for n, server in enumerate(pods.servers)]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(cluster, pods.name, pods.role),
        # The router finds out by itself who is ready: pods need their names before.
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(cluster, pods),
            "ports": ports,
        },
    }


def _stateful_set(fleet: Fleet, pods: PodSet) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(fleet.cluster, pods.name, pods.role),
        "spec": {
            "serviceName": pods.name,
            "replicas": pods.replicas,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": selector(fleet.cluster, pods)},
            "template": pod_template(fleet, pods),
        },
    }


def _leader_worker_set(fleet: Fleet, pods: PodSet) -> Object:
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata(fleet.cluster, pods.name, pods.role),
        "spec": {
            "replicas": pods.replicas,
            "leaderWorkerTemplate": {
                "size": pods.nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": pod_template(fleet, pods),
                "workerTemplate": pod_template(fleet, pods, leads=False),
            },
        },
    }


def disruption_budget(cluster: Cluster, name: str, component: str, pods: Mapping[str, str]) -> Object:
    """Has nodes be emptied of pods with these labels one by one."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(cluster, name, component),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": dict(pods)}},
    }


def pod_template(fleet: Fleet, pods: PodSet, *, leads: bool = True) -> Object:
    """The pod of a set. Not `leads`: of the further nodes of a server, where nobody is asked anything."""
    made = [_made(fleet, server) for server in pods.servers if _is_made(fleet, server)]
    key = sha256(fleet.worker_key.encode()).hexdigest()[:8]
    spec = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # they are variables whose names begin with the Service's
        "securityContext": SECURITY,
        # What runs may run to its end, which the router bounds.
        "terminationGracePeriodSeconds": _longest_s(fleet) + GRACE_S,
        "initContainers": [_network(fleet.cluster), *made],
        "containers": [_container(fleet, pods, leads)],
        "volumes": _volumes(fleet, pods),
    }
    return {
        "metadata": {"labels": selector(fleet.cluster, pods), "annotations": {"psserve.io/worker-key": key}},
        "spec": {name: value for name, value in spec.items() if value != []},
    }


def _container(fleet: Fleet, pods: PodSet, leads: bool) -> Object:
    cluster, servers = fleet.cluster, pods.servers
    probe = {**_asked(servers), "timeoutSeconds": ANSWER_S}
    patience = math.ceil(start_limit_s(fleet.plan.basis, fleet.plan.servers) / PROBE_S)
    drain = _in_image("psserve.fleet.manifests.drain", str(_longest_s(fleet)), str(router_end_s(fleet)))
    probes = {
        "startupProbe": probe | {"periodSeconds": PROBE_S, "failureThreshold": patience},
        "livenessProbe": probe | {"periodSeconds": 3 * PROBE_S, "failureThreshold": 4},
    }
    return {
        "name": "server",
        "image": cluster.image,
        "command": _command(servers),
        "env": _environment(fleet, pods),
        "ports": [{"name": f"http-{n}", "containerPort": server.port} for n, server in enumerate(servers)],
        "resources": _resources(pods),
        "securityContext": CONFINED,
        "volumeMounts": _mounts(fleet, pods),
        **(probes if leads else {}),
        # A further node as well: the server breaks without it, and the leader's requests are the server's.
        "lifecycle": {"preStop": {"exec": {"command": drain}}},
    }


def _asked(servers: Sequence[ServerSpec]) -> Object:
    """What a probe does: one request can ask one server alone."""
    if len(servers) == 1:
        return {"httpGet": {"path": "/health", "port": servers[0].port}}
    ports = [str(server.port) for server in servers]
    return {"exec": {"command": _in_image("psserve.fleet.manifests.health", *ports)}}


def router_end_s(fleet: Fleet) -> int:
    """Seconds that a router may take to end."""
    return LEAVE_S + math.ceil(fleet.plan.router.config.drain_timeout_s) + ROUTER_GRACE_S


def _longest_s(fleet: Fleet) -> int:
    """Seconds that a request may take."""
    return math.ceil(fleet.plan.router.config.request_timeout_s)


def _command(servers: Sequence[ServerSpec]) -> list[str]:
    """The server's command; of several, one that runs them all, each in what is its own of the environment."""
    if len(servers) == 1:
        return list(servers[0].command)
    common = _common_env(servers)
    each = [
        {
            "name": server.name,
            "command": list(server.command),
            "env": {name: text for name, text in server.env.items() if name not in common},
        }
        for server in servers
    ]
    return _in_image("psserve.fleet.manifests.group", *map(json.dumps, each))


def _in_image(module: str, *arguments: str) -> list[str]:
    """The command that runs one of psserve's programs there."""
    return list(program(module, *arguments, python="python"))


def _common_env(servers: Sequence[ServerSpec]) -> dict[str, str]:
    first, *others = servers
    return {name: text for name, text in first.env.items() if all(other.env.get(name) == text for other in others)}


def _environment(fleet: Fleet, pods: PodSet) -> list[Object]:
    """What stands in others' values, as $(NAME), comes before them."""
    cluster = fleet.cluster
    host = LEADER if pods.nodes > 1 else f"$(POD_NAME).{pods.domain}"
    own = {HOST: host, ROUTERS: f"http://{cluster.routers}:{ROUTER_PORT}"}
    return [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": POD_IP, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": WORKER_KEY, "valueFrom": {"secretKeyRef": {"name": cluster.name, "key": "worker-key"}}},
        *({"name": name, "value": text} for name, text in sorted((own | _common_env(pods.servers)).items())),
    ]


def _network(cluster: Cluster) -> Object:
    """The container that sees, before anything else, that the pod has the interface which KV goes through."""
    return {
        "name": "network",
        "image": cluster.image,
        "command": _in_image("psserve.fleet.manifests.network", cluster.nic),
        "securityContext": CONFINED,
    }


def _resources(pods: PodSet) -> Object:
    count = len(pods.servers)
    if not pods.gpus:
        memory = sum(one.memory.total_bytes + one.memory.adapter_bytes + PROCESS_BYTES for one in pods.servers)
        return {"requests": {"cpu": str(count * CORES["cpu"]), "memory": _mebibytes(memory)}}
    main = sum(GPU_SERVER_BYTES + one.memory.adapter_bytes for one in pods.servers)
    gpus = {"nvidia.com/gpu": str(pods.gpus // pods.nodes)}
    return {"requests": {"cpu": str(count * CORES["cuda"]), "memory": _mebibytes(main)} | gpus, "limits": gpus}


def _mebibytes(count: int) -> str:
    return f"{math.ceil(count / 2**20)}Mi"


# --- files


def _is_made(fleet: Fleet, server: ServerSpec) -> bool:
    """Whether something must be laid out for a server: a checkpoint, or a folder of adapters."""
    return server.adapters is not None or server.module in fleet.modules_made


def _made(fleet: Fleet, server: ServerSpec) -> Object:
    """The container that does so, before the server starts."""
    if server.adapters is not None:
        adapters = [f"{one.name}={one.module}" for one in fleet.plan.adapters]
        command = _in_image("psserve.fleet.run.adapters", ZOO, RUN, *adapters)
    else:
        command = _in_image("psserve.fleet.run.checkpoints", ZOO, f"{server.module}", f"{RUN}/{server.module}")
    writes = server.adapters is None and fleet.modules_made[f"{server.module}"]
    return {
        "name": f"files-{GROUP}" if server.adapters is not None else f"files-{_label(server)}",
        "image": fleet.cluster.image,
        "command": command,
        "securityContext": CONFINED,
        "volumeMounts": [
            {"name": "zoo", "mountPath": ZOO, "readOnly": not writes},
            {"name": "checkpoints", "mountPath": RUN},
        ],
    }


def _label(server: ServerSpec) -> str:
    return sha256(f"{server.module}".encode()).hexdigest()[:8]


def _mounts(fleet: Fleet, pods: PodSet) -> list[Object]:
    mounts: list[Object] = [{"name": "zoo", "mountPath": ZOO, "readOnly": True}]
    if any(_is_made(fleet, server) for server in pods.servers):
        mounts.append({"name": "checkpoints", "mountPath": RUN, "readOnly": True})
    if pods.gpus:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    return mounts


def _volumes(fleet: Fleet, pods: PodSet) -> list[Object]:
    volumes: list[Object] = [zoo_volume(fleet.cluster)]
    if any(_is_made(fleet, server) for server in pods.servers):
        volumes.append({"name": "checkpoints", "emptyDir": {}})
    if pods.gpus:  # NCCL and UCX want more of it than the 64 MiB that containers get
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
    return volumes


def zoo_volume(cluster: Cluster) -> Object:
    return {"name": "zoo", "persistentVolumeClaim": {"claimName": cluster.zoo_claim}}
