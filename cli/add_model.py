"""`psserve add-model`: put a fine-tune into the zoo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from psserve.errors import UsageError

from .live import live_option
from .options import zoo_option
from .output import size

if TYPE_CHECKING:
    from psserve.zoo import Module
    from psserve.zoo.disk.manifest import Store


path_option = click.option(
    "--path",
    required=True,
    metavar="DIR_OR_HUB_ID",
    help="A full checkpoint or a LoRA adapter (PEFT), as a directory or a Hub id (HUB_ID@REVISION: of that revision), "
    "or the folder of a training run.",
)
revision_option = click.option(
    "--revision", help="Branch, tag or commit of a Hub id [default: what the local cache has, then main]."
)
naive_option = click.option(
    "--allow-naive", is_flag=True, help="Add it though no record says it was trained on the base's KV cache."
)
STORES = click.Choice(["copy", "link", "delta", "adapter"])
merge_option = click.option(
    "--merge",
    is_flag=True,
    help="Merge a LoRA adapter into the base's weights: servers of its own, and the memory of a whole model.",
)


@click.command()
@click.argument("name")
@path_option
@revision_option
@click.option("--task", default="", help="What the module is for, in words.")
@click.option("--example", "examples", multiple=True, help="A prompt that is this module's (repeatable).")
@click.option("--alias", "aliases", multiple=True, help="Another name for it (repeatable).")
@click.option(
    "--store",
    type=STORES,
    help="Copy the weights; leave them where they are; keep what differs from the base, compressed; or keep the LoRA "
    "adapter that they are [default: adapter for one, else copy].",
)
@merge_option
@naive_option
@live_option
@zoo_option
def command(
    name: str,
    path: str,
    revision: str | None,
    task: str,
    examples: tuple[str, ...],
    aliases: tuple[str, ...],
    store: Store | None,
    merge: bool,
    allow_naive: bool,
    live: bool,
    zoo_dir: Path | None,
) -> None:
    """Add a fine-tune of the base to the zoo as module NAME.

    It is checked against the base first, to the last weight. If anything does not fit, the zoo stays as it was. A LoRA
    adapter stays one: all of them share their servers. A Hub id that is not in the local cache is downloaded.

    \b
    Examples:
      psserve add-model math --path ./out/math --task "school mathematics" --alias maths
      psserve add-model code --path ./my-lora-adapter --allow-naive --live
      psserve add-model code --path ./my-lora-adapter --allow-naive --merge --store delta
    """
    from psserve.zoo import Zoo, find_zoo
    from psserve.zoo.disk.progress import StreamProgress

    from .live import follow_live, require_fleet

    store = chosen_store(store, merge)
    zoo = Zoo.open(find_zoo(zoo_dir))
    if live:
        require_fleet(zoo.path)
    with StreamProgress(sys.stderr) as progress:
        module = zoo.add(
            name, path, task, examples, aliases, allow_naive, revision=revision, store=store, progress=progress
        )
    warn(module)
    click.echo(f"added {module_line(module)} to {zoo.path}", err=True)
    if live:
        follow_live(zoo.path, "add", name)


def chosen_store(store: Store | None, merge: bool) -> Store | None:
    """How to keep the weights; None: as suits them. UsageError if the two options contradict each other."""
    if merge and store in ("adapter", "link"):
        raise UsageError(f"--merge writes whole weights, and --store {store} keeps none: leave one of the two out")
    return store or ("copy" if merge else None)


def module_line(module: Module) -> str:
    """Name, kind and size."""
    if module.adapter:
        return f"{module.name} ({module.kind}, adapter of rank {module.adapter.rank}, {size(module.weight_bytes)})"
    kept = "" if module.store == "copy" else f", {size(module.disk_bytes)} in the zoo"
    return f"{module.name} ({module.kind}, {size(module.weight_bytes)}{kept})"


def warn(module: Module) -> None:
    """Say on stderr what was unusual about the import."""
    for note in module.notes:
        click.echo(f"warning: {note}", err=True)
    if module.kind == "naive":
        click.echo(
            "warning: not trained on the base's KV cache: its accuracy over that cache is unknown; measure it: "
            f"psserve evaluate {module.name} --data HELD_OUT.jsonl --scorer number",
            err=True,
        )
