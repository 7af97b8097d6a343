"""One KV pool on a GPU (`gpu_first.py --only one-pool`): is it right, what does it cost, and does a restart fit in?"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from .client import Client, completion, random_ids

if TYPE_CHECKING:
    from psserve.bench.systems.fleet import RunningFleet
    from psserve.zoo import Zoo

    from .gpu_parts import Record

PAGES = (16, 64)
HANDOFF_TOKENS = {"cuda": 8_192, "cpu": 1_024}
ROUNDS = {"cuda": 8, "cpu": 1}
ANSWER_TOKENS = {"cuda": 257, "cpu": 9}
LONG_ANSWERS, LONG_TOKENS = 4, {"cuda": 8_000, "cpu": 400}
"""They are read while the prefill server ends and starts again."""
LARGE = 0.6
"""Of a GPU's memory."""
TARGETS = {"handoff_ms": 3.0, "tpot_of_private": 1.02}
GRAPHS = ("--attention-backend", "triton", "--sampling-backend", "pytorch")
"""As gpu_first.py's other parts, but with CUDA graphs."""
_LOOK_EVERY_S = 0.5
_LOOK_WHILE_THEY_ANSWER_S = 0.02
_ANSWER_S = 10.0


def one_pool(options: argparse.Namespace, found: dict[str, Any]) -> None:
    """Answers with pages of both sizes; a hand-off and an answer's tokens beside private pools'; a restart."""
    from . import gpu_parts as parts

    options = with_graphs(options)
    record = parts.Record(options.out / "one-pool.json", found)
    zoo = record.step("build", partial(parts.random_zoo, options))
    for page in PAGES:
        with parts.running(options, zoo, record, fleet_arguments=shared(page)) as fleet:
            parts.exactness(options, fleet, zoo, record)
            record.data[f"page_{page}"] = record.data.pop("exactness")
            record.data["passed"] = False  # until all of this part has
    costs(options, zoo, record)
    with parts.running(options, zoo, record, fleet_arguments=with_large_pool(options), kv_tokens=False) as fleet:
        record.data["restart"] = record.step("restart", lambda: asyncio.run(restart(options, fleet, zoo)))
    record.data["targets"], record.data["passed"] = TARGETS, passed(record.data)
    record.save()


def with_graphs(options: argparse.Namespace) -> argparse.Namespace:
    """Triton's attention still, unless the user says otherwise, but CUDA graphs."""
    kernels = [] if options.own_kernels or options.device == "cpu" else list(GRAPHS)
    return argparse.Namespace(**vars(options) | {"own_kernels": True, "engine_arg": [*kernels, *options.engine_arg]})


def shared(page: int) -> tuple[str, ...]:
    """The arguments of a fleet with one pool."""
    return ("--transfer", "shared", "--page-size", str(page))


def with_large_pool(options: argparse.Namespace) -> tuple[str, ...]:
    """Those of a fleet whose prefill server takes so much of the GPU that a second pool beside it does not fit."""
    config = options.work / "large-pool.toml"
    config.write_text(f"[prefill]\nmemory_fraction = {LARGE}\n" if options.device == "cuda" else "")
    return (*shared(PAGES[-1]), "--config", str(config))


def passed(found: Mapping[str, Any]) -> bool:
    """Whether answers are right and a restart lost none. What it costs is told and fails nothing."""
    restarted = found["restart"]
    exact = all(found[f"page_{page}"]["passed"] for page in PAGES)
    return exact and restarted["whole_answers"] == LONG_ANSWERS and not restarted["out_of_memory"]


def costs(options: argparse.Namespace, zoo: Zoo, record: Record) -> None:
    """The same with one pool and with private ones, in turns: a hand-off, and the time of an answer's tokens."""
    from psserve.bench.trace.spans import export_args
    from psserve.zoo import Zoo

    from . import gpu_parts as parts

    private = options.work / "private"
    if not private.exists():
        shutil.copytree(zoo.path, private, copy_function=os.link, ignore=shutil.ignore_patterns(".run"))
    page, exports = str(PAGES[-1]), options.work / "exports"
    exports.mkdir(exist_ok=True)
    with ExitStack() as up:
        fleets = {}
        for name, its_zoo in (("shared", zoo), ("nixl", Zoo.open(private))):
            arguments = ("--transfer", name, "--page-size", page)
            (exports / name).mkdir(exist_ok=True)
            started = parts.running(options, its_zoo, record, export_args(exports / name), fleet_arguments=arguments)
            fleets[name] = up.enter_context(started)
        tokens, rounds = HANDOFF_TOKENS[options.device], ROUNDS[options.device]
        tokenizer = zoo.base.path / "tokenizer.json"
        record.data["handoff_tokens"] = tokens
        for name, fleet in fleets.items():
            work = partial(phases_ms, fleet, tokenizer, exports / name, parts.MODULES, tokens, rounds, "handed")
            record.data.setdefault("handoff_ms", {})[name] = record.step(f"hand-off, {name}", work)
        record.data["tpot"] = record.step(
            "tpot", lambda: asyncio.run(tpot(fleets, zoo, tokens, ANSWER_TOKENS[options.device], rounds))
        )


