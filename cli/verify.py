"""`psserve verify`: is the zoo what it was?"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from .completion import complete_module
from .options import json_option, zoo_option
from .output import one_line


@click.command("verify")
@click.argument("name", required=False, shell_complete=complete_module)
@json_option
@zoo_option
@click.pass_context
def command(context: click.Context, name: str | None, as_json: bool, zoo_dir: Path | None) -> None:
    """Check the base and all modules again, or the module or alias NAME: hashes, manifests, numbers, compatibility.

    Prints what is wrong, one thing a line, and then exits with 1. Nothing is changed; weights that are stored as deltas
    are rebuilt in $TMPDIR, one module at a time.

    \b
    Example:
      psserve verify && psserve launch
    """
    from psserve.zoo import Zoo, find_zoo
    from psserve.zoo.disk.progress import StreamProgress
    from psserve.zoo.verify import Finding, verify

    zoo = Zoo.read(find_zoo(zoo_dir))
    findings: list[Finding] = []
    progress = StreamProgress(sys.stderr)
    with progress:
        for finding in verify(zoo, name, progress):
            findings.append(finding)
            if not as_json:
                progress.hide()
                click.echo(f"{finding.name}: {one_line(finding.problem)}")
    if as_json:
        found = [{"name": finding.name, "problem": finding.problem} for finding in findings]
        click.echo(json.dumps({"zoo": str(zoo.path), "verified": name or "all", "findings": found}, indent=2))
    what = f"module {name}" if name else "the base and all modules"
    click.echo(f"{what} of {zoo.path}: {len(findings) or 'no'} finding{'' if len(findings) == 1 else 's'}", err=True)
    context.exit(1 if findings else 0)
