"""A request's `seed` decides its tokens, whoever shares its batch.

SGLang follows seeds with --enable-deterministic-inference alone, which slows every request of a server. Here a batch
in which nobody gave a seed is sampled as ever. In one with seeds, those rows are chosen anew from the same
probabilities, by noise that depends on nothing but seed, position and token id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from psserve.engine.handover.sglang.scheduler import Batch, Sampler, SamplingInfo
from psserve.engine.hooks import Hook, Kind

if TYPE_CHECKING:
    import torch

NO_SEED = -(2**63)
"""In the row of a request without a seed; clients' seeds are larger (psserve/router/body/fields.py)."""
_LOW = 2**32 - 1


def _with_seeds(original: Callable[..., SamplingInfo], cls: type, batch: Batch, vocab_size: int) -> SamplingInfo:
    """AROUND `SamplingBatchInfo.from_schedule_batch`: fill `sampling_seed` where a request of the batch has one."""
    info = original(cls, batch, vocab_size)
    seeds = [req.sampling_params.sampling_seed for req in batch.reqs]
    if info.sampling_seed is None and any(seed is not None for seed in seeds):
        info.sampling_seed = _tensor([NO_SEED if seed is None else seed for seed in seeds], info)
    return info


def _merge(original: Callable[..., None], info: SamplingInfo, other: SamplingInfo) -> None:
    """AROUND `SamplingBatchInfo.merge_batch`, which joins the seeds of two batches where both have some."""
    for one, its_partner in ((info, other), (other, info)):
        if one.sampling_seed is None and its_partner.sampling_seed is not None:
            one.sampling_seed = _tensor([NO_SEED] * len(one.temperatures), one)
    original(info, other)


def _tensor(seeds: list[int], info: SamplingInfo) -> torch.Tensor:
    import torch

    return torch.tensor(seeds, dtype=torch.int64).to(info.temperatures.device, non_blocking=True)


def _sample(
    original: Callable[..., torch.Tensor | tuple[torch.Tensor, object]],
    sampler: Sampler,
    probs: torch.Tensor,
    sampling_info: SamplingInfo,
    positions: torch.Tensor,
    simple_sampling_case: bool,
) -> torch.Tensor | tuple[torch.Tensor, object]:
    """AROUND `Sampler._sample_from_probs`. Nothing here waits for a GPU. `probs` is [batch, vocabulary].

    Since SGLang 0.5.21 what it may have captured on the way comes with the tokens.
    """
    import torch

    seeds = sampling_info.sampling_seed
    if seeds is None or sampler.enable_deterministic:
        return original(sampler, probs, sampling_info, positions, simple_sampling_case)
    unseeded = replace(sampling_info, sampling_seed=None)  # type: ignore[type-var]  # a dataclass of SGLang's
    sampled = original(sampler, probs, unseeded, positions, simple_sampling_case)
    tokens, captured = sampled if isinstance(sampled, tuple) else (sampled, None)
    tokens = torch.where(seeds == NO_SEED, tokens, chosen(probs, sampling_info, positions).to(tokens.dtype))
    return (tokens, captured) if isinstance(sampled, tuple) else tokens


def chosen(probs: torch.Tensor, info: SamplingInfo, positions: torch.Tensor) -> torch.Tensor:
    """The seeds' token of each row, [batch]: the first of racing exponentials, among those that the limits leave.

    That is a draw from the distribution, since of independent exponential times with rates p the i-th is the smallest
    with probability p_i / sum(p). Top-k, top-p and min-p are taken of the same distribution, as SGLang's kernels do.
    """
    import torch

    ordered, tokens = probs.sort(dim=-1, descending=True, stable=True)
    ranks = torch.arange(probs.shape[-1], device=probs.device)
    kept = ranks < info.top_ks.view(-1, 1)
    kept &= ordered.cumsum(-1) - ordered <= info.top_ps.view(-1, 1)
    kept &= ordered >= ordered[:, :1] * info.min_ps.view(-1, 1)
    assert info.sampling_seed is not None, "asked for batches with seeds alone"
    key = _mixed(_mixed(info.sampling_seed & _LOW) ^ (info.sampling_seed >> 32 & _LOW))
    key = _mixed(key ^ positions.to(torch.int64) & _LOW).view(-1, 1)
    uniform = (_mixed(key ^ _mixed(tokens)).double() + 0.5) / 2**32
    first = (ordered.double() * kept / -uniform.log()).argmax(-1, keepdim=True)
    return tokens.gather(-1, first).view(-1)


def _mixed(bits: torch.Tensor) -> torch.Tensor:
    """MurmurHash3's finalizer, of 32 bits in int64: each bit of the input changes half of the output's."""
    bits = (bits ^ bits >> 16) * 0x85EBCA6B & _LOW
    bits = (bits ^ bits >> 13) * 0xC2B2AE35 & _LOW
    return bits ^ bits >> 16


def hooks() -> tuple[Hook, ...]:
    """The hooks that a decode server needs; a prefill server's token is thrown away."""
    info = "sglang.srt.sampling.sampling_batch_info.SamplingBatchInfo"
    return (
        Hook(f"{info}.from_schedule_batch", Kind.AROUND, _with_seeds),
        Hook(f"{info}.merge_batch", Kind.AROUND, _merge),
        Hook("sglang.srt.layers.sampler.Sampler._sample_from_probs", Kind.AROUND, _sample),
    )
