"""Does psserve serve right on this machine's GPU, and how fast is the hand-over? One run, no network.

    python scripts/gpu_check.py                                  Qwen3-0.6B and 1.7B shapes, 1 prefill + 2 modules
    python scripts/gpu_check.py --device cpu --shapes tiny       a dry run of all of it without a GPU
    python scripts/gpu_check.py --quantisation fp8-blocks        a quantised base and module beside an unquantised one

For each shape: builds checkpoints of random weights, launches them through `psserve launch`, compares answers with the
Transformers reference, and measures time to first token and KV hand-over. docs/results/gpu-NAME.json is written after
each step, so that a run that is cut short keeps what it has. psserve need not be installed. docs/measuring.md tells
the method. Exit status 0 if every shape passed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from measuring.installation import importable
from measuring.quantised import METHODS
from measuring.shapes import SHAPES

if TYPE_CHECKING:
    from psserve.bench.systems.fleet import RunningFleet
    from psserve.zoo import Zoo

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
LENGTHS = (1_024, 4_096, 16_384)
ROUNDS = 5
CHUNK = 1_024
PROMPTS = (2, 17, 100, 1_000, 3_000, 6_000)
"""Tokens. Chunks are small, so that prompts of three and of six are judged in little time."""
GPU_KV_TOKENS = 65_536
START_S = 420
"""A first start compiles kernels."""
PLAIN_ENGINE = (
    *("--attention-backend", "triton", "--sampling-backend", "pytorch"),
    *("--cuda-graph-backend-decode", "disabled", "--cuda-graph-backend-prefill", "disabled"),
)
"""Tried on a GPU where a fleet with SGLang's own choices does not start: nothing here is compiled by nvcc."""


def main() -> int:
    options = parse(sys.argv[1:])
    with importable(ROOT) as stand_in, work_folder(options.work) as work:
        missing = [name for name in needed(options) if importlib.util.find_spec(name) is None]
        if missing:
            print(f"gpu-check: error: cannot import {', '.join(missing)}: install them first", file=sys.stderr)
            return 2
        return Check(options, work, stand_in).run()


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Check psserve on this machine's GPU.")
    add = parser.add_argument
    add("--shapes", default="qwen3-0.6b,qwen3-1.7b", help=f"of {', '.join(SHAPES)} [default: %(default)s]")
    add("--modules", type=int, default=2, help="number of decode modules [default: %(default)s]")
    add("--device", choices=["cuda", "cpu"], default="cuda")
    add("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto", help="to serve with")
    add("--quantisation", choices=METHODS, help="of the base and all modules but the first [default: none]")
    add("--kv-cache-dtype", choices=["auto", "fp8_e4m3"], default="auto")
    add("--attention-backend", help="SGLang's [default: its own choice]")
    add("--page-size", type=int, help="[default: psserve's own choice]")
    add(
        "--chunk", type=int, default=CHUNK, help="longest piece of a prompt computed in one step [default: %(default)s]"
    )
    add("--transfer", choices=["auto", "nixl", "mooncake"], default="auto", help="[default: nixl if it is installed]")
    add("--kv-tokens", type=int, help=f"KV pool of each server [default: {GPU_KV_TOKENS} on GPU]")
    add("--longest", type=int, default=max(LENGTHS), help="longest prompt, in tokens [default: %(default)s]")
    add("--engine-arg", action="append", default=[], metavar="ARG", help="one more argument for SGLang (repeatable)")
    add("--env", action="append", default=[], metavar="NAME=VALUE", help="set in every server (repeatable)")
    add("--work", type=Path, help="where checkpoints are built [default: a temporary folder]")
    add("--out", type=Path, help="result file [default: docs/results/gpu-NAME.json]")
    options = parser.parse_args(arguments)
    options.shapes = options.shapes.split(",")
    unknown = [shape for shape in options.shapes if shape not in SHAPES]
    if unknown:
        parser.error(f"--shapes: no shape {unknown[0]!r}; there are {', '.join(SHAPES)}")
    if options.modules < 1:
        parser.error("--modules: give at least 1")
    if options.transfer == "auto":
        options.transfer = "nixl" if importlib.util.find_spec("nixl") else "mooncake"
    return options


