"""`psserve demo`: the demo zoo, served."""

from __future__ import annotations

from pathlib import Path

import click

from .options import zoo_option


class _PassesAllOn(click.Command):
    """Leaves `--` to the other command whose options it takes; click would eat it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            args.insert(args.index("--"), "--")
        return super().parse_args(ctx, args)


@click.command("demo", cls=_PassesAllOn, context_settings={"ignore_unknown_options": True})
@zoo_option
@click.argument("launch_options", nargs=-1, type=click.UNPROCESSED, metavar="[LAUNCH_OPTIONS]...")
def command(zoo_dir: Path | None, launch_options: tuple[str, ...]) -> None:
    """Serve the demo zoo until Ctrl-C: three small modules that solve word problems, write code, and call tools.

    Writes it to the zoo's directory (./model_zoo; 20 MB) unless it is there, and launches it with these options of
    `psserve launch`.

    \b
    psserve demo
    psserve demo --zoo /tmp/demo --modules math --detach
    psserve demo -- --schedule-policy lpm          (the rest goes to every SGLang server)
    """
    from psserve.demo.shipped import write_demo_zoo
    from psserve.zoo import zoo_path

    from .launch import command as launch

    path = zoo_path(zoo_dir)
    if write_demo_zoo(path):
        click.echo(f"psserve: the demo zoo is in {path}", err=True)
    launch.main(["--zoo", str(path), *launch_options], prog_name="psserve launch", standalone_mode=False)
