"""Plans for machines that people have, and what SGLang's own parser makes of every command line, with CUDA faked."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from psserve.contracts.programs import arguments_of
from psserve.engine.settings import WORKER
from psserve.fleet import FleetPlan
from psserve.fleet.plan.allowance import card
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.memory import usable_bytes
from psserve.fleet.plan.nvidia import Gpu
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.fleet.planning import GIB, plan

MIB = 1024**2
PARSER = Path(__file__).with_name("sglang_on_cuda.py")
ADA, HOPPER = (8, 9), (9, 0)


@dataclass(frozen=True)
class Model:
    """The shape of a published model. Its weights are sparse files: sizes without content."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    files: tuple[int, ...]
    """Bytes of each file of weights."""

    def lie_in(self, folder: Path) -> FakeBase:
        folder.mkdir()
        config = {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab,
            "max_position_embeddings": self.context,
            "torch_dtype": "bfloat16",
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "hidden_act": "silu",
            "eos_token_id": 2,
        }
        (folder / "config.json").write_text(json.dumps(config))
        for number, size in enumerate(self.files):
            with open(folder / f"model-{number}.safetensors", "wb") as file:
                file.truncate(size)
        return FakeBase(
            folder,
            vocab_size=self.vocab,
            context_length=self.context,
            dtype="bfloat16",
            num_layers=self.layers,
            num_kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            weight_bytes=sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        )


SMALL = Model(1_024, 3_072, 28, 16, 8, 128, 151_936, 40_960, (1_503_300_328,))
QWEN_8B = Model(4_096, 12_288, 36, 32, 8, 128, 151_936, 40_960, (16_381_470_720,))
LARGE_70B = Model(8_192, 28_672, 80, 64, 8, 128, 128_256, 131_072, (4_703_580_000,) * 30)
ODD_HEADS = Model(768, 2_048, 12, 24, 8, 32, 32_000, 4_096, (400_000_000,))


def machine(count: int, mib: int, capability: tuple[int, int], cores: int = 64) -> Machine:
    cards = tuple(Gpu(i, "card", mib * MIB, (mib - 600) * MIB, capability) for i in range(count))
    return Machine(cores, 512 * GIB, 480 * GIB, cards)


H200, H100, RTX_4090, SMALL_CARD = 143_771, 81_559, 24_564, 12_282


@dataclass(frozen=True)
class Case:
    model: Model
    machine: Machine
    modules: tuple[str, ...]
    document: dict[str, Any]
    devices: str
    """Of each server, prefill servers first."""
    context: int
    """At least."""


FOUR = ("code", "math", "sql", "tools")
CASES = {
    "one H200: 8B and 4 modules": Case(QWEN_8B, machine(1, H200, HOPPER), FOUR, {}, "0 0 0 0 0", 40_960),
    "eight H100: 8B and 4 modules": Case(QWEN_8B, machine(8, H100, HOPPER), FOUR, {}, "0 1 2 3 4 5 6 7", 40_960),
    "one 24 GB card: 0.6B and 4 modules": Case(SMALL, machine(1, RTX_4090, ADA), FOUR, {}, "0 0 0 0 0", 14_000),
    "one 12 GB card: 0.6B and 2 modules": Case(SMALL, machine(1, SMALL_CARD, ADA), FOUR[:2], {}, "0 0 0", 8_000),
    "one 24 GB card: heads of 32": Case(ODD_HEADS, machine(1, RTX_4090, ADA), FOUR[:2], {}, "0 0 0", 4_096),
    "eight H100: 70B with tp 4": Case(
        LARGE_70B,
        machine(8, H100, HOPPER),
        FOUR[:1],
        {"prefill": {"tp": 4}, "decode": {"tp": 4}},
        "0,1,2,3 4,5,6,7",
        65_536,
    ),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FleetPlan]:
    """A plan of each case."""
    plans = {}
    for name, case in CASES.items():
        folder = tmp_path_factory.mktemp("zoo")
        base = case.model.lie_in(folder / "base")
        zoo: Any = FakeZoo(folder, base, {module: () for module in case.modules})
        checkpoints = folder / ".run" / "checkpoints"
        checkpoints.mkdir(parents=True)
        for module in case.modules:
            (checkpoints / module).symlink_to(base.path)
        plans[name] = plan(zoo, case.machine, case.document)
    return plans


@pytest.mark.parametrize("name", CASES)
def test_every_server_has_its_place(made: dict[str, FleetPlan], name: str) -> None:
    assert [server.device.removeprefix("cuda:") for server in made[name].servers] == CASES[name].devices.split()


@pytest.mark.parametrize("name", CASES)
def test_no_gpu_is_used_over_its_memory(made: dict[str, FleetPlan], name: str) -> None:
    for gpu in CASES[name].machine.gpus:
        on_it = [server for server in made[name].servers if gpu.index in server.gpus]
        assert sum(server.memory.total_bytes // len(server.gpus) for server in on_it) <= usable_bytes(gpu)


@pytest.mark.parametrize("name", CASES)
def test_the_context_is_of_use(made: dict[str, FleetPlan], name: str) -> None:
    assert made[name].basis.settings.context_length >= CASES[name].context


def test_each_prefill_server_of_eight_gpus_has_one_of_its_own(made: dict[str, FleetPlan]) -> None:
    roles = [server.role for server in made["eight H100: 8B and 4 modules"].servers]
    assert roles == ["prefill"] * 4 + ["decode"] * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cards", "capability", "attention"), [((H200, H100), HOPPER, "fa3"), ((RTX_4090,), ADA, "flashinfer")]
)
def test_sglangs_own_parser_takes_every_command(
    made: dict[str, FleetPlan], cards: tuple[int, ...], capability: tuple[int, int], attention: str
) -> None:
    """And it chooses for each card what the plan counts with."""
    on = {mib: [server for name in CASES if _card(name) == mib for server in made[name].servers] for mib in cards}
    commands = [
        {"mib": mib, "commands": [arguments_of(server.command, WORKER) for server in servers]}
        for mib, servers in on.items()
    ]
    asked = {"capability": capability, "cards": commands}
    done = subprocess.run(
        [sys.executable, str(PARSER)], input=json.dumps(asked), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for (mib, servers), answers in zip(on.items(), json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert servers
        expected = card(mib * MIB)
        for server, found in zip(servers, answers, strict=True):
            wanted = "triton" if "--attention-backend" in server.command else attention
            assert (found["attention"], found["page_size"]) == (wanted, 64)
            assert (found["tp"], found["kv_tokens"]) == (len(server.gpus), server.memory.kv_tokens)
            assert (found["chunk"], found["prefill_graphs"]) == (expected.chunk, expected.prefill_graphs)
            assert found["batch"] == (expected.batch_of_four if found["tp"] >= 4 else expected.batch)


def _card(name: str) -> int:
    """The MiB of a card of that case's machine."""
    return CASES[name].machine.gpus[0].total_bytes // MIB
