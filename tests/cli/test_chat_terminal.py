"""`psserve chat` typed on a real terminal. The server is the scripted one of test_chat."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pexpect
import pytest

from tests.fleet.chat.test_chat import Script, delta, url

__all__ = ["url"]

WAIT_S = 120
"""Only bounds a test that hangs."""
NO_CURSOR_QUESTIONS = {"PROMPT_TOOLKIT_NO_CPR": "1"}
"""A terminal would answer where its cursor is; pexpect does not."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm", "NO_COLOR": "1", **NO_CURSOR_QUESTIONS}


def await_prompt(terminal: pexpect.spawn, module: str) -> None:
    """Until the terminal is in the prompt's hands: what is typed before that may be lost with Ctrl-C and Ctrl-D."""
    terminal.expect(r"\x1b\[\?2004h")  # bracketed paste on
    terminal.expect(f"{module}>")


def test_a_conversation(url: str, environment: dict[str, str], tmp_path: Path) -> None:
    command = ["-m", "psserve.cli.main", "chat", "--url", url]
    terminal = pexpect.spawn(sys.executable, command, env=environment, encoding="utf-8", timeout=WAIT_S)
    await_prompt(terminal, "math")
    terminal.sendline("hi there")
    terminal.expect(r"Hello\r?\n")
    terminal.expect(r"prompt 50 tokens, 40 cached \(80%\); answer 16, first in .*cut at the length limit")
    await_prompt(terminal, "math")
    terminal.sendline("/model poems")
    terminal.expect("psserve: error: .* has no model poems; it has: math, code")
    await_prompt(terminal, "math")
    terminal.sendline("/model code")
    await_prompt(terminal, "code")
    Script.lines = [delta("bro")]
    terminal.sendline("break")
    terminal.expect(r"bro\r?\n.*psserve: error: the answer broke off")
    await_prompt(terminal, "code")
    terminal.send("half a line")
    terminal.sendcontrol("c")
    await_prompt(terminal, "code")
    terminal.sendcontrol("d")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert [request["model"] for request in Script.requests] == ["math", "code"]
    assert "+hi there" in (tmp_path / "psserve" / "chat_history").read_text()
