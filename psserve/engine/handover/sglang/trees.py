"""Radix trees: what keeps KV of requests that ended."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class TreeNode(Protocol):
    """Some tokens in the radix tree and their slots."""

    key: Sized
    value: torch.Tensor
    lock_ref: int
    last_access_time: float
    children: Mapping[Any, TreeNode]


class OlderPrefixCache(Protocol):
    """What keeps KV of requests that ended, or nothing."""

    def is_tree_cache(self) -> bool: ...


class PrefixCache(Protocol):
    """The same by its newer name."""

    def supports_prefix_sharing(self) -> bool: ...


class NodeTree(Protocol):
    """A radix tree whose nodes can be looked at."""

    root_node: TreeNode
    page_size: int


class TreeRows(Protocol):
    """Every token in a tree: its slot, and its place in its prompt."""

    slot_indices: torch.Tensor
    positions: torch.Tensor


class TreeCore(Protocol):
    """What a tree is made of: Python or Rust."""

    def walk_for_kv_canary(self, unlocked_only: bool, swa_resident_only: bool) -> TreeRows: ...


class RowTree(Protocol):
    """A radix tree that tells its tokens, and not its nodes."""

    tree_core: TreeCore

    @property
    def page_size(self) -> int: ...


TreeCache = NodeTree | RowTree
