"""`psserve demo`: the demo zoo, served."""

from __future__ import annotations

from pathlib import Path

import click

from .options import zoo_option


@click.command("demo", context_settings={"ignore_unknown_options": True})
@zoo_option
@click.argument("launch_options", nargs=-1, type=click.UNPROCESSED, metavar="[LAUNCH_OPTIONS]...")
def command(zoo_dir: Path | None, launch_options: tuple[str, ...]) -> None:
    """Serve the demo zoo until Ctrl-C: three small modules that solve word problems, write code, and call tools.

    Writes it to the zoo's directory (./model_zoo; 20 MB) unless it is there, and launches it with these options of
    `psserve launch`.

    \b
    psserve demo
    psserve demo --zoo /tmp/demo --modules math --detach
    """
    from psserve.demo.shipped import write_demo_zoo
    from psserve.zoo import zoo_path

    from .launch import command as launch

    path = zoo_path(zoo_dir)
    if write_demo_zoo(path):
        click.echo(f"psserve: the demo zoo is in {path}", err=True)
    launch.main(["--zoo", str(path), *launch_options], prog_name="psserve launch", standalone_mode=False)
