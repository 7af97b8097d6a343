"""The one rule, as the decode server keeps it: whose KV is it?

For a prompt x[0..n-1] and answers y[0], y[1], ...:

     position      0 ........ n-2 | n-1    n    n+1 ...
     token         x[0] ... x[n-2]| x[n-1] y[0] y[1] ...
     KV written by     BASE       |      MODULE
     radix tree    may hold it    | never holds it: freed when the request ends
     slots         [0, n-1)       | [n-1, kv_allocated_len)

The base's KV of [0, n-1) arrives from the prefill server; the module's first decode step consumes x[n-1] and gives
y[0]. A prompt of one token shares nothing: what arrived is dropped and the module computes it all.

A request is *fresh* while it has no output. The helpers here are all that the hooks need to know about SGLang's Req.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Req = Any  # sglang.srt.managers.schedule_batch.Req


def is_fresh(req: Req) -> bool:
    """Whether the module has yet to consume the prompt's last token, and the base's KV comes for all before it."""
    return not req.output_ids and not getattr(req, "pd_rebootstrap_in_progress", False)


def base_len(req: Req) -> int:
    """How many leading tokens of a fresh request's prompt have the base's KV: n - 1."""
    return len(req.origin_input_ids) - 1


def is_one_token(req: Req) -> bool:
    """Whether the prompt is a single token, for which the base's KV is of no use."""
    return len(req.origin_input_ids) == 1


@contextmanager
def last_prompt_token_hidden(reqs: list[Req]) -> Iterator[None]:
    """Show SGLang each fresh request as the prompt x[:-1], whose KV is complete."""
    hidden = [(req, req.origin_input_ids) for req in reqs if is_fresh(req)]
    for req, prompt in hidden:
        req.origin_input_ids = prompt[:-1]
    try:
        yield
    finally:
        for req, prompt in hidden:
            req.origin_input_ids = prompt


@contextmanager
def last_prompt_token_pending(reqs: list[Req]) -> Iterator[None]:
    """Show SGLang each fresh request as one that has emitted x[-1], so that the next decode step consumes it.

    The grammar is hidden meanwhile: x[-1] is no output and must not advance it.
    """
    pending = [(req, req.output_ids, req.grammar) for req in reqs if is_fresh(req)]
    for req, _, _ in pending:
        req.output_ids = array("q", req.origin_input_ids[-1:])
        req.grammar = None
    try:
        yield
    finally:
        for req, outputs, grammar in pending:
            req.output_ids = outputs
            req.grammar = grammar
