"""SGLang's sources, as installed and as a careless release might have them, and a decode server in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from psserve.engine.fixes import retraction  # noqa: E402
from psserve.engine.handover import decode, purity  # noqa: E402
from psserve.engine.settings import NegativeControl, Role  # noqa: E402
from psserve.engine.source import SourceTree  # noqa: E402
from tests.engine.handover.decode_server import DecodeServer, sglang_configured  # noqa: E402
from tests.engine.hooked import hooked  # noqa: E402
from tests.engine.release import INSTALLED, TREES  # noqa: E402

Edited = Callable[[str, str, str], SourceTree]


@pytest.fixture
def edited(tmp_path: Path) -> Edited:
    """Makes a tree that is the installed SGLang but for one file, in which a text is another."""

    def edit(file: str, old: str, new: str) -> SourceTree:
        for source in (TREES[INSTALLED].root / "sglang/srt").iterdir():
            copy = tmp_path / "sglang/srt" / source.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.name == Path(file).parts[0]:
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.pyc", "*.so"))
            else:
                copy.symlink_to(source)
        place = tmp_path / "sglang/srt" / file
        text = place.read_text()
        assert old in text
        place.write_text(text.replace(old, new))
        return SourceTree(tmp_path)

    return edit


@pytest.fixture(scope="module")
def hooked_sglang() -> Iterator[None]:
    """SGLang with the hooks of a decode server."""
    hooks = [*decode.hooks(NegativeControl.NONE), *retraction.hooks(), *purity.hooks(Role.DECODE)]
    with sglang_configured(), hooked(hooks):
        yield


@pytest.fixture(params=[1, 4], ids=["pages of 1", "pages of 4"])
def server(request: pytest.FixtureRequest, hooked_sglang: None) -> Iterator[DecodeServer]:
    """It must have leaked no slot, and left no lock and no KV of the module's in its tree, when the test ends."""
    server = DecodeServer(request.param)
    yield server
    server.finish()
    server.check_idle()
