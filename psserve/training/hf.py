"""What training uses of Transformers, imported as it must be: once torchvision can be imported too."""

from __future__ import annotations

from psserve import torchvision_ops

torchvision_ops.declare_missing()
from transformers import (  # noqa: E402 (only importable after that)
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward  # noqa: E402
from transformers.masking_utils import sdpa_mask  # noqa: E402
from transformers.modeling_outputs import CausalLMOutput  # noqa: E402
from transformers.trainer_pt_utils import LengthGroupedSampler  # noqa: E402

__all__ = [
    "AttentionInterface",
    "AttentionMaskInterface",
    "AutoModelForCausalLM",
    "AutoTokenizer",
    "CausalLMOutput",
    "DynamicCache",
    "LengthGroupedSampler",
    "PreTrainedModel",
    "PrinterCallback",
    "Trainer",
    "TrainerCallback",
    "TrainerState",
    "TrainingArguments",
    "sdpa_attention_forward",
    "sdpa_mask",
    "set_seed",
]
