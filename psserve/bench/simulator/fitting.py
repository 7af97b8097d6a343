"""Least squares on relative errors: what a millisecond is off counts by what it is a part of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np


@dataclass(frozen=True)
class Fit:
    """seconds = sum(coefficients * terms), with no coefficient below 0: more work never takes less time."""

    terms: tuple[str, ...]
    coefficients: tuple[float, ...]
    residuals: tuple[float, ...]
    """(predicted - measured) / measured, of each point in order."""

    @property
    def error_pct(self) -> float:
        """Mean of the residuals' sizes."""
        return round(100 * float(np.mean(np.abs(self.residuals))), 2)

    @property
    def worst_pct(self) -> float:
        return round(100 * float(np.max(np.abs(self.residuals))), 2)


def fit(terms: tuple[str, ...], rows: Sequence[Sequence[float]], seconds: Sequence[float]) -> Fit:
    """The best coefficients for `rows` (one value a term) that took `seconds` (above 0), each weighted 1 / seconds."""
    measured = np.asarray(seconds, dtype=float)
    weighted = np.asarray(rows, dtype=float) / measured[:, None]
    best = np.zeros(len(terms))
    best_error = np.inf
    for count in range(1, len(terms) + 1):
        for used in combinations(range(len(terms)), count):
            tried = np.zeros(len(terms))
            tried[list(used)] = np.linalg.lstsq(weighted[:, used], np.ones(len(measured)), rcond=None)[0]
            error = float(np.sum((weighted @ tried - 1) ** 2))
            if (tried >= 0).all() and error < best_error * (1 - 1e-9):
                best, best_error = tried, error
    return Fit(terms, tuple(map(float, best)), tuple(map(float, weighted @ best - 1)))
