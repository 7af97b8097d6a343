"""What gpu_first.py does on a GPU, part by part. Each part keeps its results as soon as they are there."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .comparison import compare
from .one_pool import one_pool
from .shapes import SHAPES

if TYPE_CHECKING:
    from psserve.bench.systems.fleet import RunningFleet
    from psserve.zoo import Zoo

T = TypeVar("T")

MODULES = ("m0", "m1")
ADAPTERS = {"a0": 16, "a1": 8, "a2": 16, "a3": 4}
"""Name -> rank. All on one decode server."""
CHUNK = {"cuda": 1_024, "cpu": 128}
"""Prompt tokens that a prefill server computes at a time. SGLang would choose more for a large GPU; with these, prompts
of three and of six chunks are judged in little time."""
HANDOFF_LENGTHS = (1_024, 4_096, 16_384)
HANDOFF_ROUNDS = 5
GPU_KV_TOKENS = 65_536
COPIES = ("--transfer", "nixl")
PLAIN_ENGINE = (
    *("--attention-backend", "triton", "--sampling-backend", "pytorch"),
    *("--cuda-graph-backend-decode", "disabled", "--cuda-graph-backend-prefill", "disabled"),
)
"""Needs the fewest compiled kernels: neither FlashAttention nor flashinfer's."""
IDLE_SECONDS = 5.0
SAMPLED = {"temperature": 0.8, "top_p": 0.9, "top_k": 20, "min_p": 0.02}
GRAMMAR = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "boolean"}}}
EARLY_SEND = "psserve_early_send: cached prefixes are sent early"
_EARLY_SEND_PLUGIN = f"""
import os, sys
def load():
    os.environ["SGLANG_DISAGG_PREFILL_EARLY_SEND_CACHED_PREFIX"] = "1"
    print("{EARLY_SEND}", file=sys.stderr, flush=True)
"""
_LOAD_PLUGIN = """
from psserve import torchvision_ops
torchvision_ops.declare_missing()
from sglang.srt.plugins import load_plugins
load_plugins()
from psserve.engine import plugin
assert plugin.loaded, "SGLang did not load psserve's plugin"
"""


class Record:
    """A growing result in a file: whoever reads it, at any time, sees a whole document."""

    def __init__(self, path: Path, found: dict[str, Any]) -> None:
        self._path, self._started = path, time.monotonic()
        self.data: dict[str, Any] = {"passed": False, "machine": found, "steps_s": {}}
        self.save()

    def step(self, name: str, work: Callable[[], T]) -> T:
        """Do `work`, keep how long it took, and save."""
        print(f"gpu-first: {name} ...", file=sys.stderr, flush=True)
        started = time.monotonic()
        result = work()
        self.data["steps_s"][name] = round(time.monotonic() - started, 1)
        self.save()
        return result

    def save(self) -> None:
        from psserve.zoo.disk.storage import write_atomically

        self.data["seconds"] = round(time.monotonic() - self._started, 1)
        write_atomically(self._path, (json.dumps(self.data, indent=1) + "\n").encode())


def imports(options: argparse.Namespace, found: dict[str, Any]) -> None:
    """SGLang loads psserve's plugin as in a decode server: every function that it hooks is the tested one."""
    record = Record(options.out / "import.json", found)
    command = [sys.executable, "-P", "-c", _LOAD_PLUGIN]
    run = partial(subprocess.run, command, env=os.environ | {"PSSERVE_ROLE": "decode"}, capture_output=True, text=True)
    done = record.step("load", partial(run, check=False))
    record.data |= {"passed": done.returncode == 0, "said": done.stderr[-4_000:]}
    record.save()