def needed(options: argparse.Namespace) -> list[str]:
    """Packages without which nothing works, by import name."""
    ours = ["aiohttp", "click", "orjson", "prometheus_client", "psutil", "pydantic", "rich", "safetensors", "tomli_w"]
    return [*ours, "uvloop", "xxhash", "torch", "transformers", "tokenizers", "sglang", options.transfer]


def launch_arguments(options: argparse.Namespace, plain: bool) -> list[str]:
    """What `psserve launch` is given. `plain`: with PLAIN_ENGINE, where the user's arguments do not say otherwise."""
    kv_tokens = options.kv_tokens or (GPU_KV_TOKENS if options.device == "cuda" else None)
    backend = ["--attention-backend", options.attention_backend] if options.attention_backend else []
    engine = [*(PLAIN_ENGINE if plain else ()), *backend, *options.engine_arg]
    return [
        *("--device", options.device, "--dtype", options.dtype, "--transfer", options.transfer),
        *(("--page-size", str(options.page_size)) if options.page_size else ()),
        *("--chunked-prefill-size", str(options.chunk), "--kv-cache-dtype", options.kv_cache_dtype),
        *(("--kv-tokens", str(kv_tokens)) if kv_tokens else ()),
        *(part for assignment in options.env for part in ("--env", assignment)),
        *(("--", *engine) if engine else ()),
    ]


