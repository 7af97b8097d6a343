from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def gpu_check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, imported as Python runs it: with its own folder first on the path."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import gpu_check

    return gpu_check


def test_launch_arguments_follow_the_options(gpu_check: ModuleType) -> None:
    options = gpu_check.parse(["--transfer", "nixl", "--attention-backend", "flashinfer", "--env", "A=1"])
    arguments = gpu_check.launch_arguments(options, plain=False)
    assert arguments[arguments.index("--kv-tokens") + 1] == "65536"
    assert arguments[-3:] == ["--", "--attention-backend", "flashinfer"]
    assert "A=1" in arguments


def test_prompts_of_three_chunks_and_more_are_judged(gpu_check: ModuleType) -> None:
    arguments = gpu_check.launch_arguments(gpu_check.parse(["--transfer", "nixl"]), plain=False)
    chunk = int(arguments[arguments.index("--chunked-prefill-size") + 1])
    chunks = {-(-length // chunk) for length in gpu_check.PROMPTS}
    assert {1, 3} <= chunks
    assert max(chunks) > 3


def test_what_the_user_asks_for_comes_after_the_plain_engine(gpu_check: ModuleType) -> None:
    options = gpu_check.parse(["--attention-backend", "fa3"])
    arguments = gpu_check.launch_arguments(options, plain=True)
    assert arguments.index("triton") < arguments.index("fa3")


def test_an_unknown_shape_is_a_usage_error(gpu_check: ModuleType) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu_check.parse(["--shapes", "qwen3-9b"])


def test_real_shapes_are_those_of_the_models(gpu_check: ModuleType) -> None:
    from transformers import AutoConfig

    sizes = {}
    for name in ("qwen3-0.6b", "qwen3-1.7b"):
        config = AutoConfig.for_model("qwen3", **gpu_check.SHAPES[name])
        attention = 2 * config.hidden_size * config.head_dim * (16 + 8)
        mlp = 3 * config.hidden_size * config.intermediate_size
        sizes[name] = config.num_hidden_layers * (attention + mlp) + config.vocab_size * config.hidden_size
    assert sizes == {"qwen3-0.6b": pytest.approx(0.596e9, rel=0.01), "qwen3-1.7b": pytest.approx(1.72e9, rel=0.01)}


def test_a_shape_that_breaks_is_recorded_and_the_next_one_goes_on(
    gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "result.json"
    options = gpu_check.parse(["--shapes", "qwen3-0.6b,tiny", "--device", "cpu", "--out", str(out)])

    def check_shape(self: Any, shape: str, entry: dict[str, Any]) -> None:
        if shape != "tiny":
            raise RuntimeError("no such luck")
        entry["passed"] = True

    monkeypatch.setattr(gpu_check.Check, "check_shape", check_shape)
    assert gpu_check.Check(options, tmp_path, stand_in=False).run() == 1
    result = json.loads(out.read_text())
    assert "no such luck" in result["shapes"]["qwen3-0.6b"]["error"]
    assert result["shapes"]["tiny"]["passed"]
    assert (result["complete"], result["passed"]) == (True, False)


def check_on(gpu_check: ModuleType, device: str, out: Path) -> Any:
    options = gpu_check.parse(["--device", device, "--transfer", "nixl", "--out", str(out)])
    return gpu_check.Check(options, out.parent, stand_in=False)


def starting_with(kernels: str | None) -> Any:
    """A `launched` whose fleet starts with these kernels only (None: with any)."""

    @contextmanager
    def launched(zoo: Path, arguments: list[str], within_s: float) -> Iterator[Any]:
        from psserve.bench.systems.fleet import LaunchFailed

        if kernels is not None and kernels not in arguments:
            raise LaunchFailed({"prefill-0": "no nvcc"})
        yield SimpleNamespace(ready_s=1.0)

    return launched


def test_a_gpu_fleet_that_does_not_start_is_tried_with_plain_kernels(
    gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psserve.bench.systems.fleet.launched", starting_with("triton"))
    entry: dict[str, Any] = {}
    with check_on(gpu_check, "cuda", tmp_path / "x.json").fleet(SimpleNamespace(path=tmp_path), entry) as fleet:
        assert fleet.ready_s == 1.0
    assert "triton" in entry["launch"]["arguments"]
    assert [failed["logs"] for failed in entry["failed_launches"]] == [{"prefill-0": "no nvcc"}]


@pytest.mark.parametrize(("device", "attempts"), [("cuda", 2), ("cpu", 1)])
def test_a_fleet_that_never_starts_leaves_its_logs_in_the_result(
    gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, attempts: int
) -> None:
    monkeypatch.setattr("psserve.bench.systems.fleet.launched", starting_with("kernels that there are not"))
    entry: dict[str, Any] = {}
    fleet = check_on(gpu_check, device, tmp_path / "x.json").fleet(SimpleNamespace(path=tmp_path), entry)
    with pytest.raises(RuntimeError, match="does not start"):
        fleet.__enter__()
    assert len(entry["failed_launches"]) == attempts


def test_an_error_while_a_fleet_runs_is_no_failed_launch(
    gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psserve.bench.systems.fleet.launched", starting_with(None))
    entry: dict[str, Any] = {}
    check = check_on(gpu_check, "cuda", tmp_path / "x.json")
    with pytest.raises(ZeroDivisionError), check.fleet(SimpleNamespace(path=tmp_path), entry):
        raise ZeroDivisionError
    assert "failed_launches" not in entry


@pytest.mark.gpu
@pytest.mark.timeout(1800)
def test_a_small_fleet_serves_right_on_this_gpu(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, str(SCRIPTS / "gpu_check.py"), "--shapes", "qwen3-0.6b", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    assert json.loads(out.read_text())["shapes"]["qwen3-0.6b"]["exactness"]["control_refused"]
