"""Thoughts, read by SGLang's own parsers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from psserve.engine.fixes import thoughts
from psserve.fleet.plan.parsers import REASONING_MARKS, TOOL_CALL_MARKS, parsers_of
from tests.chat_templates import DEEPSEEK_R1, QWEN_3, QWEN_3_5, QWEN_3_THINKING
from tests.engine.hooked import hooked

CALL = '<tool_call>\n{"name": "find"}\n</tool_call>'
ANSWERS = (
    "<think>\nLet me see.\n</think>\n\nFour.",
    "<think>\n\n</think>\n\nFour.",
    "Let me see.\n</think>\n\nFour.",
    "<think>never to end",
    "never to begin",
    "",
    "<think>",
    "<thin",
    "\n<think>late</think>but well",
    "a < b, and a </thinker is no end",
    "first <think>then</think>last",
    f"<think>I call it.{CALL}",
    f"<think>Is <tool_call> the way?</think>{CALL}",
    f"{CALL}</think>",
    "<think>one</think>two<think>three</think>four",
    "<think><think>twice</think>done",
    "ends within </thin",
)


@pytest.fixture(scope="module")
def with_hooks() -> Iterator[None]:
    with hooked(thoughts.hooks()):
        yield


@cache
def tokenizer_of(template: str, directory: Path) -> Any:
    from transformers import AutoTokenizer

    from psserve.zoo.synthetic.tokenizer import write_tokenizer

    write_tokenizer(directory, 4096)
    (directory / "chat_template.jinja").write_text(template)
    return AutoTokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def parser_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """SGLang's parser for one answer, made as its chat endpoint makes it for a template and a request's fields."""

    def make(template: str, streams: bool = True, **fields: Any) -> Any:
        from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest
        from sglang.srt.entrypoints.openai.serving_chat import OpenAIServingChat
        from sglang.srt.parser.reasoning_parser import ReasoningParser
        from sglang.srt.parser.template_detection import detect_reasoning_pattern

        kind = parsers_of(template).reasoning
        assert kind is not None
        tokenizer = tokenizer_of(template, tmp_path_factory.getbasetemp())
        always, config = detect_reasoning_pattern(template)
        messages = fields.pop("messages", [{"role": "user", "content": "2 + 2?"}])
        request = ChatCompletionRequest(model="m", messages=messages, **fields)
        serving = OpenAIServingChat.__new__(OpenAIServingChat)
        serving.reasoning_parser = kind
        serving._reasoning_detector = ReasoningParser(kind, tokenizer=tokenizer).detector
        serving.template_manager = type("Templates", (), {"reasoning_config": config})
        is_forced = always or serving._get_reasoning_from_request(request)
        return ReasoningParser(kind, streams, is_forced, request, tokenizer=tokenizer)

    return make


def whole(parser: Any, text: str) -> tuple[str, str]:
    return parser.parse_non_stream(text)


def streamed(parser: Any, pieces: list[str]) -> tuple[str, str]:
    read = [*map(parser.parse_stream_chunk, pieces), parser.parse_stream_end()]
    return "".join(thought or "" for thought, _ in read), "".join(answer or "" for _, answer in read)


def cut(text: str, seed: int) -> list[str]:
    rng = random.Random(seed)
    pieces = []
    while text:
        size = rng.randint(1, 9)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


@pytest.mark.parametrize("template", [QWEN_3, QWEN_3_THINKING, QWEN_3_5, DEEPSEEK_R1])
@pytest.mark.parametrize("fields", [{}, {"chat_template_kwargs": {"enable_thinking": False}}], ids=["on", "off"])
@pytest.mark.usefixtures("with_hooks")
def test_streams_are_read_as_whole_answers_however_they_are_cut(parser_of: Any, template: str, fields: Any) -> None:
    for text in ANSWERS:
        expected = whole(parser_of(template, streams=False, **fields), text)
        for seed in range(5):
            pieces = cut(text, seed)
            assert streamed(parser_of(template, **fields), pieces) == expected, (text, pieces)
            assert streamed(parser_of(template, streams=False, **fields), pieces) == expected, (text, pieces)


@pytest.mark.parametrize(
    ("template", "text", "read"),
    [
        (QWEN_3, "<think>\nHm.\n</think>\n\nFour.", ("\nHm.\n", "\n\nFour.")),
        (QWEN_3, "Four.", ("", "Four.")),
        (QWEN_3, "<think>Hm", ("Hm", "")),
        (QWEN_3, f"<think>Hm{CALL}", ("Hm", CALL)),
        (QWEN_3, "In HTML, <think> is no tag.", ("", "In HTML, <think> is no tag.")),
        (QWEN_3_5, "Hm.\n</think>\n\nFour.", ("Hm.\n", "\n\nFour.")),
        (QWEN_3_5, "Hm.", ("Hm.", "")),
        (QWEN_3_THINKING, "Hm.\n</think>\n\nFour.", ("Hm.\n", "\n\nFour.")),
        (DEEPSEEK_R1, "Hm.\n</think>\n\nFour.", ("Hm.\n", "\n\nFour.")),
        (DEEPSEEK_R1, "<think>\nHm.</think>Four.", ("\nHm.", "Four.")),
    ],
)
@pytest.mark.usefixtures("with_hooks")
def test_what_is_a_thought(parser_of: Any, template: str, text: str, read: tuple[str, str]) -> None:
    assert whole(parser_of(template), text) == read


@pytest.mark.parametrize("template", [QWEN_3, QWEN_3_5])
@pytest.mark.parametrize(
    "fields", [{"chat_template_kwargs": {"enable_thinking": False}}, {"reasoning_effort": "none"}], ids=str
)
@pytest.mark.usefixtures("with_hooks")
def test_an_answer_without_thinking_is_no_thought(parser_of: Any, template: str, fields: dict[str, Any]) -> None:
    assert whole(parser_of(template, **fields), "Four.") == ("", "Four.")


@pytest.mark.parametrize(
    ("begun", "read"),
    [
        ("<think>Hm.", ("So", "it is.")),
        ("<think>Hm.</think>", ("", "So</think>it is.")),
        ("Four", ("", "So</think>it is.")),
        (" ", ("", "So</think>it is.")),
    ],
)
@pytest.mark.usefixtures("with_hooks")
def test_an_answer_whose_beginning_the_client_wrote(parser_of: Any, begun: str, read: tuple[str, str]) -> None:
    messages = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": begun}]
    parser = parser_of(QWEN_3, messages=messages, continue_final_message=True)
    assert whole(parser, "So</think>it is.") == read


def test_a_usual_answer_is_read_as_stock_sglang_reads_it(parser_of: Any) -> None:
    usual = ("<think>\nHm.\n</think>\n\nFour.", "<think>\n\n</think>\n\nFour.", "<think>\nHm.")
    templates = (QWEN_3, QWEN_3_THINKING, DEEPSEEK_R1)
    stock = [whole(parser_of(template), text) for template in templates for text in usual]
    with hooked(thoughts.hooks()):
        assert [whole(parser_of(template), text) for template in templates for text in usual] == stock


@pytest.mark.usefixtures("with_hooks")
def test_other_forms_are_read_by_sglang() -> None:
    from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest
    from sglang.srt.parser.reasoning_parser import ReasoningParser

    request = ChatCompletionRequest(model="m", messages=[{"role": "user", "content": "x"}])
    text = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Four."
    assert whole(ReasoningParser("gpt-oss", request=request), text) == ("Hm.", "Four.")


def test_a_template_that_cannot_be_asked_is_no_failure() -> None:
    class Strict:
        def apply_chat_template(self, *args: object, **kwargs: object) -> str:
            raise ValueError("the chat must begin with a system message")

    assert thoughts.opens_thought(Strict(), "<think>", json.dumps({})) is None


def test_every_parser_that_psserve_chooses_is_one_of_sglangs() -> None:
    from sglang.srt.function_call.function_call_parser import FunctionCallParser
    from sglang.srt.parser.reasoning_parser import ReasoningParser

    assert {mark.parser for mark in TOOL_CALL_MARKS} <= FunctionCallParser.ToolCallParserEnum.keys()
    assert {mark.parser for mark in REASONING_MARKS} <= ReasoningParser.DetectorMap.keys()
