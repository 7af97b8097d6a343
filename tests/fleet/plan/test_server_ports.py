"""Ports that the options give, and free ones."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from psserve.errors import PlanError
from psserve.fleet.plan.ports import listened_at
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.fleet.planning import plan, value_of
from tests.ports import own_ports


@pytest.fixture
def zoo(tmp_path: Path) -> Any:
    return FakeZoo(tmp_path, FakeBase(tmp_path / "base"))


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_who_listens_is_seen_on_every_address(taken: int) -> None:
    with socket.create_server(("127.0.0.2", 0)) as other, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        found = listened_at()
        assert {taken, other.getsockname()[1]} < found
        assert silent.getsockname()[1] not in found


def test_given_ports_are_used(zoo: Any) -> None:
    a, b, c, d = own_ports(4)
    document = {"prefill": {"ports": [a], "bootstrap_ports": [b]}, "module": {"math": {"replicas": 2, "ports": [c, d]}}}
    made = plan(zoo, document=document)
    assert {server.name: server.port for server in made.servers if server.name != "decode-code-0"} == {
        "prefill-0": a,
        "decode-math-0": c,
        "decode-math-1": d,
    }
    assert made.servers[0].bootstrap_port == b
    assert value_of(made.servers[0].command, "--disaggregation-bootstrap-port") == str(b)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"router": {"port": 4000}, "prefill": {"ports": [4000]}},
            r"port 4000 is given twice, by router\.port \(--port\) and prefill\.ports\[0\]: change one of them",
        ),
        (
            {"prefill": {"replicas": 2, "ports": [4000, 4001], "bootstrap_ports": [4002, 4000]}},
            r"port 4000 is given twice, by prefill\.ports\[0\] and prefill\.bootstrap_ports\[1\]",
        ),
        ({"module": {"math": {"ports": [1]}, "code": {"ports": [1]}}}, r"by module\.code\.ports\[0\] and module\.math"),
    ],
)
def test_a_port_given_twice_is_refused(zoo: Any, document: dict[str, Any], message: str) -> None:
    port = document.get("router", {}).get("port", 0)
    with pytest.raises(PlanError, match=message):
        plan(zoo, document=document, router__port=port)


def test_a_port_that_is_taken_is_named(zoo: Any, taken: int) -> None:
    with pytest.raises(PlanError, match=rf"module\.math\.ports\[0\]: port {taken} on 127\.0\.0\.1 is taken"):
        plan(zoo, document={"module": {"math": {"ports": [taken]}}})
