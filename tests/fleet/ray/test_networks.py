"""Where this machine is reached."""

from __future__ import annotations

from psserve.fleet.ray.networks import Reached, reached_at


def test_the_interface_is_that_of_rays_address() -> None:
    assert reached_at("127.0.0.1", None) == Reached("127.0.0.1", "lo")
    assert reached_at("127.0.0.7", None) == Reached("127.0.0.7", "lo")


def test_a_given_interface_that_has_rays_address_keeps_it() -> None:
    assert reached_at("127.0.0.7", "lo") == Reached("127.0.0.7", "lo")


def test_another_interface_has_an_address_of_its_own() -> None:
    assert reached_at("240.0.0.1", "lo") == Reached("127.0.0.1", "lo")


def test_what_cannot_be_is_said() -> None:
    assert str(reached_at("240.0.0.1", None)).startswith("no interface has Ray's address 240.0.0.1: set nic to one of ")
    assert str(reached_at("127.0.0.1", "eth77")).startswith("it has no interface eth77 with an IPv4 address, but ")
