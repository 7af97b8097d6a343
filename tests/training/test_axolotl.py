"""The plugin in Axolotl itself, which `make test-axolotl` puts beside what is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from psserve.errors import TrainingError
from psserve.zoo import Zoo
from tests.training.test_cache_conditioned import STEPS, losses, plain_trainer, sums, zoo

pytest.importorskip("axolotl")
__all__ = ["zoo"]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AXOLOTL_DO_NOT_TRACK", "HF_HUB_OFFLINE", "WANDB_DISABLED"):
        monkeypatch.setenv(name, "1")
    monkeypatch.chdir(tmp_path)


def configured(zoo: Zoo, data: Path, **options: Any) -> Any:
    """Axolotl's own reading of a configuration with the plugin in it."""
    from axolotl.cli.config import load_cfg

    document: dict[str, Any] = {
        "base_model": str(zoo.base.path),
        "plugins": ["psserve.training.axolotl.CacheConditionedPlugin"],
        "psserve_zoo": str(zoo.path),
        "datasets": [{"path": str(data), "ds_type": "json", "type": "chat_template", "train_on_eos": "turn"}],
        "chat_template": "tokenizer_default",
        "sequence_len": 128,
        "dataset_prepared_path": "prepared",
        "micro_batch_size": 5,
        "gradient_accumulation_steps": 1,
        "max_steps": STEPS,
        "num_epochs": STEPS,
        "optimizer": "adamw_torch",
        "lr_scheduler": "constant",  # its cosine is another one than Transformers'
        "learning_rate": 2e-3,
        "warmup_steps": 0,
        "bf16": False,
        "fp16": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "output_dir": "out",
    }
    Path("axolotl.json").write_text(json.dumps(document | options))  # YAML as well
    return load_cfg("axolotl.json")


def trained(cfg: Any) -> Any:
    from axolotl.common.datasets import load_datasets
    from axolotl.train import train

    return train(cfg=cfg, dataset_meta=load_datasets(cfg=cfg))[2]


def test_axolotl_has_the_losses_of_the_plain_trainer(zoo: Zoo, tmp_path: Path) -> None:
    data = sums(tmp_path / "sums.jsonl", turns=1)
    trainer = trained(configured(zoo, data))
    found = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    usual = {"weight_decay": 0.0, "max_grad_norm": 1.0}  # as Axolotl has them where nothing is said
    plain = plain_trainer(zoo, data, tmp_path / "plain", lr_scheduler_type="constant", warmup_steps=0, **usual)
    assert found == pytest.approx(losses(plain), abs=1e-5)
    module = zoo.add("sums", tmp_path / "out")
    assert module.kind == "cache-conditioned"
    assert module.training is not None
    assert module.training.metrics["steps"] == STEPS


def test_an_adapter_is_taken_as_trained_on_the_cache(zoo: Zoo, tmp_path: Path) -> None:
    data = sums(tmp_path / "sums.jsonl", turns=1)
    trained(configured(zoo, data, adapter="lora", lora_r=4, lora_alpha=8, lora_target_modules=["q_proj", "v_proj"]))
    module = zoo.add("sums", tmp_path / "out")
    assert (module.kind, module.adapter is not None) == ("cache-conditioned", True)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"lora_qkv_kernel": True}, "lora_qkv_kernel: it rewrites the attention"),
        ({"sample_packing": True}, "sample_packing: the base's KV"),
    ],
)
def test_what_would_be_another_loss_is_refused(zoo: Zoo, tmp_path: Path, option: dict[str, Any], message: str) -> None:
    data = sums(tmp_path / "sums.jsonl", turns=1)
    with pytest.raises(TrainingError, match=message):
        trained(configured(zoo, data, **option))
