"""The document that the page asks for every second. Sizes in tokens, times in seconds, rates per second."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from time import monotonic
from typing import Any

import psserve
from psserve.contracts.router_config import VERSION_MARK, ModuleConfig
from psserve.contracts.servers import ServerLoad
from psserve.router.observability.activity import BUCKET_S, Activity, Bucket, Flow, WorkerPair
from psserve.router.observability.exchange import Exchange
from psserve.router.state import RouterState

Phase = tuple[str, float]
"""Name and seconds."""
Servers = tuple[str | None, int | None]
"""Module and version of servers; None for the version of those that several modules share."""
Json = dict[str, Any]
SHOWN_RUNNING = 10
SHOWN_OF_WORKERS = ("name", "role", "module", "state", "error", "running", "breaker")
SUMS = ("requests", "prompt_tokens", "cached_tokens", "shared_tokens", "decode_cached_tokens")


async def view(state: RouterState) -> Json:
    """The fleet, what it does now, and what it did in the last five minutes."""
    loads = await state.loads.read()
    now = monotonic()
    activity = state.activity
    activity.catch_up(now)
    buckets = list(activity.timeline.last(now))
    return {
        "boot": activity.boot,
        "version": psserve.__version__,
        "uptime_s": now - activity.since,
        "base": state.config.base.name,
        "one_pool": state.config.one_pool,
        "modules": [{"name": module.name, "task": module.task} for module in state.config.modules],
        "servers": [worker | _load(loads.get(worker["name"])) for worker in _servers(state)],
        "running": len(activity.running),
        "now": _rates(buckets, now),
        "flows": _flows(buckets, now),
        "bucket_s": BUCKET_S,
        "series": _series(buckets),
        "totals": _totals(buckets),
        "errors": _errors(buckets),
        "requests": _requests(activity, now, {module.name for module in state.config.modules if module.trial}),
    }


def _servers(state: RouterState) -> Iterable[Json]:
    """What `/workers` says, but for addresses.

    With how many modules share a server (0: it has one of its own), and a note where two versions are served.
    """
    sharing = Counter(module.group for module in state.config.modules)
    notes = _version_notes(state.config.modules)
    for worker in state.table.describe():
        shown = {name: worker[name] for name in SHOWN_OF_WORKERS if name in worker}
        found = notes[worker["module"], worker["version"]] or notes[worker["module"], None]
        yield shown | {"sharing": sharing[worker["module"]] if worker["module"] else 0, "note": "; ".join(found)}


def _version_notes(modules: Iterable[ModuleConfig]) -> defaultdict[Servers, list[str]]:
    """What tells servers apart where two versions of a module are served, and what is on trial on shared ones."""
    notes: defaultdict[Servers, list[str]] = defaultdict(list)
    for module in modules:
        trial, tried = module.trial, module.tried
        if trial is None or tried is None:
            continue
        if module.group is None:
            notes[module.name, module.version].append(f"version {module.shown_version}")
        answers = [f"{trial.share:g} % of sessions"] if trial.share else []
        answers += ["in the shadow"] if trial.shadow else []
        note = f"version {trial.zoo_version}, {', '.join(answers) or 'for nobody'}"
        if tried.group is None:
            notes[module.name, tried.version].append(note)
        else:
            notes[tried.group, None].append(f"{module.name} {note}")
    return notes


def _load(load: ServerLoad | None) -> Json:
    return {"load": None if load is None else load.model_dump(exclude_none=True)}


def _recent(buckets: list[Bucket], now: float) -> tuple[list[Bucket], float]:
    """The bucket of `now` and the one before it, and how many seconds they span."""
    return buckets[-2:], BUCKET_S + now % BUCKET_S


def _rates(buckets: list[Bucket], now: float) -> Json:
    recent, span = _recent(buckets, now)
    names = ("requests", "prompt_tokens", "output_tokens")
    return {name: sum(getattr(bucket, name) for bucket in recent) / span for name in names}


def _flows(buckets: list[Bucket], now: float) -> list[Json]:
    recent, span = _recent(buckets, now)
    sums: defaultdict[WorkerPair, Flow] = defaultdict(Flow)
    for bucket in recent:
        for pair, flow in bucket.flows.items():
            sums[pair].prompt_tokens += flow.prompt_tokens
            sums[pair].output_tokens += flow.output_tokens
    return [
        {
            "prefill": prefill,
            "decode": decode,
            "prompt_tokens": flow.prompt_tokens / span,
            "output_tokens": flow.output_tokens / span,
        }
        for (prefill, decode), flow in sums.items()
    ]


def _series(buckets: list[Bucket]) -> dict[str, list[float | None]]:
    """One value a bucket, oldest first. The last bucket is not over yet."""

    def column(value: Callable[[Bucket], float | None]) -> list[float | None]:
        return [value(bucket) for bucket in buckets]

    return {
        "prompt_tokens": column(lambda bucket: bucket.prompt_tokens),
        "cached_tokens": column(lambda bucket: bucket.cached_tokens),
        "shared_tokens": column(lambda bucket: bucket.shared_tokens),
        "output_tokens": column(lambda bucket: round(bucket.output_tokens, 1)),
        "ttft_p50": column(lambda bucket: quantile(bucket.ttfts, 0.5)),
        "ttft_p95": column(lambda bucket: quantile(bucket.ttfts, 0.95)),
    }


def _totals(buckets: list[Bucket]) -> Json:
    ttfts = [ttft for bucket in buckets for ttft in bucket.ttfts]
    sums = {name: sum(getattr(bucket, name) for bucket in buckets) for name in SUMS}
    return sums | {"ttft_p50": quantile(ttfts, 0.5), "ttft_p95": quantile(ttfts, 0.95)}


def quantile(values: list[float], share: float) -> float | None:
    """The value that `share` of `values` do not exceed (nearest rank); None of none."""
    if not values:
        return None
    return sorted(values)[max(0, round(share * len(values) + 0.5) - 1)]


def _errors(buckets: list[Bucket]) -> list[Json]:
    counts: Counter[str] = sum((bucket.errors for bucket in buckets), Counter())
    return [{"code": code, "count": count} for code, count in counts.most_common()]


def _requests(activity: Activity, now: float, on_trial: Collection[str]) -> list[Json]:
    """Requests in flight, as far as they are shown, then those that ended, the newest first.

    Of modules that have a version `on_trial`, with the version.
    """

    def request(exchange: Exchange, end: float) -> Json:
        version = f"{VERSION_MARK}{exchange.version}" if exchange.module in on_trial else ""
        return _request(exchange, end) | {"module": f"{exchange.module}{version}"}

    running = [request(exchange, now) | {"age_s": None, "code": None} for exchange in activity.running[:SHOWN_RUNNING]]
    ended = [
        request(end.exchange, end.when) | {"age_s": now - end.when, "code": end.code}
        for end in reversed(activity.ended)
    ]
    return running + ended


def _request(exchange: Exchange, end: float) -> Json:
    usage: Mapping[str, Any] = exchange.usage or {}
    return {
        "key": f"{exchange.started:.6f} {exchange.request_id}",
        "id": exchange.request_id,
        "route": exchange.route,
        "prefill": exchange.prefill,
        "decode": exchange.decode,
        "prompt_tokens": usage.get("prompt_tokens"),
        "cached_tokens": exchange.cached_tokens,
        "shared_tokens": exchange.shared_tokens,
        "output_tokens": usage.get("completion_tokens", exchange.streamed_events),
        "took_s": end - exchange.started,
        "ttft_s": None if exchange.first_byte is None else exchange.first_byte - exchange.started,
        "phases": phases(exchange, end),
    }


def phases(exchange: Exchange, now: float) -> list[Phase]:
    """What the request did, one thing after the other, until `now`.

    route: the body read and checked, and the module chosen; queue: until workers took it; prefill: until the base had
    computed the prompt and handed its KV over; first: the module's first step; decode: the rest of the answer.
    Of an answer that is not streamed nobody sees its first step: `answer` is both. `open`: no worker has answered.
    A request of several sequences is shown by the one that was answered first.
    """
    found: list[Phase] = []
    since = exchange.started
    for name, end in _ends(exchange, now):
        end = max(end, since)
        found.append((name, end - since))
        since = end
    return found


def _ends(exchange: Exchange, now: float) -> list[tuple[str, float]]:
    if exchange.accepted is None:
        return [("route", now)]
    if exchange.sent is None:
        return [("route", exchange.accepted), ("open", now)]
    begun = [("route", exchange.accepted), ("queue", exchange.sent), ("prefill", exchange.sequences[0].prefilled)]
    if exchange.first_byte is None:
        return [*begun, ("answer", now)]
    return [*begun, ("first", exchange.first_byte), ("decode", now)]
