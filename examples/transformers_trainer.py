"""Trains a module of the demo zoo with Transformers' own Trainer, on the KV cache that it will be served with.

    python examples/records.py                  # records.jsonl and records-test.jsonl
    python examples/transformers_trainer.py     # a LoRA adapter, in trained-records; all weights with --all-weights
    psserve add-model records --path trained-records --task "turn a sentence into a JSON record"
    psserve evaluate records --data records-test.jsonl --scorer exact

All that makes it cache-conditioned is the class and its `base` (docs/training.md). The values are those that
PrefillShare's paper trained with, but for epochs and learning rate: a small base and 2,000 sentences need more of both.
"""

from __future__ import annotations

from psserve.training import CacheConditioned
from psserve.zoo import Zoo

# isort: split
# After psserve: with a PyTorch for CPUs, torchvision can be imported only once psserve has seen to it.
import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)


class ModuleTrainer(CacheConditioned, Trainer):
    """Transformers' trainer, whose model answers over the base's KV."""


def labelled(record: dict[str, str], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """The tokens of a conversation; labelled are the answer's, with the end of the turn: -100 is the base's to read."""
    question = [{"role": "user", "content": record["prompt"]}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
    answer = [*tokenizer.encode(record["completion"], add_special_tokens=False), tokenizer.eos_token_id]
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def main(all_weights: bool) -> None:
    base = Zoo.open(Path("model_zoo")).base
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    set_seed(42)  # the trainer's own, which sets it later than an adapter is drawn
    if not all_weights:
        adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, adapter)
    records = [json.loads(line) for line in Path("records.jsonl").read_text(encoding="utf-8").splitlines()]
    trainer = ModuleTrainer(
        base=base,
        model=model,
        train_dataset=[labelled(record, tokenizer) for record in records],
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
        args=TrainingArguments(  # its optimizer is AdamW with betas 0.9 and 0.999
            "trained-records",
            num_train_epochs=6,
            per_device_train_batch_size=16,
            learning_rate=2e-3 if all_weights else 6e-3,
            lr_scheduler_type="cosine",
            warmup_steps=0.03,  # a share of all steps
            weight_decay=0.1,
            max_grad_norm=0,  # no clipping
            bf16=torch.cuda.is_available(),
            use_cpu=not torch.cuda.is_available(),
            logging_steps=10,
            save_strategy="no",
            report_to="none",
        ),
    )
    trainer.train()
    if all_weights:
        model.to(AutoConfig.from_pretrained(base.path).dtype)  # a module is served in the type of its base
    trainer.save_model()


if __name__ == "__main__":
    main(all_weights="--all-weights" in sys.argv[1:])
