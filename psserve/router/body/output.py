"""Checks of the fields that say how the answer is made: what ends it, what may be in it, how it is sent.

Ranges are the narrower of SGLang's and OpenAI's.
"""

from __future__ import annotations

from typing import Any

import orjson

from psserve.contracts.router_config import RouterConfig
from psserve.router.body.checks import (
    INT32_MAX,
    Body,
    Check,
    check_int,
    check_schema,
    check_string,
    check_token_ids,
    invalid,
    is_too_deep,
)
from psserve.router.body.given import has_answers

MAX_STOP_LENGTH = 1024
MAX_STOP_TOKENS = 128
GRAMMARS = ("regex", "ebnf", "json_schema", "response_format")
RESPONSE_FORMATS = ("text", "json_object", "json_schema", "structural_tag")


def check_answer_length(body: Body, name: str, config: RouterConfig) -> None:
    """At least a token, but where an answer is given, and room for one of the prompt."""
    check_int(body, name, 0 if has_answers(body) else 1, INT32_MAX)
    if body[name] >= config.base.context_length:
        message = f"{name} is {body[name]}, and prompt and answer have {config.base.context_length} tokens together"
        raise invalid(name, message, "context_length_exceeded")


def _check_no_experts(body: Body, name: str, config: RouterConfig) -> None:
    check_int(body, name, -INT32_MAX, INT32_MAX)


def _check_count(body: Body, name: str, config: RouterConfig) -> None:
    check_int(body, name, 1, config.limits.choices)


def _check_top_k(body: Body, name: str, config: RouterConfig) -> None:
    if body[name] != -1:
        check_int(body, name, 1, INT32_MAX)


def _check_min_tokens(body: Body, name: str, config: RouterConfig) -> None:
    check_int(body, name, 0, INT32_MAX)
    most = body.get("max_completion_tokens", body.get("max_tokens"))
    if type(most) is int and body[name] > most:
        raise invalid(name, f"{name} must not be more than the {most} tokens that the answer may have at most")
    constraints = grammars_in(body)
    if body.get("tool_choice") not in (None, "none", "auto"):
        constraints.append("tool_choice")
    if constraints and body[name]:
        # When the grammar allows the end alone and min_tokens forbids it, no token is left: sampling kills the server.
        raise invalid(name, f"{name} cannot be used with {constraints[0]}")


def _check_stop(body: Body, name: str, config: RouterConfig) -> None:
    limit = config.limits.stops
    stop = body[name]
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > limit or not all(map(_is_stop, stops)):
        raise invalid(name, f"{name} must be at most {limit} strings of 1 to {MAX_STOP_LENGTH} characters")


