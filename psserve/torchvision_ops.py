"""Let `import torchvision` pass where its compiled operators do not fit the installed PyTorch.

The package index carries a CUDA build of torchvision. Beside a CPU build of PyTorch its operators do not load, and
its import fails on their missing schemas. Nothing here calls them: text models need torchvision only to be importable.
"""

from __future__ import annotations

from typing import Any

import torch

_libraries: list[Any] = []  # a Library's declarations last as long as it does

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def declare_missing() -> None:
    """Declare the schemas that torchvision looks up at import, where they are missing and CUDA is not there."""
    if torch.cuda.is_available() or _libraries:
        return
    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS.values():
        library.define(schema)
    _libraries.append(library)
