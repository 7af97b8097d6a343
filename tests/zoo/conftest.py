"""Fixtures: one synthetic zoo a session (read only), and copies of it or of its base that a test may damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from psserve.zoo import Zoo
from psserve.zoo.synthetic.quantised import CONFIGS, write_quantised
from psserve.zoo.synthetic.zoo import build_zoo

Edit = Callable[[str, Callable[[dict[str, Any]], None]], None]


@pytest.fixture(scope="session")
def session_zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return build_zoo(tmp_path_factory.mktemp("zoo") / "zoo", "qwen3", modules=("alpha", "beta"))


@pytest.fixture
def zoo(session_zoo: Zoo, tmp_path: Path) -> Zoo:
    """A zoo of the test's own: base, alpha, beta."""
    return Zoo.open(shutil.copytree(session_zoo.path, tmp_path / "zoo"))


@pytest.fixture
def checkpoint(session_zoo: Zoo, tmp_path: Path) -> Path:
    """A checkpoint directory that fits the base, to be changed."""
    return shutil.copytree(session_zoo.base.path, tmp_path / "checkpoint")


@pytest.fixture
def edit(checkpoint: Path) -> Edit:
    """`edit("config.json", change)`: change a JSON file of `checkpoint`."""

    def edit_json(name: str, change: Callable[[dict[str, Any]], None]) -> None:
        document = json.loads((checkpoint / name).read_text())
        change(document)
        (checkpoint / name).write_text(json.dumps(document))

    return edit_json


@pytest.fixture(scope="session")
def quantised(session_zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """One copy of the base for each way of quantising that can be served. Not to be changed."""
    directory = tmp_path_factory.mktemp("quantised")
    return {name: write_quantised(session_zoo.base.path, directory / name, config) for name, config in CONFIGS.items()}
