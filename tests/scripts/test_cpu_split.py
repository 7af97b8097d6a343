from __future__ import annotations

from scripts.measuring.cpu_split import by_kind


def test_processes_of_one_kind_are_added_up() -> None:
    seconds = {"prefill-0": 2.0, "decode-math-0": 1.0, "decode-code-0": 0.5, "router": 0.25}
    assert by_kind(seconds) == {"prefill": 2.0, "decode": 1.5, "front": 0.25}
    assert by_kind({"server-math": 1.0, "front": 0.5}) == {"prefill_and_decode": 1.0, "front": 0.5}
