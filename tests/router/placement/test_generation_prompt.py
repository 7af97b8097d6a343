"""Where answers begin in the tokens of prompts, with templates in the forms of well-known bases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, pre_tokenizers

from psserve.router.placement.generation_prompt import GenerationPrompts, NoAnswer, last_end
from psserve.zoo.checkpoints.chat_template import compiled
from psserve.zoo.synthetic.tokenizer import CORPUS, train_tokenizer
from tests import chat_templates

USER = {"role": "user", "content": "How many?"}
NAMES = ("CHATML", "QWEN_3", "QWEN_3_THINKING", "QWEN_3_5", "LLAMA_3", "MISTRAL")
TEMPLATES = {name: getattr(chat_templates, name) for name in NAMES}


class Base:
    """A checkpoint's tokenizer and template."""

    def __init__(self, folder: Path, template: str) -> None:
        cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
        train_tokenizer(folder, CORPUS.splitlines(), cut, 512, template, 4096, ("<think>", "</think>"))
        self.folder = folder
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._template = compiled(template)

    def text(self, *messages: dict[str, str], **switches: Any) -> str:
        return self._template.render(messages=messages, add_generation_prompt=True, eos_token="<|im_end|>", **switches)

    def tokens(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def text_of(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_answer_begins_where_the_rendered_prompt_ends(tmp_path: Path, name: str) -> None:
    base = Base(tmp_path, TEMPLATES[name])
    found = GenerationPrompts(base.folder)
    history = ({"role": "assistant", "content": "None of them."}, USER)
    for messages in ((USER,), (USER, *history)):
        prompt = base.text(*messages)
        tokens = base.tokens(prompt + "19 apples")
        begin, end = found.last_in(tokens)
        assert end == len(base.tokens(prompt))
        assert prompt.endswith(base.text_of(tokens[begin:end]))


def test_what_a_template_writes_to_leave_thoughts_out_is_the_prompts(tmp_path: Path) -> None:
    base = Base(tmp_path, chat_templates.QWEN_3)
    found = GenerationPrompts(base.folder)
    for switches in ({}, {"enable_thinking": True}, {"enable_thinking": False}):
        prompt = base.text(USER, **switches)
        assert found.last_in(base.tokens(prompt + "19 apples")).end == len(base.tokens(prompt))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base(tmp_path_factory.mktemp("base"), chat_templates.CHATML)


def test_a_prompt_without_an_answer_is_said(base: Base) -> None:
    found = GenerationPrompts(base.folder)
    with pytest.raises(NoAnswer, match=r"has no generation prompt .*'<.im_start.>assistant"):
        found.last_in(base.tokens("What is 1 + 1? 2"))
    with pytest.raises(NoAnswer, match="an answer must follow"):
        found.last_in(base.tokens(base.text(USER)))


def test_a_token_across_the_end_of_the_last_prompt_is_not_taken_for_an_answer_to_an_earlier_one(tmp_path: Path) -> None:
    base = Base(tmp_path, chat_templates.CHATML)
    text = base.text(USER, {"role": "assistant", "content": "None."}, USER).removesuffix("\n")
    tokens = [*base.tokens(text), two_line_breaks(base), *base.tokens("19")]
    with pytest.raises(NoAnswer, match="part of the last generation prompt and of the answer"):
        GenerationPrompts(base.folder).last_in(tokens)


def two_line_breaks(base: Base) -> int:
    """One token of both, which the base knows from now on."""
    tokenizer = Tokenizer.from_file(str(base.folder / "tokenizer.json"))
    tokenizer.add_tokens(["\n\n"])
    tokenizer.save(str(base.folder / "tokenizer.json"))
    found = tokenizer.token_to_id("\n\n")
    assert found is not None
    return int(found)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (None, "has no chat template"),
        ("{% for message in messages %}{{ message.content }}\n{% endfor %}", "no generation prompt that tells"),
        ("{% if %}", "cannot be understood"),
        ("{{ raise_exception('no') }}", "no generation prompt that tells"),
    ],
)
def test_templates_that_do_not_tell(tmp_path: Path, template: str | None, why: str) -> None:
    Base(tmp_path, chat_templates.CHATML)
    if template is None:
        (tmp_path / "chat_template.jinja").unlink()
    else:
        (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(NoAnswer, match=why):
        GenerationPrompts(tmp_path)


def test_a_base_that_is_not_here_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match="router cannot read"):
        GenerationPrompts(tmp_path / "none")


def test_the_last_end_is_of_whole_tokens() -> None:
    assert last_end([1, 2, 3, 1, 2, 4], [1, 2]) == 5
    assert last_end([1, 2], [1, 2]) == 2
    assert last_end([1, 2], [2, 1]) == -1
    assert last_end([7 << 8, 7], [7 << 24 >> 16]) == 1
    assert last_end([1 << 8, 0], [1]) == -1  # its bytes are there, but of no token of their own
