"""The demo base's tokenizer and chat template: byte-level BPE trained on the corpus, each digit a token of its own.

Digits stand alone so that a number's tokens are its places, whatever its size; arithmetic is learnt on those.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from psserve.training.conversation import Conversation
from psserve.zoo.synthetic.tokenizer import SPECIAL, TOOL_CALL, train_tokenizer

if TYPE_CHECKING:
    from jinja2 import Template

VOCAB_SIZE = 1024
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How text is split before BPE: words (with what stands before them), single digits, punctuation, white space."""

# Only fields that every server passes on are rendered: SGLang adds `strict` to a tool, and null fields, by itself.
CHAT_TEMPLATE = """\
{%- macro system(content) %}
    {{- '<|im_start|>system\\n' + content }}
    {%- if tools %}
        {{- '\\n' if content else '' }}
        {{- '# Tools\\n<tools>' }}
        {%- for tool in tools %}
            {%- set function = tool.function or tool %}
            {{- '\\n{"name": ' + function.name | tojson }}
            {{- ', "description": ' + (function.description or '') | tojson }}
            {{- ', "parameters": ' + (function.parameters or {}) | tojson + '}' }}
        {%- endfor %}
        {{- '\\n</tools>' }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endmacro %}
{%- if messages and messages[0].role == 'system' %}
    {{- system(messages[0].content) }}
{%- elif tools %}
    {{- system('') }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- elif not (loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
        {%- for call in message.tool_calls or [] %}
            {%- set function = call.function or call %}
            {{- '\\n' if message.content or not loop.first else '' }}
            {{- '<tool_call>\\n{"name": ' + function.name | tojson + ', "arguments": ' }}
            {{- (function.arguments if function.arguments is string else function.arguments | tojson) }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


@cache
def template() -> Template:
    """The chat template, compiled as Transformers does it."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(CHAT_TEMPLATE)


def render_text(conversation: Conversation) -> str:
    """A whole conversation as text. For the corpus, which is written before there is a tokenizer."""
    return template().render(messages=conversation.messages, tools=list(conversation.tools))


def write_demo_tokenizer(directory: Path, texts: Iterable[str], context_length: int) -> None:
    """Train on `texts` and write the tokenizer's files. Always the same."""
    from tokenizers import Regex, pre_tokenizers

    words = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    cut = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    train_tokenizer(directory, without_added(texts), cut, VOCAB_SIZE, CHAT_TEMPLATE, context_length)


def without_added(texts: Iterable[str]) -> Iterable[str]:
    """The texts without the tokens that are whole by definition: no merges are to be spent on them."""
    for text in texts:
        for token in (*SPECIAL, *TOOL_CALL):
            text = text.replace(token, "\n")
        yield text
