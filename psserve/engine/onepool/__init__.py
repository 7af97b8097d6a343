"""One KV pool for all servers of a device (`--transfer shared`): a context is stored once, and handing it over copies
nothing.

The base's KV is the same for all modules. So the prefill server's pool holds it, decode servers map that pool
read-only and attend to it in place, and keep in a small pool of their own only what their module makes.

    prefill server                                          decode server
    1  pool       _create_buffers_normal  -> pool: memory   _create_buffers_normal   -> pool: own rows, and places for
                                             to lend                                    other servers' memory
    2  connect    register_to_bootstrap   -> lender         (first request)          -> reader: maps the memory
    3  prealloc                                             _match_prefix_and_lock   -> decode: whole pages need no slot
    4  transfer   send_kv_chunk           -> prefill:       (WANT before, READY after)
                                             locks, tells
    5  commit                                               _commit_transfer_to_req  -> decode: names the pages, copies
                                                                                        the unfinished one, says TAKEN
    6  finish     process_disagg_prefill_inflight_queue     release_kv_cache         -> decode: says RELEASE
                                          -> prefill: unlocks
    7  retract                                              release_req and others   -> retraction: own slots alone
       idle       is_fully_idle           -> prefill: not while pages are lent, but for
                  on_idle                 -> prefill: sleeps all the same, until something comes back
                  _check_tree_cache       -> prefill: once nothing is lent
                                                                                        that is gone and not read

`layout` is the arithmetic of rows, `memory` the mapping, in main memory (`host_memory`) or a GPU's (`device_memory`),
`messages` and `lines` what the two say to each other, `outbox` when it is said, `leases` what is lent, `unchanged` the
check that it stays as it is, `readings` who reads it. Hooks are in `prefill`, `decode`, `retraction` and `limits`;
`lender` and `reader` are what SGLang calls a transfer backend.
docs/one-pool.md tells it with a picture.
"""

from __future__ import annotations

from psserve.engine.hooks import Hook
from psserve.engine.onepool import decode, prefill
from psserve.engine.settings import NegativeControl, Role

_CONN = "sglang.srt.disaggregation.common.conn"
LEANT_ON = (
    *(f"{_CONN}.CommonKVManager.{name}" for name in ("__init__", "register_to_bootstrap", "_handle_node_failure")),
    *(f"{_CONN}.CommonKVManager.{name}" for name in ("update_status", "record_failure", "check_status")),
    *(f"{_CONN}.CommonKVSender.{name}" for name in ("__init__", "init", "clear", "abort", "_check_bootstrap_timeout")),
    *(f"{_CONN}.CommonKVReceiver.{name}" for name in ("__init__", "init", "clear", "abort", "_check_waiting_timeout")),
    *(f"{_CONN}.CommonKVReceiver.{name}" for name in ("_clear", "ensure_abort_notified", "_setup_bootstrap_infos")),
    "sglang.srt.disaggregation.decode.DecodePreallocQueue.pop_preallocated",
    "sglang.srt.disaggregation.decode.DecodePreallocQueue._required_alloc_tokens",
    "sglang.srt.disaggregation.decode.DecodeTransferQueue.pop_transferred",
    "sglang.srt.disaggregation.decode.alloc_for_decode_prealloc",
    "sglang.srt.disaggregation.decode.DecodePreallocQueue._alloc_for_decode_prealloc",
    "sglang.srt.disaggregation.decode.DecodePreallocQueue._send_kv_metadata",
    "sglang.srt.disaggregation.decode._bind_root_prefix",
    "sglang.srt.disaggregation.prefill.SchedulerDisaggregationPrefillMixin._send_kv_chunk",
    "sglang.srt.mem_cache.memory_pool.MHATokenToKVPool._kv_buffer_shapes",
    "sglang.srt.mem_cache.radix_cache.RadixCache.inc_lock_ref",
    "sglang.srt.mem_cache.radix_cache.RadixCache.dec_lock_ref",
    "sglang.srt.mem_cache.radix_cache.RadixCache._split_node",
    "sglang.srt.mem_cache.unified_radix_cache.UnifiedRadixCache.lock",
    "sglang.srt.mem_cache.unified_radix_cache.UnifiedRadixCache.unlock",
    "sglang.srt.mem_cache.unified_radix_cache.UnifiedRadixCache.root_node_handle",
)
"""Functions of SGLang that are not hooked, but called or taken over."""


def hooks(role: Role, negative_control: NegativeControl) -> tuple[Hook, ...]:
    """The hooks of a server that lends or reads, to be applied after all others of the hand-over."""
    return prefill.hooks(negative_control) if role is Role.PREFILL else decode.hooks()
