"""A conversation in OpenAI's chat form, and what one line of a data file may say."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator


@dataclass(frozen=True)
class Conversation:
    """Messages and tools in OpenAI's form, except that the arguments of a tool call are an object, not its text.

    Chat templates take them as an object, and SGLang parses them before it renders a prompt.
    """

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    tests: str = ""
    """Python that passes (does not raise) after a right answer to a programming task; see scorers.py."""
    where: str = field(default="conversation", compare=False)
    """File and line, for messages."""

    @property
    def prompt(self) -> tuple[dict[str, Any], ...]:
        """All messages but the last, which is the reference answer when the conversation is an evaluation item."""
        return self.messages[:-1]


def refuse_surrogates(text: str) -> str:
    """Half a UTF-16 pair, which JSON can spell (\\ud800), is no text: tokenizers cannot encode it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair") from None
    return text


def parse_json_text(value: object) -> object:
    """The value itself, or what its JSON text says: Parquet files often carry objects as text."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None


Text = Annotated[str, AfterValidator(refuse_surrogates)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(parse_json_text)]


class Strict(BaseModel):
    """Base of all parts of a line: unknown fields are refused, so that a misspelt one is not passed over."""

    model_config = ConfigDict(extra="forbid")


class FunctionCall(Strict):
    name: Text
    arguments: JsonObject


class ToolCall(Strict):
    id: Text | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Strict):
    """One turn. What is said to the assistant may be empty, as servers take it: a tool that answered nothing."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Text | None = None
    name: Text | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: Text | None = None

    @model_validator(mode="after")
    def says_something(self) -> Message:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"tool_calls in a message of role {self.role!r}")
        if self.role == "assistant" and not self.content and not self.tool_calls:
            raise ValueError("neither content nor tool_calls")
        if self.content is None and self.role != "assistant":
            raise ValueError("content is missing (it may be empty)")
        return self


class ToolFunction(Strict):
    name: Text
    description: Text | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class Tool(Strict):
    type: Literal["function"] = "function"
    function: ToolFunction


class Line(Strict):
    """One line (or row): `messages` with optional `tools`, or `prompt` and `completion`; `tests` for evaluation."""

    messages: Annotated[list[Message] | None, BeforeValidator(parse_json_text)] = None
    tools: Annotated[list[Tool] | None, BeforeValidator(parse_json_text)] = None
    prompt: Text | None = Field(default=None, min_length=1)
    completion: Text | None = Field(default=None, min_length=1)
    tests: Text | None = None

    @model_validator(mode="after")
    def has_one_form(self) -> Line:
        pair = (self.prompt is not None, self.completion is not None)
        if self.messages is not None and any(pair):
            raise ValueError("both messages and prompt or completion: give one form")
        if self.messages is None and not all(pair):
            raise ValueError("neither messages nor prompt and completion")
        if self.messages is not None and all(message.role != "assistant" for message in self.messages):
            raise ValueError("messages: no assistant turn, so there is nothing to learn")
        return self

    def conversation(self, where: str) -> Conversation:
        """Prompt and completion become one user turn and one assistant turn."""
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": self.prompt},
            {"role": "assistant", "content": self.completion},
        ]
        if self.messages is not None:
            messages = [message.model_dump(exclude_none=True) for message in self.messages]
        tools = tuple(tool.model_dump(exclude_none=True) for tool in self.tools or ())
        return Conversation(tuple(messages), tools, self.tests or "", where)
