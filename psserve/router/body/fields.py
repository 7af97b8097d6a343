"""Checks on the sampling fields, which both endpoints share. Ranges are the narrower of SGLang's and OpenAI's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import orjson

from psserve.contracts.limits import RequestLimits
from psserve.errors import RequestError

Body = dict[str, Any]
"""The fields of a request."""
Route = Literal["chat", "completions"]
PATHS: dict[Route, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


def invalid(param: str | None, message: str, code: str = "invalid_value") -> RequestError:
    """A 400 about `param`."""
    return RequestError(400, message, param=param, code=code)


def missing(param: str) -> RequestError:
    return invalid(param, f"{param} is required", "missing_required_parameter")


def check_number(body: Body, name: str, allowed: str, is_allowed: Callable[[float], bool]) -> None:
    """A finite int or float (not a bool) for which `is_allowed` holds; `allowed` says it in words."""
    value = body.get(name)
    if value is None:
        return
    if type(value) not in (int, float) or not math.isfinite(value) or not is_allowed(value):
        raise invalid(name, f"{name} must be a number {allowed}")


def check_int(body: Body, name: str, low: int, high: int) -> None:
    """An int (not a bool) from `low` to `high`, both included."""
    value = body.get(name)
    if value is None:
        return
    if type(value) is not int or not low <= value <= high:
        raise invalid(name, f"{name} must be an integer from {low} to {high}")


def check_bool(body: Body, name: str) -> None:
    value = body.get(name)
    if value is not None and type(value) is not bool:
        raise invalid(name, f"{name} must be true or false")


def check_string(body: Body, name: str, max_length: int) -> None:
    value = body.get(name)
    if value is not None and (type(value) is not str or len(value) > max_length):
        raise invalid(name, f"{name} must be a string of at most {max_length} characters")


def check_token_ids(ids: Any, param: str, vocab_size: int) -> None:
    """A non-empty list of plain ints in [0, vocab_size). Anything else kills an SGLang scheduler.

    Set and min/max keep this at C speed: a prompt may hold 100,000 ids.
    """
    if not isinstance(ids, list) or not ids:
        raise invalid(param, f"{param} must be a non-empty list of token ids")
    if set(map(type, ids)) != {int} or min(ids) < 0 or max(ids) >= vocab_size:
        raise invalid(param, f"{param} must hold integers from 0 to {vocab_size - 1}")


def is_too_deep(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested deeper than `depth` levels, itself included."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(depth):
        children = (child for item in level for child in (item.values() if isinstance(item, dict) else item))
        level = [child for child in children if isinstance(child, (dict, list))]
    return bool(level)


_PAIRING = "the router pairs the servers itself"
_NAMES = "ids and sessions of the servers are the router's; x-session-id names a conversation"
_WEIGHTS = "the model's name alone chooses weights"
_PROMPT = "a chat's prompt is rendered from its messages by the base's template"
_HOOK = "it would run code or take state in the servers that other requests share"
_INSIDE = "it shows the servers' internals, of which each computes a part only"
_TEXT = "this server reads and writes text"
_BASE = "log-probabilities of the prompt are not available: the base computes the prompt, and they would be its own"

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
    "return_cached_tokens_details": _INSIDE + "; usage.prompt_tokens_details.cached_tokens counts what was reused",
    "images_config": _TEXT,
    "max_dynamic_patch": _TEXT,
    "min_dynamic_patch": _TEXT,
    "use_audio_in_video": _TEXT,
    "audio": _TEXT,
    "functions": "it was replaced by tools",
    "function_call": "it was replaced by tool_choice",
    "web_search_options": "there is no web search here",
    "store": "answers are not stored",
}


def check_refused(body: Body) -> None:
    """Raises RequestError (400) for the first field that is refused and set; false and null ask for nothing."""
    for name, value in body.items():
        if name in REFUSED and value is not None and value is not False:  # 0 is set: a rank or a room may be
            raise invalid(name, f"{name} is not supported: {REFUSED[name]}", "unsupported_parameter")


MAX_STOP_LENGTH = 1024
MAX_STOP_TOKENS = 128
MAX_TOP_LOGPROBS = 20
INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
RESPONSE_FORMATS = ("text", "json_object", "json_schema", "structural_tag")


def check_sampling(body: Body, vocab_size: int, limits: RequestLimits) -> None:
    """All sampling fields that mean the same on both endpoints. Raises RequestError (400)."""
    check_number(body, "temperature", "from 0 to 2", lambda x: 0 <= x <= 2)
    check_number(body, "top_p", "above 0, at most 1", lambda x: 0 < x <= 1)
    check_number(body, "min_p", "from 0 to 1", lambda x: 0 <= x <= 1)
    check_number(body, "presence_penalty", "from -2 to 2", lambda x: -2 <= x <= 2)
    check_number(body, "frequency_penalty", "from -2 to 2", lambda x: -2 <= x <= 2)
    # SGLang divides logits by it, in float32: by a tiny one they overflow, and sampling from them kills the server.
    check_number(body, "repetition_penalty", "from 0.01 to 2", lambda x: 0.01 <= x <= 2)
    if body.get("top_k") != -1:
        check_int(body, "top_k", 1, INT32_MAX)
    check_int(body, "max_tokens", 1, INT32_MAX)
    check_int(body, "max_completion_tokens", 1, INT32_MAX)  # admission counts on it, whatever the endpoint
    check_int(body, "min_tokens", 0, INT32_MAX)
    check_int(body, "n", 1, limits.choices)
    check_int(body, "seed", -INT64_MAX, INT64_MAX)
    check_int(body, "priority", -INT32_MAX, INT32_MAX)
    check_string(body, "user", 512)
    check_string(body, "cache_salt", 256)
    check_string(body, "extra_key", 256)
    for name in ("ignore_eos", "no_stop_trim", "skip_special_tokens"):
        check_bool(body, name)
    _check_stop(body, vocab_size, limits.stops)
    _check_logit_bias(body.get("logit_bias"), vocab_size, limits.logit_bias)
    _check_grammar(body, limits)
    _check_stream(body)


def _check_stop(body: Body, vocab_size: int, limit: int) -> None:
    stop = body.get("stop", [])
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > limit or not all(map(_is_stop, stops)):
        raise invalid("stop", f"stop must be at most {limit} strings of 1 to {MAX_STOP_LENGTH} characters")
    tokens = body.get("stop_token_ids")
    if tokens:
        check_token_ids(tokens, "stop_token_ids", vocab_size)
        if len(tokens) > MAX_STOP_TOKENS:
            raise invalid("stop_token_ids", f"stop_token_ids must hold at most {MAX_STOP_TOKENS} ids")
    elif tokens not in (None, []):
        raise invalid("stop_token_ids", "stop_token_ids must be a list of token ids")


def _is_stop(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= MAX_STOP_LENGTH


def _check_logit_bias(bias: Any, vocab_size: int, limit: int) -> None:
    if bias is None:
        return
    if not isinstance(bias, dict) or len(bias) > limit:
        raise invalid("logit_bias", f"logit_bias must be an object of at most {limit} entries")
    for key, value in bias.items():
        # Length first: int() of a huge digit string is slow, and isdecimal alone allows non-ASCII digits.
        if len(key) > 10 or not (key.isascii() and key.isdecimal()) or int(key) >= vocab_size:
            raise invalid("logit_bias", f"logit_bias keys must be token ids from 0 to {vocab_size - 1}")
        if type(value) not in (int, float) or not -100 <= value <= 100:
            raise invalid("logit_bias", "logit_bias values must be numbers from -100 to 100")


def _check_grammar(body: Body, limits: RequestLimits) -> None:
    """At most one grammar, of bounded size. Whether it compiles is the decode server's to say."""
    names = [name for name in ("regex", "ebnf", "json_schema") if body.get(name) is not None]
    for name in names:
        check_string(body, name, limits.grammar_bytes)
    _check_json_schema(body.get("json_schema"), limits.depth)
    if _check_response_format(body.get("response_format"), limits.grammar_bytes):
        names.append("response_format")
    if len(names) > 1:
        raise invalid(names[1], f"only one of {', '.join(names)} can be used at a time")
    if body.get("tool_choice") not in (None, "none", "auto"):
        names.append("tool_choice")
    if names and body.get("min_tokens"):
        # When the grammar allows the end alone and min_tokens forbids it, no token is left: sampling kills the server.
        raise invalid("min_tokens", f"min_tokens cannot be used with {names[0]}")


