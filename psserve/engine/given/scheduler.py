"""The scheduler's part: tokens that are given take the place of those that would be sampled, and end nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psserve.contracts.given import GIVEN
from psserve.engine.handover.sglang.request import Req
from psserve.engine.handover.sglang.scheduler import Batch, Logits, Sampler, SamplingInfo
from psserve.engine.hooks import Hook, Kind

if TYPE_CHECKING:
    import torch

_NEXT = "psserve_next_given"
"""The name under which a batch's sampling information has its next given tokens."""


@dataclass(frozen=True)
class NextGiven:
    """The given tokens of one step."""

    rows: list[int]
    """Of the batch, those that have one."""
    places: torch.Tensor
    """The same on the logits' device, [given]."""
    tokens: torch.Tensor
    """[given]"""


def given_of(req: Req) -> Sequence[int]:
    """The tokens that the request's answer begins with; none for most."""
    params = req.sampling_params.custom_params
    return params.get(GIVEN, ()) if params else ()


def next_given(batch: Batch) -> NextGiven | None:
    """What the step that is prepared takes instead of sampling it; None for nothing."""
    if not any(map(given_of, batch.reqs)):
        return None
    found: list[tuple[int, int]] = []
    for row, (req, length) in enumerate(zip(batch.reqs, batch.seq_lens_cpu.tolist(), strict=True)):
        given, place = given_of(req), length - len(req.origin_input_ids)  # with the token that it reads in this step
        if 0 <= place < len(given):
            found.append((row, given[place]))
    if not found:
        return None
    device = batch.sampling_info.temperatures.device
    rows, tokens = zip(*found, strict=True)
    return NextGiven([*rows], _on(device, rows), _on(device, tokens))


def _on(device: torch.device, numbers: Sequence[int]) -> torch.Tensor:
    """From pinned memory, so that the copy waits for nothing that the device still has to compute."""
    import torch

    pinned = torch.tensor(numbers, dtype=torch.int64, pin_memory=device.type == "cuda")
    return pinned.to(device, non_blocking=True)


def _note_next(forward_batch: type, batch: Batch, *rest: Any, **named: Any) -> None:
    """BEFORE `ForwardBatch.init_new`: there the requests are at hand, and the information that sampling will have."""
    if batch.sampling_info is not None:
        vars(batch.sampling_info)[_NEXT] = next_given(batch)


def _take_given(
    original: Callable[..., torch.Tensor],
    sampler: Sampler,
    logits: Logits,
    info: SamplingInfo,
    return_logprob: bool,
    top_logprobs_nums: Sequence[int],
    *rest: Any,
    **named: Any,
) -> torch.Tensor:
    """AROUND `Sampler.forward`, which writes probabilities over the logits."""
    given: NextGiven | None = vars(info).get(_NEXT)
    if given is None:
        return original(sampler, logits, info, return_logprob, top_logprobs_nums, *rest, **named)
    of_model = logits.next_token_logits[given.places].float().log_softmax(-1)
    sampled = original(sampler, logits, info, return_logprob, top_logprobs_nums, *rest, **named)
    if return_logprob:
        _write(sampler, logits, of_model, given, [top_logprobs_nums[row] for row in given.rows])
    return sampled.index_copy(0, given.places, given.tokens.to(sampled.dtype))


def _write(
    sampler: Sampler, logits: Logits, of_model: torch.Tensor, given: NextGiven, top_logprobs_nums: list[int]
) -> None:
    """Put the model's log-probabilities, [given, vocabulary], in the place of what sampling made of these rows."""
    found = sampler.output_logprob_processor.compute_logprobs(
        of_model, top_logprobs_nums, [None] * len(given.rows), given.tokens
    )
    logits.next_token_logprobs[given.places] = found.token_logprobs.to(logits.next_token_logprobs.dtype)
    if found.top_logprobs_val is not None and found.top_logprobs_idx is not None:
        for row, values, tokens in zip(given.rows, found.top_logprobs_val, found.top_logprobs_idx, strict=True):
            logits.next_token_top_logprobs_val[row] = values
            logits.next_token_top_logprobs_idx[row] = tokens


def _end_after_what_is_given(original: Callable[..., None], req: Req, *rest: Any, **named: Any) -> None:
    """AROUND `Req.update_finish_state`: an end token may be given, and what comes after it is still to be read."""
    given, longest = given_of(req), req.sampling_params.max_new_tokens
    if given and len(req.output_ids) <= len(given) and len(req.output_ids) < longest and req.to_finish is None:
        return
    original(req, *rest, **named)


def hooks() -> tuple[Hook, ...]:
    """The hooks that a decode server needs."""
    return (
        Hook("sglang.srt.model_executor.forward_batch_info.ForwardBatch.init_new", Kind.BEFORE, _note_next),
        Hook("sglang.srt.layers.sampler.Sampler.forward", Kind.AROUND, _take_given),
        Hook(
            "sglang.srt.managers.schedule_batch.Req.update_finish_state",
            Kind.AROUND,
            _end_after_what_is_given,
        ),
    )
