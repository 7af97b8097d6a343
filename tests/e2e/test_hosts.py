"""One fleet over three hosts, which are namespaces with a network, processes and shared memory of their own."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from tests.e2e.client import agent_sessions, client_of, random_ids
from tests.e2e.fleet import RunningFleet
from tests.e2e.hosts_fleet import FIRST_PORT, Wrong, launched_over, preflights
from tests.e2e.oracle import Oracle
from tests.e2e.transfer import copies_alone
from tests.e2e.watching import ask, await_whole, check, error_of, kept_whole, workers
from tests.hosts import Lan, lan
from tests.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.e2e, copies_alone("hosts have no memory in common")]

MODULES = ("alpha", "beta")
HOSTS = {"prefill-0": "b", "decode-alpha-0": "c", "decode-beta-0": "d"}
PROMPT = list(range(100, 140))
NOT_OURS = "10.77.0.99"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    with lan(tmp_path_factory.mktemp("lan"), sorted(HOSTS.values())) as made:
        yield made


@pytest.fixture(scope="module")
def zoo(zoo_of: Callable[[Architecture], Zoo]) -> Zoo:
    return zoo_of("qwen3")


@pytest.fixture(scope="module")
def oracle(oracle_of: Callable[[Architecture], Oracle]) -> Oracle:
    return oracle_of("qwen3")


@pytest.fixture(scope="module")
def shared_fleet(net: Lan, zoo: Zoo) -> Iterator[RunningFleet]:
    with launched_over(net, zoo.path) as fleet:
        yield fleet


@pytest.fixture
def fleet(shared_fleet: RunningFleet, oracle: Oracle) -> Iterator[RunningFleet]:
    """The fleet, whole before the test and after it, when every module must answer exactly."""
    with kept_whole(shared_fleet, oracle, {module: [PROMPT] for module in MODULES}):
        yield shared_fleet


def states(fleet: RunningFleet) -> dict[str, str]:
    """What the supervisor says of each server."""
    servers = json.loads((fleet.zoo / ".run" / "state.json").read_text())["servers"]
    return {server["name"]: server["state"] for server in servers}


async def test_two_hundred_answers_are_exact_and_their_kv_is_on_the_wire(
    fleet: RunningFleet, net: Lan, zoo: Zoo, oracle: Oracle
) -> None:
    base = zoo.base
    token_bytes = 2 * base.num_layers * base.num_kv_heads * base.head_dim * 4
    rng = random.Random(21)
    fresh = [(MODULES[i % 2], random_ids(rng, rng.randrange(2, 300))) for i in range(120)]
    async with client_of(fleet.url) as client:
        before = net.hosts["b"].sent()
        for i in range(0, len(fresh), 8):
            await asyncio.gather(*(client.check(oracle, module, prompt, 8) for module, prompt in fresh[i : i + 8]))
        sent = net.hosts["b"].sent() - before
        asked = await agent_sessions(client, oracle, MODULES, sessions=8, turns=10, max_tokens=8)
    assert len(fresh) + asked >= 200
    assert sent >= 0.9 * token_bytes * sum(len(prompt) - 1 for _, prompt in fresh)


def test_hosts_listen_at_their_address_alone(fleet: RunningFleet, net: Lan) -> None:
    for server, most in (("prefill-0", 5), ("decode-alpha-0", 4), ("decode-beta-0", 4)):
        host = net.hosts[HOSTS[server]]
        found = host.listeners()
        assert {address for address, _ in found} == {host.address}
        assert 0 < len(found) <= most, (server, found)


def test_settings_that_do_not_fit_their_host_are_named(
    fleet: RunningFleet, net: Lan, zoo: Zoo, record_property: Callable[[str, object], None]
) -> None:
    """`b does not reach c` and the like may be said beside it: of a machine that is busy."""
    why = "Cannot assign requested address"
    other = {"SGLANG_HOST_IP": NOT_OURS}
    expected = [
        (Wrong("prefill-0", host=NOT_OURS), f"b: --host: cannot listen on {NOT_OURS}:{FIRST_PORT}: {why}"),
        (Wrong("decode-alpha-0", env=other), f"c: SGLANG_HOST_IP={NOT_OURS}: cannot listen on {NOT_OURS}: {why}"),
        (
            Wrong("decode-alpha-0", env={"UCX_NET_DEVICES": "eth7"}),
            "c: UCX_NET_DEVICES=eth7: there is no such interface",
        ),
        (Wrong("prefill-0", env={"UCX_NET_DEVICES": "lo"}), "c does not reach b: UCX_NET_DEVICES=lo: 127.0.0.1:"),
    ]
    found = preflights(net, zoo.path, [wrong for wrong, _ in expected])
    for finding, (_, said) in zip(found, expected, strict=True):
        assert said in finding.error
        record_property("named after", finding.seconds)


def test_a_client_hears_when_the_cable_is_cut_under_its_stream(
    fleet: RunningFleet, net: Lan, oracle: Oracle, record_property: Callable[[str, object], None]
) -> None:
    stream = ask(fleet, "beta", PROMPT, stream=True, max_tokens=4000, ignore_eos=True, within_s=PATIENCE_S)
    lines = stream.iter_lines()
    assert next(lines).startswith(b"data: ")
    cut = time.monotonic()
    net.unplug("d")
    try:
        events = [line.removeprefix(b"data: ") for line in lines if line]
        record_property("heard after", time.monotonic() - cut)
        assert json.loads(events[-1])["error"]["code"] == "upstream_error"
        until(lambda: workers(fleet)["decode-beta-0"]["state"] != "ready")
        error_of(ask(fleet, "beta", PROMPT))
        check(fleet, oracle, "alpha", PROMPT)
    finally:
        net.plug("d")
    mended = time.monotonic()
    until(lambda: workers(fleet)["decode-beta-0"]["state"] == "ready")
    record_property("ready after", time.monotonic() - mended)
    check(fleet, oracle, "beta", PROMPT)


def lose_host_of(server: str, fleet: RunningFleet, net: Lan) -> None:
    """Switch its host off until the supervisor has noticed, and on until it starts the server again."""
    net.switch_off(HOSTS[server])
    until(lambda: states(fleet)[server] == "lost")
    assert ask(fleet, "alpha", PROMPT).status_code in (502, 503)
    net.switch_on(HOSTS[server])
    until(lambda: states(fleet)[server] == "starting")


def test_a_host_that_is_lost_ten_times_has_its_server_back(
    fleet: RunningFleet, net: Lan, oracle: Oracle, record_property: Callable[[str, object], None]
) -> None:
    for _ in range(10):
        lose_host_of("decode-alpha-0", fleet, net)
    returned = time.monotonic()
    await_whole(fleet)
    record_property("ready after", time.monotonic() - returned)
    check(fleet, oracle, "alpha", random_ids(random.Random(5), 100))


def test_the_prefill_servers_host_can_be_lost(fleet: RunningFleet, net: Lan, oracle: Oracle) -> None:
    lose_host_of("prefill-0", fleet, net)
    await_whole(fleet)
    for module in MODULES:
        check(fleet, oracle, module, random_ids(random.Random(module), 100))


def test_no_server_outlives_the_supervisor(shared_fleet: RunningFleet, net: Lan) -> None:
    """The last test here: it ends the fleet."""
    assert all(host.processes() for host in net.hosts.values())
    os.kill(shared_fleet.supervisor, signal.SIGKILL)
    until(lambda: not any(host.processes() for host in net.hosts.values()))


@pytest.mark.long
async def test_a_server_in_two_halves_on_two_hosts_is_exact(
    shared_fleet: RunningFleet, net: Lan, zoo: Zoo, oracle: Oracle
) -> None:
    """Launched where a supervisor has just been killed."""
    rng = random.Random(2)
    with launched_over(net, zoo.path, split=True) as fleet:
        async with client_of(fleet.url) as client:
            for _ in range(6):
                await client.check(oracle, "alpha", random_ids(rng, rng.randrange(2, 200)), 16)
