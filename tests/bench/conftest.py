"""The router's own fixtures: a real router in front of fake workers."""

from __future__ import annotations

from tests.router.conftest import fleet, make_fleet

__all__ = ["fleet", "make_fleet"]
