"""What bench_cpu.py, bench_paper.py and gpu_bench.py do alike: a zoo of random weights, `psserve bench compare`, its
report kept.

A measurement has a folder. There is all that `psserve bench compare` keeps, and in calls.jsonl the arguments of each
call of the script, so that --resume goes on with what the first one asked for, and the result tells all commands.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PSSERVE = "import sys; from psserve.cli.main import main; sys.argv[0] = 'psserve'; main()"
RANK = 16
CALLS = "calls.jsonl"
ANEW = ("resume", "work", "out", "minutes")
"""Options that may be other ones in each call of a measurement."""
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def add_options(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """The options of both; `defaults` are of systems, concurrency, sessions, repeats, work and out."""
    add = parser.add_argument
    add("--modules", type=int, default=4, help="[default: %(default)s]")
    add("--systems", help="of psserve bench compare [default: %(default)s]")
    add("--concurrency", help="sessions at a time, as in 2,4,8 [default: %(default)s]")
    add("--sessions", type=int, help="of each run [default: %(default)s]")
    add("--repeats", type=int, help="[default: %(default)s]")
    add("--work", type=Path, help="for zoo and results [default: %(default)s]")
    add("--out", type=Path, help="result file [default: %(default)s]")
    add("--resume", action="store_true", help="go on with what was interrupted, as it was asked for")
    parser.set_defaults(**defaults)


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The options, and as `given` those of them that the user gave."""
    options = parser.parse_args(arguments)
    unset = argparse.Namespace(**dict.fromkeys(vars(options)))
    given = vars(parser.parse_args(arguments, unset))
    options.given = {name: value for name, value in given.items() if value is not None}
    return options


def measurement(
    parse: Callable[[list[str]], argparse.Namespace], folder_of: Callable[[argparse.Namespace], Path]
) -> tuple[argparse.Namespace, Path]:
    """The options and the folder of the measurement that this call of the script begins, or goes on with."""
    options = parse(sys.argv[1:])
    folder = folder_of(options)
    return (resumed(parse, options, folder) if options.resume else options), folder


def resumed(
    parse: Callable[[list[str]], argparse.Namespace], options: argparse.Namespace, folder: Path
) -> argparse.Namespace:
    """The options of the measurement's first call, with what may be said anew. SystemExit for any other option."""
    if not (folder / CALLS).exists():
        raise SystemExit(f"{folder} holds nothing to go on with: there is no {CALLS}")
    first = vars(parse(calls_in(folder)[0]))
    changed = [name for name, value in options.given.items() if name not in ANEW and value != first[name]]
    if changed:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
        raise SystemExit(f"--resume goes on with what was asked for first: leave out {names}")
    return argparse.Namespace(**first | {name: options.given[name] for name in ANEW if name in options.given})


def note_call(options: argparse.Namespace, folder: Path) -> None:
    """Keep this call's arguments. One that is not to resume has the folder to itself: an earlier one is set aside."""
    if not options.resume:
        set_aside(folder)
        folder.mkdir(parents=True)
    with (folder / CALLS).open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")


def set_aside(folder: Path) -> None:
    """Keep an earlier measurement under a name with the time of its last change."""
    if folder.exists():
        changed = datetime.fromtimestamp(folder.stat().st_mtime)
        folder.rename(folder.with_name(f"{folder.name}-{changed:%Y%m%d-%H%M%S}"))


def calls_in(folder: Path) -> list[list[str]]:
    """The arguments of each call, in order."""
    return [json.loads(line) for line in (folder / CALLS).read_text().splitlines()]


def bench_zoo(path: Path, modules: int, shape: dict[str, Any], device: str = "cpu") -> Path:
    """The zoo at `path`, of a base and m0, m1, ..., built unless it is there already."""
    from psserve.zoo.synthetic.zoo import build_zoo

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        build_zoo(path, modules=module_names(modules), device=device, **shape)
    return path


def module_names(count: int) -> list[str]:
    return [f"m{number}" for number in range(count)]


def adapter_of(zoo: Path, module: str) -> Path:
    """A folder with a random LoRA adapter of all projections, in PEFT's layout, made unless it is there already.

    It is not the module: only its cost is of interest.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    folder = zoo / "adapters" / module
    if folder.exists():
        return folder
    tensors: dict[str, torch.Tensor] = {}
    with safe_open(zoo / "base" / "model.safetensors", framework="pt") as base:
        for name in (name for name in base.keys() if name.split(".")[-2] in TARGETS):  # noqa: SIM118 # no mapping
            rows, columns = base.get_slice(name).get_shape()
            layer = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{layer}.lora_A.weight"] = torch.randn(RANK, columns) / columns**0.5
            tensors[f"{layer}.lora_B.weight"] = torch.randn(rows, RANK) / rows**0.5
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": list(TARGETS), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def comparison(
    options: argparse.Namespace, zoo: Path, folder: Path, *arguments: str, last: Sequence[str] = ()
) -> list[str]:
    """The arguments of `psserve bench compare`: of what `options` says, and others; those that come `last` win."""
    if _begun(options, folder):
        return ["--resume", told(folder)]
    return [
        *("--zoo", told(zoo), "--out", told(folder), *arguments),
        *(("--concurrency", options.concurrency) if options.concurrency else ()),
        *("--sessions", str(options.sessions), "--repeats", str(options.repeats)),
        *(part for system in options.systems.split(",") for part in ("--system", system)),
        *last,
    ]


def _begun(options: argparse.Namespace, folder: Path) -> bool:
    """Whether `psserve bench compare` is to go on in `folder`: it knows its options then."""
    from psserve.bench.compare.plan import SETTINGS

    return bool(options.resume) and (folder / SETTINGS).exists()


def compare(arguments: Sequence[str], within_s: float | None = None) -> int:
    """Run `psserve bench compare`. Returns its exit status, 1 if it ran out of time."""
    # -P: the current folder may be a checkout, whose psserve/ has no cli in it.
    command = [sys.executable, "-P", "-c", PSSERVE, "bench", "compare", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr)
    try:
        return process.wait(timeout=within_s)
    except subprocess.TimeoutExpired:
        print("out of time: what was done is kept; go on with --resume", file=sys.stderr)
        process.terminate()  # which it takes as Ctrl-C
        process.wait()
        return 1


def keep(folder: Path, out: Path, more: Callable[[Path], dict[str, Any]] = lambda results: {}) -> None:
    """Write the report's data to `out`, with the commands and what `more` makes of the results."""
    from psserve.zoo.disk.storage import write_atomically

    report = json.loads((folder / "report.json").read_text()) | more(folder / "results.jsonl")
    script = f"scripts/{Path(sys.argv[0]).name}"
    report["command"] = "; ".join(shlex.join(["python", script, *call]) for call in calls_in(folder))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, (json.dumps(report, indent=1) + "\n").encode())
    print(json.dumps(report["ratios"]))


def told(path: Path) -> str:
    """A path as it stands in the results: from the project's root, if it is in there."""
    path = path.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
