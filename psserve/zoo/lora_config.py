"""What a LoRA adapter's configuration (PEFT's adapter_config.json) says it adds to which weights."""

from __future__ import annotations

import math
import re
from pathlib import Path

from pydantic import ConfigDict, Field, ValidationError

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.jsonfile import read_json
from psserve.zoo.manifest import Record, describe

ADAPTER_CONFIG = "adapter_config.json"
MERGE_IT = "merge it with PEFT's merge_and_unload, save the model, and add that"

SAME_SUM = {
    "auto_mapping",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
}
"""Fields that say how an adapter is trained or placed, but nothing of the sum."""

REASONS = {
    "alora_invocation_tokens": "it acts from certain tokens on only",
    "bias": "biases were trained too",
    "fan_in_fan_out": "weights are stored transposed",
    "layer_replication": "layers are repeated",
    "modules_to_save": "whole layers were trained beside the adapter",
    "trainable_token_indices": "embeddings were trained beside the adapter",
    "use_dora": "DoRA also rescales the weights",
}
"""Why a field that is set makes an adapter something else than a sum. Fields that are in no list are refused too."""

INITIALISATIONS = (True, False, None, "gaussian", "eva")
"""Those that leave the base's own weights alone; PiSSA, OLoRA and others take a part out of them."""


class AdapterConfig(Record):
    """What decides the sum W + scale * B A. All other fields are in `model_extra`, for `check_fields`."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    peft_type: str
    r: int = Field(gt=0)
    lora_alpha: float
    use_rslora: bool = False
    rank_pattern: dict[str, int] = Field(default={})
    alpha_pattern: dict[str, float] = Field(default={})
    init_lora_weights: bool | str | None = True
    base_model_name_or_path: str | None = None

    def rank(self, layer: str) -> int:
        """The rank at a layer."""
        return next((rank for pattern, rank in self.rank_pattern.items() if matches(pattern, layer)), self.r)

    def scale(self, layer: str) -> float:
        """What the product is multiplied by at a layer."""
        patterns = self.alpha_pattern.items()
        alpha = next((alpha for pattern, alpha in patterns if matches(pattern, layer)), self.lora_alpha)
        rank = self.rank(layer)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def matches(pattern: str, layer: str) -> bool:
    """Whether a key of rank_pattern or alpha_pattern means this layer, by PEFT's rule."""
    return re.match(rf"(.*\.)?({pattern})$", layer) is not None


def read_adapter_config(directory: Path) -> AdapterConfig:
    """The configuration of the adapter in `directory`; IncompatibleCheckpoint if it is no plain LoRA."""
    path = directory / ADAPTER_CONFIG
    try:
        config = AdapterConfig.model_validate(read_json(path))
        for pattern in (*config.rank_pattern, *config.alpha_pattern):
            re.compile(pattern)
    except ValidationError as error:
        raise IncompatibleCheckpoint(f"{path}: {describe(error)}: not the configuration of a LoRA adapter") from None
    except re.error as error:
        raise IncompatibleCheckpoint(f"{path}: {pattern!r} is no pattern ({error}): correct it") from None
    check_fields(path, config)
    return config


def check_fields(path: Path, config: AdapterConfig) -> None:
    """Raise IncompatibleCheckpoint if the adapter is more than a product added to weights."""
    if config.peft_type != "LORA":
        raise IncompatibleCheckpoint(f"{path}: peft_type is {config.peft_type!r}, not 'LORA': {MERGE_IT}")
    if config.init_lora_weights not in INITIALISATIONS:
        raise IncompatibleCheckpoint(
            f"{path}: init_lora_weights is {config.init_lora_weights!r}, which changes the base's weights: {MERGE_IT}"
        )
    for field, value in (config.model_extra or {}).items():
        if value and field not in SAME_SUM and (field, value) != ("bias", "none"):
            reason = REASONS.get(field, "psserve does not know what it does to the weights")
            raise IncompatibleCheckpoint(f"{path}: {field} is {value!r} ({reason}): {MERGE_IT}")
