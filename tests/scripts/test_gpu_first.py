from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from psserve.cli.bench_compare import command
from tests.waiting import until

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def gpu_first(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, imported as Python runs it: with its own folder first on the path."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("gpu_first")


@pytest.fixture
def gpu_parts(gpu_first: ModuleType) -> ModuleType:
    return importlib.import_module("measuring.gpu_parts")


def options_of(gpu_first: ModuleType, out: Path, *arguments: str) -> Any:
    options = gpu_first.parse(["--out", str(out), "--work", str(out / "work"), *arguments])
    options.limit = 60.0
    return options


@pytest.mark.gpu
@pytest.mark.timeout(1800)
def test_a_small_fleet_serves_right_on_this_gpu(tmp_path: Path) -> None:
    only = ["--only", "serving", "--own-kernels", "--patience", "7"]  # a first start compiles kernels
    command = [sys.executable, str(SCRIPTS / "gpu_first.py"), *only, "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "exactness.json").read_text())["exactness"]["control_refused"] == 20


STUB = """
import json, sys, time
from pathlib import Path
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
part, out = options["--part"], Path(options["--out"])
files = ("exactness", "handover") if part == "serving" else (part,)
for name in files:
    out.joinpath(name + ".json").write_text(json.dumps({"passed": part != "early-send"}))
print("this is", part)
if part == "serving":
    time.sleep(60)
if part == "import":
    sys.exit(1)
"""


def ended_once_it_wrote(ended: Callable[..., bool], out: Path, part: subprocess.Popen[str], seconds: float) -> bool:
    """`gpu_first.ended`, whose time begins when the part that hangs does."""
    if "serving" in part.args:
        until((out / "handover.json").exists)
    return ended(part, seconds)


def test_a_part_that_fails_or_hangs_costs_the_others_nothing(
    gpu_first: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "stub.py"
    script.write_text(STUB)
    monkeypatch.setattr(gpu_first, "__file__", str(script))
    monkeypatch.setattr(gpu_first, "STOP_S", 5)
    monkeypatch.setattr(gpu_first, "ended", partial(ended_once_it_wrote, gpu_first.ended, tmp_path))
    monkeypatch.setattr(gpu_first, "LIMITS_S", dict.fromkeys(gpu_first.LIMITS_S, 60) | {"serving": 8})
    monkeypatch.setattr(sys, "argv", ["gpu_first.py", "--out", str(tmp_path)])
    assert gpu_first.run_parts(options_of(gpu_first, tmp_path)) == 1
    parts = json.loads((tmp_path / "first.json").read_text())["parts"]
    assert {name: part["state"] for name, part in parts.items()} == {
        "import": "failed",
        "serving": "out of time",
        "early-send": "failed",
        "adapters": "passed",
        "bench": "passed",
    }
    assert "this is import" in parts["import"]["tail"]
    assert json.loads((tmp_path / "exactness.json").read_text())["passed"]


def test_an_interrupt_ends_the_part_that_runs(
    gpu_first: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = []

    def interrupted(part: subprocess.Popen[bytes], within_s: float) -> bool:
        parts.append(part)
        if len(parts) > 1:
            return ended(part, within_s)
        until((tmp_path / "handover.json").exists)
        raise KeyboardInterrupt

    script = tmp_path / "stub.py"
    script.write_text(STUB)
    ended = gpu_first.ended
    monkeypatch.setattr(gpu_first, "__file__", str(script))
    monkeypatch.setattr(gpu_first, "ended", interrupted)
    monkeypatch.setattr(sys, "argv", ["gpu_first.py", "--out", str(tmp_path)])
    with pytest.raises(KeyboardInterrupt):
        gpu_first.run_part("serving", 60, options_of(gpu_first, tmp_path))
    assert parts[0].poll() == -signal.SIGINT


def test_parts_for_which_no_time_is_left_are_named(
    gpu_first: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_first.py"])
    gpu_first.run_parts(options_of(gpu_first, tmp_path, "--minutes", "0", "--only", "bench"))
    assert json.loads((tmp_path / "first.json").read_text())["parts"]["bench"]["state"] == "no time left"


def test_triton_attends_unless_the_user_says_otherwise(
    gpu_first: ModuleType, gpu_parts: ModuleType, tmp_path: Path
) -> None:
    options = options_of(gpu_first, tmp_path, "--engine-arg=--attention-backend", "--engine-arg=fa3")
    arguments = gpu_parts.launch_arguments(options)
    assert arguments[arguments.index("--kv-tokens") + 1] == "65536"
    assert arguments.index("triton") < arguments.index("fa3")
    assert "triton" not in gpu_parts.launch_arguments(options_of(gpu_first, tmp_path, "--own-kernels"))


def test_the_comparison_is_one_that_psserve_bench_understands(
    gpu_first: ModuleType, gpu_parts: ModuleType, tmp_path: Path
) -> None:
    given = command.make_context(
        "compare", gpu_parts.bench_arguments(options_of(gpu_first, tmp_path), tmp_path, tmp_path)
    ).params
    assert given["systems"] == ("shared", "disaggregated")
    assert given["engine_args"][:2] == ("--attention-backend", "triton")


def test_long_prompts_have_three_chunks_and_six(gpu_parts: ModuleType) -> None:
    from psserve.rule import prefill_len

    for chunk in gpu_parts.CHUNK.values():
        chunks = [-(-prefill_len(length) // chunk) for length in gpu_parts.prompt_lengths(chunk)]
        assert chunks == [1, 1, 1, 3, 6]


def test_real_shapes_are_those_of_the_models(gpu_parts: ModuleType) -> None:
    from transformers import AutoConfig

    sizes = {}
    for name in ("qwen3-0.6b", "qwen3-1.7b"):
        config = AutoConfig.for_model("qwen3", **gpu_parts.SHAPES[name])
        attention = 2 * config.hidden_size * config.head_dim * (16 + 8)
        mlp = 3 * config.hidden_size * config.intermediate_size
        sizes[name] = config.num_hidden_layers * (attention + mlp) + config.vocab_size * config.hidden_size
    assert sizes == {"qwen3-0.6b": pytest.approx(0.596e9, rel=0.01), "qwen3-1.7b": pytest.approx(1.72e9, rel=0.01)}


def test_a_fleet_that_does_not_start_leaves_its_logs_in_the_result(
    gpu_first: ModuleType, gpu_parts: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from psserve.bench.systems.fleet import LaunchFailed

    @contextmanager
    def launched(zoo: Path, arguments: list[str], within_s: float) -> Iterator[Any]:
        raise LaunchFailed({"prefill-0": "no nvcc"})
        yield

    monkeypatch.setattr("psserve.bench.systems.fleet.launched", launched)
    record = gpu_parts.Record(tmp_path / "exactness.json", {})
    fleet = gpu_parts.running(options_of(gpu_first, tmp_path), SimpleNamespace(path=tmp_path), record)
    with pytest.raises(LaunchFailed):
        fleet.__enter__()
    kept = json.loads((tmp_path / "exactness.json").read_text())
    assert (kept["passed"], kept["launch"]["logs"]) == (False, {"prefill-0": "no nvcc"})


def test_early_send_is_forced_by_a_plugin_that_sglang_finds(gpu_parts: ModuleType) -> None:
    load = """
import os
from importlib.metadata import entry_points
for found in entry_points(group="sglang.srt.plugins"):
    if found.name == "early_send":
        found.load()()
print(os.environ.get("SGLANG_DISAGG_PREFILL_EARLY_SEND_CACHED_PREFIX"))
"""
    run = [sys.executable, "-c", load]
    with gpu_parts.early_send_forced():
        inside = subprocess.run(run, capture_output=True, text=True, check=True)
    assert (inside.stdout.strip(), gpu_parts.EARLY_SEND in inside.stderr) == ("1", True)
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == "None"


def test_quantised_answers_are_judged_by_plain_weights_of_the_same_values(
    gpu_first: ModuleType, gpu_parts: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"num_hidden_layers": 1, "hidden_size": 128, "intermediate_size": 128, "head_dim": 64}
    monkeypatch.setitem(gpu_parts.SHAPES, "tiny", small)
    options = options_of(gpu_first, tmp_path, "--dry-run", "--quantisation", "awq")
    for _ in range(2):  # the second time it is there already
        zoo = gpu_parts.random_zoo(options)
        plain = gpu_parts.plain_checkpoints(options, zoo)
        assert plain.keys() == {zoo.base.name, "m1"}
    assert zoo.base.quantisation == "awq of 4 bits, groups of 128"
    assert gpu_parts.plain_checkpoints(options_of(gpu_first, tmp_path), zoo) == {}


def test_one_pool_is_tried_with_cuda_graphs(gpu_first: ModuleType, gpu_parts: ModuleType, tmp_path: Path) -> None:
    from measuring import one_pool

    options = one_pool.with_graphs(
        options_of(gpu_first, tmp_path, "--engine-arg=--attention-backend", "--engine-arg=fa3")
    )
    arguments = gpu_parts.launch_arguments(options, fleet=one_pool.shared(64), kv_tokens=False)
    assert arguments[arguments.index("--transfer") + 1 : arguments.index("--")] == ["shared", "--page-size", "64"]
    assert "--kv-tokens" not in arguments
    assert arguments.index("triton") < arguments.index("fa3")
    assert not [argument for argument in arguments if "cuda-graph" in argument]


@pytest.mark.parametrize(
    ("wrong", "passed"),
    [
        ({}, True),
        ({"page_64": {"passed": False}}, False),
        ({"restart": {"whole_answers": 3, "out_of_memory": False}}, False),
        ({"restart": {"whole_answers": 4, "out_of_memory": True}}, False),
    ],
)
def test_one_pool_passes_with_right_answers_and_a_restart_that_lost_none(
    gpu_parts: ModuleType, wrong: dict[str, Any], passed: bool
) -> None:
    from measuring import one_pool

    right = {"page_16": {"passed": True}, "page_64": {"passed": True}}
    assert one_pool.passed(right | {"restart": {"whole_answers": 4, "out_of_memory": False}} | wrong) == passed


def test_one_pool_is_a_quarter_of_an_hour_of_its_own(gpu_parts: ModuleType) -> None:
    limits = gpu_parts.LIMITS_S
    assert gpu_parts.ON_ITS_OWN == ("one-pool",)
    assert sum(limits.values()) - limits["one-pool"] < 12 * 60
    assert limits["one-pool"] < 15 * 60
    assert limits.keys() == gpu_parts.PARTS.keys()
