"""Kubernetes objects of the router, and who may reach whom."""

from __future__ import annotations

import json
import zlib
from typing import Any

from psserve.contracts.router_config import RouterConfig
from psserve.fleet.manifests.objects import (
    CONFINED,
    ROUTER_PORT,
    SECURITY,
    Fleet,
    Object,
    labels,
    metadata,
    zoo_volume,
)
from psserve.fleet.manifests.pods import TMP, ZOO, relocated

ROUTER = "router"
CONFIG = "/etc/psserve/router.json"
LEAVE_S = 5
"""Until Services no longer send anything to a pod that ends."""


def router_objects(fleet: Fleet) -> list[Object]:
    """Secret, Deployment and Service."""
    cluster = fleet.cluster
    config = json.dumps(router_config(fleet), indent=1)
    about = metadata(cluster, cluster.name, ROUTER)
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": about,
            "type": "Opaque",
            "stringData": {"worker-key": fleet.worker_key, "router.json": config},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": about,
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels(cluster, ROUTER)},
                "template": _template(fleet),
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": about,
            "spec": {
                "selector": labels(cluster, ROUTER),
                "ports": [{"name": "http", "port": ROUTER_PORT, "targetPort": "http"}],
            },
        },
    ]


def router_config(fleet: Fleet) -> dict[str, Any]:
    """The router's file: the plan's, with all servers that there may be, and a serial made from it."""
    made = fleet.plan.router.config.model_dump(mode="json", exclude_unset=True)
    most = fleet.cluster.max_replicas
    workers = [
        worker
        for pods in fleet.sets
        for replica in range(pods.replicas if most is None or pods.role == "shared" else max(most, pods.replicas))
        for worker in pods.workers(replica)
    ]
    config: dict[str, Any] = relocated(fleet.plan, made) | {
        "host": "0.0.0.0",
        "port": ROUTER_PORT,
        "workers": workers,
        "worker_key": fleet.worker_key,
        "operator_key": None,  # the supervisor's, and there is none
    }
    if not fleet.plan.router.config.needs_key:
        service = fleet.cluster.name
        names = (service, f"{service}.{fleet.cluster.namespace}", f"{service}.{fleet.cluster.namespace}.svc")
        config["allowed_hosts"] = [*config.get("allowed_hosts", ()), *names]
    config["serial"] = zlib.crc32(json.dumps(config).encode())
    RouterConfig.model_validate(config)
    return config


def _template(fleet: Fleet) -> Object:
    cluster = fleet.cluster
    drain = int(fleet.plan.router.config.drain_timeout_s)
    env = {name: text for name, text in relocated(fleet.plan, dict(fleet.plan.router.env)).items() if name != "PATH"}
    container = {
        "name": ROUTER,
        "image": cluster.image,
        "command": ["python", "-m", "psserve.router", "--config", CONFIG],
        "env": [{"name": name, "value": text} for name, text in sorted((env | {"TMPDIR": TMP}).items())],
        "ports": [{"name": "http", "containerPort": ROUTER_PORT}],
        "readinessProbe": {"httpGet": {"path": "/readiness", "port": "http"}, "periodSeconds": 2},
        "livenessProbe": {
            "httpGet": {"path": "/liveness", "port": "http"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(LEAVE_S)]}}},
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
        "securityContext": CONFINED,
        "volumeMounts": [
            {"name": "zoo", "mountPath": ZOO, "readOnly": True},
            # A folder, not a file in it: only so does it follow the Secret.
            {"name": "config", "mountPath": CONFIG.rpartition("/")[0], "readOnly": True},
        ],
    }
    return {
        "metadata": {"labels": labels(cluster, ROUTER)},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": SECURITY,
            "terminationGracePeriodSeconds": LEAVE_S + drain + 15,
            "containers": [container],
            "volumes": [
                zoo_volume(cluster),
                {
                    "name": "config",
                    "secret": {
                        "secretName": cluster.name,
                        "defaultMode": 0o440,
                        "items": [{"key": "router.json", "path": "router.json"}],
                    },
                },
            ],
        },
    }


def network_policies(fleet: Fleet) -> list[Object]:
    """Servers are reached by the fleet alone, in all their ports; the router by anybody, in one."""
    cluster = fleet.cluster
    fleet_labels = {name: text for name, text in labels(cluster, "").items() if text}
    components = sorted({pods.role for pods in fleet.sets})
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata(cluster, f"{cluster.name}-servers", "servers"),
            "spec": {
                "podSelector": {
                    "matchLabels": fleet_labels,
                    "matchExpressions": [
                        {"key": "app.kubernetes.io/component", "operator": "In", "values": components}
                    ],
                },
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": fleet_labels}}]}],
            },
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata(cluster, f"{cluster.name}-router", ROUTER),
            "spec": {
                "podSelector": {"matchLabels": labels(cluster, ROUTER)},
                "policyTypes": ["Ingress"],
                "ingress": [{"ports": [{"port": ROUTER_PORT}]}],
            },
        },
    ]
