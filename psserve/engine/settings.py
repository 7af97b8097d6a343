"""What a worker's processes learn from their environment.

SGLang spawns its scheduler and detokenizer as new processes and loads plugins in each before any argument is known
there, so the role travels in the environment. The worker sets it; nobody else needs to.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar

from psserve.errors import EngineError

E = TypeVar("E", bound=Enum)

WORKER = "psserve.engine.worker"
"""The program that is one server."""
ROLE = "PSSERVE_ROLE"
WORKER_KEY = "PSSERVE_WORKER_KEY"
ALLOW_UNTESTED = "PSSERVE_ALLOW_UNTESTED_SGLANG"
CHECK_PURITY = "PSSERVE_CHECK_PURITY"
NEGATIVE_CONTROL = "PSSERVE_NEGATIVE_CONTROL"
FEW_CORES = "PSSERVE_FEW_CORES"
ADAPTERS = "PSSERVE_ADAPTERS"
ONE_POOL = "PSSERVE_ONE_POOL"
LENT_ROWS = "PSSERVE_LENT_ROWS"


class Role(Enum):
    """What a server is for."""

    PREFILL = "prefill"
    DECODE = "decode"
    STOCK = "stock"
    """A plain SGLang server, which benchmarks compare with: only what SGLang needs to run on a CPU is hooked."""


class NegativeControl(Enum):
    """Deliberate mistakes, for tests that prove that the exactness suite can fail. Never set in service."""

    NONE = ""
    NO_HOOKS = "no-hooks"
    KEEP_GENERATED_KV = "keep-generated-kv"
    ADAPTER_IN_KEY = "adapter-in-key"
    NO_LEASE = "no-lease"


@dataclass(frozen=True)
class Settings:
    """A worker process's part in the fleet. `role` is None in processes that are no psserve worker's."""

    role: Role | None
    allow_untested: bool
    negative_control: NegativeControl
    check_purity: bool = False
    """Whether an idle server looks through its radix tree, and ends where something does not belong there."""
    few_cores: bool = False
    """Whether threads that wait must leave the cores to others. On CPU they always do."""
    adapters: Path | None = None
    """The folder of the adapters that a decode server serves, a folder (or link) each; None where it serves a module
    of its own."""
    one_pool: bool = False
    """Whether decode servers read the base's KV in the prefill server's pool."""
    lent_rows: int | None = None
    """Rows of the largest prefill server's pool, if a decode server must not have room for more."""

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the settings; raises EngineError for a value that is none of the allowed ones."""
        role = os.environ.get(ROLE, "")
        return cls(
            role=_parse(ROLE, Role, role) if role else None,
            allow_untested=os.environ.get(ALLOW_UNTESTED, "") == "1",
            negative_control=_parse(NEGATIVE_CONTROL, NegativeControl, os.environ.get(NEGATIVE_CONTROL, "")),
            check_purity=os.environ.get(CHECK_PURITY, "") == "1",
            few_cores=os.environ.get(FEW_CORES, "") == "1",
            adapters=adapters_folder(),
            one_pool=os.environ.get(ONE_POOL, "") == "1",
            lent_rows=_lent_rows(),
        )


def adapters_folder() -> Path | None:
    """The folder of the adapters that this process's server serves, if it serves any."""
    folder = os.environ.get(ADAPTERS)
    return Path(folder) if folder else None


def _lent_rows() -> int | None:
    text = os.environ.get(LENT_ROWS, "")
    if text and not text.isdigit():
        raise EngineError(f"environment variable {LENT_ROWS}={text!r} must be a number of rows")
    return int(text) if text else None


def _parse(name: str, kind: type[E], value: str) -> E:
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(repr(member.value) for member in kind)
        raise EngineError(f"environment variable {name}={value!r} must be one of {allowed}") from None
