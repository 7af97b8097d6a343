"""`psserve init`: make a zoo for a base."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .options import zoo_option


@click.command()
@click.option("--base", required=True, metavar="DIR_OR_HUB_ID", help="A checkpoint: a directory or a Hub id.")
@click.option("--revision", help="Branch, tag or commit of a Hub id [default: what the local cache has, then main].")
@click.option("--name", help="The base's name [default: the last part of --base].")
@zoo_option
def command(base: str, revision: str | None, name: str | None, zoo_dir: Path | None) -> None:
    """Create a zoo for a base model.

    The base stays where it is; the zoo records its fingerprint: configuration, tokenizer and every weight. A Hub id is
    pinned to its commit, and downloaded if it is not in the local cache (HF_HUB_OFFLINE=1 forbids that).

    \b
    Examples:
      psserve init --base ~/models/Qwen3-0.6B --zoo ./model_zoo
      psserve init --base Qwen/Qwen3-0.6B
    """
    from psserve.zoo import Zoo, zoo_path
    from psserve.zoo.disk.progress import StreamProgress

    with StreamProgress(sys.stderr) as progress:
        zoo = Zoo.create(zoo_path(zoo_dir), base, name, revision=revision, progress=progress)
    made = zoo.base
    what = ", ".join(filter(None, [made.architecture, made.dtype, made.quantisation]))
    click.echo(f"created {zoo.path} for base {made.name} ({what})", err=True)
    click.echo("next: psserve add-model NAME --path DIR", err=True)
