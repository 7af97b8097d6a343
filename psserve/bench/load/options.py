"""How sessions are sent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from psserve.bench.record import RequestRecord
from psserve.errors import UsageError

Api = Literal["chat", "completions"]


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """Settings of one run."""

    concurrency: int | None = 4
    """Closed loop: so many sessions at a time. None: open loop, each session starts at its `start_s`."""
    limit: int | None = None
    """Open loop: at most so many sessions at a time; one that arrives meanwhile waits for the end of another."""
    warmup: int = 0
    """The first so many sessions run before all others, and their requests are marked `warmup`."""
    duration_s: float | None = None
    """No session starts later than this after the first one that counts; those under way go on to their end."""
    api: Api = "chat"
    """`completions` sends token ids: prompts of exactly the lengths wanted. Needs `tokenizer`."""
    api_key: str | None = None
    certificate: Path | None = None
    """The one that servers at https URLs must show; None: one that the system trusts."""
    tokenizer: Path | None = None
    """The model's tokenizer.json, or a directory with it. None: the server's counts tell how long words are."""
    salt: str = ""
    """Texts differ between runs of different salt, so that a run does not find the caches of the one before."""
    timeout_s: float = 600.0
    """A request fails after so many seconds without a byte."""

    def __post_init__(self) -> None:
        if self.api == "completions" and self.tokenizer is None:
            raise UsageError("--api completions sends token ids: give the model's --tokenizer")


class LoadProgress(Protocol):
    """Who is told how a run goes on."""

    def begin(self, sessions: int | None) -> None:
        """The load starts; so many sessions, None if that is not known."""

    def request_ended(self, record: RequestRecord) -> None:
        """One request has its answer, or failed."""

    def session_ended(self) -> None:
        """One session is over, well or not."""
