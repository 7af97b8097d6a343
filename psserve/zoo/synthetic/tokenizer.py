"""A small but real tokenizer for synthetic zoos: byte-level BPE with a ChatML-like template that renders tools.

With `enable_thinking` its generation prompt opens a thought.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

VOCAB_SIZE = 512
PAD, START, END = SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOOL_CALL = ("<tool_call>", "</tool_call>")
"""Single tokens that stay in the text of an answer, as tool-call parsers expect."""
THINK = ("<think>", "</think>")
"""The same for parsers of thoughts."""

CORPUS = """
You are a helpful assistant. Answer the question of the user, step by step, and use the tools when they help.
What is the sum of 12 and 30? The sum of 12 and 30 is 42. How many apples are left when 7 of 19 are eaten?
def add(first, second): return first + second
for number in range(10): print(number, number * number)
{"type": "function", "function": {"name": "get_weather", "description": "The weather of a city", "parameters":
{"type": "object", "properties": {"city": {"type": "string"}, "unit": {"type": "string"}}, "required": ["city"]}}}
{"name": "get_weather", "arguments": {"city": "Paris", "unit": "celsius"}}
The prefill server computes the keys and values of the prompt, and the decode server generates the answer from them.
Once there was a small language model that nobody had trained; all that it said was random, and yet always the same.
Please write a function that reads a file, counts the words in it and returns the most common ones as a list.
"""

CHAT_TEMPLATE = """\
{%- set enable_thinking = enable_thinking | default(false) %}
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages and messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- 'You may call these tools:\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' + tool | tojson }}
    {%- endfor %}
    {{- '\\n</tools>\\nTo call one, write:\\n' }}
    {{- '<tool_call>\\n{"name": NAME, "arguments": OBJECT}\\n</tool_call><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- elif not (tools and loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
        {%- for call in message.tool_calls or [] %}
            {%- set function = call.function or call %}
            {%- set arguments = function.arguments %}
            {{- '\\n<tool_call>\\n{"name": ' + function.name | tojson + ', "arguments": ' }}
            {{- (arguments if arguments is string else arguments | tojson) + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking %}
        {{- '<think>\\n' }}
    {%- endif %}
{%- endif %}
"""


def write_tokenizer(directory: Path, context_length: int) -> None:
    """Train the tokenizer and write its files. Always the same."""
    from tokenizers import pre_tokenizers

    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    marks = TOOL_CALL + THINK
    size = train_tokenizer(directory, CORPUS.splitlines(), cut, VOCAB_SIZE, CHAT_TEMPLATE, context_length, marks)
    if size != VOCAB_SIZE:
        raise AssertionError(f"the corpus gives {size} tokens, not {VOCAB_SIZE}: it is too short")


def train_tokenizer(
    directory: Path,
    texts: Iterable[str],
    cut: PreTokenizer,
    vocab_size: int,
    chat_template: str,
    context_length: int,
    marks: tuple[str, ...] = TOOL_CALL,
) -> int:
    """Train byte-level BPE on `texts`, which `cut` splits into words; `marks` are tokens of their own.

    Writes tokenizer.json, tokenizer_config.json and chat_template.jinja, and returns how many tokens there are.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(  # type: ignore[no-untyped-call]
        vocab_size=vocab_size - len(marks),
        special_tokens=[AddedToken(text, special=True) for text in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(text) for text in marks])
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (directory / "chat_template.jinja").write_text(chat_template)
    return int(tokenizer.get_vocab_size())
