"""Trains a module of the demo zoo with TRL's SFTTrainer, on the KV cache that it will be served with.

    python examples/records.py              # records.jsonl and records-test.jsonl
    python examples/trl_sft.py              # a LoRA adapter, in trl-records
    psserve add-model records --path trl-records --task "turn a sentence into a JSON record"
    psserve evaluate records --data records-test.jsonl --scorer exact

All that makes it cache-conditioned is the class and its `base`; the rest is TRL as everywhere (docs/training.md).
"""

from __future__ import annotations

from psserve.training import CacheConditioned
from psserve.zoo import Zoo

# isort: split
# After psserve: with a PyTorch for CPUs, torchvision can be imported only once psserve has seen to it.
from pathlib import Path

import torch
from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer


class ModuleTrainer(CacheConditioned, SFTTrainer):
    """TRL's trainer, whose model answers over the base's KV."""


def as_conversation(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    """A prompt and its completion as TRL wants them for the chat template."""
    return {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "completion": [{"role": "assistant", "content": row["completion"]}],
    }


def main() -> None:
    base = Zoo.open(Path("model_zoo")).base
    records = load_dataset("json", data_files="records.jsonl", split="train")
    trainer = ModuleTrainer(
        base=base,
        model=str(base.path),
        train_dataset=records.map(as_conversation),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        args=SFTConfig(
            "trl-records",
            num_train_epochs=3,
            per_device_train_batch_size=8,
            learning_rate=6e-3,
            lr_scheduler_type="cosine",
            warmup_steps=0.03,
            bf16=torch.cuda.is_available(),
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
        ),
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
