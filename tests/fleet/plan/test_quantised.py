"""Plans of bases and modules that are quantised, on simulated machines."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from psserve.errors import PlanError
from psserve.fleet.plan.plan_module import plan_module
from psserve.fleet.plan.quantised import METHODS, method
from psserve.zoo.checkpoints.quantisation import METHODS as ZOO_METHODS
from psserve.zoo.checkpoints.quantisation import read_quantisation
from psserve.zoo.synthetic.quantised import CONFIGS, for_size
from tests.fleet.fake_zoo import FakeBase, FakeModule, FakeZoo
from tests.fleet.planning import CPU, gpus, plan

FP8 = "fp8, blocks of 128x128"


@dataclass(frozen=True)
class MixedZoo(FakeZoo):
    """A fake zoo with modules of other formats: name -> their manifest's fields."""

    formats: dict[str, dict[str, Any]] = field(default_factory=dict)

    def modules(self) -> list[FakeModule]:
        return [replace(module, **self.formats.get(module.name, {})) for module in super().modules()]


def zoo(path: Path, quantisation: str | None, dtype: str = "bfloat16", **formats: dict[str, Any]) -> Any:
    return MixedZoo(path, FakeBase(path / "base", quantisation=quantisation, dtype=dtype), formats=formats)


def weights(zoo: Any, **flags: Any) -> dict[str, int]:
    return {server.name: server.memory.weight_bytes for server in plan(zoo, gpus(2), **flags).servers}


def test_quantised_weights_take_the_bytes_of_their_files(tmp_path: Path) -> None:
    same = zoo(tmp_path, FP8, code={"weight_bytes": 4_000_100})
    assert weights(same) == {"prefill-0": 4_000_000, "decode-code-0": 4_000_100, "decode-math-0": 4_000_000}


def test_modules_of_another_quantisation_take_their_own(tmp_path: Path) -> None:
    mixed = zoo(
        tmp_path,
        FP8,
        code={"weight_bytes": 2_500_000, "quantisation": "awq of 4 bits, groups of 128", "dtype": "float16"},
        math={"weight_bytes": 16_000_000, "quantisation": "none", "dtype": "float32"},
    )
    assert weights(mixed) == {"prefill-0": 4_000_000, "decode-code-0": 2_500_000, "decode-math-0": 8_000_000}


def test_a_quantised_module_of_an_unquantised_base_takes_its_own(tmp_path: Path) -> None:
    mixed = zoo(tmp_path, None, "float32", code={"weight_bytes": 1_100_000, "quantisation": FP8})
    assert weights(mixed) == {"prefill-0": 2_000_000, "decode-code-0": 1_100_000, "decode-math-0": 2_000_000}


def test_a_spare_server_may_become_one_of_the_largest_module(tmp_path: Path) -> None:
    large = {"weight_bytes": 60 << 30, "quantisation": "none", "dtype": "bfloat16"}
    with pytest.raises(PlanError, match=r"spare-0 60\.0 GiB weights"):
        plan(zoo(tmp_path, FP8, math=large), gpus(1), {"decode": {"spare": 1}}, modules=("math",))


@pytest.mark.parametrize("which", ["base", "module"])
def test_quantised_weights_need_gpus(tmp_path: Path, which: str) -> None:
    quantised = zoo(tmp_path, FP8) if which == "base" else zoo(tmp_path, None, math={"quantisation": FP8})
    name = "qwen3-tiny" if which == "base" else "math"
    with pytest.raises(PlanError, match=rf"^{name} is quantised \(fp8, .*\), which needs GPUs, and this fleet"):
        plan(quantised)


def test_an_unquantised_module_of_an_unquantised_base_runs_on_cpu(tmp_path: Path) -> None:
    assert plan(zoo(tmp_path, None), CPU).servers


def test_quantised_weights_are_computed_with_in_16_bits(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"SGLang computes that in 16 bits: give another --dtype"):
        plan(zoo(tmp_path, FP8), gpus(1), dtype="float32")
    assert plan(zoo(tmp_path, FP8), gpus(1), dtype="float16").servers


