"""`psserve update-model`: other weights for a module."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .add_model import STORES, merge_option, naive_option, path_option, revision_option
from .completion import complete_module
from .live import live_option
from .options import zoo_option

if TYPE_CHECKING:
    from psserve.zoo.disk.manifest import Store


keep_option = click.option(
    "--keep-versions",
    default=3,
    show_default=True,
    type=click.IntRange(1),
    help="How many versions stay, with the new one; 1 deletes all older ones.",
)


@click.command("update-model")
@click.argument("name", shell_complete=complete_module)
@path_option
@revision_option
@click.option("--task", help="What the module is for, in words [default: as before].")
@click.option("--example", "examples", multiple=True, help="A prompt of its own (repeatable) [default: as before].")
@click.option("--alias", "aliases", multiple=True, help="Another name (repeatable) [default: as before].")
@click.option("--store", type=STORES, help="How the weights are kept [default: as before].")
@merge_option
@naive_option
@keep_option
@live_option
@zoo_option
def command(
    name: str,
    path: str,
    revision: str | None,
    task: str | None,
    examples: tuple[str, ...],
    aliases: tuple[str, ...],
    store: Store | None,
    merge: bool,
    allow_naive: bool,
    keep_versions: int,
    live: bool,
    zoo_dir: Path | None,
) -> None:
    """Replace the weights of the module NAME (not an alias).

    The new ones are checked as those of a new module are, and take the place of the old ones in one step. The old ones
    stay as a version of the module, to which `psserve rollback` goes back; the last --keep-versions of them stay. With
    --live the running fleet loads the new ones, gives them the next requests, and drops the old ones after their last:
    no request fails, and no answer is made by both. The weights of an adapter may become whole ones, and the reverse
    (--merge, --store adapter).

    \b
    Example:
      psserve update-model math --path ./out/math-2 --live
    """
    from psserve.zoo import Zoo, find_zoo
    from psserve.zoo.disk.progress import StreamProgress

    from .add_model import chosen_store, module_line, warn
    from .live import follow_update, require_fleet

    store = chosen_store(store, merge)
    zoo = Zoo.open(find_zoo(zoo_dir))
    zoo.check_own_name(name)
    if live:
        require_fleet(zoo.path)
    old = zoo.module(name)
    with StreamProgress(sys.stderr) as progress:
        module = zoo.add(
            name,
            path,
            old.task if task is None else task,
            examples or old.examples,
            aliases or old.aliases,
            allow_naive,
            replace=True,
            revision=revision,
            store=store or (None if old.store == "adapter" else old.store),
            keep_versions=keep_versions,
            progress=progress,
        )
    warn(module)
    click.echo(f"replaced {module_line(module)} in {zoo.path}", err=True)
    follow_update(zoo.path, name, live)
