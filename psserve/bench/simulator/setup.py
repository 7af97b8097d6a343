"""What is simulated: a system, its servers, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from psserve.bench.simulator.costs import Costs
from psserve.contracts.router_config import PolicyName
from psserve.errors import UsageError

SystemName = Literal["shared", "disaggregated", "colocated", "lora", "single"]
SYSTEMS: tuple[SystemName, ...] = get_args(SystemName)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Every server has one device, or all share some cores. Raises UsageError for servers that make no such system."""

    system: SystemName
    modules: tuple[str, ...]
    prefill: int
    """Servers that compute prompts. Where each does both, there are `prefill + decode` of them."""
    decode: int
    costs: Costs
    kv_tokens: int
    """KV pool of each server."""
    decode_kv_tokens: int | None = None
    """Of each decode server, where that is another."""
    page_size: int = 16
    chunk: int = 8192
    """Most tokens of a prefill batch (SGLang's --chunked-prefill-size)."""
    reserved_tokens: int = 512
    """KV kept free for each answer, or the answer's length if that is more (--num-reserved-decode-tokens)."""
    prefill_policy: PolicyName = "prefix"
    decode_policy: PolicyName = "session"
    longest_tokens: int | None = None
    """Longer sessions are refused: the costs do not reach so far."""
    cores: float | None = None
    """All servers share so many CPU cores, one each at most; None: each has a device of its own. Less than the machine
    has where busy servers slow each other down: with 1.4, two at once run at 0.7 of their speed."""

    def __post_init__(self) -> None:
        count = len(self.modules)
        if count < 1 or len(set(self.modules)) < count:
            raise UsageError("modules: give at least one, and none twice")
        if self.prefill < 1 or self.decode < (self.system in ("shared", "disaggregated")):
            raise UsageError(f"{self.prefill} prefill and {self.decode} decode servers: give at least one of each")
        needed = {"disaggregated": min(self.prefill, self.decode), "shared": self.decode, "colocated": self.servers}
        if needed.get(self.system, count) < count:
            raise UsageError(
                f"{self.prefill} prefill and {self.decode} decode servers are too few for {count} modules as"
                f" `{self.system}`, where each module has its own: give more servers or fewer modules"
            )

    @property
    def servers(self) -> int:
        return self.prefill + self.decode
