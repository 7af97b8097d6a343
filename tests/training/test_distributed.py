from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from psserve.training.progress import read_metrics
from psserve.zoo import Zoo
from psserve.zoo.synthetic.zoo import build_zoo
from tests.training.on_cpu import HELD_STEP
from tests.waiting import until

LAUNCH = {1: (), 2: ("-m", "torch.distributed.run", "--nproc_per_node", "2")}
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


def start(
    zoo: Zoo,
    data: Path,
    name: str,
    processes: int,
    batch_size: int,
    *options: str,
    fsdp: bool = False,
    held_until: Path | None = None,
) -> subprocess.Popen[str]:
    program = "tests.training.on_cpu" if fsdp or held_until else "psserve.cli.main"
    changes = (FSDP if fsdp else {}) | ({"HELD_UNTIL": str(held_until)} if held_until else {})
    options = ("--data", str(data), "--lr", "1e-3", "--batch-size", str(batch_size), "--log-every", "1", *options)
    return subprocess.Popen(
        [sys.executable, *LAUNCH[processes], "-m", program, "finetune", name, *options, "--zoo", zoo.path],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **changes},
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> None:
    stderr = process.communicate(timeout=ENDS_WITHIN_S)[1]
    assert process.returncode == 0, stderr
    assert stderr.count("added") == 1


def weights(zoo: Zoo, name: str) -> dict[str, torch.Tensor]:
    return load_file(zoo.module(name).path / "model.safetensors")


def losses(zoo: Zoo, name: str) -> list[float]:
    return [entry["loss"] for entry in read_metrics(zoo.path / ".training" / name / "metrics.jsonl")]


def assert_same_training(zoo: Zoo, name: str, expected: str) -> None:
    assert losses(zoo, name) == pytest.approx(losses(zoo, expected), abs=1e-4)
    for weight, tensor in weights(zoo, expected).items():
        torch.testing.assert_close(weights(zoo, name)[weight], tensor, atol=1e-6, rtol=0)


def test_two_processes_train_what_one_trains_on_a_batch_twice_as_large(zoo: Zoo, data: Path) -> None:
    finished(start(zoo, data, "one", 1, 4, "--steps", "4"))
    finished(start(zoo, data, "two", 2, 2, "--steps", "4"))
    assert_same_training(zoo, "two", "one")
    finished(start(zoo, data, "split", 2, 2, "--steps", "4", fsdp=True))
    assert_same_training(zoo, "split", "one")


def test_an_adapter_split_over_two_processes_trains_as_in_one(zoo: Zoo, data: Path) -> None:
    options = ("--steps", "4", "--lora", "--gradient-checkpointing")
    finished(start(zoo, data, "adapter", 1, 4, *options))
    finished(start(zoo, data, "split-adapter", 2, 2, *options, fsdp=True))
    assert_same_training(zoo, "split-adapter", "adapter")


@pytest.mark.parametrize("module", ["whole", "split"])
def test_two_processes_stop_together_and_go_on_to_the_same_weights(
    zoo: Zoo, data: Path, tmp_path: Path, module: str
) -> None:
    """Four steps an epoch, and a stop after the sixth, amid an epoch."""
    fsdp, expected, stopped = module == "split", f"{module}-expected", f"{module}-stopped"
    finished(start(zoo, data, expected, 2, 2, "--steps", "20", fsdp=fsdp))
    told = tmp_path / "told"
    process = start(zoo, data, stopped, 2, 2, "--steps", "20", fsdp=fsdp, held_until=told)
    until(lambda: process.poll() is not None or len(losses(zoo, stopped)) == HELD_STEP - 1, ENDS_WITHIN_S)
    psutil.Process(process.pid).children()[-1].send_signal(signal.SIGINT)  # one of the two alone
    told.touch()
    stderr = process.communicate(timeout=ENDS_WITHIN_S)[1]
    assert process.returncode != 0
    assert "go on with --resume" in stderr
    assert len(losses(zoo, stopped)) == HELD_STEP
    checkpoints = zoo.path / ".training" / stopped / "checkpoints"
    assert len(list(checkpoints.glob("*/pytorch_model_fsdp.bin"))) == fsdp, "split, or not"
    finished(start(zoo, data, stopped, 2, 2, "--steps", "20", "--resume", fsdp=fsdp))
    assert losses(zoo, stopped) == losses(zoo, expected)
    assert all(torch.equal(tensor, weights(zoo, stopped)[name]) for name, tensor in weights(zoo, expected).items())
