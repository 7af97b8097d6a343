"""The CPU table: psserve and its alternatives side by side on two cores (`make bench`).

    python scripts/bench_cpu.py                                      docs/results/bench-cpu.json
    python scripts/bench_cpu.py --modules 8 --out /tmp/eight.json    eight modules
    python scripts/bench_cpu.py --resume                             go on with what was interrupted

Builds a zoo of random weights, large enough that reading prompts is most of the work, has `psserve bench compare` run
the systems in turns, and keeps its report's data. docs/benchmarks.md tells the method.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from measuring.comparison import (
    ROOT,
    add_options,
    bench_zoo,
    compare,
    comparison,
    keep,
    measurement,
    note_call,
    parsed,
)

from psserve.bench.result import read_results

SHAPE = {
    "hidden_size": 1_024,
    "intermediate_size": 4_096,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 4_096,
}
"""31 million parameters in few layers: what Python costs a layer is no part of the question. In float32 a token's KV
cache is 4 KiB."""
POOL = 4_096
"""KV tokens of each server of the paper's baseline: some four sessions' contexts, as its GPUs had room for some forty.
psserve's prefill server has as much as the baseline's together."""
LONGEST = 3_072
WORKLOADS = {
    "reflexion": ("--workload", "reflexion", "--scale", "0.125", "--output-tokens", "32~0.5"),
    "react": ("--workload", "react", "--turns", "12", "--scale", "0.125", "--output-tokens", "32~0.5"),
}
"""The presets at an eighth of their lengths, and answers at a fifth of that: on a CPU a decoded token costs more than
ten times what a prefilled one does, on the same cores."""


def main() -> int:
    options, folder = measurement(parse, folder_of)
    zoo = bench_zoo(options.work / f"zoo-{options.modules}", options.modules, SHAPE)
    note_call(options, folder)
    if (code := compare(new_comparison(options, zoo, folder))) != 0:
        return code
    keep(folder, options.out, lambda results: {"cpu_split": cpu_split(results)})
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The CPU table.")
    add_options(
        parser,
        systems="shared,disaggregated,colocated,single",
        concurrency="8",
        sessions=12,
        repeats=3,
        work=ROOT / "build" / "bench-cpu",
        out=ROOT / "docs" / "results" / "bench-cpu.json",
    )
    parser.add_argument("--workload", choices=list(WORKLOADS), default="reflexion", help="[default: %(default)s]")
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="more options of bench compare, last")
    return parsed(parser, arguments)


def folder_of(options: argparse.Namespace) -> Path:
    return Path(options.work / f"{options.workload}-{options.modules}")


def new_comparison(options: argparse.Namespace, zoo: Path, folder: Path) -> list[str]:
    """The arguments of `psserve bench compare`. The first session of each run is warm-up."""
    return comparison(
        options,
        zoo,
        folder,
        *("--device", "cpu", *WORKLOADS[options.workload], "--think-secs", "0", "--warmup", "1"),
        *("--kv-tokens", str(2 * options.modules * POOL), "--context-length", str(LONGEST)),
        last=options.extra,
    )


KINDS = {"prefill": "prefill", "decode": "decode", "server": "prefill_and_decode", "router": "front", "front": "front"}
"""By the first word of a process's name."""


def cpu_split(results: Path) -> dict[str, dict[str, float]]:
    """System -> kind of process -> CPU seconds of a run, the mean over its runs."""
    runs: dict[str, list[dict[str, float]]] = {}
    for line in read_results(results):
        ours = line["psserve"]
        if ours["counters"] is not None and not ours["partial"]:
            runs.setdefault(ours["system"], []).append(by_kind(ours["counters"]["cpu_s"]))
    return {
        system: {kind: round(fmean(run.get(kind, 0.0) for run in of), 2) for kind in sorted({k for r in of for k in r})}
        for system, of in runs.items()
    }


def by_kind(cpu_s: Mapping[str, float]) -> dict[str, float]:
    """CPU seconds by kind of process, from those by process name (`prefill-0`, `decode-math-0`, `front`)."""
    kinds: dict[str, float] = {}
    for name, seconds in cpu_s.items():
        kind = KINDS[name.partition("-")[0]]
        kinds[kind] = kinds.get(kind, 0.0) + seconds
    return kinds


if __name__ == "__main__":
    sys.exit(main())
