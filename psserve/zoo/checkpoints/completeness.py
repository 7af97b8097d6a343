"""The weights that a configuration asks for, and whether a checkpoint has them: no more, no fewer, of these shapes.

Servers leave weights that a checkpoint lacks as they happen to be in memory, and skip those they do not know.
"""

from __future__ import annotations

from collections.abc import Mapping

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.checkpoints.architectures import expected_tensors
from psserve.zoo.checkpoints.checkpoint import Checkpoint
from psserve.zoo.checkpoints.kv_scales import may_be_kv_scale
from psserve.zoo.checkpoints.layers import expert_count
from psserve.zoo.checkpoints.quantisation_methods import Gptq, Wanted
from psserve.zoo.checkpoints.safetensors import Tensor, Weights

SHOWN = 5


def check_tensors(checkpoint: Checkpoint) -> None:
    """Raise IncompatibleCheckpoint, with the first few, if weights are missing, unknown, of another shape or type."""
    path, config, tensors = checkpoint.path, checkpoint.config, checkpoint.tensors
    for count, what in ((config["num_hidden_layers"], "layers"), (expert_count(config), "experts")):
        if count > len(tensors):
            raise IncompatibleCheckpoint(
                f"{path}: config.json says {count} {what}, and there are {len(tensors)} tensors: one of the two is "
                "another model's"
            )
    wanted = wanted_tensors(checkpoint)
    wrong = [text for name in wanted if (text := problem(name, wanted[name], tensors.get(name)))]
    optional, empty = may_be_kv_scale(checkpoint), empty_biases(checkpoint, wanted)
    wrong += [
        f"{name} is not in this architecture"
        for name, tensor in tensors.items()
        if name not in wanted and name not in empty and not ignored(name) and not optional(name, tensor)
    ]
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise IncompatibleCheckpoint(f"{path}: weights do not fit config.json: {'; '.join(wrong[:SHOWN])}{more}")


def wanted_tensors(checkpoint: Checkpoint) -> dict[str, Wanted]:
    """Name -> what it must be, of every tensor. IncompatibleCheckpoint: a layer cannot be quantised as it should be."""
    plain = expected_tensors(checkpoint.architecture, checkpoint.config, checkpoint.head_dim)
    quantisation = checkpoint.quantisation
    if quantisation is None:
        return {name: Wanted((shape,)) for name, shape in plain.items()}
    wanted: dict[str, Wanted] = {}
    for name, shape in plain.items():
        try:
            wanted |= quantisation.of_layer(name, shape)
        except ValueError as error:
            raise IncompatibleCheckpoint(f"{checkpoint.path}: {name}, {quantisation}: {error}") from None
    return wanted


def empty_biases(checkpoint: Checkpoint, wanted: Mapping[str, Wanted]) -> set[str]:
    """The biases of zeros that writers of GPTQ add to layers that have none, and SGLang skips."""
    if not (checkpoint.quantisation and isinstance(checkpoint.quantisation.method, Gptq)):
        return set()
    layers = {name.removesuffix(".qweight") for name in wanted if name.endswith(".qweight")}
    extra = [name for name in checkpoint.tensors if name not in wanted and name.removesuffix(".bias") in layers]
    weights = Weights(checkpoint.shards) if extra else None
    return {name for name in extra if weights and all(not block.strip(b"\0") for block in weights.read(name))}


def problem(name: str, wanted: Wanted, tensor: Tensor | None) -> str | None:
    """What is wrong with a tensor; None if nothing is."""
    shapes = " or ".join(str(list(shape)) for shape in wanted.shapes)
    if tensor is None:
        return f"{name} needs {shapes}, found none"
    if tensor.shape not in wanted.shapes:
        return f"{name} needs {shapes}, found {list(tensor.shape)}"
    if tensor.dtype not in wanted.dtypes:
        return f"{name} needs {' or '.join(wanted.dtypes)}, found {tensor.dtype}"
    return None


def ignored(name: str) -> bool:
    """Whether some writers save this tensor and others do not: a tied output layer, rotary frequencies."""
    return name == "lm_head.weight" or name.endswith("rotary_emb.inv_freq")
