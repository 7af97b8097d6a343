"""The reference for many prompts at once: the same answers as `reference.generate`, token for token, sooner.

Rows of a batch have prompts of different lengths. Each step of tokens is padded on the left, so that its last column is
every row's newest token, and a mask over the cache hides the padding:

     row 0   . . B B B B | M y0 y1        B: KV of the base        y: answer, KV of the module
     row 1   B B B B B B | M y0 y1        M: last prompt token     .: padding, never attended to
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch

from psserve.rule import base_len
from psserve.training.hf import DynamicCache, PreTrainedModel
from psserve.training.windows import Masks, masks, window_of

Tokens = Sequence[int]


class Rows:
    """The KV cache of a batch, and which of its cells hold a token."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.cache = DynamicCache()
        self.mask = torch.zeros((rows, 0), dtype=torch.long, device=device)

    def feed(self, model: PreTrainedModel, tokens: Sequence[Tokens]) -> torch.Tensor | None:
        """Let `model` read some tokens of each row. Returns the newest tokens' logits, [rows, vocab], None for none."""
        width = max(map(len, tokens))
        if width == 0:
            return None
        device = self.mask.device
        padding = [width - len(row) for row in tokens]
        ids = torch.tensor([[0] * pad + list(row) for pad, row in zip(padding, tokens, strict=True)], device=device)
        new = torch.arange(width, device=device)[None] >= torch.tensor(padding, device=device)[:, None]
        positions = (self.mask.sum(1, keepdim=True) + new.cumsum(1) - 1).clamp(min=0)
        self.mask = torch.cat([self.mask, new.long()], 1)
        result = model(
            ids,
            attention_mask=self._masks(positions, new, window_of(model)),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = result.logits[:, -1].float()
        return logits

    def _masks(self, positions: torch.Tensor, new: torch.Tensor, window: int | None) -> Masks:
        """What the newest tokens see. Padding sees all, because a query that sees nothing has no softmax."""
        if window is None:
            return self.mask
        cells = self.mask.cumsum(1) - 1
        before = self.mask.bool()[:, None, :] & (cells[:, None, :] <= positions[:, :, None])
        made = masks(before, positions, cells, window)
        assert isinstance(made, dict)
        return {kind: mask | ~new[:, None, :, None] for kind, mask in made.items()}

    def keep(self, rows: list[int]) -> None:
        """Drop all other rows."""
        index = torch.tensor(rows, device=self.mask.device)
        self.cache.batch_select_indices(index)
        self.mask = self.mask[index]


@torch.inference_mode()
def generate_batch(
    base: PreTrainedModel,
    module: PreTrainedModel,
    prompts: Sequence[Tokens],
    max_new_tokens: int,
    *,
    stop_ids: Collection[int] = (),
    base_share: float = 1.0,
) -> list[list[int]]:
    """Greedy answers of `module`, the prompts' KV being the base's up to the last token.

    With `base_share` below 1, only that share of a prompt's KV (its beginning) is the base's; the module computes the
    rest over it, and all of it at 0. An answer ends after `max_new_tokens`, or with the first token of `stop_ids`,
    which is part of it. ValueError for an empty prompt.
    """
    if not all(map(len, prompts)):
        raise ValueError("an empty prompt has no answer")
    shared = [round(base_share * base_len(len(prompt))) for prompt in prompts]
    rows = Rows(len(prompts), module.device)
    rows.feed(base, [prompt[:length] for prompt, length in zip(prompts, shared, strict=True)])
    rest = [prompt[length:] for prompt, length in zip(prompts, shared, strict=True)]
    return greedy(rows, rest, lambda tokens: rows.feed(module, tokens), max_new_tokens, stop_ids)


def greedy(
    rows: Rows,
    first: Sequence[Tokens],
    read: Callable[[Sequence[Tokens]], torch.Tensor | None],
    max_new_tokens: int,
    stop_ids: Collection[int],
) -> list[list[int]]:
    """Let `read` go on in `rows` with `first`, and with the likeliest token after each that it has read, to the end.

    It returns the newest tokens' logits, [rows, vocab].
    """
    logits = read(first)
    answers: list[list[int]] = [[] for _ in first]
    active = list(range(len(first)))
    while logits is not None:
        newest = logits.argmax(-1).tolist()
        for row, token in zip(active, newest, strict=True):
            answers[row].append(token)
        going = [i for i, row in enumerate(active) if newest[i] not in stop_ids and len(answers[row]) < max_new_tokens]
        if not going:
            break
        if len(going) < len(active):
            rows.keep(going)
            active = [active[i] for i in going]
        logits = read([[answers[row][-1]] for row in active])
    return answers
