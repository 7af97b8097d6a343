"""Fields of OpenAI's and SGLang's bodies that every endpoint refuses, and the reason that the client is told."""

from __future__ import annotations

from psserve.router.checks import Body, invalid

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
