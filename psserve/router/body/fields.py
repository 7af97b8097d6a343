"""The one table of request fields: which endpoint has each, what it must be, who gets it, or why it is refused.

A new field is one row. What is not in the table goes to the decode server as it is, and SGLang passes it over.
docs/api.md has the table in words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from psserve.contracts.router_config import RouterConfig
from psserve.router.body.chat import (
    COMPLETION_TOKENS,
    MAX_TOP_LOGPROBS,
    MODALITIES,
    NO_JSON_SCHEMA,
    TASK,
    TOOL_CHOICE,
    TOOLS,
    TOP_LOGPROBS,
    forced_tool,
    offered_tools,
)
from psserve.router.body.checks import (
    INT32_MAX,
    INT64_MAX,
    Body,
    Check,
    anything,
    boolean,
    integer,
    invalid,
    missing,
    number,
    string,
)
from psserve.router.body.completion import BEST_OF, ECHO, NO_COMPLETION_TOKENS, NO_SUFFIX, PROMPTS, TOKENIZE_TEXTS
from psserve.router.body.headers import SESSION
from psserve.router.body.messages import CHAT_MESSAGES
from psserve.router.body.output import (
    ANSWER_COUNT,
    GRAMMAR,
    JSON_SCHEMA,
    LENGTH,
    LOGIT_BIAS,
    MIN_TOKENS,
    NO_EXPERTS,
    RESPONSE_FORMAT,
    STOP,
    STOP_TOKENS,
    STREAM_OPTIONS,
    TOP_K,
)
from psserve.router.body.thinking import EFFORT, REASONING, TEMPLATE_SWITCHES, toggled

Route = Literal["chat", "completions"]
"""An endpoint whose bodies the servers understand."""
Endpoint = Literal["chat", "completions", "tokenize"]
Receiver = Literal["prefill", "decode"]
ROUTE_PATHS: dict[Route, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}

CHAT: frozenset[Endpoint] = frozenset({"chat"})
COMPLETIONS: frozenset[Endpoint] = frozenset({"completions"})
TOKENIZE: frozenset[Endpoint] = frozenset({"tokenize"})
GENERATION = CHAT | COMPLETIONS
PROMPT_OF_CHAT = CHAT | TOKENIZE

BOTH: frozenset[Receiver] = frozenset({"prefill", "decode"})
DECODE: frozenset[Receiver] = frozenset({"decode"})
ROUTER: frozenset[Receiver] = frozenset()
"""No server: the router has done what the field asks for."""


@dataclass(frozen=True, slots=True)
class Field:
    """A row."""

    name: str
    on: frozenset[Endpoint]
    """Where it is a field. Elsewhere it is unknown."""
    to: frozenset[Receiver]
    """Which of the two servers get it; of `/tokenize`, the decode server gets all."""
    check: Check
    of: Literal["OpenAI", "SGLang"] = "OpenAI"
    """The API that has it."""
    is_required: bool = False
    to_prefill: Callable[[Body], Body] | None = None
    """Makes the prefill leg's fields where they are not the value itself."""


