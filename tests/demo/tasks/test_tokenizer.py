"""The demo tokenizer and its chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.demo.tasks import training_items
from psserve.demo.tasks.corpus import corpus
from psserve.demo.tasks.tokenizer import VOCAB_SIZE, render_text, write_demo_tokenizer
from psserve.training import tokenization
from psserve.training.conversation import Conversation
from psserve.zoo.synthetic.tokenizer import SPECIAL, TOOL_CALL

TOOLS = ({"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}},)
CALL = {"type": "function", "function": {"name": "add", "arguments": {"x": "é"}}}


def test_it_is_as_large_as_it_says(tokenizer: Any) -> None:
    assert len(tokenizer) == VOCAB_SIZE


def test_special_tokens_are_one_token_each(tokenizer: Any) -> None:
    assert all(len(tokenizer.encode(token)) == 1 for token in (*SPECIAL, *TOOL_CALL))


def test_tool_tags_stay_in_an_answer(tokenizer: Any) -> None:
    ids = tokenizer.encode("<tool_call>x</tool_call><|im_end|>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<tool_call>x</tool_call>"


@settings(deadline=None)
@given(st.integers(0, 10**12))
def test_every_digit_is_a_token(tokenizer: Any, number: int) -> None:
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode(str(number))) == list(str(number))


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_survives(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_same_texts_give_the_same_files(tokenizer_files: Path, tmp_path: Path) -> None:
    from itertools import islice

    write_demo_tokenizer(tmp_path, islice(corpus(0), 1000), 1024)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (tokenizer_files / file.name).read_bytes()


def test_the_corpus_is_rendered_as_servers_render(tokenizer: Any) -> None:
    for item in [*training_items("tools", 20), *training_items("math", 20)]:
        assert render_text(item) == tokenization.render_messages(item, tokenizer, len(item.messages))


def test_what_servers_add_to_a_tool_does_not_change_the_prompt(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "go"}]
    full = [{"type": "function", "function": {"strict": False, **TOOLS[0]["function"]}, "defer_loading": None}]
    flat = [TOOLS[0]["function"]]
    texts = {
        tokenizer.apply_chat_template(messages, tools=tools, tokenize=False) for tools in (list(TOOLS), full, flat)
    }
    assert len(texts) == 1


def test_all_kinds_of_turn_are_rendered() -> None:
    messages = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "Yes.", "tool_calls": [CALL, CALL]},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "It is 3."},
    )
    call = '<tool_call>\n{"name": "add", "arguments": {"x": "é"}}\n</tool_call>'
    assert render_text(Conversation(messages, TOOLS)) == (
        '<|im_start|>system\nBe brief.\n# Tools\n<tools>\n{"name": "add", "description": "", "parameters": '
        '{"type": "object"}}\n</tools><|im_end|>\n<|im_start|>user\ngo<|im_end|>\n'
        f"<|im_start|>assistant\nYes.\n{call}\n{call}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n3\n</tool_response><|im_end|>\n<|im_start|>assistant\nIt is 3.<|im_end|>\n"
    )