def serving(options: argparse.Namespace, found: dict[str, Any]) -> None:
    """One fleet: exactness, then what the hand-over costs, then requests that compile something, and idle CPU."""
    record = Record(options.out / "exactness.json", found)
    zoo = record.step("build", partial(random_zoo, options))
    with running(options, zoo, record) as fleet:
        exactness(options, fleet, zoo, record)
        record = Record(options.out / "handover.json", found)
        record.data["handover"] = []
        for length in (length for length in HANDOFF_LENGTHS if length < zoo.base.context_length):
            handover(options, fleet, zoo, length, record)
        record.data["sampled"] = record.step("sampled", partial(asyncio.run, sampled(fleet, zoo)))
        record.data["grammar"] = record.step("grammar", partial(asyncio.run, grammar(fleet)))
        record.data["idle_cpu_percent_of_a_core"] = record.step("idle", partial(idle_cpu, fleet))
        record.data["passed"] = True
        record.save()


def early_send(options: argparse.Namespace, found: dict[str, Any]) -> None:
    """The same exactness cases on a fleet whose prefill server sends cached prefixes early, as SGLang's own does."""
    record = Record(options.out / "early-send.json", found)
    zoo = record.step("build", partial(random_zoo, options))
    # On CPU with overlap SGLang would record a CUDA event.
    engine = ("--disable-overlap-schedule",) if options.device == "cpu" else ()
    with early_send_forced(), running(options, zoo, record, engine) as fleet:
        log = (zoo.path / ".run" / "logs" / "prefill-0.log").read_text(errors="replace")
        record.data["sent_early"] = EARLY_SEND in log
        exactness(options, fleet, zoo, record)


def adapters(options: argparse.Namespace, found: dict[str, Any]) -> None:
    """The exactness cases once more, for four LoRA adapters of the plain base on one decode server."""
    options = argparse.Namespace(**vars(options) | {"quantisation": None})
    record = Record(options.out / "adapters.json", found)
    zoo = record.step("build", partial(zoo_of_adapters, options))
    with running(options, zoo, record) as fleet:
        exactness(options, fleet, zoo, record, tuple(ADAPTERS))


def benchmark(options: argparse.Namespace, found: dict[str, Any]) -> None:
    """Psserve, and each module with its own prefill and decode server, under the same agent sessions."""
    record = Record(options.out / "bench.json", found)
    zoo = record.step("build", partial(random_zoo, options))
    folder = options.work / "comparison"
    arguments = bench_arguments(options, zoo.path, folder)
    status = record.step("compare", lambda: compare(arguments, within_s=options.limit - 2 * options.stop_s))
    for name, key in (("report.json", "report"), ("results.jsonl", "runs")):
        if (folder / name).exists():
            text = (folder / name).read_text()
            record.data[key] = json.loads(text) if key == "report" else list(map(json.loads, text.splitlines()))
    record.data["passed"] = status == 0
    record.save()


PARTS: dict[str, Callable[[argparse.Namespace, dict[str, Any]], None]] = {
    "import": imports,
    "serving": serving,
    "early-send": early_send,
    "adapters": adapters,
    "bench": benchmark,
    "one-pool": one_pool,
}
LIMITS_S = {"import": 45, "serving": 210, "early-send": 90, "adapters": 90, "bench": 240, "one-pool": 540}
"""Under twelve minutes, but for `one-pool`: the rest of a quarter of an hour is for bringing packages along."""
ON_ITS_OWN = ("one-pool",)
"""Done if asked for by name: a quarter of an hour of its own."""


def random_zoo(options: argparse.Namespace) -> Zoo:
    """The zoo of random weights, quantised if asked for. There is one for all parts."""
    from psserve.zoo import Zoo
    from psserve.zoo.synthetic.zoo import build_zoo

    from .quantised import quantised_zoo
    from .serving_check import free_memory

    path = options.work / options.shape
    if not (path / "zoo.toml").exists():
        build_zoo(path, modules=MODULES, name=options.shape, device=options.device, **SHAPES[options.shape])
        free_memory()
    if not options.quantisation:
        return Zoo.open(path)
    quantised = options.work / options.quantisation
    if not (quantised / "zoo").exists():
        quantised_zoo(Zoo.open(path), quantised, options.quantisation)
    return Zoo.open(quantised / "zoo")


