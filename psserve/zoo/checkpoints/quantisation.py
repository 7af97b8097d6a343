"""How a checkpoint is quantised, as its config.json says: which of its layers, by which method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.checkpoints.quantisation_methods import Awq, CompressedTensors, Fp8, Gptq, Shape, Wanted

SUPPORTED = "fp8, compressed-tensors of FP8, awq and gptq of 4 bits"
LAYERS = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
"""The linear layer that SGLang makes -> those of the checkpoint that it is made of, all of one kind."""

METHODS: Mapping[str, type[Fp8 | CompressedTensors | Awq | Gptq]] = {
    "fp8": Fp8,
    "compressed-tensors": CompressedTensors,
    "awq": Awq,
    "gptq": Gptq,
}


@dataclass(frozen=True)
class Quantisation:
    """How a checkpoint is quantised: `config` is what config.json says, `method` what that means."""

    config: dict[str, Any]
    method: Fp8 | CompressedTensors | Awq | Gptq

    def __str__(self) -> str:
        return self.method.summary

    def of_layer(self, weight: str, shape: Shape) -> dict[str, Wanted]:
        """The tensors, by name, of what is the plain weight `weight` of this shape in an unquantised checkpoint.

        ValueError: SGLang could not serve a layer so.
        """
        layer, _, last = weight.rpartition(".")
        if last != "weight" or not self.quantises(layer):
            return {weight: Wanted((shape,))}
        return {f"{layer}.{name}": wanted for name, wanted in self.method.tensors(*shape).items()}

    def quantises(self, layer: str) -> bool:
        """Whether a part of the model is a linear layer that is quantised. ValueError: SGLang takes it otherwise."""
        for fused, parts in LAYERS.items():
            part = next((part for part in parts if layer.endswith(f".{part}")), None)
            if part is not None:
                return not self.leaves_all(layer.removesuffix(part), fused, parts)
        return False

    def leaves_all(self, prefix: str, fused: str, parts: tuple[str, ...]) -> bool:
        """Whether all parts of a layer of SGLang's are left alone. ValueError: some are, or SGLang overlooks it."""
        found = {self.method.leaves(prefix + part) for part in parts}
        if not isinstance(self.method, Fp8):  # which asks for each part; the others ask for the name of the whole
            found.add(self.method.leaves(prefix + fused))
        if len(found) > 1:
            raise ValueError(
                f"{prefix}{fused} is one layer to SGLang, and the configuration leaves but a part of it alone"
            )
        return found == {True}


def read_quantisation(path: Path, config: Mapping[str, Any]) -> Quantisation | None:
    """The quantisation that the config.json at `path` describes; None if the checkpoint is not quantised.

    IncompatibleCheckpoint names what cannot be served, and what can.
    """
    if "compression_config" in config:
        raise IncompatibleCheckpoint(f"{path}: compression_config is an old name: rename it to quantization_config")
    check_other_files(path)
    document = config.get("quantization_config")
    if document is None:
        return None
    name = document.get("quant_method") if isinstance(document, dict) else None
    if not isinstance(name, str) or name not in METHODS:
        raise IncompatibleCheckpoint(f"{path}: quantization_config: method {name!r} {other_methods()}")
    try:
        return Quantisation(document, METHODS[name].model_validate(document))
    except ValidationError as error:
        raise IncompatibleCheckpoint(f"{path}: {problem(error)}: this {other_methods()}") from None


def problem(error: ValidationError) -> str:
    """The first field that is wrong, and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    field = ".".join(["quantization_config", *map(str, first["loc"])])
    return f"{field}: {first['msg'].removeprefix('Value error, ')}"


def check_other_files(path: Path) -> None:
    """Refuse files beside the config.json at `path` that say how the weights are quantised where that does not."""
    for name in ("hf_quant_config.json", "quant_model_description.json"):
        if (path.parent / name).exists():
            raise IncompatibleCheckpoint(f"{path.parent / name}: a quantisation that {other_methods()}")


def other_methods() -> str:
    """The end of a refusal."""
    return f"is not supported (supported: {SUPPORTED}): give such a checkpoint, or the unquantised one"
