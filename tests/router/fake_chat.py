"""Chat answers of a fake worker that are more than words: reasoning, calls of tools, a stop sequence that was met."""

from __future__ import annotations

from typing import Any

ARGUMENTS = ('{"left": 2, ', '"right": 3}')


def scripted(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Deltas of the answer to a chat body that asks to think or to call tools; none where words are wanted."""
    deltas: list[dict[str, Any]] = []
    thinks = (body.get("chat_template_kwargs") or {}).get("enable_thinking") or body.get("reasoning_effort")
    if thinks and "messages" in body:
        deltas += [{"role": "assistant", "reasoning_content": text} for text in ("Let me ", "think.")]
        deltas += [{"content": "Four."}]
    for index, name in enumerate(_called(body)):
        first = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        deltas.append({"role": "assistant", "tool_calls": [first]})
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": part}}]} for part in ARGUMENTS]
    return deltas


def message_of(deltas: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that the deltas add up to."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "reasoning_content": None, "tool_calls": []}
    for delta in deltas:
        for name in ("content", "reasoning_content"):
            if name in delta:
                message[name] = (message[name] or "") + delta[name]
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                message["tool_calls"].append({**call, "function": dict(call["function"])})
            else:
                message["tool_calls"][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    return message | {"tool_calls": message["tool_calls"] or None}


def finish_of(body: dict[str, Any], deltas: list[dict[str, Any]]) -> dict[str, Any]:
    """How the answer ends."""
    if any("tool_calls" in delta for delta in deltas):
        return {"finish_reason": "tool_calls", "matched_stop": None}
    if deltas:
        return {"finish_reason": "stop", "matched_stop": 2}
    if body.get("stop") and "messages" in body:
        return {"finish_reason": "stop", "matched_stop": body["stop"][0]}
    return {"finish_reason": "length", "matched_stop": None}


def _called(body: dict[str, Any]) -> list[str]:
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        return [choice["function"]["name"]]
    # Whatever `parallel_tool_calls` says: SGLang 0.5.18 does not look at it with most parsers.
    return [tool["function"]["name"] for tool in body["tools"]] if choice == "required" else []
