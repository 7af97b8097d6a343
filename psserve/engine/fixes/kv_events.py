"""Hook of a prefill server that publishes KV events: pages are named without a C++ compiler.

SGLang names pages by SHA-256, in an extension that it compiles when the first page enters the tree. That takes a
compiler, OpenSSL's headers and up to minutes, and the scheduler dies where one is missing. hashlib makes equal names.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable
from typing import Any

from psserve.engine.hooks import Hook, Kind

TOKEN_BYTES = array("I").itemsize


def _hash_pages(
    original: Callable[..., Any], token_ids: object, prior_digest: bytes | None, page_size: int | None = None
) -> str | list[str]:
    """AROUND `get_native_hash`: the hash of every page, each chained to the one before, or of all tokens as one page.

    Of an unusual tree (pairs of tokens, as speculative decoding has them) SGLang's own extension makes them.
    """
    from sglang.srt.mem_cache.cpp_utils.native_hash import _native_hash_input

    raw, length, width, is_bigram = _native_hash_input(token_ids)
    if is_bigram or width != 1:
        return original(token_ids, prior_digest, page_size)  # type: ignore[no-any-return]
    data = array("I", raw[:length]).tobytes()
    if page_size is None:
        return hashlib.sha256((prior_digest or b"") + data).hexdigest()
    step = page_size * TOKEN_BYTES
    names: list[str] = []
    digest = prior_digest or b""
    for start in range(0, len(data), step):
        digest = hashlib.sha256(digest + data[start : start + step]).digest()
        names.append(digest.hex())
    return names


def hooks() -> tuple[Hook, ...]:
    """The hooks that a server needs to publish KV events."""
    return (Hook("sglang.srt.mem_cache.cpp_utils.native_hash.get_native_hash", Kind.AROUND, _hash_pages),)
