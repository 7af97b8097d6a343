"""`psserve init`: make a zoo for a base."""

from __future__ import annotations

from pathlib import Path

import click

from .options import zoo_option


@click.command()
@click.option(
    "--base", required=True, metavar="DIR_OR_HUB_ID", help="Checkpoint directory, or a Hub id in the local cache."
)
@click.option("--name", help="The base's name [default: the last part of --base].")
@zoo_option
def command(base: str, name: str | None, zoo_dir: Path | None) -> None:
    """Create a zoo for a base model.

    The base stays where it is; the zoo records its fingerprint. Nothing is downloaded.

    \b
    Example:
      psserve init --base ~/models/Qwen3-0.6B --zoo ./model_zoo
    """
    from psserve.zoo import Zoo, zoo_path

    click.echo(f"hashing {base}", err=True)
    zoo = Zoo.create(zoo_path(zoo_dir), base, name)
    click.echo(f"created {zoo.path} for base {zoo.base.name} ({zoo.base.architecture}, {zoo.base.dtype})", err=True)
    click.echo("next: psserve add-model NAME --path DIR", err=True)
