"""What a line typed into `psserve chat` means: a message, or one of the commands that start with a slash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from psserve.fleet.chat.chat import Conversation


@dataclass(frozen=True)
class Message:
    """Something to say to the module."""

    text: str


@dataclass(frozen=True)
class Note:
    """What a command has to tell; may be empty."""

    text: str


@dataclass(frozen=True)
class Quit:
    """The end of the conversation."""


@dataclass(frozen=True)
class Command:
    """One command: the argument that its help shows, its help, and what it does with the argument."""

    argument: str
    help: str
    run: Callable[[Conversation, str], Note | Quit]


def obey(talk: Conversation, line: str) -> Message | Note | Quit:
    """Do what `line` asks; a message is handed back. A message that starts with a slash is written with two.

    Raises:
        UnknownModule: `/model` names no module of the server.
        FleetError: the server does not answer, or a file cannot be written.
    """
    line = line.strip()
    if line.startswith("//"):
        return Message(line[1:])
    if not line.startswith("/"):
        return Message(line) if line else Note("")
    word, _, rest = line.partition(" ")
    command = COMMANDS.get(word)
    if command is None:
        return Note(f"no command {word}; /help lists them, and //... sends a message that starts with a slash")
    return command.run(talk, rest.strip())


def _model(talk: Conversation, name: str) -> Note:
    if not name:
        return Note(f"{talk.model} answers; /model NAME switches, /models lists")
    talk.switch(name)
    return Note(f"{talk.model} answers from here on, over the conversation's cache")


def _models(talk: Conversation, _: str) -> Note:
    return Note("\n".join(f"{name} *" if name == talk.model else name for name in talk.models()))


def _system(talk: Conversation, text: str) -> Note:
    talk.system = text
    return Note("system message set" if text else "no system message")


def _clear(talk: Conversation, _: str) -> Note:
    talk.clear()
    return Note("the conversation is forgotten")


def _save(talk: Conversation, name: str) -> Note:
    if not name:
        return Note("/save needs the name of a file")
    path = Path(name).expanduser()
    talk.save(path)
    return Note(f"saved as {path}")


def _help(talk: Conversation, _: str) -> Note:
    usage = {f"{name} {command.argument}".rstrip(): command.help for name, command in COMMANDS.items()}
    width = max(map(len, usage))
    return Note("\n".join(f"{how:<{width}}  {what}" for how, what in usage.items()))


def _quit(talk: Conversation, _: str) -> Quit:
    return Quit()


COMMANDS = {
    "/model": Command("NAME", "let another module answer; the conversation and its cache stay", _model),
    "/models": Command("", "list the modules", _models),
    "/system": Command("TEXT", "set the system message; without TEXT, none", _system),
    "/clear": Command("", "forget the conversation", _clear),
    "/save": Command("FILE", "write the conversation into a new file", _save),
    "/help": Command("", "this list", _help),
    "/quit": Command("", "leave, as Ctrl-D does", _quit),
    "/exit": Command("", "the same", _quit),
}
