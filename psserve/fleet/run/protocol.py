"""What goes over a fleet's control socket: one line of JSON there, some lines of JSON back.

{"command": "add", "module": "math"}      add, update, remove: a module; reload: all of the zoo; keys: of clients
{"command": "try", "module": "math", "version": 4, "share": 10}   a version beside it, until update or withdraw
{"progress": "decode-math-0: starting"}   any number of these
{"done": "math is served"}                or {"error": "..."}; then the connection ends
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import O_DIRECTORY, O_PATH, close
from os import open as os_open
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

ChangeCommand = Literal["add", "update", "remove", "try", "withdraw", "reload", "keys"]
LONGEST_LINE = 4096


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def line(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode() + b"\n"


class ChangeRequest(_Message):
    """A request for a change."""

    command: ChangeCommand
    module: str | None = None
    """A module's own name, no alias."""
    version: int | None = None
    """The zoo's number of the version to try, or of the only one to withdraw."""
    share: float = Field(default=0.0, ge=0, le=100)
    """Percent of the sessions that it is to answer."""
    shadow: bool = False
    """Whether it is to answer copies of the other sessions' requests."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.module is None) != (self.command in ("reload", "keys")):
            raise ValueError("add, update, remove, try and withdraw need a module, reload and keys take none")
        if self.version is None and self.command == "try":
            raise ValueError("try needs a version")
        if self.version is not None and self.command not in ("try", "withdraw"):
            raise ValueError("only try and withdraw take a version")
        return self

    @property
    def title(self) -> str:
        version = "" if self.version is None else f"@{self.version}"
        return f"{self.command} {self.module}{version}" if self.module else self.command


class ChangeReply(_Message):
    """A line of the answer: exactly one of these."""

    progress: str | None = None
    done: str | None = None
    error: str | None = None


def control_path(tmp_dir: Path) -> Path:
    """The socket, in the fleet's private folder: it is readable for its user alone."""
    return tmp_dir / "control.sock"


@contextmanager
def short_name(path: Path) -> Iterator[str]:
    """The same file under a name that fits a socket address, which takes at most 107 bytes."""
    folder = os_open(path.parent, O_PATH | O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        close(folder)


def at_path(path: Path, act: Callable[[str], None]) -> None:
    """Bind or connect a socket at a path of any length."""
    with short_name(path) as name:
        act(name)


def unix_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
