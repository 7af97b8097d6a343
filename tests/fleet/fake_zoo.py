"""A zoo in memory, with just what planning looks at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from psserve.errors import UnknownModule
from psserve.zoo import Module
from psserve.zoo.checkpoints.architectures import CHECKS
from psserve.zoo.disk.manifest import AdapterShape
from psserve.zoo.disk.scan import Scan


@dataclass(frozen=True)
class FakeBase:
    path: Path
    name: str = "qwen3-tiny"
    architecture: str = "Qwen3ForCausalLM"
    vocab_size: int = 512
    context_length: int = 4096
    dtype: str = "float32"
    num_layers: int = 4
    num_kv_heads: int = 2
    head_dim: int = 16
    weight_bytes: int = 4_000_000
    quantisation: str | None = None
    checks: int = CHECKS


@dataclass(frozen=True)
class FakeModule:
    name: str
    path: Path
    aliases: tuple[str, ...] = ()
    task: str = ""
    examples: tuple[str, ...] = ()
    created: int = 1_764_000_000
    weight_bytes: int = 4_000_000
    dtype: str | None = None
    quantisation: str | None = None
    adapter: AdapterShape | None = None
    version: int = 1

    @property
    def versioned_name(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def shares_servers(self) -> bool:
        return self.adapter is not None


class FakeScan(Scan):
    """What `FakeZoo.modules` has, at one moment."""

    def get(self, name: str) -> Module:
        for module in self.modules:
            if name in (module.name, *module.aliases):
                return module
        raise UnknownModule(name)


@dataclass(frozen=True)
class FakeZoo:
    path: Path
    base: FakeBase
    names: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"code": (), "math": ("maths",)})
    sizes: dict[str, int] = field(default_factory=dict)
    """Of the weights of modules that have not the base's size."""
    adapters: dict[str, AdapterShape] = field(default_factory=dict)
    """Of modules that are adapters."""

    def modules(self) -> list[FakeModule]:
        size = self.base.weight_bytes
        return [
            FakeModule(
                name,
                self.path / "modules" / name,
                aliases,
                weight_bytes=self.sizes.get(name, size),
                adapter=self.adapters.get(name),
            )
            for name, aliases in self.names.items()
        ]

    def scan(self) -> Scan:
        return FakeScan(self.path, tuple(self.modules()), {})  # type: ignore[arg-type]

    def module(self, wanted: str) -> Module:
        return self.scan().get(wanted)
