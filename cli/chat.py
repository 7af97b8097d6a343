"""`psserve chat`: talk to a module."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import zoo_option

if TYPE_CHECKING:
    from psserve.fleet.chat import Conversation

_HELP = "/model NAME switches the module, /models lists them, /clear forgets the conversation, /quit ends"


@click.command("chat")
@click.argument("module", required=False)
@zoo_option
@click.option("--url", help="Talk to this server instead of the zoo's running fleet.")
@click.option("--api-key", envvar="PSSERVE_API_KEY", help="Key to send [also: $PSSERVE_API_KEY].")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer, in tokens.")
def command(
    module: str | None, zoo_dir: Path | None, url: str | None, api_key: str | None, max_tokens: int | None
) -> None:
    """Talk to MODULE of the running fleet (default: its first). Reads lines from stdin when that is no terminal."""
    from psserve.fleet.chat import Conversation
    from psserve.fleet.client import RouterClient
    from psserve.fleet.control import api_key_of
    from psserve.fleet.state import running_fleet
    from psserve.zoo import find_zoo

    if url is None:
        zoo = find_zoo(zoo_dir)
        url, api_key = running_fleet(zoo).url, api_key or api_key_of(zoo)
    talk = Conversation(RouterClient(url, api_key), module, max_tokens)
    if sys.stdin.isatty():
        click.echo(f"{talk.model} at {url}; {_HELP}", err=True)
        _interactive(talk)
    else:
        for line in sys.stdin:
            if not _turn(talk, line.strip()):
                return


def _interactive(talk: Conversation) -> None:
    from psserve.errors import PsserveError

    while True:
        try:
            going_on = _turn(talk, input(f"{talk.model}> ").strip())
        except EOFError:
            return
        except KeyboardInterrupt:  # ends this answer, not the conversation
            click.echo(err=True)
            continue
        except PsserveError as error:
            click.echo(f"psserve: error: {error}", err=True)
            continue
        if not going_on:
            return


def _turn(talk: Conversation, line: str) -> bool:
    """Do what one line asks. Returns whether to go on."""
    word, _, rest = line.partition(" ")
    match word:
        case "":
            pass
        case "/quit" | "/exit":
            return False
        case "/models":
            click.echo("\n".join(talk.models()), err=True)
        case "/model":
            talk.switch(rest.strip())
        case "/clear":
            talk.clear()
        case _ if word.startswith("/"):
            click.echo(_HELP, err=True)
        case _:
            for text in talk.say(line):
                click.echo(text, nl=False)
                sys.stdout.flush()
            click.echo()
    return True
