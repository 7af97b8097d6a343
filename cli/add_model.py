"""`psserve add-model`: import a fine-tuned checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from .options import zoo_option


@click.command()
@click.argument("name")
@click.option("--path", required=True, type=click.Path(path_type=Path), help="Directory of the fine-tuned checkpoint.")
@click.option("--task", default="", help="What the module is for, in words.")
@click.option("--example", "examples", multiple=True, help="A prompt that is this module's (repeatable).")
@click.option("--alias", "aliases", multiple=True, help="Another name for it (repeatable).")
@click.option(
    "--allow-naive", is_flag=True, help="Import it though no record says it was trained on the base's KV cache."
)
@zoo_option
def command(
    name: str,
    path: Path,
    task: str,
    examples: tuple[str, ...],
    aliases: tuple[str, ...],
    allow_naive: bool,
    zoo_dir: Path | None,
) -> None:
    """Import a fine-tuned checkpoint into the zoo as module NAME.

    It is checked against the base and copied. If anything does not fit, the zoo stays as it was.

    \b
    Example:
      psserve add-model math --path ./out/math --task "school mathematics" --alias maths
    """
    from psserve.zoo import Zoo, find_zoo

    zoo = Zoo.open(find_zoo(zoo_dir))
    click.echo(f"checking and copying {path}", err=True)
    module = zoo.add(name, path, task, examples, aliases, allow_naive)
    for note in module.notes:
        click.echo(f"warning: {note}", err=True)
    click.echo(f"added {module.name} ({module.kind}, {module.weight_bytes / 1e9:.3g} GB) to {zoo.path}", err=True)
