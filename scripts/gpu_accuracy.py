"""Accuracy over a larger base on a borrowed GPU, in pieces of ten minutes: each goes on where the one before ended.

    python scripts/gpu_accuracy.py --state STATE --out $OUT --minutes 9 -- --base medium --ranks 8 16 64 128 0
    python scripts/gpu_accuracy.py --state STATE --out OUT -- --base tiny      a dry run, on a CPU

A piece unpacks what the last one left in STATE (an empty folder, in the first), runs scripts/fine_tunes.py with the
options after `--` until it has finished or the time is over, and packs the base and the scores into files of at most
15 MiB in OUT, to be the next piece's STATE. A base or a fine-tune that was cut off is made anew: choose --base-share
and --share so that each fits into a piece. Exit status 0 if all is done, 75 if another piece is needed, else
fine_tunes.py's.
"""

from __future__ import annotations

import argparse
import io
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

PART_BYTES = 15 << 20
PARTS = "state-*.part"
MOST_PARTS = 4
"""A piece sends back 64 MiB at most."""
KEPT = ("base/*", "seed-*/*/*-*.json", "seed-*/*/made-of", "fine-tunes.json")
"""What goes on, in the folder that fine_tunes.py works in."""
UNFINISHED = 75
GRACE_S = 30.0
"""After an interrupt, which training obeys at the end of a step."""


def main(arguments: Sequence[str]) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what runs in the background ignore it
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, required=True, help="folder with the files of the piece before, or empty")
    parser.add_argument("--out", type=Path, required=True, help="folder for those of the next")
    parser.add_argument("--minutes", type=float, default=9.0, help="of the training, packing comes after")
    parser.add_argument("options", nargs="*", metavar="-- OPTION", help="of scripts/fine_tunes.py")
    asked = parser.parse_args(arguments)
    if problem := wrong_state(asked.state):
        parser.error(f"--state {asked.state}: {problem}")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        unpack(asked.state, work)
        script = Path(__file__).with_name("fine_tunes.py")
        command = [sys.executable, str(script), "--work", folder, "--out", f"{folder}/fine-tunes.json"]
        status = run([*command, *asked.options], asked.minutes * 60)
        pack(work, asked.out)
    return status


def wrong_state(state: Path) -> str | None:
    """Why the folder can be that of no piece, so that a mistyped one does not begin anew; None if it can."""
    if not state.is_dir():
        return "no such folder: the first piece takes an empty one"
    if any(state.iterdir()) and not any(state.glob(PARTS)):
        return f"holds no {PARTS}, and is not empty"
    return None


def run(command: Sequence[str], seconds: float) -> int:
    """The command's exit status, UNFINISHED if it had to be ended after `seconds`."""
    process = subprocess.Popen(command)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return UNFINISHED


def unpack(state: Path, work: Path) -> None:
    """Put what a piece has left in `state` into `work`."""
    packed = b"".join(part.read_bytes() for part in sorted(state.glob(PARTS)))
    if packed:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(work, filter="data")


def pack(work: Path, out: Path) -> None:
    """Write what goes on into files of `out`; SystemExit if it is more than a piece sends back."""
    archived = io.BytesIO()
    with tarfile.open(fileobj=archived, mode="w") as archive:
        for pattern in KEPT:
            for path in sorted(work.glob(pattern)):
                archive.add(path, path.relative_to(work))
    packed = archived.getvalue()
    parts = [packed[at : at + PART_BYTES] for at in range(0, len(packed), PART_BYTES)]
    if len(parts) > MOST_PARTS:
        raise SystemExit(f"{len(packed) >> 20} MiB are more than a piece sends back: choose a smaller base")
    out.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts):
        (out / f"state-{number:02}.part").write_bytes(part)
    if (work / "fine-tunes.json").exists():
        (out / "fine-tunes.json").write_bytes((work / "fine-tunes.json").read_bytes())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