def test_a_gpu_that_is_too_old_is_refused(tmp_path: Path) -> None:
    machine = gpus(1)
    turing = replace(machine, gpus=(replace(machine.gpus[0], capability=(7, 5)),))
    with pytest.raises(PlanError, match=r"needs GPUs from sm_80 on, and GPU 0 \(H100\) is sm_75"):
        plan(zoo(tmp_path, FP8), turing)
    assert plan(zoo(tmp_path, "awq of 4 bits, groups of 128"), turing).servers


def test_a_module_that_comes_to_a_running_fleet_takes_its_own_bytes(tmp_path: Path) -> None:
    formats = {"weight_bytes": 9_000_000, "quantisation": "none", "dtype": "bfloat16"}
    mixed = zoo(tmp_path, FP8, math=formats)
    running = plan(mixed, gpus(2), modules=("code",), kv_tokens=65536)
    assert plan_module(mixed, running, "math").servers[0].memory.weight_bytes == 9_000_000


def test_a_kv_cache_of_bytes_is_for_all_servers_of_a_mixed_fleet(tmp_path: Path) -> None:
    mixed = zoo(tmp_path, FP8, math={"quantisation": "none", "dtype": "bfloat16"})
    commands = [server.command for server in plan(mixed, gpus(2), kv_cache_dtype="fp8_e4m3").servers]
    assert all(command[command.index("--kv-cache-dtype") + 1] == "fp8_e4m3" for command in commands)


def test_every_method_of_the_zoo_is_known_to_plans() -> None:
    assert METHODS.keys() == ZOO_METHODS.keys()
    for config in CONFIGS.values():
        found = read_quantisation(Path("config.json"), {"quantization_config": config})
        assert method(str(found)) == config["quant_method"]


def config(path: Path, quantisation: dict[str, Any], **fields: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = {"num_attention_heads": 8, "intermediate_size": 1024}
    path.write_text(json.dumps(sizes | fields | {"quantization_config": quantisation}))


BLOCKS = for_size(CONFIGS["fp8-blocks"], 128)


@pytest.mark.parametrize(
    ("quantisation", "fields", "message"),
    [
        (BLOCKS, {"intermediate_size": 640}, r"a GPU's part of its MLP would be 320 wide, .* not whole units of 128"),
        (BLOCKS, {"num_attention_heads": 2}, r"a GPU's part of its queries would be 64 wide"),
        (for_size(CONFIGS["awq"], 128), {"intermediate_size": 1152}, r"MLP would be 576 wide, .* units of 128"),
    ],
)
def test_a_layer_that_is_not_shared_out_in_whole_blocks_is_refused(
    tmp_path: Path, quantisation: dict[str, Any], fields: dict[str, int], message: str
) -> None:
    config(tmp_path / "base" / "config.json", quantisation, **fields)
    with pytest.raises(PlanError, match=rf"^prefill\.tp = 2: qwen3-tiny is quantised .*{message}"):
        plan(split_zoo(tmp_path), gpus(4), {"prefill": {"tp": 2}, "decode": {"tp": 2}})


def split_zoo(path: Path) -> Any:
    base = FakeBase(path / "base", quantisation=FP8, dtype="bfloat16", head_dim=64, num_kv_heads=4)
    return MixedZoo(path, base)


def test_whole_blocks_are_shared_out(tmp_path: Path) -> None:
    config(tmp_path / "base" / "config.json", BLOCKS)
    assert len(plan(split_zoo(tmp_path), gpus(4), {"prefill": {"tp": 2}, "decode": {"tp": 2}}).servers) == 3


def test_blocks_do_not_matter_on_one_gpu(tmp_path: Path) -> None:
    assert plan(split_zoo(tmp_path), gpus(2)).servers


@pytest.mark.parametrize("name", CONFIGS)
def test_whole_rows_and_tensors_are_shared_out_as_unquantised_ones_are(name: str) -> None:
    found = read_quantisation(Path("config.json"), {"quantization_config": CONFIGS[name]})
    assert found
    blocks, packed = name.endswith("blocks"), name in ("awq", "gptq")
    assert found.method.units == ((32, 32) if blocks else (64, 128) if packed else (1, 1))
