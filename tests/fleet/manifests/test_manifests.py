"""Objects of Kubernetes: those that were read, what Kubernetes' schemas say of them, and what holds for all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from psserve.contracts.programs import arguments_of
from psserve.contracts.router_config import RouterConfig
from psserve.engine.arguments import check, role_of
from psserve.engine.settings import ADAPTERS as FOLDER
from psserve.engine.settings import WORKER
from psserve.errors import PlanError, UsageError
from psserve.fleet.manifests.cluster import LONGEST_NAME, Cluster
from psserve.fleet.manifests.drain import HOST, ROUTERS
from psserve.fleet.options.key_file import NO_KEYS
from psserve.router.siblings import divided
from tests.e2e.pods import expand, pods_of
from tests.fleet.manifests.cases import ADAPTERS, CASES, DEMO, GOLDEN, IMAGE, MATH, TWO, objects_of, text_of

KUBERNETES = "1.34"
OTHERS = ("keda.sh/v1alpha1", "monitoring.coreos.com/v1", "leaderworkerset.x-k8s.io/v1")
"""APIs whose schemas are not Kubernetes' own."""


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in objects if one["kind"] == kind]


def containers(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The servers' containers."""
    return [one["spec"]["template"]["spec"]["containers"][0] for one in of_kind(objects, "StatefulSet")]


def router_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (secret,) = of_kind(objects, "Secret")
    config: dict[str, Any] = json.loads(secret["stringData"]["router.json"])
    return config


@pytest.mark.parametrize("case", CASES)
def test_objects_are_those_that_were_read(zoo: Path, case: str) -> None:
    """Another plan, another argument: run `python -m tests.fleet.manifests.cases`, and read what changed."""
    assert text_of(zoo, case) == (GOLDEN / f"{case}.yaml").read_text()


@pytest.mark.parametrize("case", CASES)
def test_kubernetes_takes_them(zoo: Path, case: str) -> None:
    objects = objects_of(zoo, *CASES[case])
    for one in objects:
        if one["apiVersion"] not in OTHERS:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)
        elif one["kind"] == "LeaderWorkerSet":  # its pods at least
            parts = one["spec"]["leaderWorkerTemplate"]
            for part in ("leaderTemplate", "workerTemplate"):
                pod = {"apiVersion": "v1", "kind": "Pod", **parts[part]}
                kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    assert len({(one["kind"], one["metadata"]["name"]) for one in objects}) == len(objects)


