from __future__ import annotations

from pathlib import Path

import pytest

from psserve.demo.shipped import write_demo_zoo


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo zoo."""
    path = tmp_path_factory.mktemp("manifests") / "zoo"
    write_demo_zoo(path)
    return path
