from __future__ import annotations

import json

import pytest

from psserve.bench.machine import describe, slug


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-80gb-hbm3"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("../../etc/passwd", "etc-passwd"),
        ("NVIDIA", "unknown"),
    ],
)
def test_a_slug_is_fit_for_a_file_name(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_the_description_is_json_and_names_psserve() -> None:
    assert json.loads(json.dumps(describe()))["psserve"]
