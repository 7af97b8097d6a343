"""JSON schemas are kept, or refused: an answer of status 200 is valid under the schema that it was asked under.

SGLang's default, xgrammar 0.2.1, passes over what it does not know (`multipleOf`, `allOf` of two, `minLength` beside
`pattern`), gets some ranges wrong, and lets a model write white space for ever. llguidance refuses by name what it does
not keep. So it compiles the schemas of a decode server, and nothing else: its matcher stands in for xgrammar's in
SGLang's own grammar objects, so that batches may mix both and masks are applied as ever. Structural tags, regular
expressions and EBNF stay with xgrammar.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from psserve.contracts.json_schema import NotKept, Place, Room, Schema, kept, subschemas
from psserve.engine.handover.sglang.scheduler import Grammar, GrammarBackend
from psserve.engine.hooks import Hook, Kind

if TYPE_CHECKING:
    import torch
    from llguidance import LLMatcher, LLTokenizer
    from transformers import PreTrainedTokenizerFast

ANY_JSON = "$$ANY$$"
"""SGLang's word for any JSON; xgrammar has a grammar for that."""
WHITE_SPACE = " "
"""Between two tokens of JSON, at most. Small models indent for ever where they may."""
OPTIONS: Any = {"whitespace_pattern": WHITE_SPACE, "lenient": False, "coerce_one_of": False}
MAX_PLACES = 64
"""Parts of a schema that are tried one by one to tell which of them is wrong."""
MAX_ITEMS = 20_000
"""Of llguidance's parser in one state; its own 2,000 end an object of 500 optional properties."""

_tokenizers: WeakKeyDictionary[GrammarBackend, LLTokenizer] = WeakKeyDictionary()


class JsonMatcher:
    """llguidance's matcher with the methods of xgrammar's that SGLang calls.

    It keeps to the bitmask's form, [batch, vocab_size / 32] of int32, which the two libraries share.
    """

    def __init__(self, matcher: LLMatcher, end_tokens: frozenset[int]) -> None:
        self._matcher = matcher
        self._end_tokens = end_tokens
        self._has_ended = False

    def fresh(self) -> JsonMatcher:
        """The same for another request; this one must have accepted nothing."""
        return JsonMatcher(self._matcher.deep_copy(), self._end_tokens)

    def accept_token(self, token: int) -> bool:
        if token in self._end_tokens:
            self._has_ended = self._matcher.is_accepting()
            return self._has_ended
        return self._matcher.consume_token(token)

    def is_terminated(self) -> bool:
        return self._has_ended

    def rollback(self, num_tokens: int) -> None:
        if num_tokens and self._has_ended:
            self._has_ended = False
            num_tokens -= 1
        self._matcher.rollback(num_tokens)

    def fill_next_token_bitmask(self, bitmask: torch.Tensor, index: int) -> bool:
        """Whatever goes wrong allows nothing: llguidance would allow the end, and half an answer would look whole."""
        from llguidance.torch import fill_next_token_bitmask

        fill_next_token_bitmask(self._matcher, bitmask, index)
        if self._matcher.is_error():
            bitmask[index].fill_(0)
        return True


def tokenizer_of(backend: GrammarBackend) -> LLTokenizer:
    """The vocabulary that a backend's grammars choose from."""
    return _tokenizers[backend]


def _learn_tokenizer(
    original: Callable[..., None],
    backend: GrammarBackend,
    tokenizer: PreTrainedTokenizerFast,
    vocab_size: int,
    model_eos_token_ids: list[int] | None = None,
    *args: object,
    **kwargs: object,
) -> None:
    """AROUND `XGrammarGrammarBackend.__init__`: llguidance needs a second or so for a large vocabulary, once."""
    from llguidance.hf import from_tokenizer

    original(backend, tokenizer, vocab_size, model_eos_token_ids, *args, **kwargs)
    _tokenizers[backend] = from_tokenizer(tokenizer, vocab_size, model_eos_token_ids)


def _compile(original: Callable[[GrammarBackend, str], Any], backend: GrammarBackend, key_string: str) -> Any:
    """AROUND `XGrammarGrammarBackend.dispatch_json`."""
    if key_string == ANY_JSON:
        return original(backend, key_string)
    return compiled(backend, "json", key_string, lambda: of_schema(json.loads(key_string)))


