"""What a module writes of tools reaches the client: what is no call of a tool that was offered, as text.

Stock SGLang 0.5.18 drops it: a call of a tool that was not offered, one that `max_tokens` has cut, what stands after a
call; and not the same of it in streams and in whole answers. Here everything is text from the first call on that
cannot be read, and a call that was cut is a call with what there is of its arguments. It also asks for a forced call
with any JSON as arguments, where clients expect an object of the tool's schema, and lets others follow where the client
wants one alone.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import orjson

from psserve.engine.handover.sglang.http_process import ChatRequest, Tool, ToolCallDetector, ToolCallParser
from psserve.engine.hooks import Hook, Kind

Parsed = tuple[str, list[Any]]
"""Text, and SGLang's ToolCallItems."""
PIECE, PIECES = 16, 64
"""A whole answer is read again as a stream of at least PIECE characters a piece, and of at most PIECES pieces."""

_unread: WeakKeyDictionary[ToolCallDetector, str] = WeakKeyDictionary()
"""Of each stream that came to a call that cannot be read: the text from there on, at that time."""


def _tools_as_constrained(
    original: Callable[..., Any], parser: ToolCallParser, tool_choice: object, **rest: Any
) -> Any:
    """AROUND `FunctionCallParser.get_structure_constraint`: arguments are objects, of a forced call the schema's.

    Where calls are constrained and `parallel_tool_calls` is false, the answer ends with the first.
    """
    is_forced = tool_choice == "required" or not isinstance(tool_choice, str)
    constrained = copy.copy(parser)
    constrained.tools = [_of_object(tool, is_forced) for tool in parser.tools]
    constraint = original(constrained, tool_choice, **rest)
    if rest.get("parallel_tool_calls", True) or constraint is None or constraint[0] != "structural_tag":
        return constraint
    return "structural_tag", _ending_with_one(constraint[1].model_dump(by_alias=True))


def _ending_with_one(tag: dict[str, Any]) -> Any:
    """A structural tag after whose first call nothing follows, of one in xgrammar's form or in SGLang's older one."""
    from xgrammar import StructuralTag

    if "structures" in tag:
        return _one_call_tag().model_validate(tag)
    return StructuralTag.model_validate({"format": _stopping(tag["format"])})


@cache
def _one_call_tag() -> Any:
    """SGLang's older form, with what `tag_grammar` reads beside its own."""
    from pydantic import create_model
    from sglang.srt.entrypoints.openai.protocol import LegacyStructuralTagResponseFormat

    return create_model("OneCallTag", __base__=LegacyStructuralTagResponseFormat, stop_after_first=(bool, True))


def _stopping(part: object) -> Any:
    """A part of a structural tag: wherever it could go on after a tag, it stops."""
    if isinstance(part, list):
        return [_stopping(each) for each in part]
    if not isinstance(part, dict):
        return part
    kept = {name: value if name == "json_schema" else _stopping(value) for name, value in part.items()}
    return kept | {"stop_after_first": True} if "stop_after_first" in part else kept


def _of_object(tool: Tool, is_forced: bool) -> Tool:
    tool, function = copy.copy(tool), copy.copy(tool.function)
    function.parameters = {"type": "object"} | (function.parameters or {})
    function.strict = is_forced or function.strict
    tool.function = function
    return tool


def _note_what_is_unread(
    original: Callable[..., Any], detector: ToolCallDetector, new_text: str, tools: list[Tool]
) -> Any:
    """AROUND `BaseFormatDetector.parse_streaming_increment`, which clears its buffer when a call names no tool."""
    held = detector._buffer + new_text
    before, mark, call = held.partition(detector.bot_token)
    if not mark or not detector.bot_token or detector.current_tool_name_sent or detector.current_tool_id > 0:
        before, call = "", held
    else:
        detector._buffer, new_text, call = "", mark + call, mark + call
    result = original(detector, new_text, tools)
    if not (result.calls or result.normal_text or detector._buffer) and detector.has_tool_call(call):
        _unread[detector] = call
    result.normal_text = before + result.normal_text
    return result


def _read_piece(original: Callable[..., Parsed], parser: ToolCallParser, chunk_text: str) -> Parsed:
    """AROUND `FunctionCallParser.parse_stream_chunk`."""
    if parser.detector in _unread:
        return chunk_text, []
    text, calls = original(parser, chunk_text)
    return text + _unread.get(parser.detector, ""), calls


def _read_whole(original: Callable[..., Parsed], parser: ToolCallParser, full_text: str, **newer: Any) -> Parsed:
    """AROUND `FunctionCallParser.parse_non_stream`: what it would lose is read as a stream's would be."""
    text, calls = original(parser, full_text, **newer)
    detector = parser.detector
    if not parser.tools or not detector.has_tool_call(full_text) or not _is_lost(detector, full_text, len(calls)):
        return text, calls
    if not _reads_as_base(detector):
        return (text, calls) if calls else (full_text, [])
    again = copy.copy(parser)
    again.detector = type(detector)()
    return _read_again(again, full_text)


