"""`psserve launch`: serve a zoo."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from psserve.errors import UsageError

from .options import json_option, zoo_option


@click.command("launch")
@zoo_option
@click.option("--modules", metavar="A,B", help="Serve only these modules [default: all].")
@click.option("--serve-base", is_flag=True, help="Serve the base itself too, under its own name.")
@click.option("--prefill", type=int, default=1, show_default=True, help="Number of prefill servers.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the router.")
@click.option("--port", type=int, default=30000, show_default=True, help="Port of the router; 0 picks a free one.")
@click.option("--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", show_default=True)
@click.option(
    "--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), default="auto", show_default=True
)
@click.option("--transfer", type=click.Choice(["auto", "nixl", "mooncake"]), default="auto", show_default=True)
@click.option("--page-size", type=int, default=16, show_default=True, help="Tokens of one KV page.")
@click.option("--kv-tokens", type=int, help="KV pool of each server, in tokens.")
@click.option("--context-length", type=int, help="Longest prompt and answer together, in tokens.")
@click.option("--chunked-prefill-size", type=int, help="Longest piece of a prompt computed at once, in tokens.")
@click.option("--max-running-requests", type=int, help="Requests that a server computes at a time.")
@click.option("--request-timeout-secs", type=float, default=600.0, show_default=True)
@click.option("--start-timeout-secs", type=float, default=300.0, show_default=True)
@click.option("--drain-secs", type=float, default=30.0, show_default=True, help="Time for requests in flight at stop.")
@click.option("--api-key", envvar="PSSERVE_API_KEY", help="What clients must send [also: $PSSERVE_API_KEY].")
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="Set this in every SGLang server.")
@click.option("--detach", is_flag=True, help="Return once the fleet is ready; it goes on in the background.")
@click.option("--dry-run", is_flag=True, help="Print what would run, and start nothing.")
@json_option
@click.argument("engine_args", nargs=-1, type=click.UNPROCESSED, metavar="[-- SGLANG_ARGS...]")
def command(
    zoo_dir: Path | None,
    modules: str | None,
    env: tuple[str, ...],
    engine_args: tuple[str, ...],
    request_timeout_secs: float,
    start_timeout_secs: float,
    drain_secs: float,
    detach: bool,
    dry_run: bool,
    as_json: bool,
    **fields: Any,
) -> None:
    """Serve the zoo until Ctrl-C.

    Starts the prefill servers, a decode server for every module, and the router; prints one line with the URL once
    every server has answered a real request.

    \b
    psserve launch
    psserve launch --modules math,code --port 8000 --detach
    psserve launch -- --schedule-policy lpm        (the rest goes to every SGLang server)
    """
    from psserve.fleet import FleetOptions, make_plan
    from psserve.fleet.show import plan_json, plan_text
    from psserve.fleet.state import require_none_running
    from psserve.zoo import Zoo, find_zoo

    if engine_args and not engine_args[0].startswith("-"):
        raise UsageError(f"unexpected argument {engine_args[0]!r}; SGLang's own arguments follow after --")
    options = FleetOptions(
        modules=None if modules is None else tuple(name.strip() for name in modules.split(",") if name.strip()),
        request_timeout_s=request_timeout_secs,
        drain_s=drain_secs,
        engine_args=engine_args,
        extra_env=dict(_assignment(text) for text in env),
        **fields,
    )
    zoo = Zoo.open(find_zoo(zoo_dir))
    if not dry_run:
        require_none_running(zoo.path)
    plan = make_plan(zoo, options)
    if dry_run:
        click.echo(json.dumps(plan_json(plan), indent=1) if as_json else plan_text(plan))
        return
    _launch(plan, start_timeout_secs, drain_secs, detach)


def _launch(plan: Any, start_timeout_s: float, drain_s: float, detach: bool) -> None:
    from psserve.fleet import Limits, Supervisor
    from psserve.fleet.detach import run_detached
    from psserve.fleet.layout import log_path
    from psserve.fleet.prepare import make_run_dir
    from psserve.fleet.progress import progress_for

    def ready(url: str) -> None:
        click.echo(f"psserve: ready at {url} (base {plan.base}; modules {', '.join(plan.modules)})")

    limits = Limits(start_timeout_s=start_timeout_s, drain_s=drain_s)
    if not detach:
        Supervisor(plan, progress=progress_for(sys.stderr), limits=limits, on_ready=ready).run()
        return
    make_run_dir(plan.run_dir)
    ready(
        run_detached(
            lambda say: Supervisor(plan, limits=limits, on_ready=say).run(), log_path(plan.run_dir, "supervisor")
        )
    )


def _assignment(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise UsageError(f"--env {text!r}: give NAME=VALUE")
    return name, value
