"""Ports."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from psserve.errors import PlanError
from psserve.fleet.options.options import RouterOptions
from psserve.fleet.plan import ports


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        yield taken


def test_free_ports_differ_and_can_be_bound() -> None:
    found = ports.free_ports(20)
    assert len(set(found)) == 20
    assert all(ports.is_free(port) for port in found)


def test_free_ports_lie_outside_the_ephemeral_range() -> None:
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        low, high = map(int, file.read().split())
    assert not any(low <= port <= high for port in ports.free_ports(20))


def test_taken_port_is_not_free(listener: socket.socket) -> None:
    assert not ports.is_free(listener.getsockname()[1])


def test_free_ports_avoid_those_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_range", lambda: (20_000, 20_003))
    monkeypatch.setattr(ports, "is_free", lambda port: True)
    assert sorted(ports.free_ports(2, taken=frozenset({20_001}))) == [20_000, 20_002]


def test_free_ports_are_neighbours_as_far_as_they_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_range", lambda: (20_000, 21_000))
    monkeypatch.setattr(ports, "is_free", lambda port: port % 10 > 1)
    monkeypatch.setattr(ports.random, "randrange", lambda low, high: high - 3)
    assert ports.free_ports(5) == [20_997, 20_998, 20_999, 20_002, 20_003]


def test_too_few_free_ports_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_range", lambda: (20_000, 20_002))
    monkeypatch.setattr(ports, "is_free", lambda port: True)
    with pytest.raises(PlanError, match="only 2 of 3 free ports in 20000-20001"):
        ports.free_ports(3)


def test_fixed_port_that_is_taken_is_named(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(PlanError, match=f"--port: port {port} on 127.0.0.1 is taken; "):
        ports.require_free(port, "127.0.0.1", "--port")


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """A user without rights, for the kernel."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    if user == 0:
        os.seteuid(user)


@pytest.mark.usefixtures("unprivileged")
def test_a_port_that_the_user_may_not_use_is_not_called_taken() -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
        pytest.skip("here anybody may use it")
    with pytest.raises(PlanError, match=r"--port: port 80 on 127\.0\.0\.1 may not be used by this user; give another"):
        ports.require_free(80, "127.0.0.1", "--port")


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "nowhere.invalid", "no..name"])
def test_an_address_of_another_machine_or_of_none_is_named(host: str) -> None:
    with pytest.raises(PlanError, match=rf"^router\.host \(--host\): {re.escape(host)} is no address of this machine"):
        ports.fleet_ports(RouterOptions(host=host), [], [])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_an_address_of_this_machine_will_do(host: str) -> None:
    assert ports.fleet_ports(RouterOptions(host=host, port=0), [], [])[1] == []
