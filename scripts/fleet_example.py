"""The worked example of docs/fleet.md: Qwen3-8B with four modules on one H200, planned by psserve itself.

Planning looks at records alone, so no weights and no GPU are needed.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from psserve.fleet import FleetPlan, make_plan
from psserve.fleet.options.config_file import validated
from psserve.fleet.plan.devices import Machine
from psserve.fleet.plan.memory import Budget, amount, usable_bytes
from psserve.fleet.plan.nvidia import Gpu
from psserve.fleet.plan.show import PLAN_COLUMNS, plan_rows
from psserve.zoo import Base, Module, Zoo
from psserve.zoo.checkpoints.architectures import CHECKS
from psserve.zoo.disk.manifest import FileRecord
from psserve.zoo.disk.scan import Scan

CONFIG = """\
context_length = 16384
"""
_HASH = "0" * 64
_FILES = (FileRecord(name="model.safetensors", size=16_381_470_720, blake3=_HASH),)
_BASE = Base(
    path=Path("/models/Qwen3-8B"),
    name="qwen3-8b",
    source="/models/Qwen3-8B",
    checks=CHECKS,
    fingerprint=_HASH,
    architecture="Qwen3ForCausalLM",
    dtype="bfloat16",
    vocab_size=151_936,
    context_length=40_960,
    num_layers=36,
    num_kv_heads=8,
    head_dim=128,
    files=_FILES,
)
_H200 = 143_771 << 20
_MACHINE = Machine(16, 256 << 30, 240 << 30, (Gpu(0, "NVIDIA H200", _H200, _H200),))


class _Recorded(Zoo):
    """A zoo of four modules that are on no disk."""

    def scan(self) -> Scan:
        modules = (
            Module(
                path=self.path / "modules" / name,
                name=name,
                kind="cache-conditioned",
                created=0,
                base_fingerprint=_HASH,
                files=_FILES,
            )
            for name in ("code", "math", "sql", "tools")
        )
        return Scan(self.path, tuple(modules), {})


def example() -> str:
    """The example in Markdown: the configuration, the sum, and the plan that psserve makes of it."""
    zoo = _Recorded(Path("/models/zoo"), _BASE)
    plan = make_plan(zoo, validated({"router": {"port": 0}} | tomllib.loads(CONFIG)), machine=_MACHINE, environ={})
    return f"\n```toml\n{CONFIG}```\n\n{_sum(plan)}\n{_table(plan)}\n\n"


def _table(plan: FleetPlan) -> str:
    lines = [_cells(PLAN_COLUMNS), _cells(["---"] * len(PLAN_COLUMNS)), *map(_cells, plan_rows(plan))]
    return "\n".join(lines[:-1])  # the router takes no GPU memory


def _cells(row: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(row[: PLAN_COLUMNS.index('port')])} |"  # the ports are others each time


def _sum(plan: FleetPlan) -> str:
    budget = Budget.of(_BASE, plan.basis.settings, _MACHINE, [], {})
    gpu = _MACHINE.gpus[0]
    prefill, *decode = [server.memory for server in plan.servers]
    pools = sum(server.memory.kv_bytes for server in plan.servers)
    weights, before, after = map(amount, (prefill.weight_bytes, prefill.overhead_bytes, decode[0].overhead_bytes))
    return f"""\
- A token's KV cache: 2 (K and V) x {_BASE.num_layers} layers x {_BASE.num_kv_heads} heads x {_BASE.head_dim} x 2
  bytes = {budget.token_bytes} bytes. A server's weights: {weights}; what is counted for CUDA: {before} for the
  prefill server, {after} for a decode server.
- The GPU: {amount(gpu.total_bytes)}, all free; less a tenth = {amount(usable_bytes(gpu))} to plan with.
- Left for KV cache: {amount(usable_bytes(gpu))} - {len(plan.servers)} x {weights} - {before} - {len(decode)} x {after}
  = {amount(pools)}.
- prefill-0: three fifths = {amount(prefill.kv_bytes)} = {prefill.kv_tokens} tokens.
- Each decode server: two fifths / {len(decode)} = {amount(decode[0].kv_bytes)} = {decode[0].kv_tokens} tokens.
"""


if __name__ == "__main__":
    print(example())
