"""psserve and its alternatives on one CUDA GPU, side by side. No network; weights are random and made on the device.

    python scripts/gpu_bench.py                                       docs/results/bench-NAME.json (NAME: the GPU)
    python scripts/gpu_bench.py --shape qwen3-8b --modules 2
    python scripts/gpu_bench.py --device cpu --shape tiny --scale 0.125 --concurrency 4 --sessions 8 --out /tmp/x.json

The last one is a dry run of all of it without a GPU.

One model shape, four modules. Systems run in turns, each for at most --minutes in all: sessions of the react preset at
fixed concurrencies. Results are kept as they come (`--work`), so a run that is cut short can go on: --resume. psserve
need not be installed. docs/benchmarks.md tells the method. Exit status 0 if every run was done.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from measuring.comparison import (
    ROOT,
    adapter_of,
    add_options,
    bench_zoo,
    compare,
    comparison,
    keep,
    measurement,
    module_names,
    note_call,
    parsed,
)
from measuring.installation import importable
from measuring.shapes import SHAPES

SMALLEST_POOL = 20_480
"""Tokens of a server's pool: one context, and what decode servers keep free."""
REACT = ("--workload", "react", "--think-secs", "0")
LONGEST = 16_384
"""Longest context, at the preset's own lengths: a session ends at 7,000 tokens on average."""
UNPLANNED = 0.15
"""Part of the GPU's free memory that no pool gets: activations, CUDA graphs, fragmentation."""
TINY_KV_TOKENS = 131_072


def main() -> int:
    options, folder = measurement(parse, folder_of)
    with importable(ROOT):
        from psserve.bench.machine import gpus, slug
        from psserve.errors import PsserveError

        found = gpus()
        if options.device == "cuda" and not found:
            note("error: nvidia-smi lists no GPU: --device cpu --shape tiny tries the script without one")
            return 2
        name = slug(found[0].split(",")[0]) if found else "dry-run"
        note(f"building a base and {options.modules} modules of the shape {options.shape}")
        try:
            zoo = bench_zoo(
                options.work / f"zoo-{options.shape}-{options.modules}",
                options.modules,
                SHAPES[options.shape],
                options.device,
            )
            tokens = options.kv_tokens or kv_tokens(zoo, options)
        except PsserveError as error:
            note(f"error: {error}")
            return error.exit_code
        note_call(options, folder)
        systems = options.systems.split(",")
        status = compare(new_comparison(options, zoo, folder, tokens), 60 * options.minutes * len(systems))
        if (folder / "report.json").exists():
            keep(folder, options.out or ROOT / "docs" / "results" / f"bench-{name}.json")
    return status


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="psserve and its alternatives on one CUDA GPU.")
    add_options(
        parser,
        systems="shared,disaggregated,colocated",
        concurrency="8,32",
        sessions=64,
        repeats=2,
        work=ROOT / "build" / "gpu-bench",
    )
    add = parser.add_argument
    add("--shape", choices=list(SHAPES), default="qwen3-0.6b", help="[default: %(default)s]; qwen3-8b: --modules 2")
    add("--scale", type=float, default=1.0, help="of the preset's lengths [default: %(default)s]")
    add("--kv-tokens", type=int, help="of each system [default: what the GPU has room for]")
    add("--minutes", type=float, default=9.0, help="most that a system may take in all [default: %(default)s]")
    add("--device", choices=["cuda", "cpu"], default="cuda")
    return parsed(parser, arguments)


def folder_of(options: argparse.Namespace) -> Path:
    return Path(options.work / f"comparison-{options.shape}-{options.modules}")


def new_comparison(options: argparse.Namespace, zoo: Path, folder: Path, tokens: int) -> list[str]:
    """The arguments of `psserve bench compare`."""
    lora = "lora" in options.systems.split(",")
    adapters = [f"{module}={adapter_of(zoo, module)}" for module in module_names(options.modules) if lora]
    return comparison(
        options,
        zoo,
        folder,
        *("--device", options.device, *REACT, "--kv-tokens", str(tokens)),
        *("--scale", str(options.scale), "--context-length", str(int(LONGEST * options.scale))),
        *(part for adapter in adapters for part in ("--adapter", adapter)),
    )


def kv_tokens(zoo: Path, options: argparse.Namespace) -> int:
    """KV cache for which the GPU has room beside the servers of the largest system. Raises PlanError if for none."""
    from psserve.errors import PlanError
    from psserve.fleet import FleetOptions
    from psserve.fleet.plan.allowance import GIB
    from psserve.fleet.plan.devices import detect
    from psserve.fleet.plan.memory import Budget
    from psserve.fleet.plan.settings import engine_settings
    from psserve.zoo import Zoo

    if options.device == "cpu":
        return TINY_KV_TOKENS
    base, machine = Zoo.open(zoo).base, detect()
    budget = Budget.of(base, engine_settings(base, FleetOptions(dtype="bfloat16"), machine), machine, [], {})
    servers = 2 * options.modules
    free = machine.gpus[0].free_bytes
    beside = max(budget.allowance.bytes_on_gpu(role, tp=1) for role in ("prefill", "decode"))
    room = int(free * (1 - UNPLANNED)) - servers * (budget.weight_bytes + beside)
    tokens = room // budget.token_bytes
    if tokens < servers * SMALLEST_POOL:
        raise PlanError(
            f"{servers} servers of the shape {options.shape} and their KV cache do not fit into {free / GIB:.0f} GiB: "
            "choose a smaller --shape or fewer --modules"
        )
    return int(tokens)


def note(text: str) -> None:
    print(f"gpu-bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
