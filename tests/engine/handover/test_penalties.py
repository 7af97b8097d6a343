"""Only what the module emitted is penalised."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from psserve.engine.handover.penalties import cumulate_emitted_tokens_only

VOCAB = 8


class Penalizer:
    """Counts tokens as SGLang's frequency penalizer does: [requests, vocabulary]."""

    def __init__(self, rows: int) -> None:
        self.cumulated_frequency_penalties = torch.zeros(rows, VOCAB)


def batch_of(*requests: SimpleNamespace) -> SimpleNamespace:
    orchestrator = SimpleNamespace(penalizers={Penalizer: Penalizer(len(requests))})
    return SimpleNamespace(reqs=list(requests), sampling_info=SimpleNamespace(penalizer_orchestrator=orchestrator))


def count_last_tokens(batch: SimpleNamespace) -> None:
    """What SGLang does: a request without output counts its prompt's last token."""
    counts = batch.sampling_info.penalizer_orchestrator.penalizers[Penalizer].cumulated_frequency_penalties
    for row, req in enumerate(batch.reqs):
        counts[row, (req.output_ids or req.origin_input_ids)[-1]] += 1


def counts(batch: SimpleNamespace) -> list[list[float]]:
    penalizers = batch.sampling_info.penalizer_orchestrator.penalizers
    return penalizers[Penalizer].cumulated_frequency_penalties.tolist()  # type: ignore[no-any-return]


def request(prompt: list[int], output: list[int]) -> SimpleNamespace:
    return SimpleNamespace(origin_input_ids=prompt, output_ids=output)


def test_the_prompts_last_token_is_not_counted() -> None:
    batch = batch_of(request([1, 2], []))
    cumulate_emitted_tokens_only(count_last_tokens, batch)
    assert counts(batch) == [[0.0] * VOCAB]


def test_emitted_tokens_are_counted_beside_fresh_requests() -> None:
    batch = batch_of(request([1, 2], []), request([1], [5]))
    cumulate_emitted_tokens_only(count_last_tokens, batch)
    assert counts(batch)[0] == [0.0] * VOCAB
    assert counts(batch)[1][5] == 1.0


def test_without_fresh_requests_sglang_is_left_alone() -> None:
    batch = batch_of(request([1], [5]))
    cumulate_emitted_tokens_only(count_last_tokens, batch)
    assert counts(batch)[0][5] == 1.0