FIELDS = (
    Field("model", GENERATION | TOKENIZE, DECODE, anything("a module's name, an alias, or auto; must be given")),
    Field("stream", GENERATION, DECODE, boolean()),
    Field("stream_options", GENERATION, DECODE, STREAM_OPTIONS),
    # How long the answer is, and how many there are.
    Field("max_tokens", GENERATION, DECODE, LENGTH),
    Field("max_completion_tokens", CHAT, DECODE, COMPLETION_TOKENS),
    Field("max_completion_tokens", COMPLETIONS, DECODE, NO_COMPLETION_TOKENS),
    Field("min_tokens", GENERATION, DECODE, MIN_TOKENS, of="SGLang"),
    Field("n", GENERATION, ROUTER, ANSWER_COUNT),
    Field("best_of", COMPLETIONS, ROUTER, BEST_OF),
    Field("stop", GENERATION, DECODE, STOP),
    Field("stop_token_ids", GENERATION, DECODE, STOP_TOKENS, of="SGLang"),
    Field("ignore_eos", GENERATION, DECODE, boolean(), of="SGLang"),
    # How tokens are chosen.
    Field("temperature", GENERATION, DECODE, number("from 0 to 2", lambda x: 0 <= x <= 2)),
    Field("top_p", GENERATION, DECODE, number("above 0, at most 1", lambda x: 0 < x <= 1)),
    Field("top_k", GENERATION, DECODE, TOP_K, of="SGLang"),
    Field("min_p", GENERATION, DECODE, number("from 0 to 1", lambda x: 0 <= x <= 1), of="SGLang"),
    Field("presence_penalty", GENERATION, DECODE, number("from -2 to 2", lambda x: -2 <= x <= 2)),
    Field("frequency_penalty", GENERATION, DECODE, number("from -2 to 2", lambda x: -2 <= x <= 2)),
    # SGLang divides logits by it, in float32: by a tiny one they overflow, and sampling from them kills the server.
    Field("repetition_penalty", GENERATION, DECODE, number("from 0.01 to 2", lambda x: 0.01 <= x <= 2), of="SGLang"),
    Field("seed", GENERATION, DECODE, integer(-INT64_MAX, INT64_MAX)),
    Field("logit_bias", GENERATION, DECODE, LOGIT_BIAS),
    # What the answer may be.
    Field("regex", GENERATION, DECODE, GRAMMAR, of="SGLang"),
    Field("ebnf", GENERATION, DECODE, GRAMMAR, of="SGLang"),
    Field("json_schema", COMPLETIONS, DECODE, JSON_SCHEMA, of="SGLang"),
    Field("json_schema", CHAT, DECODE, NO_JSON_SCHEMA, of="SGLang"),
    Field("response_format", GENERATION, DECODE, RESPONSE_FORMAT),
    Field("modalities", CHAT, DECODE, MODALITIES),
    Field("prediction", CHAT, DECODE, anything("anything; changes nothing")),
    Field("verbosity", CHAT, DECODE, anything("anything; changes nothing")),
    # What the answer shows.
    Field("logprobs", CHAT, DECODE, boolean()),
    Field("logprobs", COMPLETIONS, DECODE, integer(0, MAX_TOP_LOGPROBS)),
    Field("top_logprobs", CHAT, DECODE, TOP_LOGPROBS),
    Field("echo", COMPLETIONS, DECODE, ECHO),
    Field("suffix", COMPLETIONS, DECODE, NO_SUFFIX),
    Field("no_stop_trim", GENERATION, DECODE, boolean(), of="SGLang"),
    Field("skip_special_tokens", GENERATION, DECODE, boolean(), of="SGLang"),
    Field("separate_reasoning", CHAT, DECODE, boolean(), of="SGLang"),
    Field("stream_reasoning", CHAT, DECODE, boolean(), of="SGLang"),
    Field("return_token_ids", GENERATION, DECODE, boolean(), of="SGLang"),
    Field("return_prompt_token_ids", CHAT, DECODE, boolean(), of="SGLang"),
    Field("routed_experts_start_len", GENERATION, DECODE, NO_EXPERTS, of="SGLang"),
    # The prompt of a chat: whatever changes its tokens goes to both (SGLang's serving_chat.py, _process_messages).
    Field("messages", PROMPT_OF_CHAT, BOTH, CHAT_MESSAGES, is_required=True),
    Field("tools", PROMPT_OF_CHAT, BOTH, TOOLS, to_prefill=offered_tools),
    Field("tool_choice", PROMPT_OF_CHAT, BOTH, TOOL_CHOICE, to_prefill=forced_tool),
    Field("parallel_tool_calls", CHAT, DECODE, boolean()),
    Field("reasoning", CHAT, BOTH, REASONING, of="SGLang"),
    Field("reasoning_effort", PROMPT_OF_CHAT, BOTH, EFFORT),
    Field("chat_template_kwargs", PROMPT_OF_CHAT, BOTH, TEMPLATE_SWITCHES, of="SGLang"),
    Field("continue_final_message", PROMPT_OF_CHAT, BOTH, boolean(), of="SGLang"),
    Field("task", CHAT, BOTH, TASK, of="SGLang"),
    # The prompt of a completion, and of /tokenize. After max_tokens, which it is measured with.
    Field("prompt", COMPLETIONS, BOTH, PROMPTS, is_required=True),
    Field("prompt", TOKENIZE, ROUTER, TOKENIZE_TEXTS, of="SGLang"),
    Field("add_special_tokens", TOKENIZE, ROUTER, boolean(), of="SGLang"),
    # Whose request it is, and what it shares.
    Field("cache_salt", GENERATION, BOTH, string(256), of="SGLang"),
    Field("extra_key", GENERATION, BOTH, string(256), of="SGLang"),
    Field("priority", GENERATION, BOTH, integer(-INT32_MAX, INT32_MAX), of="SGLang"),
    Field("user", GENERATION, DECODE, string(512)),
    Field("prompt_cache_key", GENERATION, DECODE, SESSION),
    Field("prompt_cache_retention", CHAT, DECODE, anything("anything; changes nothing")),
    Field("safety_identifier", CHAT, DECODE, anything("anything; changes nothing")),
    Field("metadata", CHAT, DECODE, anything("anything; changes nothing")),
    Field("service_tier", CHAT, DECODE, anything("anything; changes nothing")),
)

_PAIRING = "the router pairs the servers itself"
_NAMES = "ids and sessions of the servers are the router's; x-session-id names a conversation"
_WEIGHTS = "the model's name alone chooses weights"
_PROMPT = "a chat's prompt is rendered from its messages by the base's template"
_HOOK = "it would run code or take state in the servers that other requests share"
_INSIDE = "it shows the servers' internals, of which each computes a part only"
_TEXT = "this server reads and writes text"
_BASE = "the base computes the prompt, and they would be its own; /v1/completions has echo with logprobs for answers"