def run_async(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return asyncio.run(work())


@contextmanager
def work_folder(wanted: Path | None) -> Iterator[Path]:
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted
        return
    with tempfile.TemporaryDirectory(prefix="psserve-gpu-check-") as directory:
        yield Path(directory)


class Check:
    """One run over all shapes, and its growing result. psserve is importable by now, and not before."""

    def __init__(self, options: argparse.Namespace, work: Path, stand_in: bool) -> None:
        from psserve.bench import machine

        self.options, self.work = options, work
        self.started = time.monotonic()
        found = machine.describe()
        name = machine.slug(found["gpus"][0].split(",")[0]) if found["gpus"] else "none"
        self.path: Path = options.out or ROOT / "docs" / "results" / f"gpu-{name}.json"
        settings = {key: value for key, value in vars(options).items() if key not in ("work", "out")}
        self.result: dict[str, Any] = {
            "check": "gpu",
            "machine": found,
            "installed": not stand_in,
            "options": settings,
            "complete": False,
            "passed": False,
            "shapes": {},
        }

    def run(self) -> int:
        self.save()
        for shape in self.options.shapes:
            self.note(f"--- {shape}")
            entry = self.result["shapes"][shape] = {"passed": False, "seconds": {}}
            try:
                self.check_shape(shape, entry)
            except Exception:  # noqa: BLE001 - whatever broke, the other shape and what is measured so far must not be lost
                entry["error"] = traceback.format_exc()
                self.note(f"{shape}: FAILED\n{entry['error']}")
            self.save()
        self.result["complete"] = True
        self.result["passed"] = all(entry["passed"] for entry in self.result["shapes"].values())
        self.save()
        self.note(f"{'passed' if self.result['passed'] else 'FAILED'}; {self.path}")
        print(json.dumps(self.result))
        return 0 if self.result["passed"] else 1

    def check_shape(self, shape: str, entry: dict[str, Any]) -> None:
        from psserve.zoo.synthetic.zoo import build_zoo

        modules = [f"module-{i}" for i in range(self.options.modules)]
        zoo: Zoo = self.step(
            entry,
            "build",
            lambda: build_zoo(
                self.work / shape, modules=modules, name=shape, device=self.options.device, **SHAPES[shape]
            ),
        )
        references: dict[str, Path] = {}
        if self.options.quantisation:
            zoo, references = self.step(entry, "quantise", lambda: self.quantised(zoo, shape))
        self.free_memory()
        entry["model"] = {"layers": zoo.base.num_layers, "dtype": zoo.base.dtype, "weight_bytes": zoo.base.weight_bytes}
        entry["model"]["quantisation"] = zoo.base.quantisation
        with self.fleet(zoo, entry) as fleet:
            self.exactness(fleet, zoo, modules, references, entry)
            self.handoff(fleet, zoo, modules, entry)
        entry["passed"] = entry["exactness"]["passed"]

    def quantised(self, zoo: Zoo, shape: str) -> tuple[Zoo, dict[str, Path]]:
        """The zoo, quantised as the options say, and plain checkpoints of the same values."""
        from measuring.quantised import quantised_zoo

        return quantised_zoo(zoo, self.work / f"{shape}-{self.options.quantisation}", self.options.quantisation)

    @contextmanager
    def fleet(self, zoo: Zoo, entry: dict[str, Any]) -> Iterator[RunningFleet]:
        """A running fleet: with SGLang's own choices, or, if that does not start on a GPU, with the plain ones."""
        from psserve.bench.systems.fleet import LaunchFailed, launched

        for plain in (False, True) if self.options.device == "cuda" else (False,):
            arguments = launch_arguments(self.options, plain)
            self.note(f"psserve launch {' '.join(arguments)}")
            attempt = launched(zoo.path, arguments, within_s=START_S)
            try:
                fleet = attempt.__enter__()
            except LaunchFailed as failure:
                entry.setdefault("failed_launches", []).append({"arguments": arguments, "logs": failure.logs})
                self.save()
                continue
            entry["launch"] = {"arguments": arguments, "ready_s": round(fleet.ready_s, 1)}
            self.note(f"ready after {fleet.ready_s:.1f} s")
            try:
                yield fleet
            finally:
                attempt.__exit__(None, None, None)
            return
        raise RuntimeError("the fleet does not start; see failed_launches in the result")

    def exactness(
        self, fleet: RunningFleet, zoo: Zoo, modules: list[str], references: dict[str, Path], entry: dict[str, Any]
    ) -> None:
        """Compare answers with the reference. `references`: checkpoints to compare with in place of the zoo's own."""
        from measuring.quantised import tolerance
        from measuring.serving_check import check, collect

        allowed = tolerance(self.options.quantisation, self.served_dtype())
        lengths = [length for length in PROMPTS if length <= self.longest(zoo)]
        serve = partial(collect, fleet, modules, zoo.base.vocab_size, lengths)
        samples = self.step(entry, "serve", partial(run_async, serve))
        entry["exactness"] = self.step(
            entry, "reference", lambda: check(zoo, samples, self.options.device, allowed, references)
        )
        self.note(json.dumps(entry["exactness"]))

    def handoff(self, fleet: RunningFleet, zoo: Zoo, modules: list[str], entry: dict[str, Any]) -> None:
        from measuring.handoff import measure

        entry["handoff"] = []
        for length in (length for length in LENGTHS if length <= self.longest(zoo)):
            work = partial(measure, fleet, modules, length, ROUNDS, zoo.base.vocab_size)
            row = self.step(entry, f"handoff of {length} tokens", partial(run_async, work))
            entry["handoff"].append(row)
            self.save()
            self.note(json.dumps(row))

    def longest(self, zoo: Zoo) -> int:
        """The longest prompt, in tokens, that leaves room for an answer."""
        return min(int(self.options.longest), zoo.base.context_length - 64)

    def served_dtype(self) -> str:
        """`--dtype auto` as psserve resolves it."""
        if self.options.dtype != "auto":
            return str(self.options.dtype)
        return "float32" if self.options.device == "cpu" else "bfloat16"

    def step(self, entry: dict[str, Any], name: str, work: Callable[[], T]) -> T:
        """Do `work`, note how long it took, and save."""
        self.note(f"{name} ...")
        started = time.monotonic()
        result = work()
        entry["seconds"][name] = round(time.monotonic() - started, 1)
        self.save()
        return result

    def free_memory(self) -> None:
        from measuring.serving_check import free_memory

        free_memory()

    def save(self) -> None:
        """Write the result in one step: who reads it while we run sees a whole document."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.result["seconds"] = round(time.monotonic() - self.started, 1)
        building = self.path.with_suffix(".building")
        building.write_text(json.dumps(self.result, indent=1) + "\n")
        os.replace(building, self.path)

    def note(self, text: str) -> None:
        print(f"gpu-check: {time.monotonic() - self.started:6.1f} s: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
