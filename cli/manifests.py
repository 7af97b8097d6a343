"""`psserve manifests`: the fleet that `psserve launch` would start, for Kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from psserve.errors import UsageError
from psserve.fleet.options.options import FleetOptions

from .launch import as_flags
from .model_options import model_options
from .options import zoo_option


@click.command("manifests")
@zoo_option
@click.option(
    "--config", type=click.Path(path_type=Path), help="What to serve [default: fleet.toml in the zoo, if there]."
)
@model_options(FleetOptions)
@click.option("--prefill", type=int, help="Number of prefill servers [default: 1].")
@click.option("--kv-tokens", type=int, help="KV pool of each server, in tokens.")
@click.option("--insecure", is_flag=True, default=None, help="Let clients in without a key.")
@click.option("--image", required=True, help="Container image with psserve (deploy/Dockerfile).")
@click.option("--private-network", is_flag=True, help="Confirm that nobody else is on the pods' network. Needed.")
@click.option("--name", default="psserve", show_default=True, help="All objects' names begin with it.")
@click.option("--namespace", default="default", show_default=True, help="Where they go.")
@click.option("--zoo-claim", default="psserve-zoo", show_default=True, help="PersistentVolumeClaim with the zoo.")
@click.option("--nic", default="eth0", show_default=True, help="Network interface of pods.")
@click.option("--gpu-memory", "gpu_gib", type=float, metavar="GIB", help="Memory of each GPU; without it: CPUs.")
@click.option("--gpus", type=click.IntRange(1), help="GPUs for all of the fleet [default: one's own a server].")
@click.option("--gpus-per-node", type=click.IntRange(1), default=8, show_default=True, help="GPUs of a node.")
@click.option("--keda", "max_replicas", type=click.IntRange(1), metavar="MOST", help="Let KEDA scale up to so many.")
@click.option("--prometheus", help="Where KEDA asks for metrics [default: that of the Prometheus operator].")
@click.option("--service-monitor", is_flag=True, help="Have the Prometheus operator scrape the router.")
@click.option("--lws", is_flag=True, help="The cluster has LeaderWorkerSets: a server may go over several nodes.")
def command(zoo_dir: Path | None, config: Path | None, private_network: bool, **given: Any) -> None:
    """Print the objects of Kubernetes that serve the zoo, as YAML.

    The plan, the servers and their arguments are those of `psserve launch`; fleet.toml says what is served. Between
    pods KV travels as it is, and servers' ports are open to whoever reaches them: the network must be a private one,
    and --private-network says that it is (docs/cluster.md). Each time there is a new key between router and servers,
    unless $PSSERVE_WORKER_KEY has one.

    \b
    psserve manifests --image registry.example/psserve:cpu --private-network | kubectl apply -f -
    psserve manifests --image registry.example/psserve:gpu --private-network --gpu-memory 80 --keda 4
    """
    from psserve.fleet.manifests.cluster import Cluster
    from psserve.fleet.manifests.make import as_yaml, make_manifests
    from psserve.fleet.options.config_file import load_options
    from psserve.fleet.options.key_file import client_keys
    from psserve.zoo import Zoo, find_zoo

    if not private_network:
        raise UsageError(
            "whoever reaches the pods' ports can change answers and read KV: run them in a network of their own"
            " (docs/cluster.md), and say --private-network"
        )
    names = Cluster.__dataclass_fields__.keys() & given.keys()
    cluster = Cluster(**{name: value for name in names if (value := given.pop(name)) is not None})
    zoo = Zoo.open(find_zoo(zoo_dir))
    options = load_options(zoo.path, config, as_flags(env=(), allow_untested_sglang=False, engine_args=(), **given))
    click.echo(as_yaml(make_manifests(zoo, options, cluster, keys=client_keys(options, zoo.path))), nl=False)
