"""Quantised copies of a checkpoint, with the files of each method that can be served and random values.

For tests of what is done with such files. Nothing is quantised: the values have nothing to do with the original's.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from psserve.zoo.checkpoints.architectures import wanted_tensors
from psserve.zoo.checkpoints.checkpoint import read_checkpoint

E4M3: dict[str, Any] = {"num_bits": 8, "type": "float", "symmetric": True}
FP8: dict[str, Any] = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
CONFIGS: dict[str, dict[str, Any]] = {
    "fp8-blocks": FP8 | {"weight_block_size": [32, 32], "modules_to_not_convert": ["lm_head"]},
    "fp8-static": {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]},
    "compressed-dynamic": {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": E4M3 | {"strategy": "channel", "dynamic": False},
                "input_activations": E4M3 | {"strategy": "token", "dynamic": True},
                "output_activations": None,
            }
        },
        "kv_cache_scheme": None,
    },
    "compressed-static": {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "ignore": ["re:.*lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": E4M3 | {"strategy": "tensor", "dynamic": False},
                "input_activations": E4M3 | {"strategy": "tensor", "dynamic": False},
            }
        },
    },
    "compressed-blocks": {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": E4M3 | {"strategy": "block", "block_structure": [32, 32], "dynamic": False},
                "input_activations": E4M3 | {"strategy": "group", "group_size": 32, "dynamic": True},
            }
        },
    },
    "awq": {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 32,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": None,
    },
    "gptq": {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 32,
        "sym": True,
        "desc_act": False,
        "checkpoint_format": "gptq",
        "lm_head": False,
    },
}
"""Name -> a `quantization_config` as such checkpoints have it, but for sizes, which suit tiny models."""
SEED = 5


def write_quantised(original: Path, destination: Path, config: dict[str, Any], seed: int = SEED) -> Path:
    """Write a copy of the checkpoint `original` that is quantised as `config` says, with random values."""
    import torch
    from safetensors.torch import save_file

    shutil.copytree(original, destination, ignore=shutil.ignore_patterns("*.safetensors*"))
    path = destination / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": config}, indent=2))
    for shard in original.glob("*.safetensors"):  # to be read once more before it is replaced
        shutil.copyfile(shard, destination / shard.name)
    wanted = wanted_tensors(read_checkpoint(destination))
    generator = torch.Generator().manual_seed(seed)
    types = {"F8_E4M3": torch.float8_e4m3fn, "I32": torch.int32}
    tensors = {}
    for name, tensor in wanted.items():
        shape, kind = tensor.shapes[-1], types.get(tensor.dtypes[0])
        if kind == torch.int32:
            tensors[name] = torch.randint(0, 2**31 - 1, shape, dtype=kind, generator=generator)
        else:
            tensors[name] = torch.rand(shape, generator=generator).add(0.5).to(kind or torch.bfloat16)
    for shard in destination.glob("*.safetensors"):
        shard.unlink()
    save_file(tensors, destination / "model.safetensors", metadata={"format": "pt"})
    return destination
