"""Simulated against measured: `python scripts/validate_simulator.py FOLDER [--cores 1.4] [--json FILE]`.

FOLDER is what `psserve bench compare --concurrency 1,2,4 --out FOLDER` has written, with spans of its servers. Costs
are calibrated by the runs with one session at a time; the other loads are predicted. docs/simulator.md has the result.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from psserve.bench.compare.plan import ComparisonFolder, saved_arguments
from psserve.bench.simulator.system import SYSTEMS
from psserve.bench.simulator.validation import FIGURES, Resources, validate
from psserve.console import console, show, table
from psserve.errors import PsserveError
from psserve.fleet.plan.settings import CPU_CHUNK


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare simulated runs with measured ones.")
    parser.add_argument("folder", type=Path, help="of psserve bench compare")
    parser.add_argument("--kv-tokens", type=int, help="of a system's servers together [default: as compare was told]")
    parser.add_argument(
        "--cores",
        type=cores,
        default="2",
        help="that a system's servers share, as simulate's; 0: a device each; or as in shared=1,colocated=1.4",
    )
    parser.add_argument("--chunk", type=int, default=CPU_CHUNK, help="most tokens of a prefill batch")
    parser.add_argument("--prefill-servers", type=int, default=1, help="of shared")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE too")
    options = parser.parse_args()
    store = ComparisonFolder(options.folder)
    try:
        resources = Resources(
            kv_tokens=options.kv_tokens or told_kv_tokens(options.folder),
            cores=options.cores,
            chunk=options.chunk,
            prefill_servers=options.prefill_servers,
        )
        rows = validate(store.lines(), store.folder / "records", resources)
    except (PsserveError, OSError) as error:
        print(f"validate_simulator.py: error: {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    columns = ("system", ">modules", ">at a time", *(f">{name}: measured, simulated, error" for name in FIGURES))
    show(
        table(columns, ([row["system"], f"{row['modules']}", f"{row['concurrency']}", *cells(row)] for row in rows)),
        console(),
    )
    return 0


def cores(text: str) -> dict[str, float]:
    """1.4 for all systems, or shared=1,colocated=1.4. A system with 0, or not named, has a device for each server."""
    told = dict(part.split("=") for part in text.split(",")) if "=" in text else dict.fromkeys(SYSTEMS, text)
    if unknown := told.keys() - set(SYSTEMS):
        raise argparse.ArgumentTypeError(f"no such system: {', '.join(sorted(unknown))} (of {', '.join(SYSTEMS)})")
    return {system: float(count) for system, count in told.items() if float(count)}


def told_kv_tokens(folder: Path) -> int:
    """`psserve bench compare`'s own --kv-tokens."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--kv-tokens", type=int, default=65_536)
    return parser.parse_known_args(saved_arguments(folder))[0].kv_tokens


def cells(row: dict) -> list[str]:
    return [
        f"{row[name]['measured']:.3f}, {row[name]['simulated']:.3f}, {row[name]['error_pct']:+.1f}%" for name in FIGURES
    ]


if __name__ == "__main__":
    sys.exit(main())
