"""What quantised weights ask of a fleet: GPUs that can compute with them, activations of 16 bits, their real bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psserve.errors import PlanError
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.sglang_args import EngineSettings
from psserve.zoo import Base, Module
from psserve.zoo.checkpoints.quantisation import read_quantisation
from psserve.zoo.disk.storage import read_json

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Needs:
    """What a method of quantisation needs, and how small its weights are."""

    capability: tuple[int, int]
    """The oldest architecture, as `get_min_capability` of SGLang 0.5.18's class has it."""
    parameter_bytes: float
    """At least, of each parameter."""


METHODS = {
    "fp8": Needs((8, 0), 1),
    "compressed-tensors": Needs((8, 0), 1),
    "awq": Needs((7, 5), 0.5),
    "gptq": Needs((7, 5), 0.5),
}


def method(quantisation: str) -> str:
    """The method of a manifest's words, e.g. "fp8" of "fp8, blocks of 128x128"."""
    return quantisation.replace(",", " ").split()[0]


def quantisation_of(base: Base, module: Module | None) -> str | None:
    """How the weights of the base, or of a module, are quantised; None: not."""
    own = module.quantisation if module is not None else None
    return None if own == "none" else own or base.quantisation


def served_bytes(base: Base, module: Module | None, dtype: str) -> int:
    """Bytes of the weights on a server that computes in `dtype`: of the base, or of a module.

    Quantised ones are served as they are stored; others are converted. A module may have a tensor that the base has
    not: an output layer of its own. An adapter on a server of its own is merged into the base's weights.
    """
    files = (base if module is None or module.adapter is not None else module).weight_bytes
    if quantisation_of(base, module):
        return files
    stored = base.dtype if module is None or module.dtype is None else module.dtype
    return int(files * DTYPE_BYTES[dtype] / DTYPE_BYTES.get(stored, 2))


def parameters(base: Base, dtype: str) -> float:
    """The base's parameters, at most."""
    size = METHODS[method(base.quantisation)].parameter_bytes if base.quantisation else DTYPE_BYTES[dtype]
    return served_bytes(base, None, dtype) / size


def check_quantised(base: Base, modules: Iterable[Module], settings: EngineSettings, machine: Machine) -> None:
    """Check that this machine can serve the base and these modules.

    Raises:
        PlanError: weights are quantised, and there is no GPU, or one that is too old, or numbers are of 32 bits.
    """
    for name, found in [(base.name, base.quantisation), *((one.name, quantisation_of(base, one)) for one in modules)]:
        if not found:
            continue
        if settings.device == "cpu":
            raise PlanError(f"{name} is quantised ({found}), which needs GPUs, and this fleet runs on CPU")
        if settings.dtype == "float32":
            raise PlanError(f"{name} is quantised ({found}), and SGLang computes that in 16 bits: give another --dtype")
        least = METHODS[method(found)].capability
        for gpu in machine.gpus:
            if gpu.capability is not None and gpu.capability < least:
                raise PlanError(
                    f"{name} is quantised ({found}), which needs GPUs from sm_{least[0]}{least[1]} on, and GPU"
                    f" {gpu.index} ({gpu.name}) is sm_{gpu.capability[0]}{gpu.capability[1]}"
                )


def check_split(base: Base, modules: Iterable[Module], table: str, tp: int) -> None:
    """Check that quantised layers can be shared out to `tp` GPUs, each with whole blocks or groups.

    Raises:
        PlanError: one cannot, which SGLang would say in the middle of its start.
    """
    for name, module in [(base.name, None), *((one.name, one) for one in modules)]:
        if tp == 1 or not quantisation_of(base, module):
            continue
        own = module is not None and module.quantisation is not None
        path = module.settings_files["config.json"] if module and own else base.path / "config.json"
        config = read_json(path)
        found = read_quantisation(path, config)
        assert found, "the manifest says so"
        rows, columns = found.method.units
        heads = config["num_attention_heads"] * base.head_dim // tp
        for part, size, unit in (
            ("queries", heads, rows),
            ("keys", base.num_kv_heads * base.head_dim // tp, rows),
            ("MLP", config["intermediate_size"] // tp, rows),
            ("queries", heads, columns),
            ("MLP", config["intermediate_size"] // tp, columns),
        ):
            if size % unit:
                raise PlanError(
                    f"{table}.tp = {tp}: {name} is quantised ({found}), and a GPU's part of its {part} would be {size}"
                    f" wide, which is not whole units of {unit}; give a lower tp"
                )
