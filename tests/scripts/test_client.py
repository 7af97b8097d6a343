from __future__ import annotations

import random

from scripts.measuring.client import random_ids


def test_random_ids_are_no_special_tokens() -> None:
    ids = random_ids(random.Random(0), 2_000, 64)
    assert (min(ids), max(ids), len(ids)) == (16, 63, 2_000)