def _is_stop(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= MAX_STOP_LENGTH


def _check_stop_tokens(body: Body, name: str, config: RouterConfig) -> None:
    tokens = body[name]
    if tokens:
        check_token_ids(tokens, name, config.base.vocab_size)
        if len(tokens) > MAX_STOP_TOKENS:
            raise invalid(name, f"{name} must hold at most {MAX_STOP_TOKENS} ids")
    elif tokens != []:
        raise invalid(name, f"{name} must be a list of token ids")


def _check_logit_bias(body: Body, name: str, config: RouterConfig) -> None:
    bias, vocab_size, limit = body[name], config.base.vocab_size, config.limits.logit_bias
    if not isinstance(bias, dict) or len(bias) > limit:
        raise invalid(name, f"{name} must be an object of at most {limit} entries")
    for key, value in bias.items():
        # Length first: int() of a huge digit string is slow, and isdecimal alone allows non-ASCII digits.
        if len(key) > 10 or not (key.isascii() and key.isdecimal()) or int(key) >= vocab_size:
            raise invalid(name, f"{name} keys must be token ids from 0 to {vocab_size - 1}")
        if type(value) not in (int, float) or not -100 <= value <= 100:
            raise invalid(name, f"{name} values must be numbers from -100 to 100")


def grammars_in(body: Body) -> list[str]:
    """The fields that hold the answer to a grammar."""
    return [name for name in GRAMMARS if body.get(name) is not None and not _is_plain_text(body[name])]


def grammar_field(body: Body) -> str | None:
    """The field that the grammar of an answer is made from: of tools, where no field holds one."""
    return next(iter(grammars_in(body)), "tools" if body.get("tools") else None)


def _is_plain_text(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "text"


def _check_grammar(body: Body, name: str, config: RouterConfig) -> None:
    """Check that a grammar is of bounded size, and the only one. Whether it compiles is the decode server's to say."""
    check_string(body, name, config.limits.grammar_bytes)
    _check_alone(body, name)


def _check_json_schema(body: Body, name: str, config: RouterConfig) -> None:
    """A schema in a string escapes the limit on the body's depth, and compile time grows with the cube of that."""
    check_string(body, name, config.limits.grammar_bytes)
    try:
        schema = orjson.loads(body[name])
    except orjson.JSONDecodeError as error:
        raise invalid(name, f"{name} is not valid JSON: {error}") from None
    depth = config.limits.depth
    if not isinstance(schema, dict) or is_too_deep(schema, depth):
        raise invalid(name, f"{name} must be an object of at most {depth} levels, as JSON text")
    check_schema(schema, name)
    _check_alone(body, name)


def _check_response_format(body: Body, name: str, config: RouterConfig) -> None:
    value, limit = body[name], config.limits.grammar_bytes
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in RESPONSE_FORMATS:
        raise invalid(name, f"{name}.type must be one of {', '.join(RESPONSE_FORMATS)}")
    if len(orjson.dumps(value)) > limit:
        raise invalid(name, f"{name} must be at most {limit} bytes")
    if kind == "json_schema":
        schema = value.get("json_schema")
        if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
            raise invalid(name, f"{name}.json_schema.schema must be an object")
        check_schema(schema["schema"], name)
    _check_alone(body, name)


def _check_alone(body: Body, name: str) -> None:
    grammars = grammars_in(body)
    if name in grammars[1:]:
        raise invalid(name, f"only one of {', '.join(grammars)} can be used at a time")


def _check_stream_options(body: Body, name: str, config: RouterConfig) -> None:
    options = body[name]
    if not body.get("stream"):
        raise invalid(name, f"{name} needs stream to be true")
    if not isinstance(options, dict):
        raise invalid(name, f"{name} must be an object")
    for option in ("include_usage", "continuous_usage_stats"):
        if type(options.get(option, False)) is not bool:
            raise invalid(name, f"{name}.{option} must be true or false")


LENGTH = Check("an integer of 1 or more, below the context length; 0 with echo and logprobs", check_answer_length)
NO_EXPERTS = Check("an integer; changes nothing", _check_no_experts)
ANSWER_COUNT = Check(
    "an integer from 1 to {choices}; each answer is a sequence of its own, one prefill serves all", _check_count
)
TOP_K = Check("an integer of 1 or more, or -1", _check_top_k)
MIN_TOKENS = Check("an integer of 0 or more, at most max_tokens; not together with a grammar", _check_min_tokens)
STOP = Check(f"at most {{stops}} strings of 1 to {MAX_STOP_LENGTH:,} characters", _check_stop)
STOP_TOKENS = Check(f"a list of at most {MAX_STOP_TOKENS} token ids", _check_stop_tokens)
LOGIT_BIAS = Check("at most {logit_bias} token ids, each with a number from -100 to 100", _check_logit_bias)
GRAMMAR = Check("a string of at most {grammar_bytes} characters; one grammar at a time", _check_grammar)
JSON_SCHEMA = Check(
    "a [schema](#json-schemas) as JSON text of at most {grammar_bytes} characters; one grammar at a time",
    _check_json_schema,
)
RESPONSE_FORMAT = Check(
    f"an object of at most {{grammar_bytes}} bytes whose type is {', '.join(RESPONSE_FORMATS)}; one grammar at a time",
    _check_response_format,
)
STREAM_OPTIONS = Check("include_usage, continuous_usage_stats: true or false; with stream", _check_stream_options)
