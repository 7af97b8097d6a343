"""`psserve completion`: what makes a shell complete `psserve`, and how names of modules are completed."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script that makes SHELL complete commands, options and names of modules.

    \b
    psserve completion bash >> ~/.bashrc
    psserve completion zsh  >> ~/.zshrc
    psserve completion fish  > ~/.config/fish/completions/psserve.fish
    """
    from .main import cli

    completion_class = get_completion_class(shell)
    assert completion_class is not None, "click knows every shell that the argument allows"
    click.echo(completion_class(cli, {}, "psserve", "_PSSERVE_COMPLETE").source())


def complete_module(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of the zoo's modules that start with `incomplete`."""
    given = ctx.params.get(parameter.name or "") or ()
    already = given if isinstance(given, tuple) else ()
    return [name for name in zoo_module_names(zoo_of(ctx)) if name.startswith(incomplete) and name not in already]


def complete_log(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names that `psserve logs` takes: of processes that have a log, and of modules."""
    zoo = zoo_of(ctx)
    processes = sorted(path.name.removesuffix(".log") for path in zoo.glob(".run/logs/*.log"))
    return [name for name in (*processes, *zoo_module_names(zoo)) if name.startswith(incomplete)]


def zoo_of(ctx: click.Context) -> Path:
    """As `psserve.zoo.zoo_path`, whose imports would take longer than a person waits for a completion."""
    return Path(ctx.params.get("zoo_dir") or os.environ.get("PSSERVE_ZOO") or "model_zoo")


def zoo_module_names(zoo: Path) -> list[str]:
    """Directories that hold a module; no manifest is opened."""
    return sorted(path.parent.name for path in zoo.glob("modules/*/module.toml"))
