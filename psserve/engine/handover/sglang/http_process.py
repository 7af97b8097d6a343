"""The process that takes requests, and makes answers of tokens: messages, tools, thoughts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from psserve.engine.handover.sglang.adapters import LoadedAdapter, LoRARegistry


class ClientRequest(Protocol):
    """A request as a client sent it; a batch has a list of ids."""

    rid: str | list[str] | None


class AbortedRequest(Protocol):
    """A scheduler's word that it ended a request before it ran."""

    rid: str


class Tokenizer(Protocol):
    """Transformers', not SGLang's."""

    added_tokens_decoder: Mapping[int, AddedToken]

    def convert_ids_to_tokens(self, ids: int) -> str: ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str: ...

    def apply_chat_template(self, conversation: Sequence[Mapping[str, str]], **options: Any) -> Any: ...

    def __hash__(self) -> int: ...


class AddedToken(Protocol):
    """A token that a tokenizer knows beside those of its vocabulary: Transformers', not SGLang's."""

    special: bool
    """Texts leave it out, unless the request asks for such tokens."""


class GenerateRequest(Protocol):
    """What a request asks a server for."""

    rid: str
    sampling_params: Mapping[str, Any]
    lora_path: str | None
    lora_id: str | None


class RequestState(Protocol):
    """A request in the HTTP process."""

    obj: GenerateRequest
    output_token_logprobs: list[tuple[float, int, str]]
    """Log-probability, id and text of each token so far."""


class SentState(Protocol):
    """A request in the HTTP process, which says where it has got to."""

    dispatched: bool
    """Whether a scheduler was told of it."""


class LogProbs(Protocol):
    """Log-probabilities as completions give them."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    """Empty where nobody asked for them."""
    text_offset: list[int]


class CompletionRequest(Protocol):
    """The body of a completion request, of one prompt."""

    prompt: list[int]
    skip_special_tokens: bool
    custom_params: Mapping[str, Any] | None


class CompletionChoice(Protocol):
    """One answer."""

    text: str
    logprobs: LogProbs | None


class Completion(Protocol):
    """A whole answer to a completion request."""

    choices: list[CompletionChoice]


class CompletionServing(Protocol):
    """What answers completion requests."""

    tokenizer_manager: TokenizerManager


class TokenizerManager(Protocol):
    """What takes requests in the HTTP process."""

    tokenizer: Tokenizer
    rid_to_state: Mapping[str, RequestState]
    lora_registry: LoRARegistry
    lora_ref_cache: dict[str, LoadedAdapter]
    """By name: adapters that may be loaded when asked for."""

    def abort_request(self, rid: str) -> None: ...

    def detokenize_logprob_tokens(
        self, token_logprobs_val: Sequence[float | None], token_logprobs_idx: list[int], decode_to_text: bool
    ) -> list[Any]: ...


class ToolFunction(Protocol):
    """A function that may be called."""

    parameters: Any
    """The JSON schema of its arguments, or None."""
    strict: bool


class Tool(Protocol):
    """A tool as a client offers it."""

    function: ToolFunction


class ChatRequest(Protocol):
    """The body of a chat request."""

    model: str
    messages: Sequence[Any]
    """With `role` and `content`, a text or its parts."""
    continue_final_message: bool
    reasoning_effort: str | float | None
    chat_template_kwargs: dict[str, Any] | None
    """What the template is rendered with beside the messages."""


class ToolCallDetector(Protocol):
    """Reads calls of tools in one model family's form, of one answer."""

    bot_token: str
    eot_token: str
    _buffer: str
    """Text that was not given out."""
    current_tool_id: int
    current_tool_name_sent: bool
    prev_tool_call_arr: list[dict[str, Any]]
    streamed_args_for_tool: list[str]

    def has_tool_call(self, text: str) -> bool: ...

    def parse_streaming_increment(self, new_text: str, tools: list[Tool]) -> Any: ...


class ToolCallParser(Protocol):
    """A detector and the tools that were offered."""

    tools: list[Tool]
    detector: ToolCallDetector

    def parse_stream_chunk(self, chunk_text: str) -> tuple[str, list[Any]]: ...


class ReasoningDetector(Protocol):
    """The marks of thoughts in one model family's form, and what SGLang makes of one answer."""

    think_start_token: str
    think_end_token: str
    tool_start_token: str | None
    """What ends a thought too."""
    _in_reasoning: bool
    """Before anything is read: whether an answer without marks is a thought."""


class ReasoningParser(Protocol):
    """Reads thoughts in one answer."""

    detector: ReasoningDetector
