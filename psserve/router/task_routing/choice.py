"""The choice of a module for a request: what is classified of it, whose session it is, and what the decision means."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

from psserve.errors import RequestError
from psserve.router.body.checks import Body
from psserve.router.task_routing.classifier import Decision, TaskRequest

MAX_TEXT = 1200
"""Characters that are looked at. Of a longer message the beginning and the end, where people say what they want."""


def task_request(body: Body) -> TaskRequest:
    """The request in `body`, a checked body of either endpoint. A prompt of token ids has no text."""
    if "messages" not in body:
        return TaskRequest(_prompt_end(body.get("prompt")))
    users = [message for message in body["messages"] if message["role"] == "user"]
    text = _text(users[-1]["content"]) if users else ""
    return TaskRequest(shortened(text), bool(body.get("tools")) and body.get("tool_choice") != "none")


def _prompt_end(prompt: Any) -> str:
    """The end of a prompt; of a batch, of the first one: a request goes to one module."""
    if isinstance(prompt, list):
        prompt = prompt[0]
    return prompt[-MAX_TEXT:] if isinstance(prompt, str) else ""


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def shortened(text: str) -> str:
    """What is classified of a message."""
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[: MAX_TEXT // 2]}\n{text[-MAX_TEXT // 2 :]}"


MAX_SESSIONS = 10_000
SWITCH_MARGIN = 0.2
"""How much likelier another module must be than the session's own. Keeps "and now with 7?" from going elsewhere."""


class Sessions:
    """The modules of the sessions used last, by a hash of their names: memory is bounded, whatever clients send."""

    def __init__(self, limit: int = MAX_SESSIONS) -> None:
        self._limit = limit
        self._modules: OrderedDict[bytes, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._modules)

    def get(self, session: str | None) -> str | None:
        """The session's module, if it has one."""
        return None if session is None else self._modules.get(_key(session))

    def put(self, session: str | None, module: str) -> None:
        """The session is with `module` now. The one unused for longest is forgotten when there are too many."""
        if session is None:
            return
        key = _key(session)
        self._modules[key] = module
        self._modules.move_to_end(key)
        if len(self._modules) > self._limit:
            self._modules.popitem(last=False)


def stays(own: str, decision: Decision, threshold: float) -> bool:
    """Whether a session with the module `own` keeps it: another module must be likely, and clearly likelier."""
    clear = decision.confidence >= threshold
    return not clear or decision.confidence - decision.scores.get(own, 0.0) < SWITCH_MARGIN


def _key(session: str) -> bytes:
    return blake2b(session.encode(errors="surrogatepass"), digest_size=16).digest()


ModuleOutcome = Literal["clear", "kept", "default"]
"""clear: the classifier was sure; kept: the session's module; default: it was not sure."""


@dataclass(frozen=True)
class ModuleChoice:
    """The module that answers a request for `auto`."""

    module: str
    confidence: float
    """The classifier's score of this very module."""
    outcome: ModuleOutcome

    def note(self) -> dict[str, Any]:
        """What `usage` tells of it."""
        return {"module": self.module, "confidence": round(self.confidence, 4)}


def choose_module(decision: Decision, threshold: float, own: str | None, default: str | None) -> ModuleChoice | None:
    """The module that answers; `own`: the session's. None if the request is nobody's task and there is no default."""
    if own is not None and stays(own, decision, threshold):
        return ModuleChoice(own, decision.scores.get(own, 0.0), "kept")
    if decision.module is not None and decision.confidence >= threshold:
        return ModuleChoice(decision.module, decision.confidence, "clear")
    if default is not None:
        return ModuleChoice(default, decision.scores.get(default, 0.0), "default")
    return None


def task_unclear(modules: Iterable[str]) -> RequestError:
    """The 400 for a request that fits none of `modules`."""
    message = f"it is not clear which module this request is for: set model to one of {', '.join(modules)}"
    return RequestError(400, message, param="model", code="task_unclear")
