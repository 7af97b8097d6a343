"""A grammar that allows no token must not end the server: whoever sent it hears of it, and nobody else.

Schemas and grammars come from clients, and some allow nothing (`{"$ref": "#"}`, `root ::= root`), at once or after some
tokens. Stock SGLang 0.5.18 then masks every token, samples from a distribution of NaN, and its scheduler dies.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from psserve.engine.handover.sglang.request import Req
from psserve.engine.handover.sglang.scheduler import Grammar, GrammarBackend
from psserve.engine.hooks import Hook, Kind

if TYPE_CHECKING:
    import torch

_BACKEND = "sglang.srt.constrained.xgrammar_backend"
_RESULTS = "sglang.srt.managers.scheduler_components.batch_result_processor"
DEAD_END = "the grammar comes to a point where it allows nothing more, not even the end: correct it"


def _refuse_empty(original: Callable[..., Grammar], backend: GrammarBackend, *args: Any, **kwargs: Any) -> Any:
    """Compile a grammar; one that allows no first token is invalid, which SGLang answers with a 400."""
    from sglang.srt.constrained.base_grammar_backend import InvalidGrammarObject

    grammar = original(backend, *args, **kwargs)
    mask = grammar.allocate_vocab_mask(backend.vocab_size, 1, "cpu")
    grammar.matcher.fill_next_token_bitmask(mask, 0)
    return grammar if mask.any() else InvalidGrammarObject("it allows no text")


def _open_where_nothing_is_allowed(
    original: Callable[[Grammar, torch.Tensor, int], None], grammar: Grammar, vocab_mask: torch.Tensor, idx: int
) -> None:
    """Let any token pass a dead end: the grammar then does not accept it, and SGLang aborts the request for that."""
    original(grammar, vocab_mask, idx)
    if not vocab_mask[idx].any():
        vocab_mask[idx].fill_(-1)


def _blame_the_grammar(
    original: Callable[..., list[int]], processor: object, req: Req, tokens: int | list[int]
) -> list[int]:
    """Give a request that its grammar does not let go on an end that is its client's, where SGLang gives no reason."""
    from sglang.srt.managers.schedule_batch import FINISH_ABORT

    before = req.to_finish
    accepted = original(processor, req, tokens)
    if req.to_finish is not before:
        req.to_finish = FINISH_ABORT(DEAD_END, HTTPStatus.BAD_REQUEST)
    return accepted


def hooks() -> tuple[Hook, ...]:
    """The hooks that a decode server needs; a prefill server gets no grammars."""
    return (
        Hook(f"{_BACKEND}.XGrammarGrammarBackend._from_context", Kind.AROUND, _refuse_empty),
        Hook(f"{_BACKEND}.XGrammarGrammar.fill_vocab_mask", Kind.AROUND, _open_where_nothing_is_allowed),
        Hook(f"{_RESULTS}.SchedulerBatchResultProcessor._accept_grammar_tokens", Kind.AROUND, _blame_the_grammar),
    )
