"""Pieces of a long comparison: what one leaves, the next finds."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from psserve.errors import TrainingError
from scripts import gpu_accuracy

SCRIPTS = Path(gpu_accuracy.__file__).parent


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_base_and_scores_go_on_in_small_files_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_accuracy, "PART_BYTES", 20_000)
    kept = {"base/model.safetensors": bytes(range(256)) * 100, "seed-0/math/full-16.json": b"{}"}
    kept |= {"seed-0/math/made-of": b"x", "fine-tunes.json": b"[]"}
    for name, content in (kept | {"base-corpus.pt": b"state", "seed-0/math/zoo/zoo.toml": b"zoo"}).items():
        write(tmp_path / "work" / name, content)
    gpu_accuracy.pack(tmp_path / "work", tmp_path / "out")
    parts = sorted((tmp_path / "out").glob("state-*.part"))
    assert len(parts) > 1
    assert all(part.stat().st_size <= 20_000 for part in parts)
    gpu_accuracy.unpack(tmp_path / "out", tmp_path / "next")
    found = {
        str(p.relative_to(tmp_path / "next")): p.read_bytes() for p in (tmp_path / "next").rglob("*") if p.is_file()
    }
    assert found == kept


def test_more_than_a_piece_sends_back_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_accuracy, "PART_BYTES", 1000)
    write(tmp_path / "work" / "base" / "model.safetensors", bytes(10_000))
    with pytest.raises(SystemExit, match="more than a piece sends back: choose a smaller base"):
        gpu_accuracy.pack(tmp_path / "work", tmp_path / "out")


def test_a_run_that_takes_too_long_is_interrupted(tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = f"""
import pathlib, time
try:
    pathlib.Path({str(tmp_path / "begun")!r}).touch()
    time.sleep(600)
except KeyboardInterrupt:
    pathlib.Path({str(told)!r}).touch()
"""
    assert gpu_accuracy.run([sys.executable, "-c", code], 1) == gpu_accuracy.UNFINISHED
    assert told.exists() or not (tmp_path / "begun").exists()
    assert gpu_accuracy.run([sys.executable, "-c", "raise SystemExit(3)"], 600) == 3


def test_a_state_that_is_none_is_refused_instead_of_beginning_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(gpu_accuracy, "run")
    write(tmp_path / "other" / "notes.txt", b"x")
    for name, problem in (("gone", "no such folder"), ("other", "holds no state-*.part")):
        with pytest.raises(SystemExit) as ended:
            gpu_accuracy.main(["--state", str(tmp_path / name), "--out", str(tmp_path / "out")])
        assert ended.value.code == 2
        assert f"--state {tmp_path / name}: {problem}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_piece_makes_no_base_and_no_fine_tune_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    fine_tunes = importlib.import_module("fine_tunes")

    def run(command: Sequence[str], seconds: float) -> int:
        """The script in this process, whose imports are there."""
        assert Path(command[1]).name == "fine_tunes.py"
        fine_tunes.compare(fine_tunes.parse(list(command[2:])))
        return 0

    monkeypatch.setattr(gpu_accuracy, "run", run)
    none, first, second = (tmp_path / name for name in ("none", "first", "second"))
    none.mkdir()
    options = ["--", "--base", "tiny", "--tasks", "math", "--ranks", "2", "--methods", "full"]
    assert gpu_accuracy.main(["--state", str(none), "--out", str(first), *options]) == 0
    monkeypatch.setattr("psserve.demo.demo_zoo.make_base", None)
    [before] = json.loads((first / "fine-tunes.json").read_text())["fine_tunes"]

    assert gpu_accuracy.main(["--state", str(first), "--out", str(second), *options, "icarus"]) == 0
    made = json.loads((second / "fine-tunes.json").read_text())["fine_tunes"]
    assert made[0] == before

    with pytest.raises(TrainingError, match="not known to be made as --base and --base-share say now"):
        gpu_accuracy.main(["--state", str(first), "--out", str(second), *options, "--base-share", "0.5"])
    assert [(each["method"], each["rank"]) for each in made] == [("full", 2), ("icarus", 2)]
