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
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from measuring.bench_zoo import adapter_of, bench_zoo
from measuring.installation import importable

ROOT = Path(__file__).resolve().parent.parent
PSSERVE = "import sys; from psserve.cli.main import main; sys.argv[0] = 'psserve'; main()"
SMALLEST_POOL = 20_480
"""Tokens of a server's pool: one context, and what decode servers keep free."""
QWEN3 = {
    "vocab_size": 151_936,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "rms_norm_eps": 1e-6,
    "dtype": "bfloat16",
}
SMALL = QWEN3 | {"num_hidden_layers": 28, "num_attention_heads": 16, "tie_word_embeddings": True}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": SMALL | {"hidden_size": 1_024, "intermediate_size": 3_072},
    "qwen3-1.7b": SMALL | {"hidden_size": 2_048, "intermediate_size": 6_144},
    "qwen3-8b": QWEN3
    | {"num_hidden_layers": 36, "num_attention_heads": 32, "hidden_size": 4_096, "intermediate_size": 12_288},
    "tiny": {"vocab_size": 1_024, "tie_word_embeddings": True, "rope_parameters": QWEN3["rope_parameters"]},
}
REACT = ("--workload", "react", "--think-secs", "0")
LONGEST = 16_384
"""Longest context, at the preset's own lengths: a session ends at 7,000 tokens on average."""
UNPLANNED = 0.15
"""Part of the GPU's free memory that no pool gets: activations, CUDA graphs, fragmentation."""
TINY_KV_TOKENS = 131_072


def main() -> int:
    options = parse(sys.argv[1:])
    with importable(ROOT):
        from psserve.bench.machine import gpus, slug
        from psserve.errors import PsserveError

        found = gpus()
        if options.device == "cuda" and not found:
            note("error: nvidia-smi lists no GPU: --device cpu --shape tiny tries the script without one")
            return 2
        name = slug(found[0].split(",")[0]) if found else "dry-run"
        modules = [f"m{number}" for number in range(options.modules)]
        note(f"building a base and {options.modules} modules of the shape {options.shape}")
        started = f"{options.shape}-{options.modules}"
        try:
            zoo = bench_zoo(options.work / f"zoo-{started}", modules, SHAPES[options.shape], options.device)
            tokens = options.kv_tokens or kv_tokens(zoo, options)
        except PsserveError as error:
            note(f"error: {error}")
            return error.exit_code
        folder = options.work / f"comparison-{started}"
        status = compare(options, zoo, folder, tokens)
        if (folder / "report.json").exists():
            keep(folder, options.out or ROOT / "docs" / "results" / f"bench-{name}.json")
    return status


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="psserve and its alternatives on one CUDA GPU.")
    add = parser.add_argument
    add("--shape", choices=list(SHAPES), default="qwen3-0.6b", help="[default: %(default)s]")
    add("--modules", type=int, default=4, help="[default: %(default)s]; qwen3-8b: 2 on 141 GB")
    add("--systems", default="shared,disaggregated,colocated", help="also lora, single [default: %(default)s]")
    add("--concurrency", default="8,32", help="sessions at a time [default: %(default)s]")
    add("--sessions", type=int, default=64, help="of each run [default: %(default)s]")
    add("--repeats", type=int, default=2, help="[default: %(default)s]")
    add("--scale", type=float, default=1.0, help="of the preset's lengths [default: %(default)s]")
    add("--kv-tokens", type=int, help="of each system [default: what the GPU has room for]")
    add("--minutes", type=float, default=9.0, help="most that a system may take in all [default: %(default)s]")
    add("--device", choices=["cuda", "cpu"], default="cuda")
    add("--work", type=Path, default=ROOT / "build" / "gpu-bench", help="for zoo and results [default: %(default)s]")
    add("--out", type=Path, help="result file [default: docs/results/bench-NAME.json]")
    add("--resume", action="store_true", help="go on with what was interrupted")
    return parser.parse_args(arguments)


def kv_tokens(zoo: Path, options: argparse.Namespace) -> int:
    """KV cache for which the GPU has room beside the servers of the largest system. Raises PlanError if for none."""
    from psserve.errors import PlanError
    from psserve.fleet.plan.devices import detect
    from psserve.fleet.plan.memory import GIB, GPU_SERVER_BYTES, Budget
    from psserve.zoo import Zoo

    if options.device == "cpu":
        return TINY_KV_TOKENS
    budget = Budget.of(Zoo.open(zoo).base, "bfloat16", page=16)
    servers = 2 * options.modules
    free = detect().gpus[0].free_bytes
    room = int(free * (1 - UNPLANNED)) - servers * (budget.weight_bytes + GPU_SERVER_BYTES)
    tokens = room // budget.token_bytes
    if tokens < servers * SMALLEST_POOL:
        raise PlanError(
            f"{servers} servers of the shape {options.shape} and their KV cache do not fit into {free / GIB:.0f} GiB: "
            "choose a smaller --shape or fewer --modules"
        )
    return int(tokens)


def compare(options: argparse.Namespace, zoo: Path, folder: Path, tokens: int) -> int:
    """Run `psserve bench compare` within the time there is. Returns its exit status, 1 if it ran out of time."""
    systems = options.systems.split(",")
    modules = [f"m{number}" for number in range(options.modules)]
    adapters = [f"{module}={adapter_of(zoo, module)}" for module in modules] if "lora" in systems else []
    arguments = ["--resume", str(folder)]
    if not options.resume:
        arguments = [
            *("--zoo", str(zoo), "--out", str(folder), "--device", options.device, *REACT),
            *("--kv-tokens", str(tokens), "--scale", str(options.scale)),
            *("--context-length", str(int(LONGEST * options.scale))),
            *("--concurrency", options.concurrency, "--sessions", str(options.sessions)),
            *("--repeats", str(options.repeats)),
            *(part for system in systems for part in ("--system", system)),
            *(part for adapter in adapters for part in ("--adapter", adapter)),
        ]
    # -P: the current folder may be a checkout, whose psserve/ has no cli in it.
    command = [sys.executable, "-P", "-c", PSSERVE, "bench", "compare", *arguments]
    process = subprocess.Popen(command, stdout=sys.stderr)
    try:
        return process.wait(timeout=60 * options.minutes * len(systems))
    except subprocess.TimeoutExpired:
        note("out of time: what was done is kept; go on with --resume")
        process.send_signal(signal.SIGINT)
        process.wait()
        return 1


def keep(folder: Path, out: Path) -> None:
    """The report's data as a result file, in one step."""
    report = json.loads((folder / "report.json").read_text())
    report["command"] = "python scripts/gpu_bench.py " + " ".join(sys.argv[1:])
    out.parent.mkdir(parents=True, exist_ok=True)
    building = out.with_suffix(".building")
    building.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(building, out)
    note(f"wrote {out}")
    print(json.dumps(report["ratios"]))


def note(text: str) -> None:
    print(f"gpu-bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
