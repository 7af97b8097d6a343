"""Does a fleet keep its word for long? `python scripts/soak.py --minutes 20`: a mixed load on a real fleet of a tiny
synthetic zoo, whose processes are killed and frozen all the while.

Processes are killed for two thirds of the time; in the last third they are only frozen, so that they live long enough
for their memory to be judged.

`--transfer-faults 0.05` lets SGLang's own fault injection fail one look at a hand-over in twenty, on both sides, and
`--requests` ends the soak once so many have ended.

Fails (exit status 1) if an answer differs from the reference, a request does not end, an error has another form than
the agreed one, the fleet does not recover, memory grows, or something is left once all is quiet: KV tokens, queue
entries, leases, gauges, descriptors, coroutines. Prints a summary, and writes it to docs/results/soak.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from soaking.kills import FREEZES, Killer, NotWhole
from soaking.leaks import SPARE, Sample, as_json, await_idle, growth, look, router_at_rest, too_much
from soaking.traffic import Traffic, make_questions

from psserve.bench import machine
from psserve.bench.systems.fleet import RunningFleet, launched

MODULES = ("alpha", "beta", "gamma")
RESULT = Path(__file__).parents[1] / "docs" / "results" / "soak.json"
REQUEST_TIMEOUT_S = 60
SAMPLE_S = 5.0
NO_BREAKER = "[router.breaker]\nfailures = 1000000\n"
"""Every request must reach the servers, however many before it failed."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Soak a fleet: load, kills, disconnects, bad input; then look for leaks."
    )
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--requests", type=int, help="end after so many, if that is sooner")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seconds-between-kills", type=float, default=30.0, help="0: kill and freeze nothing")
    parser.add_argument("--transfer", choices=("nixl", "shared"), default="nixl")
    parser.add_argument("--transfer-faults", type=float, default=0.0, metavar="P", help="chance at each look")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=RESULT, metavar="FILE", help="where the result goes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="psserve-soak-") as directory:
        document = run(Path(directory) / "zoo", options)
    options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps({name: value for name, value in document.items() if name not in ("samples", "machine")}, indent=1))
    return 1 if document["failures"] else 0


def run(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Build a zoo, launch it, soak it; the result as JSON."""
    from psserve.zoo.synthetic.zoo import build_zoo

    note("building a synthetic zoo and computing the right answers")
    rng = random.Random(options.seed)
    zoo = build_zoo(path, modules=MODULES)
    questions = make_questions(zoo, MODULES, rng)
    note("launching 2 prefill and 3 decode servers")
    config = path.with_name("fleet.toml")
    config.write_text(NO_BREAKER if options.transfer_faults else "")
    arguments = ["--config", str(config), "--device", "cpu", "--prefill", "2", "--transfer", options.transfer]
    arguments += ["--request-timeout-secs", str(REQUEST_TIMEOUT_S)]
    if options.transfer_faults:
        arguments += ["--env", f"SGLANG_TEST_DISAGG_FAILURE_PROB={options.transfer_faults}"]
    with launched(path, arguments) as fleet:
        traffic = Traffic(fleet.url, questions, REQUEST_TIMEOUT_S + 20.0, options.seed, options.requests)
        return asyncio.run(soak(fleet, traffic, Killer(fleet, rng), options))


async def soak(fleet: RunningFleet, traffic: Traffic, killer: Killer, options: argparse.Namespace) -> dict[str, Any]:
    failures: list[str] = []
    samples: list[Sample] = []
    started = time.monotonic()
    sampling = asyncio.create_task(sample(fleet, samples, started))
    traffic.start(options.clients)
    try:
        await strike(killer, traffic.over, 60 * options.minutes, options.seconds_between_kills)
    except NotWhole as error:
        failures.append(str(error))
    await traffic.stop()
    sampling.cancel()
    failures += traffic.tally.wrong
    note("all quiet: looking for what is left")
    failures += [f"left: {name} = {value:g}" for name, value in (await await_idle(fleet)).items()]
    failures += await left_open(fleet, traffic, options.clients)
    grown = growth(samples)
    failures += too_much(grown)
    return {
        "minutes": round((time.monotonic() - started) / 60, 1),
        "transfer": options.transfer,
        "transfer_faults": options.transfer_faults,
        "clients": options.clients,
        "seed": options.seed,
        "requests": sum(traffic.tally.results.values()),
        "results": dict(sorted(traffic.tally.results.items())),
        "slowest_request_s": round(traffic.tally.slowest_s, 1),
        "faults": dict(sorted(killer.done.items())),
        "slowest_recovery_s": round(killer.slowest_recovery_s, 1),
        "memory_mib_per_hour": grown,
        "failures": failures[:50],
        "samples": as_json(samples),
        "machine": machine.describe(),
    }


async def strike(killer: Killer, over: asyncio.Event, seconds: float, pause_s: float) -> None:
    """Strike again and again: anything for a third of the time, then the router, anything again, at last only freezes.

    Ends sooner if the soak is over; without a pause between strikes there are none. The fleet is whole at the end.
    """
    started = time.monotonic()
    router_is_due = True
    while pause_s and (passed := time.monotonic() - started) + pause_s < seconds:
        if await within(over, pause_s):
            break
        if router_is_due and passed > seconds / 3:
            router_is_due = False
            await killer.strike(("kill router",))
        elif passed > 2 * seconds / 3:
            await killer.strike(FREEZES)
        else:
            await killer.strike()
        note(f"faults so far: {dict(killer.done)}")
    await within(over, max(0.0, started + seconds - time.monotonic()))
    await killer.whole()


async def within(over: asyncio.Event, seconds: float) -> bool:
    """Wait for so long at most; whether the soak is over."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), seconds)
    return over.is_set()


async def left_open(fleet: RunningFleet, traffic: Traffic, clients: int) -> list[str]:
    """What a burst of load on the quiet router leaves open or under way, beyond what there was before it, in words."""
    before = await asyncio.to_thread(router_at_rest, fleet)
    traffic.start(clients)
    await asyncio.sleep(5.0)
    await traffic.stop()
    await await_idle(fleet)
    await asyncio.sleep(5.0)  # connections are kept alive for 3 s
    after = await asyncio.to_thread(router_at_rest, fleet)
    return [
        f"the router's {name}: {before[name]:g} before a burst, {after[name]:g} after it"
        for name, spare in SPARE.items()
        if after[name] > before[name] + spare
    ]


async def sample(fleet: RunningFleet, samples: list[Sample], started: float) -> None:
    while True:
        try:
            samples += look(fleet, started)
        except (psutil.Error, TypeError, ValueError) as error:  # one is being restarted: gone, no pid, half a file
            note(f"no samples: {error}")
        await asyncio.sleep(SAMPLE_S)


def note(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