REFUSED = {
    "bootstrap_host": _PAIRING,
    "bootstrap_port": _PAIRING,
    "bootstrap_room": _PAIRING,
    "routed_dp_rank": _PAIRING,
    "disagg_prefill_dp_rank": _PAIRING,
    "data_parallel_rank": _PAIRING,
    "rid": _NAMES,
    "request_id": _NAMES,
    "conversation_id": _NAMES,
    "session_id": _NAMES,
    "session_params": _NAMES,
    "lora_path": _WEIGHTS,
    "input_ids": _PROMPT + "; /v1/completions takes token ids as prompt",
    "input_embeds": _PROMPT,
    "chat_template": _PROMPT,
    "custom_logit_processor": _HOOK,
    "custom_params": _HOOK,
    "custom_labels": _HOOK,
    "stop_regex": "regular expressions that run at every token could stall the server; use stop",
    "prompt_logprobs": _BASE,
    "return_hidden_states": _INSIDE,
    "return_routed_experts": _INSIDE,
    "return_meta_info": _INSIDE,
    "return_sampling_mask": _INSIDE,
    "return_spec_tokens_details": _INSIDE,
    "sampling_logprobs_mode": _INSIDE,
    "return_flat_raw_output_top_logprobs": _INSIDE,
    "return_flat_raw_top_logprobs_b64": _INSIDE,
    "return_input_ids_in_sglext": _INSIDE + "; return_token_ids gives token ids",
    "return_output_ids_in_sglext": _INSIDE + "; return_token_ids gives token ids",
    "return_cached_tokens_details": _INSIDE + "; usage.prompt_tokens_details.cached_tokens counts what was reused",
    "images_config": _TEXT,
    "video_config": _TEXT,
    "mm_processor_kwargs": _TEXT,
    "max_dynamic_patch": _TEXT,
    "min_dynamic_patch": _TEXT,
    "use_audio_in_video": _TEXT,
    "audio": _TEXT,
    "watermark": "answers are not watermarked",
    "thinking": "reasoning_effort and chat_template_kwargs ask for thoughts",
    "functions": "it was replaced by tools",
    "function_call": "it was replaced by tool_choice",
    "web_search_options": "there is no web search here",
    "store": "answers are not stored",
}
"""The rest of the table: fields that no endpoint takes, and why. False and null ask for nothing."""

_ROWS: dict[Endpoint, tuple[Field, ...]] = {
    endpoint: tuple(field for field in FIELDS if endpoint in field.on)
    for endpoint in ("chat", "completions", "tokenize")
}
_PREFILL_ROWS = {endpoint: tuple(row for row in rows if "prefill" in row.to) for endpoint, rows in _ROWS.items()}
_ROUTERS_OWN = frozenset(field.name for field in FIELDS if field.to == ROUTER and field.on & GENERATION)
TOKENIZE_FIELDS = tuple(field.name for field in _ROWS["tokenize"])
PREFILL_FIXED: Body = {"max_tokens": 1, "temperature": 0, "stream": False}
"""What every prefill leg gets beside its prompt and the base's name: its one token is thrown away."""


def check_refused(body: Body, taken: frozenset[str] = frozenset()) -> None:
    """Raises RequestError (400) for the first field that is refused and set; false and null ask for nothing.

    `taken`: fields of the endpoint's own, which are not refused there.
    """
    for name, value in body.items():
        if (
            name in REFUSED and name not in taken and value is not None and value is not False
        ):  # 0 is set: a rank or a room may be
            raise invalid(name, f"{name} is not supported: {REFUSED[name]}", "unsupported_parameter")


def check_body(endpoint: Endpoint, body: Body, config: RouterConfig) -> None:
    """Check all fields of `body` but `model`, in the table's order. Raises RequestError (400)."""
    for field in _ROWS[endpoint]:
        if body.get(field.name) is not None:
            field.check.run(body, field.name, config)
        elif field.is_required and endpoint != "tokenize":
            raise missing(field.name)


def prefill_fields(route: Route, body: Body) -> Body:
    """What the prefill leg gets of a checked body: the fields that make up its prompt, and those that both get."""
    part: Body = {}
    for field in _PREFILL_ROWS[route]:
        if field.name in body:
            part |= {field.name: body[field.name]} if field.to_prefill is None else field.to_prefill(body)
    return PREFILL_FIXED | part | (toggled(body) if route == "chat" else {})


def decode_fields(route: Route, body: Body) -> Body:
    """What the decode leg gets: all but what the router does itself."""
    part = {name: value for name, value in body.items() if name not in _ROUTERS_OWN}
    return part | (toggled(body) if route == "chat" else {})
