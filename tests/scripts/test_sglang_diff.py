"""What a release changes, told from two that are installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from psserve.engine.handover import releases
from psserve.engine.versions import SUPPORTED
from scripts import sglang_diff
from tests.engine.release import tree_of

FILL_LEN = "sglang.srt.disaggregation.decode.DecodePreallocQueue._pre_alloc_fill_len"
MATCH = "sglang.srt.disaggregation.decode.DecodePreallocQueue._match_prefix_and_lock"
RESUME = "sglang.srt.disaggregation.decode.DecodePreallocQueue.resume_retracted_reqs"


def test_changed_functions_are_shown_with_their_diffs(capsys: pytest.CaptureFixture[str]) -> None:
    tree_of("0.5.18"), tree_of("0.5.23")
    assert sglang_diff.main(["0.5.23", "--against", "0.5.18"]) == 1
    shown = capsys.readouterr().out
    assert f"body      {RESUME}\n@@" in shown
    assert "ScheduleBatchDisaggregationDecodeMixin.process_prebuilt\n" in shown
    assert "\n-        req.set_extend_range(total_prefix_len, req.kv_committed_len)\n" in shown
    assert FILL_LEN not in shown  # the same in both
    assert shown.splitlines()[-1].startswith("sglang 0.5.23 against 0.5.18: ")


def test_a_release_does_not_differ_from_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert sglang_diff.main([str(tree_of("0.5.18").root), "--against", "0.5.18"]) == 0
    assert "0.5.18 against 0.5.18: 0 changes" in capsys.readouterr().out


def test_missing_fields_and_functions_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sglang").mkdir()
    assert sglang_diff.main([str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "field    Req.to_finish (sglang.srt.managers.schedule_batch.Req) is missing" in shown
    assert f"missing  {MATCH}" in shown


@pytest.mark.parametrize("release", SUPPORTED)
def test_recording_an_installed_release_again_changes_nothing(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree_of(release)
    table = tmp_path / "releases.json"
    before = releases.TABLE.read_text()
    entries = json.loads(before)
    del entries[release]
    table.write_text(json.dumps(entries))
    monkeypatch.setattr(releases, "TABLE", table)
    assert sglang_diff.main([release, "--write"]) == 0
    assert table.read_text() == before
