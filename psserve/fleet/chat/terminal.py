"""`psserve chat` on a terminal: a prompt with history and completion, answers as they come, and what each one took."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output
from rich.console import Console

from psserve.console import console, printable
from psserve.errors import FleetError, PsserveError
from psserve.fleet.chat.chat import Chat
from psserve.fleet.chat.commands import CHAT_COMMANDS, Quit, ToSay, ToShow, obey

WELCOME = "Ctrl-C stops an answer, Ctrl-D leaves, Alt-Enter starts a new line, /help lists the commands"


def converse(talk: Chat) -> None:
    """Read and answer until Ctrl-D or /quit. Answers go to stdout, all else to stderr."""
    notes = console(sys.stderr)
    notes.print(f"{talk.model} at {talk.url}\n{WELCOME}", style="dim")
    session = _session(talk)
    going_on = True
    while going_on:
        with suppress(KeyboardInterrupt):  # ends this line or this answer, not the conversation
            going_on = _turn(talk, session, notes)


def _turn(talk: Chat, session: PromptSession[str], notes: Console) -> bool:
    """Read one line and do what it asks. Returns whether to go on."""
    try:
        asked = obey(talk, session.prompt(lambda: _prompt(talk)))
        if isinstance(asked, ToSay):
            _answer(talk, asked.text, notes)
        elif isinstance(asked, ToShow) and asked.text:
            notes.print(printable(asked.text), style="dim")
        return not isinstance(asked, Quit)
    except EOFError:
        return False
    except PsserveError as error:
        notes.print(f"psserve: error: {' '.join(printable(str(error)).split())}", style="red")
        return True


def _answer(talk: Chat, text: str, notes: Console) -> None:
    """Print the answer as it comes, then a line on what it took."""
    try:
        for piece in talk.say(text, lambda thought: notes.print(printable(thought), style="dim", end="")):
            sys.stdout.write(printable(piece))
            sys.stdout.flush()
    except KeyboardInterrupt:
        notes.print("\n(stopped; this turn is forgotten)", style="dim")
        return
    except FleetError:
        print()
        raise
    print()
    if talk.last is not None:
        notes.print(talk.last.facts(), style="dim")


def _session(talk: Chat) -> PromptSession[str]:
    return PromptSession(
        history=open_history(history_path()),
        completer=ChatCompleter(talk),
        complete_while_typing=False,
        complete_in_thread=True,
        key_bindings=_keys(),
        output=create_output(stdout=sys.stderr),
        prompt_continuation="... ",
    )


def _prompt(talk: Chat) -> FormattedText:
    style = "" if os.environ.get("NO_COLOR") else "bold ansicyan"
    return FormattedText([(style, f"{talk.model}> ")])


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


class ChatCompleter(Completer):
    """Commands at the start of a line, modules after `/model`, files after `/save`."""

    def __init__(self, talk: Chat) -> None:
        self._talk = talk
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        word, space, rest = document.text_before_cursor.partition(" ")
        if not word.startswith("/"):
            return []
        if not space:
            return _starting_with(word, CHAT_COMMANDS)
        if word == "/model":
            return _starting_with(rest, self._models())
        if word == "/save":
            return self._paths.get_completions(Document(rest), complete_event)
        return []

    def _models(self) -> list[str]:
        with suppress(FleetError):
            return self._talk.models()
        return []


def _starting_with(typed: str, known: Iterable[str]) -> Iterator[Completion]:
    return (Completion(name, start_position=-len(typed)) for name in known if name.startswith(typed))


def history_path() -> Path:
    """The file in which what was typed is kept: under $XDG_STATE_HOME, by default ~/.local/state."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "psserve" / "chat_history"


def open_history(path: Path) -> History:
    """History in a file that only its user can read; in memory alone where there can be no such file."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError:
        return InMemoryHistory()
    return FileHistory(path)
