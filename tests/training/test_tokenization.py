"""Answer spans, and prompts as a server sees them."""

from __future__ import annotations

from typing import Any

import pytest

from psserve import torchvision_ops
from psserve.errors import DataError
from psserve.training.conversation import Conversation
from psserve.training.tokenization import pretraining_blocks, prompt_ids, tokenize_conversation, tokenize_parts
from psserve.zoo.synthetic.tokenizer import END, write_tokenizer

TURNS = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "And 3 more?"},
    {"role": "assistant", "content": "7"},
)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torchvision_ops.declare_missing()
    from transformers import AutoTokenizer

    directory = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(directory, 4096)
    return AutoTokenizer.from_pretrained(directory)


@pytest.fixture
def template(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set another chat template for one test."""
    return lambda text: monkeypatch.setattr(tokenizer, "chat_template", text)


def test_answers_are_the_turns_and_their_end(tokenizer: Any) -> None:
    tokenized = tokenize_conversation(Conversation(TURNS), tokenizer, 4096)
    answers = [tokenizer.decode(tokenized.input_ids[start:end]) for start, end in tokenized.answers]
    assert answers == [f"4{END}", f"7{END}"]


def test_what_precedes_an_answer_is_the_prompt_that_asks_for_it(tokenizer: Any) -> None:
    tokenized = tokenize_conversation(Conversation(TURNS), tokenizer, 4096)
    for turn, (start, _) in zip((2, 4), tokenized.answers, strict=True):
        assert tokenized.input_ids[:start] == prompt_ids(Conversation(TURNS[: turn + 1]), tokenizer)


def test_nothing_follows_the_last_answer(tokenizer: Any) -> None:
    tokenized = tokenize_conversation(Conversation((*TURNS, {"role": "user", "content": "thanks"})), tokenizer, 4096)
    assert len(tokenized.input_ids) == tokenized.answers[-1][1]


def test_a_tool_call_is_an_answer(tokenizer: Any) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"x": 1}}}
    tools = ({"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}},)
    messages = ({"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": [call]})
    tokenized = tokenize_conversation(Conversation(messages, tools), tokenizer, 4096)
    [(start, end)] = tokenized.answers
    assert '{"name": "add", "arguments": {"x": 1}}' in tokenizer.decode(tokenized.input_ids[start:end])
    assert '"strict": false' in tokenizer.decode(tokenized.input_ids[:start])  # as SGLang hands tools to the template


def test_longer_than_the_context_is_refused(tokenizer: Any) -> None:
    length = len(tokenize_conversation(Conversation(TURNS), tokenizer, 4096).input_ids)
    assert tokenize_conversation(Conversation(TURNS), tokenizer, length)
    with pytest.raises(DataError, match=f"here: {length} tokens, longer than {length - 1}"):
        tokenize_conversation(Conversation(TURNS, where="here"), tokenizer, length - 1)


def test_no_assistant_turn_is_refused(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="no assistant turn"):
        tokenize_conversation(Conversation(TURNS[:2]), tokenizer, 4096)


def test_no_chat_template_is_refused(tokenizer: Any, template: Any) -> None:
    template(None)
    with pytest.raises(DataError, match="no chat template"):
        tokenize_conversation(Conversation(TURNS), tokenizer, 4096)


def test_a_template_that_refuses_is_an_error_with_the_place(tokenizer: Any, template: Any) -> None:
    template("{{ raise_exception('no system turns') }}")
    with pytest.raises(DataError, match=r"here: .*no system turns"):
        tokenize_conversation(Conversation(TURNS, where="here"), tokenizer, 4096)


def test_a_template_that_rewrites_earlier_turns_makes_each_turn_a_part(tokenizer: Any, template: Any) -> None:
    template(
        "{% for m in messages %}{{ m.role }}:{{ m.content if loop.last or m.role == 'user' else '...' }}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    with pytest.raises(DataError, match=r"messages\.4: the chat template renders earlier turns differently"):
        tokenize_conversation(Conversation(TURNS), tokenizer, 4096)
    parts = list(tokenize_parts(Conversation(TURNS), tokenizer, 4096))
    for turn, part in zip((2, 4), parts, strict=True):
        [(start, end)] = part.answers
        assert part.input_ids[:start] == prompt_ids(Conversation(TURNS[: turn + 1]), tokenizer)
        assert tokenizer.decode(part.input_ids[start:end]) == TURNS[turn]["content"] + END


def test_a_conversation_is_one_part_where_the_template_lets_it(tokenizer: Any) -> None:
    assert list(tokenize_parts(Conversation(TURNS), tokenizer, 4096)) == [
        tokenize_conversation(Conversation(TURNS), tokenizer, 4096)
    ]


def test_a_template_without_the_prompt_before_the_answer_is_refused(tokenizer: Any, template: Any) -> None:
    template("{{ messages | length }}{% if add_generation_prompt %}?{% endif %}")
    with pytest.raises(DataError, match=r"messages\.2: the chat template does not put the answer after its prompt"):
        tokenize_conversation(Conversation(TURNS), tokenizer, 4096)


def test_a_template_without_end_of_turn_is_refused(tokenizer: Any, template: Any) -> None:
    template("{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}assistant:")
    with pytest.raises(DataError):
        tokenize_conversation(Conversation(TURNS[:3]), tokenizer, 4096)


def test_packed_blocks_hold_every_token_in_order(tokenizer: Any) -> None:
    texts = ["one two", "three", "four five six"] * 5
    blocks = list(pretraining_blocks(texts, tokenizer, 7))
    flat = [token for text in texts for token in [*tokenizer.encode(text), tokenizer.pad_token_id]]
    assert all(len(block) == 7 for block in blocks)
    assert [token for block in blocks for token in block] == flat[: len(flat) // 7 * 7]
