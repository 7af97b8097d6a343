"""The SGLang that these tests run on, the others that lie beside it, and what of it tests need in one form."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from psserve import torchvision_ops
from psserve.engine.handover.releases import installed_tree
from psserve.engine.handover.targets import Span
from psserve.engine.source import SourceTree
from psserve.engine.versions import installed_sglang

INSTALLED = installed_sglang() or ""
TREES = {path.name.removeprefix("sglang-"): SourceTree(path) for path in Path(sys.prefix).glob("sglang-*")}
TREES[INSTALLED] = installed_tree()
HAS_ROW_TREE = Span(since="0.5.21").holds(INSTALLED)
"""Whether servers have a UnifiedRadixCache, and requests keep their lengths in `req.kv`."""


def tree_of(release: str) -> SourceTree:
    """A release's sources; the test is skipped where it is neither installed nor beside."""
    if release not in TREES:
        pytest.skip(f"sglang {release} is neither installed nor beside")
    return TREES[release]


def only(*, since: str = "", until: str = "") -> pytest.MarkDecorator:
    """Run a test with some releases alone."""
    wanted = " and ".join([*([f"from {since} on"] if since else []), *([f"before {until}"] if until else [])])
    return pytest.mark.skipif(not Span(since, until).holds(INSTALLED), reason=f"this is of sglang {wanted}")


def radix_tree(requests: Any, allocator: Any, page_size: int, core: str = "python", **options: Any) -> Any:
    """The tree of this release's servers. `core`, python or rust, counts where there are two."""
    torchvision_ops.declare_missing()
    from sglang.srt.mem_cache.cache_init_params import CacheInitParams

    params = CacheInitParams(False, requests, allocator, page_size, **options)
    if not HAS_ROW_TREE:
        from sglang.srt.mem_cache.radix_cache import RadixCache

        return RadixCache(params)
    from sglang.srt.mem_cache.unified_cache.components import ComponentType
    from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

    params.tree_components = (ComponentType.FULL,)
    with mock.patch.dict(os.environ, {"SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND": core}):
        return UnifiedRadixCache(params)


def node_slots(node: Any) -> Any:
    """The slots of a node of a radix tree, of Python."""
    return node.component_data[0].value if hasattr(node, "component_data") else node.value
