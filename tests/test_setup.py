from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from psserve.engine.versions import SUPPORTED

ROOT = Path(__file__).parent.parent
RELEASES = sorted(path.stem for path in (ROOT / "requirements").glob("sglang-*.txt"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What scripts/setup.sh reads, in a folder of its own."""
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def set_up(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "scripts/setup.sh"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_an_unknown_device_is_refused(folder: Path) -> None:
    done = set_up(folder, DEVICE="tpu")
    assert (done.returncode, done.stderr) == (1, "setup: error: DEVICE=tpu: say cpu or gpu\n")


def test_an_unfit_python_is_refused_and_nothing_is_made(folder: Path) -> None:
    done = set_up(folder, DEVICE="cpu", PYTHON="false")
    assert (done.returncode, done.stderr) == (
        1,
        "setup: error: PYTHON=false: not a Python 3.11 or 3.12 with venv and pip\n",
    )
    assert not (folder / ".venv").exists()


def test_no_python_at_all_is_said(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    tools = tmp_path_factory.mktemp("bin")
    for name in ("bash", "cat", "cut", "dirname", "sha256sum"):
        (tools / name).symlink_to(shutil.which(name) or name)
    done = set_up(folder, DEVICE="cpu", PATH=str(tools))
    assert done.returncode == 1
    assert "no Python 3.11 or 3.12 with venv found" in done.stderr


def test_a_gpu_set_up_without_a_compiler_is_refused_before_anything_is_made(folder: Path) -> None:
    done = set_up(folder, DEVICE="gpu", CXX="no-such-compiler")
    assert (done.returncode, done.stderr) == (
        1,
        "setup: error: a GPU needs a C++ compiler, for the kernels that SGLang builds: apt-get install g++\n",
    )
    assert not (folder / ".venv").exists()


def test_a_set_up_for_a_gpu_stays_one_where_no_device_is_named(folder: Path) -> None:
    (folder / ".venv").mkdir()
    (folder / ".venv" / "device").write_text("gpu\n")
    done = set_up(folder, CXX="no-such-compiler")
    assert "a GPU needs a C++ compiler" in done.stderr
    assert (folder / ".venv" / "device").exists()


@pytest.mark.slow
def test_an_interrupted_set_up_is_thrown_away(folder: Path) -> None:
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "installing").touch()
    (folder / "requirements" / "torch.txt").write_text("not a requirement !\n")  # so that it ends before any download
    done = set_up(folder, DEVICE="cpu")
    assert "removing .venv: it is broken or was left half-made" in done.stderr
    assert done.returncode != 0
    assert (folder / ".venv" / "installing").exists()  # and the next start will throw this one away too
    assert not (folder / ".venv" / "installed").exists()


def test_another_release_is_one_of_those_that_are_locked(folder: Path) -> None:
    done = subprocess.run(
        ["bash", "scripts/sglang.sh", "0.5.99"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("sglang: error: VERSION=0.5.99: say one of 0.5.17 0.5.18 ")


def test_every_supported_release_is_locked() -> None:
    """The installed one too, so that it can be tried beside another."""
    assert {name.removeprefix("sglang-") for name in RELEASES} == {*SUPPORTED}


@pytest.mark.parametrize("name", ["cpu", "gpu", "train", "dev", *RELEASES])
def test_locks_pin_and_hash_everything_and_name_no_host(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    entries = text.replace("\\\n", "").splitlines()
    packages = [line for line in entries if line.strip() and not line.lstrip().startswith("#")]
    assert packages
    assert [line for line in packages if "==" not in line or "--hash=sha256:" not in line] == []
    assert "://" not in text


def test_the_gpu_set_has_one_cuda_toolkit() -> None:
    """flashinfer refuses a compiler and headers of different releases."""
    text = (ROOT / "requirements" / "gpu.txt").read_text()
    releases = dict(re.findall(r"^(cuda-toolkit|nvidia-[a-z-]+)==(\d+\.\d+)", text, re.MULTILINE))
    parts = ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-cccl", "nvidia-cuda-runtime")
    assert {releases[part] for part in parts} == {releases["cuda-toolkit"]}


def test_the_cpu_set_has_the_gpu_sets_versions() -> None:
    def pins(name: str) -> set[str]:
        lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
        return {line.split()[0] for line in lines if "==" in line and not line.lstrip().startswith(("#", "--hash"))}

    assert pins("cpu") <= pins("gpu")


def test_training_has_the_servers_versions() -> None:
    def pins(name: str) -> dict[str, str]:
        lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
        found = (line.split()[0].split("==") for line in lines if "==" in line and line[0].isalnum())
        return {package: version for package, version in found}

    train, gpu = pins("train"), pins("gpu")
    assert {name: train[name] for name in train.keys() & gpu} == {name: gpu[name] for name in train.keys() & gpu}
    assert "torch" not in train


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(init.parent.relative_to(ROOT).parts) for init in ROOT.glob("psserve/**/__init__.py")}
    assert set(listed) == found | {"psserve.cli", "psserve.demo.zoo"}
