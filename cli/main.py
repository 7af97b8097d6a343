"""The `psserve` command: a lazy group of commands and the one border where errors become messages."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from psserve.errors import PsserveError

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("psserve.cli.init:command", "Create a zoo for a base model."),
    "add-model": ("psserve.cli.add_model:command", "Import a fine-tuned checkpoint into the zoo."),
    "models": ("psserve.cli.models:command", "List the zoo's base and modules."),
    "show": ("psserve.cli.show:command", "Show all that is known of a module."),
    "path": ("psserve.cli.path:command", "Print the directory of the zoo or of a module."),
    "verify": ("psserve.cli.verify:command", "Read every byte of the zoo and check that all fits together."),
    "export": ("psserve.cli.export:command", "Write a module as a plain Hugging Face checkpoint."),
    "push": ("psserve.cli.push:command", "Upload a module to the Hugging Face Hub."),
    "update-model": ("psserve.cli.update_model:command", "Replace the weights of a module."),
    "promote": ("psserve.cli.promote:command", "Give a module's place to its version on trial."),
    "rollback": ("psserve.cli.rollback:command", "Give a module an older version's weights back."),
    "rename-model": ("psserve.cli.rename_model:command", "Give a module another name."),
    "remove-model": ("psserve.cli.remove_model:command", "Delete a module."),
    "launch": ("psserve.cli.launch:command", "Serve the zoo until Ctrl-C."),
    "demo": ("psserve.cli.demo:command", "Serve the demo zoo."),
    "keys": ("psserve.cli.keys:command", "Make, list and remove the keys of clients."),
    "reload": ("psserve.cli.reload:command", "Have the running fleet serve what the zoo has now."),
    "manifests": ("psserve.cli.manifests:command", "Print a fleet's objects for Kubernetes."),
    "status": ("psserve.cli.status:command", "Show the running fleet."),
    "stop": ("psserve.cli.stop:command", "Stop the running fleet."),
    "logs": ("psserve.cli.logs:command", "Print what the fleet's processes wrote."),
    "chat": ("psserve.cli.chat:command", "Talk to a module of the running fleet."),
    "route": ("psserve.cli.route:command", "Explain which module model `auto` would choose."),
    "finetune": ("psserve.cli.finetune:command", "Train a decode module on the base's KV cache."),
    "evaluate": ("psserve.cli.evaluate:command", "Count the right answers of modules on held-out items."),
    "bench": ("psserve.cli.bench:command", "Send agent sessions to servers, and measure them."),
    "simulate": ("psserve.cli.simulate:command", "Simulate the benchmark's systems at any size."),
    "doctor": ("psserve.cli.doctor:command", "Check machine, zoo and fleet, and say what to do."),
    "constraints": ("psserve.cli.constraints:command", "Print where the tested versions of packages are listed."),
    "completion": ("psserve.cli.completion:command", "Print the completion script of a shell."),
}
"""Command name -> (where its click command lives, its line in `psserve --help`)."""


class LazyGroup(click.Group):
    """Imports a command's file only when that command is invoked, so that `psserve --help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        commands = [
            CompletionItem(name, help=summary) for name, (_, summary) in COMMANDS.items() if name.startswith(incomplete)
        ]
        return commands + super(click.Group, self).shell_complete(ctx, incomplete)  # a Group would import every command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except PsserveError as error:
            return fail(ctx, str(error), error.exit_code)
        except OSError as error:
            if not is_users(error):
                raise
            where = f"{error.filename}: " if error.filename else ""
            return fail(ctx, f"{where}{error.strerror}", 1)


def fail(ctx: click.Context, message: str, exit_code: int) -> NoReturn:
    """Print one line on stderr and leave with `exit_code`."""
    click.echo(f"psserve: error: {' '.join(message.split())}", err=True)
    ctx.exit(exit_code)


def is_users(error: OSError) -> bool:
    """Whether this is about the user's files or disk (a message is enough) and not a bug of ours."""
    return error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT)


def print_versions(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """Callback of `--version`: of psserve first, then of what it runs on."""
    if not wanted or ctx.resilient_parsing:
        return
    from psserve.versions import versions

    for name, version in versions().items():
        click.echo(f"{name} {version}")
    ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=print_versions,
    help="Print the versions that matter, one a line.",
)
def cli() -> None:
    """Serve many fine-tunes of one base model for the price of one prefill."""


def main() -> None:
    """Entry point of the console script."""
    os.environ["PYTHONSAFEPATH"] = "1"  # what Python starts for us imports nothing from the user's folder either
    sys.exit(cli.main(prog_name="psserve"))


if __name__ == "__main__":  # for launchers that take a module, such as accelerate
    main()
