"""`psserve doctor`: check machine, zoo and fleet."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from .options import json_option, zoo_option

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@click.command("doctor")
@zoo_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="The router's port to be [default: fleet.toml's, then 30000].",
)
@json_option
def command(zoo_dir: Path | None, port: int | None, as_json: bool) -> None:
    """Check this machine, the zoo and its fleet, one line each, and say what to do. Exit status 1 if something fails.

    Where no fleet runs, it is tried whether one could be planned here (over a [cluster] `psserve launch` does that).
    Each module of a running fleet is sent a request for one token, and servers without requests must hold no KV slots
    and lend none.
    """
    from psserve.fleet.observe.doctor import examine

    findings = examine(zoo_dir, port)
    failed = any(finding.level == "fail" for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "checks": [asdict(finding) for finding in findings]}, indent=1))
    else:
        from psserve.console import console, show, table

        rows = [(f.level, f.name, f"{f.found} -> {f.advice}" if f.advice else f.found) for f in findings]
        made = table(("", "", ""), rows, STYLES)
        made.show_header = False
        show(made, console())
    click.get_current_context().exit(1 if failed else 0)
