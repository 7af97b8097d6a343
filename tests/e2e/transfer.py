"""What moves KV in the fleets under test: NIXL, or with PSSERVE_TEST_TRANSFER=shared nothing, over one KV pool.

`auto` would be the second on a CPU: the suites say which, so that each of the two runs them all. Fleets that name their
`--transfer` themselves keep it; test_demo_zoo.py's is as a user launches it. What another transfer rules out by its
design is skipped, and says why.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

TRANSFER = os.environ.get("PSSERVE_TEST_TRANSFER", "nixl")
IS_SHARED = TRANSFER == "shared"
"""Whether decode servers read prompts in the prefill server's pool."""


def with_transfer(arguments: Sequence[str]) -> tuple[str, ...]:
    """The arguments of a launch, before which the transfer under test is named unless they name one."""
    return tuple(arguments) if "--transfer" in arguments else ("--transfer", TRANSFER, *arguments)


def copies_alone(reason: str) -> pytest.MarkDecorator:
    """Skip where decode servers keep no copy of the base's KV, which makes a test's question meaningless."""
    return pytest.mark.skipif(IS_SHARED, reason=f"--transfer shared: {reason}")


def shared_alone(reason: str) -> pytest.MarkDecorator:
    """Run only there."""
    return pytest.mark.skipif(not IS_SHARED, reason=f"PSSERVE_TEST_TRANSFER=shared alone: {reason}")
