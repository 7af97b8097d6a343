"""The methods of quantisation that can be served, and the tensors of a linear layer in each.

Of a linear layer [out, in] of the decoder's, in place of `weight` [out, in]:

| method | tensors | read by SGLang 0.5.17 and 0.5.18 (srt/layers/quantization) |
|---|---|---|
| fp8, blocks [n, k] | weight E4M3 [out, in], weight_scale_inv [out/n, in/k] | fp8.py, create_fp8_weight_ |
| fp8, whole tensors | weight E4M3 [out, in], weight_scale; input_scale if static | the same |
| compressed-tensors | weight E4M3 [out, in], weight_scale: one, [out, 1] or [out/n, in/k]; input_scale if static |
  compressed_tensors/schemes/compressed_tensors_w8a8_fp8.py, ..._w8a16_fp8.py |
| awq, groups of g | qweight I32 [in, out/8], qzeros I32 [in/g, out/8], scales [in/g, out] | awq/schemes/awq_marlin.py |
| gptq, groups of g | qweight I32 [in/8, out], qzeros I32 [in/g, out/8], scales [in/g, out], g_idx I32 [in] |
  gptq/schemes/gptq_marlin.py |

Embeddings, norms, biases and the output layer are never quantised here: SGLang reads a quantised output layer with few
methods and other tensors. Layers that the configuration leaves alone have their `weight`.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PositiveInt, field_validator, model_validator

from psserve.zoo.disk.manifest import Record

FLOATS = ("F64", "F32", "F16", "BF16")
"""Element types of what is not quantised, scales included."""
PACKED = 8
"""Values of 4 bits in an I32."""
Shape = tuple[int, ...]
ONE: tuple[Shape, ...] = ((), (1,))
"""The shapes in which writers save a single number."""
Blocks = Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]
GroupSize = Literal[32, 64, 128]
"""Those of SGLang's Marlin kernels (marlin_utils.py, MARLIN_SUPPORTED_GROUP_SIZES)."""
MARLIN_UNITS = (64, 128)
"""Rows and columns that these kernels work on (marlin_utils.py, verify_marlin_supports_shape); all groups fit into."""


@dataclass(frozen=True)
class Wanted:
    """What a tensor must be: of one of these shapes and element types."""

    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...] = FLOATS


class Method(Record):
    """One method, as the `quantization_config` of config.json describes it. Fields that are not here say nothing of
    what is served: how the checkpoint was made, by which version."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    @property
    @abstractmethod
    def summary(self) -> str:
        """A few words for people."""

    @abstractmethod
    def tensors(self, out: int, into: int) -> dict[str, Wanted]:
        """Last part of the name -> tensor of a layer [out, into]. ValueError: such a layer cannot be quantised so."""

    @property
    @abstractmethod
    def units(self) -> tuple[int, int]:
        """Rows and columns of a layer [out, in] that no two GPUs can share."""

    def leaves(self, layer: str) -> bool:
        """Whether the layer of this name, as the checkpoint or as SGLang has it, is left alone."""
        return False


class Fp8(Method):
    """FP8 with scales for blocks (Qwen's) or for whole tensors (AutoFP8's)."""

    quant_method: Literal["fp8"]
    activation_scheme: Literal["dynamic", "static"]
    fmt: Literal["e4m3"] | None = None
    weight_block_size: Blocks | None = None
    ignored_layers: list[str] | None = None
    modules_to_not_convert: list[str] | None = None
    kv_cache_quant_algo: None = None
    """Would choose the KV cache's type for this model alone; it is the fleet's (kv_cache_dtype)."""

    @model_validator(mode="after")
    def check_blocks(self) -> Fp8:
        """Refuse what SGLang does: blocks with static activations; and two lists of which it would read one."""
        if self.weight_block_size and self.activation_scheme == "static":
            raise ValueError("weight_block_size needs the activation_scheme 'dynamic'")
        if self.ignored_layers and self.modules_to_not_convert:
            raise ValueError("ignored_layers and modules_to_not_convert: give one of the two")
        return self

    @property
    def summary(self) -> str:
        """See `Method`."""
        what = of_blocks(self.weight_block_size) if self.weight_block_size else "whole tensors"
        return f"fp8, {what}{', static activations' if self.activation_scheme == 'static' else ''}"

    @property
    def units(self) -> tuple[int, int]:
        """See `Method`."""
        rows, columns = self.weight_block_size or (1, 1)
        return rows, columns

    def tensors(self, out: int, into: int) -> dict[str, Wanted]:
        """See `Method`."""
        static = {"input_scale": Wanted(ONE)} if self.activation_scheme == "static" else {}
        if self.weight_block_size is None:
            return {**e4m3(out, into), "weight_scale": Wanted(ONE), **static}
        return {**e4m3(out, into), "weight_scale_inv": block_scales(out, into, self.weight_block_size)}

    def leaves(self, layer: str) -> bool:
        """By whole parts of the name (quantization/utils.py, is_layer_skipped)."""
        names = self.ignored_layers or self.modules_to_not_convert or []
        return any(f".{name.removeprefix('model.').rstrip('.')}." in f".{layer}." for name in names)


class Numbers(Record):
    """How weights, or activations, are quantised by compressed-tensors."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    num_bits: Literal[8]
    type: Literal["float"]
    symmetric: Literal[True] = True
    strategy: str
    dynamic: bool = False
    block_structure: Blocks | None = None


