"""All objects of a fleet on Kubernetes, from the zoo and the options of `psserve launch`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from psserve.engine.settings import WORKER_KEY
from psserve.errors import PlanError, UsageError
from psserve.fleet.manifests.cluster import Cluster
from psserve.fleet.manifests.objects import Fleet, Object, server_objects
from psserve.fleet.manifests.pods import pod_sets
from psserve.fleet.manifests.router import network_policies, router_objects
from psserve.fleet.manifests.scaling import scaled_objects, service_monitor
from psserve.fleet.options.key_file import NO_KEYS, ClientKeys
from psserve.fleet.options.options import FleetOptions
from psserve.fleet.plan.plan import make_plan
from psserve.zoo import Base, Zoo


def make_manifests(
    zoo: Zoo,
    options: FleetOptions,
    cluster: Cluster,
    *,
    keys: ClientKeys = NO_KEYS,
    environ: Mapping[str, str] = os.environ,
) -> list[Object]:
    """Plan a fleet for a cluster and describe it. Writes nothing.

    The key between router and servers is $PSSERVE_WORKER_KEY, or a new one each time.

    Raises:
        UsageError: the router would be open without a key.
        PlanError: the fleet needs what pods do not have, or does not fit.
    """
    _check_options(options)
    plan = make_plan(zoo, _for_pods(options, cluster), keys=keys, machine=cluster.machine, environ={})
    scan = zoo.scan()
    modules = {checkpoint.module: scan.get(checkpoint.module) for checkpoint in plan.checkpoints}
    for module in modules.values():
        if module.store == "link":
            raise PlanError(
                f"module {module.name}: its files are links that lead out of the zoo; add it with --store copy"
            )
    _check_inside(zoo.base, zoo)
    fleet = Fleet(
        plan=plan,
        cluster=cluster,
        sets=pod_sets(plan, cluster),
        worker_key=environ.get(WORKER_KEY) or secrets.token_hex(32),
        modules_made={name: module.store != "copy" for name, module in modules.items()},
    )
    objects = [one for pods in fleet.sets for one in server_objects(fleet, pods)]
    objects += router_objects(fleet) + network_policies(fleet) + scaled_objects(fleet)
    return [*objects, service_monitor(fleet)] if cluster.service_monitor else objects


def as_yaml(objects: Sequence[Object]) -> str:
    """The objects as one stream of documents."""
    text: str = yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=1000, explicit_start=True)
    return text


class _Dumper(yaml.SafeDumper):  # type: ignore[misc] # PyYAML has no types
    """Writes texts of several lines as they are, and nothing as a reference to what stands elsewhere."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: Any, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _for_pods(options: FleetOptions, cluster: Cluster) -> FleetOptions:
    """The options without what is said of this machine's addresses; one prefill server where GPUs are not counted."""
    router = options.router.model_copy(update={"host": "0.0.0.0", "port": 0})
    prefill: dict[str, Any] = {"ports": (), "bootstrap_ports": ()}
    if cluster.gpus is None and options.prefill.fills_gpus:
        prefill["replicas"] = 1
    no_ports = {"ports": ()}
    return options.model_copy(
        update={
            "device": "cpu" if cluster.gpu_gib is None else "cuda",
            "transfer": "nixl" if options.transfer == "auto" else options.transfer,  # pods share no memory
            "router": router,
            "prefill": options.prefill.model_copy(update=prefill),
            "adapters": options.adapters.model_copy(update=no_ports if options.adapters.ports else {}),
            "module": {
                name: one.model_copy(update=no_ports if one.ports else {}) for name, one in options.module.items()
            },
        }
    )


def _check_options(options: FleetOptions) -> None:
    if options.transfer == "shared":
        raise PlanError(f"{options.said('transfer', 'shared')}: pods share no memory; use nixl")
    if options.router.kv_events:
        raise PlanError(
            f"{options.where('router.kv_events')}: events hold prompts and stay inside a machine; leave it out"
        )
    if options.router.router_workers > 1:
        raise PlanError(
            f"{options.where('router.router_workers')}: a pod that ends could tell one process alone; use replicas"
        )
    if options.router.ssl_certfile is not None:
        raise UsageError(
            f"{options.where('router.ssl_certfile')}: in a cluster TLS is the ingress's affair; leave it out here"
        )


def _check_inside(base: Base, zoo: Zoo) -> None:
    if not base.path.is_relative_to(zoo.path):
        raise PlanError(
            f"the base {base.name} is in {base.path}, and pods have nothing but the zoo {zoo.path}: copy it"
            " into the zoo's folder, and make the zoo from there (psserve init)"
        )
