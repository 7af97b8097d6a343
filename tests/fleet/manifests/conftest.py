from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleet.manifests.cases import write_zoo


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo zoo, and two adapters."""
    path = tmp_path_factory.mktemp("manifests") / "zoo"
    write_zoo(path)
    return path
