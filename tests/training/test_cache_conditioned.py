"""The mixin over Transformers' Trainer and TRL's SFTTrainer: the loss is that of `psserve finetune`, step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftConfig
from transformers import AutoModelForCausalLM

from psserve.errors import IncompatibleCheckpoint, TrainingError
from psserve.training import CacheConditioned
from psserve.training.batch import IGNORED, Tokenized
from psserve.training.checks import load_data
from psserve.training.config import FinetuneConfig, LoraConfig
from psserve.training.finetune import finetune, load_models
from psserve.training.hf import AutoTokenizer, Trainer, TrainingArguments
from psserve.training.progress import read_metrics
from psserve.zoo import Zoo
from psserve.zoo.synthetic.zoo import build_zoo

STEPS = 4
SAME: dict[str, Any] = {
    "max_steps": STEPS,
    "learning_rate": 2e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.03,
    "weight_decay": 0.1,
    "max_grad_norm": 0.0,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
}
"""What makes another trainer's run the one of `finetune` here. All conversations are in each step."""


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    return build_zoo(tmp_path / "zoo", modules=(), num_hidden_layers=2)


def sums(path: Path, turns: int) -> Path:
    """Questions of different lengths and their answers, `turns` of each in a conversation."""
    lines = []
    for a, b in ((1, 2), (10, 2), (3, 300), (40, 50), (7, 7)):
        asked = [f"What is {a} and {b}?", f"Twice {a}?"][:turns]
        told = [str(a + b), f"{a} and {a} is {2 * a}"][:turns]
        pairs = [
            ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
            for question, answer in zip(asked, told, strict=True)
        ]
        lines.append(json.dumps({"messages": [message for pair in pairs for message in pair]}))
    path.write_text("\n".join(lines))
    return path


def finetune_losses(zoo: Zoo, data: Path, lora: LoraConfig | None = None) -> list[float]:
    """The loss of each step of `psserve finetune`."""
    batch = {"batch_size": 5, "accumulation": 1}
    options: dict[str, Any] = {"steps": STEPS, "learning_rate": 2e-3, **batch, "log_every": 1, "lora": lora}
    run = finetune(zoo, FinetuneConfig(name="sums", data=(data,), **options)).run
    return [entry["loss"] for entry in read_metrics(run / "metrics.jsonl")]


def losses(trainer: Any) -> list[float]:
    """The loss of each step of a trainer, once it has trained."""
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


class OnCache(CacheConditioned, Trainer):
    """What a user of Transformers writes."""


def rows(conversations: list[Tokenized]) -> list[dict[str, list[int]]]:
    """Conversations as a data set of Transformers: token ids, and -100 as the label of what is not trained on."""
    made = []
    for each in conversations:
        trained = {position for start, end in each.answers for position in range(start, end)}
        labels = [token if at in trained else IGNORED for at, token in enumerate(each.input_ids)]
        made.append({"input_ids": list(each.input_ids), "labels": labels})
    return made


