"""Which of SGLang's parsers read a module's answers: calls of tools, and thoughts.

A module answers in the form of the base's chat template, so that is what they are chosen by, unless fleet.toml says
otherwise. Of a template that has no known mark none is chosen: a parser that does not fit would take text away.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from jinja2 import TemplateError

from psserve.fleet.options.server_options import AUTO, NO_PARSER, AnswerOptions
from psserve.zoo.checkpoints.chat_template import variables

TOOL_CALLS, REASONING = "--tool-call-parser", "--reasoning-parser"
_GENERATION = "add_generation_prompt"


@dataclass(frozen=True)
class Parsers:
    """SGLang's names; None: such parts of an answer stay text."""

    tool_calls: str | None = None
    reasoning: str | None = None

    def __str__(self) -> str:
        return " + ".join(filter(None, (self.tool_calls, self.reasoning))) or "-"


NO_PARSERS = Parsers()


@dataclass(frozen=True)
class Mark:
    """A sign in a chat template, of one of SGLang's parsers."""

    parser: str
    pattern: str
    """Regular expression that is found in the template."""
    beside: str = ""
    """Another that must be found too."""
    switch: str = ""
    """A variable that the template must read of clients."""
    at_end: bool = False
    """Whether it stands where the template begins an answer."""

    def is_in(self, template: str, read: Collection[str]) -> bool:
        """Whether a template, which reads these variables, has it."""
        if self.switch and self.switch not in read:
            return False
        _, begins_answers, end = template.rpartition(_GENERATION)
        if self.at_end and not begins_answers:
            return False
        return bool(re.search(self.pattern, end if self.at_end else template) and re.search(self.beside, template))


_NEWLINE = r"(\\n|\n)"
TOOL_CALL_MARKS = (
    Mark("gpt-oss", r"<\|channel\|>", r"<\|message\|>"),
    Mark("mistral", r"\[TOOL_CALLS\]"),
    Mark("deepseekv3", "<｜tool▁calls▁begin｜>", "```json"),
    Mark("deepseekv31", "<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>"),
    Mark("qwen3_coder", "<function=", "<parameter="),
    Mark("qwen", rf"<tool_call>{_NEWLINE}"),
    Mark("hermes", r"<tool_call>\s*\{"),
    Mark("llama3", r"<\|python_tag\|>|\"parameters\": dictionary of argument name", r"<\|start_header_id\|>"),
)
"""The first that a template has counts."""
REASONING_MARKS = (
    Mark("gpt-oss", r"<\|channel\|>", r"<\|message\|>"),
    Mark("mistral", r"\[THINK\]", switch="reasoning_effort"),
    Mark("qwen3", "<think>", switch="enable_thinking"),
    Mark("deepseek-r1", "</think>", "<｜Assistant｜>"),
    Mark("qwen3-thinking", "<think>", at_end=True),
)


def parsers_of(template: str | None) -> Parsers:
    """The parsers for answers in the form of this chat template."""
    if template is None:
        return NO_PARSERS
    read = _variables(template)
    return Parsers(_first(TOOL_CALL_MARKS, template, read), _first(REASONING_MARKS, template, read))


def _variables(template: str) -> Collection[str]:
    """What the template reads; nothing if it is none, as servers will say."""
    try:
        return variables(template)
    except TemplateError:
        return ()


def _first(marks: Sequence[Mark], template: str, read: Collection[str]) -> str | None:
    return next((mark.parser for mark in marks if mark.is_in(template, read)), None)


def chosen_parsers(template: str | None, options: AnswerOptions) -> Parsers:
    """The parsers of a module's servers: SGLang's own arguments, else fleet.toml's keys, else the template's."""
    found = parsers_of(template)
    return Parsers(
        _chosen(TOOL_CALLS, options.tool_call_parser, found.tool_calls, options.args),
        _chosen(REASONING, options.reasoning_parser, found.reasoning, options.args),
    )


def _chosen(flag: str, wanted: str, found: str | None, args: Sequence[str]) -> str | None:
    if given := _given(flag, args):
        return given
    return found if wanted == AUTO else None if wanted == NO_PARSER else wanted


def _given(flag: str, args: Sequence[str]) -> str | None:
    """What SGLang's arguments say of the flag, which may be abbreviated; the last one counts."""
    given = None
    for index, argument in enumerate(args):
        name, equals, value = argument.partition("=")
        if len(name) > len("--rea") and flag.startswith(name):
            given = value if equals else next(iter(args[index + 1 :]), None)
    return given


def parser_args(parsers: Parsers) -> tuple[str, ...]:
    """SGLang's arguments for them."""
    named = ((TOOL_CALLS, parsers.tool_calls), (REASONING, parsers.reasoning))
    return tuple(word for flag, parser in named if parser for word in (flag, parser))
