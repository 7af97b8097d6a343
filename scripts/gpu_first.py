"""The first quarter of an hour on a GPU: does psserve serve right there, and what does it cost? No network.

    python scripts/gpu_first.py --out $OUT                Qwen3-0.6B shape, random weights, 1 prefill + 2 modules
    python scripts/gpu_first.py --only serving --shape qwen3-1.7b --out results
    python scripts/gpu_first.py --only serving --quantisation fp8-blocks --out results
    python scripts/gpu_first.py --dry-run --out /tmp/x    all of it on CPU, with tiny models

Parts, each a process with its own time limit, in this order:

    import       SGLang loads psserve's plugin; every function that it hooks is the tested one     import.json
    serving      20 answers against the Transformers reference, prompts of three and six chunks;   exactness.json
                 time and bytes of the hand-over of 1k, 4k and 16k tokens, the first sampled
                 request, the first with a grammar, idle CPU                                       handover.json
    early-send   the 20 answers again, with SGLang's early send of cached prefixes forced on       early-send.json
    adapters     40 answers of four LoRA adapters on one decode server, checked alike              adapters.json
    bench        agent sessions: psserve, then each module with servers of its own                 bench.json
    one-pool     with --only one-pool alone: `--transfer shared`, with CUDA graphs. The answers with
                 pages of 16 and 64; a hand-off of 8k tokens and the time of an answer's tokens
                 beside NIXL's; a prefill server that is killed while answers read its pool        one-pool.json

A part writes its files as soon as there is something to write; what a later part does, or whether it runs out of time,
changes nothing in them. first.json sums up after each part. Attention is Triton's unless --own-kernels says otherwise.
psserve need not be installed; scripts/gpu_wheels.py packs what a machine without a network lacks. docs/measuring.md
tells the method. Exit status 0 if every part passed, 1 if not, 2 if it cannot run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring.gpu_parts import LIMITS_S, ON_ITS_OWN, PARTS
from measuring.installation import importable
from measuring.quantised import METHODS
from measuring.shapes import SHAPES

ROOT = Path(__file__).resolve().parent.parent
STOP_S = 15
"""Before a part's limit, in seconds: it is asked to end, so that fleets stop and results are kept."""
DRY_RUN_PATIENCE = 4
"""A machine for dry runs may have much else to do."""
PACKAGES = (
    *("aiohttp", "blake3", "click", "jinja2", "msgspec", "numpy", "orjson", "prometheus_client", "psutil", "pydantic"),
    *("rich", "safetensors", "setproctitle", "tomli_w", "uvloop", "xxhash", "zmq", "zstandard"),
    *("nixl", "sglang", "tokenizers", "torch", "transformers"),
)
"""Without one of these nothing works; by import name."""


def main() -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what runs in the background ignore it
    options = parse(sys.argv[1:])
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        note(f"error: cannot import {', '.join(missing)}: install them first (scripts/gpu_wheels.py packs them)")
        return 2
    with importable(ROOT), work_folder(options.work) as options.work:
        options.out.mkdir(parents=True, exist_ok=True)
        if options.part:
            from psserve.bench.machine import describe

            PARTS[options.part](options, describe())
            return 0
        return run_parts(options)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The first quarter of an hour on a GPU.")
    add = parser.add_argument
    add("--out", type=Path, default=ROOT / "docs" / "results" / "gpu-first", help="folder for results")
    all_but = f"parts to do (repeatable) [default: all but {', '.join(ON_ITS_OWN)}]"
    add("--only", action="append", choices=list(PARTS), help=all_but)
    add("--minutes", type=float, default=15.0, help="most that all parts may take [default: %(default)s]")
    add("--patience", type=float, help=f"times every limit [default: 1, {DRY_RUN_PATIENCE} for a dry run]")
    add("--shape", choices=list(SHAPES), default="qwen3-0.6b", help="[default: %(default)s]")
    add("--dry-run", action="store_true", help="on CPU, with the tiny shape and little work")
    add("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto", help="to serve with")
    add("--quantisation", choices=METHODS, help="of the base and all modules but the first [default: none]")
    add("--kv-cache-dtype", choices=["auto", "fp8_e4m3"], default="auto")
    add("--own-kernels", action="store_true", help="attention, sampling and graphs as SGLang chooses them")
    add("--engine-arg", action="append", default=[], metavar="ARG", help="one more argument for SGLang (repeatable)")
    add("--work", type=Path, help="where checkpoints are built [default: a temporary folder]")
    add("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    add("--limit", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.out = options.out.resolve()
    options.device, options.stop_s = "cuda", STOP_S
    if options.dry_run:
        options.device, options.shape = "cpu", "tiny"
    options.patience = options.patience or (DRY_RUN_PATIENCE if options.dry_run else 1)
    return options


def run_parts(options: argparse.Namespace) -> int:
    """Run each part as a process, and sum up in first.json after each."""
    ends = time.monotonic() + 60 * options.minutes * options.patience
    summary: dict[str, Any] = {"command": " ".join(sys.argv), "parts": {}}
    for name in options.only or [part for part in PARTS if part not in ON_ITS_OWN]:
        limit = min(LIMITS_S[name] * options.patience, ends - time.monotonic())
        note(f"--- {name}: at most {limit:.0f} s")
        summary["parts"][name] = found = run_part(name, limit, options)
        note(f"{name}: {found['state']} after {found['seconds']} s")
        summary["passed"] = all(part["state"] == "passed" for part in summary["parts"].values())
        (options.out / "first.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary))
    return 0 if summary["passed"] else 1


def run_part(name: str, limit: float, options: argparse.Namespace) -> dict[str, Any]:
    """State, seconds and limit of one part; the end of what it printed, unless it passed."""
    started = time.monotonic()
    if limit <= STOP_S:
        return {"state": "no time left", "seconds": 0.0, "limit_s": round(limit)}
    command = [sys.executable, __file__, *sys.argv[1:]]
    command += ["--work", str(options.work), "--part", name, "--limit", str(limit)]
    with tempfile.TemporaryFile("w+") as log:
        part = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            in_time = ended(part, limit - STOP_S)
        finally:  # an interrupt reaches this process alone
            end(part)
        log.seek(0)
        tail = log.read()[-4_000:]
    state = "out of time" if not in_time else "passed" if part.returncode == 0 and passed(name, options) else "failed"
    found = {"state": state, "seconds": round(time.monotonic() - started, 1), "limit_s": round(limit)}
    return found if state == "passed" else found | {"tail": tail}


def end(part: subprocess.Popen[bytes]) -> None:
    """Ask a part that still runs to end, so that its fleet stops and its results are kept; kill what is left of it."""
    if part.poll() is None:
        part.send_signal(signal.SIGINT)
        ended(part, STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(part.pid, signal.SIGKILL)  # the fleet's servers end with their supervisor
    part.wait()


def passed(name: str, options: argparse.Namespace) -> bool:
    """What a part's own files say."""
    files = ("exactness", "handover") if name == "serving" else (name,)
    return all(json.loads((options.out / f"{file}.json").read_text())["passed"] for file in files)


def ended(process: subprocess.Popen[bytes], within_s: float) -> bool:
    try:
        process.wait(timeout=within_s)
    except subprocess.TimeoutExpired:
        return False
    return True


@contextlib.contextmanager
def work_folder(wanted: Path | None) -> Iterator[Path]:
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted
        return
    with tempfile.TemporaryDirectory(prefix="psserve-gpu-first-") as directory:
        yield Path(directory)


def note(text: str) -> None:
    print(f"gpu-first: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
