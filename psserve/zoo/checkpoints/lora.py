"""A LoRA adapter in PEFT's layout, and the weights that it makes of the base's: W + scale * B A.

The product is added in float32 and the sum rounded once, to the base's element type. Weights pass through memory a few
rows at a time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, ValidationError

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.checkpoints.checkpoint import Checkpoint
from psserve.zoo.checkpoints.safetensors import BLOCK, EMBEDDINGS, Tensor, WeightFile, Weights, read_header
from psserve.zoo.disk.forms import ADAPTER_WEIGHTS
from psserve.zoo.disk.manifest import Record, first_problem
from psserve.zoo.disk.storage import read_json

if TYPE_CHECKING:
    import torch


ADAPTER_CONFIG = "adapter_config.json"
MERGE_IT = "merge it with PEFT's merge_and_unload, save the model, and add that"
SAME_SUM = {
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
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
    "velora_config",
}
"""Fields that say how an adapter is trained or placed, but nothing of the sum."""
REASONS = {
    "alora_invocation_tokens": "it acts from certain tokens on only",
    "bias": "biases were trained too",
    "fan_in_fan_out": "weights are stored transposed",
    "kasa_config": "KaSA takes a part out of the base's weights",
    "layer_replication": "layers are repeated",
    "lora_bias": "biases were trained too",
    "modules_to_save": "whole layers were trained beside the adapter",
    "target_parameters": "experts were adapted, which checkpoints have one by one, and adapters together",
    "trainable_token_indices": "embeddings were trained beside the adapter",
    "use_dora": "DoRA also rescales the weights",
}
"""Why a field that is set makes an adapter something else than a sum. Fields that are in no list are refused too."""
INITIALISATIONS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""Those that leave the base's own weights alone; PiSSA, OLoRA and others take a part out of them."""
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.|^module\.")
"""What torch.compile, FSDP, activation checkpointing and DDP put into the names of a model that is saved in them."""
ADAPTER_NAME = re.compile(r"(?<=\.lora_[AB])\.default(?=\.weight$)")
"""PEFT's name for the first adapter of a model, which its own files leave out, and a plain state dict has."""
KEY = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")
COPY = re.compile(r"base_model\.model\.(?P<layer>lm_head|model\.embed_tokens)(\.base_layer)?\.weight")
"""The base's own output layer or embeddings, which PEFT may save with an adapter."""
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Element types of weights that can be added to -> PyTorch's name."""


class AdapterConfig(Record):
    """What decides the sum W + scale * B A. All other fields are in `model_extra`, for `check_adapter_fields`."""

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
        raise IncompatibleCheckpoint(
            f"{path}: {first_problem(error)}: not the configuration of a LoRA adapter"
        ) from None
    except re.error as error:
        raise IncompatibleCheckpoint(f"{path}: {pattern!r} is no pattern ({error}): correct it") from None
    check_adapter_fields(path, config)
    return config


def check_adapter_fields(path: Path, config: AdapterConfig) -> None:
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


