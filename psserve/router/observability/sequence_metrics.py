"""Metrics of sequences: where their time went, and whose KV they used. docs/metrics.md has the definitions."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from psserve.router.observability.buckets import LATENCY, PER_TOKEN
from psserve.router.observability.labelled import Counter, Histogram
from psserve.router.observability.sequence import SequenceRecord


class SequenceMetrics:
    """Part of a router's metrics. All are labelled by module."""

    def __init__(self, registry: CollectorRegistry, kv_token_bytes: int | None) -> None:
        """`kv_token_bytes`: size of one token's KV; None: not known, and no bytes are counted."""
        self._kv_token_bytes = kv_token_bytes

        def counter(name: str, help: str) -> Counter:
            return Counter(name, help, ["module"], registry=registry)

        def histogram(name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, help, ["module"], buckets=buckets, registry=registry)

        self._prefill = histogram(
            "psserve_prefill_seconds",
            "Legs sent to prefill answered: the prefill server's queue, the base's work, the KV transfer.",
            LATENCY,
        )
        self._first_step = histogram(
            "psserve_first_step_seconds",
            "Prefill answered to first output: the decode server's queue and the module's first step. Streams only.",
            LATENCY,
        )
        self._tpot = histogram(
            "psserve_tpot_seconds",
            "Time per output token after the first: first to last output over tokens. Streams only.",
            PER_TOKEN,
        )
        self.gap = histogram(
            "psserve_itl_seconds", "Between arrivals of output, a token or more each. Streams only.", PER_TOKEN
        )
        self._generated = counter("psserve_generation_tokens_total", "Output tokens of answered requests.")
        self._shared = counter(
            "psserve_shared_prefix_tokens_total",
            "Prompt tokens that the base had cached from another module's request.",
        )
        self._decode_cached = counter(
            "psserve_decode_cached_tokens_total", "Prompt tokens whose KV the decode server had itself."
        )
        self._moved = counter(
            "psserve_kv_transferred_tokens_total", "Prompt tokens whose KV went from a prefill to a decode server."
        )
        self._moved_bytes = counter(
            "psserve_kv_transferred_bytes_total",
            "The same times the bytes of one token's KV (whole pages may be sent).",
        )
        self.by_module = (
            *(self._prefill, self._first_step, self._tpot, self.gap, self._generated),
            *(self._shared, self._decode_cached, self._moved, self._moved_bytes),
        )

    def ended(self, module: str, sequences: Iterable[SequenceRecord], streamed: bool) -> None:
        """An answered request's sequences."""
        for sequence in sequences:
            self._times(module, sequence, streamed)
            self._tokens(module, sequence)

    def _times(self, module: str, sequence: SequenceRecord, streamed: bool) -> None:
        self._prefill.labels(module).observe(max(0.0, sequence.prefilled - sequence.started))
        if not streamed:
            return
        if sequence.first_output is not None:
            self._first_step.labels(module).observe(max(0.0, sequence.first_output - sequence.prefilled))
        if (seconds := sequence.seconds_per_token) is not None:
            self._tpot.labels(module).observe(seconds)

    def _tokens(self, module: str, sequence: SequenceRecord) -> None:
        self._generated.labels(module).inc(sequence.output_tokens)
        if sequence.is_first:
            self._shared.labels(module).inc(sequence.shared_tokens)
        self._decode_cached.labels(module).inc(sequence.decode_cached_tokens)
        self._moved.labels(module).inc(sequence.transferred_tokens)
        if self._kv_token_bytes is not None:
            self._moved_bytes.labels(module).inc(sequence.transferred_tokens * self._kv_token_bytes)
