"""The CPU table: psserve and its alternatives side by side on two cores (`make bench`).

    python scripts/bench_cpu.py                                      docs/results/bench-cpu.json
    python scripts/bench_cpu.py --modules 8 --out /tmp/eight.json    eight modules
    python scripts/bench_cpu.py --resume                             go on with what was interrupted

Builds a zoo of random weights, large enough that reading prompts is most of the work, has `psserve bench compare` run
the systems in turns, and keeps its report's data. docs/benchmarks.md tells the method.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from measuring.bench_zoo import bench_zoo
from measuring.cpu_split import cpu_split

ROOT = Path(__file__).resolve().parent.parent
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
    options = parse(sys.argv[1:])
    modules = [f"m{number}" for number in range(options.modules)]
    folder = options.work / f"{options.workload}-{options.modules}"
    zoo = bench_zoo(options.work / f"zoo-{options.modules}", modules, SHAPE)
    if not options.resume:
        set_aside(folder)
    if (code := compare(options, zoo, folder, modules)) != 0:
        return code
    write(folder, options.out)
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The CPU table.")
    add = parser.add_argument
    add("--workload", choices=list(WORKLOADS), default="reflexion", help="[default: %(default)s]")
    add("--modules", type=int, default=4, help="[default: 4]")
    add("--systems", default="shared,disaggregated,colocated,single", help="[default: %(default)s]")
    add("--concurrency", default="8", help="sessions at a time, as in 2,4,8 [default: 8]")
    add("--sessions", type=int, default=12, help="of each run, the first one being warm-up [default: 12]")
    add("--repeats", type=int, default=3, help="[default: 3]")
    add("--work", type=Path, default=ROOT / "build" / "bench-cpu", help="for zoo and results [default: %(default)s]")
    add("--out", type=Path, default=ROOT / "docs" / "results" / "bench-cpu.json", help="[default: %(default)s]")
    add("--resume", action="store_true", help="go on with what was interrupted")
    add("--extra", nargs=argparse.REMAINDER, default=[], help="more options of `psserve bench compare`, last")
    return parser.parse_args(arguments)


def set_aside(folder: Path) -> None:
    """An earlier comparison is kept, under a name with the time of its last change."""
    if folder.exists():
        changed = datetime.fromtimestamp(folder.stat().st_mtime)
        folder.rename(folder.with_name(f"{folder.name}-{changed:%Y%m%d-%H%M%S}"))


def compare(options: argparse.Namespace, zoo: Path, folder: Path, modules: list[str]) -> int:
    """Run `psserve bench compare`. Returns its exit status."""
    arguments = ["--resume", told(folder)] if options.resume else new_comparison(options, zoo, folder, modules)
    command = [str(Path(sys.executable).with_name("psserve")), "bench", "compare", *arguments]
    return subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False).returncode


def new_comparison(options: argparse.Namespace, zoo: Path, folder: Path, modules: list[str]) -> list[str]:
    systems = options.systems.split(",")
    return [
        *("--zoo", told(zoo), "--out", told(folder), "--device", "cpu"),
        *(*WORKLOADS[options.workload], "--think-secs", "0"),
        *("--kv-tokens", str(2 * len(modules) * POOL), "--context-length", str(LONGEST)),
        *("--concurrency", options.concurrency, "--sessions", str(options.sessions)),
        *("--repeats", str(options.repeats), "--warmup", "1"),
        *(part for system in systems for part in ("--system", system)),
        *options.extra,
    ]


def told(path: Path) -> str:
    """As it stands in the results: from the project's root, if it is in there."""
    path = path.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def write(folder: Path, out: Path) -> None:
    """The report's data with the CPU's split, in one step."""
    report = json.loads((folder / "report.json").read_text())
    report["cpu_split"] = cpu_split(folder / "results.jsonl")
    report["command"] = "python scripts/bench_cpu.py " + " ".join(sys.argv[1:])
    out.parent.mkdir(parents=True, exist_ok=True)
    building = out.with_suffix(".building")
    building.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(building, out)
    print(json.dumps(report["ratios"]))


if __name__ == "__main__":
    sys.exit(main())