@dataclass(frozen=True)
class Adapter:
    """An adapter that fits the base.

    `layers`: name of a weight that it changes -> what the adapter calls its layer; `names`: what PEFT calls a tensor ->
    what the file calls it.
    """

    path: Path
    config: AdapterConfig
    layers: dict[str, str]
    names: dict[str, str]

    def product(self, weight: str) -> tuple[torch.Tensor, torch.Tensor]:
        """B times the scale, and A: float32, [out, rank] and [rank, in]."""
        layer = self.layers[weight]
        [(a, b)] = self.matrices([layer]).values()
        return b.float() * self.config.scale(layer), a.float()

    def matrices(self, layers: Iterable[str] | None = None) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Layer (of `layers`, or all) -> A [rank, in] and B [out, rank], as they are in the file."""
        from safetensors import safe_open

        with safe_open(self.path / ADAPTER_WEIGHTS, framework="pt") as file:
            return {
                layer: (file.get_tensor(self.names[key(layer, "A")]), file.get_tensor(self.names[key(layer, "B")]))
                for layer in (self.layers.values() if layers is None else layers)
            }


def key(layer: str, side: str) -> str:
    """What PEFT calls one of the two matrices of a layer."""
    return f"base_model.model.{layer}.lora_{side}.weight"


def read_adapter(directory: Path, base: Checkpoint) -> Adapter:
    """The adapter in `directory`; IncompatibleCheckpoint if it is no plain LoRA, or does not fit the base."""
    check_mergeable(directory, base)
    config = read_adapter_config(directory)
    path = directory / ADAPTER_WEIGHTS
    if not path.is_file():
        raise IncompatibleCheckpoint(f"{path}: not there: pickled weights are refused, save the adapter as safetensors")
    header = read_header(path)
    names = plain_names(path, header)
    tensors = {plain: header[name] for plain, name in names.items()}
    copies = {plain: f"{match['layer']}.weight" for plain in names if (match := COPY.fullmatch(plain))}
    check_copies(path, {names[plain]: original for plain, original in copies.items()}, base)
    layers = adapted_layers(path, [plain for plain in names if plain not in copies])
    for layer in layers:
        check_layer(path, layer, config, tensors, base)
    return Adapter(directory, config, {f"{layer}.weight": layer for layer in layers}, names)


def check_mergeable(directory: Path, base: Checkpoint) -> None:
    """Raise IncompatibleCheckpoint if there are no weights that a product could be added to."""
    if base.quantisation:
        raise IncompatibleCheckpoint(
            f"{directory}: a LoRA adapter, and the base is quantised ({base.quantisation}): nothing can be added to "
            "its weights: merge it into the unquantised model with PEFT's merge_and_unload, save that, and add it, "
            "quantised or not"
        )


def plain_names(path: Path, names: Iterable[str]) -> dict[str, str]:
    """What PEFT calls each tensor -> its name in the file, which may tell what the model was wrapped in."""
    plain: dict[str, str] = {}
    for name in names:
        own = ADAPTER_NAME.sub("", WRAPPERS.sub("", name))
        if own in plain:
            raise IncompatibleCheckpoint(f"{path}: tensors {plain[own]} and {name} are one and the same: remove one")
        plain[own] = name
    return plain


def check_copies(path: Path, copies: dict[str, str], base: Checkpoint) -> None:
    """Raise IncompatibleCheckpoint unless the adapter's copies of the base's weights hold the base's values.

    `copies` maps the adapter's names to the base's.
    """
    from safetensors import safe_open

    weights = Weights(base.shards)
    for name, copied in copies.items():
        original = EMBEDDINGS if base.tied and copied not in weights else copied
        if original not in weights:
            raise IncompatibleCheckpoint(f"{path}: tensor {name}: the base has no {original}: is it another base?")
        with (
            safe_open(path, framework="pt") as file,
            safe_open(weights.places[original].path, framework="pt") as base_file,
        ):
            if not same_values(file.get_slice(name), base_file.get_slice(original)):
                raise IncompatibleCheckpoint(f"{path}: tensor {name} is not the base's {original}: {MERGE_IT}")


def same_values(one: Any, other: Any) -> bool:
    """Whether two matrices in files are equal, compared some rows at a time; their types may differ."""
    import torch

    shape = one.get_shape()
    if shape != other.get_shape():
        return False
    rows = max(BLOCK // (4 * shape[1]), 1)
    parts = (slice(at, at + rows) for at in range(0, shape[0], rows))
    return all(torch.equal(one[part].float(), other[part].float()) for part in parts)


def adapted_layers(path: Path, names: list[str]) -> list[str]:
    """The layers that have both matrices; IncompatibleCheckpoint for a tensor that is not one of a pair."""
    sides: dict[str, set[str]] = {}
    for name in names:
        match = KEY.fullmatch(name)
        if match is None:
            raise IncompatibleCheckpoint(f"{path}: tensor {name} is no LoRA matrix of a linear layer: {MERGE_IT}")
        sides.setdefault(match["layer"], set()).add(match["side"])
    if not sides:
        raise IncompatibleCheckpoint(f"{path}: holds no tensors: save the adapter again")
    for layer, found in sides.items():
        if len(found) < 2:
            missing = key(layer, *({"A", "B"} - found))
            raise IncompatibleCheckpoint(f"{path}: tensor {missing} is missing: save the adapter again")
    return list(sides)


def check_layer(path: Path, layer: str, config: AdapterConfig, tensors: dict[str, Tensor], base: Checkpoint) -> None:
    """Check the matrices of a layer against the base's weight and the configuration."""
    weight = base.tensors.get(f"{layer}.weight")
    if weight is None or len(weight.shape) != 2:
        raise IncompatibleCheckpoint(f"{path}: layer {layer}: the base has no such linear layer: is it another base?")
    if "embed_tokens" in layer or (layer == "lm_head" and base.config.get("tie_word_embeddings")):
        raise IncompatibleCheckpoint(f"{path}: layer {layer}: an adapter on embeddings: {MERGE_IT}")
    a, b = (tensors[key(layer, side)] for side in "AB")
    rank = config.rank(layer)
    wanted = ((rank, weight.shape[1]), (weight.shape[0], rank))
    if (a.shape, b.shape) != wanted:
        raise IncompatibleCheckpoint(
            f"{path}: layer {layer}: A is {list(a.shape)} and B is {list(b.shape)}, where the base's weight and rank "
            f"{rank} need {list(wanted[0])} and {list(wanted[1])}: is it another base?"
        )
    for what, tensor in (("the base's weight", weight), ("A", a), ("B", b)):
        if tensor.dtype not in FLOATS:
            raise IncompatibleCheckpoint(f"{path}: layer {layer}: {what} is {tensor.dtype}, not {', '.join(FLOATS)}")


def merged_file(file: WeightFile, adapter: Adapter) -> WeightFile:
    """A file of the base with the adapter merged into it: the same names, shapes and types in the same places."""

    def read(name: str, size: int = BLOCK) -> Iterator[bytes]:
        if name in adapter.layers:
            return merged_rows(file, name, adapter)
        return file.read(name, size)

    return replace(file, read=read)


def merged_rows(file: WeightFile, name: str, adapter: Adapter) -> Iterator[bytes]:
    """The bytes of one merged weight, some rows at a time."""
    import torch

    weight = file.tensors[name]
    dtype: torch.dtype = getattr(torch, FLOATS[weight.dtype])
    b, a = adapter.product(name)
    row = weight.size // weight.shape[0]
    rows = max(BLOCK // row, 1)
    for at, block in enumerate(file.read(name, rows * row)):
        part = torch.frombuffer(bytearray(block), dtype=dtype).reshape(-1, weight.shape[1])
        total = part.float() + b[at * rows : (at + 1) * rows] @ a
        yield total.to(dtype).view(torch.uint8).numpy().tobytes()
