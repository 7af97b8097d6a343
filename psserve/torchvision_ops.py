"""Let `import torchvision` pass where its compiled operators do not fit the installed PyTorch.

The package index carries a CUDA build of torchvision. Beside a CPU build of PyTorch its operators do not load, and
its import fails on their missing schemas. Nothing here calls them: text models need torchvision only to be importable.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

_libraries: list[Any] = []  # a Library's declarations last as long as it does

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def declare_missing() -> None:
    """Declare the schemas that torchvision looks up at import, where its own operators do not load.

    Call it before Transformers is imported. Its other optional package, torchao, is told to keep to itself what it
    finds no use for.
    """
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if torch.cuda.is_available() or _libraries or _own_operators_load():
        return
    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS.values():
        library.define(schema)
    _libraries.append(library)


def _own_operators_load() -> bool:
    """Whether torchvision's build fits PyTorch's. Schemas declared beside its own would clash."""
    found = find_spec("torchvision")
    folders = (found.submodule_search_locations or ()) if found else ()
    for library in (path for folder in folders for path in Path(folder).glob("_C*.so")):
        try:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        except OSError:
            continue
        return True
    return False
