"""An adapter in the one form that servers compute right: one rank, one scale, whole groups of layers.

SGLang multiplies every layer's product by lora_alpha / r, whatever rsLoRA or alpha_pattern say; wants one rank in a
group of layers that it computes together, and the group whole, beginning with its first. So what an adapter adds to the
base's weights is written anew: ranks are filled up with zeros, other scales go into B, missing members are zeros.

The form is PEFT's own, and gives the same sums there. Raise `psserve.zoo.disk.forms.FORM` when the same
adapter would give other files.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.checkpoints.architectures import TABLE
from psserve.zoo.checkpoints.checkpoint import Checkpoint
from psserve.zoo.checkpoints.lora import ADAPTER_CONFIG, KEY, Adapter, key
from psserve.zoo.disk.forms import ADAPTER_WEIGHTS

if TYPE_CHECKING:
    import torch

GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers that servers compute as one."""
PLACES = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "gate_up_proj", "down_proj"),
}
"""Part of a decoder layer -> its layers that servers can adapt. Beside them there is `HEAD_LAYER`."""
HEAD_LAYER = "lm_head"
PROBES = 8
"""Random inputs that show whether a form gives the adapter's sums."""
TOLERANCE = 1e-6
"""Of the sum of what is added up: a scale that goes into B is rounded to float32, once."""

Tensors = dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class Form:
    """A serving form in memory: `tensors` by PEFT's names, for all of which `rank` and `scale` hold."""

    rank: int
    scale: float
    tensors: Tensors

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of its layers, without where they are: sorted."""
        return tuple(sorted({last_part(layer) for layer in layers_of(self.tensors)}))

    def files(self) -> dict[str, bytes]:
        """Name -> content of its two files; the same adapter always gives the same."""
        from safetensors.torch import save

        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": self.rank,
            "lora_alpha": self.scale * self.rank,
            "target_modules": list(self.targets),
        }
        return {ADAPTER_CONFIG: json.dumps(config, indent=2).encode() + b"\n", ADAPTER_WEIGHTS: save(self.tensors)}


def why_not_servable(adapter: Adapter, base: Checkpoint) -> str | None:
    """Why servers cannot add this adapter to the base while they compute; None if they can."""
    parts = TABLE[base.architecture].adapters
    if not parts:
        return f"servers add adapters to no {base.architecture} while they compute"
    for layer in adapter.layers.values():
        parent, name = layer.rpartition(".")[::2]
        part = last_part(parent)
        known = part in parts and name in PLACES[part] and (group_of(layer) or f"{layer}.weight" in base.tensors)
        if layer != HEAD_LAYER and not known:
            return f"servers cannot adapt layers such as {layer}"
        for other in group_of(layer):
            if f"{other}.weight" not in base.tensors:
                return f"servers compute {layer} together with {other}, which the base does not have"
    return None


def make_form(adapter: Adapter, base: Checkpoint) -> Form:
    """The serving form of an adapter that is servable.

    It has the adapter's element type, or float32 where that cannot hold the scaled matrices or there are several.
    """
    import torch

    matrices = adapter.matrices()
    rank = max(a.shape[0] for a, _ in matrices.values())
    scale = usual_scale(adapter)
    tensors: Tensors = {}
    for layer, (a, b) in matrices.items():
        tensors[key(layer, "A")] = torch.nn.functional.pad(a, (0, 0, 0, rank - a.shape[0]))
        tensors[key(layer, "B")] = torch.nn.functional.pad(
            scaled(b, adapter.config.scale(layer) / scale), (0, rank - b.shape[1])
        )
    dtypes = {tensor.dtype for tensor in tensors.values()}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    for layer in missing_members(matrices):
        out, width = base.tensors[f"{layer}.weight"].shape
        tensors[key(layer, "A")] = torch.zeros(rank, width)
        tensors[key(layer, "B")] = torch.zeros(out, rank)
    return Form(rank, scale, {name: tensors[name].to(dtype).contiguous() for name in sorted(tensors)})


def usual_scale(adapter: Adapter) -> float:
    """The scale of most layers, which then keep their matrices to the bit."""
    scales = Counter(adapter.config.scale(layer) for layer in adapter.layers.values())
    return next((scale for scale, _ in scales.most_common() if scale), 1.0)


def scaled(b: torch.Tensor, factor: float) -> torch.Tensor:
    """`b` times `factor`, in the type of `b` if it holds every product exactly, else in float32."""
    import torch

    if factor == 1:
        return b
    product = b.float() * factor
    rounded = product.to(b.dtype)
    return rounded if torch.equal(rounded.float(), product) else product


def missing_members(layers: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> list[str]:
    """The layers that are not there, and belong to a group of which a member is."""
    return sorted({other for layer in layers for other in group_of(layer)} - layers.keys())


def group_of(layer: str) -> list[str]:
    """All layers that servers compute together with `layer`, itself included; none for one that stands alone."""
    parent, name = layer.rpartition(".")[::2]
    return [f"{parent}.{other}" for group in GROUPS if name in group for other in group]


def last_part(layer: str) -> str:
    """The last name of a layer's path."""
    return layer.rpartition(".")[2]


def layers_of(tensors: Tensors) -> list[str]:
    """The layers that have matrices among `tensors`, in order."""
    matches = [KEY.fullmatch(name) for name in tensors]
    return [match["layer"] for match in matches if match and match["side"] == "A"]


def check_form(adapter: Adapter, directory: Path) -> None:
    """Raise IncompatibleCheckpoint unless the form in `directory` gives the adapter's sums, as servers read it.

    Both are multiplied with random inputs in float64. A layer that the adapter lacks must give zeros.
    """
    import torch
    from safetensors.torch import load_file

    config = json.loads((directory / ADAPTER_CONFIG).read_bytes())
    tensors = {name: tensor.double() for name, tensor in load_file(directory / ADAPTER_WEIGHTS).items()}
    scale, matrices = config["lora_alpha"] / config["r"], adapter.matrices()
    found = layers_of(tensors)
    if lost := matrices.keys() - set(found):
        raise wrong_form(adapter, min(lost))
    generator = torch.Generator().manual_seed(0)
    for layer in found:
        a, b = (tensors[key(layer, side)] for side in "AB")
        inputs = torch.randn(a.shape[1], PROBES, generator=generator, dtype=torch.float64)
        wanted = torch.zeros(b.shape[0], PROBES, dtype=torch.float64)
        bound = wanted
        if layer in matrices:
            own_a, own_b = (matrix.double() for matrix in matrices[layer])
            inner = own_a @ inputs
            wanted = adapter.config.scale(layer) * (own_b @ inner)
            bound = TOLERANCE * abs(adapter.config.scale(layer)) * (own_b.abs() @ inner.abs())
        if a.shape[0] != config["r"] or not bool(((scale * (b @ (a @ inputs)) - wanted).abs() <= bound).all()):
            raise wrong_form(adapter, layer)


def wrong_form(adapter: Adapter, layer: str) -> IncompatibleCheckpoint:
    """The error for an adapter of which a layer's form is not what it should be."""
    return IncompatibleCheckpoint(
        f"{adapter.path}: layer {layer}: what servers would load does not give the adapter's sums: add it merged into "
        "the base's weights, with --merge"
    )
