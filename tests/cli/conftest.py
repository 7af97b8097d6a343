"""Fixtures: one synthetic zoo a session (read only), and copies of it that a test may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from psserve.zoo import Zoo
from psserve.zoo.synthetic.zoo import build_zoo
from tests.router.conftest import fleet, make_fleet

__all__ = ["fleet", "make_fleet"]


@pytest.fixture(scope="session")
def session_zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return build_zoo(tmp_path_factory.mktemp("zoo") / "zoo", modules=("alpha", "beta"))


@pytest.fixture
def zoo(session_zoo: Zoo, tmp_path: Path) -> Zoo:
    """A zoo of the test's own: base, alpha, beta, both naive."""
    return Zoo.open(shutil.copytree(session_zoo.path, tmp_path / "zoo"))


@pytest.fixture
def other(zoo: Zoo, tmp_path: Path) -> Path:
    """Weights of beta as a checkpoint."""
    shutil.copytree(zoo.base.path, tmp_path / "other")
    shutil.copytree(zoo.module("beta").path, tmp_path / "other", dirs_exist_ok=True)
    (tmp_path / "other" / "module.toml").unlink()
    return tmp_path / "other"
