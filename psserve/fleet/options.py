"""What a user may ask of a fleet: the flags of `psserve launch`, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from psserve.addresses import is_loopback
from psserve.errors import UsageError
from psserve.fleet.devices import DeviceChoice

DtypeChoice = Literal["auto", "float32", "bfloat16", "float16"]
TransferChoice = Literal["auto", "nixl", "mooncake"]


@dataclass(frozen=True, kw_only=True)
class FleetOptions:
    """Options of one fleet. None means: psserve or SGLang chooses.

    Raises:
        UsageError: an option is out of range, or two do not go together.
    """

    modules: tuple[str, ...] | None = None
    """Names or aliases of the modules to serve; None: all of the zoo's."""
    serve_base: bool = False
    """Serve the base itself too, as a module under its own name."""
    prefill: int = 1
    """Number of prefill servers."""
    host: str = "127.0.0.1"
    port: int = 30000
    """The router's port; 0 picks a free one."""
    api_key: str | None = field(default=None, repr=False)
    """What clients must send; required when `host` is not a loopback address."""
    device: DeviceChoice = "auto"
    dtype: DtypeChoice = "auto"
    """auto: float32 on CPU, bfloat16 on GPU."""
    transfer: TransferChoice = "auto"
    """auto: nixl."""
    page_size: int = 16
    """Tokens a KV page. Only whole pages are shared."""
    kv_tokens: int | None = None
    """KV pool of each server, in tokens."""
    context_length: int | None = None
    chunked_prefill_size: int | None = None
    """Longest piece of a prompt computed in one step, in tokens."""
    max_running_requests: int | None = None
    """Requests each server computes at a time."""
    request_timeout_s: float = 600.0
    drain_s: float = 30.0
    """How long requests in flight may go on when the fleet is told to stop."""
    engine_args: tuple[str, ...] = ()
    """Handed to every SGLang server as they are, last."""
    extra_env: Mapping[str, str] = field(default_factory=dict)
    """Set in every SGLang server, over all else."""

    def __post_init__(self) -> None:
        _at_least("--prefill", self.prefill, 1)
        _at_least("--page-size", self.page_size, 1)
        for flag, value in (
            ("--kv-tokens", self.kv_tokens),
            ("--context-length", self.context_length),
            ("--chunked-prefill-size", self.chunked_prefill_size),
            ("--max-running-requests", self.max_running_requests),
        ):
            if value is not None:
                _at_least(flag, value, 1)
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--port {self.port}: give 0 to 65535")
        if not self.request_timeout_s > 0:
            raise UsageError(f"--request-timeout-secs {self.request_timeout_s:g}: give a positive number")
        if not self.drain_s >= 0:
            raise UsageError(f"--drain-secs {self.drain_s:g}: give 0 or more")
        if self.modules is not None and not self.modules and not self.serve_base:
            raise UsageError("--modules names no module; leave it out to serve all")
        if self.api_key == "":
            raise UsageError("--api-key is empty")
        if not is_loopback(self.host) and self.api_key is None:
            raise UsageError(f"--host {self.host} is open to other machines: give --api-key, or use --host 127.0.0.1")


def _at_least(flag: str, value: int, low: int) -> None:
    if value < low:
        raise UsageError(f"{flag} {value}: give at least {low}")