def padded(examples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """A collator that pads on the right."""
    width = max(len(example["input_ids"]) for example in examples)
    filler = {"input_ids": 0, "labels": IGNORED}
    return {
        name: torch.tensor([example[name] + [filler[name]] * (width - len(example[name])) for example in examples])
        for name in filler
    }


def plain_trainer(zoo: Zoo, data: Path, out: Path, **options: Any) -> OnCache:
    conversations = load_data(zoo.base, FinetuneConfig(name="sums", data=(data,)))
    return OnCache(
        base=zoo.base,
        model=AutoModelForCausalLM.from_pretrained(zoo.base.path, dtype=torch.float32),
        args=TrainingArguments(str(out), **({"per_device_train_batch_size": 5} | SAME | options)),
        train_dataset=rows(conversations),
        processing_class=AutoTokenizer.from_pretrained(zoo.base.path),
        data_collator=padded,
    )


def sft_trainer(zoo: Zoo, data: Path, out: Path, peft_config: PeftConfig | None = None, **options: Any) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer  # importable once psserve has seen to torchvision

    class SftOnCache(CacheConditioned, SFTTrainer):  # type: ignore[misc] # TRL has no types
        """What a user of TRL writes."""

    pairs = [json.loads(line)["messages"] for line in data.read_text().splitlines()]
    fixed = {"per_device_train_batch_size": 5, "bf16": False, "max_length": None, "gradient_checkpointing": False}
    return SftOnCache(
        base=zoo.base,
        model=str(zoo.base.path),
        args=SFTConfig(str(out), **(fixed | SAME | options)),
        train_dataset=Dataset.from_list([{"prompt": pair[:1], "completion": pair[1:]} for pair in pairs]),
        processing_class=AutoTokenizer.from_pretrained(zoo.base.path),
        peft_config=peft_config,
    )


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")  # TRL reports its use otherwise


def test_plain_trainer_has_the_losses_of_finetune(zoo: Zoo, tmp_path: Path) -> None:
    data = sums(tmp_path / "sums.jsonl", turns=2)
    assert losses(plain_trainer(zoo, data, tmp_path / "out")) == pytest.approx(finetune_losses(zoo, data), abs=1e-5)


def test_accumulated_batches_have_the_losses_of_one(zoo: Zoo, tmp_path: Path) -> None:
    data = sums(tmp_path / "sums.jsonl", turns=2)
    small = plain_trainer(zoo, data, tmp_path / "out", per_device_train_batch_size=1, gradient_accumulation_steps=5)
    assert losses(small) == pytest.approx(finetune_losses(zoo, data), abs=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_sft_trainer_has_the_losses_of_finetune(zoo: Zoo, tmp_path: Path, checkpointing: bool) -> None:
    data = sums(tmp_path / "sums.jsonl", turns=1)
    trainer = sft_trainer(zoo, data, tmp_path / "out", gradient_checkpointing=checkpointing)
    assert losses(trainer) == pytest.approx(finetune_losses(zoo, data), abs=1e-5)


def test_sft_trainer_with_peft_has_the_losses_of_finetune_with_lora(zoo: Zoo, tmp_path: Path) -> None:
    data = sums(tmp_path / "sums.jsonl", turns=1)
    adapter = PeftConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = sft_trainer(zoo, data, tmp_path / "out", adapter)
    lora = LoraConfig(rank=4)
    _, start = load_models(zoo.base, FinetuneConfig(name="sums", data=(data,), lora=lora), torch.float32)
    trainer.model.load_state_dict(start.state_dict())  # new adapters are random
    assert losses(trainer) == pytest.approx(finetune_losses(zoo, data, lora), abs=1e-5)


def test_add_model_takes_both_as_trained_on_the_cache(zoo: Zoo, tmp_path: Path) -> None:
    data = sums(tmp_path / "sums.jsonl", turns=1)
    adapter = PeftConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainers = {
        "plain": plain_trainer(zoo, data, tmp_path / "plain"),
        "sft": sft_trainer(zoo, data, tmp_path / "sft", adapter),
    }
    for name, trainer in trainers.items():
        trainer.train()
        trainer.save_model()
        module = zoo.add(name, tmp_path / name)
        assert module.kind == "cache-conditioned"
        assert module.training is not None
        assert module.training.metrics["steps"] == STEPS
        assert module.training.hyperparameters["learning_rate"] == 2e-3
    assert zoo.module("sft").adapter is not None
    training = zoo.module("sft").training
    assert training is not None
    assert training.hyperparameters["lora_targets"] == "q_proj,v_proj"
    assert "trl" in training.versions


def test_what_was_saved_before_training_has_no_record(zoo: Zoo, tmp_path: Path) -> None:
    trainer = plain_trainer(zoo, sums(tmp_path / "sums.jsonl", turns=1), tmp_path / "out")
    trainer.save_model()
    with pytest.raises(IncompatibleCheckpoint, match=r"no psserve_training\.json"):
        zoo.add("sums", tmp_path / "out")


def test_held_out_rows_are_scored_with_the_same_loss(zoo: Zoo, tmp_path: Path) -> None:
    data = sums(tmp_path / "sums.jsonl", turns=2)
    trainer = plain_trainer(zoo, data, tmp_path / "out", per_device_eval_batch_size=5)
    first = finetune_losses(zoo, data)[0]
    assert trainer.evaluate(trainer.train_dataset)["eval_loss"] == pytest.approx(first, abs=1e-5)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"packing": True, "packing_strategy": "wrapped", "max_length": 64}, "packing=True: the base's KV"),
        ({"loss_type": "dft"}, "loss_type='dft'"),
    ],
)
def test_sft_options_that_are_another_loss_are_refused(
    zoo: Zoo, tmp_path: Path, option: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        sft_trainer(zoo, sums(tmp_path / "sums.jsonl", turns=1), tmp_path / "out", **option)


def test_a_base_that_was_changed_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    data = sums(tmp_path / "sums.jsonl", turns=1)
    weights = zoo.base.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    with pytest.raises(TrainingError, match="changed since the zoo was made"):
        plain_trainer(zoo, data, tmp_path / "out")
