"""The form in which chat templates get tools and calls: what modules are trained on is what servers render."""

from __future__ import annotations

import json
from typing import Any


def tool_as_served(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool with the fields, and in the order, in which SGLang hands it to the template.

    Until 0.5.22 whatever a client sends; 0.5.23 keeps a client's order, so the router sends this one.
    """
    function = tool["function"]
    served = {field: function.get(field) for field in ("description", "name", "parameters")}
    served["strict"] = bool(function.get("strict"))
    return {"type": "function", "function": served, "defer_loading": None}


def call_as_served(call: dict[str, Any]) -> dict[str, Any]:
    """An earlier call with the fields, and in the order, in which SGLang hands it to the template.

    What a client sends beside them is left out; the results of calls stay where the client has them, as they are text
    alone. Raises ValueError where the arguments are text, but not JSON.
    """
    function = call["function"]
    arguments = function.get("arguments")
    served = {
        "name": function.get("name"),
        "arguments": json.loads(arguments) if isinstance(arguments, str) else arguments,
    }
    return {"id": call.get("id"), "index": call.get("index"), "type": "function", "function": served}
