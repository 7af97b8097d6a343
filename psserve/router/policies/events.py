"""What a server's cache holds, as the KV events of its SGLang tell: every page that enters its radix tree or leaves it.

An event names pages by SGLang's hashes and carries the token ids of new ones, so our own names are made from those; the
hashes only say which page an event means.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from psserve.router.policies.base import Choice, Prompt, chain, token_bytes
from psserve.router.policies.index import Holdings

GPU = "GPU"
STORED_FIELDS = 7
"""Fields of a BlockStored event; those of salted prompts have one more, and are not followed."""
UNTOLD_LIMIT = 256


class EventTree:
    """The pages of one server's radix tree. `page_size`: tokens of one."""

    def __init__(self, page_size: int) -> None:
        self.is_complete = False
        """All events since the tree was empty were seen."""
        self._page_size = page_size
        self._names: dict[int, int] = {}  # SGLang's hash -> our name
        self._held: set[int] = set()

    def __len__(self) -> int:
        return len(self._held)

    def match(self, blocks: Sequence[int]) -> int:
        """How many leading ones of `blocks`, each a page, are in the tree."""
        return sum(1 for _ in takewhile(self._held.__contains__, blocks))

    def apply(self, event: Sequence[Any] | Mapping[str, Any]) -> None:
        """One event as it was sent: its kind, then its fields; by SGLang since 0.5.20, a map of both.

        Unknown kinds and other memory are passed over.
        """
        if isinstance(event, Mapping):
            event = _in_order(event)
        kind = event[0]
        if kind == "BlockStored" and len(event) == STORED_FIELDS and event[6] in (None, GPU):
            self._store(event[1], event[2], event[3], event[4])
        elif kind == "BlockRemoved" and event[2] in (None, GPU):
            for page in event[1]:
                self._held.discard(self._names.pop(page, 0))
        elif kind == "AllBlocksCleared":
            self._names.clear()
            self._held.clear()
            self.is_complete = True

    def _store(self, pages: Sequence[int], parent: int | None, tokens: Sequence[int], page_size: int) -> None:
        """Pages that follow one another. Those after a page we do not know have no name of ours: they are left out."""
        name = 0 if parent is None else self._names.get(parent)
        if name is None or page_size != self._page_size:
            return
        for index, page in enumerate(pages):
            name = chain(name, token_bytes(tokens[index * page_size : (index + 1) * page_size]))
            self._names[page] = name
            self._held.add(name)


def _in_order(event: Mapping[str, Any]) -> list[Any]:
    """A map's fields in the order that SGLang had before. A salt or an adapter is one field more, as it was there."""
    if event["type"] != "BlockStored":
        return [event["type"], event.get("block_hashes"), event.get("medium")]
    fields = ("block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium")
    more = [event[name] for name in ("cache_salt", "lora_name") if event.get(name) is not None]
    return [event["type"], *(event.get(name) for name in fields), *more]


class FollowedHoldings:
    """Servers hold what their events tell, and the prompts that they are computing.

    Where the events are not complete (the server publishes none, or we came too late), `fallback` is asked.
    """

    def __init__(self, page_size: int, fallback: Holdings) -> None:
        self._page_size = page_size
        self._fallback = fallback
        self._trees: dict[str, EventTree] = {}
        self._coming: dict[str, Counter[int]] = {}
        self._untold: dict[str, deque[Choice]] = {}  # computed, but no event has come since

    def match(self, server: str, prompt: Prompt) -> int:
        tree = self._trees.get(server)
        if tree is None or not tree.is_complete:
            return self._fallback.match(server, prompt)
        coming: Counter[int] = self._coming.get(server, Counter())
        return max(tree.match(prompt.blocks), sum(1 for _ in takewhile(coming.__contains__, prompt.blocks)))

    def assigned(self, choice: Choice) -> None:
        self._fallback.assigned(choice)
        self._coming.setdefault(choice.server, Counter()).update(choice.request.prompt.blocks)

    def finished(self, choice: Choice, served: bool) -> None:
        self._fallback.finished(choice, served)
        blocks, tree = choice.request.prompt.blocks, self._trees.get(choice.server)
        if not served or tree is None or tree.match(blocks) == len(blocks):
            self._came(choice)
            return
        untold = self._untold.setdefault(choice.server, deque())
        untold.append(choice)
        if len(untold) > UNTOLD_LIMIT:
            self._came(untold.popleft())

    def forget(self, server: str) -> None:
        """The tree is not known from here on: whoever follows the events must begin anew."""
        self._fallback.forget(server)
        self._trees.pop(server, None)
        for choice in self._untold.pop(server, ()):
            self._came(choice)

    def renew(self, server: str) -> EventTree:
        """An empty tree for `server`, to be filled from its first event on."""
        tree = self._trees[server] = EventTree(self._page_size)
        return tree

    def is_current(self, server: str, tree: EventTree) -> bool:
        """Whether `tree` is still the one of `server`."""
        return self._trees.get(server) is tree

    def told(self, server: str) -> None:
        """Events of `server` were applied: they tell of the prompts that it computed before."""
        for choice in self._untold.pop(server, ()):
            self._came(choice)

    def _came(self, choice: Choice) -> None:
        coming = self._coming[choice.server]
        coming.subtract(choice.request.prompt.blocks)
        for block in choice.request.prompt.blocks:
            if coming[block] <= 0:
                del coming[block]