def phases_ms(
    fleet: RunningFleet, tokenizer: Path, exports: Path, modules: Sequence[str], length: int, sessions: int, salt: str
) -> dict[str, float]:
    """Milliseconds of handing a context over that the prefill server has, and a decode server has nothing of.

    By what both servers write down. Medians over `sessions` contexts of `length` tokens that all modules read in turn.
    """
    from psserve.bench.load.options import LoadOptions
    from psserve.bench.load.run import run_load
    from psserve.bench.record import HANDOFF
    from psserve.bench.session import Call, Session, Step
    from psserve.bench.trace.spans import with_spans
    from psserve.errors import BenchError

    steps = tuple(Step(1 if turn else length, (Call(module, 2),)) for turn, module in enumerate(modules))
    asked = [Session(f"handed-over-{number}", "", 0, steps) for number in range(sessions)]
    options = LoadOptions(concurrency=1, api="completions", tokenizer=tokenizer, salt=salt)
    started = time.time()
    records = asyncio.run(run_load(asked, dict.fromkeys(modules, fleet.url), options))
    if failed := [record.error for record in records if record.error is not None]:
        raise BenchError(f"a request failed: {failed[0]}")
    spans = [one.spans for one in with_spans(records, exports, started) if one.step and one.spans]
    return {
        phase: round(median(end - begin for begin, end in (s[phase] for s in spans)) * 1000, 2) for phase in HANDOFF
    }


async def tpot(
    fleets: Mapping[str, RunningFleet], zoo: Zoo, prompt_tokens: int, answer_tokens: int, rounds: int
) -> dict[str, Any]:
    """Milliseconds that each further token of an answer to a long prompt takes: medians, and their ratio."""
    from .gpu_parts import MODULES

    prompt = random_ids(random.Random(3), prompt_tokens, zoo.base.vocab_size)
    taken: dict[str, list[float]] = {name: [] for name in fleets}
    for number in range(rounds + 1):
        for name, fleet in fleets.items():
            async with Client(fleet) as client:
                first = await client.post("/v1/completions", completion(MODULES[0], prompt, 1))
                whole = await client.post("/v1/completions", completion(MODULES[0], prompt, answer_tokens))
            if number:  # the first one warms up
                taken[name].append((whole.seconds - first.seconds) / (answer_tokens - 1) * 1000)
    medians = {name: round(median(values), 4) for name, values in taken.items()}
    return {**medians, "of_private": round(medians["shared"] / medians["nixl"], 4), "all": taken}


async def restart(options: argparse.Namespace, fleet: RunningFleet, zoo: Zoo) -> dict[str, Any]:
    """Kill the prefill server while long answers read its pool; the one that comes needs as much memory."""
    from .gpu_parts import MODULES

    rng, vocabulary, tokens = random.Random(4), zoo.base.vocab_size, LONG_TOKENS[options.device]
    prompts = [random_ids(rng, 1_000, vocabulary) for _ in range(LONG_ANSWERS)]
    async with Client(fleet) as client:
        await client.post("/v1/completions", completion(MODULES[0], prompts[0], 2))
        reading = [
            asyncio.create_task(client.post("/v1/completions", completion(MODULES[n % 2], prompt, tokens)))
            for n, prompt in enumerate(prompts)
        ]
        await asyncio.to_thread(_wait_until_all_answer, fleet, reading)
        before = fleet.pids()["prefill-0"]
        os.kill(before, signal.SIGKILL)
        killed = time.monotonic()
        answers = await asyncio.gather(*reading, return_exceptions=True)
        read_s = time.monotonic() - killed
        await asyncio.to_thread(_wait_until_it_serves, fleet, before)
        again_s = time.monotonic() - killed
        await client.post("/v1/completions", completion(MODULES[0], random_ids(rng, 1_000, vocabulary), 2))
    log = (fleet.zoo / ".run" / "logs" / "prefill-0.log").read_text(errors="replace")
    whole = [a for a in answers if not isinstance(a, BaseException) and a.body["usage"]["completion_tokens"] == tokens]
    return {
        "whole_answers": len(whole),
        "read_on_s": round(read_s, 1),
        "serves_again_s": round(again_s, 1),
        "waited_for_memory": "no memory for KV yet" in log,
        "out_of_memory": "out of memory" in log.lower() or "no memory left for KV" in log,
    }


def _wait_until_all_answer(fleet: RunningFleet, reading: Sequence[asyncio.Task[Any]]) -> None:
    """Wait until decode servers run as many requests as were asked, or one has ended."""
    while _answering(fleet) < len(reading) and not any(one.done() for one in reading):
        time.sleep(_LOOK_WHILE_THEY_ANSWER_S)


def _answering(fleet: RunningFleet) -> int:
    """How many requests the decode servers run."""
    from psserve.fleet.run.router_client import HttpClient

    urls = [fleet.worker_url(worker["name"]) for worker in fleet.config["workers"] if worker["role"] == "decode"]
    loads = [json.loads(HttpClient(url, fleet.key).get("/v1/loads", _ANSWER_S))["loads"][0] for url in urls]
    return sum(load["num_running_reqs"] for load in loads)


def _wait_until_it_serves(fleet: RunningFleet, before: int) -> None:
    """Wait for another process in place of the prefill server's: the part's limit ends what never comes."""
    while True:
        state = json.loads((fleet.zoo / ".run" / "state.json").read_text())
        its = next(server for server in state["servers"] if server["name"] == "prefill-0")
        if its["pid"] not in (None, before) and its["state"] == "ready":
            return
        time.sleep(_LOOK_EVERY_S)
