"""Pack what a GPU machine without a network lacks for scripts/gpu_first.py, in lots of wheels that fit a transfer.

    python scripts/gpu_wheels.py --lot-mib 62 --out build/gpu-wheels

For Linux on x86-64 with Python 3.12, PyTorch 2.11 (CUDA 13) and what else an image for PyTorch has. The packages are
requirements/cpu.txt less gpu-first.exclude, flashinfer of gpu.txt, and kernels that fit that PyTorch (gpu-first.txt),
in the locked versions, their hashes checked. What is large and not needed there is taken out of some wheels (STRIPPED).
Writes OUT/lot-1/*.whl, OUT/lot-2/*.whl ..., and prints their sizes. On the other machine, for each lot:

    python3 -m pip install --no-index --no-deps --target /tmp/site/lot-1 lot-1/*.whl
    export PYTHONPATH=/tmp/site/lot-1:$PYTHONPATH SGLANG_SKIP_SGL_KERNEL_VERSION_CHECK=1

SGLang asks for newer kernels, which do not load with PyTorch 2.11. Of those that it imports for the models that psserve
serves, these have all.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence, Set
from fnmatch import fnmatch
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
MIB = 2**20
OF_GPUS = frozenset(("flashinfer-python",))
"""What SGLang imports on a GPU alone, whatever PyTorch there is."""
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"),
)
STRIPPED = {
    # FlashAttention's and other kernels that Triton attention does without, and those of other GPUs than H100 and H200:
    "sglang_kernel": ("*/flash_ops.*", "*/infllm_ops.*", "*/flashmla_ops.*", "*/sm100/*"),
    # Sources of kernels for other cards, mixtures of experts, linear and sparse attention:
    "flashinfer_python": (
        *(f"flashinfer/data/csrc/{name}*" for name in ("blackwell_", "cake_", "experimental/", "fused_moe/")),
        *(f"flashinfer/data/csrc/{name}/*" for name in ("gdn", "kda")),
        "flashinfer/data/cutlass/examples/*",
    ),
    "nixl_cu13": ("nixl_ep_cu13/*",),  # exchange between experts
    "sglang": ("sglang/multimodal_gen/*",),  # pictures and films
}
"""Wheel -> files that are left out."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Pack wheels for a GPU machine without a network.")
    parser.add_argument("--lot-mib", type=float, default=62, help="most that a lot may hold [default: %(default)s]")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-wheels"), help="[default: %(default)s]")
    options = parser.parse_args()
    folder = options.out / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    if code := download(folder):
        return code
    for wheel in folder.glob("*.whl"):
        strip(wheel, STRIPPED.get(wheel.name.partition("-")[0], ()))
    too_large = [wheel for wheel in folder.glob("*.whl") if wheel.stat().st_size > options.lot_mib * MIB]
    if too_large:
        print(f"gpu-wheels: error: larger than a lot: {', '.join(path.name for path in too_large)}", file=sys.stderr)
        return 1
    sizes = {wheel: wheel.stat().st_size for wheel in folder.glob("*.whl")}
    for number, lot in enumerate(lots(sizes, int(options.lot_mib * MIB)), 1):
        place = options.out / f"lot-{number}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        print(f"{place}: {sum(sizes[wheel] for wheel in lot) / MIB:.1f} MiB in {len(lot)} wheels")
        for wheel in lot:
            print(f"  {sizes[wheel] / MIB:6.1f}  {wheel.name}")
            wheel.rename(place / wheel.name)
    return 0


def download(folder: Path) -> int:
    """Fetch all wheels with pip. Returns its exit status."""
    listed = folder.parent / "requirements.txt"
    listed.write_text(wanted())
    where = ["--python-version", "3.12", "--implementation", "cp", *(f"--platform={name}" for name in PLATFORMS)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--only-binary=:all:", *where, "--dest", str(folder), "--requirement", str(listed)]
    return subprocess.run(command, check=False).returncode


def wanted() -> str:
    """All packages as a file of requirements with hashes."""
    kept = without(read("cpu.txt"), excluded(read("gpu-first.exclude")))
    return kept + only(read("gpu.txt"), OF_GPUS) + read("gpu-first.txt")


def read(name: str) -> str:
    return (REQUIREMENTS / name).read_text()


def excluded(text: str) -> set[str]:
    """The names in a file of packages to leave out."""
    return {line for line in text.splitlines() if line and not line.startswith("#")}


def without(lock: str, names: Set[str]) -> str:
    """A lock file less some packages. Raises ValueError if it has not got one of them."""
    return "".join(entry for name, entry in entries(lock, names) if name not in names)


def only(lock: str, names: Set[str]) -> str:
    """Those packages of a lock file. Raises ValueError if it has not got one of them."""
    return "".join(entry for name, entry in entries(lock, names) if name in names)


def entries(lock: str, names: Set[str]) -> list[tuple[str, str]]:
    """The packages of a lock file by name. Raises ValueError if it has not got one of `names`."""
    found = [(entry.partition("==")[0], entry) for entry in re.split(r"^(?=\S)", lock, flags=re.MULTILINE)]
    if missing := names - {name for name, _ in found}:
        raise ValueError(f"the lock file has no {', '.join(sorted(missing))}")
    return found


def strip(wheel: Path, patterns: Sequence[str]) -> None:
    """Take files out of a wheel, and out of its list of files. Nothing to do without patterns."""
    if not patterns:
        return
    smaller = wheel.with_suffix(".building")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(smaller, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            if _matches(entry.filename, patterns):
                continue
            content = old.read(entry)
            new.writestr(entry, _without_rows(content, patterns) if _is_record(entry.filename) else content)
    smaller.replace(wheel)


def lots(sizes: dict[Path, int], most: int) -> list[list[Path]]:
    """Wheels in as few lots of at most `most` bytes as filling them with the largest first makes."""
    found: list[list[Path]] = []
    for wheel in sorted(sizes, key=lambda path: (-sizes[path], path.name)):
        room = (lot for lot in found if sum(sizes[other] for other in lot) + sizes[wheel] <= most)
        lot = next(room, None)
        if lot is None:
            found.append([wheel])
        else:
            lot.append(wheel)
    return found


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _is_record(name: str) -> bool:
    return name.endswith(".dist-info/RECORD")


def _without_rows(record: bytes, patterns: Sequence[str]) -> bytes:
    kept = io.StringIO()
    rows = csv.reader(io.StringIO(record.decode()))
    csv.writer(kept, lineterminator="\n").writerows(row for row in rows if row and not _matches(row[0], patterns))
    return kept.getvalue().encode()


if __name__ == "__main__":
    sys.exit(main())
