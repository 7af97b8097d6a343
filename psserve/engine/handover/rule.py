"""The one rule of psserve/rule.py as a decode server keeps it, request by request.

A request's slots [0, n-1) hold the base's KV, which arrives from the prefill server and may enter the radix tree. Slots
[n-1, kv_allocated_len) hold the module's, which is freed when the request ends.

A request is *fresh* while it has no output: the module has yet to read the prompt's last token.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from psserve.engine.handover.sglang.request import REBOOTSTRAP, Req
from psserve.rule import base_len, base_part, module_part, shares_nothing

_hidden: set[int] = set()
"""Requests, by `id`, that are shown without their last prompt token just now."""


def is_fresh(req: Req) -> bool:
    """Whether the module has yet to consume the prompt's last token, and the base's KV comes for all before it."""
    return not req.output_ids and not getattr(req, REBOOTSTRAP, False)


def prompt_len(req: Req) -> int:
    """How many tokens the request's prompt has, also while its last one is hidden."""
    return len(req.origin_input_ids) + (id(req) in _hidden)


def base_len_of(req: Req) -> int:
    """How many leading tokens of a fresh request's prompt have the base's KV."""
    return base_len(prompt_len(req))


def is_one_token(req: Req) -> bool:
    """Whether the prompt is a single token, for which the base's KV is of no use."""
    return shares_nothing(len(req.origin_input_ids))


@contextmanager
def last_prompt_token_hidden(reqs: Sequence[Req]) -> Iterator[None]:
    """Show SGLang each fresh request as the prompt x[:-1], whose KV is complete."""
    hidden = [(req, req.origin_input_ids) for req in reqs if is_fresh(req)]
    for req, prompt in hidden:
        req.origin_input_ids = base_part(prompt)
        _hidden.add(id(req))
    try:
        yield
    finally:
        for req, prompt in hidden:
            req.origin_input_ids = prompt
            _hidden.discard(id(req))


@contextmanager
def last_prompt_token_pending(reqs: Sequence[Req]) -> Iterator[None]:
    """Show SGLang each fresh request as one that has emitted x[-1], so that the next decode step consumes it.

    The grammar is hidden meanwhile: x[-1] is no output and must not advance it.
    """
    pending = [(req, req.output_ids, req.grammar) for req in reqs if is_fresh(req)]
    for req, _, _ in pending:
        req.output_ids = array("q", module_part(req.origin_input_ids))
        req.grammar = None
    try:
        yield
    finally:
        for req, outputs, grammar in pending:
            req.output_ids = outputs
            req.grammar = grammar
