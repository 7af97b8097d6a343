"""The loss of a training step, as a mixin over Transformers' Trainer: psserve's own and others' compute it here."""

from __future__ import annotations

from typing import Any

import torch

from psserve.training.batch import IGNORED, Batch
from psserve.training.cache_loss import answer_loss
from psserve.training.hf import CausalLMOutput


class AnswerLoss:
    """Mixin over a Trainer: the mean cross-entropy of an answer token of the optimizer step.

    Batches hold as `labels` [B, Q] the token that follows each one that the module reads. What computes the logits is
    the subclass's to say.
    """

    args: Any
    accelerator: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Our loss is a sum over answer tokens, divided by their number in the whole optimizer step; our labels are
        # already those of the next token, so all of them count.
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = False

    def answer_logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The module's logits [B, Q, vocab]."""
        raise NotImplementedError

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The mean loss of an answer token of the optimizer step, as far as this batch contributes to it.

        `num_items_in_batch` is the number of answer tokens in the step; left out, of this batch alone.
        """
        logits, labels = self.answer_logits(model, inputs), inputs["labels"]
        loss = answer_loss(logits, labels)
        if num_items_in_batch is None:
            loss = loss / labels.ne(IGNORED).sum()
        else:
            # The number of tokens is that of all devices (if it is), and their gradients will be averaged.
            averaged = int(self.accelerator.num_processes) if self.args.average_tokens_across_devices else 1
            loss = loss / num_items_in_batch * averaged
        return (loss, CausalLMOutput(loss=loss, logits=logits)) if return_outputs else loss
