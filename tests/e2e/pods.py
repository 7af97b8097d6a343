"""Pods of generated objects, run on this machine as they are written, each on a host of its own (tests/hosts.py).

Commands, environment, init containers, volumes and names are those of the objects. In place of nodes and images:

- a container's root is this machine's, but for /tmp, /etc/hosts, /proc and its volumes; it has the mounts and processes
  of a container, and the network, IPC and /dev/shm of its pod;
- nobody is user 1000, probes are not asked, and what ends is not started again.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from psserve.fleet.plan.sglang_args import OTHER_MODELS, other_models
from tests.hosts import Lan, lan

Object = Mapping[str, Any]
REPOSITORY = Path(__file__).parents[2]
IMAGE = {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONUNBUFFERED": "1",
    "PSSERVE_ZOO": "/zoo",
    "HOME": "/tmp",
    OTHER_MODELS: ",".join(other_models("qwen3")),
    "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
}
"""The environment that the image brings (deploy/Dockerfile). Its psserve is that of whoever runs the tests, and its
SGLang knows the demo zoo's architecture alone, which makes a start shorter."""
OWN = {"tmp", "proc", "zoo", "checkpoints"}
"""Folders of a container's root that are not this machine's."""


@dataclass(frozen=True)
class Pod:
    name: str
    domain: str | None
    """The Service that gives it its stable name."""
    template: Object
    env: Mapping[str, str] = field(default_factory=dict)
    """What a controller adds."""

    @property
    def labels(self) -> Mapping[str, str]:
        return dict(self.template["metadata"]["labels"])

    @property
    def spec(self) -> Object:
        return dict(self.template["spec"])

    @property
    def main(self) -> Object:
        """Its one container that is not for initialisation."""
        (container,) = self.spec["containers"]
        return dict(container)


def pods_of(objects: Sequence[Object]) -> list[Pod]:
    """All pods that controllers would make of the objects."""
    found: list[Pod] = []
    for one in objects:
        name, spec = one["metadata"]["name"], one.get("spec", {})
        if one["kind"] in ("StatefulSet", "Deployment"):
            domain, template = spec.get("serviceName"), spec["template"]
            found += [Pod(f"{name}-{number}", domain, template) for number in range(spec["replicas"])]
        elif one["kind"] == "LeaderWorkerSet":
            for number in range(spec["replicas"]):
                found += _group(name, f"{name}-{number}", one["metadata"]["namespace"], spec["leaderWorkerTemplate"])
    return found


def _group(domain: str, leader: str, namespace: str, group: Object) -> list[Pod]:
    """A leader and its workers, as the LeaderWorkerSet controller names them and tells them of each other."""
    env = {"LWS_LEADER_ADDRESS": f"{leader}.{domain}.{namespace}", "LWS_GROUP_SIZE": str(group["size"])}
    first = Pod(leader, domain, group["leaderTemplate"], env | {"LWS_WORKER_INDEX": "0"})
    others = [
        Pod(f"{leader}-{number}", domain, group["workerTemplate"], env | {"LWS_WORKER_INDEX": str(number)})
        for number in range(1, group["size"])
    ]
    return [first, *others]


