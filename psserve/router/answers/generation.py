"""From a client's body to the sequences to generate, or to a RequestError that names the field at fault."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import orjson

from psserve.contracts.limits import RequestLimits
from psserve.contracts.router_config import VERSION_MARK, ModuleConfig, RouterConfig
from psserve.errors import RequestError
from psserve.router.answers.given import Answers
from psserve.router.answers.versions import version_for
from psserve.router.body.chat import offered_tools
from psserve.router.body.checks import Body, invalid, missing
from psserve.router.body.completion import prompts_of
from psserve.router.body.fields import ROUTE_PATHS, Route, decode_fields, prefill_fields
from psserve.router.body.given import with_answer
from psserve.router.body.headers import AS_USUAL, Handling
from psserve.router.body.messages import with_readable_calls
from psserve.router.pairs.pair import Sequence
from psserve.router.placement.routing import Affinity
from psserve.router.workers.workers import WorkerTable

SENT = 8
"""Times `body_bytes`: what one request's choices may be sent together. Each is sent all the request's fields."""


@dataclass(frozen=True)
class Generation:
    """A checked request."""

    route: Route
    module: ModuleConfig
    stream: bool
    include_usage: bool
    """The client asked for a usage chunk in its stream."""
    sequences: tuple[Sequence, ...]
    """Prompt-major: all choices of the first prompt first."""

    def read_tokens(self) -> int:
        """Tokens of those prompts that the base has read."""
        return sum(sequence.affinity.read_tokens for sequence in self.sequences if sequence.after is None)


def parse_generation(
    route: Route,
    body: Body,
    config: RouterConfig,
    table: WorkerTable,
    handling: Handling = AS_USUAL,
    answers: Answers = (),
) -> Generation:
    """Split a checked `body` into sequences, which are to be served as `handling` says.

    `answers`: one to each of its prompts, where they are given.

    Raises RequestError: 400, or 404 for a model that is not served.
    """
    module = served_module(body.get("model"), table)
    if route == "chat":
        body = body | {"messages": with_readable_calls(body["messages"])}
    prefills, decodes = _legs(route, body, config, answers)
    if VERSION_MARK not in body["model"]:
        module = version_for(module, handling.session, prefills[0], table)
    count = body.get("n", 1)
    if count * len(decodes) > config.limits.choices:
        raise invalid("n", f"a request may ask for at most {config.limits.choices} choices in all")
    _check_sent(decodes, count, config.limits)
    stream = bool(body.get("stream"))
    options = body.get("stream_options", {})
    if stream:
        decodes = [decode | {"stream_options": options | {"include_usage": True}} for decode in decodes]
    sequences: list[Sequence] = []
    for prompt, (prefill, decode) in enumerate(zip(prefills, decodes, strict=True)):
        first = Sequence(
            ROUTE_PATHS[route],
            prefill,
            decode,
            index=prompt * count,
            prompt_index=prompt,
            headers=handling.forwarded,
            affinity=Affinity(handling.session),
            deadlines=handling.deadlines,
            priority=handling.priority,
            given=len(answers[prompt].tokens) if answers else 0,
        )
        sequences.append(first)
        sequences.extend(
            replace(first, decode=_choice(decode, choice), index=first.index + choice, after=first.prefilled)
            for choice in range(1, count)
        )
    return Generation(route, module, stream, options.get("include_usage", False), tuple(sequences))


def _check_sent(decodes: list[Body], count: int, limits: RequestLimits) -> None:
    """Raises RequestError (400) when `count` choices to each of `decodes` are too much to send."""
    choices = count * len(decodes)
    if choices <= SENT:
        return
    shared = orjson.dumps({name: value for name, value in decodes[0].items() if name != "prompt"})
    prompts = sum(len(orjson.dumps(decode.get("prompt"))) for decode in decodes)
    size, most = choices * len(shared) + count * prompts, SENT * limits.body_bytes
    if size > most:
        raise invalid("n", f"servers would be sent {size} bytes for {choices} choices: at most {most} in all")


def _legs(route: Route, body: Body, config: RouterConfig, answers: Answers) -> tuple[list[Body], list[Body]]:
    """The prefill and decode bodies, one of each a prompt."""
    prefill = {"model": config.base.name} | prefill_fields(route, body)
    decode = decode_fields(route, body)
    if route == "chat":
        return [prefill], [decode | offered_tools(body)]
    prompts = prompts_of(body)
    prefills: list[Body] = [prefill | {"prompt": prompt} for prompt in prompts]
    decodes: list[Body] = [decode | {"prompt": prompt} for prompt in prompts]
    return prefills, [*map(with_answer, decodes, answers)] if answers else decodes


def _choice(body: Body, choice: int) -> Body:
    """The decode body of one of `n` choices: a seed must not give n equal answers."""
    return body | {"seed": (body["seed"] + choice) % 2**63} if choice and "seed" in body else body


def served_module(name: Any, table: WorkerTable) -> ModuleConfig:
    """The module that a body's `model` names. Raises RequestError (400, 404)."""
    if name is None:
        raise missing("model")
    if not isinstance(name, str):
        raise invalid("model", "model must be a string", "invalid_type")
    if not name or len(name) > 256 or not name.isprintable():
        raise invalid("model", "model must be the name of a model")
    module = table.module(name)
    if module is None:
        raise RequestError(404, f"the model {name!r} does not exist", param="model", code="model_not_found")
    return module
