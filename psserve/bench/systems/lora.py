"""SGLang's own multi-LoRA serving: its arguments, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from psserve.errors import PlanError


def check_lora(modules: Sequence[str], adapters: Mapping[str, Path], device: str) -> None:
    """Raise PlanError where the modules cannot be served as LoRA adapters."""
    if device == "cpu":
        raise PlanError(
            "system lora needs a GPU: SGLang's LoRA backends are made of Triton kernels or, like torch_native, pin "
            "memory for each batch, which PyTorch refuses without an accelerator. Leave it out"
        )
    if missing := [module for module in modules if module not in adapters]:
        raise PlanError(
            f"system lora: no adapter for {', '.join(missing)}: give the folder of each module's LoRA adapter "
            "(--adapter NAME=DIR); a zoo keeps modules merged into the base's weights"
        )


def lora_arguments(adapters: Mapping[str, Path]) -> tuple[str, ...]:
    """SGLang's arguments that load these adapters (module -> folder), all of which may be in one batch."""
    named = (f"{module}={path}" for module, path in adapters.items())
    return ("--enable-lora", "--max-loras-per-batch", str(len(adapters)), "--lora-paths", *named)
