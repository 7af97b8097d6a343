"""Zoos and references, built once a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from psserve.fleet.plan.sglang_args import OVERLAP_ON_CPU
from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from psserve.zoo.synthetic.zoo import build_zoo
from tests.e2e.adapter import add_adapter
from tests.e2e.forked_launch import start_importing
from tests.e2e.oracle import Oracle
from tests.e2e.own_settings import add_with_own_settings

MODULES = ("alpha", "beta", "gamma")


@pytest.fixture(scope="package", autouse=True)
def checked_trees() -> Iterator[None]:
    """Every server of every fleet ends, and with it a test, when its radix tree holds what it must not.

    Servers overlap scheduling and computing as they do on GPUs, unless a fleet's arguments say that they do not.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PSSERVE_CHECK_PURITY", "1")
        patch.setenv(OVERLAP_ON_CPU, "1")
        yield


@pytest.fixture(scope="package", autouse=True)
def _importing(checked_trees: None) -> None:
    start_importing()


@pytest.fixture(scope="session")
def zoo_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Architecture], Zoo]:
    """The session's synthetic zoo of an architecture. Llama's ties its output layer, but for one module; those
    of test_bases.py have two modules, of which the second is a LoRA adapter."""
    built: dict[Architecture, Zoo] = {}

    def build(architecture: Architecture) -> Zoo:
        if architecture not in built:
            directory = tmp_path_factory.mktemp(architecture)
            if architecture == "llama":
                zoo = build_zoo(directory / "zoo", architecture, modules=MODULES[:2], tie_word_embeddings=True)
                add_with_own_settings(zoo, MODULES[2], directory / "checkpoint")
            elif architecture == "qwen3":
                zoo = build_zoo(directory / "zoo", architecture, modules=MODULES)
            else:
                zoo = build_zoo(directory / "zoo", architecture, modules=MODULES[:1])
                add_adapter(zoo, MODULES[1], directory / "adapter")
            built[architecture] = zoo
        return built[architecture]

    return build


@pytest.fixture(scope="session")
def oracle_of(zoo_of: Callable[[Architecture], Zoo]) -> Callable[[Architecture], Oracle]:
    """The reference of that zoo."""
    loaded: dict[Architecture, Oracle] = {}

    def load(architecture: Architecture) -> Oracle:
        if architecture not in loaded:
            loaded[architecture] = Oracle(zoo_of(architecture))
        return loaded[architecture]

    return load


@pytest.fixture(autouse=True)
def recorded(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Iterator[None]:
    """Put what was compared into the report of a run (--junitxml), from which docs/bases.md is made."""
    yield
    if "served" in request.fixturenames:
        oracle: Oracle = request.getfixturevalue("served").oracle
        record_property("checked", oracle.checked)
        record_property("difference", oracle.difference)
