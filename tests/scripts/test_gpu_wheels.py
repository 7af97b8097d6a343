from __future__ import annotations

import importlib
import re
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
LOCKED = (SCRIPTS.parent / "requirements" / "gpu.txt").read_text()


@pytest.fixture
def gpu_wheels(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("gpu_wheels")


def test_lots_are_no_larger_than_said_and_hold_every_wheel_once(gpu_wheels: ModuleType) -> None:
    sizes = {Path(f"{number}.whl"): size for number, size in enumerate((30, 21, 14, 14, 12, 5, 4))}
    lots = gpu_wheels.lots(sizes, 60)
    assert sorted(wheel for lot in lots for wheel in lot) == sorted(sizes)
    assert [sum(sizes[wheel] for wheel in lot) for lot in lots] == [60, 40]


def test_what_is_there_already_is_left_out_of_the_lock(gpu_wheels: ModuleType) -> None:
    lock = "click==8.1 \\\n    --hash=sha256:aa\n    # via x\nnumpy==2.3 \\\n    --hash=sha256:bb\n"
    assert gpu_wheels.without(lock, {"numpy"}) == "click==8.1 \\\n    --hash=sha256:aa\n    # via x\n"
    with pytest.raises(ValueError, match="has no scipy"):
        gpu_wheels.without(lock, {"scipy"})


def test_the_exclusions_fit_the_lock(gpu_wheels: ModuleType) -> None:
    kept = gpu_wheels.without(gpu_wheels.read("cpu.txt"), gpu_wheels.excluded(gpu_wheels.read("gpu-first.exclude")))
    assert "\nnumpy==" not in kept
    assert "\nsafetensors==" in kept


def test_no_package_is_wanted_in_two_versions(gpu_wheels: ModuleType) -> None:
    names = [line.partition("==")[0] for line in gpu_wheels.wanted().splitlines() if "==" in line and line[0] != " "]
    assert {"sglang", "transformers", "sglang-kernel", "flashinfer-python"} <= {*names}
    assert sorted(names) == sorted(set(names))


def test_the_sglang_that_is_packed_is_the_locked_one(gpu_wheels: ModuleType) -> None:
    locked, packed = (
        set(re.findall(r"^[a-z0-9-]+==\S+", text, re.MULTILINE)) for text in (LOCKED, gpu_wheels.wanted())
    )
    of_sglang = ("sglang==", "transformers==", "xgrammar==", "flashinfer-python==", "nixl-cu13==")
    assert len(found := {line for line in locked if line.startswith(of_sglang)}) == len(of_sglang)
    assert found <= packed


def test_a_stripped_wheel_lists_what_it_still_has(gpu_wheels: ModuleType, tmp_path: Path) -> None:
    wheel = tmp_path / "sglang-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("sglang/__init__.py", "x = 1\n")
        archive.writestr("sglang/multimodal_gen/large.py", "0" * 1000)
        archive.writestr(
            "sglang-1.dist-info/RECORD", 'sglang/__init__.py,sha256=a,6\nsglang/multimodal_gen/large.py,,"1,000"\n'
        )
    gpu_wheels.strip(wheel, gpu_wheels.STRIPPED["sglang"])
    with zipfile.ZipFile(wheel) as archive:
        assert archive.namelist() == ["sglang/__init__.py", "sglang-1.dist-info/RECORD"]
        assert archive.read("sglang-1.dist-info/RECORD") == b"sglang/__init__.py,sha256=a,6\n"
