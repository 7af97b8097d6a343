"""Thoughts in `<think>` marks: the same in streams and in whole answers, and an answer without any is no thought.

Stock SGLang 0.5.18 reads a whole answer otherwise than its stream where a mark stands in an unusual place. And where a
template lets the model open its thoughts itself, as Qwen3's does, an answer that begins without `<think>` is a thought
to it from end to end: a module that was not trained to think would answer nothing. Here a thought is

- what follows on the opening mark at the beginning of an answer, or on a prompt that ends with that mark;
- up to the closing mark, or to the call of a tool, whichever comes first.

Models that always think (DeepSeek-R1, Qwen3 Thinking) may leave out the opening mark, as SGLang has it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum, auto
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from psserve.engine.handover.sglang.http_process import ChatRequest, ReasoningDetector, ReasoningParser, Tokenizer
from psserve.engine.hooks import Hook, Kind

Parsed = tuple[str, str]
"""A thought, and what is none."""
HYBRID = "qwen3"
"""SGLang's name of the parser for templates under which a model may think or not."""


class Phase(Enum):
    """Where in an answer its reader is."""

    BEGIN = auto()
    THOUGHT = auto()
    ANSWER = auto()


class Reader:
    """Reads one answer, in pieces of any size, with the same result."""

    def __init__(self, marks: ReasoningDetector, phase: Phase, *, unmarked: Phase, streams: bool) -> None:
        """`unmarked`: what an answer is that begins without the opening mark. `streams`: thoughts come in pieces."""
        self._start = marks.think_start_token
        self._ends = tuple(filter(None, (marks.think_end_token, marks.tool_start_token)))
        self._closing = marks.think_end_token
        self._phase, self._unmarked, self._streams = phase, unmarked, streams
        self._held = ""

    def feed(self, text: str) -> Parsed:
        """What is known after one more piece of the answer."""
        self._held += text
        if self._phase is Phase.BEGIN:
            self._begin()
        if self._phase is Phase.THOUGHT:
            return self._think()
        return ("", self._release(len(self._held))) if self._phase is Phase.ANSWER else ("", "")

    def end(self) -> Parsed:
        """What was held back when the answer ends."""
        is_thought = (self._unmarked if self._phase is Phase.BEGIN else self._phase) is Phase.THOUGHT
        rest = self._release(len(self._held))
        return (rest, "") if is_thought else ("", rest)

    def _begin(self) -> None:
        text = self._held.lstrip()
        if text.startswith(self._start):
            self._held = text.removeprefix(self._start)
            self._phase = Phase.THOUGHT
        elif not self._start.startswith(text):
            self._phase = self._unmarked

    def _think(self) -> Parsed:
        found = [(place, mark) for mark in self._ends if (place := self._held.find(mark)) >= 0]
        if not found:
            sure = len(self._held) - max(_begun(mark, self._held) for mark in self._ends)
            return self._release(sure) if self._streams else "", ""
        place, mark = min(found)
        self._phase = Phase.ANSWER
        thought = self._release(place)
        answer = self._release(len(self._held))
        return thought, answer.removeprefix(mark) if mark == self._closing else answer

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text


def _begun(mark: str, text: str) -> int:
    """How many characters of `mark` the text ends with: those that may become it."""
    return next((length for length in range(len(mark) - 1, 0, -1) if text.endswith(mark[:length])), 0)


_readers: WeakKeyDictionary[ReasoningParser, Reader] = WeakKeyDictionary()


def _read_with_own(
    original: Callable[..., None],
    parser: ReasoningParser,
    model_type: str | None = None,
    stream_reasoning: bool = True,
    force_reasoning: bool | None = None,
    request: ChatRequest | None = None,
    tokenizer: Tokenizer | None = None,
    **rest: Any,
) -> None:
    """AROUND `ReasoningParser.__init__`: of a chat's answer, in the forms of DeepSeek-R1 and Qwen3."""
    original(parser, model_type, stream_reasoning, force_reasoning, request, tokenizer=tokenizer, **rest)
    if request is None or not _is_plain(parser.detector):
        return
    opened = None if tokenizer is None else opens_thought(tokenizer, parser.detector.think_start_token, _asked(request))
    is_forced = parser.detector._in_reasoning if opened is None or model_type != HYBRID else opened
    unmarked = Phase.THOUGHT if is_forced else Phase.ANSWER
    phase = _continued(parser.detector, request, unmarked)
    _readers[parser] = Reader(parser.detector, phase, unmarked=unmarked, streams=stream_reasoning)


def _is_plain(detector: ReasoningDetector) -> bool:
    from sglang.srt.parser.reasoning_parser import DeepSeekR1Detector, Qwen3Detector

    return type(detector) in (DeepSeekR1Detector, Qwen3Detector)


def _asked(request: ChatRequest) -> str:
    """What the template is rendered with beside the messages, as JSON."""
    effort = {} if request.reasoning_effort is None else {"reasoning_effort": request.reasoning_effort}
    return json.dumps(effort | (request.chat_template_kwargs or {}), sort_keys=True, default=str)


@lru_cache(maxsize=64)
def opens_thought(tokenizer: Tokenizer, mark: str, switches: str) -> bool | None:
    """Whether a prompt ends with the opening mark under these switches (JSON). None: the template cannot be asked."""
    messages = [{"role": "user", "content": "."}]
    try:
        prompt: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **json.loads(switches)
        )
    except Exception:  # noqa: BLE001 - a template raises what it likes, and may not take so short a chat
        return None
    return prompt.rstrip().endswith(mark)


def _continued(detector: ReasoningDetector, request: ChatRequest, unmarked: Phase) -> Phase:
    """Where an answer begins: in the middle, where the client has written its beginning."""
    last = request.messages[-1]
    begun = last.content if request.continue_final_message and last.role == "assistant" else ""
    if not isinstance(begun, str) or not begun.strip():
        return Phase.BEGIN
    if detector.think_end_token in begun:
        return Phase.ANSWER
    return Phase.THOUGHT if detector.think_start_token in begun else unmarked


def _read_whole(original: Callable[..., Any], parser: ReasoningParser, full_text: str) -> Any:
    """AROUND `ReasoningParser.parse_non_stream`."""
    if (reader := _readers.get(parser)) is None:
        return original(parser, full_text)
    (thought, answer), (more_thought, more_answer) = reader.feed(full_text), reader.end()
    return thought + more_thought, answer + more_answer


def _read_piece(original: Callable[..., Any], parser: ReasoningParser, chunk_text: str) -> Any:
    """AROUND `ReasoningParser.parse_stream_chunk`."""
    reader = _readers.get(parser)
    return original(parser, chunk_text) if reader is None else reader.feed(chunk_text)


def _read_end(original: Callable[..., Any], parser: ReasoningParser) -> Any:
    """AROUND `ReasoningParser.parse_stream_end`."""
    reader = _readers.get(parser)
    return original(parser) if reader is None else reader.end()


def hooks() -> tuple[Hook, ...]:
    """The hooks that a decode server needs."""
    parser = "sglang.srt.parser.reasoning_parser.ReasoningParser"
    return (
        Hook(f"{parser}.__init__", Kind.AROUND, _read_with_own),
        Hook(f"{parser}.parse_non_stream", Kind.AROUND, _read_whole),
        Hook(f"{parser}.parse_stream_chunk", Kind.AROUND, _read_piece),
        Hook(f"{parser}.parse_stream_end", Kind.AROUND, _read_end),
    )