def test_the_schemas_refuse_what_is_wrong(zoo: Path) -> None:
    (first, *_) = of_kind(objects_of(zoo, MATH, {}), "StatefulSet")
    first["spec"]["template"]["spec"]["containers"][0]["comand"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(first, KUBERNETES, strict=True)


def test_yaml_reads_back_as_the_same_objects(zoo: Path) -> None:
    assert list(yaml.safe_load_all(text_of(zoo, "demo"))) == objects_of(zoo, *CASES["demo"])


@pytest.mark.parametrize("case", CASES)
def test_workers_take_their_arguments_and_nothing_leads_to_this_machine(zoo: Path, case: str) -> None:
    text = text_of(zoo, case)
    assert str(zoo) not in text
    assert "/.run" not in text
    for container in containers(objects_of(zoo, *CASES[case])):
        if arguments := list(arguments_of(container["command"], WORKER) or ()):
            check(arguments, role_of(arguments), adapters=FOLDER in {one["name"] for one in container["env"]})


def test_the_router_knows_each_pod_by_its_stable_name(zoo: Path) -> None:
    objects = objects_of(zoo, MATH | {"prefill": {"replicas": 2}}, {})
    config = router_of(objects)
    RouterConfig.model_validate(config)
    assert [(one["name"], one["host"], one["port"], one["bootstrap_port"]) for one in config["workers"]] == [
        ("prefill-0", "psserve-prefill-0.psserve-prefill", 8000, 8002),
        ("prefill-1", "psserve-prefill-1.psserve-prefill", 8000, 8002),
        ("decode-math-0", "psserve-decode-math-0.psserve-decode-math", 8000, None),
    ]
    sets = {one["metadata"]["name"]: one["spec"]["replicas"] for one in of_kind(objects, "StatefulSet")}
    assert sets == {"psserve-prefill": 2, "psserve-decode-math": 1}
    assert (config["worker_key"], config["operator_key"], config["base"]["path"]) == ("for-servers", None, "/zoo/base")


def test_the_router_knows_all_that_keda_may_start(zoo: Path) -> None:
    config = router_of(objects_of(zoo, *CASES["keda"]))
    assert [one["name"] for one in config["workers"]] == [
        *(f"prefill-{n}" for n in range(4)),
        *(f"decode-math-{n}" for n in range(4)),
    ]


def test_another_configuration_has_another_serial(zoo: Path) -> None:
    first, again = (router_of(objects_of(zoo, MATH, {})) for _ in range(2))
    other = router_of(objects_of(zoo, {"modules": ["code"]}, {}))
    assert first["serial"] == again["serial"] != other["serial"]


def test_routers_start_anew_only_for_what_they_cannot_take_over(zoo: Path) -> None:
    def template(document: dict[str, Any]) -> Any:
        (deployment,) = of_kind(objects_of(zoo, document, {}), "Deployment")
        return deployment["spec"]["template"]

    assert template(MATH) == template({"modules": ["code"]})
    assert template(MATH) != template(MATH | {"router": {"replicas": 2}})


def test_servers_that_share_a_gpu_are_one_pod(zoo: Path) -> None:
    objects = objects_of(zoo, *CASES["shared-gpu"])
    (container,) = containers(objects)
    texts = arguments_of(container["command"], "psserve.fleet.manifests.group")
    assert texts is not None
    servers = [json.loads(text) for text in texts]
    assert [server["name"] for server in servers] == ["prefill-0", "decode-math-0"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    ports = [server["command"][server["command"].index("--port") + 1] for server in servers]
    assert ports == ["8000", "8004"] == [str(one["port"]) for one in router_of(objects)["workers"]]


def test_every_server_of_a_pod_is_probed(zoo: Path) -> None:
    objects = objects_of(zoo, *CASES["shared-gpu"])
    (container,) = containers(objects)
    for probe in ("startupProbe", "livenessProbe"):
        ports = arguments_of(container[probe]["exec"]["command"], "psserve.fleet.manifests.health")
        assert ports == tuple(str(one["port"]) for one in router_of(objects)["workers"])


def test_names_are_each_servers_own_where_one_replica_shares_a_gpu_and_others_do_not(zoo: Path) -> None:
    document = {"prefill": {"gpus": [0]}, "module": {"math": {"replicas": 3, "gpus": [1, 0, 2]}}}
    objects = objects_of(zoo, MATH | document, {"gpu_gib": 80.0, "gpus": 3, "max_replicas": 3})
    assert [(one["name"], one["host"]) for one in router_of(objects)["workers"]] == [
        ("decode-math-0", "psserve-decode-math-0.psserve-decode-math"),
        ("decode-math-2", "psserve-decode-math-1.psserve-decode-math"),
        ("decode-math-3", "psserve-decode-math-2.psserve-decode-math"),
        ("prefill-0", "psserve-shared-0-0.psserve-shared-0"),
        ("decode-math-1", "psserve-shared-0-0.psserve-shared-0"),
    ]


def test_what_is_made_for_the_group_of_adapters_is_what_the_router_asks_for(zoo: Path, tmp_path: Path) -> None:
    objects = objects_of(zoo, *CASES["adapters"])
    (group,) = (one for one in of_kind(objects, "StatefulSet") if one["metadata"]["name"].endswith("-adapters"))
    pod = group["spec"]["template"]["spec"]
    _, made = pod["initContainers"]
    assert {mount["name"]: mount["readOnly"] for mount in made["volumeMounts"] if "readOnly" in mount} == {"zoo": True}
    (mounted,) = (mount["mountPath"] for mount in made["volumeMounts"] if mount["name"] == "checkpoints")

    def here(text: str) -> str:
        return text.replace("/zoo", str(zoo)).replace(mounted, str(tmp_path))

    before = listing(zoo)
    subprocess.run([sys.executable, *map(here, made["command"][1:])], check=True)
    assert listing(zoo) == before
    (told,) = (one["value"] for one in pod["containers"][0]["env"] if one["name"] == FOLDER)
    asked = {one["name"]: one["adapter"] for one in router_of(objects)["modules"] if one.get("adapter")}
    assert set(asked) == set(ADAPTERS)
    assert {file.name for file in Path(here(told)).iterdir()} == set(asked.values())
    for adapter in asked.values():
        files = {file.name for file in Path(here(told), adapter).iterdir()}
        assert {"adapter_config.json", "adapter_model.safetensors"} <= files


def listing(folder: Path) -> dict[str, int]:
    """When each file was changed."""
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*")}


def test_every_router_is_told_by_a_pod_that_ends_and_has_its_part_of_the_limits(zoo: Path) -> None:
    objects = objects_of(zoo, MATH | {"router": {"replicas": 2}}, {})
    (deployment,) = of_kind(objects, "Deployment")
    assert deployment["spec"]["replicas"] == 2
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    all_of_them = {
        one["metadata"]["name"]
        for one in of_kind(objects, "Service")
        if one["spec"].get("clusterIP") == "None" and one["spec"]["selector"].items() <= labels.items()
    }
    for container in containers(objects):
        (url,) = (one["value"] for one in container["env"] if one["name"] == ROUTERS)
        assert {f"http://{name}:30000" for name in all_of_them} == {url}
    config = RouterConfig.model_validate(router_of(objects))
    assert (config.replicas, config.prefill_policy) == (2, "session")
    assert divided(config).queue.prefill_requests == config.queue.prefill_requests // 2
    budgets = [one["spec"]["selector"]["matchLabels"] for one in of_kind(objects, "PodDisruptionBudget")]
    assert labels in budgets


@pytest.mark.parametrize("case", CASES)
def test_every_server_pod_drains_the_host_that_routers_know_before_it_ends(zoo: Path, case: str) -> None:
    objects = objects_of(zoo, *CASES[case])
    pods = [pod for pod in pods_of(objects) if pod.labels["app.kubernetes.io/component"] != "router"]
    drained = set()
    for pod in pods:
        (host,) = (one["value"] for one in pod.main["env"] if one["name"] == HOST)
        drained.add(expand(host, {**pod.env, "POD_NAME": pod.name}))
        seconds = arguments_of(pod.main["lifecycle"]["preStop"]["exec"]["command"], "psserve.fleet.manifests.drain")
        assert seconds is not None
        assert int(seconds[0]) < pod.spec["terminationGracePeriodSeconds"]
    known = {one["host"] for one in router_of(objects)["workers"]}
    assert drained <= known
    assert len(drained) == sum(pod.env.get("LWS_WORKER_INDEX", "0") == "0" for pod in pods)


def test_with_some_gpus_only_those_who_share_them_are_together(zoo: Path) -> None:
    objects = objects_of(zoo, DEMO | {"prefill": {"replicas": 1}}, {"gpu_gib": 80.0, "gpus": 3})
    assert len(containers(objects)) == 3
    counted = sum(int(one["resources"]["limits"]["nvidia.com/gpu"]) for one in containers(objects))
    assert counted == 3


def test_pods_gpus_are_counted_from_the_pods_first(zoo: Path) -> None:
    for container in containers(objects_of(zoo, *CASES["tp"])):
        command = container["command"]
        assert command[command.index("--base-gpu-id") + 1] == "0"
        assert container["resources"]["limits"] == {"nvidia.com/gpu": "2"}


@pytest.mark.parametrize(
    ("document", "about", "words"),
    [
        ({"transfer": "shared"}, {}, "pods share no memory"),
        ({"router": {"kv_events": True}}, {}, "stay inside a machine"),
        ({"router": {"router_workers": 2}}, {}, "use replicas"),
        (MATH | TWO, {"gpu_gib": 80.0, "gpus_per_node": 1}, "say --lws"),
        (MATH | {"prefill": {"tp": 2}, "decode": {"tp": 2}}, {"gpu_gib": 80.0, "gpus": 2, "gpus_per_node": 1}, "share"),
    ],
)
def test_what_pods_cannot_do_is_refused(zoo: Path, document: dict[str, Any], about: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        objects_of(zoo, document, about)


def test_a_router_without_a_key_is_refused_unless_asked_for(zoo: Path) -> None:
    with pytest.raises(UsageError, match="make a key"):
        objects_of(zoo, MATH, {}, NO_KEYS)
    config = router_of(objects_of(zoo, MATH | {"router": {"insecure": True}}, {"namespace": "team"}, NO_KEYS))
    assert config["allowed_hosts"] == ["psserve", "psserve.team", "psserve.team.svc", "psserve-routers"]


def test_a_base_outside_the_zoo_is_refused(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    manifest = (zoo / "zoo.toml").read_text().replace('source = "base"', f'source = "{zoo / "base"}"')
    (tmp_path / "zoo" / "zoo.toml").write_text(manifest)
    (tmp_path / "zoo" / "modules").symlink_to(zoo / "modules")
    with pytest.raises(PlanError, match="copy it into the zoo's folder"):
        objects_of(tmp_path / "zoo", MATH, {})


def test_names_are_labels_of_dns_and_never_the_same() -> None:
    cluster = Cluster(image=IMAGE)
    names = [
        cluster.name_of(part) for part in ("decode-a_b", "decode-a.b", "decode-A-b", "decode-a-b", "decode-" + "x" * 99)
    ]
    assert len(set(names)) == len(names)
    assert names[3] == "psserve-decode-a-b"
    assert all(len(name) <= LONGEST_NAME and name.replace("-", "").isalnum() and name == name.lower() for name in names)
