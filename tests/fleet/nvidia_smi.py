"""An nvidia-smi that says what a test wants."""

from __future__ import annotations

from pathlib import Path

import pytest

H100 = "GPU-aaaa, NVIDIA H100 80GB HBM3, 81559, 81000, 580.65.06, Default, 9.0, Disabled"
"""A row without the GPU's number, as the newest query asks for it."""


def put_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, *rows: str, script: str | None = None) -> None:
    """Make nvidia-smi list these rows, or be this shell script, and let all GPUs be visible."""
    listing = "\n".join(f"{index}, {row}" for index, row in enumerate(rows))
    folder.mkdir(parents=True, exist_ok=True)
    tool = folder / "nvidia-smi"
    tool.write_text(script or f"#!/bin/sh\ncat <<'END'\n{listing}\nEND\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
