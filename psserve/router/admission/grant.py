"""What a sequence that was let in takes up, until it gives it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from psserve.router.admission.rooms import DecodeRoom, PrefillRoom
from psserve.router.checks import Body
from psserve.router.policies import Prompt
from psserve.router.routing import Place
from psserve.router.workers import Worker


@dataclass(eq=False)
class Grant:
    """A pair of workers, and room on both. End it once the sequence has ended, in whatever way."""

    place: Place
    module: str
    prompt: Prompt
    unshared_tokens: int
    prefill_room: PrefillRoom
    decode_room: DecodeRoom
    freed: Callable[[], None]
    """Called whenever there may be room for others."""
    _in_window: bool = True
    _ended: bool = False

    def __post_init__(self) -> None:
        self.prefill_room.add(self.module, self.place.prefill_tokens)
        self.decode_room.add(self.prompt, self.unshared_tokens)

    @property
    def prefill(self) -> Worker:
        return self.place.prefill

    @property
    def decode(self) -> Worker:
        return self.place.decode

    def prefilled(self, body: Body, prompt_tokens: int) -> None:
        """The prefill worker has read the prompt: `prompt_tokens` tokens for `body`."""
        self.place.prefilled(body, prompt_tokens)
        self._leave_window()
        self.freed()

    def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self.place.end()
        self._leave_window()
        self.decode_room.remove(self.prompt, self.unshared_tokens)
        self.freed()

    def _leave_window(self) -> None:
        if self._in_window:
            self._in_window = False
            self.prefill_room.remove(self.module, self.place.prefill_tokens)
