"""Plans over several hosts."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.errors import PlanError
from psserve.fleet import FleetPlan, make_plan
from psserve.fleet.options.config_file import validated
from psserve.fleet.plan.adapters import AdapterRoom, check_shipped
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.host import LOCAL, Host, local_host
from psserve.fleet.plan.plan_module import plan_elsewhere, plan_module
from psserve.fleet.plan.ports import free_ports
from psserve.fleet.plan.show import gpu_share, idle_gpus
from psserve.fleet.plan.spec import ServerSpec
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.fleet.planning import CPU, GIB, SHELL, gpus, plan, value_of


@pytest.fixture
def zoo(tmp_path: Path) -> Any:
    return FakeZoo(tmp_path, FakeBase(tmp_path / "base"))


def hosts(*machines: Machine) -> tuple[Host, ...]:
    """a, b, ... at 10.0.0.1, 10.0.0.2, ..."""
    return tuple(
        Host(
            name="abc"[i],
            address=f"10.0.0.{i + 1}",
            nic=f"eth{i}",
            machine=machine,
            python=f"/{i}/bin/python",
            environ={"LC_ALL": str(i)},
            tmp=Path(f"/tmp/{i}"),
        )
        for i, machine in enumerate(machines)
    )


def planned(zoo: Any, over: tuple[Host, ...], **document: Any) -> FleetPlan:
    return make_plan(zoo, validated({"router": {"port": 0}} | document), hosts=over, environ=SHELL)


def test_this_machine_is_one_host_at_loopback(zoo: Any) -> None:
    made = plan(zoo)
    assert made.basis.hosts == (local_host(CPU, SHELL),)
    assert {server.host_name for server in made.servers} == {made.router.host_name} == {LOCAL}


def test_servers_listen_where_their_host_is_reached(zoo: Any) -> None:
    made = planned(zoo, hosts(CPU, CPU, CPU))
    assert [server.host_name for server in made.servers] == ["a", "b", "c"]
    for i, server in enumerate(made.servers):
        address = f"10.0.0.{i + 1}"
        assert value_of(server.command, "--host") == server.host == made.router.config.workers[i].host == address
        assert (server.env["SGLANG_HOST_IP"], server.env["UCX_NET_DEVICES"]) == (address, f"eth{i}")
        assert (server.env["GLOO_SOCKET_IFNAME"], server.env["NCCL_SOCKET_IFNAME"]) == ("lo", "lo")
        assert (server.command[0], server.env["LC_ALL"]) == (f"/{i}/bin/python", str(i))
        assert server.env["PATH"].startswith(f"/{i}/bin")
        assert (Path(server.env["TMPDIR"]).parent, server.rendezvous.parent.parent) == (Path(f"/tmp/{i}"),) * 2
    assert (made.router.host_name, made.router.host) == (LOCAL, "127.0.0.1")


def test_a_larger_host_gets_more_servers(zoo: Any) -> None:
    made = planned(zoo, hosts(CPU, replace(CPU, total_bytes=48 * GIB)), decode={"replicas": 3}, modules=["code"])
    assert [server.host_name for server in made.servers] == ["b", "a", "b", "b"]


def test_gpus_are_counted_on_each_host(zoo: Any) -> None:
    made = planned(zoo, hosts(gpus(2), gpus(3)), prefill={"replicas": 2}, modules=["math", "code"])
    slots = [(server.host_name, server.gpus) for server in made.servers]
    assert Counter(name for name, _ in slots) == {"a": 2, "b": 2}
    assert len(set(slots)) == len(slots)
    assert [gpu_share(made, server) for server in made.servers] == [pytest.approx(0.9, abs=0.01)] * 4
    assert len(idle_gpus(made)) == 1


def test_no_server_is_split_over_two_hosts(zoo: Any) -> None:
    zoo.base.path.mkdir()
    (zoo.base.path / "config.json").write_text('{"num_attention_heads": 4}')
    with pytest.raises(PlanError, match=r"no machine has room for prefill-0: a: no 2 neighbouring GPUs; b: no 2 neigh"):
        planned(zoo, hosts(gpus(1), gpus(1)), prefill={"tp": 2}, decode={"tp": 2})


def test_servers_split_otherwise_than_the_prefill_servers_are_named(zoo: Any) -> None:
    zoo.base.path.mkdir()
    (zoo.base.path / "config.json").write_text('{"num_attention_heads": 4}')
    said = "and prefill servers have tp = 2: .* give prefill and decode the same tp"
    with pytest.raises(PlanError, match=rf"^decode\.tp = 1, {said}"):
        planned(zoo, hosts(gpus(2), gpus(2)), prefill={"tp": 2})
    tables = {"prefill": {"tp": 2}, "decode": {"tp": 2}, "module": {"math": {"tp": 1}}}
    running = planned(zoo, hosts(gpus(2), gpus(2)), modules=["code"], **tables)
    with pytest.raises(PlanError, match=rf"^module\.math\.tp = 1, {said}"):
        plan_module(zoo, running, "math")


def all_but(left: Sequence[int]) -> frozenset[int]:
    return frozenset(range(1, 65536)).difference(left)


def ports_of(servers: Iterable[ServerSpec]) -> set[int]:
    """All that these were given."""
    nccl = (int(value_of(server.command, "--nccl-port")) for server in servers)
    given = (port for server in servers for port in (server.port, server.bootstrap_port) if port is not None)
    return {*nccl, *given}


def test_ports_are_free_on_all_hosts(zoo: Any) -> None:
    """One for the router, and three for each of two servers and of one more."""
    left = free_ports(10)
    a, b = hosts(CPU, CPU)
    running = planned(zoo, (a, replace(b, taken_ports=all_but(left))), modules=["code"])
    assert ports_of(running.servers) | {running.router.port} < set(left)
    (server,) = plan_module(zoo, running, "math").servers
    assert ports_of([server]) < set(left)
    assert server.port not in running.taken_ports - all_but(left)


def test_a_given_port_that_is_taken_on_its_host_is_named(zoo: Any) -> None:
    a, b = hosts(CPU, CPU)
    over = (a, replace(b, taken_ports=frozenset({4000})))
    with pytest.raises(PlanError, match=r"^module\.code\.ports\[0\]: port 4000 on b is taken; stop what listens there"):
        planned(zoo, over, modules=["code"], module={"code": {"ports": [4000]}})
    made = planned(zoo, over, modules=["code"], prefill={"ports": [4000]})
    assert (made.servers[0].host_name, made.servers[0].port) == ("a", 4000)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"transfer": "shared"}, "servers on a, b have no memory in common"),
        ({"router": {"kv_events": True}}, "events hold prompts and stay on one machine"),
        ({"decode": {"gpus": [0]}}, r"decode.gpus counts the GPUs of one machine"),
    ],
)
def test_what_one_machine_alone_can_do_is_refused(zoo: Any, document: Any, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        planned(zoo, hosts(CPU, CPU), **document)


def test_a_module_that_is_added_goes_where_most_room_is(zoo: Any) -> None:
    running = planned(zoo, hosts(CPU, CPU, CPU), modules=["code"])
    (server,) = plan_module(zoo, running, "math").servers
    assert (server.host_name, server.host, server.env["UCX_NET_DEVICES"]) == ("c", "10.0.0.3", "eth2")


def test_one_more_module_is_counted_with_the_servers_of_its_host(zoo: Any) -> None:
    running = planned(zoo, hosts(gpus(1), gpus(1)), modules=["code"], decode={"memory_fraction": 0.4})
    (server,) = plan_module(zoo, running, "math").servers
    beside = next(one for one in running.servers if one.host_name == server.host_name)
    assert server.memory.total_bytes + beside.memory.total_bytes <= 0.9 * 80 * GIB


def test_a_server_of_a_lost_host_goes_where_there_is_room(zoo: Any) -> None:
    running = planned(zoo, hosts(CPU, CPU, replace(CPU, total_bytes=48 * GIB)), modules=["code"])
    server = running.servers[0]
    assert (server.role, server.host_name) == ("prefill", "c")
    moved = plan_elsewhere(zoo, running, server, {"c"})
    assert (moved.name, moved.host_name, moved.host) == (server.name, "b", "10.0.0.2")
    assert (moved.memory, value_of(moved.command, "--host")) == (server.memory, "10.0.0.2")
    assert moved.bootstrap_port not in (None, server.bootstrap_port)
    again = plan_elsewhere(zoo, running, moved, {"b", "c"})
    assert (again.name, again.host_name) == (server.name, "a")


def test_a_server_of_a_lost_host_may_fit_nowhere(zoo: Any) -> None:
    running = planned(zoo, hosts(gpus(1), gpus(1)), modules=["code"])
    with pytest.raises(PlanError):
        plan_elsewhere(zoo, running, running.servers[0], {running.servers[0].host_name})
    with pytest.raises(PlanError, match="no other host is there for it"):
        plan_elsewhere(zoo, running, running.servers[0], {"a", "b"})


@pytest.fixture
def split_zoo(zoo: Any) -> Any:
    """Whose servers may be split over two GPUs."""
    zoo.base.path.mkdir()
    (zoo.base.path / "config.json").write_text('{"num_attention_heads": 4}')
    return zoo


TP2: dict[str, Any] = {"prefill": {"tp": 2}, "decode": {"tp": 2}}


def places(servers: Iterable[ServerSpec]) -> dict[str, str]:
    return {server.name: server.host_name for server in servers}


def test_servers_go_past_a_larger_host_that_has_too_few_gpus(split_zoo: Any) -> None:
    made = planned(split_zoo, hosts(gpus(1, 141), gpus(2, 24)), modules=["code"], **TP2)
    assert places(made.servers) == {"prefill-0": "b", "decode-code-0": "b"}


def test_a_server_goes_past_many_small_gpus_to_a_large_one(zoo: Any) -> None:
    """With 19 GiB of KV cache. The others are spread as ever."""
    module = {"code": {"kv_tokens": 40_000_000}}
    made = planned(zoo, hosts(gpus(8, 12), gpus(1, 40)), prefill={"replicas": 1}, module=module)
    assert places(made.servers) == {"prefill-0": "a", "decode-code-0": "b", "decode-math-0": "a"}


def test_a_lost_server_goes_past_a_host_without_room(zoo: Any) -> None:
    over = hosts(gpus(8, 12), gpus(1, 60), gpus(1, 80))
    decode = {"kv_tokens": 80_000_000}
    made = planned(zoo, over, prefill={"replicas": 1, "kv_tokens": 8192}, decode=decode, modules=["code"])
    server = made.servers[1]
    assert places(made.servers) == {"prefill-0": "a", "decode-code-0": "c"}
    assert plan_elsewhere(zoo, made, server, {"c"}).host_name == "b"


def test_a_module_that_is_added_goes_past_a_host_without_room(zoo: Any) -> None:
    tables = {"prefill": {"replicas": 1, "kv_tokens": 8192}, "decode": {"kv_tokens": 8192}}
    running = planned(zoo, hosts(gpus(8, 12), gpus(1, 60)), modules=["code"], **tables)
    large = validated(tables | {"module": {"math": {"kv_tokens": 40_000_000}}})
    assert places(plan_module(zoo, running, "math").servers) == {"decode-math-0": "a"}
    running = replace(running, basis=replace(running.basis, options=large))
    assert places(plan_module(zoo, running, "math").servers) == {"decode-math-0": "b"}


def test_what_each_host_lacks_is_told(zoo: Any) -> None:
    tables = {"prefill": {"replicas": 1}, "decode": {"kv_tokens": 40_000_000}}
    said = (
        r"^no machine has room for decode-code-0: a: GPU 0 has 18\.0 GiB to plan with, and 2\d\.\d GiB would .*; b: GPU"
    )
    with pytest.raises(PlanError, match=said):
        planned(zoo, hosts(gpus(1, 20), gpus(2, 2)), modules=["code"], **tables)


@settings(max_examples=60, deadline=None)
@given(
    machines=st.lists(st.builds(gpus, st.integers(1, 4), st.sampled_from([4, 12, 24, 80])), min_size=2, max_size=3),
    tp=st.sampled_from([1, 2]),
    kv_tokens=st.sampled_from([2048, 10**6, 2 * 10**7, 8 * 10**7]),
    replicas=st.integers(1, 2),
)
def test_what_fits_on_one_host_is_not_refused_on_several(
    machines: list[Machine], tp: int, kv_tokens: int, replicas: int
) -> None:
    tables = {"prefill": {"tp": tp, "replicas": replicas}, "decode": {"tp": tp, "kv_tokens": kv_tokens}}
    with tempfile.TemporaryDirectory() as folder:
        base = FakeBase(Path(folder) / "base")
        base.path.mkdir()
        (base.path / "config.json").write_text('{"num_attention_heads": 4}')
        zoo: Any = FakeZoo(Path(folder), base)
        over = hosts(*machines)
        if any(fits(zoo, (host,), **tables) for host in over):
            assert fits(zoo, over, **tables)


def fits(zoo: Any, over: tuple[Host, ...], **tables: Any) -> bool:
    try:
        planned(zoo, over, **tables)
    except PlanError:
        return False
    return True


def test_a_cluster_is_never_left_out_of_a_plan(zoo: Any) -> None:
    options = validated({"router": {"port": 0}, "cluster": {"kind": "ray", "private_network": True}})
    with pytest.raises(PlanError, match="cluster: this command plans for one machine"):
        make_plan(zoo, options, machine=CPU, environ=SHELL)
    made = make_plan(zoo, options, hosts=hosts(CPU), environ=SHELL)
    assert {server.host_name for server in made.servers} == {"a"}


CLUSTER = {"kind": "ray", "private_network": True}


def test_labels_say_where_servers_may_go(zoo: Any) -> None:
    a, b, c = hosts(CPU, CPU, CPU)
    over = (a, replace(b, labels={"rack": "1", "kind": "x"}), replace(c, labels={"rack": "2"}))
    tables = {"prefill": {"labels": {"rack": "2"}}, "module": {"code": {"labels": {"rack": "1", "kind": "x"}}}}
    made = planned(zoo, over, cluster=CLUSTER, modules=["code", "math"], **tables)
    assert {server.name: server.host_name for server in made.servers} == {
        "prefill-0": "c",
        "decode-code-0": "b",
        "decode-math-0": "a",
    }
    with pytest.raises(
        PlanError, match=r"prefill.labels = \{'rack': '2'\}: no machine for prefill-0 has them all, of a"
    ):
        plan_elsewhere(zoo, made, made.servers[0], {"c"})


def test_labels_nobody_has_are_refused(zoo: Any) -> None:
    with pytest.raises(PlanError, match=r"decode.labels = \{'rack': '9'\}: no machine for decode-code-0 has them all"):
        planned(zoo, hosts(CPU, CPU), cluster=CLUSTER, modules=["code"], decode={"labels": {"rack": "9"}})


def test_labels_without_a_cluster_are_refused(zoo: Any) -> None:
    with pytest.raises(PlanError, match=r"prefill.labels choose machines of a cluster, and there is no \[cluster\]"):
        plan(zoo, prefill={"labels": {"rack": "1"}})


def test_adapters_are_not_sent_and_so_refused(zoo: Any) -> None:
    options = validated({"cluster": CLUSTER | {"files": "ship"}})
    room = AdapterRoom(rank=8, targets=("q_proj",), in_batch=8, loaded=32, slot_bytes=0, loaded_bytes=0)
    check_shipped([None, None], options)
    check_shipped([None, room], validated({"cluster": CLUSTER}))
    with pytest.raises(PlanError, match="set own_server = true for each, or share the files"):
        check_shipped([None, room], options)


def test_kv_events_stay_on_the_routers_machine(zoo: Any) -> None:
    with pytest.raises(PlanError, match="events hold prompts and stay on the router's machine"):
        planned(zoo, hosts(CPU), cluster=CLUSTER, router={"port": 0, "kv_events": True})
