"""ICaRus' rule (arXiv 2603.13281): the KV of every token is the base's, of those that are generated too.

Two streams read each token. The base (their "logical encoder") writes its keys and values; the module ("logical
decoder"), an adapter of q, o and the feed-forward network, asks with queries of its own, and predicts the next token:

    position      0 ........ n-2   n-1    n   n+1 ...
    token         x[0] ... x[n-2]  x[n-1] y0  y1  ...
    KV computed by     BASE         BASE  BASE BASE
    read by MODULE      -            yes   yes  yes      the token at p sees the base's KV of 0 .. p
    predicts                         y0    y1   y2

psserve/rule.py has the rule that servers follow: there, a module writes what it reads. So such an adapter is trained
and evaluated here, and `Zoo.add` refuses it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from psserve.errors import TrainingError
from psserve.training.batch import Batch, Tokenized, cache_batch, padded
from psserve.training.batched_reference import Rows, Tokens, greedy
from psserve.training.cache_loss import OVER_BASE_KV, prefill_contexts
from psserve.training.hf import PreTrainedModel
from psserve.training.reference import ModelPair, add_adapter, load_model
from psserve.training.trainer import ModuleTrainer
from psserve.training.windows import masks, window_of
from psserve.zoo.disk.model import Base

KV_LAYERS = ("k_proj", "v_proj")
"""The layers that write keys and values: the base's alone."""


def query_side(model: PreTrainedModel, targets: Sequence[str]) -> tuple[str, ...]:
    """The linear layers to adapt: `targets`, or all but those of keys and values and the output layer.

    TrainingError where one of these writes keys or values, or where no layer of the model does that alone.
    """
    head = model.get_output_embeddings()
    linear = {
        name.rpartition(".")[2]
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.Linear) and part is not head
    }
    if not linear.issuperset(KV_LAYERS):
        raise TrainingError(
            f"--icarus: the base has no layers {' and '.join(KV_LAYERS)}, and what is not adapted must be told from "
            "what is: train without --icarus"
        )
    if wrong := sorted(set(targets).intersection(KV_LAYERS)):
        raise TrainingError(f"--lora-target {wrong[0]}: with --icarus keys and values are the base's: leave it out")
    return tuple(targets) or tuple(sorted(linear.difference(KV_LAYERS)))


def icarus_batch(conversations: Sequence[Tokenized]) -> Batch:
    """`cache_batch`, but the base also reads what the module reads of the last answer."""
    contexts = [each.input_ids[: each.answers[-1][1] - 1] for each in conversations]
    return cache_batch(conversations) | {"context_ids": padded(contexts, 0)}


def icarus_logits(base: PreTrainedModel, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The module's logits [B, Q, vocab] for an `icarus_batch`. Gradients flow into the module alone.

    `module` must have been loaded with the attention implementation OVER_BASE_KV.
    """
    tokens, positions = batch["context_ids"].shape[1], batch["positions"]
    context = torch.arange(tokens, device=positions.device).expand(len(positions), tokens)
    seen = context[:, None, :] <= positions[:, :, None]
    logits: torch.Tensor = module(
        input_ids=batch["query_ids"],
        position_ids=positions,
        attention_mask=masks(seen, positions, context, window_of(base)),
        base_kv=prefill_contexts(base, batch["context_ids"]),
        own_kv=False,
        use_cache=False,
    ).logits
    return logits


class IcarusTrainer(ModuleTrainer):
    """Trains an adapter by this rule."""

    def __init__(self, base: PreTrainedModel, model: PreTrainedModel, **options: object) -> None:
        super().__init__(base, model, **options)
        self.data_collator = icarus_batch

    def module_logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        assert self.base is not None
        return icarus_logits(self.base, model, batch)


def load_icarus(base: Base, adapter: Path) -> ModelPair:
    """The base, and the base with the adapter in directory `adapter`, for `generate_icarus_batch`."""
    module = load_model(base.path)
    add_adapter(module, adapter, base.path)
    module.set_attn_implementation(OVER_BASE_KV)
    return ModelPair(load_model(base.path), module)


@torch.inference_mode()
def generate_icarus_batch(
    base: PreTrainedModel,
    module: PreTrainedModel,
    prompts: Sequence[Tokens],
    max_new_tokens: int,
    *,
    stop_ids: Collection[int] = (),
) -> list[list[int]]:
    """Greedy answers by this rule; arguments and result as of `generate_batch`."""
    rows = Rows(len(prompts), module.device)

    def read(tokens: Sequence[Tokens]) -> torch.Tensor:
        rows.feed(base, tokens)
        return newest_logits(module, rows, [row[-1] for row in tokens])

    return greedy(rows, prompts, read, max_new_tokens, stop_ids)


def newest_logits(module: PreTrainedModel, rows: Rows, newest: Sequence[int]) -> torch.Tensor:
    """The module's logits [rows, vocab] for the newest token of each row, whose KV the base has written."""
    cells = rows.mask.cumsum(1) - 1
    positions = rows.mask.sum(1, keepdim=True) - 1
    logits: torch.Tensor = module(
        input_ids=torch.tensor(newest, device=rows.mask.device)[:, None],
        position_ids=positions,
        attention_mask=masks(rows.mask.bool()[:, None, :], positions, cells, window_of(module)),
        base_kv=[(layer.keys, layer.values) for layer in rows.cache.layers],
        own_kv=False,
        use_cache=False,
    ).logits
    return logits[:, -1].float()
