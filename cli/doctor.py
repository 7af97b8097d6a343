"""`psserve doctor`: check this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from .options import json_option, zoo_option


@click.command("doctor")
@zoo_option
@click.option("--port", type=int, default=30000, show_default=True, help="The router's port to be.")
@json_option
def command(zoo_dir: Path | None, port: int, as_json: bool) -> None:
    """Check this machine, one line each, and say what to do. Exit status 1 if psserve cannot serve here."""
    from psserve.fleet.doctor import examine

    findings = examine(zoo_dir, port)
    failed = any(finding.level == "fail" for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "checks": [asdict(finding) for finding in findings]}, indent=1))
    else:
        for finding in findings:
            advice = f" -> {finding.advice}" if finding.advice else ""
            click.echo(f"{finding.level:<5} {finding.name:<11} {finding.found}{advice}")
    click.get_current_context().exit(1 if failed else 0)