class Node:
    """Where pods run. Made by `running`."""

    def __init__(self, net: Lan, objects: Sequence[Object], zoo: Path, folder: Path) -> None:
        self.net = net
        self.pods = {pod.name: pod for pod in pods_of(objects)}
        self._places = dict(zip(self.pods, net.hosts.values(), strict=True))
        self._zoo, self._folder = zoo, folder
        self._secrets = {one["metadata"]["name"]: one["stringData"] for one in objects if one["kind"] == "Secret"}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "hosts").write_text(self._names(objects))

    def start(self, name: str) -> None:
        """Run a pod's init containers to their ends, one after the other, and start its own."""
        pod = self.pods[name]
        for container in pod.spec.get("initContainers", ()):
            status = self._run(pod, container, container["command"]).wait()
            assert status == 0, self.said()
        self._running[name] = self._run(pod, pod.main, pod.main["command"])

    def end(self, name: str) -> tuple[int, int]:
        """End a pod as Kubernetes does: what it runs before its end, then SIGTERM. Returns both exit statuses."""
        pod = self.pods[name]
        before = self._run(pod, pod.main, pod.main["lifecycle"]["preStop"]["exec"]["command"]).wait()
        (within,) = psutil.Process(self._running[name].pid).children()
        (first,) = within.children()
        first.terminate()
        return before, self._running[name].wait()

    def wait(self) -> None:
        """Wait until all have ended."""
        for process in self._running.values():
            process.wait()

    def ended(self) -> list[str]:
        """The pods that have ended."""
        return [name for name, process in self._running.items() if process.poll() is not None]

    def said(self) -> str:
        """The last words of all pods."""
        return "\n".join(f"--- {log.stem}\n{log.read_text()[-2000:]}" for log in self._folder.glob("*.log"))

    def address(self, name: str) -> str:
        return self._places[name].address

    def _names(self, objects: Sequence[Object]) -> str:
        """What the cluster's DNS knows, as /etc/hosts. A Service that is not headless leads to one pod."""
        lines = ["127.0.0.1 localhost"]
        for pod in self.pods.values():
            stable = f" {pod.name}.{pod.domain}" if pod.domain else ""
            led = f" {pod.env['LWS_LEADER_ADDRESS']}" if pod.env.get("LWS_WORKER_INDEX") == "0" else ""
            lines.append(f"{self.address(pod.name)} {pod.name}{stable}{led}")
        for one in objects:
            if one["kind"] == "Service":
                wanted = one["spec"]["selector"].items()
                behind = [self.address(pod.name) for pod in self.pods.values() if wanted <= pod.labels.items()]
                shown = behind if one["spec"].get("clusterIP") == "None" else behind[:1]
                lines += [f"{address} {one['metadata']['name']}" for address in shown]
        return "\n".join(lines) + "\n"

    def _run(self, pod: Pod, container: Object, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command as process 1 of a container. What it says is added to FOLDER/POD.log."""
        env = self._environment(pod, container)
        root = self._folder / f"{pod.name}.root"
        root.mkdir(exist_ok=True)
        expanded = [expand(word, env) for word in command]
        entered = ["exec", "chroot", f"{root}", "env", "-i", *(f"{name}={text}" for name, text in env.items())]
        steps = [*self._root(root), *self._volumes(pod, container, root), [*entered, *expanded]]
        script = "\n".join(map(shlex.join, steps))
        apart = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", script)
        with (self._folder / f"{pod.name}.log").open("ab") as log:
            words = self._places[pod.name].command(*apart)
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _environment(self, pod: Pod, container: Object) -> dict[str, str]:
        """The image's, the controller's and the container's, in which values may name what comes before them."""
        env = IMAGE | pod.env
        for variable in container.get("env", ()):
            if "value" in variable:
                env[variable["name"]] = expand(variable["value"], env)
            else:
                env[variable["name"]] = self._looked_up(pod, variable["valueFrom"])
        return env

    def _looked_up(self, pod: Pod, source: Object) -> str:
        if "secretKeyRef" in source:
            return str(self._secrets[source["secretKeyRef"]["name"]][source["secretKeyRef"]["key"]])
        told = {"metadata.name": pod.name, "status.podIP": self.address(pod.name)}
        return told[source["fieldRef"]["fieldPath"]]

    def _root(self, root: Path) -> list[list[str]]:
        """The commands that make a root directory: this machine's, with what is a container's own."""
        steps = [["mount", "-t", "tmpfs", "tmpfs", f"{root}"]]
        for entry in sorted(Path("/").iterdir()):
            if entry.is_symlink():
                steps.append(["ln", "-s", os.readlink(entry), f"{root}{entry}"])
            elif entry.is_dir() and entry.name not in OWN:
                steps += _bound(entry, root)
        for path in {REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)}:
            if path.parts[1] in OWN:
                steps += _bound(path, root)
        return [
            *steps,
            ["mkdir", "-p", f"{root}/tmp", f"{root}/proc"],
            ["mount", "--bind", f"{self._folder / 'hosts'}", f"{root}/etc/hosts"],
            ["mount", "-t", "proc", "proc", f"{root}/proc"],
        ]

    def _volumes(self, pod: Pod, container: Object, root: Path) -> list[list[str]]:
        """The commands that mount a container's volumes."""
        volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
        steps = []
        for mount in container.get("volumeMounts", ()):
            source, target = self._source(pod, volumes[mount["name"]]), f"{root}{mount['mountPath']}"
            steps += [["mkdir", "-p", target], ["mount", "--bind", f"{source}", target]]
            if mount.get("readOnly"):
                steps.append(["mount", "-o", "remount,bind,ro", target])
        return steps

    def _source(self, pod: Pod, volume: Object) -> Path:
        """The folder of a volume, with what is in it."""
        if "persistentVolumeClaim" in volume:
            return self._zoo
        folder = self._folder / f"{pod.name}.{volume['name']}"
        folder.mkdir(exist_ok=True)
        if "secret" in volume:
            for item in volume["secret"]["items"]:
                (folder / item["path"]).write_text(self._secrets[volume["secret"]["secretName"]][item["key"]])
        else:
            assert "emptyDir" in volume, volume
        return folder


@contextmanager
def running(objects: Sequence[Object], zoo: Path, folder: Path) -> Iterator[Node]:
    """Start all pods of the objects. `zoo` is what is on the claim. Skips the test where there can be no hosts."""
    hosts = [f"pod{number}" for number in range(len(pods_of(objects)))]
    with lan(folder, hosts) as net:
        node = Node(net, objects, zoo, folder)
        with ThreadPoolExecutor(len(hosts)) as pool:
            list(pool.map(node.start, node.pods))
        yield node
    node.wait()


def expand(text: str, env: Mapping[str, str]) -> str:
    """The text with the values of $(NAME), as the kubelet has it: what is not known stays as it is."""
    return re.sub(r"\$\((\w+)\)", lambda found: env.get(found[1], found[0]), text)


def _bound(path: Path, root: Path) -> list[list[str]]:
    return [["mkdir", "-p", f"{root}{path}"], ["mount", "--rbind", f"{path}", f"{root}{path}"]]
