"""Which architectures are refused, and with which words."""

from __future__ import annotations

import difflib

from psserve.zoo.checkpoints.architectures import TABLE

MISSING = {
    "a soft cap on attention, which SGLang computes on GPUs alone, where no test has run": ("Gemma2ForCausalLM",),
    "attention sinks, which SGLang computes on GPUs alone, and windows, whose KV it keeps in a second pool": (
        "GptOssForCausalLM",
    ),
    "layers with a sliding window, whose KV SGLang keeps in a second pool that psserve does not hand over": (
        "Cohere2ForCausalLM",
        "Olmo3ForCausalLM",
        "MinistralForCausalLM",
    ),
    "compressed KV (MLA), for which psserve has no pool on a CPU, where tests would show that it is exact": (
        "DeepseekV2ForCausalLM",
        "DeepseekV3ForCausalLM",
        "KimiK2ForCausalLM",
        "MiniCPM3ForCausalLM",
    ),
    "recurrent layers, whose state after a prompt is not KV of its tokens": (
        "FalconH1ForCausalLM",
        "GraniteMoeHybridForCausalLM",
        "JambaForCausalLM",
        "Lfm2ForCausalLM",
        "Mamba2ForCausalLM",
        "MambaForCausalLM",
        "NemotronHForCausalLM",
        "Qwen3NextForCausalLM",
        "Qwen3_5ForCausalLM",
        "Qwen3_5ForConditionalGeneration",
    ),
    "pictures or sound beside text": (
        "Gemma3ForConditionalGeneration",
        "Gemma3nForConditionalGeneration",
        "Llama4ForConditionalGeneration",
        "LlavaForConditionalGeneration",
        "Mistral3ForConditionalGeneration",
        "MllamaForConditionalGeneration",
        "Phi4MMForCausalLM",
        "Qwen2VLForConditionalGeneration",
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen3VLForConditionalGeneration",
    ),
}
"""What keeps architectures that people ask for from being served -> their names."""


def not_supported(name: str) -> str:
    """Why an architecture is refused, and which are near it, for a message."""
    why = next((why for why, names in MISSING.items() if name in names), None)
    reason = f"it has {why}" if why else "no test has shown that it is served exactly"
    near = ", ".join(f"{one} ({TABLE[one].models})" for one in nearest(name))
    return (
        f"architecture {name} is not supported: {reason}"
        f"{f'; near it is {near}' if near else ''} (supported: {', '.join(TABLE)})"
    )


def nearest(name: str) -> list[str]:
    """The supported architectures with the most similar names, the nearest first; of the same family, if any is."""
    family = name[:4].lower()
    same = [one for one in TABLE if one[:4].lower() == family]
    return difflib.get_close_matches(name, same or TABLE, n=3, cutoff=0.3 if same else 0.75)
