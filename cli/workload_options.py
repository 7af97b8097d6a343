"""Options that say what is asked in a benchmark: the same for every command that makes sessions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from psserve.bench.workloads.choice import WorkloadChoice

PRESETS = (
    *("four-agents-react", "four-agents-reflexion", "react", "reflexion", "fanout", "chat", "hotpotqa", "icarus"),
)
LENGTH = "N, LOW-HIGH, or MEAN~SIGMA (lognormal)"
_NAMES = {
    "sessions": "sessions",
    "turns": "turns",
    "trials": "trials",
    "system_tokens": "system",
    "system_prompts": "system_prompts",
    "new_tokens": "new",
    "output_tokens": "output",
    "think_secs": "think_s",
    "order": "order",
    "arrival": "arrival",
    "rate": "sessions_per_s",
    "scale": "scale",
    "seed": "seed",
}
"""Option -> field of psserve.bench.workloads.workload.Workload."""
_LENGTHS = ("turns", "new_tokens", "output_tokens")
_RATE = click.option("--rate", type=click.FloatRange(0, min_open=True), help="Sessions a second: an open loop.")
_OPTIONS = (
    click.option(
        "--workload",
        type=click.Choice(PRESETS),
        help="What sessions are like [default: react].",
    ),
    click.option(
        "--trace", type=click.Path(path_type=Path), help="Replay AIPerf's mooncake_trace JSON Lines, instead."
    ),
    click.option("--trace-block-tokens", type=click.IntRange(1), help="Of a trace's hash_ids [default: 512]."),
    click.option(
        "--sessions",
        type=click.IntRange(1),
        help="How many [default: 32; icarus: 128; for a duration: without an end].",
    ),
    click.option("--turns", help=f"Calls of a session, of a trial, or rounds: {LENGTH}."),
    click.option("--trials", type=click.IntRange(1), help="Attempts of a reflexion session."),
    click.option("--system-tokens", type=click.IntRange(0), help="System prompt, which sessions share."),
    click.option("--system-prompts", type=click.IntRange(1), help="Different system prompts."),
    click.option("--new-tokens", help=f"What joins the context before a call: {LENGTH}."),
    click.option("--output-tokens", help=f"Each answer: {LENGTH}."),
    click.option("--think-secs", type=click.FloatRange(0), help="Mean time between an answer and the next call."),
    click.option("--scale", type=click.FloatRange(0, min_open=True), help="Multiplies all lengths [default: 1]."),
    click.option("--order", help="round-robin, random, zipf, zipf:1.2, or modules as in math,code,math."),
    click.option("--single-module", metavar="NAME", help="Ask this one in all roles."),
    _RATE,
    click.option(
        "--arrival", type=click.Choice(("poisson", "constant")), help="How sessions arrive, with --rate [poisson]."
    ),
    click.option("--seed", type=int, help="The same seed makes the same sessions [default: 1]."),
)


def workload_options(endless: bool = False, sweep: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: the options, passed to the command as `workload: WorkloadChoice` and nothing else of theirs.

    `endless`: where the command's `duration_secs` is given, sessions have no end unless their number is.
    `sweep`: the command has a --rate of its own, of several; `workload` says how sessions arrive, but not how fast.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def collected(**values: Any) -> Any:
            own = {name: values.pop(name) for name in (*_NAMES, *_OTHERS) if not (sweep and name == "rate")}
            forever = endless and values.get("duration_secs") is not None
            return command(workload=_choice(own, forever), **values)

        for option in reversed(_OPTIONS):
            if not (sweep and option is _RATE):
                collected = option(collected)
        return collected

    return decorate


_OTHERS = ("workload", "trace", "trace_block_tokens", "single_module")


def _choice(values: dict[str, Any], forever: bool) -> WorkloadChoice:
    from psserve.bench.session import BLOCK_TOKENS
    from psserve.bench.workloads.choice import WorkloadChoice
    from psserve.bench.workloads.workload import Length, Order

    _check(values)
    if values.get("rate") and not values["arrival"]:
        values["arrival"] = "poisson"
    given = {name: value for name, value in values.items() if value is not None}
    for name in _LENGTHS:
        if name in given:
            given[name] = Length.parse(given[name])
    if "order" in given:
        given["order"] = Order.parse(given["order"])
    changes = {_NAMES[name]: value for name, value in given.items() if name in _NAMES}
    if forever and values["trace"] is None:
        changes.setdefault("sessions", None)
    if values["workload"] is None and values["trace"] is None:
        values["workload"] = "react"
    return WorkloadChoice(
        preset=values["workload"],
        trace=values["trace"],
        changes=changes,
        block_tokens=values["trace_block_tokens"] or BLOCK_TOKENS,
        single_module=values["single_module"],
    )


def _check(values: dict[str, Any]) -> None:
    """Raise UsageError for an option that would have no effect beside the others."""
    from psserve.bench.workloads.choice import FOR_TRACES
    from psserve.errors import UsageError

    if values["trace"] is not None:
        for name, field in _NAMES.items():
            if values.get(name) is not None and field not in FOR_TRACES:
                raise UsageError(f"--{name.replace('_', '-')} means nothing with a --trace, which says it by itself")
    elif values["trace_block_tokens"] is not None:
        raise UsageError("--trace-block-tokens means nothing without a --trace")
    if values["trials"] is not None and values["workload"] != "reflexion":
        raise UsageError("--trials means something with --workload reflexion alone")
    if "rate" in values and values["arrival"] and not values["rate"]:
        raise UsageError("--arrival needs a --rate")
