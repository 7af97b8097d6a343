from __future__ import annotations

from pathlib import Path

import pytest

from psserve.bench.systems.fleet import LaunchFailed, launched


def test_a_launch_that_ends_at_once_is_told_with_the_logs_there_are(tmp_path: Path) -> None:
    logs = tmp_path / ".run" / "logs"
    logs.mkdir(parents=True)
    (logs / "prefill-0.log").write_text("\n".join(map(str, range(100))))
    with pytest.raises(LaunchFailed) as failure, launched(tmp_path, []):  # no zoo is there
        pass
    assert failure.value.logs["prefill-0"].splitlines()[-1] == "99"
