"""`psserve chat`: talk to a module."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .completion import complete_module
from .options import zoo_option

if TYPE_CHECKING:
    from psserve.fleet.chat.chat import Chat


@click.command("chat")
@click.argument("module", required=False, shell_complete=complete_module)
@zoo_option
@click.option("--url", help="Talk to this server instead of the zoo's running fleet.")
@click.option("--api-key", envvar="PSSERVE_API_KEY", help="Key to send [also: $PSSERVE_API_KEY].")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer, in tokens.")
@click.option("--system", default="", help="System message to start with.")
def command(
    module: str | None, zoo_dir: Path | None, url: str | None, api_key: str | None, max_tokens: int | None, system: str
) -> None:
    """Talk to MODULE of the running fleet (default: its first).

    /model NAME lets another module go on with the same conversation, over the cache that is already there; /help
    lists the other commands. Each answer is followed by what it took: tokens of the prompt and how many of them were
    cached, tokens of the answer, time to the first one, speed. Where stdin is no terminal, every line of it is a
    message or command, and only the answers are printed.

    \b
    psserve chat math
    echo "12 * 12?" | psserve chat math --max-tokens 64
    """
    from psserve.fleet.chat.chat import Chat
    from psserve.fleet.observe.control import client_of
    from psserve.fleet.run.router_client import RouterClient
    from psserve.fleet.run.state import running_fleet
    from psserve.zoo import find_zoo

    if url is None:
        zoo = find_zoo(zoo_dir)
        client = client_of(zoo, running_fleet(zoo).url, api_key)
    else:
        client = RouterClient(url, api_key)
    talk = Chat(client, module, max_tokens)
    talk.system = system
    if not sys.stdin.isatty():
        _answer_lines(talk)
        return
    from psserve.fleet.chat.terminal import converse

    converse(talk)


def _answer_lines(talk: Chat) -> None:
    from psserve.fleet.chat.commands import Quit, ToSay, obey

    for line in sys.stdin:
        asked = obey(talk, line)
        if isinstance(asked, Quit):
            return
        if isinstance(asked, ToSay):
            for text in talk.say(asked.text):
                click.echo(text, nl=False)
                sys.stdout.flush()
            click.echo()
