"""A calibration for people: what was fitted, and what it is off by."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from psserve.bench.simulator.calibration import Calibration
from psserve.console import show, table


def show_calibration(calibration: Calibration, out: Console) -> None:
    """One line a piece of work, then how far it reaches."""
    show(table(("fitted", ">points", ">mean error", ">worst", "seconds"), _rows(calibration)), out)
    out.print(f"sessions up to {calibration.longest_tokens} tokens, twice the longest measured, may be simulated")


def _rows(calibration: Calibration) -> Iterable[tuple[str, ...]]:
    for name, fit in calibration.fits.items():
        terms = (f"{value:.3g} a {term}" for term, value in zip(fit.terms, fit.coefficients, strict=True))
        yield name, str(len(fit.residuals)), f"{fit.error_pct:.1f}%", f"{fit.worst_pct:.1f}%", " + ".join(terms)
