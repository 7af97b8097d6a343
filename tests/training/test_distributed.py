from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from psserve.training.progress import read_metrics
from psserve.zoo import Zoo
from psserve.zoo.synthetic.zoo import build_zoo
from tests.training.on_cpu import HELD_STEP
from tests.training.ranks import ends_of, start_ranks
from tests.waiting import until

TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node")
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}
"""What `accelerate launch` sets for it."""
ENDS_WITHIN_S = 300
"""Only bounds a test that hangs."""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return build_zoo(tmp_path_factory.mktemp("distributed") / "zoo", modules=(), num_hidden_layers=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Say {n}.", "completion": "a" * n}) + "\n" for n in range(1, 17)))
    return path


@dataclass(frozen=True)
class Training:
    """A `psserve finetune` that is to be run in several processes."""

    zoo: Zoo
    data: Path
    name: str
    processes: int
    batch_size: int
    options: tuple[str, ...] = ()
    fsdp: bool = False
    held_until: Path | None = None

    @property
    def program(self) -> str:
        return "tests.training.on_cpu" if self.fsdp or self.held_until else "psserve.cli.main"

    @property
    def arguments(self) -> list[str]:
        fixed = ["--data", str(self.data), "--lr", "1e-3", "--batch-size", str(self.batch_size), "--log-every", "1"]
        return ["finetune", self.name, *fixed, "--accumulation", "1", *self.options, "--zoo", str(self.zoo.path)]

    @property
    def env(self) -> dict[str, str]:
        changes = (FSDP if self.fsdp else {}) | ({"HELD_UNTIL": str(self.held_until)} if self.held_until else {})
        return {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **changes}

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        """Under torchrun."""
        with log.open("wb") as file:
            return subprocess.Popen(
                [sys.executable, *TORCHRUN, str(self.processes), "-m", self.program, *self.arguments],
                env={**os.environ, **self.env},
                stderr=file,
            )

    def fork(self, log: Path) -> list[BaseProcess]:
        """Start it as forks (ranks.py)."""
        return start_ranks(self.program, self.arguments, self.env, self.processes, log)

    def run(self, log: Path) -> None:
        """As forks, to a good end."""
        assert set(ends_of(self.fork(log), ENDS_WITHIN_S)) == {0}, log.read_text()
        assert log.read_text().count("added") == 1


def weights(zoo: Zoo, name: str) -> dict[str, torch.Tensor]:
    """Those that a module's training made: all, or the adapter's."""
    (file,) = zoo.module(name).path.glob("*model.safetensors")
    return load_file(file)


def losses(zoo: Zoo, name: str) -> list[float]:
    return [entry["loss"] for entry in read_metrics(zoo.path / ".training" / name / "metrics.jsonl")]


def assert_same_training(zoo: Zoo, name: str, expected: str) -> None:
    assert losses(zoo, name) == pytest.approx(losses(zoo, expected), abs=1e-4)
    for weight, tensor in weights(zoo, expected).items():
        torch.testing.assert_close(weights(zoo, name)[weight], tensor, atol=1e-6, rtol=0)


def test_two_processes_train_what_one_trains_on_a_batch_twice_as_large(zoo: Zoo, data: Path, tmp_path: Path) -> None:
    steps = ("--steps", "4")
    Training(zoo, data, "one", 1, 4, steps).run(tmp_path / "one")
    Training(zoo, data, "two", 2, 2, steps).run(tmp_path / "two")
    assert_same_training(zoo, "two", "one")
    Training(zoo, data, "split", 2, 2, steps, fsdp=True).run(tmp_path / "split")
    assert_same_training(zoo, "split", "one")


def test_an_adapter_split_over_two_processes_trains_as_in_one(zoo: Zoo, data: Path, tmp_path: Path) -> None:
    options = ("--steps", "4", "--lora", "--gradient-checkpointing")
    Training(zoo, data, "adapter", 1, 4, options).run(tmp_path / "adapter")
    Training(zoo, data, "split-adapter", 2, 2, options, fsdp=True).run(tmp_path / "split-adapter")
    assert_same_training(zoo, "split-adapter", "adapter")


@pytest.mark.parametrize("module", ["whole", "split"])
def test_two_processes_stop_together_and_go_on_to_the_same_weights(
    zoo: Zoo, data: Path, tmp_path: Path, module: str
) -> None:
    """Four steps an epoch, and a stop after the sixth, amid an epoch."""
    expected, stopped = f"{module}-expected", f"{module}-stopped"
    training = Training(zoo, data, expected, 2, 2, ("--steps", "20"), fsdp=module == "split")
    training.run(tmp_path / "expected")
    log = tmp_path / "stopped"
    stop_one(replace(training, name=stopped, held_until=tmp_path / "told"), log, by_torchrun=not training.fsdp)
    assert "go on with --resume" in log.read_text()
    assert len(losses(zoo, stopped)) == HELD_STEP
    checkpoints = zoo.path / ".training" / stopped / "checkpoints"
    assert len(list(checkpoints.glob("*/pytorch_model_fsdp.bin"))) == training.fsdp, "split, or not"
    replace(training, name=stopped, options=(*training.options, "--resume")).run(tmp_path / "resumed")
    assert losses(zoo, stopped) == losses(zoo, expected)
    assert all(torch.equal(tensor, weights(zoo, stopped)[name]) for name, tensor in weights(zoo, expected).items())


def stop_one(training: Training, log: Path, *, by_torchrun: bool) -> None:
    """Send SIGINT to one of a held training's two processes alone, and let it go on. Both must end, and not well."""
    assert training.held_until

    def is_held() -> bool:
        return len(losses(training.zoo, training.name)) == HELD_STEP - 1

    if by_torchrun:
        process = training.start(log)
        until(lambda: process.poll() is not None or is_held(), ENDS_WITHIN_S)
        psutil.Process(process.pid).children()[-1].send_signal(signal.SIGINT)
        training.held_until.touch()
        assert process.wait(ENDS_WITHIN_S) != 0
        return
    ranks = training.fork(log)
    until(lambda: not all(rank.is_alive() for rank in ranks) or is_held(), ENDS_WITHIN_S)
    psutil.Process(ranks[-1].pid).send_signal(signal.SIGINT)
    training.held_until.touch()
    assert all(ends_of(ranks, ENDS_WITHIN_S)), log.read_text()
