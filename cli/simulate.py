"""`psserve simulate`: the benchmark's systems at any size, without a GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from psserve.contracts.router_config import POLICIES, PolicyName
from psserve.errors import UsageError

from .options import json_option, typed_options
from .workload_options import workload_options

if TYPE_CHECKING:
    from psserve.bench.simulator.system import SystemName
    from psserve.bench.workloads.choice import WorkloadChoice

SYSTEMS: tuple[SystemName, ...] = ("shared", "one-pool", "disaggregated", "colocated", "lora", "single")
DEFAULT_SYSTEMS: tuple[SystemName, ...] = ("shared", "disaggregated", "colocated", "lora", "single")

PUBLISHED = ("model", "hardware", "link_gb_s")
"""Parameters that say which published figures costs are from."""
OF_PAIRS = ("decode_policy", "decode_kv_tokens", "link_gb_s")
"""Parameters of systems whose prompts are read by one server and answered by another."""


@click.command("simulate")
@click.option(
    "--system", "systems", multiple=True, type=click.Choice(SYSTEMS), help="Repeatable [default: all but one-pool]."
)
@click.option("--model", default="Llama-3.1-8B", show_default=True, help="Its shape: a name of docs/simulator.md.")
@click.option("--hardware", default="A100-80G", show_default=True, help="A100-80G, H100 or H200: published figures.")
@click.option("--calibrate", type=click.Path(path_type=Path), help="Records of measured runs: their costs instead.")
@click.option("--gpus", default="4x4", show_default=True, metavar="PxD", help="Prefill x decode servers of a cell.")
@click.option("--modules", default="4", show_default=True, help="How many, or several numbers, as in 1,4,16, or names.")
@click.option("--cells", type=click.IntRange(1), default=1, show_default=True, help="Equal parts with a router each.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Cells simulated at a time.")
@click.option("--concurrency", help="Sessions at a time, or several numbers, as in 8,16,32 [default: 16].")
@click.option("--rates", help="Sessions that arrive a second: an open loop, or several, as in 0.5,1.")
@workload_options()
@click.option("--warmup", type=click.IntRange(0), default=0, show_default=True, help="First sessions do not count.")
@click.option("--prefill-policy", type=click.Choice(POLICIES), default="prefix", show_default=True)
@click.option("--decode-policy", type=click.Choice(POLICIES), default="session", show_default=True)
@click.option(
    "--routers", type=click.IntRange(1), default=1, show_default=True, help="Of a cell, each with its sessions."
)
@click.option("--kv-tokens", type=click.IntRange(1), help="KV pool of a server [default: what its memory holds].")
@click.option("--decode-kv-tokens", type=click.IntRange(1), help="Of a decode server [default: the same].")
@click.option("--link-gb-s", type=click.FloatRange(0, min_open=True), help="KV transfer [default: NVLink, one way].")
@click.option("--cores", type=click.FloatRange(0, min_open=True), help="All servers share so many CPU cores.")
@click.option("--slo", help="Objective for goodput in ms, as in ttft=2000,tpot=50,e2e=30000.")
@click.option("--keep", type=click.IntRange(1), default=10_000, show_default=True, help="Sessions with percentiles.")
@click.option("--out", type=click.Path(path_type=Path), help="Add the result lines to this file (JSON Lines).")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    systems: tuple[SystemName, ...],
    model: str,
    hardware: str,
    calibrate: Path | None,
    gpus: str,
    modules: str,
    cells: int,
    jobs: int,
    concurrency: str | None,
    rates: str | None,
    workload: WorkloadChoice,
    warmup: int,
    prefill_policy: PolicyName,
    decode_policy: PolicyName,
    routers: int,
    kv_tokens: int | None,
    decode_kv_tokens: int | None,
    link_gb_s: float | None,
    cores: float | None,
    slo: str | None,
    keep: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Simulate agent sessions on systems of any size, in the words of psserve bench. Nothing is measured.

    \b
    psserve simulate --concurrency 8,16,32,64 --out simulated.jsonl     # the paper's set-up; then psserve bench report
    psserve simulate --system shared --hardware H200 --gpus 2x6 --modules 6 --rates 1,2,4
    psserve simulate --system shared --gpus 16x16 --cells 64 --modules 16 --rates 200 --sessions 1000000
    """
    import json
    import shlex

    from psserve.bench.metrics import Slo
    from psserve.bench.result import append_result
    from psserve.bench.simulator.asked import (
        Asked,
        SimulationProgress,
        fleet_loads,
        gpus_of,
        measured,
        module_lists,
        published,
        run_all,
    )
    from psserve.bench.simulator.line import show_calibration, show_lines
    from psserve.bench.simulator.system import PAIRED
    from psserve.console import console

    if calibrate is not None and (published_ones := typed_options(ctx, of=PUBLISHED)):
        raise UsageError(f"{', '.join(published_ones)}: not with --calibrate, whose records say what things cost")
    chosen = systems or DEFAULT_SYSTEMS
    if not PAIRED.intersection(chosen) and (of_pairs := typed_options(ctx, of=OF_PAIRS)):
        raise UsageError(f"{', '.join(of_pairs)}: no system of {', '.join(chosen)} has servers that only decode")
    names = module_lists(modules)
    prefill, decode = gpus_of(gpus)
    if calibrate is None:
        basis = published(model, hardware, kv_tokens, decode_kv_tokens, link_gb_s)
    else:
        basis = measured(calibrate, kv_tokens, decode_kv_tokens)
    asked = Asked(
        systems=chosen,
        basis=basis,
        prefill=prefill,
        decode=decode,
        modules=names,
        cells=cells,
        loads=fleet_loads(workload, concurrency, rates, warmup, names[0]),
        prefill_policy=prefill_policy,
        decode_policy=decode_policy,
        routers=routers,
        cores=cores,
        slo=Slo.parse(slo) if slo else None,
        keep=keep,
        jobs=jobs,
        command=shlex.join(["psserve", *sys.argv[1:]]),
    )
    if basis.calibration is not None:
        show_calibration(basis.calibration, console(sys.stderr))
    lines = []
    with SimulationProgress(sys.stderr) as progress:
        for line in run_all(asked, progress):
            lines.append(line)
            if out is not None:
                append_result(out, line)
    if as_json:
        click.echo(json.dumps(lines, indent=2))
    else:
        show_lines(lines, console())
