"""Reading nvidia-smi's listing."""

from __future__ import annotations

from pathlib import Path

import pytest

from psserve.fleet.plan.nvidia import Listing, list_gpus, parse_gpus, torch_build
from psserve.versions import installed
from tests.fleet.nvidia_smi import H100, put_on_path

LISTING = """0, GPU-aaaa, NVIDIA H100 80GB HBM3, 81559, 81000, 580.65.06, Default, 9.0, Disabled
1, GPU-bbbb, NVIDIA H100 80GB HBM3, 81559, 5, 580.65.06, Exclusive_Process, 9.0, Disabled
"""


def test_every_gpu_is_listed_with_its_memory() -> None:
    first, second = parse_gpus(LISTING, None).gpus
    assert (first.index, first.name, first.total_bytes) == (0, "NVIDIA H100 80GB HBM3", 81559 * 1024**2)
    assert second.free_bytes == 5 * 1024**2


def test_architecture_and_compute_mode_are_read() -> None:
    second = parse_gpus(LISTING, None).gpus[1]
    assert (second.capability, second.compute_mode) == ((9, 0), "Exclusive_Process")


def test_visible_devices_choose_and_order() -> None:
    gpus = parse_gpus(LISTING, "GPU-bb,0").gpus
    assert [(gpu.index, gpu.free_bytes) for gpu in gpus] == [(0, 5 * 1024**2), (1, 81000 * 1024**2)]


def test_unknown_visible_device_ends_the_list_as_in_cuda() -> None:
    assert len(parse_gpus(LISTING, "0,7,1").gpus) == 1


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_all_gpus_can_be_hidden(hidden: str) -> None:
    found = parse_gpus(LISTING, hidden)
    assert (found.gpus, found.unusable) == ((), ())


def test_lines_in_another_form_are_passed_over() -> None:
    assert parse_gpus("No devices were found\n", None) == Listing()


@pytest.mark.parametrize(
    ("listing", "visible", "said"),
    [
        (
            "0, GPU-a, NVIDIA GB10, [N/A], [N/A], 580.1, Default, 12.1, Disabled",
            None,
            r"GPU 0 (NVIDIA GB10): nvidia-smi does not tell its memory (total [N/A], free [N/A])",
        ),
        ("0, GPU-a, NVIDIA A100, 40960, 40000, 580.1, Default, 8.0, Enabled", None, "GPU 0 (NVIDIA A100) is split"),
        (LISTING, "MIG-1234,0", "CUDA_VISIBLE_DEVICES names MIG-1234, a part of a GPU (MIG)"),
        (LISTING, "0,MIG-1234", "CUDA_VISIBLE_DEVICES names MIG-1234, a part of a GPU (MIG)"),
        (LISTING, "7", "CUDA_VISIBLE_DEVICES=7: nvidia-smi lists no such GPU"),
    ],
)
def test_gpus_that_cannot_be_planned_with_are_named(listing: str, visible: str | None, said: str) -> None:
    found = parse_gpus(listing, visible)
    assert found.gpus == ()
    assert said in found.unusable[0]


def test_a_card_that_is_not_visible_says_nothing() -> None:
    listing = LISTING + "2, GPU-c, NVIDIA GB10, [N/A], [N/A], 580.1, Default, 12.1, Disabled\n"
    assert parse_gpus(listing, "0,1").unusable == ()


def test_nvidia_smi_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_on_path(monkeypatch, tmp_path, H100)
    found = list_gpus(None)
    assert (len(found.gpus), found.driver) == (1, "580.65.06")


def test_an_nvidia_smi_that_knows_fewer_fields_is_asked_for_those(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = """#!/bin/sh
    case "$1" in *compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2;; esac
    echo "0, GPU-a, Tesla T4, 15109, 15000, 470.82.01, Default"
    """
    put_on_path(monkeypatch, tmp_path, script=script)
    found = list_gpus(None)
    assert (found.driver, found.gpus[0].name, found.gpus[0].capability) == ("470.82.01", "Tesla T4", None)


@pytest.mark.parametrize(
    ("script", "unusable"),
    [
        ("echo 'No devices were found'; exit 6", ()),
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", ("Failed to initialize NVML",)),
    ],
)
def test_an_nvidia_smi_that_fails_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, unusable: tuple[str, ...]
) -> None:
    put_on_path(monkeypatch, tmp_path, script=f"#!/bin/sh\n{script}\n")
    found = list_gpus(None)
    assert len(found.unusable) == len(unusable)
    assert all(said in line for said, line in zip(unusable, found.unusable, strict=True))


@pytest.mark.parametrize(("nodes", "count"), [((), 0), (("nvidia0", "nvidia1", "nvidiactl"), 1)])
def test_gpus_that_nobody_can_be_asked_about_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nodes: tuple[str, ...], count: int
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for node in nodes:
        (tmp_path / node).touch()
    unusable = list_gpus(None, tmp_path).unusable
    assert len(unusable) == count
    assert all(f"{tmp_path}/nvidia0, {tmp_path}/nvidia1: no nvidia-smi" in line for line in unusable)
    assert list_gpus("", tmp_path) == Listing()


def test_hidden_gpus_are_not_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_on_path(monkeypatch, tmp_path, script="#!/bin/sh\necho 'Failed to initialize NVML'; exit 18\n")
    assert list_gpus("") == Listing()


def test_the_installed_torch_is_read_without_importing_it() -> None:
    found = torch_build()
    assert found is not None
    assert found.version == installed("torch")
    assert (found.cuda is None) == found.version.endswith("+cpu")
