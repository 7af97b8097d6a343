"""`psserve launch`: serve a zoo."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from psserve.errors import UsageError
from psserve.fleet.options.options import FleetOptions, RouterOptions

from .damaged import warn_damaged
from .model_options import flags, model_options
from .options import json_option, zoo_option
from .task_classifier import check_classifier


@click.command("launch")
@zoo_option
@click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path),
    help="What to serve and where [default: fleet.toml in the zoo, if there]. Flags win over it.",
)
@model_options(FleetOptions)
@click.option("--prefill", type=int, help="Number of prefill servers [default: 1; more on idle GPUs].")
@click.option("--kv-tokens", type=int, help="KV pool of each server, in tokens.")
@click.option("--api-key", envvar="PSSERVE_API_KEY", help="What clients must send [also: $PSSERVE_API_KEY].")
@model_options(RouterOptions)
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="Set this in every SGLang server.")
@click.option(
    "--allow-untested-sglang",
    is_flag=True,
    help="Try another release of SGLang than those supported, or one that was edited; each server warns.",
)
@click.option("--watch", is_flag=True, help="Serve what the zoo has: follow every module that comes, changes or goes.")
@click.option("--detach", is_flag=True, help="Return once the fleet is ready; it goes on in the background.")
@click.option("--dry-run", is_flag=True, help="Print what would run, and start nothing.")
@json_option
@click.argument("engine_args", nargs=-1, type=click.UNPROCESSED, metavar="[-- SGLANG_ARGS...]")
def command(
    zoo_dir: Path | None,
    config: Path | None,
    api_key: str | None,
    watch: bool,
    detach: bool,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Serve the zoo until Ctrl-C.

    Starts the prefill servers, a decode server for every module (one for all that are LoRA adapters), and the router;
    prints one line with the URL once every server has answered a real request.

    \b
    psserve launch
    psserve launch --modules math,code --port 8000 --detach
    psserve launch --config fleet.toml --dry-run   (replicas, GPUs, memory, ports: docs/fleet.md)
    psserve launch -- --schedule-policy lpm        (the rest goes to every SGLang server)
    """
    from psserve.fleet.live.requests import ZooWatch
    from psserve.fleet.options.config_file import load_options
    from psserve.fleet.options.key_file import client_keys
    from psserve.fleet.plan.reach import reach_warnings
    from psserve.fleet.plan.show import adapters_note, context_note, idle_gpus, split_note, transfer_note
    from psserve.fleet.run.state import require_none_running
    from psserve.fleet.run.trials import kept_trials
    from psserve.zoo import Zoo, find_zoo

    zoo = Zoo.open(find_zoo(zoo_dir))
    options = load_options(zoo.path, config, as_flags(**given))
    check_classifier(options.router.task_classifier)
    if options.router.replicas > 1:
        raise UsageError(
            f"{options.where('router.replicas')}: this machine has one router; use router_workers for more processes"
        )
    if api_key == "":
        raise UsageError("--api-key is empty")
    if not dry_run:
        require_none_running(zoo.path, lambda text: click.echo(f"psserve: {text}", err=True))
    if options.modules is None:
        warn_damaged(zoo)
    keys = client_keys(options, zoo.path)
    if api_key is not None:
        keys = replace(keys, plain=api_key)
    following = ZooWatch(zoo.path) if watch else None  # before the zoo is read for the plan: it misses nothing then
    plan, starter_of = _plan(zoo, options, keys, dry_run)
    for warning in reach_warnings(options, keys):
        click.echo(f"psserve: warning: {warning}", err=True)
    if idle := idle_gpus(plan):
        click.echo(f"psserve: idle GPUs: {', '.join(map(str, idle))} (replicas in fleet.toml use them)", err=True)
    for trial in kept_trials(plan.run_dir):
        click.echo(f"psserve: {trial} was on trial: it is taken up again once the fleet is ready", err=True)
    for note in (context_note(plan, zoo.base.context_length), adapters_note(plan)):
        if note is not None:
            click.echo(f"psserve: {note}", err=True)
    if dry_run:
        for note in filter(None, (transfer_note(plan), split_note(plan))):
            click.echo(f"psserve: {note}", err=True)
        _show(plan, as_json)
        return
    _launch(plan, starter_of, following, detach)


def as_flags(
    kv_tokens: int | None,
    env: tuple[str, ...],
    allow_untested_sglang: bool,
    engine_args: tuple[str, ...],
    **given: Any,
) -> Any:
    """The flags as they go over fleet.toml."""
    from psserve.engine.settings import ALLOW_UNTESTED
    from psserve.fleet.options.config_file import Flags

    if engine_args and not engine_args[0].startswith("-"):
        raise UsageError(f"unexpected argument {engine_args[0]!r}; SGLang's own arguments follow after --")
    keys = {"prefill": "prefill.replicas"} | {name: f"router.{name}" for name in flags(RouterOptions)}
    return Flags(
        values={keys.get(name, name): value for name, value in given.items() if value is not None},
        kv_tokens=kv_tokens,
        env=dict(_assignment(text) for text in env) | ({ALLOW_UNTESTED: "1"} if allow_untested_sglang else {}),
        args=engine_args,
    )


def _plan(zoo: Any, options: FleetOptions, keys: Any, dry_run: bool) -> tuple[Any, Callable[[Any], Any]]:
    """The plan, and what makes its starter, in the process that runs the fleet."""
    from psserve.fleet import make_plan
    from psserve.fleet.run.preload import starter_for

    if options.cluster is None:
        return make_plan(zoo, options, keys=keys), starter_for
    from psserve.fleet.ray.survey import surveyed

    with surveyed(zoo, options, keep=not dry_run) as cluster:
        for warning in cluster.warnings:
            click.echo(f"psserve: warning: {warning}", err=True)
        return make_plan(zoo, options, keys=keys, hosts=cluster.hosts), cluster.starter


def _show(plan: Any, as_json: bool) -> None:
    from psserve.fleet.plan.show import PLAN_COLUMNS, plan_commands, plan_json, plan_rows

    if as_json:
        click.echo(json.dumps(plan_json(plan), indent=1))
        return
    from .output import show_table

    show_table(PLAN_COLUMNS, plan_rows(plan))
    click.echo("\n" + plan_commands(plan))


def _launch(plan: Any, starter_of: Callable[[Any], Any], watch: Any, detach: bool) -> None:
    from psserve.fleet import Limits, Supervisor
    from psserve.fleet.plan.show import named
    from psserve.fleet.plan.start_limit import start_limit_s
    from psserve.fleet.run.detach import run_detached
    from psserve.fleet.run.prepare import make_run_dir
    from psserve.fleet.run.progress import progress_for

    def ready(url: str) -> None:
        click.echo(f"psserve: ready at {url} (base {plan.base}; modules {named(plan.modules)})")

    options = plan.basis.options
    limits = Limits(start_timeout_s=start_limit_s(plan.basis, plan.servers), drain_s=options.router.drain_secs)
    if not detach:
        progress = progress_for(sys.stderr)
        Supervisor(plan, starter=starter_of(plan), watch=watch, progress=progress, limits=limits, on_ready=ready).run()
        return
    make_run_dir(plan.run_dir)

    def supervise(say: Callable[[str], None]) -> None:
        Supervisor(plan, starter=starter_of(plan), watch=watch, limits=limits, on_ready=say).run_locked()

    ready(run_detached(supervise, plan.run_dir))


def _assignment(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise UsageError(f"--env {text!r}: give NAME=VALUE")
    return name, value
