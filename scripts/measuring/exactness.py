"""Is a served answer the reference's, as far as its number format can tell?

In half precision two correct programs round differently, so now and then another token wins where the two best logits
nearly tie, and from there on the two texts have nothing in common. So the reference follows the served answer: at every
position it sees the tokens that were served before, and asks whether the served token is its own best one too, or loses
to it by no more than a tolerance.

Distances are in standard deviations of the reference's logits at that position. The scale of logits differs from model
to model; relative to it the rounding of a number format does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from psserve.rule import base_part, module_part

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

TOLERANCES: Mapping[str, float] = {"float32": 0.001, "float16": 0.03, "bfloat16": 0.25}
"""Type served with -> largest distance of an equal, against a float32 reference. docs/measuring.md tells from where."""


@dataclass(frozen=True)
class Served:
    """An answer as served: its tokens, and at each position the likeliest tokens with their log-probabilities.

    Not only the chosen token's, which is close to 0 and tells little wherever the module is sure.
    """

    tokens: Sequence[int]
    top: Sequence[Mapping[int, float]]


@dataclass(frozen=True)
class Judgement:
    """How one answer compares. Positions count from 0; distances as in the module's docstring."""

    tokens: int
    first_tie: int | None
    """First token that is not the reference's best one, but within the tolerance of it."""
    first_wrong: int | None
    """First token that is neither."""
    worst_gap: float
    """Furthest that a served token was from the reference's best one."""
    worst_logprob: float
    """Furthest that one of the likeliest tokens' served log-probabilities was from the reference's."""
    tolerance: float

    @property
    def equal(self) -> bool:
        return self.tokens > 0 and self.first_wrong is None and self.worst_logprob <= self.tolerance


def judge(logits: torch.Tensor, served: Served, tolerance: float) -> Judgement:
    """Compare an answer of m tokens with the reference's logits [m, vocab] at its positions."""
    import torch

    logits = logits.float()
    chosen = torch.tensor(list(served.tokens), device=logits.device)[:, None]
    scale = logits.std(dim=-1)
    gaps = (logits.max(dim=-1).values - logits.gather(1, chosen)[:, 0]) / scale
    reference = logits.log_softmax(-1)
    distances = [
        (torch.tensor(list(likeliest.values()), device=row.device) - row[list(likeliest)]).abs().max() / unit
        for likeliest, row, unit in zip(served.top, reference, scale, strict=True)
    ]
    return Judgement(
        tokens=len(served.tokens),
        first_tie=_first(0 < gap <= tolerance for gap in gaps.tolist()),
        first_wrong=_first(gap > tolerance for gap in gaps.tolist()),
        worst_gap=float(gaps.max()),
        worst_logprob=float(max(distances)),
        tolerance=tolerance,
    )


def forced_logits(
    base: PreTrainedModel, module: PreTrainedModel, prompt: Sequence[int], answer: Sequence[int]
) -> torch.Tensor:
    """The module's logits [m, vocab] at each position of `answer`, over the base's KV cache of prompt[:-1]."""
    import torch

    from psserve.training.reference import as_batch, prefill

    with torch.inference_mode():
        cache = prefill(base, base_part(prompt))
        seen = [*module_part(prompt), *answer[:-1]]
        logits: torch.Tensor = module(as_batch(module, seen), past_key_values=cache, use_cache=True).logits[0]
        return logits.float()


def summary(judged: Sequence[Judgement], control: Sequence[Judgement]) -> dict[str, Any]:
    """A verdict over many answers. `control` judged the same answers by a reference with the wrong KV cache.

    Only if the control refuses every answer does the verdict mean anything.
    """
    return {
        "answers": len(judged),
        "equal": sum(one.equal for one in judged),
        "tokens": sum(one.tokens for one in judged),
        "answers_with_near_tie": sum(one.first_tie is not None for one in judged),
        "worst_gap": max(one.worst_gap for one in judged),
        "worst_logprob": max(one.worst_logprob for one in judged),
        "control_refused": sum(not one.equal for one in control),
        "control_smallest_distance": min(max(one.worst_gap, one.worst_logprob) for one in control),
        "passed": all(one.equal for one in judged) and not any(one.equal for one in control),
        "unequal": [asdict(one) for one in judged if not one.equal],
    }


def _first(flags: Iterable[bool]) -> int | None:
    return next((place for place, flag in enumerate(flags) if flag), None)
