"""How long answers will be: clients ask for many more tokens than most answers have."""

from __future__ import annotations

START_TOKENS = 512.0
MARGIN = 2.0
MEMORY = 32
"""About so many answers are remembered."""


class Outputs:
    """Running mean of the tokens that a module's answers had."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}

    def expected(self, module: str, limit: int) -> int:
        """Tokens to make room for, of the `limit` that a request asks for: MARGIN times the mean."""
        return min(limit, round(MARGIN * self._means.get(module, START_TOKENS)))

    def learn(self, module: str, tokens: float) -> None:
        """An answer of the module had so many."""
        mean = self._means.get(module, START_TOKENS)
        self._means[module] = mean + (tokens - mean) / MEMORY
