from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from psserve.engine.cuda.toolkit import assemble, choose_toolkit, compiler_env, fits, missing_parts
from psserve.errors import EngineError
from tests.engine.cuda.wheels import header, lay_wheels, nvcc


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    return lay_wheels(tmp_path / "site-packages")


@pytest.fixture
def own(wheels: Path, tmp_path: Path) -> Path:
    home = tmp_path / "venv" / "cuda"
    assemble(wheels, home)
    return home


def copied(home: Path, to: Path) -> Path:
    """A toolkit of the user's, with files of its own."""
    return Path(shutil.copytree(home, to))


def test_wheels_become_one_complete_toolkit(own: Path) -> None:
    assert missing_parts(own) == []
    assert fits(own)


def test_linkers_find_libraries_by_the_name_without_a_version(own: Path) -> None:
    assert (own / "lib64" / "libcudart.so").read_text() == "the library"
    assert (own / "lib64" / "libcudart_static.a").exists()


def test_the_stub_links_calls_of_the_driver_to_the_driver(own: Path, tmp_path: Path) -> None:
    source = "void cuInit(void); void cuMemAlloc_v2(void);\nvoid kernel(void) { cuInit(); cuMemAlloc_v2(); }\n"
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", f"-L{own}/lib64/stubs", "-Wl,--no-undefined", "-lcuda"]
    made = tmp_path / "kernel.so"
    subprocess.run([*command, "-o", made], input=source, text=True, check=True)
    assert b"libcuda.so.1\0" in made.read_bytes()


def test_an_older_toolkit_is_replaced_whole(wheels: Path, own: Path) -> None:
    (own / "lib64" / "libold.so").touch()
    assemble(wheels, own)
    assert not (own / "lib64" / "libold.so").exists()


def test_missing_wheels_are_named(wheels: Path, tmp_path: Path) -> None:
    (wheels / "nvidia/cu13/include/curand.h").unlink()
    with pytest.raises(EngineError, match=r"lack include/curand\.h: run make setup DEVICE=gpu again"):
        assemble(wheels, tmp_path / "cuda")


def test_a_missing_compiler_is_said(wheels: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no C compiler called no-cc is on PATH"):
        assemble(wheels, tmp_path / "cuda", "no-cc")


def test_servers_get_the_toolkit_of_the_set_up(own: Path) -> None:
    assert compiler_env({"PATH": "/nowhere"}, own)["CUDA_HOME"] == str(own)


def test_a_linker_that_is_told_of_no_folder_finds_the_driver(own: Path, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], **compiler_env({"LIBRARY_PATH": "/opt/lib"}, own)}
    command = ["cc", "-shared", "-x", "c", "/dev/null", "-lcuda", "-o", str(tmp_path / "kernel.so")]
    subprocess.run(command, env=env, check=True)
    assert env["LIBRARY_PATH"].startswith("/opt/lib:")


def test_a_toolkit_of_the_user_s_that_fits_is_taken(own: Path, tmp_path: Path) -> None:
    users = copied(own, tmp_path / "users")
    assert choose_toolkit({"CUDA_HOME": str(users)}, own) == users
    assert choose_toolkit({"CUDA_PATH": str(users)}, own) == users
    assert choose_toolkit({"PATH": f"/nowhere:{users}/bin"}, own) == users


def test_an_incomplete_toolkit_of_the_user_s_is_passed_over(own: Path, tmp_path: Path) -> None:
    users = copied(own, tmp_path / "users")
    (users / "lib64/stubs/libcuda.so").unlink()
    assert choose_toolkit({"CUDA_HOME": str(users)}, own) == own


@pytest.mark.parametrize("release", ["12.8", "13.5"])
def test_a_compiler_of_another_release_than_torch_s_or_its_headers_is_passed_over(
    own: Path, tmp_path: Path, release: str
) -> None:
    users = copied(own, tmp_path / "users")
    (users / "bin/nvcc").write_text(nvcc(release))
    assert choose_toolkit({"CUDA_HOME": str(users)}, own) == own


def test_a_whole_toolkit_of_another_major_release_is_passed_over(own: Path, tmp_path: Path) -> None:
    users = copied(own, tmp_path / "users")
    (users / "bin/nvcc").write_text(nvcc("12.8"))
    (users / "include/cuda.h").write_text(header("12.8"))
    assert choose_toolkit({"CUDA_HOME": str(users)}, own) == own


def test_without_any_toolkit_sglang_looks_by_itself(tmp_path: Path) -> None:
    assert compiler_env({"PATH": "/nowhere"}, tmp_path / "none") == {}
