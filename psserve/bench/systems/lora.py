"""SGLang's own multi-LoRA serving."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def lora_arguments(adapters: Mapping[str, Path], device: str) -> tuple[str, ...]:
    """SGLang's arguments that load these adapters (module -> folder), all of which may be in one batch."""
    backend = ("--lora-backend", "torch_native") if device == "cpu" else ()
    named = (f"{module}={path}" for module, path in adapters.items())
    return ("--enable-lora", *backend, "--max-loras-per-batch", str(len(adapters)), "--lora-paths", *named)
