"""Reading nvidia-smi's listing."""

from __future__ import annotations

from psserve.fleet.plan.devices import detect, parse_gpus

LISTING = """0, GPU-aaaa, NVIDIA H100 80GB HBM3, 81559, 81000
1, GPU-bbbb, NVIDIA H100 80GB HBM3, 81559, 5
"""


def test_every_gpu_is_listed_with_its_memory() -> None:
    first, second = parse_gpus(LISTING, None)
    assert (first.index, first.name, first.total_bytes) == (0, "NVIDIA H100 80GB HBM3", 81559 * 1024**2)
    assert second.free_bytes == 5 * 1024**2


def test_visible_devices_choose_and_order() -> None:
    gpus = parse_gpus(LISTING, "GPU-bb,0")
    assert [(gpu.index, gpu.free_bytes) for gpu in gpus] == [(0, 5 * 1024**2), (1, 81000 * 1024**2)]


def test_unknown_visible_device_ends_the_list_as_in_cuda() -> None:
    assert len(parse_gpus(LISTING, "0,7,1")) == 1
    assert parse_gpus(LISTING, "") == ()
    assert parse_gpus(LISTING, "-1") == ()


def test_lines_in_another_form_are_passed_over() -> None:
    assert parse_gpus("No devices were found\n0, GPU-a, X, [N/A], 1\n", None) == ()


def test_this_machine_has_memory_and_cores() -> None:
    machine = detect({})
    assert machine.cores >= 1
    assert 0 < machine.available_bytes <= machine.total_bytes
