"""`psserve bench`: agent sessions against servers that are up, and what came of them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from psserve.errors import UsageError

from .options import json_option, typed_options, zoo_option
from .output import one_line
from .workload_options import workload_options

if TYPE_CHECKING:
    from psserve.bench.systems.system import Target
    from psserve.bench.workloads.choice import WorkloadChoice

SUBCOMMANDS = {
    "compare": ("psserve.cli.bench_compare:command", "Run systems side by side, and write a report."),
    "report": ("psserve.cli.bench_report:command", "Write a report of results that are there."),
    "trace": ("psserve.cli.bench_trace:command", "Show where the time of a session's requests went."),
}


class BenchGroup(click.Group):
    """Imports a subcommand's file only when it is invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        module, _, attribute = SUBCOMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in SUBCOMMANDS.items()])


@click.group("bench", cls=BenchGroup, invoke_without_command=True)
@click.option("--url", "urls", multiple=True, help="Server, or MODULE=URL (repeatable) [default: the zoo's fleet].")
@click.option("--models", help="Modules that take turns, as in math,code [default: all that are served].")
@click.option("--api-key", envvar="PSSERVE_API_KEY", help="Key to send [also: $PSSERVE_API_KEY].")
@click.option("--system", help="What the result calls the servers [default: shared for the zoo's fleet, else url].")
@workload_options(endless=True)
@click.option("--concurrency", type=click.IntRange(1), help="Sessions at a time: a closed loop [default: 4].")
@click.option("--duration-secs", type=click.FloatRange(0, min_open=True), help="Start no session later than this.")
@click.option("--warmup", type=click.IntRange(0), default=0, show_default=True, help="Sessions before what counts.")
@click.option(
    "--api",
    type=click.Choice(("chat", "completions")),
    default="chat",
    show_default=True,
    help="completions: prompts of exact lengths, as token ids.",
)
@click.option("--tokenizer", type=click.Path(path_type=Path), help="The model's tokenizer.json or directory.")
@click.option(
    "--timeout-secs",
    type=click.FloatRange(0, min_open=True),
    default=600,
    show_default=True,
    help="Silence that fails a request.",
)
@click.option("--salt", help="Same salt, same texts: what an earlier run left in caches is found [default: a new one].")
@click.option("--slo", "slo_text", help="Objective for goodput in ms, as in ttft=2000,tpot=50,e2e=30000.")
@click.option("--tag", help="A word of yours for the result.")
@click.option("--out", type=click.Path(path_type=Path), help="Add the result line to this file (JSON Lines).")
@click.option(
    "--exports", type=click.Path(path_type=Path, exists=True), help="Where the servers export request times: for spans."
)
@click.option("--records", type=click.Path(path_type=Path), help="Write every request into this file.")
@json_option
@zoo_option
@click.pass_context
def command(
    ctx: click.Context,
    urls: tuple[str, ...],
    models: str | None,
    api_key: str | None,
    system: str | None,
    workload: WorkloadChoice,
    concurrency: int | None,
    duration_secs: float | None,
    warmup: int,
    api: str,
    tokenizer: Path | None,
    timeout_secs: float,
    salt: str | None,
    slo_text: str | None,
    tag: str | None,
    out: Path | None,
    exports: Path | None,
    records: Path | None,
    as_json: bool,
    zoo_dir: Path | None,
) -> None:
    """Send agent sessions to servers, and measure latency, throughput and cache hits in bench_serving's terms.

    \b
    psserve bench --concurrency 8                                  # the zoo's running fleet, its modules in turns
    psserve bench --url http://gpu1:30000 --workload reflexion --rate 0.5 --out results.jsonl
    psserve bench --url math=http://gpu1:30001 --url code=http://gpu2:30001
    psserve bench --trace trace.jsonl --models math,code
    """
    if ctx.invoked_subcommand is not None:
        if before := typed_options(ctx):
            raise UsageError(f"{', '.join(before)}: an option of {ctx.invoked_subcommand} stands behind that word")
        return
    if urls and zoo_dir is not None:
        raise UsageError("--zoo is for the fleet of a zoo, and --url for servers elsewhere: give one of them")
    import secrets

    import uvloop

    from psserve.bench.load.options import LoadOptions
    from psserve.bench.measured_run import OneRun, RunProgress, run_once
    from psserve.bench.metrics import Slo
    from psserve.bench.result import show_line, warnings_of

    if concurrency is not None and "sessions_per_s" in workload.changes:
        raise UsageError("give --concurrency (closed loop) or --rate (open loop), not both")
    target = _target(urls, api_key, zoo_dir)
    asked = OneRun(
        target=target,
        modules=_names(models),
        workload=workload,
        load=LoadOptions(
            concurrency=concurrency,
            warmup=warmup,
            duration_s=duration_secs,
            api="completions" if api == "completions" else "chat",
            api_key=target.api_key,
            certificate=target.certificate,
            tokenizer=tokenizer,
            salt=secrets.token_hex(4) if salt is None else salt,
            timeout_s=timeout_secs,
        ),
        slo=Slo.parse(slo_text) if slo_text else None,
        system=system or ("url" if urls else "shared"),
        tag=tag,
        command=_command_line(sys.argv[1:]),
        out=out,
        records=records,
        exports=exports,
    )
    with RunProgress(sys.stderr) as progress:
        line = uvloop.run(run_once(asked, progress, progress.note))
    if as_json:
        import json

        click.echo(json.dumps(line, indent=2))
    else:
        from psserve.console import console

        show_line(line, console())
    for warning in warnings_of(line):
        click.echo(f"psserve: warning: {one_line(warning)}", err=True)
    if line["psserve"]["partial"] or not line["completed"]:
        ctx.exit(1)


def _names(models: str | None) -> tuple[str, ...]:
    names = tuple(name.strip() for name in models.split(",")) if models is not None else ()
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(f"--models {models}: give each name once, with commas between")
    return names


def _command_line(arguments: list[str]) -> str:
    """What was typed, for the result, without the key."""
    import shlex

    shown = ["psserve"]
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if shown[-1] == "--api-key":
            argument = "..."
        elif name == "--api-key" and equals:
            argument = "--api-key=..."
        shown.append(argument)
    return shlex.join(shown)


def _target(urls: tuple[str, ...], api_key: str | None, zoo_dir: Path | None) -> Target:
    from psserve.bench.measured_run import target_of_urls, target_of_zoo
    from psserve.zoo import find_zoo

    return target_of_urls(urls, api_key) if urls else target_of_zoo(find_zoo(zoo_dir), api_key)
