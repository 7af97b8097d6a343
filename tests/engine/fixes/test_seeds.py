"""Seeds, with SGLang's own sampler and batches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from psserve.engine.fixes import seeds
from psserve.engine.fixes.seeds import NO_SEED, chosen
from tests.engine.hooked import hooked

VOCAB = 50
PROBS = torch.softmax(torch.linspace(0, 4, VOCAB), 0)


def batch(*given: int | None, top_k: int = VOCAB, top_p: float = 1.0, min_p: float = 0.0) -> Any:
    """SGLang's sampling of a batch whose requests have these seeds."""
    from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo

    count = len(given)
    held = [NO_SEED if seed is None else seed for seed in given]
    return SamplingBatchInfo(
        temperatures=torch.ones(count, 1),
        top_ps=torch.full((count,), top_p),
        top_ks=torch.full((count,), top_k, dtype=torch.int32),
        min_ps=torch.full((count,), min_p),
        sampling_seed=torch.tensor(held) if any(seed is not None for seed in given) else None,
        is_all_greedy=False,
        is_any_greedy=False,
        need_top_p_sampling=False,
        need_top_k_sampling=False,
        need_min_p_sampling=False,
        vocab_size=VOCAB,
        device="cpu",
        penalizer_orchestrator=SimpleNamespace(merge=lambda other: None, filter=lambda keep: None, is_required=False),
    )


def sample(info: Any, positions: list[int]) -> list[int]:
    from sglang.srt.layers.sampler import Sampler

    sampler = SimpleNamespace(enable_deterministic=False)
    probs = PROBS.repeat(len(positions), 1)
    sampled = Sampler._sample_from_probs(sampler, probs, info, torch.tensor(positions), simple_sampling_case=True)
    tokens, captured = sampled if isinstance(sampled, tuple) else (sampled, None)  # a pair since SGLang 0.5.21
    assert captured is None
    assert torch.equal(probs, PROBS.repeat(len(positions), 1))  # log-probabilities are read from it afterwards
    return list(tokens.tolist())


@pytest.fixture(autouse=True)
def _hooked() -> Any:
    with hooked(seeds.hooks()):
        yield


def test_a_seed_decides_whoever_shares_the_batch() -> None:
    alone = [sample(batch(7), [position])[0] for position in range(40)]
    assert len(set(alone)) > 10
    for position, token in enumerate(alone):
        assert sample(batch(None, 7, 8), [3, position, position])[1] == token
        assert sample(batch(7, 7), [position, position]) == [token, token]


def test_other_seeds_give_other_tokens() -> None:
    answers = {tuple(sample(batch(*[seed] * 20), list(range(20)))) for seed in (0, 1, 2, -1, 2**32, 2**62)}
    assert len(answers) == 6


def test_who_has_no_seed_is_sampled_as_ever() -> None:
    torch.manual_seed(0)
    stock = sample(batch(None, None, None), [5, 5, 5])
    torch.manual_seed(0)
    mixed = sample(batch(None, 7, None), [5, 5, 5])
    assert (mixed[0], mixed[2]) == (stock[0], stock[2])


def test_tokens_of_many_seeds_are_distributed_as_asked() -> None:
    count = 20_000
    tokens = chosen(PROBS.repeat(count, 1), batch(*range(count)), torch.full((count,), 9))
    frequencies = torch.bincount(tokens, minlength=VOCAB) / count
    assert (frequencies - PROBS).abs().max() < 4 * (PROBS.max() / count).sqrt()


@pytest.mark.parametrize(("limits", "least"), [({"top_k": 3}, 47), ({"top_p": 0.2}, 47), ({"min_p": 0.75}, 46)])
def test_limits_hold(limits: dict[str, Any], least: int) -> None:
    drawn = {sample_limited(seed, limits) for seed in range(200)}
    assert drawn == set(range(least, VOCAB))


def sample_limited(seed: int, limits: dict[str, Any]) -> int:
    return int(chosen(PROBS.view(1, -1), batch(seed, **limits), torch.tensor([4])))


def test_what_a_grammar_forbids_is_never_drawn() -> None:
    masked = torch.zeros(1, VOCAB)
    masked[0, [4, 40]] = 0.5
    drawn = {int(chosen(masked, batch(seed), torch.tensor([1]))) for seed in range(50)}
    assert drawn == {4, 40}


def test_seeds_go_along_when_batches_merge_and_shrink() -> None:
    for one, other in ((batch(None), batch(7, None)), (batch(7, None), batch(None)), (batch(1), batch(2))):
        held = [seed for info in (one, other) for seed in of(info)]
        one.merge_batch(other)
        assert of(one) == held
    one.filter_batch([1], torch.tensor([1]))
    assert of(one) == [2]


def of(info: Any) -> list[int]:
    return [NO_SEED] * len(info) if info.sampling_seed is None else info.sampling_seed.tolist()


def test_batches_without_seeds_stay_without() -> None:
    one = batch(None)
    one.merge_batch(batch(None))
    assert one.sampling_seed is None
