"""Grammars of xgrammar's, compiled and followed by SGLang's own backend."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from psserve.engine.fixes import grammar
from tests.engine.hooked import hooked

WORDS = ["a", "b", "c", "<end>"]
A, B, C = range(3)


@pytest.fixture(scope="module")
def backend() -> Iterator[Any]:
    import xgrammar
    from sglang.srt.constrained.xgrammar_backend import XGrammarGrammarBackend

    words = xgrammar.TokenizerInfo(WORDS, stop_token_ids=[3])
    with hooked(grammar.hooks()):
        yield XGrammarGrammarBackend(SimpleNamespace(init_xgrammar=lambda: (words, None)), len(WORDS))


def allowed(found: Any) -> list[int]:
    mask = found.allocate_vocab_mask(len(WORDS), 2, "cpu")
    found.fill_vocab_mask(mask, 1)
    assert mask[0].tolist() == [-1]  # another request's row
    return [token for token in range(len(WORDS)) if int(mask[1]) >> token & 1]


def test_a_grammar_allows_what_it_says(backend: Any) -> None:
    found = backend.dispatch_ebnf('root ::= "a" ("b" | "c")')
    assert allowed(found) == [A]
    found.accept_token(A)
    assert allowed(found) == [B, C]


def test_a_grammar_that_allows_nothing_is_invalid(backend: Any) -> None:
    from sglang.srt.constrained.base_grammar_backend import InvalidGrammarObject

    found = backend.dispatch_ebnf("root ::= root")
    assert isinstance(found, InvalidGrammarObject)
    assert found.error_message == "it allows no text"


def test_at_a_dead_end_every_token_passes_the_mask_and_none_the_grammar(backend: Any) -> None:
    found = backend.dispatch_ebnf('root ::= "a" never\nnever ::= never')
    assert allowed(found) == [A]
    found.accept_token(A)
    assert allowed(found) == list(range(len(WORDS)))
    with pytest.raises(ValueError, match="not accepted"):
        found.accept_token(B)


def test_the_end_of_a_request_at_a_dead_end_is_its_clients(backend: Any) -> None:
    from sglang.srt.managers.scheduler_components.batch_result_processor import SchedulerBatchResultProcessor

    found = backend.dispatch_ebnf('root ::= "a" never\nnever ::= never')
    req = SimpleNamespace(rid="r", grammar=found, to_finish=None)
    accept = SchedulerBatchResultProcessor._accept_grammar_tokens
    assert (accept(None, req, A), req.to_finish) == ([A], None)
    assert accept(None, req, B) == []
    assert (req.to_finish.status_code, req.to_finish.message) == (400, grammar.DEAD_END)