def _is_lost(detector: ToolCallDetector, text: str, calls: int) -> bool:
    if not calls or not detector.bot_token or not detector.eot_token:
        return not calls
    return text.count(detector.bot_token) > calls or bool(text.rpartition(detector.eot_token)[2].strip())


def _reads_as_base(detector: ToolCallDetector) -> bool:
    """Whether its streams are read by the base class's parser."""
    from sglang.srt.function_call.base_format_detector import BaseFormatDetector
    from sglang.srt.function_call.hermes_detector import HermesDetector
    from sglang.srt.function_call.llama32_detector import Llama32Detector
    from sglang.srt.function_call.qwen25_detector import Qwen25Detector

    if isinstance(detector, (HermesDetector, Llama32Detector, Qwen25Detector)):  # they call it
        return True
    return type(detector).parse_streaming_increment is BaseFormatDetector.parse_streaming_increment


def _read_again(parser: ToolCallParser, full_text: str) -> Parsed:
    texts: list[str] = []
    calls: list[Any] = []
    for text, items in _replayed(parser, full_text):
        texts.append(text)
        for item in items:
            if item.name:
                calls.append(item.model_copy())
            elif calls:
                calls[-1].parameters += item.parameters
    if calls:
        calls[-1].parameters += _unsent_arguments(parser.detector)
    return "".join(texts) + _held(parser.detector), calls


def _replayed(parser: ToolCallParser, text: str) -> Iterator[Parsed]:
    size = max(PIECE, -(-len(text) // PIECES))
    for start in range(0, len(text), size):
        yield parser.parse_stream_chunk(text[start : start + size])
    while any(more := parser.parse_stream_chunk("")):  # a piece takes it one step on, a name or some arguments
        yield more


def _unsent_arguments(detector: ToolCallDetector) -> str:
    """What SGLang sends at the end of a stream: the rest of the last call's arguments."""
    last = len(detector.prev_tool_call_arr) - 1
    if not 0 <= last < len(detector.streamed_args_for_tool):
        return ""
    sent = detector.streamed_args_for_tool[last]
    arguments = json.dumps(detector.prev_tool_call_arr[last].get("arguments", {}), ensure_ascii=False)
    return arguments.removeprefix(sent) if arguments.startswith(sent) else ""


def _held(detector: ToolCallDetector) -> str:
    """Text that a stream's end finds held back: the beginning of a call, or of a mark, that did not come."""
    if detector in _unread or detector.current_tool_name_sent:
        return ""
    text = getattr(detector, "_normal_text_buffer", "") + detector._buffer
    mark = detector.eot_token.strip()
    text = text.replace(detector.eot_token, "") if mark else text
    return "" if mark.startswith(text.strip()) else text


def _send_what_is_held(
    original: Callable[..., str | None],
    serving: object,
    parser: object,
    content: dict[str, Any],
    request: ChatRequest,
    index: int,
    **newer: Any,
) -> str | None:
    """AROUND `OpenAIServingChat._check_for_unstreamed_tool_args`, which every stream with tools ends with."""
    chunk = original(serving, parser, content, request, index, **newer)
    detector = getattr(parser, "detector", None)
    if detector is None or not _reads_as_base(detector) or not (text := _held(detector)):
        return chunk
    choice = {"index": index, "delta": {"content": text}, "finish_reason": None}
    event = {"id": content["meta_info"]["id"], "object": "chat.completion.chunk", "model": request.model}
    document = orjson.dumps(event | {"created": content["meta_info"].get("created", 0), "choices": [choice]}).decode()
    return f"{chunk or ''}data: {document}\n\n"


def hooks() -> tuple[Hook, ...]:
    """The hooks that a decode server needs; a prefill server's token is thrown away."""
    parser = "sglang.srt.function_call.function_call_parser.FunctionCallParser"
    detector = "sglang.srt.function_call.base_format_detector.BaseFormatDetector"
    serving = "sglang.srt.entrypoints.openai.serving_chat.OpenAIServingChat"
    return (
        Hook(f"{parser}.get_structure_constraint", Kind.AROUND, _tools_as_constrained),
        Hook(f"{detector}.parse_streaming_increment", Kind.AROUND, _note_what_is_unread),
        Hook(f"{parser}.parse_stream_chunk", Kind.AROUND, _read_piece),
        Hook(f"{parser}.parse_non_stream", Kind.AROUND, _read_whole),
        Hook(f"{serving}._check_for_unstreamed_tool_args", Kind.AROUND, _send_what_is_held),
    )
