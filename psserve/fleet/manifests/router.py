"""Kubernetes objects of the router, and who may reach whom."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from psserve.contracts.programs import program
from psserve.contracts.router_config import CHANGEABLE, RouterConfig
from psserve.fleet.manifests.objects import (
    CONFINED,
    LEAVE_S,
    ROUTER_PORT,
    SECURITY,
    Fleet,
    Object,
    disruption_budget,
    labels,
    metadata,
    router_end_s,
    zoo_volume,
)
from psserve.fleet.manifests.pods import TMP, ZOO, relocated

ROUTER = "router"
CONFIG = "/etc/psserve/router.json"


def router_objects(fleet: Fleet) -> list[Object]:
    """Secret, Deployment, the Service for clients, one by which servers find each router; a budget for several."""
    cluster = fleet.cluster
    config = router_config(fleet)
    about = metadata(cluster, cluster.name, ROUTER)
    replicas = fleet.plan.router.config.replicas
    pods = labels(cluster, ROUTER)
    port = {"name": "http", "port": ROUTER_PORT, "targetPort": "http"}
    objects: list[Object] = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": about,
            "type": "Opaque",
            "stringData": {"worker-key": fleet.worker_key, "router.json": json.dumps(config, indent=1)},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": about,
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": pods},
                "template": _template(fleet, config),
            },
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": {"selector": pods, "ports": [port]}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(cluster, cluster.routers, "routers"),
            # A router that is not ready may still have a server's requests.
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": pods,
                "ports": [port],
            },
        },
    ]
    return objects if replicas == 1 else [*objects, disruption_budget(cluster, cluster.name, ROUTER, pods)]


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
        config["allowed_hosts"] = [*config.get("allowed_hosts", ()), *names, fleet.cluster.routers]
    config["serial"] = zlib.crc32(json.dumps(config).encode())
    RouterConfig.model_validate(config)
    return config


def _template(fleet: Fleet, config: Mapping[str, Any]) -> Object:
    """The pod. It is another one, and so replaces those that run, where they could not take over the configuration."""
    cluster = fleet.cluster
    settings = {name: value for name, value in config.items() if name not in CHANGEABLE}
    digest = sha256(json.dumps(settings).encode()).hexdigest()[:8]
    env = {name: text for name, text in relocated(fleet.plan, dict(fleet.plan.router.env)).items() if name != "PATH"}
    container = {
        "name": ROUTER,
        "image": cluster.image,
        "command": list(program("psserve.router", "--config", CONFIG, python="python")),
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
        "metadata": {"labels": labels(cluster, ROUTER), "annotations": {"psserve.io/settings": digest}},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": SECURITY,
            "terminationGracePeriodSeconds": router_end_s(fleet),
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
