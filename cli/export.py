"""`psserve export`: a module as a plain checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .completion import complete_module
from .options import zoo_option


@click.command("export")
@click.argument("name", shell_complete=complete_module)
@click.option(
    "--to", "destination", required=True, type=click.Path(path_type=Path), help="Directory to make, new or empty."
)
@zoo_option
def command(name: str, destination: Path, zoo_dir: Path | None) -> None:
    """Write the module or alias NAME as a plain Hugging Face checkpoint: configuration, tokenizer, template, weights.

    Transformers, SGLang and `psserve add-model` load it; the training record goes with it.

    \b
    Example:
      psserve export math --to ./math-checkpoint
    """
    from psserve.zoo import Zoo, find_zoo
    from psserve.zoo.disk.progress import StreamProgress
    from psserve.zoo.export import export_module

    zoo = Zoo.open(find_zoo(zoo_dir))
    module = zoo.module(name)
    with StreamProgress(sys.stderr) as progress:
        path = export_module(zoo, module, destination, progress)
    if module.kind == "cache-conditioned":
        click.echo(
            f"note: {module.name} was trained to answer over the base's KV cache: alone it answers otherwise", err=True
        )
    click.echo(f"exported {module.name} to {path}", err=True)
