"""Requests go through a decode server of SGLang's own parts, and every answer is exact."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from psserve.engine.handover.differences import slots_of
from psserve.engine.handover.rule import last_prompt_token_hidden
from psserve.engine.handover.targets import PENALTY_COUNTERS
from tests.engine.handover.decode_server import BASE_SAMPLED, MODULE_LOGPROB, DecodeServer, expected

PROMPT = [7, 3, 5, 2, 9, 4, 8, 6, 1, 11, 13]
LONGER = [*PROMPT, 21, 22, 23, 24, 25, 26]


def whole_pages(tokens: Sequence[int], page_size: int) -> tuple[int, ...]:
    return tuple(tokens[: len(tokens) // page_size * page_size])


@pytest.mark.parametrize("length", range(2, 12))
def test_a_fresh_prompt_is_answered_exactly(server: DecodeServer, length: int) -> None:
    req = server.submit(PROMPT[:length], 6)
    server.run()
    assert list(req.output_ids) == expected(PROMPT[:length], 6)


def test_a_prompt_of_one_token_is_the_modules(server: DecodeServer) -> None:
    req = server.submit([7], 6)
    server.run()
    assert list(req.output_ids) == expected([7], 6)
    assert server.held() == {}


def test_kv_is_asked_for_all_but_the_last_token(server: DecodeServer) -> None:
    server.submit(PROMPT)
    server.preallocate()
    (entry,) = server.transfer_queue.queue
    assert len(entry.kv_receiver.pages) == -(-(len(PROMPT) - 1) // server.page_size)
    assert entry.req.kv.kv_allocated_len == len(PROMPT) - 1
    server.transfer()
    server.prebuild()


def test_a_prompt_as_large_as_the_pool_is_taken(server: DecodeServer) -> None:
    req = server.submit(range(129), 1)
    assert not server.queue._check_if_req_exceed_kv_capacity(req)  # 128 slots are enough for x[:-1]
    server.queue.queue.clear()


def test_whole_pages_of_the_bases_kv_enter_the_tree_at_the_start(server: DecodeServer) -> None:
    server.submit(PROMPT, 6)
    server.admit()
    assert list(server.held()) == [whole_pages(PROMPT[:-1], server.page_size)]
    server.finish()
    assert list(server.held()) == [whole_pages(PROMPT[:-1], server.page_size)]


def test_a_second_turn_gets_only_what_the_tree_lacks(server: DecodeServer) -> None:
    first = server.submit(PROMPT, 6)
    server.run()
    second = [*PROMPT, *first.output_ids, 30, 31]
    req = server.submit(second, 6)
    server.preallocate()
    held = len(whole_pages(PROMPT[:-1], server.page_size))
    assert server.transfer_queue.queue[0].kv_receiver.start == held
    server.transfer()
    server.prebuild()
    server.finish()
    assert list(req.output_ids) == expected(second, 6)


def test_the_last_token_is_not_matched_though_the_tree_holds_it(server: DecodeServer) -> None:
    server.submit(LONGER)
    server.run()
    shorter = LONGER[:9]  # at pages of 4 the tree holds all of it but the last
    req, at_a_page_end = server.submit(shorter, 6), server.submit(LONGER[:8], 6)
    server.run()
    assert list(req.output_ids) == expected(shorter, 6)
    assert list(at_a_page_end.output_ids) == expected(LONGER[:8], 6)


def test_cached_tokens_are_those_of_this_servers_tree(server: DecodeServer) -> None:
    for cached in (0, len(whole_pages(PROMPT[:-1], server.page_size))):
        req = server.submit(PROMPT, 1)
        server.preallocate()
        server.transfer(cached_tokens=99)  # the prefill server's count
        server.prebuild()
        assert (req.cached_tokens, req.cached_tokens_device) == (cached, cached)
        assert (req.cached_tokens_host, req.cached_tokens_storage) == (0, 0)
        server.finish()


def test_what_the_base_sampled_reaches_nobody(server: DecodeServer) -> None:
    req = server.submit(PROMPT, 3, return_logprob=True, top_logprobs_num=1)
    server.run()
    answer = expected(PROMPT, 3)
    assert BASE_SAMPLED not in req.output_ids
    assert req.logprob.output_token_logprobs_val == [MODULE_LOGPROB] * 3
    assert req.logprob.output_token_logprobs_idx == answer
    assert req.logprob.output_top_logprobs_val == [[MODULE_LOGPROB]] * 3
    assert req.logprob.output_top_logprobs_idx == [[token] for token in answer]


def test_a_thought_does_not_end_with_what_the_base_sampled(server: DecodeServer) -> None:
    req = server.submit(PROMPT, 3, require_reasoning=True)
    server.admit()
    assert (req.reasoning_tokens, req._is_reasoning_over) == (0, False)
    server.finish()
    assert (req.reasoning_tokens, req._is_reasoning_over) == (3, False)


def test_log_probabilities_of_named_tokens_are_the_modules(server: DecodeServer) -> None:
    req = server.submit(PROMPT, 1, return_logprob=True, token_ids_logprob=[5])
    server.preallocate()
    server.transfer()
    assert (req.logprob.output_token_ids_logprobs_val, req.logprob.output_token_ids_logprobs_idx) == ([], [])
    server.prebuild()
    server.abort(req)


def test_a_window_counts_from_the_whole_prompt_while_its_last_token_is_hidden(server: DecodeServer) -> None:
    lengths = []
    req = server.submit(PROMPT, 1)
    with last_prompt_token_hidden([req]):
        lengths.append(server.queue._pre_alloc_fill_len(req))
    lengths.append(server.queue._pre_alloc_fill_len(req))
    assert lengths == [len(PROMPT) - 1] * 2
    server.run()


@pytest.mark.parametrize("prompt", [PROMPT, PROMPT[:1]], ids=["many tokens", "one token"])
def test_a_transfer_that_is_another_requests_ends_its_request_alone(server: DecodeServer, prompt: list[int]) -> None:
    good, bad = server.submit(LONGER, 5), server.submit(prompt)
    server.preallocate()
    server.receive()
    server.metadata.bootstrap_room[server.transfer_queue.queue[1].metadata_buffer_index][0] = 99
    server.commit()
    assert bad.finished()
    assert server.waiting_queue == [good]
    server.prebuild()
    server.finish()
    assert list(good.output_ids) == expected(LONGER, 5)


def test_a_grammar_accepts_what_the_module_emits_and_no_prompt(server: DecodeServer) -> None:
    accepted: list[int] = []
    req = server.submit(PROMPT, 4)

    def is_terminated() -> bool:
        assert req.output_ids, "SGLang looks whether a request without output has finished"
        return False

    req.grammar = SimpleNamespace(
        accept_token=accepted.append, current_token=None, is_terminated=is_terminated, finished=False
    )
    server.run()
    assert accepted == list(req.output_ids) == expected(PROMPT, 4)


def test_nothing_is_said_before_the_first_token(server: DecodeServer) -> None:
    req = server.submit(PROMPT, 2, stream=True)
    server.admit()
    assert server.sent == []
    assert req.time_stats.decode_prebuilt_finish_time > 0
    server.step()
    assert [sent.rids for sent in server.sent] == [[req.rid]]


def test_a_request_that_is_aborted_before_its_first_token_ends_at_once(server: DecodeServer) -> None:
    req, other = server.submit(PROMPT), server.submit(LONGER, 6)
    server.preallocate()
    server.transfer()
    server.abort(req)
    server.prebuild()
    assert req.finished()
    assert req.kv is None or not req.kv.holds_kv
    assert [sent.rids for sent in server.sent] == [[req.rid]]
    assert server.running_batch.reqs == [other]
    server.finish()
    assert list(other.output_ids) == expected(LONGER, 6)


@pytest.mark.parametrize("steps", range(4))
def test_a_request_that_is_retracted_and_resumed_is_answered_exactly(server: DecodeServer, steps: int) -> None:
    req, other = server.submit(PROMPT, 6), server.submit(LONGER, 6)
    server.admit()
    for _ in range(steps):
        server.step()
    server.retract(req)
    server.step()
    server.resume()
    server.prebuild()
    server.finish()
    assert list(req.output_ids) == expected(PROMPT, 6)
    assert list(other.output_ids) == expected(LONGER, 6)


@pytest.mark.parametrize("steps", range(3))
def test_one_token_that_is_retracted_and_resumed_is_answered_exactly(server: DecodeServer, steps: int) -> None:
    req, other = server.submit([7], 6), server.submit(LONGER, 6)
    server.admit()
    for _ in range(steps):
        server.step()
    server.retract(req)
    server.resume()
    server.prebuild()
    server.finish()
    assert list(req.output_ids) == expected([7], 6)
    assert list(other.output_ids) == expected(LONGER, 6)


def test_a_batch_of_all_kinds_is_answered_exactly(server: DecodeServer) -> None:
    early = server.submit(PROMPT, 8)
    server.admit()
    server.step()
    server.retract(early)
    prompts = [[7], PROMPT[:5], LONGER, [8], [*PROMPT, 40]]
    requests = [server.submit(prompt, 8 - row) for row, prompt in enumerate(prompts)]
    server.preallocate()
    server.transfer()
    server.resume()
    server.prebuild()
    server.finish()
    assert list(early.output_ids) == expected(PROMPT, 8)
    for row, (req, prompt) in enumerate(zip(requests, prompts, strict=True)):
        assert list(req.output_ids) == expected(prompt, 8 - row)


def test_one_token_asks_for_kv_that_it_drops_since_no_prompt_may_be_empty(server: DecodeServer) -> None:
    req = server.submit([7])
    server.preallocate()
    assert len(server.transfer_queue.queue[0].kv_receiver.pages) == 1
    server.transfer()
    end = req.extend_range.end if hasattr(req, "extend_range") else req.extend_end
    assert slots_of(req).kv_committed_len == req.kv.kv_allocated_len == end == 0  # and drops it
    server.prebuild()


def test_a_request_whose_kv_is_computed_anew_goes_on_from_what_it_said(server: DecodeServer) -> None:
    req = server.submit(PROMPT, 6)
    server.admit()
    for _ in range(3):
        server.step()
    said = list(req.output_ids)
    server.restart(req)
    server.admit()
    server.finish()
    assert list(req.output_ids) == said + expected([*PROMPT, *said], 3)
    assert server.held() == {}


PENALTIES = {"frequency_penalty": 0.5, "presence_penalty": 0.25, "repetition_penalty": 1.5, "min_new_tokens": 3}


def counters(server: DecodeServer) -> dict[str, list[list[float]]]:
    """What SGLang's penalizers hold of each request."""
    penalizers = server.running_batch.sampling_info.penalizer_orchestrator.penalizers
    return {
        PENALTY_COUNTERS[f"{kind.__module__}.{kind.__name__}"]: getattr(
            penalizer, PENALTY_COUNTERS[f"{kind.__module__}.{kind.__name__}"]
        ).tolist()
        for kind, penalizer in penalizers.items()
    }


def test_penalties_count_what_the_module_said_and_no_prompt(server: DecodeServer) -> None:
    early = server.submit(PROMPT, 6, sampling=PENALTIES)
    server.admit()
    server.step()
    server.submit(LONGER, 6, sampling=PENALTIES)
    server.admit()
    server.step()
    (said, *_), found = early.output_ids, counters(server)
    assert found["len_output_tokens"] == [[1], [0]]
    for name, once in (("frequency", 0.5), ("presence", 0.25)):
        first, second = found[f"cumulated_{name}_penalties"]
        assert {token: count for token, count in enumerate(first) if count} == {said: once}
        assert set(second) == {0.0}
    first, second = found["cumulated_repetition_penalties"]
    assert {token for token, factor in enumerate(first) if factor != 1.0} == {said}
    assert set(second) == {1.0}


def test_requests_past_their_first_token_are_counted_as_sglang_does(server: DecodeServer) -> None:
    req = server.submit(PROMPT, 6, sampling=PENALTIES)
    server.admit()
    for _ in range(3):
        server.step()
    assert counters(server)["len_output_tokens"] == [[2]]
    row = counters(server)["cumulated_frequency_penalties"][0]
    assert sum(row) == 1.0
    assert all(row[token] for token in req.output_ids[:2])
