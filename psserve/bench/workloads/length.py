"""Lengths in tokens (or numbers of turns), fixed or drawn for each use."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass

from psserve.errors import UsageError

_FORM = re.compile(r"(\d+)(?:-(\d+)|~(\d+(?:\.\d+)?))?")
MOST = 10_000_000


@dataclass(frozen=True)
class Length:
    """From `low` to `high`, all equally likely; or, with a `sigma`, lognormal with the mean `low`."""

    low: float
    high: float
    sigma: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Length:
        """`512`: always; `256-768`: in this range; `512~0.5`: lognormal with this mean and sigma. Raises UsageError."""
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"length {text!r}: give N, LOW-HIGH, or MEAN~SIGMA, as in 512, 256-768, 512~0.5")
        low = float(match[1])
        made = cls(low, float(match[2] or low), float(match[3] or 0))
        if made.high < made.low or made.high > MOST or made.sigma > 3:
            raise UsageError(f"length {text!r}: the second number must not be below the first, no sigma above 3")
        return made

    def draw(self, rng: random.Random) -> int:
        """One length: at least 1, or always 0."""
        if self.high == 0:
            return 0
        if self.sigma:
            return max(1, round(rng.lognormvariate(math.log(self.low) - self.sigma**2 / 2, self.sigma)))
        return max(1, round(rng.uniform(self.low, self.high)))

    def scaled(self, factor: float) -> Length:
        """The same, `factor` times as long."""
        return Length(self.low * factor, self.high * factor, self.sigma)

    def __str__(self) -> str:
        if self.sigma:
            return f"{self.low:g}~{self.sigma:g}"
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g}-{self.high:g}"
