from __future__ import annotations

from pathlib import Path

import pytest

from psserve.bench.systems.fleet import LaunchFailed, fleet_settings, launched
from psserve.bench.systems.system import SystemSpec


def test_a_launch_that_ends_at_once_is_told_with_the_logs_there_are(tmp_path: Path) -> None:
    logs = tmp_path / ".run" / "logs"
    logs.mkdir(parents=True)
    (logs / "prefill-0.log").write_text("\n".join(map(str, range(100))))
    with pytest.raises(LaunchFailed) as failure, launched(tmp_path, []):  # no zoo is there
        pass
    assert failure.value.logs["prefill-0"].splitlines()[-1] == "99"


def test_with_one_pool_a_fleet_has_as_much_kv_and_more_of_it_for_contexts(tmp_path: Path) -> None:
    modules = ("a", "b", "c", "d")
    prefill, total = {}, {}
    for transfer in ("nixl", "shared"):
        spec = SystemSpec(
            zoo=tmp_path, modules=modules, kv_tokens=40_960, context_length=2_048, device="cpu", transfer=transfer
        )
        made = fleet_settings(spec, len(modules))
        assert made["transfer"] == transfer
        prefill[transfer] = made["prefill"]["kv_tokens"]
        total[transfer] = prefill[transfer] + len(modules) * made["decode"]["kv_tokens"]
    assert prefill == {"nixl": 24_576, "shared": 36_864}
    assert set(total.values()) == {40_960}