def zoo_of_adapters(options: argparse.Namespace) -> Zoo:
    """A zoo with the base of all parts, and random adapters."""
    from psserve.zoo import Zoo

    from .adapters import write_adapter

    path = options.work / "adapters"
    zoo = Zoo.create(path / "zoo", random_zoo(options).base.path)
    for seed, (name, rank) in enumerate(ADAPTERS.items()):
        write_adapter(path / name, zoo, seed, rank)
        zoo.add(name, path / name, allow_naive=True, store="adapter")
    return zoo


def plain_checkpoints(options: argparse.Namespace, zoo: Zoo) -> dict[str, Path]:
    """Name -> checkpoint of the same values to judge by, of what is quantised."""
    if not options.quantisation:
        return {}
    folders = (options.work / options.quantisation / "plain").iterdir()
    return {zoo.base.name if path.name == "base" else path.name: path for path in folders}


@contextlib.contextmanager
def running(
    options: argparse.Namespace,
    zoo: Zoo,
    record: Record,
    engine: tuple[str, ...] = (),
    *,
    fleet_arguments: tuple[str, ...] = COPIES,
    kv_tokens: bool = True,
) -> Iterator[Any]:
    """A fleet of one prefill server and a decode server for each module. Its logs' last lines are kept if it fails.

    `kv_tokens`: whether pools on a GPU get a certain size, or what there is.
    """
    from psserve.bench.systems.fleet import LaunchFailed, launched

    arguments = launch_arguments(options, engine, fleet_arguments, kv_tokens=kv_tokens)
    record.data["launch"] = {"arguments": arguments}
    try:
        with launched(zoo.path, arguments, within_s=options.limit) as fleet:
            record.data["launch"]["ready_s"] = round(fleet.ready_s, 1)
            record.save()
            yield fleet
    except LaunchFailed as failure:
        record.data["launch"]["logs"] = failure.logs
        record.save()
        raise


def engine_arguments(options: argparse.Namespace) -> list[str]:
    """SGLang's own arguments, for every server of every system."""
    plain = PLAIN_ENGINE if options.device == "cuda" and not options.own_kernels else ()
    return [*plain, *options.engine_arg]


def launch_arguments(
    options: argparse.Namespace,
    engine: tuple[str, ...] = (),
    fleet: tuple[str, ...] = COPIES,
    *,
    kv_tokens: bool = True,
) -> list[str]:
    own = [*engine_arguments(options), *engine]
    return [
        *("--device", options.device, "--dtype", options.dtype, "--chunked-prefill-size", str(CHUNK[options.device])),
        *("--kv-cache-dtype", options.kv_cache_dtype),
        *(("--kv-tokens", str(GPU_KV_TOKENS)) if options.device == "cuda" and kv_tokens else ()),
        *fleet,
        *(("--", *own) if own else ()),
    ]


def bench_arguments(options: argparse.Namespace, zoo: Path, folder: Path) -> list[str]:
    """The arguments of `psserve bench compare`: one visit to each system."""
    small = options.device == "cpu"
    return [
        *("--zoo", str(zoo), "--out", str(folder), "--device", options.device, "--dtype", options.dtype),
        *("--system", "shared", "--system", "disaggregated", "--repeats", "1"),
        *("--workload", "react", "--think-secs", "0", "--scale", "0.05" if small else "1"),
        *("--concurrency", "2" if small else "8", "--sessions", "3" if small else "24", "--warmup", "1"),
        *("--kv-tokens", str(4 * (8_192 if small else GPU_KV_TOKENS))),
        *("--context-length", str(2_048 if small else 16_384)),
        *(f"--engine-arg={argument}" for argument in engine_arguments(options)),
    ]


