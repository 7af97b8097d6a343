"""Who asks a running fleet to change: callers of its control socket, and the zoo itself where it is watched."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from psserve.errors import PsserveError
from psserve.fleet.live.adapters import AdapterServers
from psserve.fleet.live.changes import Changes
from psserve.fleet.live.control_socket import ControlSocket, Tell
from psserve.fleet.live.moves import Moves
from psserve.fleet.live.supply import Supply
from psserve.fleet.run.member import Limits
from psserve.fleet.run.protocol import ChangeReply, ChangeRequest, control_path
from psserve.fleet.run.roster import Roster
from psserve.fleet.run.trials import KeptTrial, keep_trials, kept_trials
from psserve.zoo.disk.manifest import MODULE_MANIFEST

_LOOK_S = 0.25
"""Between two looks at the zoo."""
_TRIALS = "the trials of before"


class Requests:
    """Takes requests for changes from `open` on, and has them made from `begin` on, one after the other."""

    def __init__(self, roster: Roster, supply: Supply, limits: Limits, note: Tell, changed: Callable[[], None]) -> None:
        """`note` hears of every change; `changed` is called after each, before its end is told."""
        self._roster, self._supply, self._limits, self._note = roster, supply, limits, note
        self._changed = changed
        self._adapters = AdapterServers(roster, note)
        self._moves = Moves(roster, supply, note)
        self._changes: Changes | None = None
        self._socket = ControlSocket(control_path(roster.plan.tmp_dir), self.make)
        self._titles: list[str] = []
        """Of the change in progress and of those that wait, in their order."""
        self._turn = asyncio.Lock()
        """Whoever comes first has it first. Taken until the fleet is ready."""
        self._starting = True
        self._watch: ZooWatch | None = None
        self._following: asyncio.Task[None] | None = None
        self._trials: tuple[KeptTrial, ...] = ()
        """Of the fleet before this one."""
        self._resuming: asyncio.Task[None] | None = None
        self._own: asyncio.Task[None] | None = None
        """What the fleet itself has begun."""

    @property
    def busy(self) -> bool:
        """Whether a change is in progress, or waits."""
        return bool(self._titles)

    def move_lost(self) -> None:
        """Have servers whose host stays lost started on another one, unless a change is in progress or waits.

        A change that brings servers gives way to it (see Swap), and one that follows does it first (see Changes).
        """
        if not self.busy and (lost := self._moves.due()):
            names = ", ".join(member.spec.name for member in lost)
            self.begin_own(f"another host for {names}", partial(self._moves.move, lost))

    def begin_own(self, title: str, work: Callable[[], Awaitable[None]]) -> None:
        """Have this done as if it were a change, while the fleet is served on. One at a time; `close` breaks it off."""
        self._titles.append(title)
        self._own = asyncio.create_task(self._do_own(title, work))

    async def _do_own(self, title: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            async with self._turn:
                await work()
        except Exception:  # noqa: BLE001 - a bug in it must not end a fleet that serves
            sys.excepthook(*sys.exc_info())
        finally:
            self._titles.remove(title)

    async def open(self, weights: Mapping[str, str], watch: ZooWatch | None) -> None:
        """Listen from now on; a fleet that cannot serves all the same. `weights`: what each module is served with.

        `watch` says when the zoo is to be followed; None: only when asked.

        Raises FleetError: what was written down of the trials of the fleet before is damaged.
        """
        self._trials = kept_trials(self._roster.plan.run_dir)
        self._changes = Changes(self._roster, self._adapters, self._supply, self._moves, self._limits, weights)
        self._watch = watch
        await self._turn.acquire()
        try:
            await self._socket.open()
        except OSError as error:
            self._note(f"warning: no control socket ({error}): --live will not reach this fleet")

    def begin(self) -> None:
        """The fleet is ready: take up the trials of the one before, make what was asked for, and follow the zoo."""
        if self._trials:
            self._titles.insert(0, _TRIALS)  # whoever has asked already waits for it
            self._resuming = asyncio.create_task(self._resume())
        else:
            self._accept()

    def _accept(self) -> None:
        self._starting = False
        self._turn.release()
        if self._watch is not None:
            self._following = asyncio.create_task(self._follow(self._watch))

    async def close(self) -> None:
        """Listen no more; break off what is in progress, and tell whoever waits."""
        own = [task for task in (self._resuming, self._following, self._own) if task is not None]
        for task in own:
            task.cancel()
        await self._socket.close()  # which cancels at once too: no change begins because another one ended
        await self._adapters.close()
        if own:
            await asyncio.wait(own)

    async def make(self, request: ChangeRequest, tell: Tell) -> ChangeReply:
        """Make a change when its turn comes, so that it sees what the ones before have left."""
        if self._starting:
            tell("the fleet is starting: the change follows")
        if self._titles:
            tell(f"{request.title} waits for: {', '.join(self._titles)}")
        self._titles.append(request.title)
        try:
            async with self._turn:
                reply = await self._try(request, tell)
                self._keep_trials()
                self._changed()
        finally:
            self._titles.remove(request.title)
        self._note(f"{request.title}: {reply.done or reply.error}")
        return reply

    async def _try(self, request: ChangeRequest, tell: Tell) -> ChangeReply:
        def tell_all(text: str) -> None:
            for line in text.splitlines():
                self._note(line)
                tell(line)

        assert self._changes is not None, "changes are made once open"
        try:
            return ChangeReply(done=await self._changes.make(request, tell_all))
        except (PsserveError, OSError) as error:
            return ChangeReply(error=str(error))
        except Exception:  # noqa: BLE001 - a bug in a change must not end a fleet that serves
            sys.excepthook(*sys.exc_info())
            return ChangeReply(error="a bug in psserve: the supervisor's log has the traceback")

    async def _resume(self) -> None:
        """Take up the trials of the fleet before this one, as far as it can be done.

        Their file stays as it is meanwhile, so that no end of this fleet loses one.
        """
        for trial in self._trials:
            reason = await self._take_up(trial)
            said = "is on trial again" if reason is None else f"is on trial no more: {reason}"
            self._note(f"{'' if reason is None else 'warning: '}{trial} {said}")
            self._changed()
        self._keep_trials()
        self._titles.remove(_TRIALS)
        self._accept()

    async def _take_up(self, trial: KeptTrial) -> str | None:
        """Serve it as it was served. Returns why not, if not."""
        served = next((one for one in self._roster.config.modules if one.name == trial.module), None)
        if served is None:
            return f"{trial.module} is not served"
        if served.zoo_version != trial.beside:
            return f"version {served.shown_version} is served now, and no longer version {trial.beside}"
        request = ChangeRequest(
            command="try", module=trial.module, version=trial.version, share=trial.share, shadow=trial.shadow
        )
        return (await self._try(request, lambda text: None)).error

    def _keep_trials(self) -> None:
        try:
            keep_trials(self._roster.plan.run_dir, self._roster.config.modules)
        except OSError as error:
            self._note(f"warning: what is on trial cannot be written down ({error}): no later fleet will know")

    async def _follow(self, watch: ZooWatch) -> None:
        """Follow the zoo whenever it has changed; the supervisor's own notes tell of it."""
        while True:
            if await asyncio.to_thread(watch.changed):
                await self.make(ChangeRequest(command="reload"), lambda text: None)
            await asyncio.sleep(_LOOK_S)


_EVERY_S = 1.0

Signature = frozenset[tuple[str, int, int, int]]


class ZooWatch:
    """Looks at the modules' manifests once a second: a manifest is written last, so then its module is complete."""

    def __init__(self, zoo: Path) -> None:
        """What differs from now on has changed."""
        self._modules = zoo / "modules"
        self._next = 0.0
        self._known = self._last = self._look()

    def changed(self) -> bool:
        """Whether the zoo differs from what it was when this was last true, and has come to rest (for a second)."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _EVERY_S
        last, self._last = self._last, self._look()
        if self._last == self._known or self._last != last:
            return False
        self._known = self._last
        return True

    def _look(self) -> Signature:
        found = set()
        for manifest in self._modules.glob(f"*/{MODULE_MANIFEST}"):
            try:
                info = manifest.stat()
            except OSError:  # it has just been moved
                continue
            found.add((manifest.parent.name, info.st_ino, info.st_mtime_ns, info.st_size))
        return frozenset(found)
