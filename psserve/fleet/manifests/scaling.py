"""Objects of the Prometheus operator and of KEDA: what watches a fleet, and what gives it more or fewer servers."""

from __future__ import annotations

import json

from psserve.fleet.manifests.cluster import Cluster
from psserve.fleet.manifests.objects import Fleet, Object, labels, metadata
from psserve.fleet.manifests.pods import PodSet
from psserve.fleet.manifests.router import ROUTER

FULL = 0.7
"""Of a decode server's KV pool: with more asked of it, there should be another one."""
LOOK_S = 15
CALM_S = 600
"""Without more demand, before a server is taken away."""


def service_monitor(fleet: Fleet) -> Object:
    """What tells the Prometheus operator to scrape the router, and through it all servers."""
    pages = ("/metrics", "/engine_metrics")
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata(fleet.cluster, fleet.cluster.name, ROUTER),
        "spec": {
            "selector": {"matchLabels": labels(fleet.cluster, ROUTER)},
            "endpoints": [{"port": "http", "path": path, "interval": f"{LOOK_S}s"} for path in pages],
        },
    }


def scaled_objects(fleet: Fleet) -> list[Object]:
    """One for each set of pods that may grow: pods of several servers do not, as their GPUs are shared out."""
    if fleet.cluster.max_replicas is None:
        return []
    return [_scaled(fleet, pods, fleet.cluster.max_replicas) for pods in fleet.sets if pods.role != "shared"]


def _scaled(fleet: Fleet, pods: PodSet, most: int) -> Object:
    """KEDA asks for as many pods as keep the demand on each below the threshold. Pods drain before they end."""
    query, threshold = _demand(fleet, pods)
    calm = {"stabilizationWindowSeconds": CALM_S, "policies": [{"type": "Pods", "value": 1, "periodSeconds": CALM_S}]}
    kinds = ("apps/v1", "StatefulSet") if pods.nodes == 1 else ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet")
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata(fleet.cluster, pods.name, pods.role),
        "spec": {
            "scaleTargetRef": {"apiVersion": kinds[0], "kind": kinds[1], "name": pods.name},
            "pollingInterval": LOOK_S,
            "minReplicaCount": pods.replicas,
            "maxReplicaCount": max(most, pods.replicas),
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": calm}}},
            "triggers": [
                {
                    "type": "prometheus",
                    "metricType": "AverageValue",
                    "metadata": {
                        "serverAddress": fleet.cluster.prometheus,
                        "query": query,
                        "threshold": str(threshold),
                    },
                }
            ],
        },
    }


def _demand(fleet: Fleet, pods: PodSet) -> tuple[str, int]:
    """Tokens asked of a set's pods together, as a query, and how many one of them should have at most."""
    if pods.module is None:
        return _sum(fleet.cluster, "psserve_prefill_demand_tokens"), fleet.plan.router.config.queue.window_tokens
    query = _sum(fleet.cluster, "psserve_decode_demand_tokens", servers=pods.module)
    return query, int(FULL * pods.servers[0].memory.kv_tokens)


def _sum(cluster: Cluster, metric: str, **labels: str) -> str:
    """The query for a metric of this fleet's routers alone: one Prometheus watches all that a cluster has.

    `namespace` and `service` are added to what is scraped, by the Prometheus operator for a ServiceMonitor.
    """
    wanted = {"namespace": cluster.namespace, "service": cluster.name, **labels}
    return f"sum({metric}{{{','.join(f'{name}={json.dumps(text)}' for name, text in wanted.items())}}})"
