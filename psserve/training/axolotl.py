"""Axolotl's plugin for modules that are trained on the base's KV cache.

    plugins: [psserve.training.axolotl.CacheConditionedPlugin]
    psserve_zoo: my_zoo                     # whose base is `base_model` too

Data, chat templates, adapters, optimizer and checkpoints are Axolotl's; the loss is that of `psserve finetune`. What it
leaves in `output_dir` has the training record by which `psserve add-model` knows such a module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from axolotl.integrations.base import BasePlugin
from pydantic import BaseModel

from psserve.errors import TrainingError
from psserve.training.cache_conditioned import ONE_ROW, OTHER_LOSS, CacheConditioned
from psserve.training.labelled_rows import AnswersOverCache
from psserve.training.run_folder import write_record
from psserve.training.trainer_record import trainer_record
from psserve.zoo import Zoo

REFUSED = {
    "sample_packing": ONE_ROW,
    "eval_sample_packing": ONE_ROW,
    "pretraining_dataset": ONE_ROW,
    "rl": OTHER_LOSS,
    "reward_model": OTHER_LOSS,
    "process_reward_model": OTHER_LOSS,
    "context_parallel_size": "a conversation must be whole on its device",
}
"""Keys of a configuration that must not be set, and why."""
KERNEL = "it rewrites the attention of all models in the process, and the base has no adapter"
OFF = {
    "include_tkps": "tokens are counted in the loss that ours replaces",
    "lora_qkv_kernel": KERNEL,
    "lora_o_kernel": KERNEL,
    "lora_mlp_kernel": KERNEL,
    "lora_embedding_kernel": KERNEL,
}
"""Keys that Axolotl sets by itself, and why not here."""


class Arguments(BaseModel):
    """What the plugin adds to Axolotl's configuration."""

    psserve_zoo: str
    """The zoo on whose base's KV cache to train."""


class CacheConditionedPlugin(BasePlugin):  # type: ignore[misc] # Axolotl has no types for mypy
    """Has Axolotl train with `CacheConditioned`. Raises TrainingError for what would not be its loss."""

    def get_input_args(self) -> str:
        return f"{__name__}.{Arguments.__name__}"

    def register(self, cfg: Any) -> None:
        for key, why in (REFUSED | OFF).items():
            if cfg.get(key):
                raise TrainingError(f"{key}: {why}: leave it out")
        cfg.update(dict.fromkeys(OFF, False))

    def get_trainer_cls(self, cfg: Any) -> type[Any]:
        from axolotl.core.trainers import AxolotlTrainer

        base = Zoo.open(Path(cfg["psserve_zoo"])).base

        class ModuleTrainer(CacheConditioned, AxolotlTrainer):  # type: ignore[misc] # as above
            eval_data_collator: Any

            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, base=base, **options)
                if self.eval_data_collator is not None:
                    self.eval_data_collator = AnswersOverCache(self.eval_data_collator, self.data_collator.end)

        return ModuleTrainer

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        self.trainer = trainer

    def post_train(self, cfg: Any, model: Any) -> None:
        """Write the training record beside the weights, which Axolotl saves without its trainer."""
        if self.trainer.args.should_save:
            write_record(Path(cfg["output_dir"]), trainer_record(self.trainer, self.trainer.base))
