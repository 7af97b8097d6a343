"""What a running fleet can be asked to change: add, replace or remove a module, or follow the zoo as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from psserve.contracts.router_config import VERSION_MARK, ModuleConfig, Trial
from psserve.errors import FleetError, PsserveError, UnknownModule
from psserve.fleet.live.adapters import AdapterServers
from psserve.fleet.live.control_socket import Tell
from psserve.fleet.live.moves import Moves
from psserve.fleet.live.supply import Offer, Offers, Supply
from psserve.fleet.live.swap import Leaving, Swap, run_command
from psserve.fleet.live.waiting import until
from psserve.fleet.options.key_file import client_keys
from psserve.fleet.plan import layout
from psserve.fleet.plan.spec import ModulePlan
from psserve.fleet.run.adapters import link_adapter
from psserve.fleet.run.member import Limits
from psserve.fleet.run.protocol import ChangeRequest
from psserve.fleet.run.roster import Roster

Change = Callable[[str, Tell], Awaitable[str]]
"""Changes one module, and returns what was done in one line."""

_LOOK_AGAIN_S = 1.0
"""A module that is being replaced is not there for a moment."""


class Changes:
    """The changes of one fleet. Made one at a time: each starts from what the one before has left."""

    def __init__(
        self,
        roster: Roster,
        adapters: AdapterServers,
        supply: Supply,
        moves: Moves,
        limits: Limits,
        weights: Mapping[str, str],
    ) -> None:
        """`weights`: what each module was started with (see `checkpoints.weights_of`)."""
        self._roster, self._adapters, self._supply, self._moves, self._limits = roster, adapters, supply, moves, limits
        launched = (entry for entry in roster.config.modules if entry.adapter is not None)
        self._used_versions = {entry.name: entry.version for entry in launched}
        """Module -> the last version whose name an adapter had, which none gets again."""
        self._weights = dict(weights)
        self._tried_weights: dict[str, str] = {}
        """What each version on trial was started with."""
        plan = roster.plan
        self._wanted = None if plan.basis.options.modules is None else frozenset(plan.modules)
        self._dismissed: dict[str, str] = {}

    async def make(self, request: ChangeRequest, tell: Tell) -> str:
        """Make a change. Returns what was done, in one line; `tell` hears of it meanwhile.

        Raises FleetError, ZooError, PlanError or OSError; then the fleet serves what it served before.
        """
        if request.module is None:
            return await (self.keys() if request.command == "keys" else self.reload(tell))
        if request.command == "try" and request.version is not None:
            return await self.try_version(request.module, request.version, request, tell)
        if request.command == "withdraw":
            return await self.withdraw(request.module, tell, request.version)
        change: Change = {"add": self.add, "update": self.update, "remove": self.remove}[request.command]
        return await change(request.module, tell)

    async def add(self, module: str, tell: Tell) -> str:
        """Serve a module of the zoo."""
        offer = await self._offer(module)
        if module not in self._served():
            await self._replace(module, offer, tell)
            return f"{module} is served"
        if offer.weights != self._weights.get(module):
            raise FleetError(f"{module} is served with other weights: replace them with `psserve update-model`")
        return f"{module} is served already"

    async def update(self, module: str, tell: Tell) -> str:
        """Serve the weights that the zoo has for a module now: if they are on trial, with the servers of the trial."""
        offer = await self._offer(module)
        served = self._served_module(module)
        if offer.weights == self._weights.get(module):
            await self._describe(module, offer)
            return f"{module} is served with these weights already"
        if served.trial is not None and offer.weights == self._tried_weights[module]:
            await self._promote(module, offer, tell)
            return f"{module} is served with the weights that were on trial"
        if served.trial is not None:
            tell(await self.withdraw(module, tell))
        await self._replace(module, offer, tell)
        return f"{module} is served with its new weights"

    async def remove(self, module: str, tell: Tell) -> str:
        """Serve a module no more."""
        served = self._served()
        if module not in served:
            return f"{module} is not served"
        if module == self._roster.plan.base:
            raise FleetError(f"{module} is the base: it is served until the fleet is started without --serve-base")
        if len(served) == 1:
            raise FleetError(f"{module} is the only module served: end the fleet with `psserve stop`")
        if served[module].trial is not None:
            tell(await self.withdraw(module, tell))
        await self._replace(module, None, tell)
        return f"{module} is served no more"

    async def try_version(self, module: str, version: int, request: ChangeRequest, tell: Tell) -> str:
        """Serve another of the zoo's versions of a module beside it, as far as `request` says."""
        served = self._served_module(module)
        wanted = {"share": request.share, "shadow": request.shadow}
        if served.trial is None:
            await self._bring_version(served, version, wanted, tell)
        elif served.trial.zoo_version == version:
            await self._list(served.model_copy(update={"trial": served.trial.model_copy(update=wanted)}))
        else:
            found = served.trial.zoo_version
            raise FleetError(f"version {found} of {module} is on trial: promote it or roll it back first")
        shadow = ", and in the shadow of the others" if request.shadow else ""
        return f"version {version} of {module} is on trial, for {request.share:g} % of its sessions{shadow}"

    async def withdraw(self, module: str, tell: Tell, version: int | None = None) -> str:
        """End the trial of a module's version, or of this one alone; its sessions get the other one."""
        served = self._served_module(module)
        if served.tried is None or version not in (served.tried.zoo_version, None):
            return f"no version of {module} is on trial" if version is None else f"version {version} is not on trial"
        listed = served.model_copy(update={"trial": None})
        await self._swap(tell, module=module, listed=listed, leaving=self._leaving(served.tried))
        self._tried_weights.pop(module, None)
        return f"version {served.tried.zoo_version} of {module} is on trial no more"

    async def keys(self) -> str:
        """Accept the keys of clients that the key file holds now, and no others."""
        return await self._follow_keys() or "the keys are the same"

    async def reload(self, tell: Tell) -> str:
        """Follow the zoo: accept its keys, serve what came, replace what has other weights, end what has gone.

        A change that fails does not keep the others from being made; FleetError then names those that failed.
        """
        offers = await asyncio.to_thread(self._supply.offers)
        failed: list[str] = []
        done = 0
        try:
            if said := await self._follow_keys():
                tell(said)
                done += 1
        except PsserveError as error:
            failed.append(f"keys: {error}")
            tell(f"warning: {failed[-1]}")
        for module, reason in offers.damaged.items():
            tell(f"warning: {module} stays as it is: {reason}")
        for module, change in (await self._differences(offers)).items():
            try:
                tell(await change(module, tell))
                done += 1
            except (PsserveError, OSError) as error:
                failed.append(f"{module}: {error}")
                tell(f"warning: {failed[-1]}")
        if kept_out := self._kept_out(offers):
            tell(f"left out, as --modules or an earlier change has it: {', '.join(kept_out)}")
        if failed:
            raise FleetError("; ".join(failed))
        return f"{done} {'change' if done == 1 else 'changes'} made" if done else "nothing to change"

    async def _follow_keys(self) -> str | None:
        plan = self._roster.plan
        keys = client_keys(plan.basis.options, plan.zoo).keys
        before = self._roster.config.keys
        if keys == before:
            return None
        if keys is None:
            raise FleetError("the key file is gone: the keys stay as they are, for without it anybody could come in")
        self._roster.tell(keys=keys)
        await until(lambda: self._roster.is_followed, self._limits.drain_s)
        return f"{len(keys)} {'key is' if len(keys) == 1 else 'keys are'} accepted"

    async def _differences(self, offers: Offers) -> dict[str, Change]:
        """Module -> the method that makes it as the zoo has it. In an order that never leaves the fleet without any."""
        gone = self._gone(offers)
        if gone:
            await asyncio.sleep(_LOOK_AGAIN_S)
            offers = await asyncio.to_thread(self._supply.offers)
            gone = self._gone(offers)
        served = self._served()
        found: dict[str, Change] = {}
        for module, offer in offers.modules.items():
            if module in served:
                if offer.weights != self._weights.get(module) or _differ(offer.entry, served[module]):
                    found[module] = self.update
            elif self._wants(module, offer):
                found[module] = self.add
        return found | dict.fromkeys(gone, self.remove)

    def _gone(self, offers: Offers) -> list[str]:
        there = offers.modules.keys() | offers.damaged.keys() | {self._roster.plan.base}
        return [module for module in self._served() if module not in there]

    def _kept_out(self, offers: Offers) -> list[str]:
        served = self._served()
        return sorted(
            name for name, offer in offers.modules.items() if name not in served and not self._wants(name, offer)
        )

    def _wants(self, module: str, offer: Offer) -> bool:
        """Whether the fleet should serve a module that it does not: not what it was told to remove, as it was then."""
        return (self._wanted is None or module in self._wanted) and self._dismissed.get(module) != offer.weights

    async def _replace(self, module: str, offer: Offer | None, tell: Tell) -> None:
        """From what serves the module now, if anything, to what `offer` needs, if there is one."""
        served = self._served().get(module)
        new = await self._plan(module, module, served) if offer else None
        leaving = self._leaving(served) if served else None
        await self._swap(tell, module=module, listed=new.entry if new else None, new=new, leaving=leaving)
        old_weights = self._weights.pop(module, "")
        if offer:
            self._weights[module] = offer.weights
            self._dismissed.pop(module, None)
        else:
            self._dismissed[module] = old_weights

    async def _bring_version(self, served: ModuleConfig, version: int, wanted: Mapping[str, Any], tell: Tell) -> None:
        """Put a version of a module on trial."""
        module, name = served.name, f"{served.name}{VERSION_MARK}{version}"
        offer = await asyncio.to_thread(self._supply.version, name)
        if offer.weights == self._weights.get(module):
            raise FleetError(f"{module} is served with these weights already: version {version} has no others")
        new = await self._plan(module, name, served)
        entry = new.entry
        trial = Trial(
            version=entry.version,
            zoo_version=version,
            path=entry.path,
            group=entry.group,
            adapter=entry.adapter,
            **wanted,
        )
        await self._swap(tell, module=module, listed=served.model_copy(update={"trial": trial}), new=new)
        self._tried_weights[module] = offer.weights

    async def _promote(self, module: str, offer: Offer, tell: Tell) -> None:
        """Serve the version on trial alone."""
        served = self._served_module(module)
        assert served.tried is not None, "there is one on trial"
        listed = _as_served(offer.entry, served.tried)
        await self._swap(tell, module=module, listed=listed, leaving=self._leaving(served))
        self._weights[module] = self._tried_weights.pop(module)

    async def _plan(self, module: str, name: str, served: ModuleConfig | None) -> ModulePlan:
        """Plan the servers of `name`, the module or a version of it, under a number that none has.

        Servers that are to move off a lost host do so first: these ones may need them to become ready.
        """
        await self._moves.move(self._moves.due())
        version = served.version if served else 0
        number = max(version, self._used_versions.get(module, 0)) + 1
        new = await asyncio.to_thread(self._supply.plan, self._roster.plan, name, number)
        if new.adapter is not None:
            self._used_versions[module] = new.version
        return new

    def _leaving(self, version: ModuleConfig) -> Leaving:
        return Leaving(
            servers=self._roster.servers_of(version.name, version.version),
            adapter=version.adapter,
            checkpoint=layout.checkpoint_path(self._roster.plan.run_dir, version.name, version.version),
        )

    async def _swap(
        self,
        tell: Tell,
        *,
        module: str,
        listed: ModuleConfig | None,
        new: ModulePlan | None = None,
        leaving: Leaving | None = None,
    ) -> None:
        swap = Swap(
            self._roster, self._adapters, self._limits, tell, module=module, listed=listed, new=new, leaving=leaving
        )
        await swap.run(self._make)

    async def _make(self, new: ModulePlan) -> None:
        """Put on disk what a module's servers will load."""
        if new.adapter is not None:
            form = await asyncio.to_thread(self._supply.serving_form, new.adapter.module)
            link_adapter(self._roster.plan.run_dir, new.adapter.name, form)
        if new.checkpoint is not None:
            command = self._supply.materialise(new.checkpoint)
            await run_command(command, f"the checkpoint of {new.module} cannot be made")

    async def _describe(self, module: str, offer: Offer) -> None:
        """Tell the router what the zoo says of a module beside its weights: aliases, task."""
        await self._list(_as_served(offer.entry, self._served_module(module)))

    async def _list(self, module: ModuleConfig) -> None:
        """Tell the router of a module that it has, with what it has for servers."""
        self._roster.tell(modules=(self._served() | {module.name: module}).values())
        await until(lambda: self._roster.is_followed, self._limits.drain_s)

    async def _offer(self, module: str) -> Offer:
        offers = await asyncio.to_thread(self._supply.offers)
        if module in offers.damaged:
            raise FleetError(offers.damaged[module])
        if module not in offers.modules:
            raise UnknownModule(f"no module {module!r} in {self._roster.plan.zoo}")
        return offers.modules[module]

    def _served_module(self, module: str) -> ModuleConfig:
        served = self._served()
        if module not in served:
            raise FleetError(f"{module} is not served: add it with `psserve add-model --live`")
        return served[module]

    def _served(self) -> dict[str, ModuleConfig]:
        """Module -> its entry in the router's configuration."""
        return {entry.name: entry for entry in self._roster.config.modules}


def _differ(entry: ModuleConfig, served: ModuleConfig) -> bool:
    """Whether the router must be told something new, the version aside."""
    return _as_served(entry, served) != served


def _as_served(entry: ModuleConfig, served: ModuleConfig) -> ModuleConfig:
    """What the zoo says of a module, with what serves it now: it has a trial only if that has one."""
    return entry.model_copy(update={name: getattr(served, name) for name in ("version", "group", "adapter", "trial")})
