"""`psserve push`: a module on the Hugging Face Hub."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .completion import complete_module
from .options import zoo_option


@click.command("push")
@click.argument("name", shell_complete=complete_module)
@click.argument("hub_id")
@click.option("--private", is_flag=True, help="Make the repository a private one, if it is made.")
@click.option(
    "--merged/--adapter",
    default=False,
    help="Of a LoRA module all weights, or the adapter as PEFT saves it [default: the adapter].",
)
@zoo_option
def command(name: str, hub_id: str, private: bool, merged: bool, zoo_dir: Path | None) -> None:
    """Upload the module or alias NAME to the Hugging Face Hub as HUB_ID, in one commit.

    What `psserve export` writes goes up, with the training record and a model card that says base, fingerprint,
    training and accuracy. `hf auth login` says who you are. The commit is printed as HUB_ID@COMMIT, which add-model
    takes as --path.

    \b
    Example:
      psserve push math ann/qwen3-8b-math --private
    """
    from psserve.zoo import Zoo, find_zoo
    from psserve.zoo.disk.progress import StreamProgress
    from psserve.zoo.push import push_module

    zoo = Zoo.open(find_zoo(zoo_dir))
    with StreamProgress(sys.stderr) as progress:
        commit = push_module(zoo, zoo.module(name), hub_id, private=private, merged=merged, progress=progress)
    click.echo(f"{hub_id}@{commit}")
