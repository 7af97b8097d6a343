"""Answers drawn at random under a grammar: what a model that knows nothing might write."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy

from psserve.engine.fixes import grammar, json_grammar, tag_grammar
from psserve.zoo.synthetic.tokenizer import VOCAB_SIZE, write_tokenizer
from tests.engine.hooked import hooked

CLOSING = ('"', '":', "}", "]", '"}', '",', ",", ":")
BLANK = " \n\t\r"


@contextmanager
def backend_of(folder: Path) -> Iterator[Any]:
    """SGLang's grammar backend with the hooks of a decode server; a tokenizer is written to `folder`."""
    from sglang.srt.constrained.xgrammar_backend import XGrammarGrammarBackend
    from transformers import AutoTokenizer

    write_tokenizer(folder, 4096)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    with hooked(grammar.hooks() + json_grammar.hooks() + tag_grammar.hooks()):
        backend = XGrammarGrammarBackend(tokenizer, VOCAB_SIZE, model_eos_token_ids=[tokenizer.eos_token_id])
        backend.tokenizer = tokenizer
        backend.texts = [tokenizer.decode([token]) for token in range(VOCAB_SIZE)]
        yield backend


def allowed(found: Any) -> list[int]:
    """The tokens that may come next."""
    mask = found.allocate_vocab_mask(VOCAB_SIZE, 1, "cpu")
    found.fill_vocab_mask(mask, 0)
    bits = numpy.unpackbits(mask[0].numpy().view(numpy.uint8), bitorder="little")
    return [int(token) for token in bits.nonzero()[0]]


def drawn(backend: Any, found: Any, seed: int, most: int = 300) -> str | None:
    """An answer of at most so many tokens, or None where it has no end by then. Ends are likely, and white space."""
    choose = random.Random(seed)
    tokenizer, end = backend.tokenizer, backend.tokenizer.eos_token_id
    haste = choose.choice((3, 30, 300))
    output: list[int] = []
    while len(output) < most:
        tokens = allowed(found)
        assert tokens, tokenizer.decode(output)
        if end in tokens and (len(tokens) == 1 or choose.random() < 0.3):
            found.accept_token(end)
            assert found.is_terminated()
            return str(tokenizer.decode(output))
        weights = [haste if backend.texts[token] in CLOSING else 1 for token in tokens if token != end]
        token = choose.choices([token for token in tokens if token != end], weights)[0]
        found.accept_token(token)
        output.append(token)
    return None


def accepts(backend: Any, found: Any, text: str) -> bool:
    """Whether an answer may be this text, as the tokenizer splits it."""
    found = found.copy()
    for token in backend.tokenizer.encode(text, add_special_tokens=False):
        if token not in allowed(found):
            return False
        found.accept_token(token)
    return backend.tokenizer.eos_token_id in allowed(found)
