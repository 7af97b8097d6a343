"""Fixtures: a synthetic zoo of each architecture and the models of its modules, built once a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from psserve.training.reference import ModelPair, load_pair
from psserve.zoo import Zoo
from psserve.zoo.synthetic.zoo import build_zoo


@pytest.fixture(scope="session", params=["qwen3", "llama"])
def zoo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return build_zoo(tmp_path_factory.mktemp("zoo") / "zoo", request.param, modules=("alpha", "beta"))


@pytest.fixture(scope="session")
def alpha(zoo: Zoo) -> ModelPair:
    return load_pair(zoo, "alpha")


@pytest.fixture(scope="session")
def beta(zoo: Zoo) -> ModelPair:
    return load_pair(zoo, "beta")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
