"""The form in which chat templates get tools: what modules are trained on is what servers render."""

from __future__ import annotations

from typing import Any


def tool_as_served(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool with the fields, and in the order, in which SGLang hands it to the template.

    Until 0.5.22 whatever a client sends; 0.5.23 keeps a client's order, so the router sends this one.
    """
    function = tool["function"]
    served = {field: function.get(field) for field in ("description", "name", "parameters")}
    served["strict"] = bool(function.get("strict"))
    return {"type": "function", "function": served, "defer_loading": None}
