"""Calls of tools under a schema: forced ones, and those of tools that are strict.

SGLang asks for them as structural tags: what a call begins with, the schema of its arguments, what it ends with. The
arguments are held to their schema as JSON answers are, by llguidance (see `json_grammar`). Tags in xgrammar's own form
stay with xgrammar, which must not get a schema that it does not keep.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from psserve.contracts.json_schema import BOUNDS, COMBINING, NOT_KEPT, NotKept, Room, subschemas
from psserve.engine.fixes.json_grammar import OPTIONS, compiled, narrowed, tokenizer_of
from psserve.engine.handover.sglang.scheduler import GrammarBackend
from psserve.engine.hooks import Hook, Kind

if TYPE_CHECKING:
    from llguidance import LLTokenizer

Tag = dict[str, Any]
LOST_BY_XGRAMMAR = (*BOUNDS, *NOT_KEPT, "allOf", "oneOf", "pattern", "patternProperties", "minProperties", "format")
ALONE = (*COMBINING, "enum", "const")
BESIDE = {"properties", "required", "additionalProperties", "items", "minItems", "minLength", "maxLength"}
"""xgrammar 0.2.1 passes over the keywords of LOST_BY_XGRAMMAR or keeps them wrongly, and over BESIDE next to ALONE."""


def _compile(original: Callable[[GrammarBackend, str], Any], backend: GrammarBackend, key_string: str) -> Any:
    """AROUND `XGrammarGrammarBackend.dispatch_structural_tag`."""
    from sglang.srt.constrained.base_grammar_backend import InvalidGrammarObject

    tag = json.loads(key_string)
    if tag.get("structures"):
        return compiled(backend, "structural_tag", key_string, lambda: calls(tag, tokenizer_of(backend)))
    try:
        for schema in _schemas_in(tag.get("format")):
            _check_for_xgrammar(schema)
    except NotKept as error:
        return InvalidGrammarObject(str(error))
    return original(backend, key_string)


def calls(tag: Tag, tokenizer: LLTokenizer) -> str:
    """llguidance's grammar of SGLang's older structural tag: calls alone with `at_least_one`, else text around them.

    With `stop_after_first` (see `tool_calls`) nothing follows on the first call. Text may hold any special token but
    those that begin a call or end the answer. Raises ValueError.
    """
    structures, triggers = tag["structures"], tag["triggers"]
    rules = [
        "%llguidance {}",
        f"start: {_order(tag)}",
        "SPACE: /\\n{0,2}/",
        "TEXT: /(.|\\n)+/",
        f"call: {' | '.join(f'call_{index}' for index in range(len(structures)))}",
        f"other: {_other_tokens(triggers, tokenizer)}",
    ]
    room = Room()
    for index, structure in enumerate(structures):
        begin = structure["begin"]
        trigger = next((trigger for trigger in triggers if begin.startswith(trigger)), begin)
        opening = _spelt(begin, tokenizer)
        if not tag.get("at_least_one") and not opening.startswith("<["):
            rules.append(f"call_{index}_text[lazy]: /(.|\\n)*/ {json.dumps(trigger)}")
            opening = f"call_{index}_text {_spelt(begin.removeprefix(trigger), tokenizer)}"
        arguments = json.dumps(narrowed(structure["schema"] or {}, room) | {"x-guidance": OPTIONS})
        rules.append(f"call_{index}: {opening} %json {arguments} {_spelt(structure['end'], tokenizer)}")
    return "\n".join(rules)


def _order(tag: Tag) -> str:
    """How calls, text and special tokens may follow one another."""
    if tag.get("at_least_one"):
        return "call" if tag.get("stop_after_first") else "call (SPACE call)*"
    return "TEXT? (other TEXT?)* call?" if tag.get("stop_after_first") else "TEXT? ((other | call) TEXT?)*"


def _spelt(text: str, tokenizer: LLTokenizer) -> str:
    """A text as llguidance's grammars write it: special tokens by their ids, what is between them as strings."""
    parts: list[str] = []
    plain: list[int] = []
    for token in [*tokenizer.tokenize_str(text, parse_special=True), None]:
        if token is not None and not tokenizer.is_special_token(token):
            plain.append(token)
            continue
        if plain:
            parts.append(json.dumps(tokenizer.decode_str(plain)))
            plain = []
        if token is not None:
            parts.append(f"<[{token}]>")
    return " ".join(parts)


def _other_tokens(triggers: list[str], tokenizer: LLTokenizer) -> str:
    first = {tokenizer.tokenize_str(trigger, parse_special=True)[0] for trigger in triggers}
    special = filter(tokenizer.is_special_token, range(tokenizer.vocab_size))
    others = [token for token in special if token not in first and token not in tokenizer.eos_tokens]
    return f"<[{','.join(map(str, others))}]>" if others else '""'


def _schemas_in(form: object) -> Iterator[Any]:
    """Every JSON schema in a tag of xgrammar's form."""
    if isinstance(form, list):
        for child in form:
            yield from _schemas_in(child)
    elif isinstance(form, dict):
        for name, child in form.items():
            if name == "json_schema":
                yield child
            else:
                yield from _schemas_in(child)


def _check_for_xgrammar(schema: object) -> None:
    for place, node in subschemas(schema) if isinstance(schema, dict) else ():
        beside = ALONE if node.keys() & BESIDE else ()
        for keyword in node:
            if keyword in LOST_BY_XGRAMMAR or keyword in beside:
                raise NotKept(keyword, place, "is not kept in a structural tag of this form")


def hooks() -> tuple[Hook, ...]:
    """The hooks that a decode server needs; a prefill server gets no grammars."""
    target = "sglang.srt.constrained.xgrammar_backend.XGrammarGrammarBackend.dispatch_structural_tag"
    return (Hook(target, Kind.AROUND, _compile),)
