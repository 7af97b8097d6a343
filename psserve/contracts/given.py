"""Answers that a client gives, to hear how likely the module finds their tokens: what router and engine call them."""

from __future__ import annotations

GIVEN = "psserve_given"
"""Among SGLang's `custom_params`, which clients cannot send: the first tokens of an answer, which are not sampled."""
OPENING = "psserve_opening"
"""And how many tokens before the answer are the generation prompt."""
