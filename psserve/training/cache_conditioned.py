"""Cache-conditioned training in trainers of other libraries: `transformers.Trainer`, and what is made of it.

    class ModuleTrainer(CacheConditioned, trl.SFTTrainer): ...

    base = Zoo.open(Path("my_zoo")).base
    trainer = ModuleTrainer(base=base, model=str(base.path), args=..., train_dataset=..., peft_config=...)
    trainer.train()
    trainer.save_model("out")          # and then: psserve add-model NAME --path out

Data, PEFT, optimizer, precision and checkpoints are the library's; the loss is that of `psserve finetune`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from psserve.errors import TrainingError
from psserve.training.answer_loss import AnswerLoss
from psserve.training.batch import Batch
from psserve.training.cache_loss import OVER_BASE_KV, cache_logits
from psserve.training.checks import check_base_unchanged, check_unquantised
from psserve.training.hf import AutoTokenizer
from psserve.training.labelled_rows import AnswersOverCache
from psserve.training.models import load_base
from psserve.training.run_folder import write_record
from psserve.training.trainer_record import trainer_record
from psserve.zoo.disk.model import Base

ONE_ROW = "the base's KV of a conversation in it would hold those before it: let each have a row of its own"
OTHER_LOSS = "the loss is the cross-entropy of the answer tokens"
REFUSED = {
    "packing": (False, ONE_ROW),
    "eval_packing": (False, ONE_ROW),
    "padding_free": (False, ONE_ROW),
    "loss_type": ("nll", OTHER_LOSS),
    "label_smoothing_factor": (0.0, OTHER_LOSS),
    "use_liger_kernel": (False, "its kernel computes the loss itself"),
}
"""Arguments of a trainer -> the one value that they may have, and why."""


class CacheConditioned(AnswerLoss):
    """Mixin over a Trainer (to its left), which then trains its model on the KV cache of `base`, a zoo's.

    Rows need `input_ids` and `labels`, -100 where a token is not trained on: the prompt is the base's to read. What
    `save_model` writes, checkpoints too, has the training record by which `psserve add-model` knows such a module.
    The base is loaded beside the model, frozen, whole on every device.

    Raises TrainingError for what would not be this loss: packing, another loss, a quantised base.
    """

    state: Any
    model: Any
    data_collator: Any

    def __init__(self, *arguments: Any, base: Base, **options: Any) -> None:
        check_unquantised(base)
        check_base_unchanged(base)
        super().__init__(*arguments, **options)
        self.check_arguments()
        self.base = base
        dtype = torch.bfloat16 if self.args.bf16 else torch.float32
        self.base_model = load_base(base.path, dtype).to(self.args.device)
        module = self.accelerator.unwrap_model(self.model)
        adapted = hasattr(module, "get_base_model")  # PEFT's
        (module.get_base_model() if adapted else module).set_attn_implementation(OVER_BASE_KV)
        end = AutoTokenizer.from_pretrained(base.path, local_files_only=True).eos_token_id
        self.data_collator = AnswersOverCache(self.data_collator, end)

    def check_arguments(self) -> None:
        """Raise TrainingError if the trainer was told what this loss cannot do."""
        for name, (allowed, why) in REFUSED.items():
            value = getattr(self.args, name, None)
            if value not in (None, allowed):
                raise TrainingError(f"{name}={value!r}: {why}: leave it at {allowed!r}")
        if getattr(self, "compute_loss_func", None) is not None:
            raise TrainingError(f"compute_loss_func: {OTHER_LOSS}: leave it out")
        if getattr(self, "aux_loss_enabled", False):
            raise TrainingError(f"router_aux_loss_coef: {OTHER_LOSS}: set it to 0.0")
        if self.args.n_gpu > 1:
            raise TrainingError("several GPUs in one process: start one process each, with `accelerate launch`")

    def answer_logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return cache_logits(self.base_model, model, batch)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model as the trainer does, with its training record once there has been a step."""
        super().save_model(output_dir, _internal_call)  # type: ignore[misc] # the Trainer's
        if self.args.should_save and self.state.global_step:
            write_record(Path(output_dir or self.args.output_dir), trainer_record(self, self.base))