def of_schema(schema: object) -> str:
    """llguidance's grammar of a JSON schema. Raises NotKept, or ValueError for one that cannot be compiled."""
    return _grammar_of(schema)[0]


def narrowed(schema: object, room: Room) -> Schema:
    """What `of_schema` makes its grammar of; the schemas of one answer share `room`. Raises as it does."""
    return _grammar_of(schema, room)[1]


def _grammar_of(schema: object, room: Room | None = None) -> tuple[str, Schema]:
    from llguidance import LLMatcher

    if not isinstance(schema, dict):
        raise NotKept("schema", Place(), "must be an object")
    narrower = kept(schema, room)
    grammar = LLMatcher.grammar_from_json_schema(json.dumps(narrower), overrides=OPTIONS)
    if error := LLMatcher.validate_grammar(grammar):
        raise ValueError(f"{_in_clients_words(error)} (at {_place_of(error, narrower)})")
    return grammar, narrower


def _place_of(error: str, schema: Schema) -> str:
    """The JSON pointer of the innermost schema that fails in the same way by itself."""
    from llguidance import LLMatcher

    shared = {name: schema[name] for name in ("$schema", "$defs", "definitions") if name in schema}
    inner = itertools.islice(subschemas(schema), 1, MAX_PLACES)
    places = ["#"]
    for place, part in inner:
        if LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(json.dumps(shared | part))) == error:
            places.append(str(place))
    return max(places, key=lambda pointer: pointer.count("/"))


def compiled(backend: GrammarBackend, kind: str, key_string: str, write: Callable[[], str]) -> Any:
    """SGLang's object for llguidance's grammar that `write` gives; where it or the grammar fails, the one for a 400.

    `kind` and `key_string` are SGLang's names for the request's grammar. `write` may raise ValueError.
    """
    from llguidance import LLMatcher, LLParserLimits
    from sglang.srt.constrained.base_grammar_backend import GrammarStats, InvalidGrammarObject
    from sglang.srt.constrained.xgrammar_backend import XGrammarGrammar

    tokenizer = tokenizer_of(backend)
    limits = LLParserLimits(max_items_in_row=MAX_ITEMS, verbose_errors=False)
    try:
        matcher = LLMatcher(tokenizer, write(), log_level=0, limits=limits)
    except ValueError as error:
        return InvalidGrammarObject(str(error))
    if not matcher.is_error():
        matcher.compute_bitmask()
    if matcher.is_error():
        return InvalidGrammarObject(_in_clients_words(matcher.get_error()))
    adapted = JsonMatcher(matcher, frozenset(tokenizer.eos_tokens))
    return XGrammarGrammar(adapted, backend.vocab_size, None, None, key_string, GrammarStats(dispatch_type=kind))


def _in_clients_words(error: str) -> str:
    """llguidance's message without its own state, and without advice about its own options."""
    if error.startswith("NoExtension"):
        return "it allows no text"
    return error.removesuffix("\n<non-verbose/>").replace(
        "oneOf constraints are not supported. Enable 'coerce_one_of' option to approximate oneOf with anyOf",
        "oneOf is supported only where two of its schemas cannot both hold: use anyOf",
    )


def _copy(original: Callable[[Grammar], Grammar], grammar: Grammar) -> Grammar:
    """AROUND `XGrammarGrammar.copy`, which makes a matcher of xgrammar's."""
    if not isinstance(grammar.matcher, JsonMatcher):
        return original(grammar)
    again = copy.copy(grammar)
    again.matcher = grammar.matcher.fresh()
    again.accepted_tokens = []
    again.grammar_stats = dataclasses.replace(grammar.grammar_stats, is_cache_hit=True, tree_traversal_time=[])
    return again


def hooks() -> tuple[Hook, ...]:
    """The hooks that a decode server needs; a prefill server gets no grammars."""
    backend = "sglang.srt.constrained.xgrammar_backend"
    return (
        Hook(f"{backend}.XGrammarGrammarBackend.__init__", Kind.AROUND, _learn_tokenizer),
        Hook(f"{backend}.XGrammarGrammarBackend.dispatch_json", Kind.AROUND, _compile),
        Hook(f"{backend}.XGrammarGrammar.copy", Kind.AROUND, _copy),
    )
