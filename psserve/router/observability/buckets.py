"""Histogram buckets, in seconds: SGLang's, so that panels fit both, and lower ones for prompts that are cached."""

from __future__ import annotations

LOW = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08)
LATENCY = (*LOW, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400, 600, 1200, 1800, 2400)
PER_TOKEN = (
    *(0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04),
    *(0.06, 0.08, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8),
)
