"""The process that forks servers, without SGLang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from psserve.engine import preload, worker
from psserve.engine.preload import StartRequest


def end_of(main: object, log: Path, monkeypatch: pytest.MonkeyPatch, **env: str) -> int:
    """The exit code of a forked server that runs `main`, with `env` in its environment."""
    monkeypatch.setattr(worker, "main", main)
    monkeypatch.setattr(sys, "stderr", open(2, "w", closefd=False))  # noqa: SIM115 - pytest's own is another file
    pid = preload._fork(StartRequest("decode-a-0", ["--port", "1"], {"PATH": "/bin", **env}, str(log)))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_what_a_server_dies_of_is_in_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: list[str]) -> int:
        raise ValueError(f"cannot serve {arguments}")

    assert end_of(broken, tmp_path / "log", monkeypatch) == 1
    assert (tmp_path / "log").read_text().endswith("ValueError: cannot serve ['--port', '1']\n")


@pytest.mark.parametrize(("code", "status"), [(2, 2), (None, 0), ("a message", 1)])
def test_a_server_that_exits_keeps_its_status(
    code: int | str | None, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaving(arguments: list[str]) -> int:
        raise SystemExit(code)

    assert end_of(leaving, tmp_path / "log", monkeypatch) == status


@pytest.mark.parametrize("threads", [1, 3])
def test_a_server_computes_with_the_threads_of_its_own_environment(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def threads_used(arguments: list[str]) -> int:
        return torch.get_num_threads()

    assert end_of(threads_used, tmp_path / "log", monkeypatch, OMP_NUM_THREADS=str(threads)) == threads


def run_main(before: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The preloaded process with its standard input closed; `before` is run first."""
    return subprocess.run(
        [sys.executable, "-c", f"from psserve.engine import preload\n{before}\nraise SystemExit(preload.main())"],
        env={**os.environ, **environ},
        input="",
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_packages_print_on_import_is_no_event() -> None:
    done = run_main("preload.import_sglang = lambda: (print('hello'), preload.os.system('echo world'))")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"event": "loaded"}]
    assert sorted(done.stderr.split()) == ["hello", "world"]


def test_an_unsupported_release_is_said_before_anything_of_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "sglang-0.0.1.dist-info").mkdir()
    (tmp_path / "sglang-0.0.1.dist-info" / "METADATA").write_text("Name: sglang\nVersion: 0.0.1\n")
    done = run_main("", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("psserve: error: sglang 0.0.1 is not supported")


def test_a_server_is_forked_and_its_end_is_told(tmp_path: Path) -> None:
    request = {"name": "decode-a-0", "arguments": [], "env": {"PATH": "/bin"}, "log": str(tmp_path / "log")}
    code = "from psserve.engine import preload\npreload.import_sglang = lambda: None\nraise SystemExit(preload.main())"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(json.dumps(request) + "\n")
        running.stdin.flush()
        loaded, started, ended = (json.loads(running.stdout.readline()) for _ in range(3))
        running.stdin.close()
        assert running.wait() == 0
    assert loaded == {"event": "loaded"}
    assert started == {"event": "started", "name": "decode-a-0", "pid": ended["pid"]}
    assert ended == {"event": "ended", "pid": started["pid"], "code": 2}  # it was given no role
    assert "--disaggregation-mode" in (tmp_path / "log").read_text()
