"""What lines typed into a chat mean. The server is the scripted one of test_chat."""

from __future__ import annotations

from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, InMemoryHistory

from psserve.errors import FleetError, UnknownModule
from psserve.fleet.chat.chat import Chat
from psserve.fleet.chat.commands import CHAT_COMMANDS, Quit, ToSay, ToShow, obey
from psserve.fleet.chat.terminal import ChatCompleter, history_path, open_history
from psserve.fleet.run.router_client import RouterClient
from tests.fleet.chat.test_chat import url

__all__ = ["url"]


@pytest.fixture
def talk(url: str) -> Chat:
    return Chat(RouterClient(url), "math")


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("  hello ", ToSay("hello")),
        ("//etc/passwd is what?", ToSay("/etc/passwd is what?")),
        ("", ToShow("")),
        ("/quit", Quit()),
        ("/exit", Quit()),
        ("/model", ToShow("math answers; /model NAME switches, /models lists")),
        ("/models", ToShow("math *\ncode")),
        ("/save", ToShow("/save needs the name of a file")),
        ("/save ~no-such-user/x", ToShow("~no-such-user/x: there is no such user")),
    ],
)
def test_meaning(talk: Chat, line: str, meaning: ToSay | ToShow | Quit) -> None:
    assert obey(talk, line) == meaning


def test_model_switches_and_an_unknown_one_changes_nothing(talk: Chat) -> None:
    obey(talk, "/model code")
    with pytest.raises(UnknownModule, match="no model poems; it has: math, code"):
        obey(talk, "/model poems")
    assert talk.model == "code"


def test_help_names_every_command(talk: Chat) -> None:
    note = obey(talk, "/help")
    assert isinstance(note, ToShow)
    assert [line.split()[0] for line in note.text.splitlines()] == list(CHAT_COMMANDS)


def test_an_unknown_command_is_told_and_not_sent(talk: Chat) -> None:
    note = obey(talk, "/nothing at all")
    assert isinstance(note, ToShow)
    assert note.text.startswith("no command /nothing;")


def test_save_writes_who_said_what_once(talk: Chat, tmp_path: Path) -> None:
    obey(talk, "/system Be brief.")
    list(talk.say("hi"))
    obey(talk, "/model code")
    list(talk.say("again"))
    path = tmp_path / "talk.md"
    obey(talk, f"/save {path}")
    turns = ["**user**", "hi", "**math**", "Hello", "**user**", "again", "**code**", "Hello"]
    assert path.read_text().split() == ["**system**", "Be", "brief.", *turns]
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FleetError, match="is there already"):
        obey(talk, f"/save {path}")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("/mo", ["/model", "/models"]),
        ("/model c", ["code"]),
        ("/model ", ["math", "code"]),
        ("hello /mo", []),
        ("", []),
    ],
)
def test_completion(talk: Chat, typed: str, offered: list[str]) -> None:
    found = ChatCompleter(talk).get_completions(Document(typed), CompleteEvent())
    assert [completion.text for completion in found] == offered


def test_history_is_for_its_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = history_path()
    path.parent.mkdir(parents=True)
    path.touch(mode=0o644)
    assert isinstance(open_history(path), FileHistory)
    assert path.stat().st_mode & 0o777 == 0o600


def test_history_that_cannot_be_kept_is_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert isinstance(open_history(tmp_path / "file" / "history"), InMemoryHistory)
