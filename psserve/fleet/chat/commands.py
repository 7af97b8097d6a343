"""What a line typed into `psserve chat` means: a message, or one of the commands that start with a slash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from psserve.fleet.chat.chat import Chat


@dataclass(frozen=True)
class ToSay:
    """Something to say to the module."""

    text: str


@dataclass(frozen=True)
class ToShow:
    """The words of a command for its user; may be empty."""

    text: str


@dataclass(frozen=True)
class Quit:
    """The end of the conversation."""


@dataclass(frozen=True)
class ChatCommand:
    """One command: the argument that its help shows, its help, and what it does with the argument."""

    argument: str
    help: str
    run: Callable[[Chat, str], ToShow | Quit]


def obey(talk: Chat, line: str) -> ToSay | ToShow | Quit:
    """Do what `line` asks; a message is handed back. A message that starts with a slash is written with two.

    Raises:
        UnknownModule: `/model` names no module of the server.
        FleetError: the server does not answer, or a file cannot be written.
    """
    line = line.strip()
    if line.startswith("//"):
        return ToSay(line[1:])
    if not line.startswith("/"):
        return ToSay(line) if line else ToShow("")
    word, _, rest = line.partition(" ")
    command = CHAT_COMMANDS.get(word)
    if command is None:
        return ToShow(f"no command {word}; /help lists them, and //... sends a message that starts with a slash")
    return command.run(talk, rest.strip())


def _model(talk: Chat, name: str) -> ToShow:
    if not name:
        return ToShow(f"{talk.model} answers; /model NAME switches, /models lists")
    talk.switch(name)
    return ToShow(f"{talk.model} answers from here on, over the conversation's cache")


def _models(talk: Chat, _: str) -> ToShow:
    return ToShow("\n".join(f"{name} *" if name == talk.model else name for name in talk.models()))


def _system(talk: Chat, text: str) -> ToShow:
    talk.system = text
    return ToShow("system message set" if text else "no system message")


def _clear(talk: Chat, _: str) -> ToShow:
    talk.clear()
    return ToShow("the conversation is forgotten")


def _save(talk: Chat, name: str) -> ToShow:
    if not name:
        return ToShow("/save needs the name of a file")
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        return ToShow(f"{name}: there is no such user")
    talk.save(path)
    return ToShow(f"saved as {path}")


def _help(talk: Chat, _: str) -> ToShow:
    usage = {f"{name} {command.argument}".rstrip(): command.help for name, command in CHAT_COMMANDS.items()}
    width = max(map(len, usage))
    return ToShow("\n".join(f"{how:<{width}}  {what}" for how, what in usage.items()))


def _quit(talk: Chat, _: str) -> Quit:
    return Quit()


CHAT_COMMANDS = {
    "/model": ChatCommand("NAME", "let another module answer; the conversation and its cache stay", _model),
    "/models": ChatCommand("", "list the modules", _models),
    "/system": ChatCommand("TEXT", "set the system message; without TEXT, none", _system),
    "/clear": ChatCommand("", "forget the conversation", _clear),
    "/save": ChatCommand("FILE", "write the conversation into a new file", _save),
    "/help": ChatCommand("", "this list", _help),
    "/quit": ChatCommand("", "leave, as Ctrl-D does", _quit),
    "/exit": ChatCommand("", "the same", _quit),
}
