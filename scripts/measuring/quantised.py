"""A zoo of quantised checkpoints made of a plain one, and plain checkpoints of the same values for the reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .exactness import TOLERANCES

if TYPE_CHECKING:
    from psserve.zoo import Zoo

METHODS = (
    *("fp8-blocks", "fp8-static", "compressed-dynamic", "compressed-static", "compressed-blocks"),
    *("awq", "gptq"),
)
"""The names of psserve/zoo/synthetic/quantised.py, which cannot be imported before psserve can."""
SIZE = 128
"""Of blocks and groups, as real checkpoints have them."""
FP8_TOLERANCE = 1.0
"""The reference does not round activations, as FP8 does, to one part in sixteen. A guess: not measured on a GPU yet."""


def tolerance(method: str | None, dtype: str) -> float:
    """The largest distance of an equal (see `exactness`), for what is served with `dtype`."""
    rounds_activations = method is not None and method not in ("awq", "gptq")
    return FP8_TOLERANCE if rounds_activations else TOLERANCES[dtype]


def quantised_zoo(zoo: Zoo, directory: Path, method: str, size: int = SIZE) -> tuple[Zoo, dict[str, Path]]:
    """A zoo in `directory`: the base of `zoo` and its modules, all quantised by `method` but the first module.

    Also name -> plain checkpoint of the same values, of all that is quantised.
    """
    from psserve.zoo import Zoo, materialise
    from psserve.zoo.synthetic.quantised import CONFIGS, for_size, write_quantised

    config = for_size(CONFIGS[method], size)
    plain = {zoo.base.name: directory / "plain" / "base"}
    base = write_quantised(zoo.base.path, directory / "base", config, plain[zoo.base.name])
    made = Zoo.create(directory / "zoo", base, zoo.base.name)
    for at, module in enumerate(zoo.modules()):
        checkpoint = materialise(zoo, module, directory / "original" / module.name)
        if at > 0:
            plain[module.name] = directory / "plain" / module.name
            destination = directory / "modules" / module.name
            checkpoint = write_quantised(checkpoint, destination, config, plain[module.name])
        made.add(module.name, checkpoint, allow_naive=True, store="link")
    return made, plain
