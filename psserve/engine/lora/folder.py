"""An adapter is loaded by its first request, from the fleet's folder: `FOLDER/NAME` is the adapter of that name.

So a server that starts anew need be told nothing, and an adapter that nobody asks for costs nothing. SGLang would load
what was loaded before, or what a path names; here a name means what is in the folder now, or nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from psserve.engine.handover.sglang.adapters import AdapterRequest, LoadedAdapter, LoadRequest, LoRARegistry
from psserve.engine.handover.sglang.http_process import TokenizerManager
from psserve.engine.hooks import Hook, Kind

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*@[0-9]+")
"""NAME@EDITION: no path, and nothing that leads out of the folder."""
_CHUNK_BYTES = 1 << 20


class Folder:
    """The adapters that may be asked for, and those that requests are asking for at this moment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._arriving: Counter[str] = Counter()

    def find(self, name: str) -> Path | None:
        """The folder of an adapter, or None where there is none of that name."""
        folder = self._path / name
        return folder if _NAME.fullmatch(name) and (folder / "adapter_config.json").is_file() else None

    async def resolve(
        self,
        original: Callable[[TokenizerManager, AdapterRequest], Awaitable[None]],
        manager: TokenizerManager,
        obj: AdapterRequest,
    ) -> None:
        """AROUND `TokenizerManager._resolve_lora_path`, which refuses names that it finds nothing for (ValueError)."""
        names = [obj.lora_path] if isinstance(obj.lora_path, str) else [name for name in obj.lora_path if name]
        self._arriving.update(names)
        try:
            for name in set(names) - manager.lora_registry.get_all_adapters().keys():
                self._offer(manager, name)
            await original(manager, obj)
        finally:
            self._arriving.subtract(names)
            self._arriving += Counter()  # keeps what is above 0

    def _offer(self, manager: TokenizerManager, name: str) -> None:
        """Tell SGLang where an adapter is now, whatever it remembers."""
        manager.lora_ref_cache.pop(name, None)
        if (folder := self.find(name)) is not None:
            manager.lora_ref_cache[name] = _reference(name, folder)

    async def least_recently_used(
        self,
        original: Callable[..., Awaitable[str | None]],
        registry: LoRARegistry,
        exclude_pinned: bool = False,
    ) -> str | None:
        """AROUND `LoRARegistry.lru_lora_name`: one that is idle, if any is, and none that a request is coming for.

        SGLang holds back every other load until the requests of the one that is to go have ended.
        """
        loaded = registry.get_all_adapters()  # the least recently used one first
        leavable = [name for name, each in loaded.items() if not each.pinned and not self._arriving[name]]
        idle = [name for name in leavable if registry._counters[loaded[name].lora_id].value() == 0]
        return next(iter([*idle, *leavable]), None) or await original(registry, exclude_pinned)


async def _load_when_read(
    original: Callable[..., Awaitable[Any]], manager: TokenizerManager, obj: LoadRequest, *rest: Any
) -> Any:
    """AROUND `TokenizerManager.load_lora_adapter`. Schedulers parse an adapter between two steps: it is read before."""
    await asyncio.to_thread(_read, obj.lora_path)
    return await original(manager, obj, *rest)


def _read(directory: str) -> None:
    """Have the system keep an adapter's files in memory."""
    with suppress(OSError):  # who loads it will say what is wrong
        for path in Path(directory).glob("*.safetensors"):
            with path.open("rb", buffering=0) as file:
                while file.read(_CHUNK_BYTES):
                    pass


def _reference(name: str, folder: Path) -> LoadedAdapter:
    from sglang.srt.lora.lora_registry import LoRARef

    return LoRARef(lora_name=name, lora_path=str(folder), pinned=False)  # type: ignore[no-any-return]


def hooks(path: Path) -> tuple[Hook, ...]:
    """The hooks that a decode server needs."""
    folder = Folder(path)
    manager = "sglang.srt.managers.tokenizer_manager.TokenizerManager"
    control = "sglang.srt.managers.tokenizer_control_mixin.TokenizerControlMixin"
    return (
        Hook(f"{manager}._resolve_lora_path", Kind.AROUND, folder.resolve),
        Hook(f"{control}.load_lora_adapter", Kind.AROUND, _load_when_read),
        Hook("sglang.srt.lora.lora_registry.LoRARegistry.lru_lora_name", Kind.AROUND, folder.least_recently_used),
    )