def exactness(
    options: argparse.Namespace,
    fleet: RunningFleet,
    zoo: Zoo,
    record: Record,
    modules: tuple[str, ...] = MODULES,
) -> None:
    """Ten answers of each module against the Transformers reference; `passed` tells."""
    import torch

    from .quantised import tolerance
    from .serving_check import check, collect

    if options.device == "cpu":
        torch.set_num_threads(1)  # models this small are slower on several
    lengths = prompt_lengths(CHUNK[options.device])
    record.data["prompt_tokens"] = lengths
    samples = record.step("serve", lambda: asyncio.run(collect(fleet, modules, zoo.base.vocab_size, lengths)))
    allowed, plain = tolerance(options.quantisation, served_dtype(options)), plain_checkpoints(options, zoo)
    found = record.step("reference", lambda: check(zoo, samples, options.device, allowed, plain))
    record.data |= {"exactness": found, "passed": found["passed"]}
    record.save()


def prompt_lengths(chunk: int) -> tuple[int, ...]:
    """Tokens of the prompts, the last two of three and six chunks."""
    return (2, 17, 100, chunk * 5 // 2, chunk * 11 // 2)


def handover(options: argparse.Namespace, fleet: RunningFleet, zoo: Zoo, length: int, record: Record) -> None:
    from .handoff import measure

    rounds = 1 if options.device == "cpu" else HANDOFF_ROUNDS
    work = partial(measure, fleet, MODULES, length, rounds, zoo.base.vocab_size)
    record.data["handover"].append(record.step(f"handover of {length} tokens", lambda: asyncio.run(work())))
    record.save()


async def sampled(fleet: RunningFleet, zoo: Zoo) -> dict[str, Any]:
    """The first sampled request, and another one: how long each took, in seconds."""
    import random

    from .client import Client, completion, random_ids

    prompt = random_ids(random.Random(2), 64, zoo.base.vocab_size)
    async with Client(fleet) as client:
        answers = [await client.post("/v1/completions", completion(MODULES[0], prompt, 16) | SAMPLED) for _ in range(2)]
    return {"first_s": round(answers[0].seconds, 3), "second_s": round(answers[1].seconds, 3)}


async def grammar(fleet: RunningFleet) -> dict[str, Any]:
    """The first request with a grammar. Raises ValueError if its answer does not keep to it."""
    from .client import Client

    messages = [{"role": "user", "content": "Is it?"}]
    body = {"model": MODULES[0], "messages": messages, "max_tokens": 16, "temperature": 0, "response_format": GRAMMAR}
    async with Client(fleet) as client:
        answer = await client.post("/v1/chat/completions", body)
    text = answer.body["choices"][0]["message"]["content"]
    if not isinstance(json.loads(text), bool):
        raise ValueError(f"the grammar allows true and false, and the answer is {text!r}")
    return {"seconds": round(answer.seconds, 3), "answer": text}


def idle_cpu(fleet: RunningFleet) -> float:
    """CPU that the idle fleet takes, in percent of a core."""
    from psserve.bench.systems.processes import CpuMeter

    meter = CpuMeter(fleet.supervisor)
    time.sleep(IDLE_SECONDS)
    return round(meter.read().tree, 1)


def served_dtype(options: argparse.Namespace) -> str:
    """`--dtype auto` as psserve resolves it."""
    if options.dtype != "auto":
        return str(options.dtype)
    return "float32" if options.device == "cpu" else "bfloat16"


@contextlib.contextmanager
def early_send_forced() -> Iterator[None]:
    """Servers started meanwhile send cached prefixes early, whatever psserve's plan says.

    A plugin of SGLang's, found on PYTHONPATH, does it: psserve itself refuses that setting.
    """
    before = os.environ.get("PYTHONPATH")
    with tempfile.TemporaryDirectory(prefix="psserve-early-send-") as name:
        info = Path(name) / "psserve_early_send-0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: psserve-early-send\nVersion: 0\n")
        (info / "entry_points.txt").write_text("[sglang.srt.plugins]\nearly_send = psserve_early_send:load\n")
        (Path(name) / "psserve_early_send.py").write_text(_EARLY_SEND_PLUGIN)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (name, before)))
        try:
            yield
        finally:
            os.environ.pop("PYTHONPATH")
            if before is not None:
                os.environ["PYTHONPATH"] = before
