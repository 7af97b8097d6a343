"""The worker's entry point."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from psserve import torchvision_ops
from psserve.engine import plugin, worker
from psserve.engine.worker import main, with_key
from psserve.errors import UsageError


def test_a_users_mistake_gives_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("psserve: error: --disaggregation-mode")


@pytest.fixture(autouse=True)
def stock_log_records() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


def test_the_key_is_masked_in_logs(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("PSSERVE_WORKER_KEY", "secret")
    with_key([])
    with caplog.at_level(logging.INFO):
        logging.getLogger("sglang").info("server_args=ServerArgs(api_key='secret')")
        logging.getLogger("sglang").info("%s of %d%%", {"api_key": "secret"}, 3)
        logging.getLogger("sglang").info("%d requests", 3)
    assert caplog.messages == ["server_args=ServerArgs(api_key='***')", "{'api_key': '***'} of 3%", "3 requests"]


def test_a_message_that_does_not_fit_its_arguments_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSSERVE_WORKER_KEY", "secret")
    with_key([])
    record = logging.getLogRecordFactory()("sglang", logging.INFO, "x.py", 1, "%d", ("three",), None)
    assert record.msg == "%d"


def test_the_key_is_taken_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSSERVE_WORKER_KEY", "secret")
    assert with_key(["--port", "1"]) == ["--port", "1", "--api-key", "secret"]
    assert with_key(["--port", "1"]) == ["--port", "1"]


def test_what_sglang_made_of_the_line_is_checked_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision_ops.declare_missing()
    from sglang.srt import plugins, server_args

    read = SimpleNamespace(disaggregation_mode="prefill")
    monkeypatch.setattr(plugins, "load_plugins", lambda: None)
    monkeypatch.setattr(server_args, "prepare_server_args", lambda arguments: read)
    monkeypatch.setattr(plugin, "loaded", True)
    monkeypatch.setenv("PSSERVE_ROLE", "decode")
    with pytest.raises(UsageError, match="as those of a prefill server"):
        worker.serve([])
