"""Have SGLang's own parser read command lines as on a machine with CUDA, which is faked.

Standard input: {"capability": [major, minor], "cards": [{"mib": a GPU's memory, "commands": [[SGLang's arguments],
...]}, ...]}. Standard output, last line: what SGLang made of each card's commands.
"""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch

from psserve import torchvision_ops

ABSENT = ("sgl_kernel", "flashinfer", "deep_gemm")
"""Packages that only the GPU set has. SGLang imports from them and, while it parses, calls nothing of theirs."""


class Absent:
    """Finds and loads such a package."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] in ABSENT else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> Any:
        return MagicMock(name=spec.name, __path__=[], __spec__=spec, __version__="0.6.17")

    def exec_module(self, module: ModuleType) -> None:
        return None


def fake_cuda(capability: tuple[int, int], mib: int) -> None:
    """Let torch say that there are eight such GPUs, until it is called again."""
    total = mib * 1024**2
    card = SimpleNamespace(major=capability[0], minor=capability[1], total_memory=total, multi_processor_count=132)
    torch.version.cuda = "13.0"
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: 8
    torch.cuda.current_device = lambda: 0
    torch.cuda.get_device_capability = lambda device=None: capability  # type: ignore[assignment]
    torch.cuda.get_device_name = lambda device=None: "a card"  # type: ignore[assignment]
    torch.cuda.mem_get_info = lambda device=None: (total, total)
    torch.cuda.get_device_properties = lambda device=None: card


def main() -> None:
    asked = json.loads(sys.stdin.read())
    torchvision_ops.declare_missing()
    sys.meta_path.append(Absent())  # type: ignore[arg-type]
    answers = []
    for card in asked["cards"]:
        fake_cuda(tuple(asked["capability"]), card["mib"])
        answers.append([parsed(command) for command in card["commands"]])
    print(json.dumps(answers))


def parsed(command: list[str]) -> dict[str, Any]:
    """What SGLang makes of one command line."""
    from sglang.srt.server_args import prepare_server_args

    from psserve.engine import arguments

    role = arguments.role_of(command)
    arguments.check(command, role)
    found = arguments.resolved(prepare_server_args(command))
    arguments.check_parsed(found, role)
    return {
        "attention": found.attention_backend,
        "page_size": found.page_size,
        "chunk": found.chunked_prefill_size,
        "batch": found.cuda_graph_config.decode.max_bs,
        "prefill_graphs": len(found.cuda_graph_config.prefill.bs),
        "tp": found.tp_size,
        "kv_tokens": found.max_total_tokens,
    }


if __name__ == "__main__":
    main()
