"""`psserve demo` hands its options on to `psserve launch`."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from psserve.cli.main import cli


def test_arguments_of_sglang_reach_the_servers(tmp_path: Path) -> None:
    asked = ("--zoo", str(tmp_path / "zoo"), "--dry-run", "--device", "cpu", "--port", "0", "--json")
    result = CliRunner().invoke(cli, ["demo", *asked, "--", "--schedule-policy", "lpm"])
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["servers"][0]["command"][-2:] == ["--schedule-policy", "lpm"]
