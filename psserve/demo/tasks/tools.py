"""`tools`: a request and a list of tool schemas; the answer is the right call in OpenAI's form.

Names of tools and parameters vary from item to item, so a call can only be copied from the schema in the prompt.
"""

from __future__ import annotations

import random
from typing import Any

from psserve.demo.tasks.tool_kinds import KINDS, ToolKind
from psserve.training.conversation import Conversation

MOST_TOOLS = 3


def item(rng: random.Random) -> Conversation:
    """One request with two or three tools, one of which is right, and the call."""
    kinds = rng.sample(KINDS, rng.randint(2, MOST_TOOLS))
    schemas = [schema(rng, kind) for kind in kinds]
    right = rng.randrange(len(kinds))
    request, arguments = fill(rng, kinds[right], schemas[right])
    call = {"type": "function", "function": {"name": schemas[right]["function"]["name"], "arguments": arguments}}
    messages = ({"role": "user", "content": request}, {"role": "assistant", "tool_calls": [call]})
    return Conversation(messages, tuple(schemas))


def schema(rng: random.Random, kind: ToolKind) -> dict[str, Any]:
    """A tool of this kind, with one of its names and one name for each parameter."""
    properties = {rng.choice(slot.names): {"type": slot.type} for slot in kind.slots}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    function = {"name": rng.choice(kind.names), "description": rng.choice(kind.descriptions), "parameters": parameters}
    return {"type": "function", "function": function}


def fill(rng: random.Random, kind: ToolKind, tool: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A request for this tool, and the arguments of the call that fulfils it."""
    values = [rng.choice(slot.values) for slot in kind.slots]
    names = tool["function"]["parameters"]["properties"]
    return rng.choice(kind.requests).format(*values), dict(zip(names, values, strict=True))