class Group(Record):
    """Layers that are quantised alike."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    targets: list[Literal["Linear"]] = Field(min_length=1)
    format: Literal["float-quantized"] | None = None
    weights: Numbers
    input_activations: Numbers | None = None
    output_activations: None = None

    @model_validator(mode="after")
    def check_strategies(self) -> Group:
        """Refuse what SGLang has no scheme for (compressed_tensors.py, _is_fp8_w8a8 and _is_fp8_w8a16)."""
        weights, inputs = self.weights, self.input_activations
        if weights.strategy not in ("tensor", "channel", "block") or weights.dynamic:
            raise ValueError(
                f"weights of strategy {weights.strategy!r}: expected static ones by tensor, channel or block"
            )
        if (weights.strategy == "block") != (weights.block_structure is not None):
            raise ValueError("weights: block_structure goes with the strategy 'block'")
        if weights.strategy == "block" and (inputs is None or not inputs.dynamic):
            raise ValueError("weights in blocks need dynamic input_activations")
        if inputs and not inputs.dynamic and inputs.strategy != "tensor":
            raise ValueError(f"static input_activations of strategy {inputs.strategy!r}: expected 'tensor'")
        return self


class CompressedTensors(Method):
    """FP8 as llm-compressor writes it (RedHatAI's)."""

    quant_method: Literal["compressed-tensors"]
    format: Literal["float-quantized"]
    config_groups: dict[str, Group] = Field(min_length=1, max_length=1)
    ignore: list[str] = Field(default=[])
    sparsity_config: dict[str, Any] | None = None
    transform_config: dict[str, Any] | None = None

    @field_validator("ignore")
    @classmethod
    def check_patterns(cls, ignore: list[str]) -> list[str]:
        """Refuse what is no pattern."""
        for entry in ignore:
            try:
                re.compile(entry.removeprefix("re:") if entry.startswith("re:") else "")
            except re.error as error:
                raise ValueError(f"{entry!r} is no pattern ({error})") from None
        return ignore

    @field_validator("sparsity_config", "transform_config")
    @classmethod
    def check_empty(cls, config: dict[str, Any] | None) -> dict[str, Any] | None:
        """Refuse weights that are also sparse or rotated."""
        if config:
            raise ValueError("only quantised weights can be served, not sparse or rotated ones")
        return config

    @property
    def group(self) -> Group:
        """The only one."""
        return next(iter(self.config_groups.values()))

    @property
    def summary(self) -> str:
        """See `Method`."""
        weights, inputs = self.group.weights, self.group.input_activations
        kinds = {"tensor": "whole tensors", "channel": "rows"}
        what = of_blocks(weights.block_structure) if weights.block_structure else kinds[weights.strategy]
        activations = (
            ", activations as they are" if inputs is None else "" if inputs.dynamic else ", static activations"
        )
        return f"compressed-tensors FP8, {what}{activations}"

    @property
    def units(self) -> tuple[int, int]:
        """See `Method`."""
        rows, columns = self.group.weights.block_structure or (1, 1)
        return rows, columns

    def tensors(self, out: int, into: int) -> dict[str, Wanted]:
        """See `Method`."""
        weights, inputs = self.group.weights, self.group.input_activations
        if weights.block_structure:
            scale = block_scales(out, into, weights.block_structure)
        else:
            scale = Wanted(((out, 1),) if weights.strategy == "channel" else ONE)
        static = {"input_scale": Wanted(ONE)} if inputs and not inputs.dynamic else {}
        return {**e4m3(out, into), "weight_scale": scale, **static}

    def leaves(self, layer: str) -> bool:
        """By name, its last parts, or a pattern after `re:` (compressed_tensors/utils.py, should_ignore_layer)."""
        return any(
            re.match(entry[3:], layer) is not None if entry.startswith("re:") else f".{layer}".endswith(f".{entry}")
            for entry in self.ignore
        )


class Awq(Method):
    """AWQ of 4 bits."""

    quant_method: Literal["awq"]
    bits: Literal[4]
    group_size: GroupSize
    zero_point: Literal[True]
    version: str = "gemm"
    modules_to_not_convert: list[str] | None = None
    lm_head: Literal[False] = False

    @field_validator("version")
    @classmethod
    def check_version(cls, version: str) -> str:
        """Refuse other orders of the values in a tensor: SGLang takes all of them for this one."""
        if version.lower() != "gemm":
            raise ValueError(f"{version!r}: expected 'gemm'")
        return version

    @property
    def summary(self) -> str:
        """See `Method`."""
        return f"awq of 4 bits, groups of {self.group_size}"

    @property
    def units(self) -> tuple[int, int]:
        """See `Method`."""
        return MARLIN_UNITS

    def tensors(self, out: int, into: int) -> dict[str, Wanted]:
        """See `Method`."""
        groups = check_groups(out, into, self.group_size)
        return {
            "qweight": Wanted(((into, out // PACKED),), ("I32",)),
            "qzeros": Wanted(((groups, out // PACKED),), ("I32",)),
            "scales": Wanted(((groups, out),)),
        }

    def leaves(self, layer: str) -> bool:
        """By any part of the name (awq.py, is_layer_skipped_awq)."""
        return any(name in layer for name in self.modules_to_not_convert or [])


class Gptq(Method):
    """GPTQ of 4 bits."""

    quant_method: Literal["gptq"]
    bits: Literal[4]
    group_size: Literal[-1, 32, 64, 128]
    sym: Literal[True]
    desc_act: bool
    checkpoint_format: Literal["gptq", ""] | None = None
    is_marlin_format: Literal[False] = False
    pack_dtype: Literal["int32"] | None = None
    lm_head: Literal[False] = False
    dynamic: dict[str, Any] | None = None

    @field_validator("dynamic")
    @classmethod
    def check_uniform(cls, dynamic: dict[str, Any] | None) -> dict[str, Any] | None:
        """Refuse layers that are quantised otherwise than the others."""
        if dynamic:
            raise ValueError("only one kind of quantisation for all layers can be served")
        return dynamic

    @property
    def summary(self) -> str:
        """See `Method`."""
        return f"gptq of 4 bits, {'rows' if self.group_size == -1 else f'groups of {self.group_size}'}"

    @property
    def units(self) -> tuple[int, int]:
        """See `Method`."""
        return MARLIN_UNITS

    def tensors(self, out: int, into: int) -> dict[str, Wanted]:
        """See `Method`."""
        groups = check_groups(out, into, into if self.group_size == -1 else self.group_size)
        return {
            "qweight": Wanted(((into // PACKED, out),), ("I32",)),
            "qzeros": Wanted(((groups, out // PACKED),), ("I32",)),
            "scales": Wanted(((groups, out),)),
            "g_idx": Wanted(((into,),), ("I32",)),
        }


def e4m3(out: int, into: int) -> dict[str, Wanted]:
    """The weight of a layer in FP8."""
    return {"weight": Wanted(((out, into),), ("F8_E4M3",))}


def block_scales(out: int, into: int, blocks: list[int]) -> Wanted:
    """The scales of a layer's blocks. ValueError if a row of blocks would be of two layers, once SGLang joins them."""
    if out % blocks[0]:
        raise ValueError(f"{out} rows are not whole blocks of {blocks[0]}")
    return Wanted(((out // blocks[0], -(-into // blocks[1])),))


def check_groups(out: int, into: int, size: int) -> int:
    """The number of groups in a row. ValueError if they, or the packed values, are not whole."""
    if into % size or into % PACKED or out % PACKED:
        raise ValueError(f"a layer [{out}, {into}] is not of whole groups of {size}, and {PACKED} values to a number")
    return into // size


def of_blocks(blocks: list[int]) -> str:
    """Blocks, in words."""
    return f"blocks of {blocks[0]}x{blocks[1]}"
