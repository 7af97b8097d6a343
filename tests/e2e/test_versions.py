"""A supported release other than the installed one serves exactly; an unknown one is refused."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from psserve.contracts.programs import program
from psserve.engine.settings import WORKER
from psserve.engine.versions import installed_sglang
from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from tests.e2e.client import agent_sessions, client_of
from tests.e2e.conftest import MODULES
from tests.e2e.fleet import launched, wait_idle
from tests.e2e.forked_launch import become, forked
from tests.e2e.oracle import Oracle

pytestmark = pytest.mark.e2e

OTHER = "0.5.18"
OTHERS_PLACE = Path(sys.prefix) / f"sglang-{OTHER}"  # put there by `make setup`
INSTALLED = installed_sglang()
ARGUMENTS = (
    *("--disaggregation-mode", "decode", "--disaggregation-decode-enable-radix-cache"),
    *("--model-path", "/nonexistent"),
)
"""Of a decode server that comes as far as its hooks."""


async def test_another_release_serves_exactly(
    zoo_of: Callable[[Architecture], Zoo], oracle_of: Callable[[Architecture], Oracle], monkeypatch: pytest.MonkeyPatch
) -> None:
    if INSTALLED == OTHER:
        pytest.skip("the whole suite is this test")
    assert OTHERS_PLACE.is_dir(), "run `make setup`"
    monkeypatch.setenv("PYTHONPATH", str(OTHERS_PLACE))
    oracle = oracle_of("qwen3")
    env = {"SGLANG_TEST_RETRACT": "true", "SGLANG_TEST_RETRACT_INTERVAL": "5"}
    with launched(zoo_of("qwen3").path, env=env) as fleet:
        assert str(OTHERS_PLACE) in fleet.log("preload")  # SGLang's import warnings name its files
        async with client_of(fleet.url) as client:
            await agent_sessions(client, oracle, MODULES, sessions=8, turns=4, max_tokens=24)
        wait_idle(fleet)


def test_an_unsupported_release_is_refused_by_name(tmp_path: Path) -> None:
    metadata = tmp_path / "sglang-9.9.9.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: sglang\nVersion: 9.9.9\n")
    ended = _worker({"PYTHONPATH": str(tmp_path)})
    assert ended.returncode == 1
    assert "sglang 9.9.9 is not supported: psserve was tested with 0.5.17, 0.5.18, 0.5.21, 0.5.22 and " in ended.stderr


def test_a_renamed_target_stops_the_worker_and_is_named() -> None:
    with forked(_worker_without_a_target) as worker:
        assert worker.end(within_s=300) == 1
        last = worker.notes.read_text().strip().splitlines()[-1]
    assert last.startswith(f"psserve: error: sglang {INSTALLED} has no hookable ")
    assert "DecodePreallocQueue._pre_alloc_fill_len" in last


def _worker_without_a_target(environment: Mapping[str, str], output: Path, notes: Path) -> None:
    """Be a worker whose SGLang is of a release that renamed a method."""
    from sglang.srt.disaggregation import decode

    from psserve.engine import worker

    become(environment, output, notes)
    del decode.DecodePreallocQueue._pre_alloc_fill_len
    sys.exit(worker.main(list(ARGUMENTS)))


def test_an_edited_function_stops_the_worker_and_is_named(tmp_path: Path) -> None:
    edit_sglang(tmp_path, "srt/mem_cache/common.py", "checkpoint = checkpoint and not", "checkpoint = not")
    ended = _worker({"PYTHONPATH": str(tmp_path)})
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(f"psserve: error: sglang {INSTALLED} was edited here: ")
    assert "sglang.srt.mem_cache.common.release_kv_cache" in last


def edit_sglang(folder: Path, file: str, old: str, new: str) -> None:
    """In `folder`, the installed SGLang as links, but for one file in which a text is another."""
    installed = Path(importlib.util.find_spec("sglang").submodule_search_locations[0])  # type: ignore[union-attr,index]
    *parents, name = Path(file).parts
    place, source = folder / "sglang", installed
    for kept in (*parents, name):
        place.mkdir()
        for each in source.iterdir():
            if each.name != kept:
                (place / each.name).symlink_to(each)
        place, source = place / kept, source / kept
    text = source.read_text()
    assert old in text
    place.write_text(text.replace(old, new))


def _worker(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        program(WORKER, *ARGUMENTS),
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300,
    )
