from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from psserve.zoo import Zoo
from psserve.zoo.synthetic import build_zoo

LAUNCH = {1: (), 2: ("-m", "torch.distributed.run", "--nproc_per_node", "2")}


def finetune(zoo: Zoo, data: Path, name: str, *, processes: int, batch_size: int) -> dict[str, torch.Tensor]:
    options = ["--data", str(data), "--steps", "4", "--lr", "1e-3", "--batch-size", str(batch_size)]
    done = subprocess.run(
        [sys.executable, *LAUNCH[processes], "-m", "psserve.cli.main", "finetune", name, *options, "--zoo", zoo.path],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("added") == 1
    return load_file(zoo.module(name).path / "model.safetensors")


def test_two_processes_train_what_one_trains_on_a_batch_twice_as_large(tmp_path: Path) -> None:
    zoo = build_zoo(tmp_path / "zoo", modules=(), num_hidden_layers=1)
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"Say {n}.", "completion": "a" * n}) + "\n" for n in range(1, 17)))
    one = finetune(zoo, data, "one", processes=1, batch_size=4)
    two = finetune(zoo, data, "two", processes=2, batch_size=2)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-6, rtol=0)
