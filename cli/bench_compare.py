"""`psserve bench compare`: systems side by side."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psserve.errors import BenchError, UsageError

from .options import json_option, typed_options, zoo_option
from .system_options import check_system_options, system_options
from .workload_options import workload_options

if TYPE_CHECKING:
    from psserve.bench.compare.run import Comparison
    from psserve.bench.systems.system import SystemSpec


class Resumable(click.Command):
    """A command that `--resume DIR` runs again with the arguments that DIR was made with."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["arguments"] = list(args)
        option, *folder = args[0].split("=", 1) if len(args) == 1 else args or [""]
        if option == "--resume" and len(folder) == 1:
            from psserve.bench.compare.plan import saved_arguments

            ctx.meta["resumed"] = Path(folder[0])
            args = saved_arguments(Path(folder[0]))
            ctx.meta["arguments"] = list(args)  # click empties what it parses
        return super().parse_args(ctx, args)


@click.command("compare", cls=Resumable)
@click.option("--system", "systems", multiple=True, help="Start and measure it (repeatable) [shared, disaggregated].")
@click.option("--against", multiple=True, metavar="NAME=URL", help="Measure what is up there, too (repeatable).")
@click.option("--models", help="Modules, as in math,code [default: the zoo's].")
@click.option("--modules", "sizes", help="How many of them take turns, as in 1,2,4,8 [default: all].")
@click.option("--concurrency", help="Sessions at a time, as in 1,2,4,8 [default: 4].")
@click.option("--rate", help="Sessions that arrive a second, as in 0.1,0.2; --concurrency then limits them.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Of everything.")
@click.option("--resident", is_flag=True, help="Keep all systems up side by side, instead of one at a time.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for results and report [default: comparison].")
@click.option("--resume", is_flag=False, metavar="DIR", help="Go on with what was interrupted there. Goes alone.")
@workload_options(sweep=True)
@click.option("--warmup", type=click.IntRange(0), default=1, show_default=True, help="Sessions before what counts.")
@click.option("--slo", "slo_text", help="Objective for goodput in ms, as in ttft=2000,tpot=50,e2e=30000.")
@click.option("--timeout-secs", type=click.FloatRange(0, min_open=True), default=600, show_default=True)
@system_options
@json_option
@zoo_option
@click.pass_context
def command(ctx: click.Context, /, out: Path | None, resume: str | None, as_json: bool, **options: Any) -> None:
    """Run systems in turns (A B A B) under several loads, and write a report with ratios and pictures.

    Systems that psserve starts: shared (psserve), one-pool (psserve with one KV pool), disaggregated (each module its
    own prefill and decode server), colocated (each module one ordinary server), lora, single. All get the same modules,
    KV tokens and cores.

    \b
    psserve bench compare --concurrency 1,2,4,8 --out results
    psserve bench compare --system shared --system colocated --modules 1,2,4,8 --workload reflexion
    psserve bench compare --workload four-agents-react --rate 1 --concurrency 2,4,8
    psserve bench compare --system shared --against vllm=http://127.0.0.1:8000 --rate 0.1,0.2
    psserve bench compare --resume results
    """
    from psserve.bench.compare.plan import ComparisonFolder
    from psserve.bench.compare.run import CompareProgress, check_sessions, run_comparison
    from psserve.bench.report.summary import read_points
    from psserve.bench.report.write import write_report

    from .bench_shown import show_report

    if resume is not None:
        beside = ", ".join(typed_options(ctx, but=("resume",))) or "another one"
        raise UsageError(f"--resume DIR goes alone, not with {beside}: the rest is as it was")
    command_line = shlex.join(["psserve", "bench", "compare", *ctx.meta["arguments"]])
    asked = _comparison(ctx, command_line, **options)
    check_sessions(asked)
    resumed: Path | None = ctx.meta.get("resumed")
    store = (
        ComparisonFolder(resumed)
        if resumed
        else ComparisonFolder.create(out or Path("comparison"), ctx.meta["arguments"])
    )
    with CompareProgress(sys.stderr, len(asked.plan.runs), len(store.done())) as progress:
        outcome = run_comparison(asked, store, progress)
    if outcome.interrupted:
        click.echo(f"psserve: interrupted; go on with: psserve bench compare --resume {store.folder}", err=True)
    if not store.done():
        raise BenchError("; ".join(outcome.failures) or "no run was done: there is nothing to report")
    show_report(write_report(read_points([store.results]), store.folder), as_json)
    if outcome.failures:
        raise BenchError(f"some runs are missing: {'; '.join(outcome.failures)}")
    if outcome.interrupted:
        ctx.exit(1)


def _comparison(
    ctx: click.Context,
    command_line: str,
    *,
    systems: tuple[str, ...],
    against: tuple[str, ...],
    models: str | None,
    sizes: str | None,
    concurrency: str | None,
    rate: str | None,
    repeats: int,
    resident: bool,
    workload: Any,
    warmup: int,
    slo_text: str | None,
    timeout_secs: float,
    spec: Callable[[Path, tuple[str, ...]], SystemSpec],
    zoo_dir: Path | None,
) -> Comparison:
    """What was asked for, checked as far as that can be done without starting anything."""
    import os
    import secrets

    from psserve.bench.compare.plan import Plan, loads_of, numbers
    from psserve.bench.compare.run import Comparison
    from psserve.bench.compare.systems import started_names, systems_of
    from psserve.bench.load.options import LoadOptions
    from psserve.bench.metrics import Slo

    key = os.environ.get("PSSERVE_API_KEY")
    names = started_names(systems, against)
    check_system_options(ctx, names)
    chosen = tuple(name.strip() for name in models.split(",")) if models else ()
    made = systems_of(names, against, chosen, key, spec, zoo_dir)
    counts = numbers("--modules", sizes or str(len(made.modules)), int)
    if max(counts) > len(made.modules):
        raise UsageError(f"--modules {sizes}: there are only {len(made.modules)}: {', '.join(made.modules)}")
    return Comparison(
        plan=Plan(
            systems=(*names, *made.urls), sizes=tuple(counts), loads=loads_of(concurrency, rate), repeats=repeats
        ),
        systems=made,
        workload=workload,
        load=LoadOptions(warmup=warmup, timeout_s=timeout_secs, api_key=key, salt=secrets.token_hex(4)),
        slo=Slo.parse(slo_text) if slo_text else None,
        resident=resident,
        command=command_line,
    )