def _check_json_schema(text: str | None, depth: int) -> None:
    """A schema in a string escapes the limit on the body's depth, and compile time grows with the cube of that."""
    if text is None:
        return
    try:
        schema = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise invalid("json_schema", f"json_schema is not valid JSON: {error}") from None
    if not isinstance(schema, dict) or is_too_deep(schema, depth):
        raise invalid("json_schema", f"json_schema must be an object of at most {depth} levels, as JSON text")


def _check_response_format(value: Any, limit: int) -> bool:
    """Whether it constrains the output."""
    if value is None:
        return False
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in RESPONSE_FORMATS:
        raise invalid("response_format", f"response_format.type must be one of {', '.join(RESPONSE_FORMATS)}")
    if len(orjson.dumps(value)) > limit:
        raise invalid("response_format", f"response_format must be at most {limit} bytes")
    if kind == "json_schema":
        schema = value.get("json_schema")
        if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
            raise invalid("response_format", "response_format.json_schema.schema must be an object")
    return bool(kind != "text")


def _check_stream(body: Body) -> None:
    check_bool(body, "stream")
    options = body.get("stream_options")
    if options is None:
        return
    if not body.get("stream"):
        raise invalid("stream_options", "stream_options needs stream to be true")
    if not isinstance(options, dict):
        raise invalid("stream_options", "stream_options must be an object")
    for name in ("include_usage", "continuous_usage_stats"):
        if type(options.get(name, False)) is not bool:
            raise invalid("stream_options", f"stream_options.{name} must be true or false")
