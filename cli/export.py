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
@click.option(
    "--merged/--adapter", default=True, help="All weights, or the LoRA adapter as PEFT saves it [default: all weights]."
)
@zoo_option
def command(name: str, destination: Path, merged: bool, zoo_dir: Path | None) -> None:
    """Write the module or alias NAME as a plain Hugging Face checkpoint: configuration, tokenizer, template, weights.

    Transformers, SGLang and `psserve add-model` load it; the training record goes with it. A module that was stored as
    a LoRA adapter is merged into the base's weights for this, or with --adapter written as it came.

    \b
    Examples:
      psserve export math --to ./math-checkpoint
      psserve export code --to ./code-adapter --adapter
    """
    from psserve.zoo import Zoo, find_zoo
    from psserve.zoo.disk.progress import StreamProgress
    from psserve.zoo.export import export_adapter, export_module

    zoo = Zoo.open(find_zoo(zoo_dir))
    module = zoo.module(name)
    with StreamProgress(sys.stderr) as progress:
        path = (export_module if merged else export_adapter)(zoo, module, destination, progress)
    if module.kind == "cache-conditioned":
        click.echo(
            f"note: {module.name} was trained to answer over the base's KV cache: alone it answers otherwise", err=True
        )
    click.echo(f"exported {module.name} to {path}", err=True)
