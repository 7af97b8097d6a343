"""The base reads all of a prompt but its last token."""

from __future__ import annotations

from array import array
from types import SimpleNamespace

import pytest

from psserve.engine.handover import prefill


@pytest.mark.parametrize(("prompt", "read"), [([7, 3, 5], [7, 3]), ([7, 3], [7]), ([7], [7]), (None, None)])
def test_the_base_gets_a_prompt_without_its_last_token(prompt: list[int] | None, read: list[int] | None) -> None:
    (hook,) = prefill.hooks()
    received = SimpleNamespace(input_ids=None if prompt is None else array("q", prompt))
    assert hook.function(object(), received) is None  # SGLang goes on with the same arguments
    assert received.input_ids == (None if read is None else array("q", read))
