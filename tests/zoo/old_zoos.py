"""Zoos as an older psserve made them, of bases that this one refuses."""

from __future__ import annotations

import json
from typing import Any

from psserve.zoo import Zoo
from psserve.zoo.checkpoints.checkpoint import read_checkpoint
from psserve.zoo.checkpoints.compatibility import fingerprint
from psserve.zoo.disk.manifest import ZOO_MANIFEST, BaseRecord, ZooManifest, record_files, write_manifest
from psserve.zoo.disk.progress import SILENT

WINDOWS: dict[str, Any] = {
    "use_sliding_window": True,
    "sliding_window": 64,
    "max_window_layers": 0,
    "layer_types": None,
}
"""Fields of a Qwen3 whose layers see a window alone."""


def made_before(zoo: Zoo, **fields: Any) -> Zoo:
    """The same zoo, with these fields in its base's configuration, and as if nobody had looked at them."""
    path = zoo.base.path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    checkpoint = read_checkpoint(zoo.base.path)
    files = record_files(checkpoint.weight_files + checkpoint.auxiliary_files, SILENT, "hashing")
    known = zoo.base.model_dump(exclude={"path", "checks", "files", "fingerprint"})
    record = BaseRecord(**known, files=files, fingerprint=fingerprint(checkpoint, files))
    write_manifest(zoo.path / ZOO_MANIFEST, ZooManifest(base=record))
    return Zoo.open(zoo.path)
