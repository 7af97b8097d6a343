"""The first request loads its adapter, from the fleet's folder and no other place."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from sglang.srt.lora.lora_registry import LoRARegistry  # noqa: E402
from sglang.srt.managers.io_struct import LoRAUpdateOutput  # noqa: E402
from sglang.srt.managers.tokenizer_manager import TokenizerManager  # noqa: E402
from sglang.srt.runtime_context import get_context  # noqa: E402

from psserve.engine.lora import folder as lora_folder  # noqa: E402
from tests.engine.handover.decode_server import sglang_configured  # noqa: E402
from tests.engine.hooked import hooked  # noqa: E402

LOADABLE = 2


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    """`math@1`, `code@1` and `facts@2`, and outside of the folder `secret@1`."""
    for name in ("fleet/math@1", "fleet/code@1", "fleet/facts@2", "secret@1"):
        path = tmp_path / name
        path.mkdir(parents=True)
        (path / "adapter_config.json").write_text("{}")
        (path / "adapter_model.safetensors").write_bytes(b"weights")
    return tmp_path / "fleet"


class Http:
    """The HTTP process of a server that keeps two adapters; schedulers load what they are told to."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self._telling = asyncio.Event()
        self.manager: Any = TokenizerManager.__new__(TokenizerManager)
        vars(self.manager).update(
            server_args=SimpleNamespace(enable_lora=True, max_loaded_loras=LOADABLE),
            enable_lora=True,
            auto_create_handle_loop=lambda: None,
            lora_registry=LoRARegistry(),
            lora_update_lock=asyncio.Lock(),
            lora_ref_cache={},
            pending_lora_unloads={},  # of later releases
            update_lora_adapter_communicator=self._tell,
        )

    async def _tell(self, obj: Any) -> list[LoRAUpdateOutput]:
        await asyncio.sleep(0)
        what = type(obj).__name__.removesuffix("LoRAAdapterReqInput")
        if what == "Load" and obj.lora_name in self.loaded:
            return [
                LoRAUpdateOutput(success=False, error_message="because it is already loaded")
            ]  # a scheduler's words
        self.told.append((what, obj.lora_name))
        self._telling.set()
        return [LoRAUpdateOutput(success=True, error_message="", loaded_adapters=self.loaded)]

    async def ask(self, name: Any) -> Any:
        """A request for an adapter arrives. Its id counts as in use until `end`."""
        request = SimpleNamespace(lora_path=name, lora_id=None)
        await self.manager._resolve_lora_path(request)
        return request.lora_id

    async def heard(self, what: tuple[str, str]) -> None:
        """Wait until a scheduler has been told."""
        while what not in self.told:
            await self._telling.wait()
            self._telling.clear()

    async def end(self, adapter: str) -> None:
        await self.manager.lora_registry.release(adapter)

    @property
    def loaded(self) -> dict[str, str]:
        return {name: ref.lora_path for name, ref in self.manager.lora_registry.get_all_adapters().items()}


@pytest.fixture
def http(adapters: Path) -> Iterator[Http]:
    settings = get_context().override_server_args(enable_lora=True, max_loaded_loras=LOADABLE)
    with sglang_configured(), settings, hooked(lora_folder.hooks(adapters)):
        yield Http()


async def test_the_first_request_loads_its_adapter_and_the_second_finds_it(http: Http, adapters: Path) -> None:
    first = await http.ask("math@1")
    assert await http.ask("math@1") == first
    assert http.told == [("Load", "math@1")]
    assert http.loaded == {"math@1": str(adapters / "math@1")}


async def test_a_link_is_an_adapter_too(http: Http, adapters: Path) -> None:
    (adapters / "linked@7").symlink_to(adapters.parent / "secret@1")
    await http.ask("linked@7")
    assert http.loaded == {"linked@7": str(adapters / "linked@7")}


@pytest.mark.parametrize(
    "name",
    ["secret@1", "../secret@1", "math@1/../../secret@1", "math", "math@", "math@1/", "/etc@1", ".@1", "math@1\n", ""],
)
async def test_a_name_that_is_none_of_the_folders_is_refused(http: Http, name: str, adapters: Path) -> None:
    (adapters / "math").symlink_to(adapters / "math@1")
    with pytest.raises(ValueError, match="never been loaded"):
        await http.ask(name)
    assert http.told == []


async def test_a_path_is_no_name(http: Http, adapters: Path) -> None:
    with pytest.raises(ValueError, match="never been loaded"):
        await http.ask(str(adapters / "math@1"))


async def test_what_left_the_folder_and_was_unloaded_does_not_come_back(http: Http, adapters: Path) -> None:
    await http.end(await http.ask("math@1"))
    (adapters / "math@1").rename(adapters.parent / "gone")
    assert (await http.manager.unload_lora_adapter(SimpleNamespace(lora_name="math@1", lora_id=None))).success
    with pytest.raises(ValueError, match="never been loaded"):
        await http.ask("math@1")


async def test_requests_that_come_at_once_load_their_adapter_once(http: Http) -> None:
    ids = await asyncio.gather(*(http.ask("math@1") for _ in range(8)))
    assert len(set(ids)) == 1
    assert http.told == [("Load", "math@1")]


async def test_the_least_recently_used_one_makes_room(http: Http) -> None:
    for name in ("math@1", "code@1", "math@1", "facts@2"):
        await http.end(await http.ask(name))
    assert http.told[-2:] == [("Load", "facts@2"), ("Unload", "code@1")]
    assert set(http.loaded) == {"math@1", "facts@2"}


async def test_an_idle_one_makes_room_before_one_that_works(http: Http) -> None:
    working = await http.ask("math@1")
    await http.end(await http.ask("code@1"))
    await http.ask("facts@2")
    assert set(http.loaded) == {"math@1", "facts@2"}
    await http.end(working)


async def test_one_that_a_request_is_coming_for_does_not_make_room(http: Http) -> None:
    working = [await http.ask("math@1"), await http.ask("code@1")]
    coming = asyncio.create_task(http.ask("facts@2"))
    await http.heard(("Load", "facts@2"))
    assert not coming.done()  # it waits for the end of the request that math@1 works at
    await http.end(working[0])
    await coming
    assert set(http.loaded) == {"code@1", "facts@2"}


async def test_a_request_for_several_adapters_loads_each(http: Http) -> None:
    await http.ask(["math@1", "code@1"])
    assert set(http.loaded) == {"math@1", "code@1"}
